"""The objective, its derivatives, switching functions and greedy weights, by expm and simulated."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from scipy.optimize import minimize_scalar

from ifcore import forgetting, weights


def problem(seed, n=6, d=3, singular=False):
    rng = np.random.default_rng(seed)
    n = d if singular else n
    X, y = rng.standard_normal((n, d)) / 1.5, rng.standard_normal(n)
    return X, y, int(rng.integers(n)), 3 * rng.standard_normal(d), rng


def generator(X, y, j, epsilon):
    """The matrix of (θ, 1)' for a constant weight ε on example j."""
    w = np.ones(len(y))
    w[j] = epsilon
    d = X.shape[1]
    out = np.zeros((d + 1, d + 1))
    out[:d, :d], out[:d, d] = -(X.T * w) @ X, (X.T * w) @ y
    return out


def by_expm(X, y, j, theta0, knots, values, T):
    """θ(T) for the weights `values` between 0, the knots and T."""
    state = np.append(theta0, 1.0)
    for left, right, epsilon in zip([0.0, *knots], [*knots, T], values):
        state = expm((right - left) * generator(X, y, j, epsilon)) @ state
    return state[:-1]


def loo_limit(X, y, j, theta0):
    others = np.where(np.arange(len(y)) == j, 0.0, 1.0)[:, None] * X
    return theta0 + np.linalg.pinv(others, rcond=1e-10) @ (y - others @ theta0)


@pytest.mark.parametrize("singular", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_all_three_distances_against_expm(seed, singular):
    X, y, j, theta0, rng = problem(seed, singular=singular)
    T, knots, values = 2.0, np.sort(rng.uniform(0, 2, 3)), rng.uniform(0, 1, 2)
    plan = weights.piecewise(knots, values)
    end = by_expm(X, y, j, theta0, knots, [1, *values, 0], T)
    limit = loo_limit(X, y, j, theta0)
    size = (np.linalg.norm(end) + np.linalg.norm(theta0) + np.linalg.norm(limit)) ** 2

    def orbit(t):
        return by_expm(X, y, j, theta0, [], [0], t)

    expected = {
        "optimum": np.sum((end - limit) ** 2) / 2,
        "time": np.sum((end - orbit(T)) ** 2) / 2,
    }
    times = np.append(np.linspace(0, 1, 400) ** 3 * 60, 60.0)
    gaps = [np.sum((end - orbit(t)) ** 2) / 2 for t in times]
    k = int(np.argmin(gaps))
    inner = minimize_scalar(
        lambda t: np.sum((end - orbit(t)) ** 2) / 2,
        bounds=(times[max(k - 1, 0)], times[min(k + 1, 400)]),
        method="bounded",
        options={"xatol": 1e-11},
    )
    expected["orbit"] = min(gaps[k], inner.fun, expected["optimum"])
    for name, value in expected.items():
        found = forgetting.objective(
            forgetting.Problem(X, y, j, theta0, 0.0, T), plan, distance=name
        )
        assert abs(found.value - value) <= 1e-12 * size
        np.testing.assert_allclose(found.end, end, rtol=0, atol=1e-12 * np.sqrt(size))


@pytest.mark.parametrize("distance", forgetting.DISTANCES)
@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_in_the_knots_against_differences(seed, distance):
    X, y, j, theta0, rng = problem(seed)
    T, knots, values = 2.0, np.sort(rng.uniform(0.1, 1.9, 3)), rng.uniform(0, 1, 2)

    def value(knots):
        return forgetting.objective(
            forgetting.Problem(X, y, j, theta0, 0.0, T),
            weights.piecewise(knots, values),
            distance=distance,
        ).value

    found = forgetting.objective(
        forgetting.Problem(X, y, j, theta0, 0.0, T),
        weights.piecewise(knots, values),
        distance=distance,
    )
    scale = found.value + np.sum(found.gradient**2) ** 0.5
    for i in range(3):
        step = 1e-3 * min(np.diff(np.concatenate([[0], knots, [T]])).min(), 1) * np.eye(3)[i]
        near = value(knots + step) - value(knots - step)
        far = value(knots + 2 * step) - value(knots - 2 * step)
        slope = (8 * near - far) / (12 * step[i])
        assert abs(found.gradient[i] - slope) <= 1e-8 * scale


@pytest.mark.parametrize("seed", range(4))
def test_the_switching_functions_are_the_derivative_in_a_short_change_of_weight(seed):
    """−∫ δε μρ dt for a needle: ε raised by δ on [t, t + h], by differences in δ, as h shrinks."""
    X, y, j, theta0, rng = problem(seed)
    T, knots, values, target = 2.0, [0.4, 1.0, 1.8], [0.5, 0.3], rng.standard_normal(3)
    plan = weights.piecewise(knots, values)
    for t, i in ((0.6, 0), (1.3, 1)):
        rho, mu = forgetting.switching(
            forgetting.Problem(X, y, j, theta0, 0.0, T), plan, [t, t + 1e-3, t + 2e-3], target
        )

        def value(delta):
            inside = [*knots[: i + 1], t, t + 2e-3, *knots[i + 1 :]]
            levels = [1, *values[: i + 1], values[i] + delta, *values[i:], 0]
            return np.sum((by_expm(X, y, j, theta0, inside, levels, T) - target) ** 2) / 2

        slope = (value(0.1) - value(-0.1)) / 0.2
        expected = -2e-3 * (mu * rho) @ [1, 4, 1] / 6  # Simpson
        assert slope == pytest.approx(expected, rel=1e-5, abs=1e-9 * value(0))


@pytest.mark.parametrize("k", [2, 3, 4, 5])
def test_the_product_changes_its_sign_k_times_where_its_zeros_are_put(k):
    """ε = 0 and H₋ⱼ = diag(1, …, k): ρ is to be 0 at T − r for r = ¼, ¾, …, μ for r = ½, 1, …"""
    rates, r = np.arange(1.0, k + 1), np.arange(1, k + 1) / 4
    rho_row, mu_row = np.exp(np.outer(r, rates)), np.exp(-np.outer(r, rates))
    odd = np.arange(k) % 2 == 0
    end = np.linalg.solve(np.where(odd[:, None], rho_row, mu_row), odd.astype(float))  # c = 1
    T = r[-1] + 0.25
    X, y = np.vstack([np.ones(k), np.diag(np.sqrt(rates))]), np.append(1.0, np.zeros(k))
    given = forgetting.Problem(X, y, 0, np.exp(rates * T) * end, 0.0, T)
    between = T - np.append(r, T) + 0.125
    rho, mu = forgetting.switching(given, weights.step(0.0), np.clip(between, 0, T))
    assert (np.diff(np.sign(rho * mu)) != 0).all() and len(rho) == k + 1
    at_zeros = forgetting.switching(given, weights.step(0.0), T - r)
    assert np.abs(at_zeros[0][odd]).max() <= 1e-9
    assert np.abs(at_zeros[1][~odd]).max(initial=0) <= 1e-9 * np.abs(mu).max()


@pytest.mark.parametrize("seed", range(8))
def test_greedy_against_a_simulation_that_asks_at_every_step(seed):
    """Euler with the better weight at each of many short steps: the same end up to their length."""
    X, y, j, theta0, rng = problem(seed, d=2)
    s, T, target = 0.2, 2.2, loo_limit(*problem(seed, d=2)[:4])
    plan = forgetting.greedy(forgetting.Problem(X, y, j, theta0, s, T))
    state = by_expm(X, y, j, theta0, [], [1], s)
    ends = []
    for N in (2000, 4000):
        h, z = (T - s) / N, np.append(state, 1.0)
        moves = [expm(h * generator(X, y, j, e)) for e in (0.0, 1.0)]
        for _ in range(N):
            after = [m @ z for m in moves]
            z = min(after, key=lambda v: np.sum((v[:-1] - target) ** 2))
        ends.append(z[:-1])
    mine = forgetting.objective(forgetting.Problem(X, y, j, theta0, s, T), plan).end
    gap = np.linalg.norm(ends[1] - ends[0])
    assert np.linalg.norm(mine - ends[1]) <= 4 * gap + 5e-3 * np.linalg.norm(state - target)


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_smooth_schedules_against_runge_kutta(degree):
    X, y, j, theta0, rng = problem(5)
    plan = weights.polynomial(0.3, 1.7, degree)
    x, A, b = X[j], X.T @ X - np.outer(X[j], X[j]), X.T @ y - X[j] * y[j]

    def velocity(t, z):
        return b - A @ z - plan(t) * x * (x @ z - y[j])

    state = theta0
    for left, right in ((0, 0.3), (0.3, 1.7), (1.7, 2.0)):
        state = solve_ivp(
            velocity, (left, right), state, "DOP853", rtol=1e-13, atol=1e-13, max_step=0.05
        ).y[:, -1]
    found = forgetting.objective(forgetting.Problem(X, y, j, theta0, 0.3, 2.0), plan)
    np.testing.assert_allclose(found.end, state, rtol=0, atol=1e-9 * np.linalg.norm(theta0))
    assert found.gradient is None
