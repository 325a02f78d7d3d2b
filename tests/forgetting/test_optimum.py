"""Optimal schedules against the direct method, random schedules, known reachable states, mpmath."""

import mpmath
import numpy as np
import pytest
from scipy.linalg import expm

from ifcore import flow, forgetting, weights
from ifcore.forgetting import fastest, rivals, search
from ifcore.forgetting.reduced import Reduced


def family(rng, d):
    """An instance, with T − s from 0.5 to 12 and θ₀ up to ten times the optimum."""
    n = int(rng.integers(d + 1, 21))
    X, y = rng.standard_normal((n, d)), rng.standard_normal(n)
    optimum = np.linalg.lstsq(X, y)[0]
    size = rng.choice([1, 3, 10]) * max(np.linalg.norm(optimum), 1)
    theta0 = size * rng.standard_normal(d) / np.sqrt(d)
    s = float(rng.choice([0, rng.uniform(0, 1)]))
    j = int(rng.integers(n))
    return X, y, j, theta0, s, s + float(np.exp(rng.uniform(np.log(0.5), np.log(12))))


def allowed(instance, value):
    """What an optimum may be above another: 10⁻⁶ of itself, 10⁻¹² of 𝓔 of ε = 0 on [s, T]."""
    free = forgetting.objective(forgetting.Problem(*instance), weights.step(instance[4])).value
    return 1e-6 * value + 1e-12 * free


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_no_schedule_of_the_direct_method_is_better(d, seed):
    instance = family(np.random.default_rng([seed, d]), d)
    found = forgetting.optimal(forgetting.Problem(*instance))
    schedule, value = forgetting.direct(
        forgetting.Problem(*instance), pieces=40, starts=4, seed=seed
    )
    assert found.value <= value + allowed(instance, found.value)
    assert value == pytest.approx(
        forgetting.objective(forgetting.Problem(*instance), schedule).value, rel=1e-6
    )
    assert found.violation <= 1e-6 and len(found.switches) <= d


@pytest.mark.parametrize("d", [1, 2, 3])
def test_what_the_direct_method_minimises_and_its_gradient(d):
    """Against the flow's maps by expm, and differences of them."""
    rng = np.random.default_rng(d)
    p = forgetting.Problem(*family(rng, d))
    pieces, epsilon = 6, rng.uniform(0.1, 0.9, 6)

    def value(epsilon):
        w = np.append(p.w, 1)
        for e in epsilon:
            M = np.zeros((d + 1, d + 1))
            M[:d] = np.column_stack([-p.A - e * np.outer(p.x, p.x), e * p.x * p.c])
            w = expm(M * (p.T - p.s) / pieces) @ w
        return w[:d] @ w[:d] / 2

    found, gradient = rivals._Piecewise(p, pieces)(epsilon, 1.0)
    assert found == pytest.approx(value(epsilon), rel=1e-12)
    near, far = (
        [value(epsilon + h * e) - value(epsilon - h * e) for e in np.eye(pieces)]
        for h in (1e-3, 2e-3)
    )
    slopes = (8 * np.array(near) - far) / 12e-3
    np.testing.assert_allclose(gradient, slopes, rtol=0, atol=1e-9 * np.linalg.norm(slopes))


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_no_random_schedule_is_better(d, seed):
    rng = np.random.default_rng([seed, d, 1])
    instance = family(rng, d)
    X, y, j, theta0, s, T = instance
    found = forgetting.optimal(forgetting.Problem(*instance))
    tried = [weights.step(tau) for tau in np.linspace(s, T, 40)]
    tried += [weights.linear(s, t1) for t1 in np.linspace(s, T, 11)[1:]]
    for pieces in rng.integers(2, 8, 150):
        knots = np.sort(rng.uniform(s, T, pieces + 1))
        values = rng.choice([0, 1, rng.random()], pieces)
        tried.append(weights.piecewise(knots, values))
    values = forgetting.objective(forgetting.Problem(X, y, j, theta0, s, T), tried).value
    assert found.value <= values.min() + allowed(instance, found.value)


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_a_target_that_can_be_reached_is_reached_in_no_more_time(d, seed):
    """The start is found backwards from θ*₋ⱼ, along a bang-bang schedule of known length."""
    rng = np.random.default_rng([seed, d, 2])
    n = int(rng.integers(d + 1, 15))
    X, y, j = rng.standard_normal((n, d)), rng.standard_normal(n), int(rng.integers(n))
    rest = np.delete(X, j, axis=0)
    A, x = rest.T @ rest, X[j]
    target = np.linalg.solve(A, rest.T @ np.delete(y, j))
    length = rng.uniform(0.2, 3) / np.linalg.eigvalsh(A)[-1]
    w, epsilon = np.zeros(d), 1
    for duration in rng.dirichlet(np.ones(rng.integers(1, 2 * d))) * length:
        back = np.zeros((d + 1, d + 1))
        back[:d] = np.column_stack(
            [A + epsilon * np.outer(x, x), -epsilon * x * (y[j] - x @ target)]
        )
        w, epsilon = (expm(back * duration) @ np.append(w, 1))[:d], 1 - epsilon
    T = length * rng.choice([1.01, 1.3, 2])
    found = forgetting.optimal(forgetting.Problem(X, y, j, target + w, 0, T))
    assert found.reached <= length * (1 + 1e-6)
    assert len(found.switches) <= d
    at = flow.scheduled(X, y, j, found.schedule, found.reached)(target + w)
    assert np.linalg.norm(at - target) <= 1e-7 * np.linalg.norm(w)
    assert found.value <= allowed((X, y, j, target + w, 0, T), 0)


def way(rng, d, pieces):
    """A Problem without T whose weights 1, 0, 1, … back from θ*₋ⱼ, of known durations, lead to it.

    Returns X, y, j, θ₀, the durations, last one first, and by how much the least time may move,
    over itself, when θ₀ and θ*₋ⱼ are rounded (for d pieces).
    """
    n = int(rng.integers(d + 1, 15))
    X, y, j = rng.standard_normal((n, d)), rng.standard_normal(n), int(rng.integers(n))
    rest, x = np.delete(X, j, axis=0), X[j]
    A, target = rest.T @ rest, np.linalg.lstsq(rest, np.delete(y, j))[0]
    length = rng.uniform(0.2, 3) / np.linalg.eigvalsh(A)[-1]
    durations = rng.dirichlet(np.ones(pieces)) * length
    states, slopes = np.eye(d + 1)[:, -1], np.zeros((d + 1, 0))
    for i, duration in enumerate(durations):
        pull, epsilon = np.zeros((d + 1, d + 1)), 1 - i % 2
        push = -epsilon * x * (y[j] - x @ target)
        pull[:d] = np.column_stack([A + epsilon * np.outer(x, x), push])
        power = expm(pull * duration)
        states = power @ states
        slopes = np.column_stack([power @ slopes, pull @ states])
    w, size = states[:d], np.linalg.norm(target)
    moved = np.linalg.norm(np.linalg.pinv(slopes[:d], 0).sum(axis=0))
    rounding = 100 * np.finfo(float).eps * (np.linalg.norm(target + w) + size)
    return X, y, j, target + w, durations, moved * rounding / length


@pytest.mark.parametrize("d", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("seed", range(12))
def test_a_way_with_the_theorems_pattern_is_the_fastest(d, seed):
    """d pieces with 1 last: no other weight is as fast, so that its times are to be found again."""
    rng = np.random.default_rng([seed, d, 3])
    unsure = np.inf
    while unsure > 1e-6:
        X, y, j, theta0, durations, unsure = way(rng, d, d)
    T = durations.sum() * rng.choice([1.01, 1.3, 2, 40])
    found = forgetting.optimal(forgetting.Problem(X, y, j, theta0, 0, T))
    assert found.reached == pytest.approx(durations.sum(), rel=unsure + 1e-12)
    assert len(found.switches) == d and found.switches[-1] == found.reached
    assert found.violation <= 1e-6 and found.schedule(found.switches[0] / 2) == d % 2
    shorter = 0.9 * found.reached
    early = forgetting.optimal(forgetting.Problem(X, y, j, theta0, 0, shorter))
    assert early.reached == np.inf


@pytest.mark.parametrize("seed", range(4))
def test_the_direct_method_reaches_the_target_after_the_least_time_only(seed):
    X, y, j, theta0, durations, _ = way(np.random.default_rng([seed, 4]), 2, 2)
    least = forgetting.optimal(forgetting.Problem(X, y, j, theta0, 0, 2 * durations.sum())).reached
    early, late = (forgetting.Problem(X, y, j, theta0, 0, f * least) for f in (0.9, 1.1))
    free = [forgetting.objective(p, weights.step(0)).value for p in (early, late)]
    values = [forgetting.direct(p, pieces=40, starts=4)[1] for p in (early, late)]
    assert values[1] <= 1e-9 * free[1] and values[0] >= 1e-6 * free[0]


@pytest.mark.parametrize("d", [2, 3, 4, 5])
@pytest.mark.parametrize("seed", range(5))
def test_a_way_that_wastes_time_has_no_evidence(d, seed):
    """It meets the target as well, with two switches more than the fastest one needs."""
    rng = np.random.default_rng([seed, d, 5])
    X, y, j, theta0, durations, _ = way(rng, d, d + 2)
    time = durations.sum()
    q = Reduced(forgetting.Problem(X, y, j, theta0, 0, time))
    inner = np.cumsum(durations[::-1])[:-1]
    assert fastest.violation(q, d % 2, inner, time)[0] > 1e-6
    least = forgetting.optimal(forgetting.Problem(X, y, j, theta0, 0, time))
    assert least.reached < time and least.violation <= 1e-6


def propagators(q, epsilon, time):
    """Of (w, 1) and of λ over a time, by expm."""
    values, V, _ = q.parts[0]
    H, M = (V * values) @ V.T + epsilon * np.outer(q.x, q.x), np.zeros((q.k + 1, q.k + 1))
    M[:-1, :-1], M[:-1, -1] = -H, epsilon * q.c * q.x
    return expm(M * time), expm(H * time)


def evidence(q, first, inner, time, steps=300):
    """What is wrong with a way to 0: of ∫|μρ| the share of the wrong sign, and how late it is."""
    spans = np.diff([0.0, *inner, time])
    pieces = [((first + i) % 2, span) for i, span in enumerate(spans)][::-1]
    back, rows = np.eye(q.k), []
    for epsilon, span in pieces + (q.k - len(pieces)) * [(1, time / q.k)]:
        back = propagators(q, epsilon, -span)[1] @ back
        rows.append(q.x @ back / np.linalg.norm(q.x @ back))
    lam = np.linalg.svd(np.reshape(rows[:-1], (-1, q.k)))[2][-1]
    lam = lam if lam @ q.x * q.c < 0 else -lam
    speed, state, total, wrong = abs(lam @ q.x * q.c), np.eye(q.k + 1)[-1], 0.0, 0.0
    for epsilon, span in pieces:
        whole, half = (propagators(q, epsilon, -span / steps / m) for m in (1, 2))
        for _ in range(steps):
            rho, mu = (half[0] @ state)[:-1] @ q.x - q.c, half[1] @ lam @ q.x
            total += abs(rho * mu) * span
            wrong += abs(rho * mu) * span * ((rho * mu > 0) != epsilon)
            state, lam = whole[0] @ state, whole[1] @ lam
    missed = max(0, np.linalg.norm(state[:-1] - q.w) - q.rounding)
    worth = np.linalg.norm(lam) / (speed * time)
    return wrong / total, missed * worth, q.rounding * worth


@pytest.mark.parametrize("d, pieces", [(2, 1), (3, 2), (4, 2), (2, 2), (4, 4), (2, 3), (3, 5)])
@pytest.mark.parametrize("seed", range(2))
def test_the_evidence_is_that_of_the_definition(d, pieces, seed):
    rng = np.random.default_rng([seed, d, pieces, 8])
    X, y, j, theta0, durations, _ = way(rng, d, pieces)
    time = durations.sum()
    q = Reduced(forgetting.Problem(X, y, j, theta0, 0, time))
    inner = np.cumsum(durations[::-1])[:-1]
    for stretch in (1, 0.99):
        wrong, late, rounding = evidence(q, pieces % 2, inner * stretch, time * stretch)
        found, worth = fastest.violation(q, pieces % 2, inner * stretch, time * stretch)
        assert found == pytest.approx(max(wrong, late), rel=1e-3, abs=1e-9)
        assert worth == pytest.approx(rounding, rel=1e-6)
        assert (late > 1e-4) == (stretch < 1) and (wrong > 1e-6) == (pieces > d)


@pytest.mark.parametrize("d", [4, 5, 6])
def test_a_time_is_right_to_its_uncertainty_or_refused(d):
    """At d = 6 rounding of θ₀ may move the least time by more than itself."""
    rng, told = np.random.default_rng([d, 14]), 0
    for _ in range(12):
        X, y, j, theta0, durations, _ = way(rng, d, d)
        time = durations.sum()
        try:
            found = forgetting.optimal(forgetting.Problem(X, y, j, theta0, 0, 2 * time))
        except forgetting.NotOptimal as error:
            assert error.reached.uncertainty > 1e-6 or error.reached.reached == np.inf
            continue
        told += 1
        assert abs(found.reached / time - 1) <= 1e-7 + 2 * found.uncertainty <= 0.03
    assert told >= 4


def test_a_least_time_without_evidence_is_refused(monkeypatch):
    X, y, j, theta0, durations, _ = way(np.random.default_rng(6), 3, 3)
    later = durations[::-1] * [1, 1, 1.001]
    monkeypatch.setattr("ifcore.forgetting.fastest.least_time", lambda q: later)
    with pytest.raises(forgetting.NotOptimal, match="not shown to be the least") as error:
        forgetting.optimal(forgetting.Problem(X, y, j, theta0, 0, 1.0))
    assert error.value.reached.reached == pytest.approx(later.sum())
    assert error.value.reached.violation > 1e-5


@pytest.mark.parametrize("seed", range(40))
def test_a_start_that_is_the_target_but_for_rounding_is_there(seed):
    rng, d = np.random.default_rng([seed, 7]), 1 + seed % 5
    n = int(rng.integers(d + 1, 15))
    X, y, j = rng.standard_normal((n, d)), rng.standard_normal(n), int(rng.integers(n))
    theta0 = np.linalg.lstsq(np.delete(X, j, axis=0), np.delete(y, j))[0]
    found = forgetting.optimal(forgetting.Problem(X, y, j, theta0, 0, 1))
    assert found.reached == found.violation == found.schedule(0.5) == 0 and not found.switches
    if d == 1:  # by s > 0 it has moved, away from the target
        moved = forgetting.optimal(forgetting.Problem(X, y, j, theta0, 0.3, 1.3))
        assert moved.reached == np.inf and moved.value > 0


@pytest.mark.parametrize(
    "start, tau, value", [(4, "log(5) / 2", "0.33833820809153"), (1.5, None, "0.016916910404577")]
)
def test_the_smallest_instance(start, tau, value):
    """X = (1, 1), y = (2, 1), T = 1: 𝓔 of the best switch by mpmath, from the closed form."""
    found = forgetting.optimal(forgetting.Problem([[1], [1]], [2, 1], 0, [start], 0, 1))
    with mpmath.workdps(30):
        at = eval(tau, vars(mpmath)) if tau else mpmath.mpf(0)
        state = mpmath.mpf(3) / 2 + (start - mpmath.mpf(3) / 2) * mpmath.exp(-2 * at)
        exact = (mpmath.exp(-(1 - at)) * (state - 1)) ** 2 / 2
        assert mpmath.almosteq(exact, mpmath.mpf(value), 1e-10)
        assert abs(found.value - exact) <= 1e-15
        switches = (pytest.approx(float(at), abs=1e-9),) if tau else ()
        assert found.switches == switches


@pytest.mark.parametrize("start", [1e3, 1e9, 1e12, 1e30, 1e57])
def test_a_start_however_far_is_led_to_the_label_and_dropped(start):
    """X = (5, 1), y = (5, 0): 𝓔 of ε = 0 may be 10¹¹⁰ times the least and says nothing of it."""
    tau = np.log(26 * start - 25) / 26  # θ = 25/26 + (θ₀ − 25/26) e^(−26 τ) = 1
    T = 2 if start == 1e12 else tau + 0.8
    found = forgetting.optimal(forgetting.Problem([[5], [1]], [5, 0], 0, [start], 0, T))
    assert found.switches == pytest.approx([tau], rel=1e-9) and found.violation <= 1e-6
    assert found.value == pytest.approx(np.exp(-2 * (T - tau)) / 2, rel=1e-9)


@pytest.mark.parametrize("size, rounding", [(1e6, 1e-6), (1e9, 1e-6), (1e12, 1e-3)])
def test_from_far_along_a_fast_direction_no_step_is_better(size, rounding):
    """Two directions; of the start 10⁻¹⁶ is left in the slow one by rounding."""
    X, y = np.array([[5.0, 5], [1, 0], [0, 1.5]]), np.array([5.0, 0, 0])
    start = size * np.linalg.eigh(X.T @ X)[1][:, -1]
    found = forgetting.optimal(forgetting.Problem(X, y, 0, start, 0, 2))
    steps = [weights.step(tau) for tau in np.linspace(0, 2, 2001)]
    values = forgetting.objective(forgetting.Problem(X, y, 0, start, 0, 2), steps).value
    assert found.value <= (1 + rounding) * values.min() and found.violation <= 1e-6


@pytest.mark.parametrize("tau, wrong", [(2.0, 0.07), (1.19, 5e-5)])
def test_a_small_value_that_is_not_the_least_has_a_large_violation(monkeypatch, tau, wrong):
    """Small over 𝓔 of ε = 0, 10²², which is let pass: the least is at 1.18804."""
    monkeypatch.setattr("ifcore.forgetting.search.search", lambda q, length: (np.array([tau]), 1.0))
    found = forgetting.optimal(forgetting.Problem([[5], [1]], [5, 0], 0, [1e12], 0, 2))
    assert found.reached == np.inf and wrong < found.violation <= 1


def test_what_the_weight_does_not_reach():
    """x_j an eigenvector of H₋ⱼ: the direction across is left to itself, and one step is enough."""
    found = forgetting.optimal(
        forgetting.Problem([[2, 0], [1, 0], [0, 1]], [5, 1, 1], 0, [9, 3], 0, 1)
    )
    alone = forgetting.optimal(forgetting.Problem([[2], [1]], [5, 1], 0, [9], 0, 1))
    across = (np.exp(-1) * 2) ** 2 / 2
    assert found.value == pytest.approx(alone.value + across, rel=1e-12)
    assert found.switches == pytest.approx(alone.switches, abs=1e-9)


def test_nothing_to_choose():
    zero = forgetting.optimal(
        forgetting.Problem([[0, 0], [1, 0], [0, 1]], [1, 1, 1], 0, [2, 3], 0, 1)
    )
    only = forgetting.optimal(forgetting.Problem([[1, 2]], [1], 0, [2, 3], 0, 1))
    assert zero.switches == only.switches == () and only.value == 0


def test_a_label_that_the_others_predict_draws_throughout():
    """y_j = x_jᵀθ*₋ⱼ: both pull to the target, which is not reached in finite time."""
    found = forgetting.optimal(forgetting.Problem([[1], [1]], [0, 0], 0, [1e10], 0, 2))
    assert found.reached == np.inf and not found.switches and found.schedule(1) == 1
    assert found.value == pytest.approx(1e20 * np.exp(-8) / 2, rel=1e-12)


def test_a_horizon_after_which_nothing_is_left_is_refused():
    X, y = np.array([[1, 1], [1, 0], [0, 1]]), np.array([5, 1, 1])
    with pytest.raises(flow.NotResolved, match=r"exp\(−800\).*shorter horizon"):
        forgetting.optimal(forgetting.Problem(X, y, 0, [3, 1], 0, 800))


def test_a_search_that_fails_says_so_and_keeps_what_it_found(monkeypatch):
    monkeypatch.setattr(
        "ifcore.forgetting.search.search", lambda q, length: (np.array([0.9 * length]), 1.0)
    )
    with pytest.raises(forgetting.NotOptimal, match="Pontryagin") as error:
        forgetting.optimal(forgetting.Problem([[1], [1]], [2, 1], 0, [4], 0, 1))
    assert error.value.reached.violation > 1e-3
    assert error.value.reached.switches == pytest.approx([0.9])


@pytest.mark.parametrize("turn", range(4))
def test_a_short_piece_has_evidence_in_all_coordinates(turn):
    """One of 4e-6 of T − s, whose middle 𝓔 hardly feels: μ is to be 0 at both its ends."""
    X, y, j, theta0, s, T = family(np.random.default_rng([3, 3]), 3)
    Q = np.linalg.qr(np.random.default_rng(turn).standard_normal((3, 3)))[0]
    found = forgetting.optimal(forgetting.Problem(X @ Q, y, j, Q.T @ theta0, s, T))
    assert len(found.switches) == 2 and found.violation <= 1e-8


@pytest.mark.parametrize("seed", range(20))
def test_a_pattern_that_begins_with_0_stays_one(seed):
    """The knot at s is held: let free, it may grow a switch that the theorem excludes."""
    rng, d = np.random.default_rng(seed), 1 + seed % 3
    A, b, theta0 = rng.standard_normal((d + 2, d)), rng.standard_normal(d + 2), rng.normal(0, 3, d)
    q = Reduced(forgetting.Problem(A, b, 0, theta0, 0.0, rng.uniform(0.2, 3)))
    for start in np.sort(rng.uniform(0, q.length, (5, q.k)), axis=1):
        knots, _ = search._polish(q, np.append(0.0, start), q.length, 0)
        assert knots[0] == 0 and len(search.switches(knots, q.length)[1]) <= q.k


@pytest.mark.parametrize("seed", range(3))
def test_the_gradient_that_the_search_follows_against_differences(seed):
    rng = np.random.default_rng(seed)
    X, y, start = rng.standard_normal((6, 3)), rng.standard_normal(6), rng.standard_normal(3)
    q = Reduced(forgetting.Problem(X, y, 0, start, 0.0, 1.0))
    knots, step = np.sort(rng.uniform(0.1, 0.9, 3)), 1e-3 * np.eye(3)
    value, gradient = q.cost(knots, q.length)
    for i in range(3):
        near, far = (
            q.cost(knots + m * step[i], q.length)[0] - q.cost(knots - m * step[i], q.length)[0]
            for m in (1, 2)
        )
        slope = (8 * near - far) / (12 * step[i, i])
        assert abs(gradient[i] - slope) <= 1e-8 * (value + np.linalg.norm(gradient))
