"""Shapes, invariances, and what is refused."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from ifcore import data, flow, risk, weights
from ifcore.weights import without

seeds = st.integers(0, 2**32 - 1)
runs = settings(max_examples=25, deadline=None, database=None)


def problem(seed, n=7, d=3):
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, n, d)
    return X / 2, y, rng.standard_normal(d), rng


def plans(rng):
    s, t1 = np.sort(rng.uniform(0, 2, 2))
    return [
        weights.step(s),
        weights.linear(s, t1 + 0.1),
        weights.polynomial(s, t1 + 0.1, 3),
        weights.piecewise([s, s + 0.3, t1 + 1], [0.7, 0.2]),
        weights.function(np.cos, 0.0, 1.5),
    ]


@runs
@given(seeds)
def test_one_map_serves_every_start_schedule_and_time(seed):
    X, y, theta0, rng = problem(seed)
    many, times, starts = plans(rng), np.array([0.0, 0.4, 0.4, 2.5]), rng.standard_normal((6, 3))
    everything = flow.scheduled(X, y, 2, many, times)
    assert everything.matrix.shape == (5, 4, 3, 3) and everything.offset.shape == (5, 4, 3)
    assert everything(starts).shape == (6, 5, 4, 3) and everything(theta0).shape == (5, 4, 3)
    alone = flow.scheduled(X, y, 2, many[3], 2.5)
    assert alone.matrix.shape == (3, 3) and alone.offset.shape == (3,)
    np.testing.assert_allclose(everything(starts)[4, 3, 3], alone(starts[4]), rtol=0, atol=1e-9)
    np.testing.assert_allclose(
        everything(theta0)[:, 0], np.tile(theta0, (5, 1)), rtol=0, atol=1e-14 * np.abs(theta0).max()
    )
    np.testing.assert_array_equal(everything.matrix[:, 1], everything.matrix[:, 2])


@runs
@given(seeds)
def test_time_and_data_scale_together(seed):
    """√c X, √c y for the time t is X, y for the time ct."""
    X, y, theta0, rng = problem(seed)
    c = 10 ** rng.uniform(-2, 2)
    slow, fast = flow.constant(X, y, 3.0), flow.constant(np.sqrt(c) * X, np.sqrt(c) * y, 3.0 / c)
    np.testing.assert_allclose(
        fast(theta0), slow(theta0), rtol=0, atol=1e-12 * np.linalg.norm(slow(theta0))
    )
    one = flow.scheduled(X, y, 1, weights.linear(0.5, 2.0), 3.0)(theta0)
    two = flow.scheduled(
        np.sqrt(c) * X, np.sqrt(c) * y, 1, weights.linear(0.5 / c, 2.0 / c), 3.0 / c
    )(theta0)
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-8 * np.linalg.norm(one))


@runs
@given(seeds)
def test_rotations_and_shifts_of_the_parameters(seed):
    X, y, theta0, rng = problem(seed)
    Q, b = np.linalg.qr(rng.standard_normal((3, 3)))[0], rng.standard_normal(3)
    for plan in plans(rng):
        end = flow.scheduled(X, y, 0, plan, 2.2)(theta0)
        turned = flow.scheduled(X @ Q, y, 0, plan, 2.2)(Q.T @ theta0)
        moved = flow.scheduled(X, y + X @ b, 0, plan, 2.2)(theta0 + b)
        np.testing.assert_allclose(turned, Q.T @ end, rtol=0, atol=1e-9)
        np.testing.assert_allclose(moved, end + b, rtol=0, atol=1e-9)


@runs
@given(seeds)
def test_flows_compose_and_agree_where_they_overlap(seed):
    X, y, theta0, rng = problem(seed)
    W, durations = rng.uniform(0, 1, (3, 7)), rng.uniform(0, 1, 3)
    whole = flow.piecewise(X, y, W, durations)(theta0)
    state = theta0
    for w, t in zip(W, durations):
        state = flow.constant(X, y, t, w)(state)
    np.testing.assert_allclose(whole, state, rtol=0, atol=1e-13 * (1 + np.linalg.norm(state)))
    on = flow.scheduled(X, y, 4, weights.step(5.0), 1.3)(theta0)
    np.testing.assert_allclose(
        on, flow.constant(X, y, 1.3)(theta0), rtol=0, atol=1e-13 * (1 + np.linalg.norm(on))
    )
    off = flow.scheduled(X, y, 4, weights.step(0.0), 1.3)(theta0)
    np.testing.assert_allclose(
        off,
        flow.constant(X, y, 1.3, without(7, 4))(theta0),
        rtol=0,
        atol=1e-13 * (1 + np.linalg.norm(off)),
    )
    same = flow.scheduled(
        X, y, 4, weights.function(lambda t: np.full(np.shape(t), 0.3), 0.0, 2.0), 1.3
    )(theta0)
    constant = flow.scheduled(X, y, 4, weights.piecewise([0, 2], [0.3]), 1.3)(theta0)
    np.testing.assert_allclose(same, constant, rtol=0, atol=1e-9)


@runs
@given(seeds)
def test_the_schedule_backwards_gives_the_adjoint(seed):
    """H is symmetric: the factors of Φ come in the other order."""
    X, y, _, rng = problem(seed)
    for plan in plans(rng):
        T = max(2.5, plan.knots[-1])
        forth, back = (flow.scheduled(X, y, 3, p, T).matrix for p in (plan, plan.backwards(T)))
        np.testing.assert_allclose(back, forth.T, rtol=0, atol=1e-9)


@runs
@given(seeds)
def test_the_limit_is_a_least_squares_solution_and_stays_put(seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((4, 2)) @ rng.standard_normal((2, 5))  # rank 2 of 5
    y, theta0 = rng.standard_normal(4), rng.standard_normal(5)
    limit = flow.constant(X, y, np.inf)(theta0)
    assert np.linalg.norm(X.T @ (X @ limit - y)) <= 1e-12 * np.linalg.norm(X) ** 2 * (
        np.linalg.norm(limit) + np.linalg.norm(y)
    )
    again = flow.constant(X, y, np.inf)(limit)
    np.testing.assert_allclose(again, limit, rtol=0, atol=1e-12 * np.linalg.norm(limit))
    unseen = np.linalg.svd(X)[2][2:]
    np.testing.assert_allclose(
        unseen @ limit, unseen @ theta0, rtol=0, atol=1e-12 * np.linalg.norm(theta0)
    )


X, Y = np.array([[1.0, 0], [1, 1], [0, 2]]), np.array([1.0, 2, 0])


def jump(at):
    """A step whose jump is not among its knots."""
    return weights.function(lambda t: np.where(t < at, 1.0, 0.0), 0.0, 2.0)


def scheduled(piece=np.cos, times=1.5, **options):
    return flow.scheduled(X, Y, 0, weights.function(piece, 0.0, 1.5), times, **options)


def followed(times=1.0, **options):
    problem = risk.Risk(risk.linear, risk.squared, X, Y)
    return flow.gradient_flow(problem, np.ones(2), times, **options)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: flow.constant(X, Y, -1.0), ValueError, r"times must be t ≥ 0 .* got -1.0"),
        (lambda: flow.constant(X, Y, [2.0, 1.0]), ValueError, "nondecreasing"),
        (lambda: flow.constant(X, Y, [0.0, 2.0, 1.0]), ValueError, "nondecreasing"),
        (lambda: flow.constant(X, Y, np.nan), ValueError, "times must be finite; got 1 NaN"),
        (lambda: flow.constant(X, Y, "1"), TypeError, "times must be an array of real numbers"),
        (lambda: flow.constant(X, Y, [[1.0], [1.0, 2.0]]), TypeError, "times must be an array"),
        (lambda: flow.constant(X, Y, [[0.0, 1.0]]), ValueError, "times must be t ≥ 0"),
        (lambda: flow.augmented(X, Y, np.ones(2)), ValueError, "length n = 3; got 2"),
        (lambda: flow.augmented(X, [1, 2, "a"]), TypeError, "y must be an array of real numbers"),
        (lambda: flow.piecewise(X, Y, np.ones((1, 3)), ["1"]), TypeError, "durations must be an"),
        (lambda: flow.piecewise(X, Y, np.ones((1, 3)), [[1]]), ValueError, "durations must be a v"),
        (lambda: flow.piecewise(X, Y, np.ones((1, 1, 3)), [1]), ValueError, "weights must be a ma"),
        (lambda: flow.piecewise(X, Y, np.ones((0, 3)), []), ValueError, "got 0 and 0"),
        (lambda: scheduled(times="1"), TypeError, "times must be an array of real numbers"),
        (lambda: scheduled(times=np.nan), ValueError, "times must be finite"),
        (lambda: scheduled(tol=0), ValueError, "tol must be positive; got 0"),
        (lambda: scheduled(tol=np.nan), ValueError, "tol must be finite"),
        (lambda: scheduled(tol=1), ValueError, "tol must be below 1; got 1"),
        (lambda: scheduled(lambda t: t[:2] / 2), ValueError, r"\(16,\) for t \(16,\); got \(2,\)"),
        (lambda: scheduled(lambda t: 0.5), ValueError, r"one weight for each time.*; got \(\)"),
        (lambda: scheduled(lambda t: t[:, None] / 2), ValueError, r"; got \(16, 1\)"),
        (lambda: scheduled(lambda t: 0.5 + t * 1j), TypeError, "real numbers; got complex"),
        (lambda: scheduled(lambda t: t.astype(str)), TypeError, "real numbers; got <U"),
        (lambda: scheduled(lambda t: None), TypeError, "real numbers; got"),
        (lambda: followed(tol=0), ValueError, "tol must be positive; got 0"),
        (lambda: followed(tol=-1), ValueError, "tol must be a number at least 0; got -1"),
        (lambda: followed(tol=np.nan), ValueError, "tol must be finite"),
        (lambda: followed(tol=np.inf), ValueError, "tol must be finite"),
        (lambda: followed(tol=10), ValueError, "tol must be below 1; got 10"),
        (lambda: followed(tol="1"), TypeError, "tol must be an array of real numbers"),
        (lambda: followed(times="1"), TypeError, "times must be an array of real numbers"),
        (lambda: followed(times=np.inf), ValueError, "times must be finite here"),
        (lambda: followed(times=[2, 1]), ValueError, "nondecreasing"),
        (lambda: followed(method="Euler"), ValueError, "one of RK23, .*LSODA; got 'Euler'"),
        (lambda: followed(method=None), ValueError, "method must be one of .* got None"),
        (lambda: followed(evaluations=0), ValueError, "evaluations must be an integer at least 1"),
        (lambda: flow.constant(X, Y, []), ValueError, "times must be"),
        (
            lambda: flow.constant(X, Y, 1.0, np.ones(2)),
            ValueError,
            r"weights must have shape \(3,\) .* got \(2,\)",
        ),
        (
            lambda: flow.constant(X, Y, 1.0, [1, -1, 1]),
            ValueError,
            "weights must be at least 0; got -1",
        ),
        (
            lambda: flow.constant(X, Y[:2], 1.0),
            ValueError,
            "one entry for each of the 3 rows of X; got 2",
        ),
        (
            lambda: flow.constant(X, Y, 1.0)(np.ones(3)),
            ValueError,
            r"theta0 must have shape \(2,\) or \(k, 2\); got \(3,\)",
        ),
        (lambda: flow.scheduled(X, Y, 3, weights.step(1), 1.0), IndexError, "0, …, 2; got 3"),
        (
            lambda: flow.scheduled(X, Y, 0, weights.step(1), np.inf),
            ValueError,
            "times must be finite here",
        ),
        (
            lambda: flow.scheduled(X, Y, 0, weights.function(lambda t: 2 * t, 0, 2), 2.0),
            ValueError,
            r"\[0, 1\]; got 1.0.* at t = 0.5",
        ),
        (
            lambda: flow.scheduled(X, Y, 0, weights.function(lambda t: t * np.nan, 0, 2), 2.0),
            ValueError,
            "got nan at t = ",
        ),
        (
            lambda: flow.scheduled(X, Y, 0, jump(1 / 3), 2.0),
            flow.NotResolved,
            "Put the times where .* among its breaks",
        ),
        (
            lambda: flow.scheduled(1e4 * X, Y, 0, weights.linear(0, 2), 2.0),
            flow.NotResolved,
            "not resolved to tol = 1e-10.* where ‖H‖ = ",
        ),
        (
            lambda: flow.piecewise(X, Y, np.ones((2, 3)), [1.0]),
            ValueError,
            "one duration for each row of weights; got 1 and 2",
        ),
        (lambda: flow.piecewise(X, Y, np.ones((1, 3)), [-1.0]), ValueError, "times must be t ≥ 0"),
        (
            lambda: flow.gradient_flow(risk.Risk(risk.linear, risk.squared, X, Y), np.ones(3), 1.0),
            ValueError,
            "length d = 2; got 3",
        ),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_jump_that_is_announced_is_exact_and_one_that_is_seen_says_how_far_it_came():
    announced = weights.function(lambda t: np.where(t <= 1 / 3, 1.0, 0.0), 0.0, 2.0, breaks=[1 / 3])
    truth = flow.scheduled(X, Y, 0, weights.step(1 / 3), 2.0)
    found = flow.scheduled(X, Y, 0, announced, 2.0)
    np.testing.assert_allclose(found.matrix, truth.matrix, rtol=0, atol=1e-10)
    with pytest.raises(flow.NotResolved) as failure:
        flow.scheduled(X, Y, 0, jump(1 / 3), 2.0)
    assert failure.value.error > 1e-10
    assert failure.value.time == pytest.approx(1 / 3, abs=1e-6)


def test_when_a_weight_varies_does_not_matter_to_how_it_is_resolved():
    """Long after the start θ is at its limit, and the flow from there is that from the time 0."""
    late = 2.0**17
    plans = [
        weights.function(lambda t, s=s: np.cos(t - s), s, s + 1.5, breaks=[s + 0.5])
        for s in (0.0, late)
    ]
    limit = flow.constant(X, Y, np.inf)(np.ones(2))
    early = flow.scheduled(X, Y, 0, plans[0], 2.0)(limit)
    found = flow.scheduled(X, Y, 0, plans[1], late + 2)(np.ones(2))
    assert np.linalg.norm(early - limit) > 0.1
    np.testing.assert_allclose(found, early, rtol=0, atol=1e-12)


def own(loss):
    """A risk of one example with ℓ(θ) = loss(θ), and a list of its evaluations."""
    calls = []

    def counted(theta, x):
        calls.append(theta)
        return theta[0] * x[0]

    problem = risk.Risk(counted, lambda f, y: loss(f), np.ones((1, 1)), np.zeros(1))
    return problem, calls


def test_a_velocity_that_is_not_finite_stops_the_flow_where_it_is():
    problem, _ = own(lambda f: f * torch.log(f))
    for method in ("DOP853", "LSODA"):
        with pytest.raises(flow.NotResolved, match="not finite at t = 0") as failure:
            flow.gradient_flow(problem, [-1.0], 1.0, method=method)
        assert failure.value.time == 0 and failure.value.error == np.inf


@pytest.mark.parametrize("method, tol", [("RK45", 1e-8), ("DOP853", 1e-8), ("LSODA", 1e-4)])
def test_a_flow_that_ends_in_finite_time_says_when(method, tol):
    """θ̇ = θ² from 1 is 1/(1 − t)."""
    problem, _ = own(lambda f: -(f**3) / 3)
    found = flow.gradient_flow(problem, [1.0], [0.5, 0.9], method=method, tol=tol)[:, 0]
    np.testing.assert_allclose(found, [2, 10], rtol=1e3 * tol)
    with pytest.raises(flow.NotResolved, match="integrated to t = .* of 2 only") as failure:
        flow.gradient_flow(problem, [1.0], [0.5, 2.0], method=method, tol=tol)
    assert failure.value.time == pytest.approx(1, abs=1e2 * tol)


@pytest.mark.parametrize("method", flow.EXPLICIT)
def test_an_explicit_method_says_soon_that_a_flow_is_stiff(method):
    problem, calls = own(lambda f: 5e8 * (f - 1) ** 2)
    with pytest.raises(flow.NotResolved, match="stiff.* 'LSODA' suits") as failure:
        flow.gradient_flow(problem, [0.0], 1.0, method=method, tol=1e-6)
    assert 0 < failure.value.time < 1e-3 and len(calls) < 4000


def test_steps_that_grow_are_not_taken_for_stiff():
    """θ̇ = −θ³ from 1 is 1/√(1 + 2t), and steps grow as t does."""
    problem, _ = own(lambda f: f**4 / 4)
    for method in flow.EXPLICIT:
        found = flow.gradient_flow(problem, [1.0], 1e6, method=method, tol=1e-6)
        np.testing.assert_allclose(found, 1 / np.sqrt(1 + 2e6), rtol=1e-2)


def test_the_work_is_bounded_and_the_bound_is_the_callers():
    problem, calls = own(lambda f: 50 * f**2)
    for method, most in (("DOP853", 1000), ("LSODA", 100)):
        calls.clear()
        with pytest.raises(flow.NotResolved, match="`evaluations` allows") as failure:
            flow.gradient_flow(problem, [1.0], 20.0, method=method, evaluations=most)
        assert 0 < failure.value.time < 20 and len(calls) < 1.5 * most
        found = flow.gradient_flow(problem, [1.0], 20.0, method=method, evaluations=10**5)
        assert abs(found) <= 1e-8


def test_an_example_of_weight_0_does_not_count_though_its_slope_is_not_finite():
    X, y = np.array([[1.0], [2.0], [-1.0]]), np.array([1.0, 0.5, 0.0])

    def loss(f, y):
        return (torch.log(f) - y) ** 2

    problem = risk.Risk(risk.linear, loss, X, y)
    alone = risk.Risk(risk.linear, loss, X[:2], y[:2])
    for method in ("DOP853", "BDF"):
        found = flow.gradient_flow(problem, [1.5], [0.5, 2], [1, 1, 0], method=method)
        truth = flow.gradient_flow(alone, [1.5], [0.5, 2], tol=1e-12)
        np.testing.assert_allclose(found, truth, rtol=1e-7)


def test_schedules_go_by_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((6, 2)), rng.standard_normal(6)
    plans = [weights.linear(0.1 * k, 1.0 + k) for k in range(5)]
    whole = flow.scheduled(X, y, 1, plans, [0.5, 2.0])
    monkeypatch.setattr(flow, "BLOCK", 40)
    parts = flow.scheduled(X, y, 1, plans, [0.5, 2.0])
    np.testing.assert_allclose(parts.matrix, whole.matrix, rtol=0, atol=1e-12)
    np.testing.assert_allclose(parts.offset, whole.offset, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["RK45", "DOP853"])
def test_the_tolerance_is_in_units_of_the_start(method):
    """Of at least 1: from a start of 2²⁰ the flow takes the steps of that from 1, and no fewer."""
    problem, calls = own(lambda f: f**2 / 2)
    taken = []
    for size in (1.0, 2.0**20, 2.0**-20):
        calls.clear()
        found = flow.gradient_flow(problem, [size], [0.5, 3.0], method=method, tol=1e-8)[:, 0]
        assert np.abs(found - size * np.exp([-0.5, -3.0])).max() <= 2e-7 * max(size, 1)
        taken.append(len(calls))
    assert taken[0] == taken[1] > taken[2]


def test_a_tolerance_below_rounding_is_taken_for_rounding_without_a_word():
    problem, _ = own(lambda f: f**2 / 2)
    found = flow.gradient_flow(problem, [1.0], [0.5, 1.0], tol=1e-16)[:, 0]
    np.testing.assert_allclose(found, np.exp([-0.5, -1.0]), rtol=1e-13)


def test_states_at_the_start_take_no_step():
    problem, calls = own(lambda f: f**2 / 2)
    found = flow.gradient_flow(problem, [3.0], [0.0, 0.0])
    np.testing.assert_array_equal(found, [[3.0], [3.0]])
    calls.clear()
    assert flow.gradient_flow(problem, [3.0], 0.0).shape == (1,) and len(calls) == 1
    both = flow.gradient_flow(problem, [3.0], [0.0, 1.0])
    np.testing.assert_array_equal(both[0], [3.0])
    assert both[1, 0] == pytest.approx(3 / np.e, rel=1e-9)


def test_how_many_steps_are_left_is_told_by_how_they_grew():
    same = [0.1] * 64
    assert flow._steps_left(same, 5.0) == pytest.approx(50, rel=1e-6)
    assert flow._steps_left(same[1:], 5.0) == 0
    assert flow._steps_left([1.0] * 32 + [0.4] * 32, 5.0) == 0  # they shrink
    assert flow._steps_left([1.0] * 32 + [0.6] * 32, 6.0) == pytest.approx(10, rel=1e-6)
    growing = 1.02 ** np.arange(64)
    left = flow._steps_left(growing, 300.0)
    size = np.mean(growing[32:])
    assert size * (1.02**left - 1) / 0.02 == pytest.approx(300, rel=1e-6)


def test_a_flow_that_is_not_resolved_says_to_what_and_until_when():
    with pytest.raises(flow.NotResolved) as failure:
        flow.scheduled(1e4 * X, Y, 0, weights.linear(0, 2), 2.0)
    assert failure.value.time == 0.0 and failure.value.error > 0
    problem, _ = own(lambda f: f**2 / 2)
    with pytest.raises(flow.NotResolved, match="integrated to t = .* of 9 only: ") as failure:
        flow.gradient_flow(problem, [1.0], [0.5, 9.0], evaluations=40)
    assert failure.value.error == np.inf and 0 < failure.value.time < 9


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (1, 2, 2)])
def test_a_map_takes_one_start_or_a_table_of_them(shape):
    affine = flow.Affine(np.eye(2), np.zeros(2))
    with pytest.raises(ValueError, match=r"theta0 must have shape \(2,\) or \(k, 2\); got"):
        affine(np.zeros(shape))
