"""Linear regression, where the response map has a closed form.

The risk is R_w(θ) = Σ_i w_i ½(y_i − x_iᵀθ)², with θ(w) = (XᵀWX)⁻¹XᵀWy and, at w = 1, θ*.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import solve_triangular

from ifcore import inputs

UNIT = np.finfo(float).eps / 2  # u, the unit roundoff
BLOCK = 2**24  # numbers in one block of stacked factorisations: 128 MiB
ROWS = 1024  # rows of X worked on together: they stay in the cache from the product to the sum
FEW = 32  # unit roundoffs in a residual that is 0 but for rounding
FOUND, GONE, EXACT = "found", "leverage 1", "exact fit"  # what is said of an example
STATUS = "<U10"


class RankDeficient(np.linalg.LinAlgError):
    """A least-squares problem without a unique minimiser. `row` is the offending weight vector."""

    def __init__(self, message, row=None):
        super().__init__(message)
        self.row = row


def fit(X, y, weights=None):
    """θ(w), the minimiser of Σ_i w_i ½(y_i − x_iᵀθ)²; many weight vectors at once.

    X : (n, d), y : (n,). weights : (n,), or (m, n) for m fits, each weight at least 0; None is
    w = 1. Returns θ, (d,) or (m, d).

    By Householder QR of [√W X, √W y], hence backward stable in the columns of √W X, whatever their
    units. Raises RankDeficient (naming the rank) where √W X has rank below d, OverflowError where
    the parameters do not fit a float64.
    Source: the notes' θ̂ = (XᵀX)⁻¹Xᵀy, "Influence functions vs leverage", with weights.
    Memory: 8 (3 b n (d + 2) + m d) bytes, with b = min(m, 2²⁴/(n d)) fits in a block, at least one.
    """
    labels = inputs.labels(X)
    X, y = inputs.examples(X, y)
    W, single = inputs.weights(weights, len(y), rows=labels)
    d = X.shape[1]
    table = np.column_stack([X, y])
    sizes, theta = _sizes(X), np.empty((len(W), d))
    step = max(1, BLOCK // table.size)
    for start in range(0, len(W), step):
        block = W[start : start + step]
        scale = block.max(axis=1, keepdims=True)  # θ(cw) = θ(w): no under- or overflow in √w
        R = _triangles(table, sizes, block / scale, None if weights is None else start)
        theta[start : start + step] = np.linalg.solve(R[:, :d, :d], R[:, :d, d:])[..., 0]
    _require_finite(theta)
    return theta[0] if single else theta


def any_minimiser(seed, X, y):
    """A random minimiser of ‖y − Xθ‖², X of any rank: X⁺y and a normal vector of the kernel, (d,).

    X : (n, d), y : (n,). seed : an integer, or a NumPy Generator to draw from. Singular values
    below 10⁻⁸ of the largest count as 0.
    Memory: 8 (3 n d + d²) bytes.
    """
    X, y = inputs.examples(X, y)
    inverse = np.linalg.pinv(X, rcond=1e-8)
    free = inputs.generator(seed).standard_normal(X.shape[1])
    return inverse @ y + free - inverse @ (X @ free)


class LeftOut(NamedTuple):
    """The leave-one-out fit of every example, and whether there is one."""

    theta: np.ndarray  #: (n, d), row j is θ*₋ⱼ; NaN where there is none
    status: np.ndarray  #: (n,), "found", or "leverage 1": the minimiser without j is not unique


def leave_one_out(X, y, weights=None, *, strict=False):
    """θ*₋ⱼ for every j: the minimisers of Σ_{i≠j} w_i ½(y_i − x_iᵀθ)², all at once.

    X : (n, d), y : (n,). weights : (n,), each at least 0; None is w = 1. Returns LeftOut.

    With G = XᵀWX, the leverage h_j = w_j x_jᵀG⁻¹x_j and the residual ê_j = y_j − x_jᵀθ*,

        θ*₋ⱼ = θ* − w_j G⁻¹x_j ê_j / (1 − h_j).

    G is factorised by Cholesky where its condition number leaves the answer as accurate as a
    backward-stable solver's, u·κ(1 + κ‖ê‖/(‖X‖‖θ*‖)), and √W X by Householder QR otherwise. The
    few points for which the formula loses digits (h_j > ½, or ‖θ*₋ⱼ‖ far below ‖θ*‖) are refitted.
    Where h_j = 1 the minimiser without example j is not unique: its row is NaN, with its status and
    one warning that names all such rows; where `strict`, RankDeficient is raised instead. It is
    raised, too, where √W X has rank below d, or n = d and so every leverage is 1.
    Source: Hayashi (2000), the notes' "Influence functions vs leverage".
    Memory: 8 (n d + 5 d² + 6 n) bytes by Cholesky; 8 (5 n d + d² + 6 n) bytes by QR.
    """
    X, y, w, _ = _problem(X, y, weights)
    n, d = X.shape

    def leave_out(Z, residual, h, w, theta):  # G⁻¹x_j becomes θ*₋ⱼ
        Z *= (w * residual / (h - 1))[:, None]
        Z += theta

    inputs.flag(strict, "strict")
    theta, _, h, out, _ = _each(X, y, w, leave_out, limit=1e4)
    if n <= d:
        raise RankDeficient(
            f"leave-one-out needs n − 1 ≥ d; got n = {n} and d = {d}, so no point can be left out",
            0,
        )
    with np.errstate(all="ignore"):
        plain = 1e-200 < theta @ theta < 1e200
        size = np.sqrt(np.einsum("ij,ij->i", out, out)) if plain else _norms(out)
        again = np.flatnonzero(~((h <= 0.5) & (16 * size >= _norms(theta))))
    status, missing = np.full(n, FOUND, STATUS), []
    for j in again:
        refit = _without(X, y, w, j)
        if refit is None:
            missing.append(j)
        else:
            out[j] = refit.theta
    status[missing], out[missing] = GONE, 0
    if not np.isfinite(size).all():  # else every entry is
        _require_finite(out)
    out[missing] = np.nan
    _tell(missing, d, strict)
    return LeftOut(out, status)


class Diagnostics(NamedTuple):
    """What the whole fit says of each example, and of its leave-one-out fit.

    n counts the examples of positive weight; s² = Σ_i w_i ê_i²/(n − d), and s²₋ⱼ is that of the fit
    without example j.
    """

    theta: np.ndarray  #: (d,), θ*
    residual: np.ndarray  #: (n,), ê_j = y_j − x_jᵀθ*
    leverage: np.ndarray  #: (n,), h_j
    left_out_residual: np.ndarray  #: (n,), y_j − x_jᵀθ*₋ⱼ = ê_j/(1 − h_j)
    influence: np.ndarray  #: (n, d), ∂θ/∂w_j: G⁻¹x_j ê_j
    s2: float  #: s²
    internal: np.ndarray  #: (n,), the internally studentised residual √w_j ê_j/(s√(1 − h_j))
    external: np.ndarray  #: (n,), the externally studentised one, with s₋ⱼ for s
    cooks_distance: np.ndarray  #: (n,), ‖√W X(θ*₋ⱼ − θ*)‖²/(d s²)
    dffits: np.ndarray  #: (n,), √w_j x_jᵀ(θ* − θ*₋ⱼ)/(s₋ⱼ√h_j)
    dfbetas: np.ndarray  #: (n, d), (θ* − θ*₋ⱼ)_k/(s₋ⱼ√(G⁻¹)_kk)
    covratio: np.ndarray  #: (n,), det(s²₋ⱼ G₋ⱼ⁻¹)/det(s²G⁻¹) = (s²₋ⱼ/s²)ᵈ/(1 − h_j)
    status: np.ndarray  #: (n,), "found", "leverage 1" or "exact fit"


def leverage(X, weights=None):
    """h_j = w_j x_jᵀ(XᵀWX)⁻¹x_j of every row: (n,), each in [0, 1], with sum d.

    X : (n, d). weights : (n,), each at least 0; None is w = 1. By Cholesky where √W X is
    well-conditioned, by Householder QR otherwise. Raises RankDeficient where √W X has rank below d.
    Source: Definition 3, the leverage score.
    Memory: 8 (n d + 5 d² + 6 n) bytes by Cholesky; 8 (5 n d + d² + 6 n) bytes by QR.
    """
    X, _, w, _ = _problem(X, np.zeros(inputs.real(X, "X").shape[:1]), weights)
    h = _each(X, np.zeros(len(w)), w, lambda *_: None, limit=100)[2]
    return np.minimum(np.where(w > 0, h, 0), 1)


def diagnostics(X, y, weights=None, *, strict=False):
    """Leverage, studentised residuals, influence and what else is said of every example.

    X : (n, d), y : (n,). weights : (n,), each at least 0; None is w = 1. At least d + 2 of them are
    positive, for the externally studentised residuals. Returns Diagnostics.

    By Cholesky where √W X is well-conditioned, by Householder QR otherwise. An example with
    h_j > ½, or with most of the sum of squares, is refitted without: 1 − h_j and s₋ⱼ would lose
    digits as differences. An example of weight 0 has h_j = 0 and θ*₋ⱼ = θ*; its studentised
    residuals are 0.

    What does not exist is NaN, with its status and one warning: where h_j = 1, all that needs the
    fit without example j (where `strict`, RankDeficient is raised instead); where the fit is exact
    but for rounding, all that is divided by s. Where only the fit without j is exact, s₋ⱼ = 0 and
    its external residual is infinite. s² alone can under- or overflow.
    Raises RankDeficient where √W X has rank below d, ValueError for too few examples,
    OverflowError where θ* or the influence do not fit a float64.
    Source: the notes' "Example: IFs for OLS"; Cook and Weisberg (1983); Belsley, Kuh and Welsch
    (1980) for the last three.
    Memory: 8 (2 n d + 5 d² + 16 n) bytes by Cholesky; 8 (5 n d + d² + 8 n) bytes by QR.
    """
    X, y, w, unit = _problem(X, y, weights)
    n, d = np.count_nonzero(w), X.shape[1]

    def weigh(Z, residual, h, w, theta):  # G⁻¹x_j becomes G⁻¹x_j ê_j
        Z *= residual[:, None]

    inputs.flag(strict, "strict")
    theta, residual, h, influence, spread = _each(X, y, w, weigh, limit=100)
    if n < d + 2:
        raise ValueError(
            f"studentised residuals need n ≥ d + 2 examples of positive weight; "
            f"got n = {n} and d = {d}"
        )
    left, root, missing = _without_each(X, y, w, residual, h, influence)
    status = np.full(len(w), FOUND, STATUS)
    exact = _is_rounding(X, y, w, theta, residual, root)
    if exact:
        status[:] = EXACT
        inputs.warn("the fit is exact to rounding: what is divided by s is NaN")
    status[missing] = GONE
    _tell(missing, d, strict)
    with np.errstate(all="ignore"):
        s = _norms(np.sqrt(w) * residual) / np.sqrt(n - d)
        divisor = np.nan if exact else s
        per_s = np.sqrt(w) * left / divisor
        internal = per_s * root
        ratio = _deleted_variance(X, y, w, s, internal, root)
        dfbetas = influence / spread
        dfbetas *= (w / root**2 / divisor / np.sqrt(ratio))[:, None]
        dfbetas[w == 0] = 0 / divisor  # however large their influence
        if unit != 1:
            influence /= unit
        found = Diagnostics(
            theta,
            residual,
            leverage=h,
            left_out_residual=left,
            influence=influence,
            s2=s**2 * unit,
            internal=internal,
            external=internal / np.sqrt(ratio),
            cooks_distance=per_s**2 * h / d,
            dffits=per_s * np.sqrt(h / ratio),
            dfbetas=dfbetas,
            covratio=ratio**d / root**2,
            status=status,
        )
        _require_finite(theta)
        _require_finite(influence.sum(axis=1)[w > 0])
    return found


def _problem(X, y, weights):
    """X, y, the weights (n,) over a power of two that brings the largest to [1, 2), and that."""
    labels = inputs.labels(X)
    X, y = inputs.examples(X, y)
    W, single = inputs.weights(weights, len(y), rows=labels)
    if not single:
        raise ValueError(f"weights must be one vector ({len(y)},); got shape {W.shape}")
    unit = np.ldexp(1.0, int(np.frexp(W.max())[1]) - 1)
    return X, y, W[0] / unit, unit


def _each(X, y, w, finish, limit):
    """θ* (d,), ê (n,), h (n,), the rows G⁻¹x_j (n, d) as `finish` leaves them, √(G⁻¹)_kk (d,).

    finish(rows, ê, h, w, θ*) has worked on the rows in place. By Cholesky where κ(√W X) is below
    `limit` and no digit is lost that QR would keep, by QR otherwise.
    """
    found = _each_by_cholesky(X, y, w, finish, limit)
    return _each_by_qr(X, y, w, finish) if found is None else found


@np.errstate(all="ignore")  # what over- or underflows here is left to QR
def _each_by_cholesky(X, y, w, finish, limit):
    """One GEMM with G⁻¹; None where the result could be less accurate than by QR."""
    n = len(X)
    try:
        L = np.linalg.cholesky(_gram(X, w))
        inverse = np.linalg.inv(L)
    except np.linalg.LinAlgError:
        return None
    kappa = _norm_bound(L) * _norm_bound(inverse)
    if not kappa < limit:
        return None  # at 1e4, one step of refinement leaves θ* an error (κ²u)² = u
    G_inverse = inverse.T @ inverse
    theta = G_inverse @ ((w * y) @ X)
    theta += G_inverse @ sum((w[r] * (y[r] - X[r] @ theta)) @ X[r] for r in _blocks(n))
    out, residual, h = np.empty_like(X), np.empty(n), np.empty(n)
    for rows in _blocks(n):
        Z = np.matmul(X[rows], G_inverse, out=out[rows])
        residual[rows] = y[rows] - X[rows] @ theta
        h[rows] = w[rows] * np.einsum("ij,ij->i", X[rows], Z)
        finish(Z, residual[rows], h[rows], w[rows], theta)
    if not h.max() <= 0.5:
        return None
    # κ²u is the relative error of a shift of at most ‖L⁻¹‖√(hw)|ê|/(1 − h); both are over uκ.
    weighted = np.sqrt(w) * residual
    shift = _norm_bound(inverse) * np.max(np.sqrt(h) * np.abs(weighted) / (1 - h))
    columns = np.linalg.norm(inverse, axis=0)  # its largest is at most ‖L⁻¹‖ = κ/‖√W X‖
    allowed = np.linalg.norm(theta) + columns.max() * np.linalg.norm(weighted)
    return (theta, residual, h, out, columns) if kappa * shift <= allowed < np.inf else None


def _gram(X, w):
    """XᵀWX."""
    rows = X if (w == 1).all() else np.sqrt(w)[:, None] * X
    return rows.T @ rows


def _norm_bound(A):
    """An upper bound of ‖A‖₂, at most √d above it."""
    return np.sqrt(np.linalg.norm(A, 1)) * np.sqrt(np.linalg.norm(A, np.inf))


@np.errstate(all="ignore")  # a leverage of 1 and what overflows are for the caller to refuse
def _each_by_qr(X, y, w, finish):
    """As `_each`, by Householder QR of √W X."""
    root, whole = np.sqrt(w), (w == 1).all()
    order = _largest_first(root * _sizes(X))
    A, b = X[order], (root * y)[order]
    if not whole:
        A *= root[order, None]
    Q, R = np.linalg.qr(A)
    _require_full_rank(R[None], len(X), None if whole else 0)
    c = Q.T @ b
    theta, e = solve_triangular(R, c), b - Q @ c
    e -= Q @ (Q.T @ e)
    if _unlike(order, b):  # one step of refinement (Björck)
        f = b - e - A @ theta
        step = solve_triangular(R, Q.T @ f + solve_triangular(R, A.T @ e, trans="T"))
        theta += step
        e += f - A @ step
    del A
    if whole:
        residual, half = np.empty_like(y), np.empty_like(X)
        residual[order], half[order] = e, Q
    else:  # a row of Q over √w_j would lose the digits of a small weight
        residual, half = y - X @ theta, solve_triangular(R, X.T, trans="T").T
    del Q
    h = w * np.einsum("ij,ij->i", half, half)
    out = np.ascontiguousarray(solve_triangular(R, half.T).T)
    finish(out, residual, h, w, theta)
    return theta, residual, h, out, _norms(solve_triangular(R, np.eye(len(R))))


class _Without(NamedTuple):
    """The fit without example j, and what it says of that example."""

    theta: np.ndarray  #: (d,), θ*₋ⱼ
    row: np.ndarray  #: (d,), G₋ⱼ⁻¹x_j
    share: float  #: √(w_j x_jᵀG₋ⱼ⁻¹x_j), so that 1 − h_j = 1/(1 + share²)


def _without(X, y, w, j):
    """The fit without example j by Householder QR; None where X without it has rank below d."""
    others = np.where(np.arange(len(w)) == j, 0, w)
    scale = others.max() or 1.0
    others /= scale
    sizes = _sizes(X)
    try:
        table = _triangles(np.column_stack([X, y]), sizes, others[None])[0]
    except RankDeficient:
        return None
    R, c = table[:-1, :-1], table[:-1, -1]
    theta = np.linalg.solve(R, c)
    root = np.sqrt(others)
    if _unlike(_largest_first(root * sizes), root * y):  # by the seminormal equations
        gradient = (others * (y - X @ theta)) @ X
        theta += solve_triangular(R, solve_triangular(R, gradient, trans="T"))
    half = solve_triangular(R, X[j], trans="T")
    row = solve_triangular(R, half)
    return _Without(theta, row / scale, np.sqrt(w[j] / scale) * _norms(half))


@np.errstate(all="ignore")  # where h_j = 1
def _without_each(X, y, w, residual, h, influence):
    """Left-out residuals (n,), √(1 − h) (n,), and the examples of leverage 1, NaN in both.

    Where h_j > ½ they come from the refit without j, and ê_j, h_j and the influence are corrected.
    """
    left, root, missing = residual / (1 - h), np.sqrt(1 - h), []
    for j in np.flatnonzero(~(h <= 0.5)):
        refit = _without(X, y, w, j)
        if refit is None:
            missing.append(j)
            continue
        root[j] = 1 / np.hypot(1, refit.share)
        left[j] = y[j] - X[j] @ refit.theta
        h[j] = 1 - root[j] ** 2
        residual[j] = left[j] * root[j] ** 2
        influence[j] = refit.row * root[j] ** 2 * residual[j]
    left[missing] = root[missing] = np.nan
    h[missing], residual[missing], influence[missing] = 1, 0, 0
    return left, root, missing


def _deleted_variance(X, y, w, s, internal, root):
    """s²₋ⱼ/s² (n,): a difference, or from the refit without j where that would lose digits."""
    total = np.count_nonzero(w) - X.shape[1]
    ratio = (total - internal**2) / (total - (w > 0))
    for j in np.flatnonzero(internal**2 > total / 2):
        theta = _without(X, y, w, j).theta
        others = np.where(np.arange(len(w)) == j, 0, w)
        residual = y - X @ theta
        norm = (
            0
            if _is_rounding(X, y, others, theta, residual, root)
            else _norms(np.sqrt(others) * residual)
        )
        ratio[j] = (norm / s) ** 2 / (total - 1)
    return ratio


def _is_rounding(X, y, w, theta, residual, root):
    """Whether ‖√W ê‖ is what rounding leaves of an exact fit, of each y_i and each term of x_iᵀθ.

    Rounding of size δ_j in example j moves another residual by at most δ_j√(1 − h_j).
    """
    size = np.abs(theta)
    terms = np.concatenate([np.abs(X[r]) @ size for r in _blocks(len(y))]) + np.abs(y)
    moved = np.where((w > 0) & (root > 0), np.sqrt(w) * root * terms, 0)
    return _norms(np.sqrt(w) * residual) <= FEW * UNIT * _norms(moved)


def _tell(missing, d, strict):
    """One warning of the examples of leverage 1; where `strict`, raises RankDeficient."""
    if not missing:
        return
    if strict:
        j = int(missing[0])
        raise RankDeficient(
            f"the leave-one-out fit of example j = {j} does not exist: its leverage is 1, "
            f"and the other rows of X have rank {d - 1} < d = {d}",
            j,
        )
    named = ", ".join(str(j) for j in missing)
    inputs.warn(
        f"without an example of leverage 1 the minimiser is not unique, its row NaN: j = {named}"
    )


def _triangles(table, sizes, W, first=None):
    """R of the QR of √W [X, y] for each row of W (m, n), its rows from large to small.

    Raises RankDeficient as `_require_full_rank`, for weight vectors first, first + 1, …
    """
    root = np.sqrt(W)
    order = _largest_first(root * sizes)
    if (order == np.arange(len(table))).all():
        R = np.linalg.qr(root[:, :, None] * table, mode="r")
    else:
        rows = np.take_along_axis(root, order, axis=1)[:, :, None] * table[order]
        R = np.linalg.qr(rows, mode="r")
    _require_full_rank(R[:, :, :-1], len(table), first)
    return R


def _sizes(X):
    """The largest entry of each row, the units of the columns taken out."""
    units = np.maximum(X.max(axis=0), -X.min(axis=0))
    units[units == 0] = 1
    return np.concatenate([np.abs(X[r] / units).max(axis=1) for r in _blocks(len(X))])


def _largest_first(sizes):
    """The order of rows from large to small where they differ by over 2⁹, else as they came.

    Householder QR is then stable row by row, too: Cox and Higham (1998).
    """
    top = sizes.max(axis=-1, keepdims=True)
    exponents = np.frexp(sizes / np.where(top > 0, top, 1))[1]  # 0 for a row of zeros
    differ = exponents.min(axis=-1, keepdims=True) < -8
    places = np.where(sizes > 0, -exponents, 2000)
    return np.argsort(np.where(differ, places, 0), axis=-1, kind="stable")


def _unlike(order, b):
    """Whether large rows of √W [X, y] have left their rounding in small ones."""
    return (np.diff(order) < 0).any() or np.abs(b).max() > 2**9 * np.median(np.abs(b))


def _blocks(n):
    return [slice(start, start + ROWS) for start in range(0, n, ROWS)]


def _norms(A):
    """‖·‖ over the last axis, by a power of two such that no square under- or overflows."""
    unit = np.ldexp(1.0, np.frexp(np.abs(A).max(axis=-1, keepdims=True))[1] - 1)
    A = A / unit
    return unit[..., 0] * np.sqrt(np.einsum("...j,...j->...", A, A))


def _require_full_rank(R, n, first=None):
    """Raises RankDeficient where a triangular factor has rank below d.

    R : (m, r, d) triangular factors, of weight vectors first, first + 1, … or (None) of X itself.
    The rank is that of R with the units of its columns taken out.
    """
    d = R.shape[-1]
    units = np.abs(R).max(axis=1, keepdims=True)
    values = np.linalg.svd(R / np.where(units > 0, units, 1), compute_uv=False)
    rank = (values > 2 * UNIT * max(n, d) * values[:, :1]).sum(axis=1)
    if (rank < d).any():
        row = int(np.argmax(rank < d))
        which = "" if first is None else f", its rows weighted by weight vector {first + row},"
        raise RankDeficient(
            f"X{which} must have full column rank d = {d} for a unique minimiser; "
            f"got rank {rank[row]} from {n} rows",
            row + (first or 0),
        )


def _require_finite(theta):
    if not np.isfinite(theta).all():
        raise OverflowError(
            "the parameters overflow float64: X has columns too small beside y; rescale them"
        )
