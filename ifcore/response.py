"""The response map θ(w) = argmin_θ R_w(θ) by optimisation: converged, deterministic, the truth of the book."""

from typing import NamedTuple

import numpy as np
import torch
from torch.func import vmap

from ifcore import _inputs
from ifcore.solvers import NotPositiveDefinite

BLOCK = 2**20  # fits × n × d in one block
ROUNDING = np.finfo(float).eps


class NotConverged(RuntimeError):
    """An optimisation that stopped short; `response` is the last Response."""

    def __init__(self, message, response):
        super().__init__(message)
        self.response = response


class Response(NamedTuple):
    """What `minimise` found, for m weight vectors (without the first axis for a single one)."""

    theta: np.ndarray  # (m, d)
    gradient_norm: np.ndarray  # (m,), ‖∇R_w(θ)‖ over Σ_i w_i‖∇ℓ_i(θ)‖ + ‖H_w(θ)‖‖θ‖, at most tol
    steps: np.ndarray  # (m,), Newton steps taken


def minimise(risk, weights=None, start=None, *, tol=1e-12, max_steps=100):
    """θ(w) for a strongly convex risk, by Newton's method with line search, many weight vectors at once.

    risk : a `Risk`. weights : (n,), or (m, n) for m fits; None is w = 1. start : (d,), by default 0.
    tol : a fit has converged once ‖∇R_w(θ)‖ ≤ tol (Σ_i w_i‖∇ℓ_i(θ)‖ + ‖H_w(θ)‖‖θ‖). It goes on from
    there as long as a step halves the gradient, so that nothing but rounding is left.

    Returns a Response. Raises NotPositiveDefinite where a Hessian on the way is singular or
    indefinite (its smallest eigenvalue, the λ that would mend it), NotConverged after max_steps
    (the gradient's norm). Memory: the derivatives of a block of fits take about 15 × 8 MiB, or those
    of a single fit, about 15 n × d + 5 d × d numbers, where that is more.
    """
    W, single = _inputs.weights(weights, risk.n)
    start = risk._theta(np.zeros(risk.d) if start is None else start)
    if not tol > 0:
        raise ValueError(f"tol must be positive; got {tol}")
    if not max_steps >= 1:
        raise ValueError(f"max_steps must be at least 1; got {max_steps}")
    fits = np.empty((len(W), risk.d)), np.empty(len(W)), np.empty(len(W), dtype=int)
    size = max(1, BLOCK // (risk.d * max(risk.n, risk.d)))
    for first in range(0, len(W), size):
        block = slice(first, first + size)
        for out, found in zip(fits, _newton(risk, torch.from_numpy(W[block]), start, tol, max_steps, first)):
            out[block] = found
    found = Response(*(out[0] if single else out for out in fits))
    unfinished = np.flatnonzero(~(fits[1] <= tol))
    if unfinished.size:
        i = int(unfinished[0])
        raise NotConverged(
            f"{unfinished.size} of {len(W)} fits did not converge in {max_steps} steps; the first, of weight "
            f"vector {i}, has relative gradient norm {fits[1][i]:.1e}, and tol = {tol:.0e} was asked for",
            found,
        )
    return found


def leave_one_out(risk, start=None, **options):
    """θ*₋ⱼ for every j: the Response of the n weight vectors 1 − e_j; `options` as for `minimise`."""
    return minimise(risk, 1 - np.eye(risk.n), start, **options)


def _newton(risk, W, start, tol, max_steps, first):
    """Newton's method for each row of W; θ, relative gradient norms and steps, as arrays."""
    theta = start.repeat(len(W), 1)
    steps, norm = np.zeros(len(W), dtype=int), np.full(len(W), np.inf)
    active, size = np.arange(len(W)), None
    value = vmap(risk._value)
    while active.size:
        t, w = theta[active], W[active]
        before = norm[active]
        gradient, H, norm[active] = _derivatives(risk, t, w)
        size = H.norm(dim=(1, 2)) if size is None else size  # of each fit's Hessian at its start
        done = (norm[active] <= tol) & (norm[active] >= before / 2)
        keep = ~done & np.isfinite(norm[active]) & (steps[active] < max_steps)
        active, t, w, gradient, H, size = active[keep], t[keep], w[keep], gradient[keep], H[keep], size[keep]
        if not active.size:
            break
        direction = _direction(risk, t, w, gradient, H, size, first + active)
        slope = (gradient * direction).sum(1)
        value_before = value(t, w)
        length = torch.ones(len(active), dtype=t.dtype)
        for _ in range(60):
            after = value(t + length[:, None] * direction, w)
            # Armijo's condition, up to the rounding of a sum of n terms
            short = ~(after <= value_before + 1e-4 * length * slope + risk.n * ROUNDING * value_before.abs())
            if not short.any():
                break
            length[short] /= 2
        theta[active] = t + length[:, None] * direction
        steps[active] += 1
    return theta.numpy(), norm, steps


def _derivatives(risk, theta, w):
    """∇R_w and H_w at each row of θ, and the gradient's norm over Σ_i w_i‖∇ℓ_i‖ + ‖H_w‖‖θ‖."""
    each = vmap(risk._gradients)(theta)
    gradient = torch.einsum("mn,mnd->md", w, each) + risk.lam * theta
    H = vmap(risk._hessian)(theta, w)
    scale = (w * each.norm(dim=2)).sum(1) + H.norm(dim=(1, 2)) * theta.norm(dim=1)
    norm = gradient.norm(dim=1)
    return gradient, H, torch.where(scale > 0, norm / scale, norm).numpy()


def _direction(risk, theta, w, gradient, H, size, which):
    """−H_w⁻¹∇R_w for each row, with H_w scaled to a unit diagonal, so that no unit of X matters.

    H_w is singular to working precision where it is ill-conditioned, or has all but vanished beside
    its size at the start, as it does along a ray that separates the classes.
    """
    scale = H.diagonal(dim1=1, dim2=2)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale)).rsqrt()
    values, vectors = torch.linalg.eigh(scale[:, :, None] * H * scale[:, None, :])
    singular = ~((values[:, 0] > risk.d * ROUNDING * values[:, -1]) & (H.norm(dim=(1, 2)) > ROUNDING * size))
    if singular.any():
        i = int(singular.nonzero()[0])
        smallest, largest = torch.linalg.eigvalsh(H[i])[[0, -1]].tolist()
        raise NotPositiveDefinite(
            f"the Hessian of R_w must be positive definite; for weight vector {which[i]} its smallest eigenvalue "
            f"is {smallest:.2e} and its largest {largest:.2e}, at λ = {risk.lam:g} and ‖θ‖ = {theta[i].norm():.2e}. "
            f"λ = {risk.lam + 1.1 * max(-smallest, 0) + ROUNDING**0.5 * max(largest, size[i].item()):.1e} would mend it there. If the classes "
            "are separable or the columns dependent, no minimiser exists at λ = 0, or more than one",
            smallest,
        )
    scaled = (vectors.mT @ (scale * gradient)[:, :, None]) / values[:, :, None]
    return -scale * (vectors @ scaled)[..., 0]
