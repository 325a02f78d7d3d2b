"""(C + λI)⁻¹v: Cholesky in the primal or the dual form, conjugate gradients, LiSSA; each with its residual, or why it failed.

C is a symmetric matrix, or the Gauss–Newton matrix or the Hessian of a `Risk`, which `solve` takes by whichever
form its size allows.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import blas, cho_factor, cho_solve, lapack

from ifcore import _inputs, _jacobian
from ifcore.risk import JACOBIAN, NotConvex  # noqa: F401: the dual form raises NotConvex

MEMORY = 2**31  # bytes that a solver may take, unless the caller says otherwise


class NotPositiveDefinite(np.linalg.LinAlgError):
    """A matrix that is not positive definite to working precision; `smallest` is its smallest eigenvalue, or a bound."""

    def __init__(self, message, smallest):
        super().__init__(message)
        self.smallest = smallest


class Diverged(RuntimeError):
    """An iteration that grows without bound, after `steps`; `scale` is one at which it would converge."""

    def __init__(self, message, scale, steps):
        super().__init__(message)
        self.scale, self.steps = scale, steps


class NotConverged(RuntimeError):
    """An iteration that stopped short; `response` is what it had reached."""

    def __init__(self, message, response):
        super().__init__(message)
        self.response = response


class OutOfMemory(MemoryError):
    """A matrix larger than the memory allowed; `needed` in bytes."""

    def __init__(self, message, needed):
        super().__init__(message)
        self.needed = needed


class Solution(NamedTuple):
    """x with (C + λI)x = v, and what it takes to trust it."""

    x: np.ndarray  # (d,) or (d, r), like v
    residual: float  # ‖(C + λI)x − v‖/‖v‖, the largest over the right-hand sides
    steps: int  # iterations, the most that a right-hand side took; 0 for a direct solver
    solver: str  # "primal", "dual", "cg" or "lissa"
    converged: bool  # whether an iteration met its tolerance; True for a direct solver


def direct(C, v, lam=0.0, name="C"):
    """(C + λI)⁻¹v by Cholesky factorisation, scaled to a unit diagonal, so that no unit matters: the primal form.

    C : (d, d), symmetric. v : (d,) or (d, r) for r right-hand sides. lam : λ ≥ 0.
    Returns a Solution. Raises NotPositiveDefinite with the smallest eigenvalue and a λ that would
    mend it; in the message the matrix is called `name`.
    """
    C, v, lam = _inputs.array(C, name, 2), _inputs.array(v, "v"), _inputs.nonnegative(lam, "lam")
    d = len(C)
    if C.shape != (d, d) or v.ndim not in (1, 2) or len(v) != d:
        raise ValueError(f"{name} must be (d, d) and v (d,) or (d, r); got {C.shape} and {v.shape}")
    if not np.abs(C - C.T).max() <= 1e-8 * np.abs(C).max():
        raise ValueError(
            f"{name} must be symmetric; {name} − {name}ᵀ has an entry of {np.abs(C - C.T).max():.1e}"
        )
    return _Primal(C, lam, name).answer(v)


def dual(B, v, lam):
    """(BᵀB + λI)⁻¹v = (v − Bᵀ(λI + BBᵀ)⁻¹Bv)/λ by Cholesky factorisation of m × m, refined once.

    B : (m, d). v : (d,) or (d, r). lam : λ > 0. Returns a Solution; it keeps the digits that the condition
    number allows. Raises NotPositiveDefinite for λ = 0 or below the rounding of BBᵀ. Source: Woodbury (1950).
    """
    B, v, lam = _inputs.array(B, "B", 2), _inputs.array(v, "v"), _inputs.nonnegative(lam, "lam")
    if v.ndim not in (1, 2) or len(v) != B.shape[1]:
        raise ValueError(f"v must be (d,) or (d, r) for B (m, d); got {v.shape} and {B.shape}")
    return _Dual(_jacobian.Dense(B), lam).answer(v)


def cg(C, v, lam=0.0, *, tol=1e-10, max_steps=None, preconditioner=None):
    """(C + λI)⁻¹v by conjugate gradients, for many right-hand sides at once; those that are done are dropped.

    C : (d, d), or a function V ↦ CV of matrices (d, r). v : (d,) or (d, r). lam : λ ≥ 0.
    tol : on ‖(C + λI)x − v‖/‖v‖. max_steps : by default 10 d. preconditioner : V ↦ M⁻¹V, positive definite.

    Returns a Solution, converged or not. Raises NotPositiveDefinite where a direction of curvature
    ≤ 0 turns up (a bound on the smallest eigenvalue). Source: Hestenes and Stiefel (1952).
    """
    product, v, columns = _operator(C, v, lam)
    max_steps = _steps(10 * len(v) if max_steps is None else max_steps)
    x, _, steps, curvature, _ = truncated_cg(
        lambda V, _: product(V), columns, 0.9 * _positive(tol, "tol"), max_steps, preconditioner
    )
    if (curvature <= 0).any():
        lowest = float(curvature.min())
        raise NotPositiveDefinite(
            f"C + λI must be positive definite; conjugate gradients met the curvature {lowest:.2e}, so its smallest "
            f"eigenvalue is at most that, at λ = {lam:g}. λ must grow by more than {max(-lowest, 0):.1e}",
            lowest,
        )
    return _solution(x.reshape(v.shape), product, v, "cg", int(steps.max(initial=0)), tol)


def lissa(C, v, lam=0.0, *, scale=None, tol=1e-10, max_steps=5000, sample=None):
    """(C + λI)⁻¹v by LiSSA, x ← x + (v − (C + λI)x)/σ with σ = scale, from x = v/σ.

    C, v, lam, tol as for `cg`. scale : σ; it converges where σ > λ_max/2, at the rate 1 − λ_min/σ for σ ≥ λ_max;
    by default a little above λ_max, from power iteration. sample : V ↦ C_batch V, drawn anew at each call, in the
    place of C in the steps; the residual is that of C all the same.

    Returns a Solution, converged or not. Raises Diverged with a scale that would do,
    NotPositiveDefinite where none would. Source: Agarwal, Bullins and Hazan (2017).
    """
    product, v, columns = _operator(C, v, lam)
    scale = _positive(1.05 * _largest(product, len(v)) if scale is None else scale, "scale")
    step = product if sample is None else lambda V: sample(V) + lam * V
    size, x = np.linalg.norm(columns, axis=0), columns / scale
    tol, max_steps = _positive(tol, "tol"), _steps(max_steps)
    for steps in range(1, max_steps + 1):
        change = columns - step(x)
        length = np.linalg.norm(change, axis=0)
        if sample is None and (length <= tol * size).all():
            break
        if not (length <= 100 * size).all():
            _diagnose(product, change[:, int(np.argmax(length))], scale, steps, sample is not None)
        x = x + change / scale
    return _solution(x.reshape(v.shape), product, v, "lissa", steps, tol)


def solve(
    risk,
    theta,
    v,
    damping=0.0,
    weights=None,
    *,
    matrix="gauss_newton",
    solver=None,
    memory=MEMORY,
    **options,
):
    """(G_w(θ) + damping·I)⁻¹v, or that of H_w, by the form that the size allows; the Solution says which it was.

    risk : a `Risk`; its λ is part of G_w and H_w. v : (d,) or (d, r). damping : at least 0. weights : (n,).
    matrix : "gauss_newton" or "hessian". memory : bytes that a matrix and its factor may take.
    solver : None for the dual form where m = n·K (K outputs an example) is below d, else the primal, and conjugate
    gradients where neither fits the memory. Or "primal": about 4d² numbers, and 2^24 of the Jacobian; "dual": 4m²,
    and m·d of the Jacobian, or for a layered `Network` its layers' widths times m; "cg", "lissa": no matrix.
    options : those of `cg` and `lissa`; for "lissa" also batch and seed, to draw that many examples at each step.

    Raises NotPositiveDefinite, Diverged, OutOfMemory (how much it needs, and what avoids it), and for the
    dual form NotConvex, where an output Hessian is not positive semidefinite.
    """
    if matrix not in ("gauss_newton", "hessian"):
        raise ValueError(f"matrix must be 'gauss_newton' or 'hessian'; got {matrix!r}")
    theta, w = risk._theta(theta), risk._weights(weights)
    v, damping = _inputs.array(v, "v"), _inputs.nonnegative(damping, "damping")
    if v.ndim not in (1, 2) or len(v) != risk.d:
        raise ValueError(f"v must be ({risk.d},) or ({risk.d}, r); got {v.shape}")
    solver = choose(risk, damping, matrix, solver, memory)
    if solver in ("primal", "dual"):
        if options:
            raise TypeError(
                f"options of cg and lissa only: {', '.join(options)}; the solver is {solver!r}"
            )
        return factorise(risk, theta, w, damping, matrix, solver).answer(v)
    product = matrix_map(risk, theta, w, matrix)
    if solver == "lissa" and options.get("batch") is not None:
        options["sample"] = _batches(
            risk, theta, w, matrix, options.pop("batch"), options.pop("seed", 0)
        )
    return {"cg": cg, "lissa": lissa}[solver](product, v, damping, **options)


# What `solve`, `response` and `influence` share.


def choose(risk, damping=0.0, matrix="gauss_newton", solver=None, memory=MEMORY):
    """The solver for a matrix of this risk: `solver` itself where it fits the memory, or by size where it is None."""
    forms = _needed(risk) if matrix == "gauss_newton" else {"primal": _needed(risk)["primal"]}
    if solver not in (None, *forms, "cg", "lissa"):
        raise ValueError(
            f"solver must be None, {', '.join(map(repr, forms))}, 'cg' or 'lissa' for {matrix}; got {solver!r}"
        )
    fits = [name for name, needed in forms.items() if needed <= memory]
    if solver is None:
        dual = "dual" in fits and risk.n * risk.K < risk.d and risk.lam + damping > 0
        return "dual" if dual else "primal" if "primal" in fits else "cg"
    if solver in forms and solver not in fits:
        raise OutOfMemory(
            f"the {solver} form needs {forms[solver] / 2**20:,.0f} MiB for n = {risk.n} examples of {risk.K} outputs and "
            f"d = {risk.d} parameters; memory allows {memory / 2**20:,.0f} MiB. "
            f"{' or '.join(f'solver={name!r}' for name in (*fits, 'cg'))} avoids it",
            forms[solver],
        )
    return solver


def factorise(risk, theta, w, damping, matrix, form):
    """G_w + damping·I or H_w + damping·I with its Cholesky factor, in the primal or the dual form; θ, w tensors."""
    if form == "dual":
        return _Dual(
            _jacobian.Scaled(risk._jacobian(theta), risk._root(theta, w)), risk.lam + damping
        )
    if matrix == "gauss_newton":
        return _Primal(risk.gauss_newton(theta, w), damping, "G_w")
    H = risk._hessian_map(theta, w)(
        np.eye(risk.d)
    )  # column by column: in one sweep it takes d times the memory
    return _Primal((H + H.T) / 2, damping, "H_w")


def matrix_map(risk, theta, w, matrix):
    """V (d, r) ↦ CV, without the matrix C, which is G_w or H_w."""
    return (
        risk._gauss_newton_map(theta, w)
        if matrix == "gauss_newton"
        else risk._hessian_map(theta, w)
    )


class _Primal:
    """(C + λI)⁻¹ by the Cholesky factor of C + λI, scaled to a unit diagonal."""

    def __init__(self, C, lam, name):
        self.C, self.lam, d = C, lam, len(C)
        damped = C.copy()
        damped.flat[:: d + 1] += lam
        diagonal = np.diag(damped)
        self.scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1))
        scaled = self.scale[:, None] * damped * self.scale
        try:
            self.factor = cho_factor(scaled)
            reciprocal, _ = lapack.dpocon(self.factor[0], np.abs(scaled).sum(0).max())
        except np.linalg.LinAlgError:
            reciprocal = 0.0
        if (
            not reciprocal > 10 * d * np.finfo(float).eps
        ):  # it is an estimate, but hardly ten times too large
            _require_positive_definite(scaled, damped, lam, name)

    def solve(self, v):
        column = self.scale if v.ndim == 1 else self.scale[:, None]
        return column * cho_solve(self.factor, column * v)

    def answer(self, v):
        return _solution(self.solve(v), lambda V: self.C @ V + self.lam * V, v, "primal")


class _Dual:
    """(BᵀB + λI)⁻¹ by the Cholesky factor of λI + BBᵀ."""

    def __init__(self, B, lam, kernel=None):
        self.B, self.lam, (m, d) = B, lam, B.shape
        A = B.kernel(kernel)
        if not lam > np.finfo(float).eps * np.trace(A):
            smallest = float(np.linalg.eigvalsh(A)[m - d]) if m >= d else 0.0
            raise NotPositiveDefinite(
                f"the dual form needs λ > {np.finfo(float).eps * np.trace(A):.1e}, the rounding of BBᵀ; got λ = {lam:g}, "
                f"and the smallest eigenvalue of BᵀB, of rank at most {min(m, d)}, is {smallest:.2e}",
                smallest,
            )
        A.flat[:: m + 1] += lam
        self.factor = cho_factor(
            A.T, lower=True, overwrite_a=True, check_finite=False
        )  # A = Aᵀ; LAPACK wants its columns together

    def solve(self, v):
        V = v.reshape(len(v), -1)
        return (
            (V - self.B.transposed(cho_solve(self.factor, self.B.product(V)))) / self.lam
        ).reshape(v.shape)

    def whiten(self, V):
        """L⁻¹V for λI + BBᵀ = LLᵀ, as (VᵀL⁻ᵀ)ᵀ, which spares LAPACK's copy of V."""
        return blas.dtrsm(1.0, self.factor[0], V.T, side=1, lower=1, trans_a=1).T

    def product(self, V):
        return self.B.transposed(self.B.product(V)) + self.lam * V

    def answer(self, v):
        V = v.reshape(len(v), -1)
        x = self.solve(V)
        x += self.solve(
            V - self.product(x)
        )  # the subtraction has cost digits: once more, on what is left
        return _solution(x.reshape(v.shape), self.product, v, "dual")


def _needed(risk):
    """Bytes of the two direct forms of the Gauss–Newton matrix."""
    m, d = risk.n * risk.K, risk.d
    jacobian = risk.n * risk.model.width(risk.K) if risk.layered else 2 * m * d
    return {
        "primal": 8 * (4 * d * d + 3 * min(m * d, max(JACOBIAN, risk.K * d))),
        "dual": 8 * (4 * m * m + jacobian),
    }


def _require_positive_definite(scaled, damped, lam, name):
    d, eps = len(damped), np.finfo(float).eps
    values = np.linalg.eigvalsh(scaled)
    if not values[0] > d * eps * values[-1]:
        smallest, *_, largest = np.linalg.eigvalsh(damped) if d > 1 else (damped[0, 0],) * 2
        mend = lam + 1.1 * max(-smallest, 0) + np.sqrt(eps) * max(largest, 1e-300)
        raise NotPositiveDefinite(
            f"{name} must be positive definite; its smallest eigenvalue is {smallest:.2e} and its largest "
            f"{largest:.2e}, at λ = {lam:g}. λ = {mend:.1e} would mend it",
            smallest,
        )


def truncated_cg(product, v, tol, max_steps, preconditioner=None, radius=np.inf):
    """Conjugate gradients from 0 for each column of v (d, r), until ‖v − Cx‖ ≤ tol‖v‖; tol, radius a number or one a column.

    product : (V, which) ↦ CV, where V are directions of the columns `which` of v; C may differ between them. A column
    ends, too, where it meets pᵀCp ≤ 0 or ‖x‖_M reaches its radius: there, if the radius is finite (Steihaug, 1983).
    Returns x, v − Cx, steps (r,), the least pᵀCp/‖p‖² met (r,), and ‖x‖_M (r,).
    """
    x, residual, r = np.zeros_like(v), v.copy(), v.shape[1]
    steps, curvature, norm2, radius2 = (
        np.zeros(r, dtype=int),
        np.full(r, np.inf),
        np.zeros(r),
        np.broadcast_to(radius, r) ** 2,
    )
    goal = tol * np.linalg.norm(v, axis=0)
    active = np.flatnonzero(np.linalg.norm(v, axis=0) > goal)
    p, (rho, alpha, pp, xp) = (
        np.zeros((len(v), len(active))),
        np.array([[1.0], [0], [0], [0]]) * np.ones(len(active)),
    )
    for _ in range(max_steps):
        if not active.size:
            break
        z = residual[:, active] if preconditioner is None else preconditioner(residual[:, active])
        before, rho = rho, (residual[:, active] * z).sum(0)
        beta = rho / before
        p, xp, pp = z + beta * p, beta * (xp + alpha * pp), rho + beta**2 * pp  # and xᵀMp, pᵀMp
        q = product(p, active)
        bend = (p * q).sum(0)
        curvature[active] = np.minimum(curvature[active], bend / (p * p).sum(0))
        edge = (np.sqrt(xp**2 + pp * np.maximum(radius2[active] - norm2[active], 0)) - xp) / pp
        alpha = np.minimum(np.where(bend > 0, rho / np.where(bend > 0, bend, 1), np.inf), edge)
        alpha[np.isinf(alpha)] = 0
        x[:, active] += alpha * p
        residual[:, active] -= alpha * q
        norm2[active] += alpha * (2 * xp + alpha * pp)
        steps[active] += 1
        keep = (
            (bend > 0)
            & (alpha < edge)
            & (np.linalg.norm(residual[:, active], axis=0) > goal[active])
        )
        active, p, rho, alpha, pp, xp = (
            active[keep],
            p[:, keep],
            rho[keep],
            alpha[keep],
            pp[keep],
            xp[keep],
        )
    return x, residual, steps, curvature, np.sqrt(norm2)


def _diagnose(product, change, scale, steps, sampled):
    """Raise for a LiSSA that grows: its last change points along the eigenvector that makes it grow."""
    u = (change / np.linalg.norm(change))[:, None]
    bend, largest = (u * product(u)).sum(), _largest(product, len(u))
    if bend < 0:
        raise NotPositiveDefinite(
            f"C + λI must be positive definite; LiSSA grows along a direction of curvature {bend:.2e}, whatever its "
            f"scale: λ must grow by more than {-bend:.1e}",
            bend,
        )
    would_do = max(1.05 * largest, 2 * scale) if sampled else 1.05 * largest
    raise Diverged(
        f"LiSSA diverged after {steps} steps at scale = {scale:.3g}, which must exceed λ_max/2"
        f"{' of the batches' if sampled else ''}; λ_max is about {largest:.3g}: try scale = {would_do:.3g}",
        would_do,
        steps,
    )


def _largest(product, d, steps=30):
    """The largest eigenvalue in modulus, or a little less, by power iteration; 1 for the matrix 0."""
    x = np.random.default_rng(0).standard_normal((d, 1))
    for _ in range(steps):
        size = np.linalg.norm(x)
        if not size > 0:
            return 1.0
        x = product(x / size)
    return float(np.linalg.norm(x)) or 1.0


def _batches(risk, theta, w, matrix, batch, seed):
    """V ↦ C_batch V for a new batch of examples at each call, without λ of the caller; its mean over batches is CV."""
    batch, rng = _steps(batch, "batch"), np.random.default_rng(seed)
    if batch > risk.n:
        raise ValueError(f"batch must be at most n = {risk.n}; got {batch}")

    def sample(V):
        rows = rng.choice(risk.n, batch, replace=False)
        return matrix_map(risk._some(rows), theta, w[rows] * (risk.n / batch), matrix)(V)

    return sample


def _operator(C, v, lam):
    """V ↦ (C + λI)V, v, and v as columns (d, r)."""
    v, lam = _inputs.array(v, "v"), _inputs.nonnegative(lam, "lam")
    if v.ndim not in (1, 2) or not v.size:
        raise ValueError(f"v must be (d,) or (d, r); got {v.shape}")
    if not callable(C):
        C = _inputs.array(C, "C", 2)
        if C.shape != (len(v), len(v)):
            raise ValueError(f"C must be (d, d) and v (d,) or (d, r); got {C.shape} and {v.shape}")
        matrix = C
        C = lambda V: matrix @ V  # noqa: E731
    return lambda V: C(V) + lam * V, v, v.reshape(len(v), -1)


def _solution(x, product, v, solver, steps=0, tol=None):
    """The Solution x of `product` x = v with its residual; converged where that is at most tol, or for tol = None."""
    V = v.reshape(len(v), -1)
    size, left = np.linalg.norm(V, axis=0), np.linalg.norm(product(x.reshape(V.shape)) - V, axis=0)
    residual = float((left / np.where(size > 0, size, 1)).max())
    return Solution(x, residual, steps, solver, tol is None or residual <= tol)


def _positive(value, name):
    out = _inputs.nonnegative(value, name)
    if not out > 0:
        raise ValueError(f"{name} must be positive; got {value!r}")
    return out


def _steps(value, name="max_steps"):
    if not value >= 1 or int(value) != value:
        raise ValueError(f"{name} must be an integer at least 1; got {value!r}")
    return int(value)
