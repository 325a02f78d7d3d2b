"""Schedules ε(t): the weight of one example during training, and which of them forgets it best.

Example j has the weight ε(t) = 1 up to the time s, is free to have any weight in [0, 1] on [s, T], and is
gone afterwards; the others have weight 1, the loss is the squared one, training is gradient flow.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq, minimize

from ifcore import _inputs, _optimal, flow

ROUNDING = np.finfo(float).eps
DISTANCES = ("optimum", "time", "orbit")


class NotOptimal(RuntimeError):
    """A search that ended where Pontryagin's condition fails; `best` is the Optimal it had found."""

    def __init__(self, message, best):
        super().__init__(message)
        self.best = best


@dataclass(frozen=True)
class Schedule:
    """ε(t): 1 up to the first knot, 0 after the last, and between two knots a number or a function of t.

    knots : nondecreasing times at least 0. pieces : one fewer, numbers in [0, 1] or vectorised smooth
    functions of t. Called with times of any shape, it gives the weights; at a knot, that to the left.
    As an element of the notes' E_s for the horizon T (almost everywhere) it needs s ≤ the first knot,
    and the last knot ≤ T. Raises ValueError for knots or weights that are none.
    """

    knots: tuple
    pieces: tuple = ()

    def __post_init__(self):
        knots = _inputs.array(self.knots, "knots", 1)
        if not len(knots) or (np.diff(knots) < 0).any() or knots[0] < 0:
            raise ValueError(
                f"knots must be a nondecreasing sequence of times at least 0; got {self.knots}"
            )
        if len(self.pieces) != len(knots) - 1:
            raise ValueError(
                f"{len(knots)} knots need {len(knots) - 1} pieces between them; got {len(self.pieces)}"
            )
        pieces = tuple(p if callable(p) else float(_inputs.epsilon(p)) for p in self.pieces)
        object.__setattr__(self, "knots", tuple(float(k) for k in knots))
        object.__setattr__(self, "pieces", pieces)

    @property
    def constant(self):
        """Whether ε is piecewise constant."""
        return not any(map(callable, self.pieces))

    @property
    def values(self):
        """1, the pieces, 0: what ε is before, between and after the knots."""
        return (1.0, *self.pieces, 0.0)

    def __call__(self, t):
        t = np.asarray(t, dtype=float)
        which = np.searchsorted(self.knots, t)
        if self.constant:
            return np.array(self.values)[which]
        out = np.empty(t.shape)
        for i in np.unique(which):
            piece, here = self.values[i], which == i
            out[here] = piece(t[here]) if callable(piece) else piece
        return _inputs.epsilon(out, t)

    def backwards(self, T):
        """u ↦ ε(T − u) on [0, T], for the adjoint equation."""
        if not self.knots[-1] <= T:
            raise ValueError(
                f"the horizon T must not lie before the last knot {self.knots[-1]:g}; got {T:g}"
            )
        turned = (
            p if not callable(p) else (lambda u, p=p: p(T - u)) for p in reversed(self.values)
        )
        return Schedule((0.0, *(T - k for k in reversed(self.knots)), T), tuple(turned))


def step(tau):
    """1_[0, τ]."""
    return Schedule((tau,))


def linear(s, t1):
    """1 up to s, then falling linearly to 0 at t1."""
    return polynomial(s, t1, 1)


def polynomial(s, t1, degree):
    """1 up to s, then ((t1 − t)/(t1 − s))^degree, and 0 after t1; degree > 0, a whole number where it is to be smooth."""
    if not s < t1 or not degree > 0:
        raise ValueError(
            f"a decay needs s < t1 and degree > 0; got s = {s}, t1 = {t1}, degree = {degree}"
        )
    return Schedule((s, t1), (lambda t: ((t1 - t) / (t1 - s)) ** degree,))


def piecewise(knots, values):
    """1 up to the first knot, values[i] between knots i and i + 1, 0 after the last."""
    return Schedule(tuple(knots), tuple(values))


def function(f, s, T, breaks=()):
    """1 up to s, then f(t), and 0 after T; f is vectorised, and smooth but at the `breaks`."""
    knots = (s, *breaks, T)
    return Schedule(knots, (f,) * (len(knots) - 1))


class Objective(NamedTuple):
    """The value of 𝓔, its derivatives in the knots (None unless ε is piecewise constant), and θ(T)."""

    value: float
    gradient: np.ndarray
    end: np.ndarray


def objective(X, y, j, theta0, schedule, s, T, distance="optimum"):
    """𝓔(ε) of the notes' (0.12): half a squared distance of θ(T), reached from θ₀ with the weight ε(t).

    X : (n, d), y : (n,), j : the example, theta0 : (d,), the state at time 0. schedule : in E_s for the
    horizon T, or a list of m of them. distance : the notes' choices, "optimum" (1) from the limit of
    the leave-one-out flow from θ₀, which is θ*₋ⱼ where that is unique; "time" (2) from that flow at
    T; "orbit" (3) from its nearest point, the limit included; or a target (d,).

    Returns an Objective; for a list, values (m,), ends (m, d) and no gradients. At a knot k the
    derivative is −(ε(k−) − ε(k+)) μ(k)ρ(k), in the terms of `switching`. Raises ValueError for a
    schedule outside E_s or an unknown distance.
    """
    many = isinstance(schedule, (list, tuple))
    for plan in schedule if many else [schedule]:
        _require_member(plan, s, T)
    X, y_, w, limit, _ = _shifted(X, y, j, theta0)
    end = flow.scheduled(X, y_, j, schedule, T)(w)
    target = _target(X, y_, j, w, T, end, distance, limit)
    value = ((end - target) ** 2).sum(axis=-1) / 2
    if many:
        return Objective(value, None, end + limit)
    gradient = None
    if schedule.constant:
        rho, mu = switching(X, y, j, theta0, schedule, T, schedule.knots, target + limit)
        gradient = np.diff(schedule.values) * mu * rho
    return Objective(float(value), gradient, end + limit)


def switching(X, y, j, theta0, schedule, T, times, target=None):
    """ρ(t) = x_jᵀθ(t) − y_j and μ(t) = x_jᵀλ(t) at `times`, (K,) each: what decides where ε should be 1.

    λ is the adjoint state, λ(T) = θ(T) − target and λ̇ = (H₋ⱼ + εx_jx_jᵀ)λ. A small change δε changes
    ½‖θ(T) − target‖² by −∫ δε μρ dt, so that an optimal ε is 1 where μρ > 0 and 0 where μρ < 0
    (Pontryagin). target : (d,); None is the limit of the leave-one-out flow from θ₀.
    """
    X, y, w, limit, _ = _shifted(X, y, j, theta0)
    times = np.atleast_1d(_inputs.array(times, "times"))
    if (times < 0).any() or (times > T).any():
        raise ValueError(f"times must lie in [0, T] = [0, {T:g}]; got {times}")
    order = np.argsort(times, kind="stable")
    state = flow.scheduled(X, y, j, schedule, [*times[order], T])(w)
    back = flow.scheduled(X, np.zeros(len(y)), j, schedule.backwards(T), T - times[order][::-1])
    adjoint = back(state[-1] - (0 if target is None else target - limit))[::-1]
    rho, mu = np.empty(len(times)), np.empty(len(times))
    rho[order], mu[order] = state[:-1] @ X[j] - y[j], adjoint @ X[j]
    return rho, mu


def greedy(X, y, j, theta0, s, T):
    """The weight that at each time moves θ fastest towards θ*₋ⱼ, after s: the notes' (0.15).

    The speed is affine in ε with slope ρσ, ρ = x_jᵀθ − y_j, σ = x_jᵀ(θ − θ*₋ⱼ): ε = 1 where ρσ > 0, 0
    where ρσ < 0. Where both weights drive θ onto σ = 0 it slides along that plane, with the
    weight x_jᵀH₋ⱼ(θ − θ*₋ⱼ)/(‖x_j‖²(y_j − x_jᵀθ*₋ⱼ)) in between (Filippov). θ*₋ⱼ is the limit of the
    leave-one-out flow from θ₀. Returns a Schedule.
    """
    p = _Problem(X, y, j, theta0, s, T)
    size = p.x @ p.x
    onto = np.eye(len(p.x)) - np.outer(p.x, p.x) / size if size > 0 else np.eye(len(p.x))
    parts = {
        0.0: np.linalg.eigh(p.A),
        1.0: np.linalg.eigh(p.A + np.outer(p.x, p.x)),
        "slide": np.linalg.eigh(onto @ p.A @ onto),
    }
    t, w, knots, pieces = s, p.w, [s], []
    mode = _greedy_mode(p, w)
    while t < T and size > 0:
        values, V = parts[mode]
        rest = (
            np.linalg.lstsq(p.A + np.outer(p.x, p.x), p.x * p.c)[0]
            if mode == 1.0
            else np.zeros_like(w)
        )
        a = V.T @ (w - rest)
        exponents = np.append(0.0, values)
        if mode == "slide":
            weight = np.append(0.0, (p.x @ p.A @ V) * a / (size * p.c))
            level = [weight, weight - np.eye(len(weight))[0]]
        else:
            sigma = np.append(p.x @ rest, (p.x @ V) * a)
            level = [sigma, sigma - p.c * np.eye(len(sigma))[0]]
        lo = 1e-12 * (T - s)
        events = sorted(
            (z, i) for i, c in enumerate(level) for z in _zeros(c, exponents, lo, T - t)
        )
        length, which = events[0] if events else (T - t, None)
        if mode == "slide":
            pieces.append(
                lambda u, t=t, e=exponents, c=weight: np.clip(
                    np.exp(-np.subtract.outer(u, t)[..., None] * e) @ c, 0, 1
                )
            )
        else:
            pieces.append(mode)
        w = rest + V @ (np.exp(-values * length) * a)
        t = T if which is None else t + length
        knots.append(t)
        if len(pieces) > 1000:
            raise NotOptimal(f"the greedy weight switched 1000 times before t = {t:.6g}", None)
        if which is not None:
            mode = (
                float(which)
                if mode == "slide"
                else _greedy_mode(p, w, surface=("sigma", "rho")[which])
            )
    if len(knots) == 1:
        return Schedule((s,))
    return _merged(knots, pieces)


def _greedy_mode(p, w, surface=None):
    """0.0, 1.0 or "slide": the greedy regime just after the state w, on the surface σ = 0 or ρ = 0 or off both."""
    sigma = p.x @ w
    rho, drift, size = sigma - p.c, p.x @ p.A @ w, p.x @ p.x
    tiny = 64 * ROUNDING * (np.sqrt(size) * np.linalg.norm(w) + abs(p.c))
    if p.c == 0:
        return 1.0
    if surface == "sigma" or abs(sigma) <= tiny:  # −drift + ε‖x‖²c is the speed of σ
        slow = -drift * np.sign(p.c)
        return (
            0.0
            if slow > -tiny * np.linalg.norm(p.A)
            else 1.0
            if slow + size * abs(p.c) < 0
            else "slide"
        )
    if surface == "rho" or abs(rho) <= tiny:
        return 1.0 if -drift * sigma > 0 else 0.0
    return 1.0 if rho * sigma > 0 else 0.0


def _merged(knots, pieces):
    """A Schedule without pieces of length 0 and without knots where nothing changes."""
    out_knots, out = [knots[0]], []
    for left, right, piece in zip(knots, knots[1:], pieces):
        if right <= left:
            continue
        if out and not callable(piece) and out[-1] == piece:
            out_knots[-1] = right
        else:
            out.append(piece)
            out_knots.append(right)
    if out and out[0] == 1.0:  # as before the first knot
        out, out_knots = out[1:], out_knots[1:]
    if out and out[-1] == 0.0:  # as after the last
        out, out_knots = out[:-1], out_knots[:-1]
    return Schedule(tuple(out_knots), tuple(out))


class Optimal(NamedTuple):
    """What `optimal` found, with Pontryagin's condition as evidence."""

    schedule: Schedule
    switches: tuple  # times in (s, T) where ε jumps
    value: float  # 𝓔
    reached: float  # the least time at which the part of θ − θ*₋ⱼ in K can be 0; inf: not by T
    violation: float  # ∫|μρ| dt over where ε has the wrong sign, over (𝓔 + 10⁻⁶ 𝓔 of ε = 0) in K: what a small change would gain


def optimal(X, y, j, theta0, s, T):
    """The measurable weight ε: [s, T] → [0, 1] that brings θ(T) nearest to θ*₋ⱼ: the minimiser of (0.12).

    X : (n, d), y : (n,), j : the example, theta0 : (d,), the state at time 0. θ*₋ⱼ is the limit of the
    leave-one-out flow from θ₀. Returns an Optimal.

    Let K be the span of x_j, H₋ⱼx_j, H₋ⱼ²x_j, …, k its dimension. The part of w = θ − θ*₋ⱼ orthogonal
    to K does not feel ε. If its part in K cannot be brought to 0 by T, every optimal ε, where it matters at
    all, takes the values 0 and 1 only and switches at most k times; else the one returned does so in least
    time, with at most k − 1 switches before, and then holds ε = 0 (the book's chapter "Optimal schedules").
    So the search is for the times of the switches: on a grid for each number of them below 2k, then by
    SLSQP and Newton; more than k only help it out of local minima.
    Raises NotOptimal where `violation` exceeds 10⁻⁶, as Pontryagin's condition is necessary, unless 𝓔 in K
    is below 10⁻⁸ of that of ε = 0 already, where switch times in double precision may not do better; and
    flow.NotResolved where T − s is so long, or H₋ⱼ so large, that nothing is left at T to compare.
    """
    p = _Problem(X, y, j, theta0, s, T)
    q = _optimal.Reduced(p)
    if q.w.any() and q.free(q.length)[0] < 1e-250:
        raise flow.NotResolved(
            f"with ε = 0 from s = {s:g} to T = {T:g}, what training can still change falls by a factor of at least "
            f"exp(−{q.parts[0][0][0] * q.length:.3g}): no weight can be told from another in double precision. Take a shorter horizon",
            np.inf,
        )
    if not q.k or not q.w.any():
        knots, reached = np.zeros(1), 0.0
    else:
        knots, value = _optimal.search(q, q.length)
        reached = np.inf
        if value <= _optimal.SMALL * q.free(q.length)[0]:
            knots, reached = _optimal.least_time(q, knots)
    first, inner = _optimal.switches(knots, q.length)
    switches = tuple(float(s + k) for k in inner)
    values = [float((first + i) % 2) for i in range(len(switches) + 1)]
    schedule = _merged([s, *switches, T], values)
    value = objective(X, y, j, theta0, schedule, s, T).value
    violation = left = free = 0.0
    if reached == np.inf:
        left, free = q.cost(knots, q.length)[0], q.free(q.length)[0]
        violation = min(q.wrong(knots, q.length)[0], left) / (left + 1e-6 * free)
    found = Optimal(schedule, switches, value, s + reached, violation)
    if violation > 1e-6 and left > 1e-8 * free:
        raise NotOptimal(
            f"Pontryagin's condition fails: a change of ε would gain {violation:.1e} of 𝓔. The search did not find the minimum. "
            f"The best weight found has 𝓔 = {value:.6g} and switches at {switches}",
            found,
        )
    return found


def direct(X, y, j, theta0, s, T, pieces=64, starts=8, seed=0):
    """An independent, direct minimisation of (0.12): ε constant on `pieces` equal parts of [s, T], by L-BFGS-B.

    The gradient is exact up to rounding (Gauss–Legendre quadrature of μρ in each part). starts : runs, from ε = 0,
    ε = 1 and random weights drawn with `seed`. Returns the best (Schedule, value). It cannot be better
    than `optimal`, and comes close to it as the parts get short.
    """
    p = _Problem(X, y, j, theta0, s, T)
    edges = np.linspace(s, T, pieces + 1)
    h = (T - s) / pieces
    nodes, shares = np.polynomial.legendre.leggauss(8)
    inner = h * (nodes + 1) / 2
    values, V = np.linalg.eigh(p.A)
    scale = max(((np.exp(-values * (T - s)) * (p.w @ V)) ** 2).sum() / 2, 1e-300)  # 𝓔 of ε = 0

    def cost(epsilon):
        H = p.A + epsilon[:, None, None] * np.outer(p.x, p.x)
        values, V = np.linalg.eigh(H)
        b = (epsilon * p.c)[:, None] * (p.x @ V)
        with np.errstate(divide="ignore", invalid="ignore"):
            span = np.append(inner, h)[:, None]
            decay = np.exp(-values[:, None] * span)
            gain = np.where(
                values[:, None] * span != 0,
                -np.expm1(-values[:, None] * span) / values[:, None],
                span,
            )
        rho, w = np.empty((pieces, len(inner))), p.w
        for i in range(pieces):
            modes = decay[i] * (w @ V[i]) + gain[i] * b[i]
            rho[i] = modes[:-1] @ (p.x @ V[i]) - p.c
            w = V[i] @ modes[-1]
        slope, adjoint = np.empty(pieces), w
        for i in reversed(range(pieces)):
            modes = decay[i, -2::-1] * (adjoint @ V[i])  # the nodes lie symmetrically
            slope[i] = -(modes @ (p.x @ V[i]) * rho[i]) @ shares * h / 2
            adjoint = V[i] @ (decay[i, -1] * (adjoint @ V[i]))
        return (w @ w) / 2 / scale, slope / scale

    rng = np.random.default_rng(seed)
    first = [np.zeros(pieces), np.ones(pieces)] + [
        np.repeat(rng.random(8), -(-pieces // 8))[:pieces] for _ in range(starts - 2)
    ]
    bounds = [(0, 1)] * pieces
    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-15, "gtol": 1e-12}
    runs = [
        minimize(cost, e, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
        for e in first[:starts]
    ]
    best = min(runs, key=lambda run: run.fun)
    return piecewise(edges, best.x), best.fun * scale


class _Problem:
    """w = θ − θ*₋ⱼ from the time s on: ẇ = −Aw − ε x(xᵀw − c), with A = H₋ⱼ, x = x_j, c = y_j − x_jᵀθ*₋ⱼ."""

    def __init__(self, X, y, j, theta0, s, T):
        s, T = _inputs.nonnegative(s, "s"), _inputs.nonnegative(T, "T")
        if not s < T:
            raise ValueError(f"a schedule needs s < T; got s = {s:g} and T = {T:g}")
        X, y, w, self.target, self.A = _shifted(X, y, j, theta0)
        self.s, self.T, self.x, self.c = s, T, X[j], y[j]
        self.w = flow.constant(X, y, s)(w)


def _shifted(X, y, j, theta0):
    """X, the targets and the start in the coordinates w = θ − θ*₋ⱼ, in which the others' targets are 0; θ*₋ⱼ and H₋ⱼ.

    Then what is left of w at a late time keeps its relative accuracy.
    """
    X, y = _inputs.examples(X, y)
    (j,) = _inputs.indices(j, len(y))
    theta0 = _inputs.array(theta0, "theta0", 1)
    rest, limit = np.delete(X, j, axis=0), theta0
    if len(rest):  # without the only example, nothing moves
        limit = flow.constant(rest, np.delete(y, j), np.inf)(theta0)
    targets = np.zeros(len(y))
    targets[j] = y[j] - X[j] @ limit
    return X, targets, theta0 - limit, limit, rest.T @ rest


def _target(X, y, j, w, T, end, distance, limit):
    """The point, less θ*₋ⱼ, from which 𝓔 is measured: (d,), or for "orbit" one an end."""
    if not isinstance(distance, str):
        target = _inputs.array(distance, "distance", 1)
        if target.shape != w.shape:
            raise ValueError(f"a target must have shape {w.shape}; got {target.shape}")
        return target - limit
    if distance not in DISTANCES:
        raise ValueError(
            f"distance must be one of {', '.join(DISTANCES)}, or a target (d,); got {distance!r}"
        )
    if distance == "optimum":
        return np.zeros_like(w)
    rest = np.delete(X, j, axis=0)
    values, V = np.linalg.eigh(rest.T @ rest)
    orbit = V.T @ w
    orbit[values <= len(values) * ROUNDING * values[-1]] = 0  # at rest
    if distance == "time":
        return V @ (orbit * np.exp(-values * T))
    found = [V @ _nearest(V.T @ point, orbit, values) for point in np.atleast_2d(end)]
    return np.array(found) if end.ndim == 2 else found[0]


def _nearest(point, a, rates):
    """The point of the curve a e^{−rates·t}, t in [0, ∞], that is nearest to `point`."""
    moving = rates[(a != 0)]
    if not moving.size:
        return np.zeros_like(a)
    c = np.concatenate([rates * a * point, -rates * a**2])
    last = 40 / moving.min()
    times = [0.0, *_zeros(c, np.concatenate([rates, 2 * rates]), 0.0, last), np.inf]
    curve = np.array(
        [np.where(a == 0, 0.0, a * np.exp(-np.where(a == 0, 1.0, rates) * t)) for t in times]
    )
    return curve[np.argmin(((curve - point) ** 2).sum(axis=1))]


def _zeros(c, exponents, lo, hi):
    """The times in (lo, hi) where Σ_k c_k e^{−exponents_k t} changes sign, in order, by Rolle's theorem.

    Times e^{exponents_0 t} the sum's derivative has one term less, and it is monotone between the zeros of that.
    """
    exponents, which = np.unique(exponents, return_inverse=True)
    c = np.bincount(which, c)
    exponents, c = exponents[c != 0], c[c != 0]
    if len(c) < 2 or not lo < hi:
        return []
    shift = exponents - exponents[0]

    def f(t):
        return c @ np.exp(-shift * t)

    turns = [lo, *_zeros(c[1:] * shift[1:], shift[1:], lo, hi), hi]
    signs = [np.sign(f(t)) for t in turns]
    return [
        brentq(f, a, b, xtol=1e-15 * hi, rtol=4 * ROUNDING)
        for a, b, left, right in zip(turns, turns[1:], signs, signs[1:])
        if left * right < 0
    ]


def _require_member(plan, s, T):
    s, T = _inputs.nonnegative(s, "s"), _inputs.nonnegative(T, "T")
    if not s <= T or plan.knots[0] < s - ROUNDING * T or plan.knots[-1] > T * (1 + 4 * ROUNDING):
        raise ValueError(
            f"the schedule must be 1 up to s = {s:g} and 0 after T = {T:g}, with s ≤ T; its first and last knot are "
            f"{plan.knots[0]:g} and {plan.knots[-1]:g}"
        )
