"""The fastest way to w = 0 in K, and the evidence that there is none faster.

q is a `Reduced`. Durations, (k,), are those of the k pieces of a weight that alternates and is 1
last. Backwards from w = 0 the residual ρ keeps the sign of −c, whatever the weight. So the states
that can be brought to 0 by a given time are a convex set; and a weight that is 1 last, and 1 or 0
with the sign of μρ before, is the only one that makes w = 0 by its time.
"""

import numpy as np
from scipy.optimize import least_squares, nnls

from ifcore.forgetting.reduced import ROUNDING

MISS = 1e-10  # of |w| at s: the distance, beside rounding, at which a start counts as met
RATIOS = (1.0, 2.0, 0.5)  # of a duration to the one before, where Newton's method begins


def least_time(q):
    """Durations of the fastest way to w = 0 by `length`; None: none was found."""
    if q.c == 0:  # then w = 0 is at rest, and never reached
        return None
    latest, best, least = q.length * (1 + MISS), None, MISS
    for ratio in RATIOS:
        durations, whole = _led(q, _scaled(q, ratio ** np.arange(q.k)), latest)
        if durations.sum() > latest:
            break
        durations = _nearest(q, durations if whole else _inside(q, durations))
        miss = _miss(q, _start(q, durations)[0])
        if miss <= least and durations.sum() <= latest:
            best, least = durations, miss
        if whole or miss == 0:
            break
    return best


def _led(q, durations, latest):
    """Durations led to those that start at w, as far as Newton's method goes; whether to the end.

    The start from which they lead to 0 moves to w in a straight line. The line stays in the convex
    set, where the durations are unique and, inside, positive; and no point of it takes longer than
    both its ends, so that they end where they are later than `latest`.
    """
    at, step, first = 0.0, 0.5, _start(q, durations)[0]
    while at < 1 and step > ROUNDING and durations.sum() <= latest:
        to = min(1.0, at + step)
        new = _newton(q, durations, first + to * (q.w - first))
        if new is None:
            step /= 4
        else:
            durations, at, step = new, to, 2 * step
    return durations, at == 1


def knots(q, durations):
    """The times at which the weight jumps, 1 up to the first."""
    return np.append(np.zeros(1 - q.k % 2), np.minimum(np.cumsum(durations), q.length))


def _start(q, durations):
    """The state from which these durations lead to 0, and its derivatives in them, (k, k)."""
    w, slopes = np.zeros(q.k), np.zeros((q.k, q.k))
    for i in reversed(range(q.k)):
        epsilon, time = (q.k - i) % 2, -durations[i]
        values, V, rest = q.parts[epsilon]
        w = q.advance(w, epsilon, time)
        slopes = q.advance(slopes, epsilon, time, rest=False)
        slopes[i] = (values * (w @ V - rest)) @ V.T
    return w, slopes.T


def _miss(q, start):
    """How far from w it is, beyond rounding, over |w|."""
    return max(0.0, np.linalg.norm(start - q.w) - q.rounding) / np.linalg.norm(q.w)


def _scaled(q, shape):
    """Durations in these proportions, within `length`, short for fast modes unless w is far."""
    shape = shape / shape.sum()
    size = min(q.k / q.parts[1][0][-1], q.length)
    while 2 * size <= q.length:
        if np.linalg.norm(_start(q, 2 * size * shape)[0]) > np.linalg.norm(q.w):
            break
        size *= 2
    return size * shape


def _newton(q, durations, target):
    """Durations that lead from `target` to 0, where Newton's method converges at once; or None.

    That is: it first changes none by more than half, and then by at most half as much as before.
    """
    largest = 0.5
    while largest >= 1e-4:
        w, slopes = _start(q, durations)
        slopes = slopes * durations  # in parts of the durations
        size = np.maximum(np.abs(slopes).max(axis=1), 1e-300)
        change = np.linalg.lstsq(slopes / size[:, None], (target - w) / size)[0]
        if not np.abs(change).max() <= largest:
            return None
        durations, largest = durations * (1 + change), np.abs(change).max() / 2
    return durations


def _inside(q, durations):
    """Positive durations whose start is nearest to w: Newton's method stopped at a boundary."""
    size = np.linalg.norm(q.w)
    given = {"bounds": (0, np.inf), "x_scale": "jac", "max_nfev": 100}
    tolerances = dict.fromkeys(("xtol", "ftol", "gtol"), 4 * ROUNDING)
    found = least_squares(
        lambda z: (_start(q, z)[0] - q.w) / size,
        durations,
        lambda z: _start(q, z)[1] / size,
        **given,
        **tolerances,
    )
    return found.x


def _nearest(q, durations):
    """The last digits, by Newton's method for durations that may be 0."""
    w, slopes = _start(q, durations)
    for _ in range(20):
        scaled = slopes * durations
        new = durations * nnls(scaled, q.w - w + scaled.sum(axis=1))[0]
        before, (w, slopes) = np.linalg.norm(w - q.w), _start(q, new)
        if not np.linalg.norm(w - q.w) < before:
            break
        durations = new
    return durations


def violation(q, first, inner, time):
    """What is wrong with a way to 0 whose first weight and switches, in (0, time), are given.

    λ is the one whose μ = xᵀλ is 0 at the switches and, if they are fewer than k − 1, at times
    before s: it has no zero besides; its sign is that of μρ > 0 at the end. The larger of two:
    ∫|μρ| dt where ε has the wrong sign over all of it, by Pontryagin's principle for the least
    time; and what the miss at s, beyond rounding, may be worth in time, by λ, over `time`. Beside
    it what rounding is worth in the same way.
    """
    spans = np.diff([0.0, *inner, time])
    pieces = [(span, (first + i) % 2) for i, span in enumerate(spans)][::-1]
    lam, w, wrong, total = _adjoint(q, pieces, time), np.zeros(q.k), 0.0, 0.0
    speed = abs(lam @ q.x * q.c)  # of λᵀw at the end
    nodes, shares = np.polynomial.legendre.leggauss(64)
    for span, epsilon in pieces:
        back = span * (nodes + 1) / 2
        rho = q.advance(w, epsilon, -back) @ q.x - q.c
        product = rho * (q.advance(lam, epsilon, back, rest=False) @ q.x)
        total += span * shares @ np.abs(product)
        wrong += span * shares @ np.maximum(-product if epsilon else product, 0)
        w = q.advance(w, epsilon, -span)
        lam = q.advance(lam, epsilon, span, rest=False)
    worth = np.linalg.norm(lam) / max(speed * time, 1e-300)
    late = _miss(q, w) * np.linalg.norm(q.w) * worth
    return float(max(wrong / max(total, 1e-300), late)), float(q.rounding * worth)


def _adjoint(q, pieces, time):
    """λ at the end: μ is 0 between the pieces, given from the last on, and before s."""
    adjoint, mu = np.eye(q.k), []
    before = [(time / q.k, 1)] * (q.k - len(pieces))
    for span, epsilon in [*pieces, *before]:
        adjoint = q.advance(adjoint, epsilon, span, rest=False)
        mu.append(adjoint @ q.x / np.linalg.norm(adjoint @ q.x))
    lam = np.linalg.svd(np.reshape(mu[:-1], (-1, q.k)))[2][-1]
    return lam if (lam @ q.x) * q.c < 0 else -lam
