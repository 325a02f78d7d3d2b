"""The optimal schedule, with Pontryagin's condition as evidence."""

from typing import NamedTuple

import numpy as np

from ifcore import flow
from ifcore.forgetting import search
from ifcore.forgetting.problem import NotOptimal, objective
from ifcore.forgetting.reduced import Reduced
from ifcore.forgetting.rivals import merged
from ifcore.weights import Schedule


class Optimal(NamedTuple):
    """What `optimal` found."""

    schedule: Schedule
    switches: tuple  #: times in (s, T) where ε jumps
    value: float  #: 𝓔
    reached: float  #: the least time at which the part of θ − θ*₋ⱼ in K can be 0; inf: not by T
    #: what a small change would gain, over 𝓔: ∫|μρ| dt where ε has the wrong sign, over
    #: (𝓔 + 10⁻⁶ 𝓔 of ε = 0) in K
    violation: float


def optimal(problem):
    """The measurable weight ε: [s, T] → [0, 1] that brings θ(T) nearest to θ*₋ⱼ, as an Optimal.

    Let K be the span of x_j, H₋ⱼx_j, H₋ⱼ²x_j, …, k its dimension. The part of w = θ − θ*₋ⱼ
    orthogonal to K does not feel ε. If its part in K cannot be brought to 0 by T, every optimal ε,
    where it matters at all, takes the values 0 and 1 only and switches at most k times; else the
    one returned does so in least time, with at most k − 1 switches before, and then holds ε = 0
    (the book's chapter "Optimal schedules"). So the search is for the times of the switches: on a
    grid for each of the theorem's 2k + 1 patterns, then by SLSQP.
    Raises NotOptimal (`reached`: the Optimal it had found) where `violation` exceeds 10⁻⁶, as
    Pontryagin's condition is necessary, unless 𝓔 in K is below 10⁻⁸ of that of ε = 0 already, where
    switch times in double precision may not do better; and flow.NotResolved where T − s is so long,
    or H₋ⱼ so large, that nothing is left at T to compare. Source: the minimiser of the notes'
    (0.12).
    """
    p = problem
    p.require_time()
    q = Reduced(p)
    if q.w.any() and q.free(q.length)[0] < 1e-250:
        power = q.parts[0][0][0] * q.length
        raise flow.NotResolved(
            f"with ε = 0 from s = {p.s:g} to T = {p.T:g}, what training can still change falls by "
            f"a factor of at least exp(−{power:.3g}): no weight can be told from another in double "
            "precision. Take a shorter horizon",
            np.inf,
        )
    knots, reached = _knots(q)
    first, inner = search.switches(knots, q.length)
    switches = tuple(float(p.s + k) for k in inner)
    values = [float((first + i) % 2) for i in range(len(switches) + 1)]
    schedule = merged([p.s, *switches, p.T], values)
    value, violation, left, free = objective(p, schedule).value, 0.0, 0.0, 0.0
    if reached == np.inf:
        left, free = q.cost(knots, q.length)[0], q.free(q.length)[0]
        violation = float(min(q.wrong(knots, q.length)[0], left) / (left + 1e-6 * free))
    found = Optimal(schedule, switches, value, p.s + reached, violation)
    if violation > 1e-6 and left > 1e-8 * free:
        raise NotOptimal(
            f"Pontryagin's condition fails: a change of ε would gain {violation:.1e} of 𝓔. The "
            f"search did not find the minimum. The best weight found has 𝓔 = {value:.6g} and "
            f"switches at {switches}",
            found,
        )
    return found


def _knots(q):
    """The knots of the optimum, and when the part in K is 0."""
    if not q.k or not q.w.any():
        return np.zeros(1), 0.0
    knots, value = search.search(q, q.length)
    if value <= search.SMALL * q.free(q.length)[0]:
        return search.least_time(q, knots)
    return knots, np.inf
