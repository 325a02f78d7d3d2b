"""What the optimal schedule is held against: the greedy one, and a direct minimisation."""

from enum import Enum

import numpy as np
from scipy.optimize import minimize

from ifcore import inputs
from ifcore.forgetting.problem import ROUNDING, NotOptimal, zeros
from ifcore.weights import Schedule, piecewise

SWITCHES = 1000  # of a greedy schedule, before it is given up


class Regime(Enum):
    """What a greedy weight does until it changes its mind."""

    GONE = 0.0
    WHOLE = 1.0
    SLIDE = "along σ = 0"


def greedy(problem):
    """The weight that at each time moves θ fastest towards θ*₋ⱼ, after s, as a Schedule.

    The speed is affine in ε with slope ρσ, ρ = x_jᵀθ − y_j, σ = x_jᵀ(θ − θ*₋ⱼ): ε = 1 where
    ρσ > 0, 0 where ρσ < 0. Where both weights drive θ onto σ = 0 it slides along that plane, with
    the weight x_jᵀH₋ⱼ(θ − θ*₋ⱼ)/(‖x_j‖²(y_j − x_jᵀθ*₋ⱼ)) in between (Filippov).
    Raises NotOptimal where it switches a thousand times. Source: the notes' (0.15).
    Memory: 8 (n (5 d + 6) + 8 d²) bytes.
    """
    p = problem
    p.require_time()
    size = p.x @ p.x
    if not size > 0:
        return Schedule((p.s,))
    matrices = _matrices(p)
    t, w, knots, pieces, regime = p.s, p.w, [p.s], [], _regime(p, p.w)
    while t < p.T:
        (values, V), still = matrices[regime]
        a, exponents = V.T @ (w - still), np.append(0.0, values)
        level, end = _levels(p, regime, V, a, still)
        events = sorted(
            (zero, i)
            for i, c in enumerate((level, level - end * np.eye(len(level))[0]))
            for zero in zeros(c, exponents, 1e-12 * (p.T - p.s), p.T - t)
            if _exceeds_rounding(c, exponents, zero / 2)
        )
        length, which = events[0] if events else (p.T - t, None)
        pieces.append(regime.value if regime != Regime.SLIDE else _sliding(t, exponents, level))
        w = still + V @ (np.exp(-values * length) * a)
        t = p.T if which is None else t + length
        knots.append(t)
        if len(pieces) > SWITCHES:
            raise NotOptimal(
                f"the greedy weight switched {SWITCHES} times before t = {t:.6g}",
                merged(knots, pieces),
            )
        if which is not None and regime == Regime.SLIDE:
            regime = (Regime.GONE, Regime.WHOLE)[which]
        elif which is not None:
            regime = _regime(p, w, ("sigma", "rho")[which])
    return merged(knots, pieces)


def _matrices(p):
    """Of each regime the eigenvalues and eigenvectors, and the state at rest."""
    H, nothing = p.A + np.outer(p.x, p.x), np.zeros(len(p.x))
    onto = np.eye(len(p.x)) - np.outer(p.x, p.x) / (p.x @ p.x)
    return {
        Regime.GONE: (np.linalg.eigh(p.A), nothing),
        Regime.WHOLE: (np.linalg.eigh(H), np.linalg.lstsq(H, p.x * p.c)[0]),
        Regime.SLIDE: (np.linalg.eigh(onto @ p.A @ onto), nothing),
    }


def _levels(p, regime, V, a, still):
    """Coefficients of what ends a regime where it is 0, or `end`: ε on the slide, else σ."""
    if regime == Regime.SLIDE:
        return np.append(0.0, (p.x @ p.A @ V) * a / (p.x @ p.x * p.c)), 1.0
    return np.append(p.x @ still, (p.x @ V) * a), p.c


def _exceeds_rounding(c, exponents, t):
    """Whether Σ_k c_k e^{−exponents_k t} does: not so where it has left a zero at 0 hardly yet."""
    terms = c * np.exp(-exponents * t)
    return abs(terms.sum()) > 64 * ROUNDING * np.abs(terms).sum()


def _sliding(start, exponents, weight):
    def piece(t):
        decay = np.exp(-np.subtract.outer(t, start)[..., None] * exponents)
        return np.clip(decay @ weight, 0, 1)

    return piece


def _regime(p, w, surface=None):
    """The greedy regime just after w, on the surface σ = 0 ("sigma") or ρ = 0 ("rho"), or off."""
    sigma = p.x @ w
    rho, drift, size = sigma - p.c, p.x @ p.A @ w, p.x @ p.x
    tiny = 64 * ROUNDING * (np.sqrt(size) * np.linalg.norm(w) + abs(p.c))
    if p.c == 0:
        return Regime.WHOLE
    if surface == "sigma" or abs(sigma) <= tiny:  # −drift + ε‖x‖²c is the speed of σ
        slow = -drift * np.sign(p.c)
        if slow > -tiny * np.linalg.norm(p.A):
            return Regime.GONE
        return Regime.WHOLE if slow + size * abs(p.c) < 0 else Regime.SLIDE
    if surface == "rho" or abs(rho) <= tiny:
        return Regime.WHOLE if -drift * sigma > 0 else Regime.GONE
    return Regime.WHOLE if rho * sigma > 0 else Regime.GONE


def merged(knots, pieces):
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


def direct(problem, pieces=64, starts=8, seed=0):
    """An independent, direct minimisation of 𝓔: ε constant on equal parts of [s, T], by L-BFGS-B.

    pieces : how many parts. starts : runs, from ε = 0, ε = 1 and random weights drawn with `seed`.
    The gradient is exact up to rounding (Gauss–Legendre quadrature of μρ in each part). Returns the
    best (Schedule, value). It cannot be better than `optimal`, and comes close to it as the parts
    get short.
    Memory: 8 (n (5 d + 6) + 2 k d²) bytes for k pieces.
    """
    p = problem
    p.require_time()
    pieces, starts = inputs.count(pieces, "pieces"), inputs.count(starts, "starts")
    values, V = np.linalg.eigh(p.A)
    scale = ((np.exp(-values * (p.T - p.s)) * (p.w @ V)) ** 2).sum() / 2  # 𝓔 of ε = 0
    cost, scale = _Piecewise(p, pieces), max(scale, 1e-300)
    rng = np.random.default_rng(seed)
    first = [np.zeros(pieces), np.ones(pieces)]
    for _ in range(starts - 2):
        first.append(np.repeat(rng.random(8), -(-pieces // 8))[:pieces])
    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-15, "gtol": 1e-12}
    options = {"method": "L-BFGS-B", "bounds": [(0, 1)] * pieces, "options": options}
    runs = [minimize(cost, e, (scale,), jac=True, **options) for e in first[:starts]]
    best = min(runs, key=lambda run: run.fun)
    return piecewise(np.linspace(p.s, p.T, pieces + 1), best.x), best.fun * scale


class _Piecewise:
    """𝓔 over `scale`, and its gradient, of weights that are constant on equal parts of [s, T]."""

    def __init__(self, problem, pieces):
        self.p, self.pieces, self.h = problem, pieces, (problem.T - problem.s) / pieces
        nodes, self.shares = np.polynomial.legendre.leggauss(8)
        self.inner = self.h * (nodes + 1) / 2

    def __call__(self, epsilon, scale):
        p, pieces, h = self.p, self.pieces, self.h
        values, V = np.linalg.eigh(p.A + epsilon[:, None, None] * np.outer(p.x, p.x))
        b = (epsilon * p.c)[:, None] * (p.x @ V)
        span = np.append(self.inner, h)[:, None]
        power = values[:, None] * span
        with np.errstate(invalid="ignore"):
            decay = np.exp(-values[:, None] * span)
            gain = np.where(power != 0, -np.expm1(-power) / values[:, None], span)
        rho, w = np.empty((pieces, len(self.inner))), p.w
        for i in range(pieces):
            modes = decay[i] * (w @ V[i]) + gain[i] * b[i]
            rho[i] = modes[:-1] @ (p.x @ V[i]) - p.c
            w = V[i] @ modes[-1]
        slope, adjoint = np.empty(pieces), w
        for i in reversed(range(pieces)):
            modes = decay[i, -2::-1] * (adjoint @ V[i])  # the nodes lie symmetrically
            slope[i] = -(modes @ (p.x @ V[i]) * rho[i]) @ self.shares * h / 2
            adjoint = V[i] @ (decay[i, -1] * (adjoint @ V[i]))
        return (w @ w) / 2 / scale, slope / scale
