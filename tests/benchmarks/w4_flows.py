"""W4: 200 starts × 50 schedules × 101 times of least-squares flow.

The peer integrates all 10,000 trajectories as one system by DOP853, at a tolerance that reaches a
relative error of 1e-8. The limit is a copy of the output.
"""

import numpy as np
from benchmarks.timing import Method, relative
from scipy.integrate import solve_ivp

from ifcore import flow, weights

T, TIMES = 4.0, np.linspace(0, 4.0, 101)
FEW = 3  # schedules and starts whose answer is checked


def problem(kind, starts=200, plans=50):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 2)) / np.sqrt(20), rng.standard_normal(20)
    values = rng.uniform(0, 1, (plans, 4))
    knots = (0.5, 1.5, 2.5, 3.5)  # the same for all, which spares the baseline restarts
    if kind == "constant pieces":
        many = [weights.piecewise(knots, v[:3]) for v in values]
    else:
        many = [
            weights.function(
                lambda t, v=v: np.interp(t, knots, v), knots[0], knots[-1], knots[1:-1]
            )
            for v in values
        ]
    return X, y, many, 3 * rng.standard_normal((starts, 2))


def ours(X, y, many, theta0):
    return flow.scheduled(X, y, 0, many, TIMES, tol=1e-9)(theta0)  # (starts, plans, K, 2)


def batched(X, y, many, theta0, tol):
    """All trajectories as one system, restarted at every knot, so that no step spans a jump."""
    x, A = X[0], X.T @ X - np.outer(X[0], X[0])
    b, own = X.T @ y - X[0] * y[0], X[0] * y[0]
    breaks = np.unique(np.concatenate([[0.0, T], *(plan.knots for plan in many)]))
    shape = (len(theta0), len(many), 2)
    state = np.repeat(theta0[:, None], len(many), axis=1)
    out = [np.repeat(theta0[:, None], len(many), axis=1)]
    for left, right in zip(breaks, breaks[1:]):
        middle = (left + right) / 2
        pieces = [plan.values[np.searchsorted(plan.knots, middle)] for plan in many]

        def velocity(t, z, pieces=pieces):
            z = z.reshape(shape)
            epsilon = np.array([p(t) if callable(p) else p for p in pieces])
            return (b - z @ A + epsilon[:, None] * (own - (z @ x)[..., None] * x)).ravel()

        inside = TIMES[(TIMES > left) & (TIMES <= right)]
        found = solve_ivp(
            velocity,
            (left, right),
            state.ravel(),
            "DOP853",
            np.union1d(inside, right),
            rtol=tol,
            atol=tol,
        )
        out += [column.reshape(shape) for column in found.y.T[: len(inside)]]
        state = found.y[:, -1].reshape(shape)
    return np.stack(out, axis=2)


def exact(X, y, plans, theta0):
    """θ at TIMES for a schedule and a start each, by one DOP853 at the finest tolerance."""
    return np.array([batched(X, y, [plan], theta0[:FEW], 1e-13)[:, 0] for plan in plans])


def loop(X, y, plans, theta0, tol):
    """One trajectory after the other."""
    return np.array([[batched(X, y, [p], t[None], tol)[0, 0] for t in theta0] for p in plans])


def methods(kind):
    given = X, y, plans, theta0 = problem(kind)
    truth = exact(X, y, plans[:FEW], theta0)  # (plans, starts, times, 2)
    error = relative(truth)

    def few(out):
        return error(out[:FEW, :FEW].swapaxes(0, 1))

    out = ours(*given)
    return [
        Method("ifcore", lambda: ours(*given), few),
        Method("limit: a copy", out.copy),
        Method("scipy, batched DOP853", lambda: batched(*given, 1e-9), few),
        Method(
            "loop of DOP853",
            lambda: loop(X, y, plans[:FEW], theta0[:FEW], 1e-9),
            error,
            FEW**2 / (len(plans) * len(theta0)),
            once=True,
        ),
    ], 3
