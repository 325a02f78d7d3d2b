"""∂θ/∂w and what is made of it: influence on the parameters and the losses, the Newton step.

With the one convention of the book, θ(w) = argmin R_w, an influence says where the parameters go
when the weight of a point grows. Removing the point goes the other way.
"""

from typing import NamedTuple

import numpy as np

from ifcore import inputs, jacobian, solvers
from ifcore.runs import NotConverged


class NotStationary(ValueError):
    """A θ at which ∇R_w(θ) does not vanish; `gradient_norm` is its relative norm."""

    def __init__(self, message, gradient_norm):
        super().__init__(message)
        self.gradient_norm = gradient_norm


def influence(risk, theta, weights=None, *, tol=1e-6):
    """∂θ/∂w_j = −H_w⁻¹∇ℓ_j(θ) of every example j, at a minimiser θ = θ(w).

    risk : a `Risk`. theta : (d,). weights : (n,); None is w = 1. Returns (n, d), row j for example
    j: the transpose of the Jacobian Jθ(w).
    tol : θ must be stationary, ‖∇R_w(θ)‖ ≤ tol (Σ_i w_i‖∇ℓ_i(θ)‖ + λ‖θ‖).

    Raises NotStationary with the gradient's norm, NotPositiveDefinite with H_w's smallest
    eigenvalue. Source: the notes' (0.4), (0.5), (0.6). At w = 1 it is their θ̇(1) and −1/n times
    their 𝓘(z_j; θ̂), Definition 2; at w = 1 − e_j, θ = θ*₋ⱼ, row j is their I(j), (0.2), (0.3),
    Definition 5, Proposition 0.0.1.
    """
    gradients = risk.gradients(theta)
    _require_stationary(risk, theta, weights, gradients, tol)
    return -solvers.direct(risk.hessian(theta, weights), gradients.T, name="H_w").x.T


def loss_influence(risk, theta, weights=None, *, tol=1e-6):
    """∂ℓ_i(θ(w))/∂w_j = ∇ℓ_iᵀ ∂θ/∂w_j: (n, n), row i for the loss, column j for the weight.

    Arguments and errors as for `influence`. Source: the notes' (0.8), Corollary 0.0.1 and, at
    w = 1, −1/n times their 𝓠(z_j; θ̂), the influence loss difference of Definition 1, on the
    diagonal.
    """
    return risk.gradients(theta) @ influence(risk, theta, weights, tol=tol).T


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
    """
    needed = 3 * 8 * risk.n * risk.d
    if needed > memory:
        raise solvers.OutOfMemory(
            f"the influences on θ of n = {risk.n} examples need {needed / 2**20:,.0f} MiB; memory "
            f"allows {memory / 2**20:,.0f} MiB. damped_effects in the dual form avoids it, and so "
            "does solvers.solve for a few gradients",
            needed,
        )
    V, options = risk.gradients(theta).T, {"matrix": matrix, "solver": solver, "memory": memory}
    found = solvers.solve(risk, theta, V, weights, damping, **options)
    if not found.converged:
        raise NotConverged(
            f"{found.solver} has the residual {found.residual:.1e} after {found.steps} steps; "
            "solvers.solve takes more of them, or a tolerance",
            found,
        )
    return -found.x.T


def damped_effects(
    risk, theta, weights=None, damping=0.0, *, test=None, solver=None, memory=solvers.MEMORY
):
    """What `damped_influence` does to the outputs and losses of `test`, and to each point's own.

    test : a `Risk` of the same model, which gives the test examples and their loss; None: the
    training examples. Other arguments and errors as for `solvers.solve`. Returns Effects.
    In the dual form (G_w + λI)⁻¹ = (I − Bᵀ(λI + BBᵀ)⁻¹B)/λ with G_w = BᵀB stays in the space of the
    outputs: no array has length d, if the model is layered, and about 4 m² + 2 t m numbers are
    held, m = n·K.
    """
    test = risk if test is None else test
    if test.d != risk.d:
        raise ValueError(
            f"test must have the model of the risk, with d = {risk.d} parameters; got {test.d}"
        )
    chosen = solvers.choose(risk, damping, solver=solver, memory=memory)
    if chosen == "dual":
        outputs, own = _dual_effects(risk, test, theta, weights, damping)
    else:
        J = damped_influence(risk, theta, weights, damping, solver=chosen, memory=memory)
        outputs = test.jacobian_map(theta).product(J.T)
        own = (risk.gradients(theta) * J).sum(1)
    slopes = test.output_gradients(theta)
    outputs = outputs.reshape(*slopes.shape, risk.n)
    losses = (slopes.reshape(test.n, 1, -1) @ outputs.reshape(test.n, -1, risk.n))[:, 0]
    return Effects(outputs, losses, own, chosen)


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
    """
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
        return theta - solvers.direct(H, gradient, name="H_w without `remove`").x
    except solvers.NotPositiveDefinite as error:
        left, rank = int((kept > 0).sum()), np.linalg.matrix_rank(H)
        raise solvers.NotPositiveDefinite(
            f"{error}; {left} points are left, and their Hessian has rank {rank} of d = {risk.d}",
            error.smallest,
        ) from None


def _require_stationary(risk, theta, weights, gradients, tol):
    w = risk.weights(weights).numpy()
    gradient = np.linalg.norm(risk.gradient(theta, w))
    scale = w @ np.linalg.norm(gradients, axis=1) + risk.lam * np.linalg.norm(theta)
    relative = gradient / scale if scale > 0 else 0.0
    if not relative <= tol:
        raise NotStationary(
            f"theta must be stationary for these weights; ‖∇R_w(θ)‖ = {gradient:.2e} is "
            f"{relative:.1e} of the size of its terms, and tol = {tol:g}. response.minimise finds "
            "a stationary point",
            relative,
        )
