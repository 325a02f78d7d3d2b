"""Responses by optimisation, converged and deterministic: θ(w) = argmin R_w, and the proximal ones from any point θˢ."""

from typing import NamedTuple

import numpy as np
import torch
from torch.func import grad, vjp, vmap

from ifcore import _inputs, solvers
from ifcore._blocks import BadCache  # noqa: F401
from ifcore._training import Trained, Training, initial, retrain  # noqa: F401
from ifcore.solvers import NotConverged, NotPositiveDefinite

BLOCK = 2**20  # fits × n × d in one block
ROUNDING = np.finfo(float).eps
CG_STEPS = 250  # conjugate gradients for one Newton step of a proximal response
FAR = 1e6  # times 1 + ‖θˢ‖: a proximal response that moves further has no minimiser in sight


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
        for out, found in zip(
            fits, _newton(risk, torch.from_numpy(W[block]), start, tol, max_steps, first)
        ):
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
        active, t, w, gradient, H, size = (
            active[keep],
            t[keep],
            w[keep],
            gradient[keep],
            H[keep],
            size[keep],
        )
        if not active.size:
            break
        direction = _direction(risk, t, w, gradient, H, size, first + active)
        slope = (gradient * direction).sum(1)
        value_before = value(t, w)
        length = torch.ones(len(active), dtype=t.dtype)
        for _ in range(60):
            after = value(t + length[:, None] * direction, w)
            # Armijo's condition, up to the rounding of a sum of n terms
            short = ~(
                after
                <= value_before + 1e-4 * length * slope + risk.n * ROUNDING * value_before.abs()
            )
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
    singular = ~(
        (values[:, 0] > risk.d * ROUNDING * values[:, -1]) & (H.norm(dim=(1, 2)) > ROUNDING * size)
    )
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


class Proximal(NamedTuple):
    """What `pbrf` and `damped` found, for m weight vectors (without the first axis for a single one)."""

    theta: np.ndarray  # (m, d)
    gradient_norm: (
        np.ndarray
    )  # (m,), ‖∇ of the objective‖ over its scale; at most tol where the fit has converged
    steps: np.ndarray  # (m,), Newton steps taken
    status: np.ndarray  # (m,): "converged", "max_steps", "stalled" (rounding: nothing left to gain), "diverged" (falls for ever)
    curvature: np.ndarray  # (m,), the least pᵀHp/‖p‖² met on the last step; ≤ 0: not convex there. NaN where there was no step


def pbrf(risk, theta, damping, weights, base=None, **options):
    """The proximal Bregman response from θˢ = theta, for many weight vectors w at once, b = base being those of θˢ:

    argmin_θ Σ_i b_i D_i(f(θ; x_i), f(θˢ; x_i)) + Σ_i (w_i − b_i) ℓ_i(θ) + (λ + damping)/2 ‖θ − θˢ‖²

    risk : a `Risk`, whose λ enters with its own divergence λ/2‖θ − θˢ‖². theta : (d,), any point. weights : (n,) or
    (m, n); `risk.without(n, j)` leaves out j. base : (n,); None is w = 1. damping : at least 0.
    options : tol = 1e-10, a fit has converged once ‖∇‖ ≤ tol Σ_i abs(w_i − b_i)‖∇ℓ_i(θˢ)‖; max_steps = 50; block = 4
    fits at a time; preconditioner = True for the Cholesky factor of G_b + (λ + damping)I, where it fits `memory`, in
    bytes; strict = True to raise where a fit is unfinished, False to return it with its status.

    Method: Newton's with line search, each step by conjugate gradients cut short, from θˢ. It finds a local minimum
    near θˢ; a global one need not exist. Returns a Proximal. Raises NotConverged (`response` is the whole
    Proximal), NotConvex for a loss that is not convex in the output at θˢ, NotPositiveDefinite where the
    preconditioner is singular. Memory: the derivatives of a block take about 10 × block × n × (the
    numbers that the model makes of an example). Source: Bae et al. (2022).
    """
    theta, b = risk._theta(theta), risk._weights(base)
    damping = _inputs.nonnegative(damping, "damping")
    risk._convex_hessians(theta)
    slopes = b.reshape(-1, *[1] * (risk._outputs(theta).ndim - 1)) * torch.from_numpy(
        risk.output_gradients(theta)
    )
    objective = _Objective(risk, theta, slopes, 0.0, risk.lam + damping)
    return _proximal(
        objective, weights, lambda W, sizes: np.abs(W - b.numpy()) @ sizes, b, damping, **options
    )


def damped(risk, theta, damping, weights, **options):
    """The damped response from θˢ = theta, argmin_θ R_w(θ) + (damping/2)‖θ − θˢ‖², for many weight vectors w at once.

    Arguments, errors and method as for `pbrf`; the loss need not be convex in the output for preconditioner=False. Its
    scale is Σ_i w_i‖∇ℓ_i(θˢ)‖ + λ‖θˢ‖, its preconditioner is that of the mean weights. Source: the notes' damped response.
    """
    theta, damping = risk._theta(theta), _inputs.nonnegative(damping, "damping")
    objective = _Objective(risk, theta, None, risk.lam, damping)
    penalty = risk.lam * theta.norm().item()
    return _proximal(
        objective, weights, lambda W, sizes: W @ sizes + penalty, None, damping, **options
    )


class _Objective:
    """Σ_i w_i ℓ_i(θ) − ⟨slopes, f(θ)⟩ + (penalty/2)‖θ‖² + (damping/2)‖θ − start‖²: PBRF's, up to a constant, and the damped one."""

    def __init__(self, risk, start, slopes, penalty, damping):
        self.risk, self.start, self.slopes, self.penalty, self.damping = (
            risk,
            start,
            slopes,
            penalty,
            damping,
        )

    def value(self, theta, w):
        f = self.risk._outputs(theta)
        value = w @ vmap(self.risk.loss)(f, self.risk.y)
        if self.slopes is not None:
            value = value - (self.slopes * f).sum()
        move = theta - self.start
        return value + self.penalty / 2 * (theta @ theta) + self.damping / 2 * (move @ move)

    def size(self, W):
        """The size of the terms of the value at the start, for each row of W."""
        f = self.risk._outputs(self.start)
        size = W @ vmap(self.risk.loss)(f, self.risk.y).abs() + self.penalty / 2 * (
            self.start @ self.start
        )
        return size if self.slopes is None else size + (self.slopes * f).abs().sum()


def _proximal(objective, weights, scale, base, damping, *, tol=1e-10, max_steps=50, block=4, preconditioner=True,
              memory=solvers.MEMORY, strict=True):  # fmt: skip
    risk = objective.risk
    W, single = _inputs.weights(weights, risk.n)
    tol, max_steps, block = (
        solvers._positive(tol, "tol"),
        solvers._steps(max_steps),
        solvers._steps(block, "block"),
    )
    scale = scale(W, np.linalg.norm(risk.gradients(objective.start), axis=1))
    precondition, W = None, torch.from_numpy(W)
    if preconditioner and (form := solvers.choose(risk, damping, memory=memory)) != "cg":
        w = W.mean(0) if base is None else base
        precondition = solvers.factorise(
            risk, objective.start, w, damping, "gauss_newton", form
        ).solve
    parts = [
        _newton_cg(
            objective,
            W[first : first + block],
            scale[first : first + block],
            tol,
            max_steps,
            precondition,
        )
        for first in range(0, len(W), block)
    ]
    found = Proximal(
        *(np.concatenate(part)[0] if single else np.concatenate(part) for part in zip(*parts))
    )
    unfinished = np.flatnonzero(np.atleast_1d(found.status) != "converged")
    if strict and unfinished.size:
        i = int(unfinished[0])
        norm, status, curvature = (
            np.atleast_1d(part)[i] for part in (found.gradient_norm, found.status, found.curvature)
        )
        raise NotConverged(
            f"{unfinished.size} of {len(W)} fits are unfinished; the first, of weight vector {i}, is {str(status)!r} with relative gradient "
            f"norm {norm:.1e}, where tol = {tol:.0e} was asked for, and smallest curvature {curvature:.1e}"
            + (
                f". damping must grow by more than {-curvature:.1e} for the objective to be convex there"
                if curvature < 0
                else ""
            ),
            found,
        )
    return found


def _newton_cg(objective, W, scale, tol, max_steps, precondition):
    """Newton's method in a trust region (Steihaug, 1983) for each row of W: the fields of a Proximal."""
    m, value, start = len(W), vmap(objective.value), objective.start
    theta, before = start.repeat(m, 1), start.repeat(m, 1)
    slack = 8 * ROUNDING * objective.size(W).numpy()  # of a value
    norm, steps, curvature, radius = (
        np.full(m, np.inf),
        np.zeros(m, dtype=int),
        np.full(m, np.nan),
        np.full(m, np.nan),
    )
    status, level, active = (
        np.full(m, "max_steps", dtype=object),
        np.zeros(m, dtype=bool),
        np.arange(m),
    )
    while True:
        gradient, back = vjp(lambda t: vmap(grad(objective.value))(t, W[active]), theta[active])
        new, old = (
            gradient.norm(dim=1).numpy() / np.where(scale[active] > 0, scale[active], 1),
            norm[active],
        )
        stalled = level[active] & ~(new <= old / 2) & ~(new <= tol)
        worse = active[stalled & ~(new < old)]
        theta[worse] = before[worse]
        norm[active] = np.where(stalled, np.fmin(new, old), new)
        far = (theta[active] - start).norm(dim=1) > FAR * (1 + start.norm())
        status[active[stalled]], status[active[new <= tol]] = "stalled", "converged"
        status[active[~np.isfinite(new) | far.numpy()]] = "diverged"
        kept = np.flatnonzero((status[active] == "max_steps") & (steps[active] < max_steps))
        if not kept.size:
            return theta.numpy(), norm, steps, status.astype(str), curvature
        p, predicted, bend, size, radius[active[kept]] = _within(
            gradient, back, kept, new[kept], radius[active[kept]], precondition
        )
        active = active[kept]
        before[active], curvature[active], level[active] = (
            theta[active],
            bend,
            predicted <= slack[active],
        )
        gain = (value(theta[active], W[active]) - value(theta[active] + p, W[active])).numpy()
        ratio = np.where(
            level[active], 1, (gain + slack[active]) / (predicted + slack[active])
        )  # on the level the gradient decides
        theta[active[ratio > 1e-4]] += p[ratio > 1e-4]
        steps[active] += 1
        wider = np.where((ratio > 0.75) & (size > 0.99 * radius[active]), 2 * size, radius[active])
        radius[active] = np.where(ratio > 0.25, wider, size / 4)


def _within(gradient, back, kept, norm, radius, precondition):
    """The step within the radius of each fit in `kept`, its predicted gain, least curvature and size; the radius, where it was NaN too."""

    def product(V, which):
        full = torch.zeros_like(gradient)
        full[kept[which]] = torch.from_numpy(np.ascontiguousarray(V.T))
        return back(full)[0][kept[which]].numpy().T

    v = -gradient[kept].numpy().T
    if np.isnan(radius).any():
        first = np.sqrt((v * (v if precondition is None else precondition(v))).sum(0))
        radius = np.where(np.isnan(radius), 10 * first, radius)
    x, left, _, curvature, size = solvers.truncated_cg(
        product, v, np.minimum(0.1, norm), CG_STEPS, precondition, radius
    )
    return (
        torch.from_numpy(np.ascontiguousarray(x.T)),
        (x * (v + left)).sum(0) / 2,
        curvature,
        size,
        radius,
    )
