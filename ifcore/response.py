"""The response θ(w) = argmin R_w, by optimisation: converged, deterministic, many weights at once.

`minimise` is the one minimiser, by Newton's method with the whole Hessian for a risk that is
strongly convex, or with conjugate gradients in a trust region (`descend`) for any other, which
`proximal` uses for its objectives too.
"""

import numpy as np
import torch
from torch.func import grad, vjp, vmap

from ifcore import inputs, solvers
from ifcore.risk import NotConvex
from ifcore.runs import Fit
from ifcore.solvers import NotPositiveDefinite

BLOCK = 2**20  # fits × n × d in one block
ROUNDING = np.finfo(float).eps
TOL = 1e-10  # of `descend`
CG_STEPS = 250  # conjugate gradients for one Newton step
FAR = 1e6  # times 1 + ‖start‖: a fit that moves further has no minimiser in sight
HALVINGS = 60  # of a step of the line search


def minimise(risk, start=None, weights=None, *, method="newton", strict=True, **options):
    """θ(w), the minimiser of R_w, for many weight vectors w at once.

    risk : a `Risk`. start : (d,), or (m, d) for one a fit; by default 0. weights : (n,), or (m, n)
    for m fits; None is w = 1. strict : False returns what did not end well with its status.
    method : "newton" for a strongly convex risk, with line search; options tol = 1e-12 and
    max_steps = 100. A fit has converged once ‖∇R_w(θ)‖ ≤ tol (Σ_i w_i‖∇ℓ_i(θ)‖ + ‖H_w(θ)‖‖θ‖); it
    goes on from there as long as a step halves the gradient, so that nothing but rounding is left.
    Or "newton-cg" for any risk, to a local minimiser near the start; options as for
    `proximal.damped`, and its scale.

    Returns a Fit; its statuses are "converged", "max_steps", and "singular" for a Hessian on the
    way that was not positive definite, or "stalled" and "diverged". Raises NotPositiveDefinite for
    "singular" (the smallest eigenvalue, the λ that would mend it), NotConverged for the others;
    `reached` is the whole Fit. Memory: the derivatives of a block of fits take about 15 × 8 MiB, or
    those of a single fit, about 15 n × d + 5 d × d numbers, where that is more.
    Source: the notes' θ̂_{ε,−z} and θ(ε).
    """
    if method not in ("newton", "newton-cg"):
        raise ValueError(f"method must be 'newton' or 'newton-cg'; got {method!r}")
    W, single = inputs.weights(weights, risk.n)
    start = np.zeros(risk.d) if start is None else inputs.array(start, "start")
    if start.shape not in ((risk.d,), (len(W), risk.d)):
        raise ValueError(
            f"start must be ({risk.d},), or ({len(W)}, {risk.d}) for one a fit; got {start.shape}"
        )
    by = {"newton": _by_newton, "newton-cg": _by_newton_cg}[method]
    found = by(risk, start, W, strict, **options)
    return found.first() if single else found


def leave_one_out(risk, start=None, **options):
    """θ*₋ⱼ for every j: the Fit of the n weight vectors 1 − e_j; `options` as for `minimise`."""
    return minimise(risk, start, 1 - np.eye(risk.n), **options)


def _by_newton(risk, start, W, strict, *, tol=1e-12, max_steps=100):
    tol, max_steps = inputs.positive(tol, "tol"), inputs.count(max_steps, "max_steps")
    starts = torch.from_numpy(np.broadcast_to(start, (len(W), risk.d)).copy())
    size = max(1, BLOCK // (risk.d * max(risk.n, risk.d)))
    fits, singular = [], {}
    for first in range(0, len(W), size):
        block = slice(first, first + size)
        fit, found = _newton(risk, starts[block], torch.from_numpy(W[block]), tol, max_steps)
        fits.append(fit)
        singular |= {first + i: told for i, told in found.items()}
    found = Fit.joined(fits)
    if strict and singular:
        i = min(singular)
        told, smallest = singular[i]
        raise NotPositiveDefinite(
            f"the Hessian of R_w must be positive definite; for weight vector {i} {told}. If the "
            "classes are separable or the columns dependent, no minimiser exists at λ = 0, or more "
            "than one",
            smallest,
            found,
        )
    return found.require(strict, "weight vector", f", where tol = {tol:.0e} was asked for")


def _newton(risk, theta, W, tol, max_steps):
    """Newton's method for each row of θ (m, d) and W: a Fit, and {row: what of a singular one}."""
    steps, norm = np.zeros(len(W), dtype=int), np.full(len(W), np.inf)
    status = np.full(len(W), "max_steps", dtype="U10")
    active, size, singular = np.arange(len(W)), None, {}
    while active.size:
        t, w = theta[active], W[active]
        before = norm[active]
        gradient, H, norm[active] = _derivatives(risk, t, w)
        size = H.norm(dim=(1, 2)) if size is None else size  # of each fit's Hessian at its start
        done = (norm[active] <= tol) & (norm[active] >= before / 2)
        keep = ~done & np.isfinite(norm[active]) & (steps[active] < max_steps)
        active, t, w = active[keep], t[keep], w[keep]
        gradient, H, size = gradient[keep], H[keep], size[keep]
        if not active.size:
            break
        direction, bad = _direction(risk.d, gradient, H, size)
        for i in np.flatnonzero(bad):
            singular[int(active[i])] = _told(risk, t[i], H[i], size[i])
        status[active[bad]] = "singular"
        active, t, w = active[~bad], t[~bad], w[~bad]
        gradient, size, direction = gradient[~bad], size[~bad], direction[~bad]
        if not active.size:
            break
        theta[active] = _searched(risk, t, w, gradient, direction)
        steps[active] += 1
    status[(status != "singular") & (norm <= tol)] = "converged"
    status[~np.isfinite(norm)] = "diverged"
    return Fit(theta.numpy(), norm, steps, status), singular


def _derivatives(risk, theta, w):
    """∇R_w and H_w at each row of θ, and the gradient's norm over Σ_i w_i‖∇ℓ_i‖ + ‖H_w‖‖θ‖."""
    each = vmap(risk.tensors.gradients)(theta)
    gradient = torch.einsum("mn,mnd->md", w, each) + risk.lam * theta
    H = vmap(risk.tensors.hessian)(theta, w)
    scale = (w * each.norm(dim=2)).sum(1) + H.norm(dim=(1, 2)) * theta.norm(dim=1)
    norm = gradient.norm(dim=1)
    return gradient, H, torch.where(scale > 0, norm / scale, norm).numpy()


def _direction(d, gradient, H, size):
    """−H_w⁻¹∇R_w for each row, and which rows have an H_w that is singular.

    H_w is scaled to a unit diagonal, so that no unit of X matters. It is singular to working
    precision where it is ill-conditioned, or has all but vanished beside its size at the start, as
    it does along a ray that separates the classes.
    """
    scale = H.diagonal(dim1=1, dim2=2)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale)).rsqrt()
    values, vectors = torch.linalg.eigh(scale[:, :, None] * H * scale[:, None, :])
    held = (values[:, 0] > d * ROUNDING * values[:, -1]) & (H.norm(dim=(1, 2)) > ROUNDING * size)
    scaled = (vectors.mT @ (scale * gradient)[:, :, None]) / values[:, :, None]
    return -scale * (vectors @ scaled)[..., 0], ~held.numpy()


def _told(risk, theta, H, size):
    """What is wrong with a singular H, and its smallest eigenvalue."""
    smallest, largest = torch.linalg.eigvalsh(H)[[0, -1]].tolist()
    mend = risk.lam + 1.1 * max(-smallest, 0) + ROUNDING**0.5 * max(largest, size.item())
    told = (
        f"its smallest eigenvalue is {smallest:.2e} and its largest {largest:.2e}, at "
        f"λ = {risk.lam:g} and ‖θ‖ = {theta.norm():.2e}. λ = {mend:.1e} would mend it there"
    )
    return told, smallest


def _searched(risk, theta, w, gradient, direction):
    """The point on each line that meets Armijo's condition, up to the rounding of n terms."""
    value = vmap(risk.tensors.value)
    slope, before = (gradient * direction).sum(1), value(theta, w)
    length = torch.ones(len(theta), dtype=theta.dtype)
    slack = risk.n * ROUNDING * before.abs()
    for _ in range(HALVINGS):
        after = value(theta + length[:, None] * direction, w)
        short = ~(after <= before + 1e-4 * length * slope + slack)
        if not short.any():
            break
        length[short] /= 2
    return theta + length[:, None] * direction


def _by_newton_cg(risk, start, W, strict, **options):
    if start.ndim == 2:
        fits = [_by_newton_cg(risk, t, w[None], False, **options) for t, w in zip(start, W)]
        return _required(Fit.joined(fits), strict, options.get("tol", TOL))
    objective = Objective(risk, risk.parameters(start), risk.lam)
    return descend(objective, W, objective.scale(W), 0.0, strict=strict, **options)


class Objective:
    """Σ_i w_i ℓ_i(θ) − ⟨slopes, f(θ)⟩ + (penalty/2)‖θ‖² + (damping/2)‖θ − start‖².

    R_w itself; with damping the damped response's, with slopes, up to a constant, PBRF's.
    start : a tensor (d,). slopes : a tensor of the outputs' shape, or None.
    """

    def __init__(self, risk, start, penalty=0.0, damping=0.0, slopes=None):
        self.risk, self.start, self.slopes = risk, start, slopes
        self.penalty, self.damping = penalty, damping

    def value(self, theta, w):
        """At θ (d,) with weights w (n,), tensors."""
        f = self.risk.tensors.outputs(theta)
        value = w @ vmap(self.risk.loss)(f, self.risk.y)
        if self.slopes is not None:
            value = value - (self.slopes * f).sum()
        move = theta - self.start
        return value + self.penalty / 2 * (theta @ theta) + self.damping / 2 * (move @ move)

    def size(self, W):
        """The size of the terms of the value at the start, for each row of W, a tensor."""
        f = self.risk.tensors.outputs(self.start)
        losses = vmap(self.risk.loss)(f, self.risk.y).abs()
        size = W @ losses + self.penalty / 2 * (self.start @ self.start)
        return size if self.slopes is None else size + (self.slopes * f).abs().sum()

    def scale(self, W):
        """Σ_i w_i‖∇ℓ_i‖ + penalty ‖θ‖ at the start, for each row of W."""
        sizes = np.linalg.norm(self.risk.gradients(self.start), axis=1)
        return W @ sizes + self.penalty * self.start.norm().item()


def descend(
    objective,
    W,
    scale,
    damping,
    base=None,
    *,
    tol=TOL,
    max_steps=50,
    block=4,
    preconditioner=True,
    memory=solvers.MEMORY,
    strict=True,
):
    """A local minimiser of an Objective near its start, for each row of W (m, n).

    scale : (m,), what the gradient is measured beside: a fit has converged once ‖∇‖ ≤ tol · scale.
    damping, base : of the preconditioner, which is the factor of G_b + (λ + damping)I at the start
    where there is one that fits `memory`, in bytes; base None is the mean of W. block : fits at a
    time. strict : raise where a fit is unfinished.

    Method: Newton's in a trust region, each step by conjugate gradients cut short (Steihaug, 1983).
    Returns a Fit with status "converged", "max_steps", "stalled" (rounding: nothing left to gain)
    or "diverged" (it falls for ever), and with the curvature of the last step; ≤ 0: not convex
    there. Raises NotConverged.
    """
    risk = objective.risk
    tol, block = inputs.positive(tol, "tol"), inputs.count(block, "block")
    max_steps, precondition = inputs.count(max_steps, "max_steps"), None
    if preconditioner:
        w = W.mean(0) if base is None else base
        precondition = _preconditioner(risk, objective.start, w, damping, memory)
    W = torch.from_numpy(W)
    blocks = [slice(first, first + block) for first in range(0, len(W), block)]
    found = Fit.joined(
        [_newton_cg(objective, W[b], scale[b], tol, max_steps, precondition) for b in blocks]
    )

    return _required(found, strict, tol)


def _required(found, strict, tol):
    def why(i):
        curvature = found.curvature[i]
        more = f". damping must grow by more than {-curvature:.1e} for it to be convex there"
        return (
            f", where tol = {tol:.0e} was asked for, and smallest curvature {curvature:.1e}"
            f"{more if curvature < 0 else ''}"
        )

    return found.require(strict, "weight vector", why)


def _preconditioner(risk, start, w, damping, memory):
    """(G_w + (λ + damping)I)⁻¹ as a function; None where it has no factor that fits memory."""
    form = solvers.choose(risk, damping, memory=memory)
    parts = risk.gradients(start), risk.output_hessians(start)
    if form == "cg" or not all(np.isfinite(part).all() for part in parts):
        return None
    try:
        return solvers.factor(risk, start, w, damping, form=form, memory=memory).solve
    except (NotPositiveDefinite, NotConvex):
        return None


def _newton_cg(objective, W, scale, tol, max_steps, precondition):
    """Newton's method in a trust region for each row of W, as a Fit."""
    m, value, start = len(W), vmap(objective.value), objective.start
    theta, before = start.repeat(m, 1), start.repeat(m, 1)
    slack = 8 * ROUNDING * objective.size(W).numpy()  # of a value
    norm, curvature, radius = np.full(m, np.inf), np.full(m, np.nan), np.full(m, np.nan)
    steps, status = np.zeros(m, dtype=int), np.full(m, "max_steps", dtype="U10")
    level, active = np.zeros(m, dtype=bool), np.arange(m)
    scale = np.where(scale > 0, scale, 1)
    while True:
        gradient, back = vjp(lambda t: vmap(grad(objective.value))(t, W[active]), theta[active])
        new, old = gradient.norm(dim=1).numpy() / scale[active], norm[active]
        stalled = level[active] & ~(new <= old / 2) & ~(new <= tol)
        worse = active[stalled & ~(new < old)]
        theta[worse] = before[worse]
        norm[active] = np.where(stalled, np.fmin(new, old), new)
        far = (theta[active] - start).norm(dim=1) > FAR * (1 + start.norm())
        status[active[stalled]], status[active[new <= tol]] = "stalled", "converged"
        status[active[~np.isfinite(new) | far.numpy()]] = "diverged"
        kept = np.flatnonzero((status[active] == "max_steps") & (steps[active] < max_steps))
        if not kept.size:
            return Fit(theta.numpy(), norm, steps, status, curvature)
        p, predicted, bend, size, radius[active[kept]] = _within(
            gradient, back, kept, new[kept], radius[active[kept]], precondition
        )
        active = active[kept]
        before[active], curvature[active] = theta[active], bend
        level[active] = predicted <= slack[active]
        w = W[active]
        gain = (value(theta[active], w) - value(theta[active] + p, w)).numpy()
        # on the level the gradient decides
        ratio = (gain + slack[active]) / (predicted + slack[active])
        ratio = np.where(level[active], 1, ratio)
        theta[active[ratio > 1e-4]] += p[ratio > 1e-4]
        steps[active] += 1
        wider = np.where((ratio > 0.75) & (size > 0.99 * radius[active]), 2 * size, radius[active])
        radius[active] = np.where(ratio > 0.25, wider, size / 4)


def _within(gradient, back, kept, norm, radius, precondition):
    """The step of each fit in `kept` within its radius.

    Returns the step, its predicted gain, the least curvature, the step's size, and the radius,
    chosen where it was NaN.
    """

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
    step = torch.from_numpy(np.ascontiguousarray(x.T))
    return step, (x * (v + left)).sum(0) / 2, curvature, size, radius
