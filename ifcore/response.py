"""The response θ(w) = argmin R_w, by optimisation: converged, deterministic, many weights at once.

`minimise` is the one minimiser, by Newton's method with the whole Hessian for a risk that is
strongly convex, or with conjugate gradients in a trust region (`descend`) for any other, which
`proximal` uses for its objectives too.
"""

import numpy as np
import torch
from torch.func import grad, vjp

from ifcore import inputs, solvers
from ifcore.identity import digest, fingerprint
from ifcore.risk import NotConvex, NotFinite, Risk
from ifcore.risk.tensors import half_square
from ifcore.runs import HELD, Fit, Run
from ifcore.solvers import NotPositiveDefinite

BLOCK = 2**20  # fits × n × d in one block
ROUNDING = np.finfo(float).eps
TINY = np.finfo(float).tiny / ROUNDING  # below it a matrix has lost digits
TOL = 1e-10  # of `descend`
CG_STEPS = 250  # conjugate gradients for one Newton step
FLOOR = 1e-3  # of what has converged: no linear system is solved more exactly than to that
FAR = 1e6  # times 1 + ‖start‖ + the first step: a fit that moves further has no minimiser in sight
HALVINGS = 60  # of a step of the line search
SMALL = 1e-6  # a relative gradient norm at which `endless` can tell
NETWORKS = "For a risk that is not convex, as a network's, there is method='newton-cg'"
FEW = 1e-3  # of ‖θ‖: a step below it is a small one; of the terms' sizes: a sum below it cancels


def minimise(risk, start=None, weights=None, *, method="newton", strict=True, **options):
    """θ(w), the minimiser of R_w, for many weight vectors w at once.

    risk : a `Risk`. start : (d,), or (m, d) for one a fit; by default 0, or a `Network`'s own θ.
    weights : (n,), or (m, n) for m fits; None is w = 1. strict : False returns what did not end
    well with its status.
    method : "newton" for a strongly convex risk, with line search; options tol = 1e-12 and
    max_steps = 100. A fit has converged once ‖∇R_w(θ)‖ ≤ tol (Σ_i w_i‖∇ℓ_i(θ)‖ + ‖H_w(θ)‖‖θ‖), and
    a step no longer halves the gradient, so that nothing but rounding is left. Or "newton-cg" for
    any risk, to a local minimiser near the start; options as for `proximal.damped`, and its scale.

    Returns a Fit; its statuses are "converged", "max_steps", "singular" for a Hessian on the way
    that was not positive definite, "endless" where a direction has no minimum (`endless`; it takes
    a relative gradient of at most 1e-6 to tell), or "stalled" and "diverged"; "not finite" where an
    example that counts has no finite loss or gradient at the start, or they (by "newton" the second
    derivatives, too) no finite sum. Raises NotPositiveDefinite for "singular" (the smallest
    eigenvalue, the λ that would mend it), NotFinite, NotConverged for the others; `reached` is the
    whole Fit.
    Source: the notes' θ̂_{ε,−z} and θ(ε).

    Memory: 8 (b (min(n d, 2²⁴) + (2 a + 3 K) min(n d, 2¹⁸) + 10 n + 6 d²) + 2 m d) bytes by
    "newton", with b = max(1, min(m, 2²⁰/(d max(n, d)))) fits in a block;
    8 (max(2 min(n K d, 2²⁴), b n (4 a + 6 K)) + 3 d² + m n) bytes by "newton-cg", with
    b = min(m, 4).
    """
    inputs.kind(risk, Risk, "risk")
    inputs.choice(method, ("newton", "newton-cg"), "method")
    inputs.flag(strict, "strict")
    inputs.options(options, _by_newton if method == "newton" else descend)
    risk.require_second_derivatives()
    W, single = inputs.weights(weights, risk.n, rows=risk.labels)
    start = getattr(risk.model, "theta", np.zeros(risk.d)) if start is None else start
    start = inputs.array(start, "start")
    if start.shape not in ((risk.d,), (len(W), risk.d)):
        raise ValueError(
            f"start must be ({risk.d},), or ({len(W)}, {risk.d}) for one a fit; got {start.shape}"
        )
    by = {"newton": _by_newton, "newton-cg": _by_newton_cg}[method]
    found = of_sound(risk, start, W, strict, lambda *sound: by(*sound, strict, **options))
    return found.first() if single else found


def of_sound(risk, start, W, strict, fit):
    """fit(risk, start, W) of the weight vectors whose examples are all finite at the start.

    The others have the status "not finite" and θ = NaN. Raises NotFinite where `strict`.
    """
    points = np.atleast_2d(start)
    if all(map(risk.is_finite, points)):
        return fit(risk, start, W)
    unsound = [tuple(risk.unsound(point).tolist()) for point in points] * (len(W) // len(points))
    counted = np.array([(w[list(bad)] > 0).any() for w, bad in zip(W, unsound)])
    if strict and counted.any():
        i = int(np.argmax(counted))
        bad = np.array(unsound[i])
        raise NotFinite(
            f"example {bad[np.argmax(W[i, bad] > 0)]} must have a finite loss and gradient at the "
            f"start to count, as it does in weight vector {i}. Weight 0 takes it out",
            bad,
        )
    out = Fit(
        np.full((len(W), risk.d), np.nan),
        np.full(len(W), np.nan),
        np.zeros(len(W), dtype=int),
        np.full(len(W), "not finite"),
        np.full(len(W), np.nan),
    )
    for bad in dict.fromkeys(unsound):
        kept = np.array([i for i in np.flatnonzero(~counted) if unsound[i] == bad], dtype=int)
        if not kept.size:
            continue
        own = start if start.ndim == 1 else start[kept]
        found = fit(risk.sound(points[kept[0] % len(points)], W[kept].max(0)), own, W[kept])
        for part, of_kept in zip(out[:5], found):
            part[kept] = np.nan if of_kept is None else of_kept
    return out


def leave_one_out(risk, start=None, remove=None, *, run=Run(jobs=1, strict=False), **options):
    """θ*₋ⱼ, the minimiser of R_w with w = 1 − e_j, for every j or those in `remove`.

    start : (d,); by default as for `minimise`, and the whole risk's minimiser is a good one.
    remove : p indices; None is 0, …, n − 1. run : a `Run`: a folder to go on from after a kill,
    jobs, a bar of progress; strict raises where a row has no answer. options : as for `minimise`;
    a network needs method="newton-cg".

    Returns a Fit of p rows, with a status each; a row without an answer, such as that of an example
    without which the classes are separable, is NaN, and a warning names it.

    Memory: 8 (b (min(n d, 2²⁴) + (2 a + 3 K) min(n d, 2¹⁸) + 12 n + 6 d²) + p d) bytes, with
    b = max(1, min(p, 2²⁰/(d max(n, d)))) fits in a block.
    """
    inputs.kind(risk, Risk, "risk")
    inputs.kind(run, Run, "run")
    if risk.n < 2:
        raise ValueError("the risk must have two examples at least to leave one out; it has 1")
    chosen = np.arange(risk.n) if remove is None else inputs.indices(remove, risk.n, "remove")
    size = max(1, BLOCK // (risk.d * max(risk.n, risk.d)))
    blocks = [(risk, start, chosen[a : a + size], options) for a in range(0, len(chosen), size)]

    def configuration():
        begun = digest(np.empty(0) if start is None else start, chosen)
        return fingerprint(risk) | {"options": sorted(options.items()), "fits": begun}

    parts = run.each(_left_out, blocks, configuration)
    found = Fit.joined([Fit(**part) for part in parts])

    def why(i):
        return f". {NETWORKS}" if found.status[i] == "singular" else ""

    found.require(run.strict, "row", why)
    unanswered = np.flatnonzero(~np.isin(found.status, HELD))
    if unanswered.size:
        found.theta[unanswered] = np.nan
        status, why_first = found.status[unanswered], why(unanswered[0])
        inputs.warn_of_rows(chosen[unanswered], status, "leave-one-out fit", why_first)
    return found


def _left_out(risk, start, rows, options):
    """The fits without each of `rows`, as arrays."""
    W = np.ones((len(rows), risk.n))
    W[np.arange(len(rows)), rows] = 0
    found = minimise(risk, start, W, **options | {"strict": False})._asdict()
    return {name: found[name] for name in Fit._fields[:4]}


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
            f"than one. {NETWORKS}",
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
        before = norm[active]
        gradient, H, norm[active] = _derivatives(risk, theta[active], W[active])
        size = _norms(H) if size is None else size  # of each fit's Hessian at its start
        finite = np.isfinite(norm[active]) & H.isfinite().all(dim=(1, 2)).numpy()
        lost = active[~finite]
        norm[lost] = np.nan
        status[lost] = np.where(steps[lost] > 0, "diverged", "not finite")
        active, before, gradient = active[finite], before[finite], gradient[finite]
        H, size, t, w = H[finite], size[finite], theta[active], W[active]
        direction, bad = _direction(risk.d, gradient, H, size)
        for i in np.flatnonzero(bad):
            singular[int(active[i])] = _told(risk, t[i], H[i], size[i])
        met = norm[active] <= tol
        forever = met & (norm[active] <= SMALL) & ~bad
        forever[forever] = endless(risk, t[forever], w[forever], direction[forever])
        level = met & ~forever & (norm[active] >= before / 2)
        for name, those in (("converged", level), ("endless", forever), ("singular", bad)):
            status[active[those]] = name
        keep = ~(level | forever | bad) & (steps[active] < max_steps)
        active, t, w, size = active[keep], t[keep], w[keep], size[keep]
        if active.size:
            theta[active] = _searched(risk, t, w, gradient[keep], direction[keep])
            steps[active] += 1
    return Fit(theta.numpy(), norm, steps, status), singular


def _derivatives(risk, theta, w):
    """∇R_w and H_w at each row of θ, and the gradient's norm over Σ_i w_i‖∇ℓ_i‖ + ‖H_w‖‖θ‖."""
    tensors, gradient, scale = risk.tensors, 0.0, 0.0
    for rows in risk.blocks():
        each = tensors.each(tensors.subset(rows).gradients)(theta)
        gradient = gradient + torch.einsum("mn,mnd->md", w[:, rows], each)
        scale = scale + (w[:, rows] * each.norm(dim=2)).sum(1)
    gradient = gradient + tensors.penalty_gradient(theta)
    H = tensors.each(tensors.hessian)(theta, w)
    scale = scale + _norms(H) * theta.norm(dim=1)
    norm = gradient.norm(dim=1)
    return gradient, H, torch.where(scale > 0, norm / scale, norm).numpy()


def _norms(H):
    """‖H‖ of each H (m, d, d), without squares that over- or underflow."""
    size = H.abs().amax(dim=(1, 2))
    unit = torch.where(size > 0, size, 1.0)
    return unit * (H / unit[:, None, None]).norm(dim=(1, 2))


def endless(risk, theta, w, step):
    """Whether R_w falls for ever along Newton's step from a point where its gradient is small.

    theta, step : (m, d), w : (m, n), tensors. At a minimiser the step is small beside θ, or along
    it the terms w_i∇ℓ_i cancel. Where a minimiser does not exist, as for a direction that separates
    classes, they vanish together, with the curvature, and the step stays as large: (m,). With
    λ > 0 in every direction there is a minimiser.
    """
    if not len(theta) or np.all(np.asarray(risk.lam) > 0):
        return np.zeros(len(theta), dtype=bool)
    along, terms = 0.0, 0.0
    for rows in risk.blocks():
        each = risk.tensors.each(risk.tensors.subset(rows).gradients)(theta)
        own = w[:, rows] * torch.einsum("mnd,md->mn", each, step)
        along, terms = along + own.sum(1), terms + own.abs().sum(1)
    own = (risk.tensors.penalty_gradient(theta) * step).sum(1)
    along, terms = along + own, terms + own.abs()
    far = step.norm(dim=1) > FEW * theta.norm(dim=1)
    return (far & (along.abs() > FEW * terms)).numpy()


def _direction(d, gradient, H, size):
    """−H_w⁻¹∇R_w for each row, and which rows have an H_w that is singular.

    H_w is scaled to a unit diagonal, so that no unit of X matters. It is singular to working
    precision where it is ill-conditioned, or has all but vanished beside its size at the start, as
    it does along a ray that separates the classes.
    """
    scale = H.diagonal(dim1=1, dim2=2)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale)).rsqrt()
    values, vectors = torch.linalg.eigh(scale[:, :, None] * H * scale[:, None, :])
    large = _norms(H) > torch.clamp(ROUNDING * size, min=TINY)
    held = (values[:, 0] > d * ROUNDING * values[:, -1]) & large
    scaled = (vectors.mT @ (scale * gradient)[:, :, None]) / values[:, :, None]
    return -scale * (vectors @ scaled)[..., 0], ~held.numpy()


def _told(risk, theta, H, size):
    """What is wrong with a singular H, and its smallest eigenvalue."""
    smallest, largest = torch.linalg.eigvalsh(H)[[0, -1]].tolist()
    told = (
        f"its smallest eigenvalue is {smallest:.2e} and its largest {largest:.2e}, at "
        f"λ = {risk.lam} and ‖θ‖ = {theta.norm():.2e}. "
        f"{solvers.mending(risk.lam, smallest, max(largest, size.item()))} there"
    )
    return told, smallest


def _searched(risk, theta, w, gradient, direction):
    """The point on each line that meets Armijo's condition, up to the rounding of n terms."""
    value = risk.tensors.each(risk.tensors.value)
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
    starts = np.broadcast_to(start, (len(W), risk.d)).copy()
    objective = Objective(risk, risk.parameters(starts[0]))
    if start.ndim == 1:
        scale = objective.scale(W)
    else:
        each = (Objective(risk, risk.parameters(t)).scale(w[None]) for t, w in zip(starts, W))
        scale = np.concatenate(list(each))
    begin = torch.from_numpy(starts)
    found = descend(objective, W, scale, 0.0, begin=begin, strict=False, **options)
    if not np.all(np.asarray(risk.lam) > 0):
        small = found.gradient_norm <= SMALL
        for i in np.flatnonzero(small & np.isin(found.status, ("converged", "stalled"))):
            theta, w = torch.from_numpy(found.theta[i]), torch.from_numpy(W[i])
            step = torch.from_numpy(_newton_step(risk, theta, w))
            if endless(risk, theta[None], w[None], step[None]).item():
                found.status[i] = "endless"
    return _required(found, strict, options.get("tol", TOL))


def _newton_step(risk, theta, w):
    """−H_w⁻¹∇R_w by conjugate gradients, to a hundredth, (d,)."""
    product, v = risk.hessian_map(theta, w), -risk.gradient(theta, w)[:, None]
    return solvers.truncated_cg(lambda V, _: product(V), v, 0.01, CG_STEPS)[0][:, 0]


class Objective:
    """Σ_i w_i ℓ_i(θ) − ⟨slopes, f(θ)⟩ + penalty(θ) + ½ Σ_k damping_k (θ − start)_k².

    R_w itself; with damping the damped response's; with slopes, the penalty in the damping and up
    to a constant, PBRF's. start : a tensor (d,). damping : a number, or a tensor (d,). slopes : a
    tensor of the outputs' shape.
    """

    def __init__(self, risk, start, damping=0.0, slopes=None):
        self.risk, self.start, self.damping, self.slopes = risk, start, damping, slopes

    def value(self, theta, w):
        """At θ (d,) with weights w (n,), tensors."""
        tensors = self.risk.tensors
        f = tensors.outputs(theta)
        value = w @ tensors.each(tensors.loss)(f, tensors.y)
        own = tensors.penalty(theta) if self.slopes is None else -(self.slopes * f).sum()
        return value + own + half_square(self.damping, theta - self.start)

    def size(self, W):
        """The size of the terms of the value at the start, for each row of W, a tensor."""
        tensors = self.risk.tensors
        size = W @ tensors.losses(self.start).abs()
        if self.slopes is not None:
            return size + (self.slopes * tensors.outputs(self.start)).abs().sum()
        return size + tensors.penalty(self.start).abs()

    def scale(self, W):
        """Σ_i w_i‖∇ℓ_i‖ + ‖λθ‖ + ‖b‖ at the start, for each row of W."""
        sizes = np.linalg.norm(self.risk.gradients(self.start), axis=1)
        return W @ sizes + self.risk.penalty_size(self.start)


def descend(
    objective,
    W,
    scale,
    damping,
    base=None,
    begin=None,
    *,
    tol=TOL,
    max_steps=50,
    block=4,
    preconditioner=True,
    memory=solvers.MEMORY,
    strict=True,
):
    """A local minimiser of an Objective near `begin`, for each row of W (m, n).

    begin : a tensor (d,) or (m, d); None is the objective's start. scale : (m,), what the gradient
    is measured beside: a fit has converged once ‖∇‖ ≤ tol · scale.
    damping, base : of the preconditioner, which is the factor of G_b + (λ + damping)I at the start
    where there is one that fits `memory`, in bytes; base None is one weight for all, the mean of W
    up to a factor of √2, so that no fit depends on those beside it. block : fits at a time.
    strict : raise where a fit is unfinished.

    Method: Newton's in a trust region, each step by conjugate gradients cut short (Steihaug, 1983).
    Returns a Fit with status "converged", "max_steps", "stalled" (rounding: nothing left to gain)
    or "diverged" (it falls for ever), and with the curvature of the last step; ≤ 0: not convex
    there. Raises NotConverged.
    """
    risk = objective.risk
    tol, block = inputs.positive(tol, "tol"), inputs.count(block, "block")
    max_steps, precondition = inputs.count(max_steps, "max_steps"), None
    if preconditioner:
        w = _even(W) if base is None else base
        precondition = _preconditioner(risk, objective.start, w, damping, memory)
    W, begin = torch.from_numpy(W), objective.start if begin is None else begin
    begin = begin.expand(len(W), -1)
    found = []
    for first in range(0, len(W), block):
        b = slice(first, first + block)
        found.append(_newton_cg(objective, W[b], begin[b], scale[b], tol, max_steps, precondition))
    return _required(Fit.joined(found), strict, tol)


def _even(W):
    """One weight for all examples, the power of 2 that is nearest to the mean of W (m, n)."""
    mean = W.mean()
    return np.full(W.shape[1], 2.0 ** np.round(np.log2(mean)) if mean > 0 else 1.0)


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
    parts = risk.gradients, risk.output_hessians
    if form == "cg" or not all(np.isfinite(part(start)).all() for part in parts):
        return None
    try:
        return solvers.factor(risk, start, w, damping, memory=memory).solve
    except (NotPositiveDefinite, NotConvex):
        return None


def _newton_cg(objective, W, begin, scale, tol, max_steps, precondition):
    """Newton's method in a trust region for each row of W, as a Fit."""
    m, each = len(W), objective.risk.tensors.each
    value = each(objective.value)
    theta, before = begin.clone(), begin.clone()
    slack = 8 * ROUNDING * objective.size(W).numpy()  # of a value
    norm, curvature, radius = np.full(m, np.inf), np.full(m, np.nan), np.full(m, np.nan)
    steps, status = np.zeros(m, dtype=int), np.full(m, "max_steps")
    level, active, first = np.zeros(m, dtype=bool), np.arange(m), begin.new_zeros(m)
    scale = np.where(scale > 0, scale, 1)
    while True:
        gradient, back = vjp(lambda t: each(grad(objective.value))(t, W[active]), theta[active])
        new, old = gradient.norm(dim=1).numpy() / scale[active], norm[active]
        stalled = level[active] & ~(new <= old / 2) & ~(new <= tol)
        worse = active[stalled & ~(new < old)]
        theta[worse] = before[worse]
        norm[active] = np.where(stalled, np.fmin(new, old), new)
        far = (theta[active] - begin[active]).norm(dim=1) > FAR * (
            1 + begin[active].norm(dim=1) + first[active]
        )
        status[active[stalled]], status[active[new <= tol]] = "stalled", "converged"
        status[active[~np.isfinite(new) | far.numpy()]] = "diverged"
        kept = np.flatnonzero((status[active] == "max_steps") & (steps[active] < max_steps))
        if not kept.size:
            return Fit(theta.numpy(), norm, steps, status, curvature)
        p, predicted, bend, size, radius[active[kept]] = _within(
            gradient, back, kept, new[kept], tol, radius[active[kept]], precondition
        )
        active = active[kept]
        begun = torch.from_numpy(steps[active] > 0)
        first[active] = torch.where(begun, first[active], p.norm(dim=1))
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


def _within(gradient, back, kept, norm, tol, radius, precondition):
    """The step of each fit in `kept` within its radius.

    Returns the step, its predicted gain, the least curvature, the step's size, and the radius,
    chosen where it was NaN.
    """

    def product(V, which):
        full = torch.zeros_like(gradient)
        full[kept[which]] = torch.from_numpy(np.ascontiguousarray(V.T))
        return back(full)[0][kept[which]].numpy().T

    v = -gradient[kept].numpy().T
    unit = solvers.units(v)
    z = v if precondition is None else precondition(v)
    first = unit * np.sqrt((v / unit * (z / unit)).sum(0))  # ‖M⁻¹v‖_M
    radius = np.where(np.isnan(radius), 10 * first, radius)
    unit = solvers.units(first[None])  # lest a square over- or underflow
    v, radius = v / unit, radius / unit
    x, left, _, curvature, size = solvers.truncated_cg(
        product, v, np.clip(norm, FLOOR * tol / norm, 0.1), CG_STEPS, precondition, radius
    )
    step = torch.from_numpy(np.ascontiguousarray((x * unit).T))
    return step, unit**2 * (x * (v + left)).sum(0) / 2, curvature, size * unit, radius * unit
