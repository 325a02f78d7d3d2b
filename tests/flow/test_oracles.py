"""Flows against the exponential of the augmented matrix (SciPy, mpmath) and Runge–Kutta."""

import mpmath
import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm, hadamard

from ifcore import data, flow, risk, weights
from ifcore.risk import Risk

N, D = 8, 4


def with_singular_values(rng, exponents):
    """X (8, 4), its entries exact, with singular values √32·2^−k for k in `exponents`, 0 else."""
    signs, places = 1 - 2 * rng.integers(0, 2, (2, N)), rng.permutation(N)
    left, right = signs[0][:, None] * hadamard(N)[:, places], hadamard(D) * signs[1][:D]
    return sum(
        (2.0**-k * np.outer(left[:, i], right[i]) for i, k in enumerate(exponents)),
        np.zeros((N, D)),
    )


def augmented(X, y, w):
    """[−H b; 0 0], whose exponential is [Φ β; 0 1]."""
    out = np.zeros((len(X.T) + 1,) * 2)
    out[:-1, :-1], out[:-1, -1] = -X.T @ (w[:, None] * X), X.T @ (w * y)
    return out


def exact(X, y, W, durations):
    """[Φ β] at 50 digits, rounded, for weights W that hold one after the other."""
    with mpmath.workdps(50):
        A, b = mpmath.matrix(X.tolist()), mpmath.matrix(y.tolist())
        d, out = X.shape[1], mpmath.eye(X.shape[1] + 1)
        for w, t in zip(W, durations):
            Aw, M = A.T * mpmath.diag(np.asarray(w, float).tolist()), mpmath.zeros(d + 1)
            M[:d, :d], M[:d, d] = -(Aw * A), Aw * b
            out = mpmath.expm(M * mpmath.mpf(float(t))) * out
        return np.array(out.tolist(), dtype=float)[:-1]


def apart(found, expected):
    """The largest error of a map, in units of 1 for Φ and of 1 + |β| for β."""
    matrix, offset = expected[:, :-1], expected[:, -1]
    size = 1 + np.abs(offset).max()
    return max(np.abs(found.matrix - matrix).max(), np.abs(found.offset - offset).max() / size)


SPECTRA = [[], [0], [0, 0, 0, 0], [0, 2], [0, 3, 6], [0, 1, 2, 3], [0, 0, 7, 7], [0, 4, 8, 10]]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_propagators_against_expm(spectrum, seed):
    rng = np.random.default_rng(seed)
    X, y = with_singular_values(rng, spectrum), rng.standard_normal(N)
    W, times = rng.uniform(0, 1, (3, N)), np.array([0, 1e-6, 1e-3, 0.1, 1.0])
    W[2, :5] = 0
    maps = flow.constant(X, y, times, W)
    for i, w in enumerate(W):
        for k, t in enumerate(times):
            found = flow.Affine(maps.matrix[i, k], maps.offset[i, k])
            assert apart(found, expm(augmented(X, y, w) * t)[:-1]) <= 1e-12


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_long_propagators_against_mpmath(spectrum, seed):
    """λt from 1e-12 to 1e9: at every rank, and where fast modes are gone before slow ones move."""
    rng = np.random.default_rng(seed)
    X, y = with_singular_values(rng, spectrum), rng.standard_normal(N)
    w = rng.uniform(0.1, 1, N)
    for t in (1e-13, 1.0, 1e4, 1e8):
        expected = exact(X, y, [w], [t])
        assert apart(flow.constant(X, y, t, w), expected) <= 1e-12
    far = flow.constant(X, y, np.inf, w)
    for t in (1e8, 1e12):
        late = flow.constant(X, y, t, w)
        assert apart(late, np.column_stack([far.matrix, far.offset])) <= 1e-12


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_piecewise_constant_weights_against_mpmath(spectrum):
    rng = np.random.default_rng(len(spectrum))
    X, y, j = with_singular_values(rng, spectrum), rng.standard_normal(N), int(rng.integers(N))
    for horizon in (1.0, 1e3, 1e6):
        knots = horizon * np.array([0.1, 0.2, 0.7, 0.7])
        values = np.array([0.3, 0.0, 1.0])
        edges = np.array([0, *knots, horizon])
        W = np.ones((5, N))
        W[:, j] = [1, *values, 0]
        expected = exact(X, y, W, np.diff(edges))
        assert apart(flow.piecewise(X, y, W, np.diff(edges)), expected) <= 1e-12
        found = flow.scheduled(X, y, j, weights.piecewise(knots, values), horizon)
        assert apart(found, expected) <= 1e-12
    for count in (2, 3):
        found = flow.scheduled(X, y, j, weights.piecewise(knots, values), edges[[0, count]])
        middle = flow.Affine(found.matrix[1], found.offset[1])
        assert apart(middle, exact(X, y, W[:count], np.diff(edges[: count + 1]))) <= 1e-12


def varying(s, T):
    """Schedules of every kind that varies, with the knots between which they are smooth."""
    m = (s + T) / 2
    yield weights.linear(s, T)
    yield weights.polynomial(s, T, 2)
    yield weights.polynomial(s, m, 9)
    yield weights.polynomial(s, T, 2.5)
    yield weights.function(lambda t: np.cos(5 * (t - s)) ** 2, s, T)
    yield weights.function(lambda t: np.exp(-3 * (t - s)), s, T)
    yield weights.function(lambda t: np.abs(t - m) / (T - s), s, T, [m])
    yield weights.function(lambda t: np.where(t < m, 0.9, 0.5 * np.sin(t) ** 2), s, T, [m])
    yield weights.Schedule((s, m, m, T), (lambda t: t / T, 1.0, lambda t: 1 - t / T))


def integrated(X, y, j, plan, theta0, times):
    """θ(t) at `times` by a Runge–Kutta method of order 8 at its tightest, piece by piece."""
    theta0 = np.array(theta0)
    rest = np.delete(np.arange(len(y)), j)
    A, b = X[rest].T @ X[rest], X[rest].T @ y[rest]
    edges, out = [0.0, *np.clip(plan.knots, 0, times[-1]), times[-1]], {0.0: theta0}
    for left, right, piece in zip(edges, edges[1:], plan.values):
        if left < right:

            def velocity(t, theta, piece=piece):
                epsilon = piece(np.array([t]))[0] if callable(piece) else piece
                return b - A @ theta - epsilon * X[j] * (X[j] @ theta - y[j])

            at = np.unique([right, *(t for t in times if left < t <= right)])
            run = solve_ivp(velocity, (left, right), theta0, "DOP853", at, rtol=3e-14, atol=1e-15)
            theta0 = run.y[:, -1]
            out.update(zip(at, run.y.T))
    return np.array([out[t] for t in times])


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_varying_weights_against_runge_kutta(rank):
    """The error is at most the tolerance asked for, at times between the knots and at them."""
    rng = np.random.default_rng(rank)
    X = rng.standard_normal((6, rank)) @ rng.standard_normal((rank, 3))
    y, theta0, j, s, T = rng.standard_normal(6), rng.standard_normal(3), 2, 0.3, 2.0
    times = np.array([0, 0.1, 0.3, 0.9, 1.15, 1.7, 2.0, 2.5])
    plans = list(varying(s, T))
    truth = np.array([integrated(X, y, j, plan, theta0, times) for plan in plans])
    size = 1 + np.abs(truth).max()
    for tol in (1e-6, 1e-8, 1e-10, 1e-12):
        found = flow.scheduled(X, y, j, plans, times, tol=tol)(theta0)
        assert np.abs(found - truth).max() <= max(tol, 3e-13) * size
    single = flow.scheduled(X, y, j, plans[0], 1.7)(theta0)
    assert np.abs(single - truth[0, 5]).max() <= 1e-10 * size


@pytest.mark.parametrize("n", [1, 2, 4])
def test_fewer_examples_than_parameters(n):
    """x_j alone too: then all that moves is in its direction."""
    rng = np.random.default_rng(n)
    X, y, theta0 = rng.standard_normal((n, 4)), rng.standard_normal(n), rng.standard_normal(4)
    times = np.array([0.2, 1.0, 1.7, 3.0])
    for plan in varying(0.3, 2.0):
        truth = integrated(X, y, n - 1, plan, theta0, times)
        found = flow.scheduled(X, y, n - 1, plan, times)(theta0)
        np.testing.assert_allclose(found, truth, rtol=0, atol=1e-10 * (1 + np.abs(truth).max()))


@pytest.mark.parametrize("T", [0.0, 0.7])
def test_a_schedule_without_length_is_a_step(T):
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((5, 3)), rng.standard_normal(5)
    plan = weights.function(np.cos, T, T)
    for t in (0.5, 0.7, 2.0):
        on, off = min(t, T), max(t - T, 0)
        expected = expm(augmented(X, y, np.arange(5) != 2) * off) @ expm(
            augmented(X, y, np.ones(5)) * on
        )
        assert apart(flow.scheduled(X, y, 2, plan, t), expected[:-1]) <= 1e-12


@pytest.mark.parametrize("condition, T", [(1.5, 20.0), (10.0, 50.0), (300.0, 50.0)])
def test_stiff_problems_and_long_horizons_against_runge_kutta(condition, T):
    """‖H‖T from 160 to 500."""
    X, y = data.regression(3, 8, 3, condition)
    theta0 = 10 * np.random.default_rng(3).standard_normal(3)
    times = np.array([0.1, 0.5, 1.0]) * T
    for plan in [
        weights.linear(0.1 * T, 0.9 * T),
        weights.function(lambda t: np.sin(40 * t / T) ** 2, 0, T),
    ]:
        truth = integrated(X, y, 1, plan, theta0, times)
        for tol in (1e-6, 1e-10):
            found = flow.scheduled(X, y, 1, plan, times, tol=tol)(theta0)
            assert np.abs(found - truth).max() <= tol * (1 + np.abs(theta0).max())


@pytest.mark.parametrize("horizon", [1e-3, 1.0, 1e2, 2e4])
@pytest.mark.parametrize("degree", [1, 2, 7])
def test_an_eigenvector_has_a_closed_form(degree, horizon):
    """x_j an eigenvector of H with the rate a: its mode is e^{−aT − |x|²∫ε} w at every horizon."""
    V = data.design(0, 3, 3, condition=1) / np.sqrt(3)
    rates, own = np.array([0.0, 1e-4, 2.0]), 1.7  # of A, and |x|²
    for k, a in enumerate(rates):
        X = np.vstack([np.sqrt(rates)[:, None] * V.T, np.sqrt(own) * V[:, k]])
        s, T = 0.25 * horizon, 0.75 * horizon
        found = flow.scheduled(
            X, np.zeros(4), 3, weights.polynomial(s, T, degree), horizon, tol=1e-11
        )
        modes = np.exp(-rates * horizon)
        modes[k] = np.exp(-a * horizon - own * (s + (T - s) / (degree + 1)))
        np.testing.assert_allclose(V.T @ found.matrix @ V, np.diag(modes), rtol=0, atol=1e-11)
        np.testing.assert_array_equal(found.offset, np.zeros(3))


@pytest.mark.parametrize(
    "a, x, y, s, t1",
    [(1.0, 1.0, 2.0, 0.5, 2.0), (0.3, 2.0, -1.0, 0.0, 3.0), (5.0, 0.1, 3.0, 1.0, 1.5)],
)
def test_a_linear_descent_in_one_dimension_against_mpmath(a, x, y, s, t1):
    X, targets = np.array([[np.sqrt(a)], [x]]), np.array([1.5, y])
    found = flow.scheduled(X, targets, 1, weights.linear(s, t1), t1, tol=1e-13)
    with mpmath.workdps(40):
        a = mpmath.mpf(X[0, 0]) ** 2
        x2 = mpmath.mpf(x) ** 2
        b = mpmath.mpf(X[0, 0]) * mpmath.mpf(1.5)

        def left(t):  # ∫ₜ^{t1} (a + εx²)
            return a * (t1 - t) + x2 * (
                (t1 - t) ** 2 / (2 * mpmath.mpf(t1 - s))
                if t > s
                else (t1 - s) / mpmath.mpf(2) + s - t
            )

        def gained(t):
            weight = (t1 - t) / mpmath.mpf(t1 - s) if t > s else 1
            return mpmath.exp(-left(t)) * (b + weight * mpmath.mpf(x) * y)

        slope = mpmath.exp(-left(mpmath.mpf(0)))
        offset = mpmath.quad(gained, [0, s, (s + t1) / 2, t1] if s else [0, t1 / 2, t1])
    assert found.matrix[0, 0] == pytest.approx(float(slope), rel=1e-12)
    assert found.offset[0] == pytest.approx(float(offset), rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_gradient_flow_against_the_exact_flow_of_least_squares(seed):
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 12, 3, 4)
    W, theta0, times = rng.uniform(0, 1, (4, 12)), rng.standard_normal(3), [0, 0.1, 0.1, 1, 3]
    truth = np.array([flow.constant(X, y, times, w)(theta0) for w in W])
    problem = Risk(risk.linear, risk.squared, X, y)
    for tol in (1e-6, 1e-9, 1e-12):
        found = flow.gradient_flow(problem, theta0, times, W, tol=tol)
        assert np.abs(found - truth).max() <= 20 * tol * max(1, np.linalg.norm(theta0))
    stiff = flow.gradient_flow(problem, theta0, times, W, tol=1e-10, method="LSODA")
    assert np.abs(stiff - truth).max() <= 1e-8
    ridge = flow.gradient_flow(Risk(risk.linear, risk.squared, X, y, lam=2.0), theta0, times, W)
    rows = np.vstack([X, np.sqrt(2) * np.eye(3)]), np.append(y, np.zeros(3))
    truth = np.array([flow.constant(*rows, times, np.append(w, np.ones(3)))(theta0) for w in W])
    assert np.abs(ridge - truth).max() <= 1e-9


@pytest.mark.parametrize("method", flow.IMPLICIT)
def test_raw_units_are_stiff_and_followed_all_the_same(method):
    """Concrete as it was recorded: ‖H‖ = 1.7e9."""
    mixtures = data.concrete()
    problem = Risk(risk.linear, risk.squared, mixtures.X, mixtures.y)
    times, theta0 = [1e-8, 1e-6, 1e-4, 1.0], np.random.default_rng(0).standard_normal(8)
    truth = flow.constant(mixtures.X, mixtures.y, times)(theta0)
    found = flow.gradient_flow(problem, theta0, times, method=method, tol=1e-7, evaluations=5000)
    np.testing.assert_allclose(found, truth, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", flow.IMPLICIT)
def test_several_stiff_flows_each_with_its_own_hessian(method):
    X, y = data.regression(0, 30, 3, 100)
    W, theta0 = np.array([np.ones(30), np.arange(30) != 3, 1e-4 * np.ones(30)]), np.ones(3)
    problem = Risk(risk.linear, risk.squared, 30 * X, y, lam=2.0)
    found = flow.gradient_flow(
        problem, theta0, [0.01, 10.0], W, method=method, tol=1e-8, evaluations=4000
    )
    rows = np.vstack([30 * X, np.sqrt(2) * np.eye(3)]), np.append(y, np.zeros(3))
    for w, path in zip(W, found):
        truth = flow.constant(*rows, [0.01, 10.0], np.append(w, np.ones(3)))(theta0)
        np.testing.assert_allclose(path, truth, rtol=0, atol=1e-5)


def network(theta, x):
    return theta[6:9] @ torch.tanh(theta[:6].reshape(3, 2) @ x)


def slopes_of_network(theta, X, y, w):
    """∇R_w of the network with squared loss, by hand."""
    inner, outer = theta[:6].reshape(3, 2), theta[6:9]
    hidden = np.tanh(X @ inner.T)
    error = w * (hidden @ outer - y)
    return np.append((error[:, None] * (1 - hidden**2) * outer).T @ X, error @ hidden)


def slopes_of_logistic(theta, X, y, w):
    return X.T @ (w * (1 / (1 + np.exp(-X @ theta)) - y))


@pytest.mark.parametrize(
    "model, loss, slopes, d",
    [
        (risk.linear, risk.logistic, slopes_of_logistic, 2),
        (network, risk.squared, slopes_of_network, 9),
    ],
)
def test_gradient_flow_against_runge_kutta(model, loss, slopes, d):
    rng = np.random.default_rng(d)
    X, theta0, times = rng.standard_normal((7, 2)), rng.standard_normal(d), np.linspace(0, 3, 4)
    y = (rng.random(7) < 0.5).astype(float)
    W = np.vstack([np.ones(7), 1 - np.eye(7)[3]])
    found = flow.gradient_flow(Risk(model, loss, X, y, d=d), theta0, times, W, tol=1e-11)
    for w, path in zip(W, found):
        run = solve_ivp(
            lambda _, theta: -slopes(theta, X, y, w),
            (0, 3),
            theta0,
            "DOP853",
            times,
            rtol=1e-13,
            atol=1e-14,
        )
        assert np.abs(path - run.y.T).max() <= 1e-9 * (1 + np.abs(run.y).max())


@pytest.mark.parametrize("w", [None, np.array([0.5, 0, 2, 1, 1]), np.zeros(5)])
def test_the_augmented_matrix_is_that_of_the_equation(w):
    rng = np.random.default_rng(0)
    X, y, theta = rng.standard_normal((5, 3)), rng.standard_normal(5), rng.standard_normal(3)
    M, each = flow.augmented(X, y, w), np.ones(5) if w is None else w
    np.testing.assert_array_equal(M[-1], 0)
    velocity = -sum(v * x * (x @ theta - t) for v, x, t in zip(each, X, y))
    np.testing.assert_allclose(M[:-1] @ np.append(theta, 1), velocity, rtol=1e-13)
    with pytest.raises(ValueError, match="weights must have length n = 5; got 4"):
        flow.augmented(X, y, np.ones(4))
