"""Works that take long at full size, small: coalition values and optimal schedules."""

from math import comb

import numpy as np
from benchmarks.timing import Method, relative
from scipy.integrate import solve_ivp
from scipy.linalg import cho_factor, cho_solve

from ifcore import data, forgetting, risk, valuation
from ifcore.risk import Risk
from ifcore.runs import Run

PLAYERS, TESTS, D = 10, 50, 3
ALONE = Run(jobs=1, progress=False)


def game(n):
    """The value of a coalition is minus the mean test loss of its ridge regression, λ = 1."""
    X, y = data.regression(0, n, D, condition=2)
    other = data.regression(1, TESTS, D, condition=2)
    return (
        X,
        y,
        other,
        valuation.refits(
            *(Risk(risk.linear, risk.squared, *part, lam=1.0) for part in ((X, y), other))
        ),
    )


def enumerated(X, y, other, dtype=float):
    """Shapley values by one ridge regression after the other, over all coalitions.

    dtype : np.longdouble for answers that are refined in it.
    """
    n, wide, other = len(y), X.astype(dtype), [part.astype(dtype) for part in other]
    v = np.empty(2**n, dtype=dtype)
    for mask in range(2**n):
        rows = [i for i in range(n) if mask >> i & 1]
        factor, theta = cho_factor(X[rows].T @ X[rows] + np.eye(D)), np.zeros(D, dtype=dtype)
        for _ in range(1 if dtype is float else 3):
            left = wide[rows].T @ (y[rows] - wide[rows] @ theta) - theta
            theta += cho_solve(factor, left.astype(float))
        v[mask] = -0.5 * np.mean((other[0] @ theta - other[1]) ** 2)
    out = np.zeros(n, dtype=dtype)
    for j in range(n):
        for mask in range(2**n):
            if not mask >> j & 1:
                out[j] += (v[mask | 1 << j] - v[mask]) / n / comb(n - 1, mask.bit_count())
    return out


def coalitions():
    X, y, other, value = game(PLAYERS)
    error = relative(enumerated(X, y, other, np.longdouble))
    return [
        Method("ifcore", lambda: valuation.shapley(value, PLAYERS), error),
        Method("loop of refits", lambda: enumerated(X, y, other), error),
        Method(
            "random orders, 100",
            lambda: valuation.permutation_shapley(value, PLAYERS, 100, run=ALONE).values,
            error,
            once=True,
        ),
    ], 4


def forget(n, d, seed=0):
    """A problem of forgetting whose best weight jumps inside."""
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)) / np.sqrt(n), rng.standard_normal(n)
    X[0] *= np.sqrt(n) / 3
    return forgetting.Problem(X, y, 0, rng.standard_normal(d), 0.0, 6.0)


def schedules():
    """The error of a schedule is how much its 𝓔 exceeds the least that is known."""
    problem = forget(20, 3)
    best = forgetting.optimal(problem).value

    def excess(value):
        return float(abs(value - best) / best)

    def simulated(found):
        """𝓔 of the schedule as an integration of the flow gives it, not `objective`."""
        knots, p = [t for t in found.schedule.knots if 0 < t < problem.T], problem
        w, t, pieces = p.theta0, 0.0, found.schedule
        limit = np.linalg.lstsq(p.rest, np.delete(p.y, p.j))[0]
        for end in [*knots, p.T]:
            e = float(np.asarray(pieces.values[np.searchsorted(pieces.knots, (t + end) / 2)]))

            def velocity(_, z, e=e):
                r = p.y - p.X @ z
                r[p.j] *= e
                return p.X.T @ r

            w = solve_ivp(velocity, (t, end), w, "DOP853", rtol=1e-12, atol=1e-14).y[:, -1]
            t = end
        return excess(0.5 * ((w - limit) ** 2).sum())

    return [
        Method("ifcore", lambda: forgetting.optimal(problem), simulated),
        Method(
            "64 pieces by L-BFGS-B",
            lambda: forgetting.direct(problem, starts=4),
            lambda found: excess(found[1]),
        ),
    ], 4
