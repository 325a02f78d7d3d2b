"""The optimal schedule, with Pontryagin's condition as evidence."""

from typing import NamedTuple

import numpy as np

from ifcore import flow, inputs
from ifcore.forgetting import fastest, search
from ifcore.forgetting.problem import NotOptimal, Problem, objective
from ifcore.forgetting.reduced import Reduced
from ifcore.forgetting.rivals import merged
from ifcore.weights import Schedule

LARGEST = 1e-6  # violation
UNCERTAIN = 1e-2  # of the least time, by the rounding of the problem
SMALL = 1e-8  # 𝓔 in K over that of ε = 0, at or below which a violation is let pass


class Optimal(NamedTuple):
    """What `optimal` found.

    violation : how far Pontryagin's condition fails, whatever the units. Where no way to 0 by T was
    found: what a small change would gain, over 𝓔, ∫|μρ| dt where ε has the wrong sign, but at most
    𝓔, over 𝓔 + 10⁻⁶ 𝓔₀. All 𝓔 are those in K, and 𝓔₀ is that of ε = 0 or, where it is less, that of
    ε itself if y_j were x_jᵀθ*₋ⱼ. Where the part of θ − θ*₋ⱼ in K is 0 at `reached`, the larger of
    two, for the adjoint state λ whose μ = x_jᵀλ is 0 at the switches: ∫|μρ| dt where ε has the
    wrong sign, over all of it from s to `reached`; and by how much of `reached` − s it may be late,
    ‖λ(s)‖ times the distance of the state at s from one that is led to 0 exactly, beyond the
    rounding of X, y and θ₀, over the size of μ(y_j − x_jᵀθ*₋ⱼ) at `reached`. What that rounding is
    worth in time, in the same way, is `uncertainty`: `reached` − s is known to this part of it, and
    no better by any method.
    """

    schedule: Schedule
    switches: tuple  #: times in (s, T) where ε jumps
    value: float  #: 𝓔
    #: the least time at which the part of θ − θ*₋ⱼ in K can be 0; inf: no way by T was found, which
    #: does not prove that there is none
    reached: float
    violation: float  #: see above; 0 where the part in K is 0 at s
    uncertainty: float = 0.0  #: see above; 0 where there is no least time


def optimal(problem):
    """The measurable weight ε: [s, T] → [0, 1] that brings θ(T) nearest to θ*₋ⱼ, as an Optimal.

    The loss is the squared one. For weights in [0, b] give x_j and y_j times √b. For other losses,
    and for [a, b] with a > 0, the book bounds the switches ("Optimal schedules beyond least
    squares"), but nothing here searches for them.

    Let K be the span of x_j, H₋ⱼx_j, H₋ⱼ²x_j, …, k its dimension. The part of w = θ − θ*₋ⱼ
    orthogonal to K does not feel ε. If its part in K cannot be brought to 0 by T, every optimal ε,
    where it matters at all, takes the values 0 and 1 only and switches at most k times; else one of
    them does so in least time, with at most k − 1 switches before, and then holds ε = 0 (the book's
    chapter "Optimal schedules"). The least time is looked for by Newton's method for the times of
    the switches. Where that finds no way to 0, `reached` is inf, which does not prove that there is
    none, and the times are searched for on a grid for each of the theorem's 2k + 1 patterns, then
    by SLSQP. Where the part in K is 0 at s up to the rounding of X, y and θ₀, ε = 0 and `reached`
    is s.
    Raises NotOptimal (`reached`: the Optimal it had found) where `violation` exceeds 10⁻⁶, as
    Pontryagin's condition is necessary, or `uncertainty` 10⁻². One case is exempt: where no way to
    0 by T was found (`reached` is inf) and yet 𝓔 in K is at most 10⁻⁸ of that of ε = 0, the weight
    is returned without being shown to be the best, and its `violation` may be anything up to 1.
    Raises flow.NotResolved where T − s is so long, or H₋ⱼ so large, that nothing is left at T to
    compare. Source: the minimiser of the notes' (0.12).

    Memory: 8 (n (5 d + 6) + 8 d²) bytes.
    """
    p = inputs.kind(problem, Problem, "problem")
    p.require_time()
    q = Reduced(p)
    if np.linalg.norm(q.w) <= q.rounding:
        schedule = Schedule((p.s,))
        return Optimal(schedule, (), objective(p, schedule).value, p.s, 0.0)
    if q.free(q.length) < 1e-250:
        power = q.parts[0][0][0] * q.length
        raise flow.NotResolved(
            f"with ε = 0 from s = {p.s:g} to T = {p.T:g}, what training can still change falls by "
            f"a factor of at least exp(−{power:.3g}): no weight can be told from another in double "
            "precision. Take a shorter horizon",
            np.inf,
        )
    durations = fastest.least_time(q)
    if durations is not None:
        return _reached(p, q, durations)
    knots, _ = search.search(q, q.length)
    left, free = q.cost(knots, q.length)[0], q.free(q.length)
    size = left + 1e-6 * min(free, q.decayed(knots, q.length)[0])
    violation = float(min(q.wrong(knots, q.length)[0], left) / max(size, 1e-300))
    found = _optimal(p, *search.switches(knots, q.length), np.inf, violation)
    if violation > LARGEST and left > SMALL * free:
        raise _not_optimal(f"a change of ε would gain {violation:.1e} of 𝓔", found)
    return found


def _reached(p, q, durations):
    """The Optimal that is 0 in K after these durations."""
    knots = fastest.knots(q, durations)
    time = float(knots[-1])
    violation, uncertainty = fastest.violation(q, *search.switches(knots, time), time)
    found = _optimal(p, *search.switches(knots, q.length), p.s + time, violation)
    found = found._replace(uncertainty=uncertainty)
    if uncertainty > UNCERTAIN:
        raise NotOptimal(
            f"the rounding of X, y and θ₀ may move the time {found.reached:.6g} at which 0 is "
            f"reached in K by {uncertainty:.1e} of it: double precision does not tell which weight "
            "is the fastest",
            found,
        )
    if violation > LARGEST:
        wrong = f"the time {found.reached:.6g} at which 0 is reached in K"
        raise _not_optimal(f"{wrong} is not shown to be the least, by {violation:.1e}", found)
    return found


def _optimal(p, first, inner, reached, violation):
    """As an Optimal: `first` from s on, with switches a time `inner` later."""
    switches = tuple(float(p.s + k) for k in inner)
    values = [float((first + i) % 2) for i in range(len(switches) + 1)]
    schedule = merged([p.s, *switches, p.T], values)
    return Optimal(schedule, switches, objective(p, schedule).value, reached, violation)


def _not_optimal(what, found):
    return NotOptimal(
        f"Pontryagin's condition fails: {what}. The search did not find the minimum. The best "
        f"weight found has 𝓔 = {found.value:.6g} and switches at {found.switches}",
        found,
    )
