"""∂θ/∂w and what is made of it: the influence of every point, on the parameters and on the losses, and the Newton step.

With the one convention of the book, θ(w) = argmin R_w, an influence says where the parameters go when
the weight of a point grows. Removing the point goes the other way.
"""

import numpy as np

from ifcore import _inputs, solvers


class NotStationary(ValueError):
    """A θ at which ∇R_w(θ) does not vanish; `gradient_norm` is its relative norm."""

    def __init__(self, message, gradient_norm):
        super().__init__(message)
        self.gradient_norm = gradient_norm


def influence(risk, theta, weights=None, *, tol=1e-6):
    """∂θ/∂w_j = −H_w⁻¹∇ℓ_j(θ) of every example j, at a minimiser θ = θ(w).

    risk : a `Risk`. theta : (d,). weights : (n,); None is w = 1. Returns (n, d), row j for example j:
    the transpose of the Jacobian Jθ(w).
    tol : θ must be stationary, ‖∇R_w(θ)‖ ≤ tol (Σ_i w_i‖∇ℓ_i(θ)‖ + λ‖θ‖).

    Raises NotStationary with the gradient's norm, NotPositiveDefinite with H_w's smallest eigenvalue.
    Source: the notes' (0.6). At w = 1 it is their θ̇(1) and −1/n times their 𝓘(z_j; θ̂); at
    w = 1 − e_j, θ = θ*₋ⱼ, row j is their I(j), Proposition 0.0.1.
    """
    gradients = risk.gradients(theta)
    _require_stationary(risk, theta, weights, gradients, tol)
    return -solvers.direct(risk.hessian(theta, weights), gradients.T, name="H_w").x.T


def loss_influence(risk, theta, weights=None, *, tol=1e-6):
    """∂ℓ_i(θ(w))/∂w_j = ∇ℓ_iᵀ ∂θ/∂w_j: (n, n), row i for the loss, column j for the weight.

    Arguments and errors as for `influence`. Source: the notes' Corollary 0.0.1 and, at w = 1, −1/n
    times their 𝓠(z_j; θ̂) on the diagonal.
    """
    return risk.gradients(theta) @ influence(risk, theta, weights, tol=tol).T


def newton_step(risk, theta, remove, weights=None):
    """The point that one Newton step from θ reaches once the points `remove` are dropped: (d,).

    θ − (H_{w'}(θ))⁻¹∇R_{w'}(θ), with w' = w but 0 on `remove`. risk : a `Risk`. theta : (d,), any
    point. remove : an index, or a list of distinct ones. weights : (n,); None is w = 1.

    Exact where R_{w'} is quadratic. Raises IndexError, TypeError, ValueError for a bad `remove` or one
    that leaves nothing, NotPositiveDefinite where too few points are left to hold every direction
    (the rank, and the smallest eigenvalue). Source: the notes' Definition 6, at θ = θ(1).
    """
    w = np.ones(risk.n) if weights is None else _inputs.array(weights, "weights", 1)
    if len(w) != risk.n:
        raise ValueError(f"weights must have length n = {risk.n}; got {len(w)}")
    kept = w.copy()
    kept[_inputs.indices(remove, risk.n, "remove")] = 0
    if not kept.any():
        raise ValueError(f"remove must leave at least one point with a positive weight; got all of {np.size(remove)}")
    H, gradient = risk.hessian(theta, kept), risk.gradient(theta, kept)
    try:
        return np.asarray(theta, dtype=float) - solvers.direct(H, gradient, name="H_w without `remove`").x
    except solvers.NotPositiveDefinite as error:
        rank = np.linalg.matrix_rank(H)
        raise solvers.NotPositiveDefinite(
            f"{error}; {int((kept > 0).sum())} points are left, and their Hessian has rank {rank} of d = {risk.d}",
            error.smallest,
        ) from None


def _require_stationary(risk, theta, weights, gradients, tol):
    w = np.ones(risk.n) if weights is None else np.asarray(weights, dtype=float)
    gradient = np.linalg.norm(risk.gradient(theta, weights))
    scale = w @ np.linalg.norm(gradients, axis=1) + risk.lam * np.linalg.norm(theta)
    relative = gradient / scale if scale > 0 else 0.0
    if not relative <= tol:
        raise NotStationary(
            f"theta must be stationary for these weights; ‖∇R_w(θ)‖ = {gradient:.2e} is {relative:.1e} of the "
            f"size of its terms, and tol = {tol:g}. response.minimise finds a stationary point",
            relative,
        )
