"""Soft weights: the weights in [0, 1] nearest to 1 that meet a constraint, by two multipliers."""

from bisect import bisect_left
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

from ifcore import inputs

EPS = np.finfo(float).eps
DOUBLINGS = 200  # of a multiplier, before its constraint counts as met as well as it can be


class Infeasible(ValueError):
    """A constraint that no weights in [0, 1] meet; `range` is what a·(w − 1) can be."""

    def __init__(self, message, range=None):
        super().__init__(message)
        self.range = range


class SoftWeights(NamedTuple):
    """Weights, and the multipliers of w = clip(1 − α a − β u, 0, 1)."""

    weights: np.ndarray  #: (n,)
    alpha: float  #: of the equality
    beta: float  #: of the inequality, at least 0
    range: tuple  #: what a·(w − 1) can be: the least and the largest


def soft_weights(a, c, u=None, t=0.0):
    """argmin ½‖w − 1‖² with a·(w − 1) = c, u·(w − 1) ≤ t, 0 ≤ w ≤ 1.

    a, u : (n,), how a quantity, as a gap or a loss, changes with each weight: by influence,
    Σ_j (w_j − 1) ∂φ/∂w_j. c : the change that is asked for. t : at least 0, the increase that is
    allowed; u None asks for none. Returns SoftWeights.

    Raises Infeasible, with the range of c. Source: Qiao et al. (2025), whose closed form has no
    bounds. Both constraints are monotone in their multipliers, and piecewise linear.
    Memory: 72 n bytes.
    """
    a, c = inputs.array(a, "a", 1), float(inputs.array(c, "c", 0))
    u = np.zeros_like(a) if u is None else inputs.array(u, "u", 1)
    t = inputs.nonnegative(t, "t")
    if u.shape != a.shape or not a.size:
        raise ValueError(f"u must be (n,) as a is; got {u.shape} for {a.shape}")
    (a, unit), (u, own) = _scaled(a), _scaled(u)
    t = min(t / own, 2.0 * len(a))  # u·(w − 1) is at most that
    low, high = _range(a, u, t)
    slack, ends = 1e-12 * np.abs(a).sum(), (low * unit, high * unit)
    if not low - slack <= c / unit <= high + slack:
        raise Infeasible(
            f"c must lie between {ends[0]:.6g} and {ends[1]:.6g}, which weights in [0, 1] can "
            f"reach; got {c:.6g}",
            ends,
        )
    c, beta = min(max(c / unit, low), high), 0.0

    def excess(beta):
        return u @ (_clipped(1 - beta * u, a, c)[0] - 1) - t

    if excess(0.0) > 0:
        upper = 1 / np.abs(u).max()
        for _ in range(DOUBLINGS):
            left = excess(upper)
            if left <= 16 * EPS * np.abs(u).sum():  # the sum's rounding, at an end of the range
                break
            upper *= 2
        beta = upper
        if left <= 0:
            beta = brentq(excess, 0.0, upper, xtol=1e-300, rtol=1e-15, maxiter=2000)
    weights, alpha = _clipped(1 - beta * u, a, c)
    weights, alpha, beta = _polished(weights, alpha, beta, a, c, u, t)
    return SoftWeights(weights, float(alpha) / unit, float(beta) / own, ends)


def _scaled(x):
    """x over a power of 2 near max|x|, and that power: no product leaves the range of the numbers.

    What is below 2⁻⁸⁰⁰ then counts nothing beside the largest, and is 0.
    """
    unit = float(np.ldexp(1.0, np.frexp(np.abs(x).max())[1] - 1))
    x = x / unit
    return np.where(np.abs(x) < 2.0**-800, 0.0, x), unit


def _range(a, u, t):
    """The least and the largest a·(w − 1)."""
    return -_largest(-a, u, t), _largest(a, u, t)


def _largest(a, u, t):
    """max a·z with u·z ≤ t, −1 ≤ z ≤ 0: min over β ≥ 0 of βt + Σ_i max(βu_i − a_i, 0), its dual.

    It is convex, and linear between the knots a_i/u_i. Its values at two of them may differ by
    less than they are rounded, so that the slope decides.
    """
    some = u != 0
    slopes, ratios = u[some], a[some] / u[some]
    knots = np.unique(np.append(0.0, np.maximum(ratios, 0)))

    def rises(knot):
        beyond = np.where(slopes > 0, ratios <= knot, ratios > knot)
        return t + slopes[beyond].sum() >= 0

    beta = knots[bisect_left(knots, True, hi=len(knots) - 1, key=rises)]
    return float(beta * t + np.maximum(beta * u - a, 0).sum())


def _clipped(base, a, c):
    """w = clip(base − α a, 0, 1) with a·(w − 1) = c, and α: a·(w − 1) falls, piecewise linearly."""

    def at(alpha):
        w = np.clip(base - alpha * a, 0, 1)
        return w, a @ (w - 1)

    def side(alpha):
        """1 where a·(w − 1) is above c, −1 where below, 0 where its rounding hides it."""
        w, value = at(alpha)
        return 0 if abs(value - c) <= 4 * EPS * (np.abs(a) @ (1 - w)) else np.sign(value - c)

    some = a != 0
    if not some.any():
        return base, 0.0  # it is 1, which meets every t
    start = side(0.0)
    if not start:
        return at(0.0)[0], 0.0
    knots = np.unique(np.concatenate([base[some] / a[some], (base[some] - 1) / a[some]]))
    first, last = 0, len(knots) - 1
    while last - first > 1:
        middle = (first + last) // 2
        here = side(knots[middle]) or -start  # on a plateau towards 0
        first, last = (middle, last) if here > 0 else (first, middle)
    (_, high), (_, low) = at(knots[first]), at(knots[last])
    share = 0.0 if high <= low else min(max((high - c) / (high - low), 0.0), 1.0)
    alpha = knots[first] + share * (knots[last] - knots[first])
    return at(alpha)[0], alpha


def _polished(w, alpha, beta, a, c, u, t):
    """The same with the multipliers by one solve on the weights that no bound holds."""
    free = (w > 0) & (w < 1)
    C = np.array([a, u])[: 2 if beta else 1]
    fixed = C[:, ~free] @ (w[~free] - 1)
    M = C[:, free] @ C[:, free].T
    if np.linalg.cond(M) > 1e12:  # without end where none is free
        return w, alpha, beta
    own = -np.linalg.solve(M, np.array([c, t])[: len(C)] - fixed)
    exact = 1 - own @ C
    again = np.where(free, exact, w)
    if np.abs(np.clip(exact, 0, 1) - again).max() <= 1e-12 and (len(own) == 1 or own[1] >= 0):
        return np.clip(again, 0, 1), own[0], own[1] if len(own) == 2 else beta
    return w, alpha, beta
