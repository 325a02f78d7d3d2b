"""Gradient flow θ̇ = −∇R_w(θ); for least squares exact, also with weights that change in time.

For the squared loss θ̇ = b − Hθ with H = XᵀWX, b = XᵀWy, so that the state at any time is an affine
function of θ₀. What is computed is this map, once for all initial conditions.
"""

import warnings
from typing import NamedTuple

import numpy as np
import torch
from numpy.polynomial import chebyshev
from scipy import integrate
from scipy.linalg import block_diag, norm

from ifcore import inputs
from ifcore.weights import Schedule, evaluated

EXPLICIT = ("RK23", "RK45", "DOP853")  # methods of `gradient_flow`, by their names in SciPy
IMPLICIT = ("Radau", "BDF", "LSODA")  # LSODA by turns
EVALUATIONS = 2**15  # of the velocity, in one gradient flow
WINDOW = 32  # steps, beside as many before them, whose sizes tell how many are to come

DEGREE = 16  # of the polynomials in t that the maps are where ε(t) varies
HALVINGS = 24  # of a segment, before ε(t) is given up as too rough
SEGMENTS = 2**14  # for one schedule, before the horizon is given up as too long
BLOCK = 2**21  # numbers in one block of stacked matrices: 16 MiB

# On [0, 1]: Gauss's nodes; values at the nodes ↦ integrals from 0 to them; values at 0 and them ↦
# coefficients.
NODES = (1 + np.polynomial.legendre.leggauss(DEGREE)[0]) / 2
INTEGRAL = chebyshev.chebvander(2 * NODES - 1, DEGREE) @ chebyshev.chebint(
    np.linalg.inv(chebyshev.chebvander(2 * NODES - 1, DEGREE - 1)), lbnd=-1, scl=0.5
)
TRANSFORM = np.linalg.inv(chebyshev.chebvander(2 * np.append(0, NODES) - 1, DEGREE))


class NotResolved(RuntimeError):
    """A flow that was not computed to the tolerance asked for.

    error : the one reached; inf where there is no estimate. time : up to which it was computed, or
    None.
    """

    def __init__(self, message, error=None, time=None):
        super().__init__(message)
        self.error, self.time = error, time


class Affine(NamedTuple):
    """The map θ₀ ↦ matrix θ₀ + offset, or many of them along leading axes."""

    matrix: np.ndarray  #: (…, d, d)
    offset: np.ndarray  #: (…, d)

    def __call__(self, theta0):
        """The image of θ₀: (…, d) for theta0 (d,), and (k, …, d) for theta0 (k, d)."""
        d = self.offset.shape[-1]
        theta0 = inputs.array(theta0, "theta0")
        if theta0.ndim not in (1, 2) or theta0.shape[-1] != d:
            raise ValueError(f"theta0 must have shape ({d},) or (k, {d}); got {theta0.shape}")
        table = np.concatenate([self.matrix, self.offset[..., None]], axis=-1).reshape(-1, d + 1)
        start = np.column_stack([np.atleast_2d(theta0), np.ones(theta0.size // d)])
        out = (start @ table.T).reshape(-1, *self.offset.shape)
        return out[0] if theta0.ndim == 1 else out

    def then(self, later):
        """The composition: first this map, then `later`."""
        return Affine(
            later.matrix @ self.matrix,
            np.einsum("...ij,...j->...i", later.matrix, self.offset) + later.offset,
        )


def gradient_flow(
    risk, theta0, times, weights=None, *, tol=1e-10, method="DOP853", evaluations=EVALUATIONS
):
    """θ(t) for θ̇ = −∇R_w(θ), θ(0) = θ₀, of any Risk: the notes' (GF), flux ξ, w_j = ε.

    theta0 : (d,). times : (K,), nondecreasing from t ≥ 0. weights : (n,), or (m, n) for m flows;
    None is w = 1. tol : below 1, the integrator's relative tolerance, and absolute one in units of
    max(1, ‖θ₀‖). method : an integrator of SciPy: "DOP853", "RK45", "RK23" are explicit; "LSODA",
    "BDF", "Radau" suit a stiff risk. evaluations : of ∇R_w at most, by default 2¹⁵, but for those
    of the last step; a Hessian counts as d. Returns (K, d) or (m, K, d).

    Raises NotResolved, with the `time` reached, where the velocity is not finite, the integrator
    gives up, or the evaluations do not suffice; for an explicit method as soon as its steps, at the
    rate at which they grow, will not. Raises TypeError, ValueError for inputs that are none.

    Memory: 8 (2 m K d + 1.5 m n d) bytes, beside what the model makes of m n examples, and up to
    64 (m d)² for a method that suits a stiff risk.
    """
    W, single = inputs.weights(weights, risk.n, rows=risk.labels)
    theta0 = risk.parameters(theta0).numpy()
    times, scalar = _times(times)
    tol, evaluations = _tolerance(tol), inputs.count(evaluations, "evaluations")
    if method not in (*EXPLICIT, *IMPLICIT):
        names = ", ".join(EXPLICIT + IMPLICIT)
        raise ValueError(f"method must be one of {names}; got {method!r}")
    W, each = torch.from_numpy(W), risk.tensors.each(risk.tensors.gradients)
    left_out = W == 0

    def velocity(_, state):
        theta = torch.from_numpy(state.reshape(len(W), risk.d))
        slopes = each(theta).masked_fill_(left_out[:, :, None], 0)  # NaN too
        slope = torch.einsum("mn,mnd->md", W, slopes) + risk.tensors.penalty_gradient(theta)
        return -slope.numpy().ravel()

    def jacobian(_, state):
        theta = torch.from_numpy(state.reshape(len(W), risk.d))
        rows = zip(theta, W, ~left_out)
        H = [risk.tensors.subset(i).hessian(t, w[i]).nan_to_num(0, 0, 0) for t, w, i in rows]
        return -block_diag(*H)  # where it is not finite, the integrator does without

    options = {"rtol": max(tol, 3e-14), "atol": tol * max(1.0, norm(theta0))}
    options |= {} if method in EXPLICIT else {"jac": jacobian}
    out = _integrated(velocity, np.tile(theta0, len(W)), times, method, options, evaluations)
    out = out.reshape(len(times), len(W), risk.d).swapaxes(0, 1)
    out = out[:, 0] if scalar else out
    return out[0] if single else out


def _integrated(velocity, start, times, method, options, evaluations):
    """The states at `times`, (K, m d)."""
    if not np.isfinite(velocity(0.0, start)).all():
        raise NotResolved("the velocity −∇R_w(θ) is not finite at t = 0, at θ₀", np.inf, 0.0)
    out, sizes, reached = np.tile(start, (len(times), 1)), [], 0.0
    done = np.searchsorted(times, 0.0, "right")
    if done == len(times):
        return out

    def stop(why):
        raise NotResolved(
            f"the flow was integrated to t = {reached:.3g} of {times[-1]:.3g} only: {why}",
            np.inf,
            reached,
        )

    with warnings.catch_warnings(record=True) as said, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        solver = getattr(integrate, method)(velocity, 0.0, start, times[-1], **options)
        while done < len(times):
            failure = solver.step()
            if solver.status == "failed":
                stop(" ".join([failure, *(str(warning.message) for warning in said)]))
            now = np.searchsorted(times, solver.t, "right")
            if now > done:
                out[done:now] = solver.dense_output()(times[done:now]).T
            if not np.isfinite(solver.y).all() or not np.isfinite(out[done:now]).all():
                stop("then the state is not finite")
            done, reached = now, float(solver.t)
            used, left = solver.nfev + solver.njev * len(start), times[-1] - reached
            if left > 0 and used >= evaluations:
                stop(f"{used} evaluations of ∇R_w did not suffice; `evaluations` allows more")
            if left > 0 and method in EXPLICIT:
                sizes = [*sizes, solver.step_size][-2 * WINDOW :]
                needed = solver.n_stages * _steps_left(sizes, left)
                if used + needed > evaluations:
                    stop(
                        f"{method} goes in steps of {solver.step_size:.1e}, as where a flow is "
                        f"stiff, and takes at least {needed:.0e} evaluations of ∇R_w more, where "
                        f"`evaluations` allows {evaluations}. 'LSODA' suits a stiff flow"
                    )
    return out


def _steps_left(sizes, time):
    """How many steps the time takes, if they go on growing as lately.

    0 where that is not known: the steps are few, or shrink.
    """
    if len(sizes) < 2 * WINDOW:
        return 0.0
    before, size = np.mean(sizes[:WINDOW]), np.mean(sizes[WINDOW:])
    if size < before / 2:
        return 0.0
    growth = max((size / before) ** (1 / WINDOW) - 1, 1e-9)
    return np.log1p(time * growth / size) / np.log1p(growth)


def constant(X, y, times, weights=None):
    """The map θ₀ ↦ θ(t) of the squared loss with constant weights, at any rank.

    X : (n, d), y : (n,). times : t or (K,), nondecreasing, t ≥ 0; np.inf is the limit of Lemma
    0.0.1. weights : (n,), or (m, n); None is w = 1. Returns an Affine with leading axes (K,), or
    (m, K); a single t has no axis K.

    By the singular values σ of √W X, so that a singular H needs no care; σ ≤ max(n, d)·2u·σ_max
    counts as 0, u the unit roundoff. The error in the mode of σ is of the order
    u σ_max σ t e^{−σ²t}, beside that of X⁺y. Raises ValueError for weights or times that are none.
    Source: Lemma 0.0.1, with X⁺ for H⁻¹Xᵀ, and the notes' (LRGF), (0.10), and (0.11), whose ε on
    the row is w_j = ε².

    Memory: 8 (2 m K d² + 2 m n d) bytes.
    """
    X, y = inputs.examples(X, y)
    W, single = inputs.weights(weights, len(y))
    times, scalar = _times(times, infinite=True)
    root = np.sqrt(W)[..., None]
    rate, V, rest = _modes(root * X, root[..., 0] * y)
    with np.errstate(invalid="ignore"):
        power = np.where(rate[:, None] > 0, -rate[:, None] * times[:, None], 0.0)  # (m, K, r)
    matrix = (V[:, None] * np.exp(power)[:, :, None]) @ V.mT[:, None]
    if len(y) < X.shape[1]:  # what no row sees stays
        matrix += (np.eye(X.shape[1]) - V @ V.mT)[:, None]
    offset = (V[:, None] @ (-np.expm1(power) * rest[:, None])[..., None])[..., 0]
    keep = (0 if single else slice(None), 0 if scalar else slice(None))
    return Affine(matrix[keep], offset[keep])


def _modes(X, y):
    """σ² (…, r), V (…, d, r) and VᵀX⁺y for X = UσVᵀ; a σ that is 0 but for rounding is 0."""
    U, sigma, Vt = np.linalg.svd(X, full_matrices=False)
    zero = sigma <= max(X.shape[-2:]) * np.finfo(float).eps * sigma[..., :1]
    target = (y[..., None, :] @ U)[..., 0, :]
    rest = np.divide(target, sigma, out=np.zeros_like(target), where=~zero)
    return np.where(zero, 0.0, sigma**2), Vt.mT, rest


def augmented(X, y, weights=None):
    """M (d + 1, d + 1) with d/dt (θ, 1) = M (θ, 1) for θ̇ = −XᵀW(Xθ − y): its exponential is a map.

    X : (n, d), y : (n,), weights : (n,), all 0 too. Nothing else here uses it: `expm(M t)` is an
    oracle. Raises TypeError, ValueError for inputs that do not fit.

    Memory: 16 n d bytes.
    """
    X, y = inputs.examples(X, y)
    w = np.ones(len(y)) if weights is None else inputs.array(weights, "weights", 1)
    if len(w) != len(y):
        raise ValueError(f"weights must have length n = {len(y)}; got {len(w)}")
    table = np.column_stack([-X, y])
    return np.vstack([(X.T * w) @ table, np.zeros(X.shape[1] + 1)])


def piecewise(X, y, weights, durations):
    """The map θ₀ ↦ θ(t) of the squared loss for weights that hold one after the other.

    weights : (p, n). durations : (p,), each at least 0. Returns an Affine without leading axes.
    Raises TypeError, ValueError for inputs that do not fit.

    Memory: 8 (4 n d + 4 d²) bytes.
    """
    X, y = inputs.examples(X, y)
    weights = inputs.array(weights, "weights", 2)
    durations = inputs.array(durations, "durations", 1)
    if len(weights) != len(durations) or not len(durations):
        raise ValueError(
            f"there must be one duration for each row of weights; got {len(durations)} and "
            f"{len(weights)}"
        )
    out = Affine(np.eye(X.shape[1]), np.zeros(X.shape[1]))
    for w, duration in zip(weights, durations):
        out = out.then(constant(X, y, duration, w))
    return out


def scheduled(X, y, j, schedule, times, *, tol=1e-10):
    """The map θ₀ ↦ θ(t) of the squared loss where example j has the weight ε(t).

    X : (n, d), y : (n,), j : the example. schedule : a `Schedule`, or a list of m. times : t or
    (K,), nondecreasing, from t ≥ 0. Returns an Affine with leading axes (K,), or (m, K); a single t
    has no axis K.

    Where ε is constant the map is exact, as in `constant`. Where it varies, time is cut into
    segments; on each, the map from its start is a polynomial in t that satisfies the equation at
    Gauss's nodes (collocation), and segments are halved until the last coefficients are at most
    tol, for the offset in units of 1 + its size. A jump of ε belongs among its knots: one that does
    not is refused, or falls between two nodes and is not seen, at the cost of the gap between them.
    Raises NotResolved where that takes more than 2¹⁴ segments for a schedule, as with ‖H‖t above
    10⁵, or more than 24 halvings, with the `time` up to which it was resolved; ValueError for times
    that are none and for an ε(t) that is not a weight in [0, 1] for each time; TypeError for what
    is no number; IndexError for j out of range. Source: the notes' (0.13).

    Memory: 8 (3 n d + 4 m K d² + 40 S d²) bytes for S segments, m‖H‖t/8 at least where ε varies,
    and some blocks of 16 MiB.
    """
    X, y = inputs.examples(X, y)
    j = inputs.index(j, len(y))
    many = isinstance(schedule, (list, tuple))
    plans = list(schedule) if many else [schedule]
    if not plans or not all(isinstance(plan, Schedule) for plan in plans):
        raise TypeError(f"schedule must be a Schedule, or a list of them; got {schedule!r}")
    times, scalar = _times(times)
    maps = _maps(_problem(X, y, j), plans, times, _tolerance(tol))
    maps = maps[:, 0] if scalar else maps
    maps = maps if many else maps[0]
    return Affine(np.ascontiguousarray(maps[..., :-1]), np.ascontiguousarray(maps[..., -1]))


def _maps(problem, plans, times, tol):
    """The maps [Φ β] from 0 to each of `times`, for each plan: (m, K, d, d + 1)."""
    d, segments = len(problem[1]) - 1, _segments(plans, times[-1])
    held = segments.held
    fine, coefficients = _resolved(problem, plans, segments.take(~held), tol)
    segments = _Segments(*map(np.concatenate, zip(segments.take(held), fine)))
    order = np.lexsort([segments.left, segments.plan])
    segments, place = segments.take(order), order - held.sum()  # the place among the fine ones

    def local(which, t):
        """The maps from the start of the segments `which` to times t in them."""
        here, out = segments.take(which), np.empty((len(which), d, d + 1))
        held, since = here.held, t - here.left
        out[held] = _exponentials(problem, here.value[held], since[held])
        u = since[~held] / (here.right - here.left)[~held]
        powers = chebyshev.chebvander(2 * u - 1, DEGREE)[:, None, None]
        varying = np.flatnonzero(~held)
        for part in _blocks(len(varying), d**2 * DEGREE):
            own = coefficients[place[which[varying[part]]]]
            out[varying[part]] = (powers[part] @ own)[:, :, 0]
        return out

    bounds = np.searchsorted(segments.plan, np.arange(len(plans) + 1))
    count = len(segments.plan)
    ends = local(np.arange(count), segments.right)
    start = np.tile(np.eye(d, d + 1), (count, 1, 1))
    for i in range(1, np.diff(bounds).max()):
        here = bounds[:-1][np.diff(bounds) > i] + i
        start[here] = _after(start[here - 1], ends[here - 1])
    parts = zip(bounds, bounds[1:])
    which = [a + np.searchsorted(segments.right[a:z], times) for a, z in parts]
    which = np.concatenate(which)
    maps = _after(start[which], local(which, np.tile(times, len(plans))))
    return maps.reshape(len(plans), len(times), d, d + 1)


def _blocks(count, size):
    """range(count) in parts of about BLOCK numbers, where each takes `size` of them."""
    return np.array_split(np.arange(count), max(1, min(count, -(-count * size // BLOCK))))


def _after(first, later):
    """The composition of maps [Φ β], (…, d, d + 1)."""
    out = later[..., :-1] @ first
    out[..., -1] += later[..., -1]
    return out


def _problem(X, y, j):
    """[X y] without example j, turned into as many rows as columns, and [x_jᵀ y_j]."""
    table = np.column_stack([X, y])
    rest = np.vstack([np.delete(table, j, axis=0), np.zeros((table.shape[1],) * 2)])
    return np.linalg.qr(rest, mode="r"), table[j]


class _Segments(NamedTuple):
    """Segments of time, each within one piece of one schedule."""

    plan: np.ndarray  #: which schedule
    piece: np.ndarray  #: which of its pieces
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray  #: of ε there; NaN where it varies

    @property
    def held(self):
        """Where ε is constant."""
        return ~np.isnan(self.value)

    def take(self, rows):
        return _Segments(*(part[rows] for part in self))

    def cut(self, counts):
        """Each into as many equal segments as `counts` says."""
        number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        out, counts = (
            self.take(np.repeat(np.arange(len(counts)), counts)),
            np.repeat(counts, counts),
        )
        span = out.right - out.left
        left = out.left + span * (number / counts)
        right = np.where(number + 1 < counts, out.left + span * ((number + 1) / counts), out.right)
        return out._replace(left=left, right=right)


def _segments(plans, end):
    """The pieces of schedules on [0, end]."""
    rows = []
    for i, plan in enumerate(plans):
        edges = [0.0, *(min(knot, end) for knot in plan.knots), end]
        for k, value in enumerate(plan.values):
            if k == 0 or edges[k] < edges[k + 1]:
                rows.append((i, k, edges[k], edges[k + 1], np.nan if callable(value) else value))
    return _Segments(*map(np.array, zip(*rows)))


def _exponentials(problem, epsilon, h):
    """The maps [Φ β] of θ̇ = b − Hθ for constant weights (n,) over durations h (n,).

    Returns (n, d, d + 1).
    """
    rest, own = problem
    values, which = np.unique(epsilon, return_inverse=True)
    others = np.tile(rest, (len(values), 1, 1))
    table = np.concatenate([others, np.sqrt(values)[:, None, None] * own], axis=1)
    rate, V, rest = (part[which] for part in _modes(table[..., :-1], table[..., -1]))
    power = -rate * h[:, None]
    matrix = (V * np.exp(power)[:, None]) @ V.mT
    return np.concatenate([matrix, V @ (-np.expm1(power) * rest)[..., None]], axis=-1)


def _resolved(problem, plans, segments, tol):
    """`segments`, where ε varies, cut as short as tol asks; the coefficients of `_collocated`."""
    rest, own = problem
    if not len(segments.plan):
        return segments, np.empty((0, len(own) - 1, DEGREE + 1, len(own)))
    ends = _exponentials(problem, np.array([0.0, 1.0]), np.full(2, segments.right.max()))
    unit = np.append(np.ones(len(own) - 1), 1 + np.abs(ends[..., -1]).max())
    norm = np.linalg.norm(np.vstack([rest, own])[:, :-1], 2) ** 2
    # e^{−λt} needs as many in any case
    counts = np.ceil((segments.right - segments.left) * norm * 2 / DEGREE)
    segments = segments.cut(np.clip(counts, 1, SEGMENTS).astype(int))
    found, worst, error = [], segments.take(0), np.inf
    for _ in range(HALVINGS + 1):
        count = len(segments.plan)
        if count > SEGMENTS * len(plans):
            break
        blocks = _blocks(count, len(own) * DEGREE * max(DEGREE, len(own)))
        each = (_collocated(problem, plans, segments.take(block)) for block in blocks)
        coefficients = np.concatenate(list(each))
        errors = (np.abs(coefficients[:, :, -2:]).sum(axis=2) / unit).max(axis=(1, 2))
        good = errors <= tol
        found.append((segments.take(good), coefficients[good]))
        if good.all():
            fine, coefficients = zip(*found)
            return _Segments(*map(np.concatenate, zip(*fine))), np.concatenate(coefficients)
        worst, error = segments.take(int(np.argmax(errors))), errors.max()
        segments = segments.take(~good)
        segments = segments.cut(np.full(len(segments.plan), 2))
    raise NotResolved(
        f"the flow is not resolved to tol = {tol:.0e}: {error:.1e} is reached on "
        f"[{worst.left:.9g}, {worst.right:.9g}], where ‖H‖ = {norm:.3g}. Put the times where ε(t) "
        "is not smooth among its breaks, or ask for less",
        error,
        segments.left.min(),
    )


def _collocated(problem, plans, segments):
    """The maps [Φ β] over `segments`, as Chebyshev coefficients (…, d, DEGREE + 1, d + 1).

    They satisfy θ̇ = b − Aθ − εxρ, ρ = xᵀθ − y_j, at the nodes. In the eigenvectors of A each mode
    is driven by b and by ερ: so ρ is found first, from a system of the size DEGREE, and from it the
    modes.
    """
    rest, own = problem
    rate, V, optimum = _modes(rest[:, :-1], rest[:, -1])
    b, x, y, d = rate * optimum, own[:-1] @ V, own[-1], len(V)
    h, one = (segments.right - segments.left)[:, None], np.eye(DEGREE)
    t = segments.left[:, None] + h * NODES
    epsilon = _weights_at(plans, segments, t)
    h, same = np.unique(h[:, 0], return_inverse=True)
    h = h[:, None, None, None]
    right = np.column_stack([np.ones(DEGREE), INTEGRAL])
    solved = np.linalg.solve(one + h * rate[:, None, None] * INTEGRAL, right)
    decay = solved[..., 0]  # e^{−λt}, (…, d, s)
    kernel = h * solved[..., 1:]  # the convolution with it, (…, d, s, s)
    driven = b[:, None] * kernel.sum(axis=-1)
    at_rest = (x @ driven - y)[..., None]
    free = np.concatenate([(x[:, None] * decay).mT, at_rest], axis=-1)  # ρ for ε = 0
    feedback = (x**2 @ kernel.reshape(len(h), d, -1)).reshape(-1, DEGREE, DEGREE)
    rho = np.linalg.solve(one + feedback[same] * epsilon[:, None], free[same])  # (…, s, d + 1)
    out = np.empty((len(t), d, DEGREE + 1, d + 1))
    out[:, :, 0] = np.eye(d, d + 1)
    out[:, :, 1:] = kernel[same] @ (-x[:, None, None] * (epsilon[..., None] * rho)[:, None])
    out[:, range(d), 1:, range(d)] += decay[same].swapaxes(0, 1)
    out[:, :, 1:, d] += driven[same]
    out = (V @ (TRANSFORM @ out).reshape(len(t), d, -1)).reshape(out.shape)
    out[..., :-1] = out[..., :-1] @ V.T
    return out


def _weights_at(plans, segments, t):
    """ε at times t (…, s) in each segment, by one call for each function."""
    epsilon = np.empty(t.shape)
    pieces = [plans[i].values[k] for i, k in zip(segments.plan, segments.piece)]
    change = [i for i in range(1, len(t)) if pieces[i] is not pieces[i - 1]]
    for a, z in zip([0, *change], [*change, len(t)]):
        epsilon[a:z].flat = evaluated(pieces[a], t[a:z].ravel())
    return epsilon


def _times(times, infinite=False):
    """Times as (K,), and whether a single one came."""
    given = inputs.array(times, "times", infinite=True)
    if np.isinf(given).any() and not infinite:
        raise ValueError("times must be finite here; `flow.constant` has the limit t = ∞")
    t = np.atleast_1d(given)
    if t.ndim > 1 or t.size == 0 or (t < 0).any() or (t[1:] < t[:-1]).any():
        raise ValueError(f"times must be t ≥ 0 or a nondecreasing sequence of such; got {times!r}")
    return t, given.ndim == 0


def _tolerance(tol):
    if not inputs.positive(tol, "tol") < 1:
        raise ValueError(f"tol must be below 1; got {tol!r}")
    return float(tol)
