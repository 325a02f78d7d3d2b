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


class RankDeficient(np.linalg.LinAlgError):
    """A least-squares problem without a unique minimiser. `row` is the offending weight vector."""

    def __init__(self, message, row):
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
    """
    X, y = inputs.examples(X, y)
    W, single = inputs.weights(weights, len(y))
    n, d = X.shape
    table = np.column_stack([X, y])
    theta = np.empty((len(W), d))
    step = max(1, BLOCK // table.size)
    for start in range(0, len(W), step):
        block = W[start : start + step]
        scale = block.max(axis=1, keepdims=True)  # θ(cw) = θ(w): no under- or overflow in √w
        R = np.linalg.qr(np.sqrt(block / scale)[:, :, None] * table, mode="r")
        _require_full_rank(R[:, :, :d], n, None if weights is None else start)
        theta[start : start + step] = np.linalg.solve(R[:, :d, :d], R[:, :d, d:])[..., 0]
    _require_finite(theta)
    return theta[0] if single else theta


def any_minimiser(seed, X, y):
    """A random minimiser of ‖y − Xθ‖², X of any rank: X⁺y and a normal vector of the kernel, (d,).

    X : (n, d), y : (n,). seed : an integer, or a NumPy Generator to draw from. Singular values
    below 10⁻⁸ of the largest count as 0.
    """
    X, y = inputs.examples(X, y)
    inverse = np.linalg.pinv(X, rcond=1e-8)
    free = np.random.default_rng(seed).standard_normal(X.shape[1])
    return inverse @ y + free - inverse @ (X @ free)


def leave_one_out(X, y):
    """θ*₋ⱼ for every j: the minimisers of Σ_{i≠j} ½(y_i − x_iᵀθ)², all at once.

    X : (n, d), y : (n,). Returns (n, d), row j the parameters fitted without example j.

    With G = XᵀX, the leverage h_j = x_jᵀG⁻¹x_j and the residual ê_j = y_j − x_jᵀθ*,

        θ*₋ⱼ = θ* − G⁻¹x_j ê_j / (1 − h_j).

    G is factorised by Cholesky where its condition number leaves the answer as accurate as a
    backward-stable solver's, u·κ(1 + κ‖ê‖/(‖X‖‖θ*‖)), and X by Householder QR otherwise. The few
    points for which the formula loses digits (h_j > ½, or ‖θ*₋ⱼ‖ far below ‖θ*‖) are refitted.
    Raises RankDeficient where X has rank below d, and where some h_j = 1: without that example the
    minimiser is not unique. Source: Hayashi (2000), the notes' "Influence functions vs leverage".
    """
    X, y = inputs.examples(X, y)
    n, d = X.shape

    def leave_out(Z, residual, h, theta):  # G⁻¹x_j becomes θ*₋ⱼ
        Z *= (residual / (h - 1))[:, None]
        Z += theta

    theta, _, h, out = _each(X, y, leave_out, limit=1e4)
    if n <= d:
        raise RankDeficient(
            f"leave-one-out needs n − 1 ≥ d; got n = {n} and d = {d}, so no point can be left out",
            0,
        )
    with np.errstate(all="ignore"):
        size = np.sqrt(np.einsum("ij,ij->i", out, out))
        again = np.flatnonzero(~((h <= 0.5) & (16 * size >= np.linalg.norm(theta))))
    if again.size:
        without = np.ones((again.size, n))
        without[np.arange(again.size), again] = 0
        try:
            out[again] = fit(X, y, without)
        except RankDeficient as error:
            j = int(again[error.row])
            raise RankDeficient(
                f"the leave-one-out fit of example j = {j} does not exist: its leverage is 1, "
                f"and the other rows of X have rank {d - 1} < d = {d}",
                j,
            ) from None
    if not np.isfinite(size).all():  # else every entry is
        _require_finite(out)
    return out


class Diagnostics(NamedTuple):
    """What the whole fit says of each example, and of its leave-one-out fit; s² = ‖ê‖²/(n − d)."""

    theta: np.ndarray  #: (d,), θ*
    residual: np.ndarray  #: (n,), ê_j = y_j − x_jᵀθ*
    leverage: np.ndarray  #: (n,), h_j
    left_out_residual: np.ndarray  #: (n,), y_j − x_jᵀθ*₋ⱼ = ê_j/(1 − h_j)
    influence: np.ndarray  #: (n, d), ∂θ/∂w_j at w = 1: G⁻¹x_j ê_j
    s2: float  #: s²
    internal: np.ndarray  #: (n,), the internally studentised residual ê_j/(s√(1 − h_j))
    external: np.ndarray  #: (n,), the externally studentised one, with s² of the fit without j
    cooks_distance: np.ndarray  #: (n,), ‖X(θ*₋ⱼ − θ*)‖²/(d s²)


def leverage(X):
    """h_j = x_jᵀ(XᵀX)⁻¹x_j of every row: (n,), each in [0, 1], with sum d.

    X : (n, d). By Cholesky where X is well-conditioned, by Householder QR otherwise.
    Raises RankDeficient where X has rank below d. Source: Definition 3, the leverage score.
    """
    X, y = inputs.examples(X, np.zeros(np.shape(X)[:1]))
    return np.clip(_each(X, y, lambda *_: None, limit=100)[2], 0, 1)


def diagnostics(X, y):
    """Leverage, studentised residuals, Cook's distance and influence of every example.

    X : (n, d), y : (n,), n ≥ d + 2 for the externally studentised residuals. Returns Diagnostics.
    By Cholesky where X is well-conditioned, by Householder QR otherwise. Raises RankDeficient where
    X has rank below d, or some h_j = 1; ValueError for too few rows. Where s = 0 the studentised
    residuals are NaN.
    Source: the notes' "Example: IFs for OLS"; Cook and Weisberg (1983).
    """
    X, y = inputs.examples(X, y)
    n, d = X.shape

    def weigh(Z, residual, h, theta):  # G⁻¹x_j becomes G⁻¹x_j ê_j
        Z *= residual[:, None]

    theta, residual, h, influence = _each(X, y, weigh, limit=100)
    if n < d + 2:
        raise ValueError(f"studentised residuals need n ≥ d + 2 examples; got n = {n} and d = {d}")
    rest = 1 - h
    if (rest <= 4 * n * UNIT).any():
        j = int(np.argmin(rest))
        raise RankDeficient(
            f"example j = {j} has leverage 1: its residual is 0, and nothing can be said of it", j
        )
    s2 = residual @ residual / (n - d)
    # s² of the fit without j
    without = np.maximum((n - d) * s2 - residual**2 / rest, 0) / (n - d - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        internal = residual / np.sqrt(s2 * rest)
        external = residual / np.sqrt(without * rest)
        cooks = internal**2 * h / (d * rest)
    return Diagnostics(
        theta, residual, h, residual / rest, influence, s2, internal, external, cooks
    )


def _each(X, y, finish, limit):
    """θ* (d,), ê (n,), h (n,), and the rows G⁻¹x_j (n, d) as `finish` leaves them.

    finish(rows, ê, h, θ*) has worked on the rows in place. By Cholesky where κ(X) is below `limit`
    and no digit is lost that QR would keep, by QR otherwise.
    """
    found = _each_by_cholesky(X, y, finish, limit)
    return _each_by_qr(X, y, finish) if found is None else found


@np.errstate(all="ignore")  # what over- or underflows here is left to QR
def _each_by_cholesky(X, y, finish, limit):
    """One GEMM with G⁻¹; None where the result could be less accurate than by QR."""
    n, d = X.shape
    try:
        L = np.linalg.cholesky(X.T @ X)
        inverse = np.linalg.inv(L)
    except np.linalg.LinAlgError:
        return None
    kappa = _norm_bound(L) * _norm_bound(inverse)
    if not kappa < limit:  # at 1e4, one step of refinement leaves θ* an error (κ²u)² = u
        return None
    G_inverse = inverse.T @ inverse
    blocks = [slice(start, start + ROWS) for start in range(0, n, ROWS)]
    theta = G_inverse @ (y @ X)
    theta += G_inverse @ sum((y[rows] - X[rows] @ theta) @ X[rows] for rows in blocks)
    out, residual, h = np.empty_like(X), np.empty(n), np.empty(n)
    for rows in blocks:
        Z = np.matmul(X[rows], G_inverse, out=out[rows])
        residual[rows] = y[rows] - X[rows] @ theta
        h[rows] = np.einsum("ij,ij->i", X[rows], Z)
        finish(Z, residual[rows], h[rows], theta)
    if not h.max() <= 0.5:
        return None
    # κ²u is the relative error of a shift of at most ‖L⁻¹‖√h|ê|/(1 − h); both sides are over uκ.
    shift = _norm_bound(inverse) * np.max(np.sqrt(h) * np.abs(residual) / (1 - h))
    columns = np.linalg.norm(inverse, axis=0).max()  # at most ‖L⁻¹‖ = κ/‖X‖
    allowed = np.linalg.norm(theta) + columns * np.linalg.norm(residual)
    return (theta, residual, h, out) if kappa * shift <= allowed < np.inf else None


def _norm_bound(A):
    """An upper bound of ‖A‖₂, at most √d above it."""
    return np.sqrt(np.linalg.norm(A, 1)) * np.sqrt(np.linalg.norm(A, np.inf))


@np.errstate(all="ignore")  # a leverage of 1 and what overflows are for the caller to refuse
def _each_by_qr(X, y, finish):
    Q, R = np.linalg.qr(X)
    _require_full_rank(R[None], len(X))
    h = np.einsum("ij,ij->i", Q, Q)
    c = Q.T @ y
    residual = y - Q @ c
    residual -= Q @ (Q.T @ residual)
    theta, out = solve_triangular(R, c), np.ascontiguousarray(solve_triangular(R, Q.T).T)
    finish(out, residual, h, theta)
    return theta, residual, h, out


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
