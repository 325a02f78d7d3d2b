"""The search behind `schedules.optimal`: the switch times that minimise 𝓔, and the fastest way to 0."""

from functools import cache
from math import comb

import numpy as np
from scipy.optimize import minimize

ROUNDING = np.finfo(float).eps
GRID = 5_000  # schedules tried for each number of switches before the best are refined
NEAR = 1e-12  # 𝓔 over that of ε = 0, below which nothing is told apart
SMALL = 1e-6  # the same, below which it is asked whether 0 can be reached


class Reduced:
    """The part of w in K, in a Lanczos basis from x: H₋ⱼ is a Jacobi matrix and x a multiple of e₁."""

    def __init__(self, p):
        basis, size = [], np.linalg.norm(p.A)
        v = p.x.copy()
        while len(basis) < len(p.x):
            for _ in range(2):
                for u in basis:
                    v = v - (u @ v) * u
            norm = np.linalg.norm(v)
            if norm <= 1e-10 * (np.linalg.norm(p.x) if not basis else size):
                break
            basis.append(v / norm)
            v = p.A @ basis[-1]
        Q = np.array(basis).reshape(len(basis), len(p.x))
        self.k, self.length, self.c = len(basis), p.T - p.s, p.c
        self.w, self.x, J = Q @ p.w, Q @ p.x, Q @ p.A @ Q.T
        self.parts = []  # for ε = 0 and ε = 1: eigenvalues, eigenvectors, the state at rest in their basis
        for epsilon in (0, 1) if self.k else ():
            values, V = np.linalg.eigh(J + epsilon * np.outer(self.x, self.x))
            self.parts.append(
                (values, V, self.x @ V / values * self.c if epsilon else np.zeros(self.k))
            )

    def free(self, length):
        """½|w(length)|² for ε = 0, and what need not be told from 0 there: what rounding makes of it, and 1e-20 of that."""
        values, V, _ = self.parts[0]
        left = np.exp(-values * length)
        size = np.linalg.norm(self.w) + np.linalg.norm(self.parts[1][2])
        value = ((left * (self.w @ V)) ** 2).sum() / 2
        return value, max(1e-20 * value, ((256 * ROUNDING * size * left) ** 2).sum() / 2)

    def still(self, w, time):
        """Whether w at `time` is 0, to 1e-10 of what ε = 0 would have left of each mode or to rounding, where that tells anything."""
        decay = np.exp(-self.parts[0][0] * time)
        rounding = 64 * ROUNDING * decay[0] / max(decay[-1], 1e-300)
        missed = np.abs(w @ self.parts[0][1]) / np.maximum(decay, 1e-300) / np.linalg.norm(self.w)
        return rounding < 1e-7 and (missed <= max(1e-10, rounding)).all()

    def advance(self, w, epsilon, time, rest=True):
        """w (…, k) after `time` (…) with a constant weight; the adjoint's flow for rest=False.

        An optimiser may ask for negative times, which are allowed as long as they do not overflow.
        """
        values, V, still = self.parts[epsilon]
        power = np.minimum(-np.multiply.outer(time, values), 50)
        modes = w @ V * np.exp(power)
        return (modes - still * np.expm1(power) if rest and epsilon else modes) @ V.T

    def ends(self, knots, length):
        """w at `length`, (m, k), for knots (m, N): ε = 1 up to the first, 0 up to the second, and so on."""
        w, before = np.broadcast_to(self.w, (len(knots), self.k)), 0.0
        for i in range(knots.shape[1] + 1):
            after = knots[:, i] if i < knots.shape[1] else length
            w, before = self.advance(w, 1 - i % 2, after - before), after
        return w

    def along(self, knots, length):
        """The states at the knots, (N, k), and w at `length`."""
        states, w, before = [], self.w, 0.0
        for i, after in enumerate([*knots, length]):
            w, before = self.advance(w, 1 - i % 2, after - before), after
            states.append(w)
        return np.array(states[:-1]).reshape(-1, self.k), w

    def slopes(self, knots, length, states, adjoint):
        """ρ at the knots, (N,), and xᵀλ there, for λ at `length`, (k,) or (r, k): (…, N)."""
        mu, after = [], length
        for i in reversed(range(len(knots))):
            adjoint, after = (
                self.advance(adjoint, 1 - (i + 1) % 2, after - knots[i], rest=False),
                knots[i],
            )
            mu.append(adjoint @ self.x)
        return states @ self.x - self.c, np.array(mu[::-1]).T.reshape(
            *adjoint.shape[:-1], len(knots)
        )

    def cost(self, knots, length):
        """½|w|² at `length`, and its derivatives in the knots."""
        states, w = self.along(knots, length)
        rho, mu = self.slopes(knots, length, states, w)
        return w @ w / 2, np.where(np.arange(len(knots)) % 2, 1, -1) * mu * rho

    def wrong(self, knots, length):
        """∫|μρ| dt over where ε is 1 and μρ < 0, or 0 and μρ > 0, and where that is worst."""
        states, adjoint = self.along(knots, length)
        nodes, shares = np.polynomial.legendre.leggauss(64)
        edges, states = [0.0, *knots, length], [self.w, *states]
        total, worst = 0.0, (0.0, 0.0)
        for i in reversed(range(len(edges) - 1)):
            span, epsilon = edges[i + 1] - edges[i], 1 - i % 2
            t = span * (nodes + 1) / 2
            rho = self.advance(states[i], epsilon, t) @ self.x - self.c
            product = rho * (self.advance(adjoint, epsilon, span - t, rest=False) @ self.x)
            wrong = np.maximum(-product if epsilon else product, 0)
            total += span / 2 * shares @ wrong
            worst = max(worst, (wrong.max() if span > 0 else 0.0, edges[i] + t[np.argmax(wrong)]))
            adjoint = self.advance(adjoint, epsilon, span, rest=False)
        return float(total), worst[1]


def search(q, length):
    """Knots in [0, length] that minimise ½|w(length)|², and the minimum: found with at most 2k of them, where k would do."""
    N, runs = 2 * q.k, []
    for inner in range(N):
        for first in (0, 1):  # after s the weight is 1 or 0
            grid = length * _grid(inner)
            knots = np.column_stack([np.zeros((len(grid), 1 - first)), grid])
            values = (q.ends(knots, length) ** 2).sum(axis=1)
            runs.append(knots[np.argmin(values)])
    floor = q.free(length)[1]
    found = [_polish(q, knots, length) for knots in runs]
    knots, value = min(
        found, key=lambda run: (max(run[1], floor), len(switches(run[0], length)[1]))
    )
    for _ in range(20):
        wrong, where = q.wrong(knots, length)
        if wrong <= 1e-9 * value or value <= floor:
            break
        new = _polish(q, _pierced(q, knots, length, where), length)
        if not new[1] < value:
            break
        knots, value = new
    return _without_needless(q, knots, value, length)


def _without_needless(q, knots, value, length):
    """`knots` less the shortest pieces, as long as that costs nothing that counts; and the value."""
    while True:
        first, inner = switches(knots, length)
        if len(inner) < 2:
            return knots, value
        shortest = int(np.argmin(np.diff(inner)))
        fewer = np.array([0.0] * (1 - first) + inner[:shortest] + inner[shortest + 2 :])
        new = _polish(q, fewer, length)
        if new[1] > value * (1 + 1e-9) + 0.1 * NEAR * q.free(length)[0]:
            return knots, value
        knots, value = new


def _pierced(q, knots, length, where):
    """`knots` with a piece of the other weight before, around or after `where`: the best of many lengths, down to rounding."""
    first, inner = switches(knots, length)
    span = length * 2.0 ** -np.arange(1, 50)
    left = np.concatenate([where - span, where - span / 2, np.full(len(span), where)])
    ends = np.clip(np.column_stack([left, left + np.tile(span, 3)]), 0, length)
    tries = np.sort(np.column_stack([np.tile(inner, (len(ends), 1)), ends]), axis=1)
    tries = np.column_stack([np.zeros((len(ends), 1 - first)), tries])
    return tries[np.argmin((q.ends(tries, length) ** 2).sum(axis=1))]


@cache
def _grid(N):
    """At most GRID ordered N-tuples in [0, 1]: all those from points that lie closer at both ends, where fast modes act."""
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


def _polish(q, knots, length):
    """The local minimum reached from `knots` by SLSQP and Newton, with what coincides or lies at an end exactly so; its value.

    A knot is measured in the shift of it that moves w(length) by its own size: a piece may be as short as w(length) is small.
    """
    N = len(knots)
    value, floor = q.cost(knots, length)[0], q.free(length)[1]
    order = np.diff(np.eye(N), axis=0)
    for _ in range(8 if N and value > floor else 0):
        states, w = q.along(knots, length)
        rho, mu = q.slopes(knots, length, states, np.eye(q.k))
        unit = np.minimum(
            length, np.linalg.norm(w) / np.maximum(np.linalg.norm(mu * rho, axis=0), 1e-300)
        )
        unit = np.maximum(unit, 4 * ROUNDING * length)

        def cost(z):
            out, slope = q.cost(np.clip(knots + unit * z, 0, length), length)
            return out / value, unit * slope / value

        gaps = order * unit / np.minimum(unit[1:], unit[:-1])[:, None]
        start = (order @ knots) / np.minimum(unit[1:], unit[:-1])
        run = minimize(
            cost,
            np.zeros(N),
            jac=True,
            method="SLSQP",
            bounds=np.column_stack([-knots, length - knots]) / unit[:, None],
            constraints=[{"type": "ineq", "fun": lambda z: start + gaps @ z, "jac": lambda z: gaps}]
            if N > 1
            else [],
            options={"ftol": 1e-13, "maxiter": 200},
        )
        new = _tidied(
            np.maximum.accumulate(np.clip(knots + unit * run.x, 0, length)), length, 1e-7 * unit
        )
        new = _newton(q, new, length, unit)
        after = q.cost(new, length)[0]
        if not after < value:
            break
        done = after > 0.99 * value
        knots, value = new, after
        if done or value <= floor:
            break
    return knots, value


def switches(knots, length):
    """The weight just after s, and the knots where it jumps: without those at the ends, and pairs that coincide."""
    inner = []
    for k in knots[(knots > 0) & (knots < length)]:
        if inner and inner[-1] == k:
            inner.pop()
        else:
            inner.append(k)
    return 1 - int(np.sum(knots == 0)) % 2, inner


def _tidied(knots, length, tiny):
    """Ordered knots with those that are nearer than `tiny`, (N,), to each other in pairs, or to an end, moved together."""
    knots = np.where(knots < tiny, 0, np.where(knots > length - tiny, length, knots))
    i = 0
    while i + 1 < len(knots):
        if 0 < knots[i] < knots[i + 1] < length and knots[i + 1] - knots[i] < min(
            tiny[i], tiny[i + 1]
        ):
            knots[i] = knots[i + 1] = (knots[i] + knots[i + 1]) / 2
            i += 1
        i += 1
    return knots


def _alone(knots, length):
    """The places of the knots in (0, length) that coincide with no other."""
    _, group, count = np.unique(knots, return_inverse=True, return_counts=True)
    return np.flatnonzero((knots > 0) & (knots < length) & (count[group] == 1))


def _newton(q, knots, length, unit, steps=4):
    """Newton's method for a zero of the slopes of the knots that can move, as long as the slopes shrink."""
    inner = _alone(knots, length)
    value, slope = q.cost(knots, length)
    for _ in range(steps if len(inner) else 0):
        columns = []
        for i in inner:
            h = np.zeros(len(knots))
            h[i] = 1e-5 * unit[i]
            columns.append(
                (q.cost(knots + h, length)[1] - q.cost(knots - h, length)[1])[inner] / (2 * h[i])
            )
        try:
            move = np.linalg.solve(np.array(columns).T, slope[inner])
        except np.linalg.LinAlgError:
            break
        new = knots.copy()
        new[inner] -= move
        if (np.diff(new, prepend=0, append=length) < 0).any():
            break
        after, turned = q.cost(new, length)
        shrinks = np.abs(unit * turned)[inner].max() < np.abs(unit * slope)[inner].max()
        if not (shrinks and after <= value * (1 + 1e-9)):
            break
        knots, value, slope = new, after, turned
    return knots


def least_time(q, knots):
    """Knots of the fastest way to w = 0, after which ε = 0, and its time; or `knots` and inf."""
    tries, length, near = [], q.length, knots
    for _ in range(40):
        tries.append((near, length))
        length /= 2
        near, value = search(q, length)
        if value > SMALL * q.free(length)[0]:
            break
    hits = (_hit(q, *pair) for pair in reversed(tries))
    best = next((hit for hit in hits if hit is not None), None)
    if best is None:
        return knots, np.inf
    for _ in range(20):
        length = best[-1] * (1 - 1e-3)  # is there a faster one?
        near, value = search(q, length)
        faster = _hit(q, near, length) if value <= SMALL * q.free(length)[0] else None
        if faster is None or not faster[-1] < best[-1] * (1 - 1e-6):
            break
        best = faster
    return (best if len(best) % 2 else best[:-1]), float(best[-1])


def _hit(q, knots, length):
    """Ordered knots with w = 0 at the last of them, which is as early as SLSQP can make it from `knots`; or None."""
    first, inner = switches(knots, length)
    start = [0.0] * (1 - first) + inner
    most = max(0, (2 * q.k - 1 - len(inner)) // 2)  # pairs of pieces that may grow
    hits = [
        _shortened(q, np.array(start + [length] * (2 * pairs)), length)
        for pairs in sorted({0, most})
    ]
    return min((hit for hit in hits if hit is not None), key=lambda hit: hit[-1], default=None)


def _shortened(q, knots, length):
    """As `_hit`, with all the knots given; the time of the end is one more.

    The modes of w at the end are measured in what ε = 0 would leave of them by `length`, the knots in the shifts that move those by 1.
    """
    knots, N = np.append(knots, length), len(knots) + 1
    frame = q.parts[0][1] * np.exp(np.minimum(q.parts[0][0] * length, 600)) / np.linalg.norm(q.w)

    def miss(knots):
        return q.along(knots[:-1], knots[-1])[1] @ frame

    def slope(knots):
        states, w = q.along(knots[:-1], knots[-1])
        rho, mu = q.slopes(knots[:-1], knots[-1], states, frame.T)
        values, V, rest = q.parts[1 - (N - 1) % 2]
        speed = -frame.T @ V @ (values * (V.T @ w - rest))
        return np.column_stack([np.where(np.arange(N - 1) % 2, 1, -1) * mu * rho, speed])

    size = np.maximum(np.linalg.norm(slope(knots), axis=0), 1 / length)
    unit = np.append(np.maximum(1 / size[:-1], 4 * ROUNDING * length), length)
    gap = np.minimum(unit[1:], unit[:-1])
    order = np.diff(np.eye(N), axis=0) * unit / gap[:, None]
    constraints = [
        {"type": "ineq", "fun": lambda z: np.diff(knots) / gap + order @ z, "jac": lambda z: order},
        {
            "type": "eq",
            "fun": lambda z: miss(knots + unit * z),
            "jac": lambda z: slope(knots + unit * z) * unit,
        },
    ]
    run = minimize(
        lambda z: (z[-1], np.eye(N)[-1]),
        np.zeros(N),
        jac=True,
        method="SLSQP",
        bounds=np.column_stack([-knots, length - knots]) / unit[:, None],
        constraints=constraints,
        options={"ftol": 1e-14, "maxiter": 300},
    )
    found = np.maximum.accumulate(np.clip(knots + unit * run.x, 0, length))
    found = _tidied(found, np.inf, 1e-7 * unit)
    free = _alone(found, np.inf)
    for _ in range(4 if len(free) else 0):  # Newton, for the last digits
        new = found.copy()
        new[free] -= unit[free] * np.linalg.lstsq((slope(found) * unit)[:, free], miss(found))[0]
        if (np.diff(new, prepend=0) < 0).any() or not np.linalg.norm(miss(new)) < np.linalg.norm(
            miss(found)
        ):
            break
        found = new
    states, w = q.along(found[:-1], found[-1])
    for i, state in enumerate([*states, w]):  # it may have been there before the end
        if found[i] > 0 and q.still(state, found[i]):
            return found[: i + 1]
    return None
