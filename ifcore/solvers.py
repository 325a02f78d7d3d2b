"""(C + λI)⁻¹v: by a factor in the primal or the dual form, conjugate gradients, or LiSSA.

Each answer comes with its residual, or with why there is none. C is a symmetric matrix, or the
Gauss–Newton matrix or the Hessian of a `Risk`, which `solve` and `factor` take by whichever form
its size allows. λ is `damping`, beside a sum of losses.
"""

from typing import NamedTuple

import numpy as np
from scipy.linalg import blas, cho_factor, cho_solve, lapack, solve_triangular

from ifcore import inputs, jacobian
from ifcore.risk import JACOBIAN, NotFinite, Risk

MEMORY = 2**31  # bytes that a solver may take, unless the caller says otherwise
EPS = np.finfo(float).eps


class NotPositiveDefinite(np.linalg.LinAlgError):
    """A matrix that is not positive definite to working precision.

    smallest : its smallest eigenvalue, or a bound; reached : what other rows of the call reached.
    """

    def __init__(self, message, smallest=None, reached=None):
        super().__init__(message)
        self.smallest, self.reached = smallest, reached


class Diverged(RuntimeError):
    """An iteration that grows without bound, after `steps`; `scale` is one that would converge."""

    def __init__(self, message, scale=None, steps=None):
        super().__init__(message)
        self.scale, self.steps = scale, steps


class OutOfMemory(MemoryError):
    """A matrix larger than the memory allowed; `needed` in bytes."""

    def __init__(self, message, needed=None):
        super().__init__(message)
        self.needed = needed


class Solution(NamedTuple):
    """x with (C + λI)x = v, and what it takes to trust it."""

    x: np.ndarray  #: (d,) or (d, r), like v
    residual: float  #: ‖(C + λI)x − v‖/‖v‖, the largest over the right-hand sides
    steps: int  #: iterations, the most that a right-hand side took; 0 for a direct solver
    solver: str  #: "primal", "dual", "cg" or "lissa"
    converged: bool  #: whether an iteration met its tolerance; True for a direct solver


class Primal:
    """A factor of C + λI: Cholesky's, scaled to a unit diagonal, so that no unit matters.

    C : (d, d), symmetric. damping : λ ≥ 0. Raises NotPositiveDefinite with the smallest eigenvalue
    and a λ that would mend it; in the message the matrix is called `name`, and for a caller who has
    no damping `remedy`, of the smallest and the largest eigenvalue, gives the words. ValueError,
    TypeError.

    Memory: 16 d² bytes, of which 8 d² stay.
    """

    form = "primal"

    def __init__(self, C, damping=0.0, name="C", remedy=None):
        self.C, self.damping = _symmetric(C, name), inputs.nonnegative(damping, "damping")
        scaled, d = _damped(self.C, damping), len(self.C)
        diagonal = np.diag(scaled)
        self.scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1))
        scaled *= self.scale[:, None]
        scaled *= self.scale
        size = np.abs(scaled).sum(0).max()
        try:
            self.factor = cho_factor(scaled)
            reciprocal, _ = lapack.dpocon(self.factor[0], size)
        except np.linalg.LinAlgError:
            reciprocal = 0.0
        if not reciprocal > 10 * d * EPS:  # it is an estimate, but hardly ten times too large
            _require_positive_definite(scaled, self.C, damping, name, remedy)

    def solve(self, v):
        """(C + λI)⁻¹v for v (d,) or (d, r).

        Memory: 16 d r bytes.
        """
        v = inputs.right_sides(v, len(self.C))
        column = self.scale if v.ndim == 1 else self.scale[:, None]
        x = cho_solve(self.factor, column * v, overwrite_b=True)
        x *= column
        return x

    def whiten(self, v):
        """Wv with WᵀW = (C + λI)⁻¹, so that ‖Wv‖² = vᵀ(C + λI)⁻¹v: (d,) or (d, r).

        Memory: 16 d r bytes.
        """
        v = inputs.right_sides(v, len(self.C))
        column = self.scale if v.ndim == 1 else self.scale[:, None]
        return solve_triangular(self.factor[0], column * v, trans=1, overwrite_b=True)

    def squares(self, V):
        """vᵀ(C + λI)⁻¹v of each column v of V (d, r): (r,).

        Memory: 16 d r bytes.
        """
        half = self.whiten(V).reshape(len(self.C), -1)
        return np.einsum("ij,ij->j", half, half)

    def draw(self, rng, m):
        """m draws from N(0, (C + λI)⁻¹): (m, d). rng : a NumPy Generator, or a seed of one.

        Memory: 24 m d bytes.
        """
        rng, m = inputs.generator(rng), inputs.count(m, "m")
        xi = rng.standard_normal((len(self.C), m))
        return (self.scale[:, None] * solve_triangular(self.factor[0], xi)).T

    def product(self, V):
        """(C + λI)V."""
        V = inputs.right_sides(V, len(self.C))
        out = self.C @ V
        out += self.damping * V
        return out

    def answer(self, v):
        """`solve` as a Solution, with its residual.

        Memory: 32 d r bytes.
        """
        return _solution(self.solve(v), self.product, v, self.form)


class Dual:
    """A factor of BᵀB + λI, by Cholesky's of λI + BBᵀ, m × m (Woodbury, 1950).

    B : a linear map of the room `jacobian`, or an array, (m, d). damping : λ > 0. kernel : that of
    B's own Jacobian, where it is at hand. Raises NotPositiveDefinite for λ = 0, or below the
    rounding of BBᵀ.

    Memory: 8 m² bytes; 16 m² bytes for a `jacobian.Scaled`.
    """

    form = "dual"

    def __init__(self, B, damping, kernel=None):
        self.B, self.damping = _map(B), inputs.nonnegative(damping, "damping")
        (m, d), B = self.B.shape, self.B
        A = _finite(B.kernel(kernel), "BBᵀ")
        if not damping > EPS * np.trace(A):
            smallest = float(np.linalg.eigvalsh(A)[m - d]) if m >= d else 0.0
            raise NotPositiveDefinite(
                f"the dual form needs λ > {EPS * np.trace(A):.1e}, the rounding of BBᵀ; got "
                f"λ = {damping:g}, and the smallest eigenvalue of BᵀB, of rank at most "
                f"{min(m, d)}, is {smallest:.2e}",
                smallest,
            )
        A.flat[:: m + 1] += damping
        # A = Aᵀ; LAPACK wants its columns together
        self.factor = cho_factor(A.T, lower=True, overwrite_a=True, check_finite=False)

    def solve(self, v):
        """(BᵀB + λI)⁻¹v = (v − Bᵀ(λI + BBᵀ)⁻¹Bv)/λ for v (d,) or (d, r).

        Memory: 8 (2 d r + m r) bytes.
        """
        v = inputs.right_sides(v, self.B.shape[1])
        V = v.reshape(len(v), -1)
        inner = cho_solve(self.factor, self.B.product(V))
        return ((V - self.B.transposed(inner)) / self.damping).reshape(v.shape)

    def whiten(self, v):
        """Wv with W = (BᵀB + λI)^(−1/2), so that ‖Wv‖² = vᵀ(BᵀB + λI)⁻¹v: (d,) or (d, r).

        Memory: 8 (4 m² + 2 d r) bytes.
        """
        v = inputs.right_sides(v, self.B.shape[1])
        V = v.reshape(len(v), -1)
        values, U = np.linalg.eigh(self.B.kernel())
        values = values.clip(min=0)
        # (1/√(σ + λ) − 1/√λ)/σ, without the difference
        root, base = np.sqrt(values + self.damping), np.sqrt(self.damping)
        share = -1 / (root * base * (root + base))
        moved = U @ (share[:, None] * (U.T @ self.B.product(V)))
        return (V / base + self.B.transposed(moved)).reshape(v.shape)

    def squares(self, V):
        """vᵀ(BᵀB + λI)⁻¹v of each column v of V (d, r): (r,).

        Memory: 8 (2 d r + m r) bytes.
        """
        V = inputs.right_sides(V, self.B.shape[1]).reshape(self.B.shape[1], -1)
        return np.einsum("ij,ij->j", V, self.solve(V))

    def whiten_outputs(self, U):
        """L⁻¹U for λI + BBᵀ = LLᵀ, U (m, r): as (UᵀL⁻ᵀ)ᵀ, which spares LAPACK's copy of U."""
        return blas.dtrsm(1.0, self.factor[0], U.T, side=1, lower=1, trans_a=1).T

    def draw(self, rng, m):
        """m draws from N(0, (BᵀB + λI)⁻¹): (m, d). rng : a NumPy Generator, or a seed of one.

        Memory: 8 (4 m d + 2 m k) bytes for B (k, d).
        """
        rng, m = inputs.generator(rng), inputs.count(m, "m")
        inner, outer = rng.standard_normal((self.B.shape[0], m)), self.B.shape[1]
        xi = np.sqrt(self.damping) * rng.standard_normal((outer, m))
        return self.solve(xi + self.B.transposed(inner)).T

    def product(self, V):
        """(BᵀB + λI)V."""
        return self.B.transposed(self.B.product(V)) + self.damping * V

    def answer(self, v):
        """`solve` as a Solution, refined once: the subtraction has cost digits.

        Memory: 8 (4 d r + m r) bytes.
        """
        V = v.reshape(len(v), -1)
        x = self.solve(V)
        x += self.solve(V - self.product(x))
        return _solution(x.reshape(v.shape), self.product, v, self.form)


def factor(
    risk,
    theta,
    weights=None,
    damping=0.0,
    *,
    matrix="gauss_newton",
    form=None,
    memory=MEMORY,
    remedy=None,
):
    """A factor of G_w(θ) + damping·I, or of H_w: to `solve`, `whiten` and `draw` with.

    risk : a `Risk`; its λ is part of G_w and H_w. theta : (d,). weights : (n,). damping : at least
    0. matrix : "gauss_newton" or "hessian". form : "primal", "dual" (Gauss–Newton only), or None
    for the smaller that fits the `memory`, in bytes; see `solve`. remedy : as for `Primal`.
    Returns a Primal or a Dual. Raises NotPositiveDefinite, OutOfMemory and, in the dual form,
    NotConvex.

    Memory: 8 (3 d² + max(2 min(n K d, 2²⁴), n f, 12 n K²)) bytes for G_w, primal;
    8 (2 m² + m d) bytes, dual, with m = n K; 8 (2 m² + m (a + p)) bytes by layers, with m = n K;
    8 (5 d² + n (27 a + 18 K)) bytes for H_w.
    """
    inputs.kind(risk, Risk, "risk")
    theta, w = risk.parameters(theta), risk.weights(weights)
    damping, risk = inputs.nonnegative(damping, "damping"), risk.sound(theta, w)
    form = inputs.choice(form, (None, "primal", "dual"), "form")
    form = choose(risk, damping, matrix, form, memory)
    if form == "dual":
        B = jacobian.Scaled(risk.jacobian_map(theta), risk.output_roots(theta, w))
        return Dual(B, risk.lam + damping)
    if form != "primal":
        needed = _needed(risk, matrix)
        dual = matrix == "gauss_newton" and _small(risk, damping)
        least = min(needed.values()) if dual else needed["primal"]
        raise OutOfMemory(
            f"the smallest factor needs {least / 2**20:,.0f} MiB; memory allows "
            f"{memory / 2**20:,.0f} MiB. `solve` with solver='cg' avoids it",
            least,
        )
    if matrix == "gauss_newton":
        return Primal(risk.gauss_newton(theta, w), damping, "G_w", remedy)
    # column by column: in one sweep it takes d times the memory
    H = risk.hessian_map(theta, w)(np.eye(risk.d))
    return Primal((H + H.T) / 2, damping, "H_w", remedy)


def direct(C, v, damping=0.0, name="C", remedy=None):
    """(C + λI)⁻¹v by the primal form.

    C : (d, d), symmetric. v : (d,) or (d, r) for r right-hand sides. damping : λ ≥ 0. Returns a
    Solution. Raises NotPositiveDefinite, in whose message `name` and `remedy` are as for `Primal`.
    Memory: 8 (2 d² + 3 d r) bytes.
    """
    C = inputs.array(C, name, 2)
    v = inputs.right_sides(v, len(C))
    return Primal(C, damping, name, remedy).answer(v)


def dual(B, v, damping):
    """(BᵀB + λI)⁻¹v by the dual form, refined once.

    B : (m, d). v : (d,) or (d, r). damping : λ > 0. Returns a Solution, with the digits that the
    condition number allows. Raises NotPositiveDefinite for λ = 0 or below the rounding of BBᵀ.
    Memory: 8 (m² + 4.5 d r) bytes.
    """
    B = inputs.array(B, "B", 2)
    v = inputs.right_sides(v, B.shape[1])
    return Dual(B, damping).answer(v)


def cg(C, v, damping=0.0, *, tol=1e-10, max_steps=None, preconditioner=None):
    """(C + λI)⁻¹v by conjugate gradients, for many right-hand sides at once.

    C : (d, d), or a function V ↦ CV of matrices (d, r). v : (d,) or (d, r); columns that are done
    are dropped. damping : λ ≥ 0. tol : on ‖(C + λI)x − v‖/‖v‖. max_steps : by default 10 d.
    preconditioner : V ↦ M⁻¹V, positive definite.

    Returns a Solution, converged or not. Raises NotPositiveDefinite where a direction of curvature
    ≤ 0 turns up (a bound on the smallest eigenvalue). Source: Hestenes and Stiefel (1952).
    Memory: 64 d r bytes, beside what a function C takes.
    """
    product, v, unit = _operator(C, v, damping)
    precondition = None if preconditioner is None else _positive(preconditioner)
    columns, goal = v.reshape(len(v), -1), 0.9 * inputs.positive(tol, "tol")
    max_steps = inputs.count(10 * len(v) if max_steps is None else max_steps, "max_steps")
    x, _, steps, curvature, _ = truncated_cg(
        lambda V, _: product(V), columns, goal, max_steps, precondition
    )
    if (curvature <= 0).any():
        lowest = float(curvature.min()) + 0.0  # no −0
        raise NotPositiveDefinite(
            f"C + λI must be positive definite; conjugate gradients met the curvature "
            f"{lowest:.2e}, so its smallest eigenvalue is at most that, at damping = "
            f"{damping:g}, which must grow by more than {abs(lowest):.1e}",
            lowest,
        )
    found = _solution(x.reshape(v.shape), product, v, "cg", int(steps.max()), tol)
    return found._replace(x=found.x * unit)


def lissa(C, v, damping=0.0, *, scale=None, tol=1e-10, max_steps=5000, sample=None):
    """(C + λI)⁻¹v by LiSSA, x ← x + (v − (C + λI)x)/σ with σ = scale, from x = v/σ.

    C, v, damping, tol as for `cg`. scale : σ; it converges where σ > λ_max/2, at the rate
    1 − λ_min/σ for σ ≥ λ_max; by default a little above λ_max, from power iteration. sample :
    V ↦ C_batch V, drawn anew at each call, in the place of C in the steps; the residual is that of
    C all the same.

    Returns a Solution, converged or not. Raises Diverged with a scale that would do,
    NotPositiveDefinite where none would. Source: Agarwal, Bullins and Hazan (2017).
    Memory: 40 d r bytes, beside what a function C takes.
    """
    product, v, unit = _operator(C, v, damping)
    columns = v.reshape(len(v), -1)
    scale = inputs.positive(1.05 * _largest(product, len(v)) if scale is None else scale, "scale")
    drawn = None if sample is None else _applied(sample, "sample")
    step = product if sample is None else lambda V: drawn(V) + damping * V
    size, x = np.linalg.norm(columns, axis=0), columns / scale
    tol, max_steps = inputs.positive(tol, "tol"), inputs.count(max_steps, "max_steps")
    for steps in range(1, max_steps + 1):
        change = columns - step(x)
        length = np.linalg.norm(change, axis=0)
        if sample is None and (length <= tol * size).all():
            break
        if not (length <= 100 * size).all():
            growing = change[:, int(np.argmax(length))]
            _diagnose(product, growing, scale, steps, sample is not None)
        x = x + change / scale
    found = _solution(x.reshape(v.shape), product, v, "lissa", steps, tol)
    return found._replace(x=found.x * unit)


def solve(
    risk,
    theta,
    v,
    weights=None,
    damping=0.0,
    *,
    matrix="gauss_newton",
    solver=None,
    memory=MEMORY,
    **options,
):
    """(G_w(θ) + damping·I)⁻¹v, or that of H_w, by the form that the size allows.

    risk : a `Risk`; its λ is part of G_w and H_w. theta : (d,). v : (d,) or (d, r). weights : (n,).
    damping : at least 0. matrix : "gauss_newton" or "hessian". memory : bytes that a matrix and its
    factor may take, as `factor` states them.
    solver : None for the dual form where m = n·K (K outputs an example) is below d, else the
    primal, and conjugate gradients where neither fits the memory. Or "primal", "dual"; "cg" and
    "lissa" need no matrix.
    options : those of `cg` and `lissa`; for "lissa" also batch and seed, to draw that many examples
    at each step.

    Returns a Solution, which says which solver it was. Raises NotPositiveDefinite, Diverged,
    OutOfMemory (how much it needs, and what avoids it), and for the dual form NotConvex, where an
    output Hessian is not positive semidefinite.

    Memory: 8 (3 d² + 2 min(n K d, 2²⁴) + 4 d r) bytes by "primal"; 8 (2 m² + m d + 4 d r) bytes by
    "dual", with m = n K; 80 d r bytes by "cg", beside the risk's product; 56 d r bytes by "lissa",
    beside the risk's product.
    """
    inputs.kind(risk, Risk, "risk")
    theta, w = risk.parameters(theta), risk.weights(weights)
    v, damping = inputs.right_sides(v, risk.d), inputs.nonnegative(damping, "damping")
    solver = choose(risk, damping, matrix, solver, memory)
    if solver in ("primal", "dual"):
        if options:
            names = ", ".join(options)
            raise TypeError(f"options of cg and lissa only: {names}; the solver is {solver!r}")
        return factor(risk, theta, w, damping, matrix=matrix, form=solver, memory=memory).answer(v)
    if solver == "lissa":
        batch, seed = options.pop("batch", None), options.pop("seed", 0)
        if batch is not None:
            options["sample"] = _batches(risk, theta, w, matrix, batch, seed)
    product = _matrix_map(risk, theta, w, matrix)
    return {"cg": cg, "lissa": lissa}[solver](product, v, damping, **options)


def choose(risk, damping=0.0, matrix="gauss_newton", solver=None, memory=MEMORY):
    """The solver for a matrix of this risk: `solver` where it fits the memory, by size for None."""
    inputs.kind(risk, Risk, "risk")
    inputs.choice(matrix, ("gauss_newton", "hessian"), "matrix")
    damping = inputs.nonnegative(damping, "damping")
    forms, memory = _needed(risk, matrix), inputs.memory(memory)
    if np.ndim(risk.lam):  # the dual form wants one λ
        forms.pop("dual", None)
    where = f" for {matrix}{' and a λ for each parameter' if np.ndim(risk.lam) else ''}"
    inputs.choice(solver, (None, *forms, "cg", "lissa"), "solver", where)
    fits = [name for name, needed in forms.items() if needed <= memory]
    if solver is None:
        dual = "dual" in fits and _small(risk, damping)
        return "dual" if dual else "primal" if "primal" in fits else "cg"
    if solver in forms and solver not in fits:
        others = " or ".join(f"solver={name!r}" for name in (*fits, "cg"))
        raise OutOfMemory(
            f"the {solver} form needs {forms[solver] / 2**20:,.0f} MiB for n = {risk.n} examples "
            f"of {risk.K} outputs and d = {risk.d} parameters; memory allows "
            f"{memory / 2**20:,.0f} MiB. {others} avoids it",
            forms[solver],
        )
    return solver


def truncated_cg(product, v, tol, max_steps, preconditioner=None, radius=np.inf):
    """Conjugate gradients from 0 for each column of v (d, r), until ‖v − Cx‖ ≤ tol‖v‖.

    product : (V, which) ↦ CV, where V are directions of the columns `which` of v; C may differ
    between them. tol, radius : a number, or one a column. A column ends, too, where it meets
    pᵀCp ≤ 0 or ‖x‖_M reaches its radius: there, if the radius is finite (Steihaug, 1983).
    Returns x, v − Cx, steps (r,), the least pᵀCp/‖p‖² met (r,), and ‖x‖_M (r,).
    """
    x, residual, r = np.zeros_like(v), v.copy(), v.shape[1]
    steps, curvature, norm2 = np.zeros(r, dtype=int), np.full(r, np.inf), np.zeros(r)
    radius2, goal = np.broadcast_to(radius, r) ** 2, tol * np.linalg.norm(v, axis=0)
    active = np.flatnonzero(np.linalg.norm(v, axis=0) > goal)
    p, one, zero = np.zeros((len(v), len(active))), np.ones(len(active)), np.zeros(len(active))
    rho, alpha, pp, xp = one, zero, zero, zero
    for _ in range(max_steps):
        if not active.size:
            break
        left = residual[:, active]
        z = left if preconditioner is None else preconditioner(left)
        before, rho = rho, (left * z).sum(0)
        beta = rho / before
        p, xp, pp = z + beta * p, beta * (xp + alpha * pp), rho + beta**2 * pp  # and xᵀMp, pᵀMp
        q = product(p, active)
        bend = (p * q).sum(0)
        curvature[active] = np.minimum(curvature[active], bend / (p * p).sum(0))
        edge = (np.sqrt(xp**2 + pp * np.maximum(radius2[active] - norm2[active], 0)) - xp) / pp
        full = np.where(bend > 0, rho / np.where(bend > 0, bend, 1), np.inf)
        alpha = np.minimum(full, edge)
        alpha[np.isinf(alpha)] = 0
        x[:, active] += alpha * p
        residual[:, active] -= alpha * q
        norm2[active] += alpha * (2 * xp + alpha * pp)
        steps[active] += 1
        far = np.linalg.norm(residual[:, active], axis=0) > goal[active]
        keep = (bend > 0) & (alpha < edge) & far
        active, p = active[keep], p[:, keep]
        rho, alpha, pp, xp = rho[keep], alpha[keep], pp[keep], xp[keep]
    return x, residual, steps, curvature, np.sqrt(norm2)


def _matrix_map(risk, theta, w, matrix):
    """V (d, r) ↦ CV, without the matrix C, which is G_w or H_w."""
    if matrix == "gauss_newton":
        return risk.gauss_newton_map(theta, w)
    return risk.hessian_map(theta, w)


def _small(risk, damping):
    """Whether the dual form is the smaller one, and there is a λ for it."""
    return not np.ndim(risk.lam) and risk.n * risk.K < risk.d and risk.lam + damping > 0


def _needed(risk, matrix="gauss_newton"):
    """Bytes of the direct forms of a matrix, as `factor` states them."""
    n, K, d, m = risk.n, risk.K, risk.d, risk.n * risk.K
    if matrix == "hessian":
        made = 2 * sum(layer.outputs for layer in risk.model.layers) if risk.layered else K
        return {"primal": 8 * (5 * d * d + n * (27 * made + 18 * K))}
    block = min(m * d, max(JACOBIAN, K * d))
    rows = n * risk.model.width(K) if risk.layered else m * d
    primal = 3 * d * d + max(2 * block, 12 * n * K * K)
    return {"primal": 8 * primal, "dual": 8 * (2 * m * m + rows)}


def _finite(C, name):
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(C.sum())  # one pass; a sum can overflow, so look again
    if not finite and not np.isfinite(C).all():
        raise NotFinite(f"{name} must be finite; it has NaN or infinite entries", [])
    return C


def _symmetric(C, name):
    """C as an array (d, d), symmetric up to rounding. Raises ValueError, TypeError, NotFinite."""
    C = _finite(C, name) if isinstance(C, np.ndarray) and C.dtype == float else C
    C = inputs.array(C, name, 2)
    if C.shape != (len(C), len(C)) or not C.size:
        raise ValueError(f"{name} must be (d, d); got {C.shape}")
    apart = (C - C.T).max()  # of an antisymmetric matrix, so the largest modulus, too
    if not apart <= 1e-8 * np.abs(C).max():
        raise ValueError(f"{name} must be symmetric; {name} − {name}ᵀ has an entry of {apart:.1e}")
    return C


def _map(B):
    """B as a linear map: an array (m, d) as a dense one."""
    if hasattr(B, "kernel"):
        return B
    B = inputs.array(B, "B", 2)
    if not B.size:
        raise ValueError(f"B must be (m, d), m and d at least 1; got {B.shape}")
    return jacobian.Dense(B)


def _applied(function, name):
    """A caller's V ↦ CV, held to its word: an array of the shape of V, and V as it was."""
    inputs.function(function, name)

    def checked(V):
        found = inputs.array(function(V.copy()), f"what {name} gives")
        if found.shape != V.shape:
            raise ValueError(f"{name} must take V {V.shape} to that shape; it gives {found.shape}")
        return found

    return checked


def _positive(preconditioner):
    """V ↦ M⁻¹V of a caller, with vᵀM⁻¹v > 0 for every v it is tried on. Raises ValueError."""
    checked = _applied(preconditioner, "preconditioner")

    def positive(V):
        found = checked(V)
        size = (V * found).sum(0)
        if not (size > 0).all():
            raise ValueError(
                f"preconditioner must be positive definite; it gives vᵀM⁻¹v = {size.min():.2e}"
            )
        return found

    return positive


def _damped(C, damping):
    """C + λI, a copy."""
    damped = C.copy()
    damped.flat[:: len(C) + 1] += damping
    return damped


def _require_positive_definite(scaled, C, damping, name, remedy):
    d = len(C)
    values = np.linalg.eigvalsh(scaled)
    if not values[0] > d * EPS * values[-1]:
        smallest, largest = np.linalg.eigvalsh(_damped(C, damping))[[0, -1]]
        more = f", at damping = {damping:g}. {mending(damping, smallest, largest, 'damping')}"
        if remedy is not None:
            more = f". {remedy(smallest, largest)}"
        raise NotPositiveDefinite(
            f"{name} must be positive definite; its smallest eigenvalue is {smallest:.2e} and its "
            f"largest {largest:.2e}{more}",
            smallest,
        )


def mending(lam, smallest, largest, name="λ"):
    """Which λ would make a matrix of these eigenvalues positive definite, in place of this one."""
    more = 1.1 * max(-smallest, 0) + np.sqrt(EPS) * abs(largest)
    if not more:
        return f"any {name} > 0 would mend it"
    which = f"a {name} larger by {more:.1e}" if np.ndim(lam) else f"{name} = {lam + more:.1e}"
    return f"{which} would mend it"


def _diagnose(product, change, scale, steps, sampled):
    """Raise for a LiSSA that grows: its last change is the eigenvector that makes it grow."""
    u = (change / np.linalg.norm(change))[:, None]
    bend, largest = (u * product(u)).sum(), _largest(product, len(u))
    if bend < 0:
        raise NotPositiveDefinite(
            f"C + λI must be positive definite; LiSSA grows along a direction of curvature "
            f"{bend:.2e}, whatever its scale: λ must grow by more than {-bend:.1e}",
            bend,
        )
    would_do = max(1.05 * largest, 2 * scale) if sampled else 1.05 * largest
    raise Diverged(
        f"LiSSA diverged after {steps} steps at scale = {scale:.3g}, which must exceed λ_max/2"
        f"{' of the batches' if sampled else ''}; λ_max is about {largest:.3g}: try "
        f"scale = {would_do:.3g}",
        would_do,
        steps,
    )


def _largest(product, d, steps=30):
    """The largest eigenvalue in modulus, or a little less, by power iteration; 1 for C = 0."""
    x = np.random.default_rng(0).standard_normal((d, 1))
    for _ in range(steps):
        x = product(x / (np.linalg.norm(x) or 1.0))
    return float(np.linalg.norm(x)) or 1.0


def _batches(risk, theta, w, matrix, batch, seed):
    """V ↦ C_batch V for a new batch at each call, without the damping; its mean is CV."""
    batch, rng = inputs.count(batch, "batch"), inputs.generator(seed)
    if batch > risk.n:
        raise ValueError(f"batch must be at most n = {risk.n}; got {batch}")

    def sample(V):
        rows = rng.choice(risk.n, batch, replace=False)
        return _matrix_map(risk.subset(rows), theta, w[rows] * (risk.n / batch), matrix)(V)

    return sample


def _operator(C, v, damping):
    """V ↦ (C + λI)V, and v over the powers of 2 that its columns' squares need."""
    v, damping = inputs.array(v, "v"), inputs.nonnegative(damping, "damping")
    if v.ndim not in (1, 2) or not v.size:
        raise ValueError(f"v must be (d,) or (d, r); got {v.shape}")
    unit = units(v)
    v = v / unit
    if callable(C):
        product = _applied(C, "C")
        return lambda V: product(V) + damping * V, v, unit
    matrix = _symmetric(C, "C")
    if len(matrix) != len(v):
        raise ValueError(f"C must be (d, d) and v (d,) or (d, r); got {matrix.shape} and {v.shape}")
    return lambda V: matrix @ V + damping * V, v, unit


def units(v):
    """A power of 2 of the size of each column of v."""
    return np.exp2(np.frexp(np.abs(v).max(axis=0))[1].clip(-1000, 1000))


def _solution(x, product, v, solver, steps=0, tol=None):
    """The Solution x of `product` x = v; converged where the residual is at most tol, or None."""
    V = v.reshape(len(v), -1)
    unit = units(V)  # lest a square over- or underflow
    size, left = np.linalg.norm(V / unit, axis=0), product(x.reshape(V.shape))
    left -= V
    left /= unit
    residual = np.linalg.norm(left, axis=0) / np.where(size > 0, size, 1)
    largest = float(residual.max())
    return Solution(x, largest, steps, solver, tol is None or largest <= tol)
