"""The search behind `optimal` where 0 is out of reach: the switch times that minimise 𝓔.

q is a `Reduced`; knots are times in [0, length] at which the weight jumps, 1 up to the first.
"""

from functools import cache
from math import comb

import numpy as np
from scipy.optimize import minimize

from ifcore.forgetting.reduced import ROUNDING

GRID = 5_000  # schedules tried for each number of switches before the best are refined
STARTS = (0, 1 / 200, 1 / 40)  # of the grid, in the order of 𝓔, from which it is refined


def search(q, length):
    """Knots that minimise ½|w(length)|², and the minimum.

    The theorem leaves 2k + 1 patterns: below k switches, from 0 or from 1 on, and k that end in 0.
    Each is tried on a grid, and polished from three of its points, as others may lie in other
    basins: the best, and those than which 0.5% and 2.5% of the grid are better.
    """
    found = []
    for inner in range(q.k + 1):
        for first in (0, 1):  # the weight after s
            if inner == q.k and first != q.k % 2:
                continue
            grid = length * _grid(inner)
            knots = np.column_stack([np.zeros((len(grid), 1 - first)), grid])
            order = np.argsort((q.ends(knots, length) ** 2).sum(axis=1), kind="stable")
            for place in sorted({int(share * len(order)) for share in STARTS}):
                found.append(_polish(q, knots[order[place]], length, first))
    floor = q.decayed(min(found, key=lambda run: run[1])[0], length)[1]
    knots, value = min(
        found, key=lambda run: (max(run[1], floor), len(switches(run[0], length)[1]))
    )
    for _ in range(q.k):  # a piece may be missing that is too short for the grid
        wrong, where = q.wrong(knots, length)
        first, inner = switches(knots, length)
        if wrong <= 1e-9 * value or value <= floor or len(inner) + 2 > q.k:
            break
        new = _polish(q, _pierced(q, first, inner, length, where), length, first)
        if not new[1] < value:
            break
        knots, value = new
    knots = _settled(q, knots, length)
    return knots, q.cost(knots, length)[0]


def _pierced(q, first, inner, length, where):
    """Knots with a piece of the other weight before, around or after `where`.

    The best of many lengths, from half the time down to rounding.
    """
    span = length * 2.0 ** -np.arange(1, 50)
    left = np.concatenate([where - span, where - span / 2, np.full(len(span), where)])
    ends = np.clip(np.column_stack([left, left + np.tile(span, 3)]), 0, length)
    tries = np.sort(np.column_stack([np.tile(inner, (len(ends), 1)), ends]), axis=1)
    tries = np.column_stack([np.zeros((len(ends), 1 - first)), tries])
    return tries[np.argmin((q.ends(tries, length) ** 2).sum(axis=1))]


@cache
def _grid(N):
    """At most GRID ordered N-tuples in [0, 1]: all those from points that lie closer at the ends.

    There fast modes act.
    """
    fine = 1
    while N and comb(fine + 1 + N, N) <= GRID:
        fine += 1
    rows = np.zeros((1, 1), dtype=int)
    for _ in range(N):
        count = fine + 1 - rows[:, -1]
        start = np.repeat(np.cumsum(count) - count, count)
        rows = np.repeat(rows, count, axis=0)
        rows = np.column_stack([rows, rows[:, -1] + np.arange(len(rows)) - start])
    return (1 - np.cos(np.pi * rows[:, 1:] / fine)) / 2


def _polish(q, knots, length, first):
    """The local minimum reached from `knots` by SLSQP, and its value.

    In up to eight rounds, until one gains less than 1%. What coincides or lies at an end is exactly
    so.
    """
    value = q.cost(knots, length)[0]
    for _ in range(8 if len(knots) else 0):
        if value <= q.decayed(knots, length)[1]:
            break
        unit = _unit(q, knots, length)

        def cost(z):
            out, slope = q.cost(np.clip(knots + unit * z, 0, length), length)
            return out / value, unit * slope / value

        z = _slsqp(cost, knots, unit, length, held=1 - first)
        new = np.maximum.accumulate(np.clip(knots + unit * z, 0, length))
        new = _tidied(new, length, 1e-7 * unit)
        after = q.cost(new, length)[0]
        if not after < value:
            break
        done = after > 0.99 * value
        knots, value = new, after
        if done:
            break
    return knots, value


def _settled(q, knots, length):
    """Knots that do something, moved by Newton's method while the slopes in them become less.

    A least value shows half the digits of its place; μ is to be 0 there.
    """
    first, inner = switches(knots, length)
    held = np.zeros(1 - first)
    knots = np.append(held, inner)
    value = q.cost(knots, length)[0]
    if not inner or value <= q.decayed(knots, length)[1]:
        return knots
    unit = _unit(q, knots, length)[len(held) :]
    tries = 1e-4 * np.eye(len(inner))

    def at(z):
        return np.append(held, inner + unit * z)

    def slopes(z):
        return unit * q.cost(at(z), length)[1][len(held) :]

    z, left = np.zeros(len(inner)), slopes(0)
    for _ in range(10):
        hessian = np.array([slopes(z + e) - slopes(z - e) for e in tries]) / 2e-4
        new = z - np.linalg.lstsq(hessian, left)[0]
        ordered = (np.diff([0.0, *at(new), length]) >= 0).all()
        if not ordered or q.cost(at(new), length)[0] > value * (1 + 1e-12):
            break
        after = slopes(new)
        if not np.linalg.norm(after) < np.linalg.norm(left) / 2:
            break
        z, left = new, after
    return at(z)


def _unit(q, knots, length):
    """Of each knot the shift that moves w(length) by its own size.

    A piece may be as short as w(length) is small.
    """
    states, w = q.along(knots, length)
    rho, mu = q.slopes(knots, length, states, np.eye(q.k))
    moved = np.maximum(np.linalg.norm(mu * rho, axis=0), 1e-300)
    unit = np.minimum(length, np.linalg.norm(w) / moved)
    return np.maximum(unit, 4 * ROUNDING * length)


def _ordered(knots, unit):
    """That knots + unit·z stay in their order, as a constraint in z."""
    gap = np.minimum(unit[1:], unit[:-1])
    start = np.diff(knots) / gap
    order = np.diff(np.eye(len(knots)), axis=0) * unit / gap[:, None]
    return {"type": "ineq", "fun": lambda z: start + order @ z, "jac": lambda z: order}


def _slsqp(cost, knots, unit, length, held):
    """z that minimises `cost`, with knots + unit·z in [0, length], the first `held` still."""
    bounds = np.column_stack([-knots, length - knots]) / unit[:, None]
    bounds[:held] = 0
    ordered = [_ordered(knots, unit)] if len(knots) > 1 else []
    given = {"bounds": bounds, "constraints": ordered}
    options = {"ftol": 1e-13, "maxiter": 200}
    start = np.zeros(len(knots))
    return minimize(cost, start, jac=True, method="SLSQP", **given, options=options).x


def switches(knots, length):
    """The weight just after s, and the knots where it jumps.

    Without those at the ends, and pairs that coincide.
    """
    inner = []
    for k in knots[(knots > 0) & (knots < length)]:
        if inner and inner[-1] == k:
            inner.pop()
        else:
            inner.append(k)
    return 1 - int(np.sum(knots == 0)) % 2, inner


def _tidied(knots, length, tiny):
    """Ordered knots; those nearer than `tiny`, (N,), to each other or to an end moved together.

    To each other in pairs.
    """
    knots = np.where(knots < tiny, 0, np.where(knots > length - tiny, length, knots))
    i = 0
    while i + 1 < len(knots):
        if 0 < knots[i + 1] - knots[i] < min(tiny[i], tiny[i + 1]):
            knots[i] = knots[i + 1] = (knots[i] + knots[i + 1]) / 2
            i += 1
        i += 1
    return knots
