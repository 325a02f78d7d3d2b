"""The problem (X, y, j, θ₀, s, T), and what a schedule is worth in it."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from ifcore import flow, inputs
from ifcore.weights import Schedule

ROUNDING = np.finfo(float).eps
DISTANCES = ("optimum", "time", "orbit")


class NotOptimal(RuntimeError):
    """A search that ended where Pontryagin's condition fails; `reached` is what it had found."""

    def __init__(self, message, reached=None):
        super().__init__(message)
        self.reached = reached


@dataclass(frozen=True, eq=False)
class Problem:
    """Forgetting example j between the times s and T, from θ₀ at the time 0.

    X : (n, d), y : (n,), j : the example, theta0 : (d,), 0 ≤ s ≤ T. In what follows
    w = θ − θ*₋ⱼ, where θ*₋ⱼ is the limit of the leave-one-out flow from θ₀: from s on
    ẇ = −Aw − ε x(xᵀw − c), with A = H₋ⱼ, x = x_j, c = y_j − x_jᵀθ*₋ⱼ.
    Raises TypeError, ValueError, IndexError for what is no such problem.
    Memory: 8 n d bytes.
    """

    X: np.ndarray
    y: np.ndarray
    j: int
    theta0: np.ndarray
    s: float
    T: float

    def __post_init__(self):
        X, y = inputs.examples(self.X, self.y)
        j, theta0 = inputs.index(self.j, len(y)), inputs.array(self.theta0, "theta0", 1)
        s, T = inputs.nonnegative(self.s, "s"), inputs.nonnegative(self.T, "T")
        if len(theta0) != X.shape[1]:
            raise ValueError(f"theta0 must have length d = {X.shape[1]}; got {len(theta0)}")
        if not s <= T:
            raise ValueError(f"a schedule needs s ≤ T; got s = {s:g} and T = {T:g}")
        checked = (X.copy(), y.copy(), j, theta0.copy(), s, T)  # what follows is computed once
        for name, value in zip(("X", "y", "j", "theta0", "s", "T"), checked):
            object.__setattr__(self, name, value)

    @cached_property
    def rest(self):
        """X without x_j: (n − 1, d)."""
        return np.delete(self.X, self.j, axis=0)

    @cached_property
    def limit(self):
        """θ*₋ⱼ (d,), the limit of the leave-one-out flow from θ₀; θ₀ without other examples."""
        if not len(self.rest):
            return self.theta0
        return flow.constant(self.rest, np.delete(self.y, self.j), np.inf)(self.theta0)

    @cached_property
    def targets(self):
        """y in the coordinates w, (n,): c for example j, 0 for the others.

        Then what is left of w at a late time keeps its relative accuracy.
        """
        targets = np.zeros(len(self.y))
        targets[self.j] = self.y[self.j] - self.x @ self.limit
        return targets

    @property
    def x(self):
        """x_j (d,)."""
        return self.X[self.j]

    @property
    def c(self):
        """y_j − x_jᵀθ*₋ⱼ."""
        return self.targets[self.j]

    @cached_property
    def A(self):
        """H₋ⱼ (d, d)."""
        return self.rest.T @ self.rest

    @cached_property
    def w0(self):
        """w at the time 0: (d,)."""
        return self.theta0 - self.limit

    @cached_property
    def rounding(self):
        """What rounding X, y and θ₀ may change in w at the time 0: a bound for its norm.

        The condition of least squares: u (κ‖θ*₋ⱼ‖ + κ²‖r‖/σ_max), r the residuals of the others,
        and u‖θ₀‖, times the size of the problem.
        """
        size = np.linalg.norm(self.theta0)
        sigma = np.linalg.svd(self.rest, compute_uv=False)
        sigma = sigma[sigma > max(self.X.shape) * ROUNDING * sigma[:1].sum()]
        if len(sigma):
            kappa, left = sigma[0] / sigma[-1], self.rest @ self.limit - np.delete(self.y, self.j)
            size += kappa * np.linalg.norm(self.limit)
            size += kappa**2 * np.linalg.norm(left) / sigma[0]
        return sum(self.X.shape) * ROUNDING * size

    @cached_property
    def w(self):
        """w at the time s: (d,)."""
        return flow.constant(self.X, self.targets, self.s)(self.w0)

    def require_time(self):
        """That s < T. Raises ValueError."""
        if not self.s < self.T:
            raise ValueError(
                f"a schedule to be chosen needs s < T; got s = {self.s:g} and T = {self.T:g}"
            )

    def require(self, schedule):
        """That a schedule is 1 up to s and 0 after T. Raises TypeError, ValueError."""
        if not isinstance(schedule, Schedule):
            raise TypeError(f"schedule must be a Schedule, or a list of them; got {schedule!r}")
        first, last = schedule.knots[0], schedule.knots[-1]
        if first < self.s - ROUNDING * self.T or last > self.T * (1 + 4 * ROUNDING):
            raise ValueError(
                f"the schedule must be 1 up to s = {self.s:g} and 0 after T = {self.T:g}; its "
                f"first and last knot are {first:g} and {last:g}"
            )


class Objective(NamedTuple):
    """The value of 𝓔, its derivatives in the knots (None unless ε is piecewise constant), θ(T)."""

    value: float
    gradient: np.ndarray
    end: np.ndarray


def objective(problem, schedule, distance="optimum"):
    """𝓔(ε): half a squared distance of θ(T), reached from θ₀ with the weight ε(t).

    problem : a `Problem`. schedule : a `weights.Schedule` in E_s for the horizon T, or a list of m
    of them. distance : the notes' choices, "optimum" (1) from θ*₋ⱼ; "time" (2) from the
    leave-one-out flow from θ₀ at T; "orbit" (3) from its nearest point, the limit included; or a
    target (d,).

    Returns an Objective; for a list, values (m,), ends (m, d) and no gradients. At a knot k the
    derivative is −(ε(k−) − ε(k+)) μ(k)ρ(k), in the terms of `switching`. Raises ValueError for a
    schedule outside E_s or an unknown distance. Source: the notes' (0.12).
    Memory: 8 (n (5 d + 6) + 8 d²) bytes.
    """
    many = isinstance(schedule, (list, tuple))
    for plan in schedule if many else [schedule]:
        problem.require(plan)
    end = flow.scheduled(problem.X, problem.targets, problem.j, schedule, problem.T)(problem.w0)
    target = _target(problem, end, distance)
    value = ((end - target) ** 2).sum(axis=-1) / 2
    if many:
        return Objective(value, None, end + problem.limit)
    gradient = None
    if schedule.constant:
        at = target + problem.limit
        rho, mu = switching(problem, schedule, schedule.knots, at)
        gradient = np.diff(schedule.values) * mu * rho
    return Objective(float(value), gradient, end + problem.limit)


def switching(problem, schedule, times, target=None):
    """ρ(t) = x_jᵀθ(t) − y_j and μ(t) = x_jᵀλ(t), (K,) each: what decides where ε should be 1.

    times : (K,), in [0, T]. λ is the adjoint state, λ(T) = θ(T) − target and
    λ̇ = (H₋ⱼ + εx_jx_jᵀ)λ. A small change δε changes ½‖θ(T) − target‖² by −∫ δε μρ dt, so that an
    optimal ε is 1 where μρ > 0 and 0 where μρ < 0 (Pontryagin). target : (d,); None is θ*₋ⱼ.
    Memory: 8 (n (5 d + 6) + 5 K d²) bytes.
    """
    X, j, T, limit = problem.X, problem.j, problem.T, problem.limit
    times = np.atleast_1d(inputs.array(times, "times"))
    if (times < 0).any() or (times > T).any():
        raise ValueError(f"times must lie in [0, T] = [0, {T:g}]; got {times}")
    order = np.argsort(times)
    state = flow.scheduled(X, problem.targets, j, schedule, [*times[order], T])(problem.w0)
    nothing, turned = np.zeros(len(X)), schedule.backwards(T)
    back = flow.scheduled(X, nothing, j, turned, T - times[order][::-1])
    adjoint = back(state[-1] - (0 if target is None else target - limit))[::-1]
    rho, mu = np.empty(len(times)), np.empty(len(times))
    rho[order], mu[order] = state[:-1] @ problem.x - problem.c, adjoint @ problem.x
    return rho, mu


def _target(problem, end, distance):
    """The point, less θ*₋ⱼ, from which 𝓔 is measured: (d,), or for "orbit" one an end."""
    w = problem.w0
    if not isinstance(distance, str):
        target = inputs.array(distance, "distance", 1)
        if target.shape != w.shape:
            raise ValueError(f"a target must have shape {w.shape}; got {target.shape}")
        return target - problem.limit
    if distance not in DISTANCES:
        names = ", ".join(DISTANCES)
        raise ValueError(f"distance must be one of {names}, or a target (d,); got {distance!r}")
    if distance == "optimum":
        return np.zeros_like(w)
    values, V = np.linalg.eigh(problem.A)
    orbit = V.T @ w
    orbit[values <= len(values) * ROUNDING * values[-1]] = 0  # at rest
    if distance == "time":
        return V @ (orbit * np.exp(-values * problem.T))
    found = [V @ _nearest(V.T @ point, orbit, values) for point in np.atleast_2d(end)]
    return np.array(found) if end.ndim == 2 else found[0]


def _nearest(point, a, rates):
    """The point of the curve a e^{−rates·t}, t in [0, ∞], that is nearest to `point`."""
    moving = rates[(a != 0)]
    if not moving.size:
        return np.zeros_like(a)
    c = np.concatenate([rates * a * point, -rates * a**2])
    last = 40 / moving.min()
    times = [0.0, *zeros(c, np.concatenate([rates, 2 * rates]), 0.0, last), np.inf]
    decay = (np.exp(-np.where(a == 0, 1.0, rates) * t) for t in times)
    curve = np.array([a * share for share in decay])
    return curve[np.argmin(((curve - point) ** 2).sum(axis=1))]


def zeros(c, exponents, lo, hi):
    """The times in (lo, hi) where Σ_k c_k e^{−exponents_k t} changes sign, in order.

    By Rolle's theorem: times e^{exponents_0 t} the sum's derivative has one term less, and the sum
    is monotone between the zeros of that.
    """
    exponents, which = np.unique(exponents, return_inverse=True)
    c = np.bincount(which, c)
    exponents, c = exponents[c != 0], c[c != 0]
    if len(c) < 2 or not lo < hi:
        return []
    shift = exponents - exponents[0]

    def f(t):
        return c @ np.exp(-shift * t)

    turns = [lo, *zeros(c[1:] * shift[1:], shift[1:], lo, hi), hi]
    signs = [np.sign(f(t)) for t in turns]
    return [
        brentq(f, a, b, xtol=1e-15 * hi)
        for a, b, left, right in zip(turns, turns[1:], signs, signs[1:])
        if left * right < 0
    ]
