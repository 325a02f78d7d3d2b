"""∂θ/∂w and what is made of it: influence on the parameters and the losses, the Newton step.

With the one convention of the book, θ(w) = argmin R_w, an influence says where the parameters go
when the weight of a point grows. Removing the point goes the other way.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch.func import grad, jacrev

from ifcore import inputs, jacobian, solvers
from ifcore.identity import digest, fingerprint
from ifcore.response import SMALL, endless
from ifcore.risk import NotFinite, Risk
from ifcore.risk.tensors import rows_of
from ifcore.runs import NotConverged, Run

EPS = np.finfo(float).eps


class NotStationary(ValueError):
    """A θ at which ∇R_w(θ) does not vanish; `gradient_norm` is its relative norm."""

    def __init__(self, message, gradient_norm=None):
        super().__init__(message)
        self.gradient_norm = gradient_norm


def influence(risk, theta, weights=None, *, tol=1e-6):
    """∂θ/∂w_j = −H_w⁻¹∇ℓ_j(θ) of every example j, at a minimiser θ = θ(w).

    risk : a `Risk`. theta : (d,). weights : (n,); None is w = 1. Returns (n, d), row j for example
    j: the transpose of the Jacobian Jθ(w). A row whose gradient is not finite is NaN, with a
    warning.
    tol : θ must be stationary, ‖∇R_w(θ)‖ ≤ tol (Σ_i w_i‖∇ℓ_i(θ)‖ + ‖λθ‖ + ‖b‖), and no point on
    the way to a minimum that does not exist (`response.endless`).

    Raises NotStationary with the gradient's norm, NotPositiveDefinite with H_w's smallest
    eigenvalue. Source: the notes' (0.4), (0.5), (0.6). At w = 1 it is their θ̇(1) and −1/n times
    their 𝓘(z_j; θ̂), Definition 2; at w = 1 − e_j, θ = θ*₋ⱼ, row j is their I(j), (0.2), (0.3),
    Definition 5, Proposition 0.0.1.

    Memory: 8 (5 n d + 4 d² + 2²¹) bytes.
    """
    factor = _stationary_factor(risk, theta, weights, inputs.positive(tol, "tol"))
    return _by_rows(risk, theta, lambda V: _negative(factor.solve(V)))


def loss_influence(risk, theta, weights=None, *, tol=1e-6, memory=solvers.MEMORY):
    """∂ℓ_i(θ(w))/∂w_j = ∇ℓ_iᵀ ∂θ/∂w_j: (n, n), row i for the loss, column j for the weight.

    Arguments and errors as for `influence`. memory : bytes that it may take, the answer included;
    OutOfMemory says what avoids it. Source: the notes' (0.8), Corollary 0.0.1 and, at w = 1, −1/n
    times their 𝓠(z_j; θ̂), the influence loss difference of Definition 1, on the diagonal.

    Memory: 8 (n² + 3 n d + 4 d²) bytes.
    """
    inputs.kind(risk, Risk, "risk")
    _require_memory(
        8 * (risk.n**2 + 3 * risk.n * risk.d + 4 * risk.d**2),
        memory,
        f"the influences of n = {risk.n} weights on as many losses",
        "self_influence has the diagonal, top the largest of a few losses",
    )
    return risk.gradients(theta) @ influence(risk, theta, weights, tol=tol).T


def self_influence(
    risk,
    theta,
    weights=None,
    damping=0.0,
    *,
    matrix="hessian",
    memory=solvers.MEMORY,
    run=Run(jobs=1),
):
    """∂ℓ_j/∂w_j = −∇ℓ_jᵀ(H_w(θ) + damping·I)⁻¹∇ℓ_j of every example j: (n,), at most 0.

    risk : a `Risk`. theta : (d,), any point. matrix : "hessian", or "gauss_newton" for G_w. run : a
    `Run`, whose blocks are blocks of examples. Other arguments and errors as for `solvers.factor`.
    A row whose gradient is not finite is NaN, with a warning. Source: the diagonal of
    `loss_influence`; Koh and Liang (2017).

    Memory: 8 max(5 min(n d, 2²⁴) + 2 d², 5 d² + n (27 a + 18 K)) bytes.
    """
    inputs.kind(run, Run, "run")
    factor, rows = _factor(risk, theta, weights, damping, matrix, memory), risk.blocks()
    blocks = [(risk, theta, factor, some) for some in rows]
    parts = run.each(_squares, blocks, _configuration(risk, theta, weights, damping, matrix))
    return -np.concatenate([part["squares"] for part in parts])


def _squares(risk, theta, factor, rows):
    some = risk.subset(rows)
    return {"squares": _by_rows(some, theta, lambda V: factor.squares(V)[None], rows.start)[:, 0]}


class Top(NamedTuple):
    """The k training points that matter most to each of t test losses."""

    examples: np.ndarray  #: (t, k), the largest effect in size first
    effects: np.ndarray  #: (t, k), ∂ℓ_t/∂w_j: above 0 where more weight harms


def top(
    risk,
    theta,
    test,
    k,
    weights=None,
    damping=0.0,
    *,
    matrix="hessian",
    memory=solvers.MEMORY,
    run=Run(jobs=1),
):
    """The k training points with the largest ∂ℓ_t/∂w_j in size, for each test point t, as a Top.

    ∂ℓ_t/∂w_j = −∇ℓ_tᵀ(H_w(θ) + damping·I)⁻¹∇ℓ_j. risk : a `Risk`. theta : (d,), any point. test :
    a `Risk` of the same model, which gives the test examples and their loss. k : at most n. Other
    arguments and errors as for `self_influence`. An effect that is not finite is NaN, behind all
    others.

    Memory, for t test examples: 8 max(3 min(n max(d, t), 2²⁴) + 3 t d, 5 d² + n (27 a + 18 K))
    bytes.
    """
    inputs.kind(risk, Risk, "risk")
    inputs.kind(run, Run, "run")
    k = inputs.count(k, "k")
    if k > risk.n:
        raise ValueError(f"k must be at most n = {risk.n}; got {k}")
    _require_same_model(risk, test, theta)
    factor = _factor(risk, theta, weights, damping, matrix, memory)
    V = factor.answer(_finite_gradients(test, theta).T).x
    blocks = [(risk, theta, V, k, rows) for rows in risk.tensors.blocks(max(V.shape))]
    own = _configuration(risk, theta, weights, damping, matrix)
    parts = run.each(_largest, blocks, lambda: own() | {"test": fingerprint(test), "k": k})
    examples = np.concatenate([part["examples"] for part in parts], axis=1)
    effects = np.concatenate([part["effects"] for part in parts], axis=1)
    order = np.argsort(-np.abs(effects), kind="stable")[:, :k]
    return Top(*(np.take_along_axis(part, order, 1) for part in (examples, effects)))


def _largest(risk, theta, V, k, rows):
    """The k largest effects among the examples `rows`."""
    effects = -V.T @ risk.subset(rows).gradients(theta).T
    effects[~np.isfinite(effects)] = np.nan  # which NumPy sorts behind all others
    k = min(k, effects.shape[1])
    examples = np.sort(np.argpartition(-np.abs(effects), k - 1)[:, :k])
    found = np.take_along_axis(effects, examples, 1)
    return {"examples": examples + rows.start, "effects": found}


class Diagnostics(NamedTuple):
    """What one fit of a model with one output says of each example; φ is the dispersion."""

    leverage: np.ndarray  #: (n,), h_j = w_jφ″_j J_jᵀH_w⁻¹J_j
    pearson: np.ndarray  #: (n,), −√w_j ℓ′_j/√ℓ″_j: (y − μ)/√V(μ) for a canonical link
    studentised: np.ndarray  #: (n,), the Pearson residual over √(φ(1 − h_j))
    cooks_distance: np.ndarray  #: (n,), studentised² h_j/((1 − h_j)d)


def diagnostics(risk, theta, weights=None, *, dispersion=None, tol=1e-6):
    """Leverage, Pearson residuals and Cook's distance of a generalised linear model's fit.

    risk : a `Risk` with one output an example and a convex loss: `linear` with `squared`,
    `logistic`, `poisson`, or a network, whose G_w then stands for the Hessian. theta : (d,), the
    minimiser. weights : (n,); None is w = 1. dispersion : φ; None is 1, but Σ pearson²/(n − d) for
    a loss that is quadratic in the output. tol : as for `influence`. Returns Diagnostics; the
    leverages add up to d where λ = 0. A row of leverage 1 has NaN where it divides by 1 − h_j, with
    a warning.

    One step of Newton's method without example j moves θ by H_w⁻¹J_j w_jℓ′_j/(1 − h_j), which is
    what Cook's distance measures. Raises ValueError for more outputs, NotStationary, NotConvex,
    NotPositiveDefinite. Source: Pregibon (1981); Cook and Weisberg (1982).

    Memory: 8 (4 n d + 3 d² + 12 n) bytes.
    """
    inputs.kind(risk, Risk, "risk")
    if risk.K != 1:
        raise ValueError(f"leverage needs one output an example; this model has {risk.K}")
    dispersion = dispersion if dispersion is None else inputs.positive(dispersion, "dispersion")
    _require_stationary(risk, theta, weights, inputs.positive(tol, "tol"))
    w = risk.weights(weights).numpy()
    curved, slopes = risk.convex_hessians(theta)[0][:, 0], risk.output_gradients(theta).reshape(-1)
    J = risk.jacobian(theta).reshape(risk.n, risk.d)
    remedy = _by_penalty(risk, ", with theta minimised anew")
    factor = solvers.factor(risk, theta, w, form="primal", remedy=remedy)
    h = w * curved * factor.squares(J.T)
    with np.errstate(divide="ignore", invalid="ignore"):
        pearson = -np.sqrt(w / curved) * slopes  # 0 for an example of weight 0
        if dispersion is None:
            freedom = np.count_nonzero(w) - risk.d
            dispersion = pearson @ pearson / freedom if _is_quadratic(risk, theta) else 1.0
        rest = np.where(1 - h > 8 * risk.n * EPS, 1 - h, np.nan)
        studentised = pearson / np.sqrt(dispersion * rest)
        cooks = studentised**2 * h / (rest * risk.d)
    unanswered = np.flatnonzero(np.isnan(rest))
    if unanswered.size:
        statuses = np.where(np.isnan(h[unanswered]), "not finite", "leverage 1")
        inputs.warn_of_rows(unanswered, statuses, "Cook's distance")
    return Diagnostics(h, pearson, studentised, cooks)


class Effects(NamedTuple):
    """What the weights of n training points do to t test points of K outputs (…), first order."""

    outputs: np.ndarray  #: (t, …, n), ∂f(x_t)/∂w_j
    losses: np.ndarray  #: (t, n), ∂ℓ_t/∂w_j
    own: np.ndarray  #: (n,), self-influence ∂ℓ_j/∂w_j, at most 0 up to rounding
    solver: str  #: "dual", "primal" or "cg"


def damped_influence(
    risk,
    theta,
    weights=None,
    damping=0.0,
    *,
    matrix="gauss_newton",
    solver=None,
    memory=solvers.MEMORY,
):
    """∂θ/∂w_j = −(G_w(θ) + damping·I)⁻¹∇ℓ_j(θ) of every example j, at any θ: (n, d).

    θ need not be stationary. Arguments and errors as for `solvers.solve`; OutOfMemory too where the
    answer itself does not fit. It is the derivative at w of `proximal.pbrf` with base = w from θ,
    and with matrix="hessian", at a stationary θ, that of `proximal.damped`.
    Source: the notes' I†(z_j), which is −n times row j at λ_book = n λ_notes.

    Memory: 8 (5.5 n d + 3 d²) bytes.
    """
    inputs.kind(risk, Risk, "risk")
    _require_memory(
        44 * risk.n * risk.d,
        memory,
        f"the influences on θ of n = {risk.n} examples",
        "damped_effects in the dual form avoids it, and so does solvers.solve for a few gradients",
    )
    options = {"matrix": matrix, "solver": solver, "memory": memory}

    def solved(V):
        found = solvers.solve(risk, theta, V, weights, damping, **options)
        if not found.converged:
            raise NotConverged(
                f"{found.solver} has the residual {found.residual:.1e} after {found.steps} steps; "
                "solvers.solve takes more of them, or a tolerance",
                found,
            )
        return _negative(found.x)

    return _by_rows(risk, theta, solved)


def damped_effects(
    risk, theta, weights=None, damping=0.0, *, test=None, solver=None, memory=solvers.MEMORY
):
    """What `damped_influence` does to the outputs and losses of `test`, and to each point's own.

    test : a `Risk` of the same model, which gives the test examples and their loss; None: the
    training examples. Other arguments and errors as for `solvers.solve`. Returns Effects.
    In the dual form (G_w + λI)⁻¹ = (I − Bᵀ(λI + BBᵀ)⁻¹B)/λ with G_w = BᵀB stays in the space of the
    outputs: no array has length d, if the model is layered. The answer counts in `memory`. Effects
    of an example that is not finite are NaN, with a warning.

    Memory, for t test examples: 8 (n t (K + 1) + 4 n d + 3 d²) bytes, primal;
    8 (4 m² + 4 m t K + m d) bytes, dual, with m = n K; 8 (4 m² + 4 m t K) bytes by layers, with
    m = n K.
    """
    inputs.kind(risk, Risk, "risk")
    test = risk if test is None else test
    _require_same_model(risk, test, theta)
    chosen = solvers.choose(risk, damping, solver=solver, memory=memory)
    _require_memory(
        _effects_needed(risk, test, chosen),
        memory,
        f"the effects of n = {risk.n} weights on {test.n} examples of {test.K} outputs",
        "fewer test examples avoid it; self_influence and top need no such array",
    )
    whole, risk = risk, risk.sound(theta, weights)
    if chosen == "dual":
        outputs, own = _dual_effects(risk, test, theta, weights, damping)
    else:
        J = damped_influence(risk, theta, weights, damping, solver=chosen, memory=memory)
        outputs = test.jacobian_map(theta).product(J.T)
        own = (risk.gradients(theta) * J).sum(1)
    slopes = test.output_gradients(theta)
    outputs = outputs.reshape(*slopes.shape, risk.n)
    losses = (slopes.reshape(test.n, 1, -1) @ outputs.reshape(test.n, -1, risk.n))[:, 0]
    if risk is not whole:
        bad = whole.unsound(theta)
        outputs[..., bad] = losses[:, bad] = own[bad] = np.nan
        inputs.warn_of_rows(bad, ["not finite"] * len(bad), "influence")
    return Effects(outputs, losses, own, chosen)


def _effects_needed(risk, test, solver):
    """Bytes that `damped_effects` takes by one solver."""
    n, K, d = risk.n, risk.K, risk.d
    if solver == "dual":
        own = 0 if risk.layered else n * K * d
        return 8 * (4 * (n * K) ** 2 + 4 * n * K * test.n * test.K + own)
    return 8 * (n * test.n * (test.K + 1) + 4 * n * d + (3 * d * d if solver == "primal" else 0))


def _dual_effects(risk, test, theta, weights, damping):
    """−J_t(G_w + λI)⁻¹∇ℓ_j, (t·K, n), and −∇ℓ_jᵀ(G_w + λI)⁻¹∇ℓ_j, (n,), from the kernel."""
    J, S = risk.jacobian_map(theta), risk.output_roots(theta, weights)
    kernel = J.kernel()
    cross = kernel if test is risk else test.jacobian_map(theta).kernel(J)
    factor = solvers.Dual(jacobian.Scaled(J, S), risk.lam + damping, kernel)
    slopes = risk.output_gradients(theta).reshape(risk.n, -1)

    def contracted(A):  # A J∇ℓ_j from AJJᵀ
        return np.einsum("ank,nk->an", A.reshape(len(A), *slopes.shape), slopes)

    moved = contracted(kernel)  # J∇ℓ_j, (m, n)
    half = factor.whiten_outputs(jacobian.scale(S, moved))
    test_half = factor.whiten_outputs(jacobian.scale(S, cross.T))
    outputs = (test_half.T @ half - contracted(cross)) / factor.damping
    every = moved.reshape(risk.n, risk.K, risk.n)[range(risk.n), :, range(risk.n)]
    own = (slopes * every).sum(1)
    return outputs, (np.einsum("ij,ij->j", half, half) - own) / factor.damping


def newton_step(risk, theta, remove, weights=None):
    """The point that one Newton step from θ reaches once the points `remove` are dropped: (d,).

    θ − (H_{w'}(θ))⁻¹∇R_{w'}(θ), with w' = w but 0 on `remove`. risk : a `Risk`. theta : (d,), any
    point. remove : an index, or a list of distinct ones. weights : (n,); None is w = 1.

    Exact where R_{w'} is quadratic. Raises IndexError, TypeError, ValueError for a bad `remove` or
    one that leaves nothing, NotPositiveDefinite where too few points are left to hold every
    direction (the rank, and the smallest eigenvalue). Source: the notes' Definition 6, at
    θ = θ(1); their Newton estimation I_Nt is this less θ.

    Memory: 8 (b (2 a + 6 K) + 4 d²) bytes, with b = min(n, 2²⁴/d) + min(n d, 2¹⁸).
    """
    inputs.kind(risk, Risk, "risk")
    kept = risk.weights(weights).numpy().copy()
    kept[inputs.indices(remove, risk.n, "remove")] = 0
    if not kept.any():
        raise ValueError(
            "remove must leave at least one point with a positive weight; got all of "
            f"{np.size(remove)}"
        )
    theta = risk.parameters(theta).numpy()
    H, gradient = risk.hessian(theta, kept), risk.gradient(theta, kept)
    try:
        remedy = _by_penalty(risk, "; proximal.damped and proximal.pbrf take a damping")
        return theta - solvers.direct(H, gradient, name="H_w without `remove`", remedy=remedy).x
    except solvers.NotPositiveDefinite as error:
        left, rank = int((kept > 0).sum()), np.linalg.matrix_rank(H)
        raise solvers.NotPositiveDefinite(
            f"{error}; {left} points are left, and their Hessian has rank {rank} of d = {risk.d}",
            error.smallest,
        ) from None


def _is_quadratic(risk, theta):
    """Whether the loss is quadratic in the output: elsewhere it has the same second derivative."""
    tensors = risk.tensors
    f = tensors.outputs(risk.parameters(theta))
    here, there = (tensors.each(jacrev(grad(risk.loss)))(f + by, tensors.y) for by in (0.0, 1.0))
    return torch.allclose(here, there, rtol=1e-12, atol=0)


def _require_stationary(risk, theta, weights, tol):
    """That ∇R_w(θ) vanishes; the risk with sound examples alone, ∇R_w(θ) and its relative norm."""
    w, theta = risk.weights(weights), risk.parameters(theta).numpy()
    risk = risk.sound(theta, w)
    gradient = risk.gradient(theta, w)
    size = np.linalg.norm(gradient)
    scale = w.numpy() @ np.linalg.norm(risk.gradients(theta), axis=1) + risk.penalty_size(theta)
    relative = size / scale if scale > 0 else 0.0
    if not relative <= tol:
        raise NotStationary(
            f"theta must be stationary for these weights; ‖∇R_w(θ)‖ = {size:.2e} is "
            f"{relative:.1e} of the size of its terms, and tol = {tol:g}. response.minimise goes "
            "on to a stationary point, for a network with method='newton-cg'",
            relative,
        )
    return risk, gradient, relative


def _stationary_factor(risk, theta, weights, tol):
    """A factor of H_w at a θ that is checked to be a minimiser."""
    inputs.kind(risk, Risk, "risk")
    risk.require_second_derivatives()
    w, theta = risk.weights(weights), risk.parameters(theta).numpy()
    risk, gradient, relative = _require_stationary(risk, theta, w, tol)
    instead = ", with theta minimised anew; damped_influence takes a damping, at any theta"
    factor = solvers.Primal(risk.hessian(theta, w), name="H_w", remedy=_by_penalty(risk, instead))
    step = -factor.solve(gradient)
    if (
        relative <= SMALL
        and endless(risk, *(torch.from_numpy(part)[None] for part in (theta, w.numpy(), step)))[0]
    ):
        raise NotStationary(
            f"theta must be a minimiser; along Newton's step of size {np.linalg.norm(step):.2e} "
            f"from it, with ‖θ‖ = {np.linalg.norm(theta):.2e}, the risk falls for ever, as where "
            "classes are separable. lam > 0 mends it",
            relative,
        )
    return factor


def _by_penalty(risk, instead):
    """What mends a matrix of the risk where there is no damping, for `solvers.Primal`."""

    def remedy(smallest, largest):
        return f"In the Risk, {solvers.mending(risk.lam, smallest, largest)}{instead}"

    return remedy


def _negative(x):
    """−x, in its place."""
    return np.negative(x, out=x)


def _by_rows(risk, theta, solved, first=0):
    """solved(V), (k, r), of the gradients V (d, r) that are finite: (n, k), NaN in other rows."""
    gradients = risk.gradients(theta)
    fine = np.isfinite(gradients).all(axis=1)
    if fine.all():
        return solved(gradients.T).T
    bad = np.flatnonzero(~fine)
    inputs.warn_of_rows(bad + first, ["not finite"] * len(bad), "influence")
    if not fine.any():
        raise NotFinite("some example must have a finite gradient; at this theta none has", bad)
    found = solved(gradients[fine].T).T
    out = np.full((len(gradients), found.shape[1]), np.nan)
    out[fine] = found
    return out


def _finite_gradients(test, theta):
    """∇ℓ_t of the test examples. Raises NotFinite with those that are not."""
    gradients = test.gradients(theta)
    bad = np.flatnonzero(~np.isfinite(gradients).all(axis=1))
    if bad.size:
        raise NotFinite(f"test must have finite gradients; example {bad[0]} has none", bad)
    return gradients


def _factor(risk, theta, weights, damping, matrix, memory):
    return solvers.factor(risk, theta, weights, damping, matrix=matrix, memory=memory)


def _configuration(risk, theta, weights, damping, matrix):
    """What the answer depends on, for a `Run`."""

    def configuration():
        at = digest(risk.parameters(theta).numpy(), risk.weights(weights).numpy())
        return fingerprint(risk) | {"at": at, "damping": damping, "matrix": matrix}

    return configuration


def _require_memory(needed, memory, what, instead):
    if needed > inputs.memory(memory):
        raise solvers.OutOfMemory(
            f"{what} need {needed / 2**20:,.0f} MiB; memory allows {memory / 2**20:,.0f} MiB. "
            f"{instead}",
            needed,
        )


def _require_same_model(risk, test, theta):
    """That `test` is a risk of the same model, tried at θ. Raises TypeError, ValueError."""
    inputs.kind(test, Risk, "test")
    if test.model is risk.model:
        return
    theta, x = risk.parameters(theta), rows_of(test.X, 0)
    try:
        same = test.d == risk.d and torch.equal(test.model(theta, x), risk.model(theta, x))
    except Exception:  # inputs of another shape
        same = False
    if not same:
        raise ValueError(
            f"test must have the model of the risk, with d = {risk.d} parameters; got {test.d}, "
            "or other outputs"
        )
