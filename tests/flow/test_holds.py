"""Shapes, invariances, and what is refused."""

import re
import tracemalloc
import warnings

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from scipy import integrate

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
        (lambda: followed(method="Euler"), ValueError, "be 'RK23', .* or 'LSODA'; got 'Euler'"),
        (lambda: followed(method=None), ValueError, "method must be .* got None"),
        (lambda: followed(evaluations=0), ValueError, "evaluations must be an integer at least 1"),
        (lambda: flow.constant(X, Y, []), ValueError, "times must be"),
        (lambda: flow.constant(X, Y, [-0.5, 1.0]), ValueError, "times must be"),
        (lambda: scheduled(times=[1.0, np.inf]), ValueError, "times must be finite here"),
        (lambda: flow.scheduled(X, Y, 0, [], 1.0), TypeError, r"must be a Schedule, .*; got \[\]"),
        (lambda: flow.scheduled(X, Y, 0, [weights.step(1), 3], 1.0), TypeError, "or a list of th"),
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
    assert flow._steps_left([1.0] * 32 + [0.5] * 32, 5.0) == pytest.approx(10, rel=1e-6)
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


def test_a_map_takes_a_list_and_refuses_what_is_no_start():
    affine = flow.Affine(np.array([[0.0, 2.0], [1.0, 0.0]]), np.array([1.0, -1.0]))
    np.testing.assert_array_equal(affine([1, 2]), [5.0, 0.0])
    with pytest.raises(ValueError, match="theta0 must be finite"):
        affine([1.0, np.nan])


TABLE = np.array([[1.0, 0.5], [-0.3, 2.0], [1.0, -1.0]])


def quartic():
    """R = Σ (xᵀθ)⁴/4, its evaluations, and the velocity and its derivative by hand."""
    calls = []

    def counted(theta, x):
        calls.append(theta)
        return theta @ x

    problem = risk.Risk(counted, lambda f, y: f**4 / 4, TABLE, np.zeros(3), d=2)
    calls.clear()

    def velocity(t, theta):
        return -TABLE.T @ (TABLE @ theta) ** 3

    def slope(t, theta):
        return -TABLE.T @ (3 * (TABLE @ theta)[:, None] ** 2 * TABLE)

    return problem, calls, velocity, slope


@pytest.mark.parametrize("size", [1.5, 0.4])
@pytest.mark.parametrize("method", ["RK23", "DOP853", "Radau", "BDF", "LSODA"])
def test_the_steps_are_those_of_scipys_integrator(method, size):
    """Its relative tolerance is tol, its absolute one tol max(1, ‖θ₀‖); nothing is evaluated twice.

    An evaluation more is that at θ₀, which has to be finite.
    """
    problem, calls, velocity, slope = quartic()
    start, times, tol = size * np.array([0.8, -0.6]), np.array([0.05, 0.06, 0.3, 1.0]), 1e-3
    peer = integrate.solve_ivp(
        velocity, (0, 1), start, method, times, rtol=tol, atol=tol * max(1, size),
        **({} if method in flow.EXPLICIT else {"jac": slope}),
    )  # fmt: skip
    found = flow.gradient_flow(problem, start, times, method=method, tol=tol)
    np.testing.assert_allclose(found, peer.y.T, rtol=0, atol=1e-14)
    assert len(calls) == 1 + peer.nfev + peer.njev


@pytest.mark.parametrize("method", ["RK23", "Radau"])
def test_evaluations_are_counted_as_documented(method):
    """A Hessian as d; those of the last step are allowed; and the times tell where it came to."""
    problem, _, velocity, slope = quartic()
    start, tol, options = np.array([0.8, -0.6]), 1e-3, {}
    if method == "Radau":
        options["jac"] = slope
    solver = getattr(integrate, method)(velocity, 0, start, 0.5, rtol=tol, atol=tol, **options)
    times, used = [], []
    while solver.status == "running":
        solver.step()
        times.append(solver.t)
        used.append(solver.nfev + 2 * solver.njev)

    def followed(evaluations):
        return flow.gradient_flow(
            problem, start, [0.02, 0.5], method=method, tol=tol, evaluations=evaluations
        )

    last = followed(used[-2] + 1)
    np.testing.assert_allclose(last[1], solver.y, rtol=0, atol=1e-14)
    middle = next(k for k, t in enumerate(times) if t > 0.1)
    assert middle + 1 < len(times) - 1 and used[-2] + 1 < used[-1]
    for evaluations, k in ((used[middle], middle), (used[middle] + 1, middle + 1)):
        with pytest.raises(flow.NotResolved, match=f": {used[k]} evaluations") as failure:
            followed(evaluations)
        assert failure.value.time == pytest.approx(times[k], rel=1e-12)


def test_the_steps_that_are_left_are_told_from_the_last_64(monkeypatch):
    problem, _, velocity, _ = quartic()
    start, told = np.array([0.8, -0.6]), []
    monkeypatch.setattr(flow, "_steps_left", lambda *given: told.append(given) or 0.0)
    flow.gradient_flow(problem, start, 2.0, method="RK23", tol=1e-6)
    solver, ends = integrate.RK23(velocity, 0, start, 2.0, rtol=1e-6, atol=1e-6), [0.0]
    while solver.status == "running":
        solver.step()
        ends.append(solver.t)
    assert len(told) == len(ends) - 2 > 70
    sizes = np.diff(ends)
    for k, (lately, left) in enumerate(told, 1):
        np.testing.assert_allclose(lately, sizes[max(0, k - 64) : k], rtol=1e-9)
        assert left == pytest.approx(2 - ends[k], rel=1e-12)


@pytest.mark.parametrize("options, most", [({}, 2**15), ({"evaluations": 300}, 300)])
def test_a_flow_that_will_need_more_evaluations_than_allowed_is_stopped(monkeypatch, options, most):
    """By default 2¹⁵; one that will need as many is not."""
    problem, calls, _, _ = quartic()
    for more in (0, 3):
        calls.clear()
        room = most + more
        monkeypatch.setattr(flow, "_steps_left", lambda *_, n=room: (n - len(calls) + 1) / 3)
        if more:
            with pytest.raises(flow.NotResolved, match="stiff"):
                flow.gradient_flow(problem, [0.8, -0.6], 0.5, method="RK23", tol=1e-3, **options)
            assert len(calls) < 10
        else:
            flow.gradient_flow(problem, [0.8, -0.6], 0.5, method="RK23", tol=1e-3, **options)


def test_a_flow_that_no_step_leads_into_stops_at_0_whatever_numpy_and_warnings_do():
    problem, _ = own(lambda f: f * torch.where(f == 1.0, 1.0, torch.inf))
    for method in ("LSODA", "BDF"):
        with warnings.catch_warnings(), np.errstate(all="raise"):
            warnings.simplefilter("error")
            with pytest.raises(flow.NotResolved, match="integrated to t = 0 of 2") as failure:
                flow.gradient_flow(problem, [1.0], [0.5, 2.0], method=method)
        assert failure.value.time == 0 and failure.value.error == np.inf


@pytest.mark.parametrize("method", flow.IMPLICIT)
def test_where_the_hessian_is_not_finite_the_flow_goes_on_without(method):
    """ℓ = ⅔f^{3/2} has none at 0, where θ stays; the other goes as ever."""

    def loss(f, y):
        root = torch.where(f > 0, f, 0.0).sqrt()
        return 2 / 3 * root**3 + f * y

    X, y = np.eye(2), np.array([0.0, 1.0])
    problem = risk.Risk(risk.linear, loss, X, y)
    found = flow.gradient_flow(problem, [0.0, -1.0], [0.5, 1.0], method=method, tol=1e-6)
    np.testing.assert_allclose(found, [[0.0, -1.5], [0.0, -2.0]], rtol=0, atol=1e-5)


def test_a_state_that_is_not_finite_stops_the_flow_between_the_times_too():
    problem, _ = own(lambda f: f * torch.where(f > 0.5, 1.0, torch.nan))
    with pytest.raises(flow.NotResolved, match="the state is not finite") as failure:
        flow.gradient_flow(problem, [1.0], 2.0, method="LSODA")
    assert 0.1 < failure.value.time <= 0.5


def test_one_state_of_several_that_is_not_finite_is_one_too_many():
    """θ̇₁ = −1, and θ̇₂ = −1 is NaN somewhere: from the start, from a time on, within a step."""
    X, y = np.eye(2), np.array([0.0, 1.0])

    def followed(where, method, times):
        def loss(f, y):
            return f * torch.where(where(f) & (y == 1), torch.nan, 1.0)

        return flow.gradient_flow(
            risk.Risk(risk.linear, loss, X, y), [5.0, 5.0], times, method=method
        )

    with pytest.raises(flow.NotResolved, match="not finite at t = 0"):
        followed(lambda f: f == 5, "DOP853", 1.0)
    with pytest.raises(flow.NotResolved, match="the state is not finite") as failure:
        followed(lambda f: f < 4.5, "LSODA", 2.0)
    assert failure.value.time <= 0.5
    states = []
    solver = integrate.DOP853(
        lambda t, theta: states.append(theta[0]) or -np.ones(2),
        0, [5.0, 5.0], 2.0, rtol=1e-10, atol=1e-10 * np.sqrt(50),
    )  # fmt: skip
    while solver.status == "running":
        solver.step()
    before = np.array(states)
    solver.dense_output()  # at states of its own
    state = max(states[len(before) :], key=lambda own: np.abs(before - own).min())
    np.testing.assert_allclose(followed(lambda f: f > 6, "DOP853", [2.0]), [[3.0, 3.0]], rtol=1e-12)
    with pytest.raises(flow.NotResolved, match="the state is not finite"):
        followed(lambda f: (f - state).abs() < 1e-4, "DOP853", [2.0])


def test_what_the_integrator_says_is_passed_on(monkeypatch):
    class Failing(integrate.LSODA):
        def step(self):
            warnings.warn("because", stacklevel=1)
            self.status = "failed"
            return "It failed"

    monkeypatch.setattr(integrate, "LSODA", Failing)
    problem, _ = own(lambda f: f**2 / 2)
    for action in ("ignore", "error"):
        with warnings.catch_warnings():
            warnings.simplefilter(action)
            with pytest.raises(flow.NotResolved, match="only: It failed because$"):
                flow.gradient_flow(problem, [1.0], 1.0, method="LSODA")
    assert str(flow.NotResolved("why", 1.0)) == "why"


def test_labels_of_weights_must_agree_with_those_of_the_data():
    rows = list("abc")
    problem = risk.Risk(risk.linear, risk.squared, pd.DataFrame(X, index=rows), Y)
    w = pd.Series([1.0, 0.0, 1.0], index=["b", "a", "c"])
    with pytest.raises(ValueError, match="must have the same labels .* at row 0"):
        flow.gradient_flow(problem, np.ones(2), 1.0, w)
    assert flow.gradient_flow(problem, np.ones(2), 1.0, w.set_axis(rows)).shape == (2,)


@pytest.mark.parametrize("unit", [2.0**-30, 1.0, 2.0**30])
@pytest.mark.parametrize("shape, m", [((100, 2), 1), ((2, 100), 1), ((3, 2), 100)])
def test_a_singular_value_up_to_the_documented_size_counts_as_0(shape, m, unit):
    """max(n, d)·2u·σ_max, of each X by itself: 0 or not, it decides what the limit is."""
    bound = max(shape) * 2.0**-52
    for ratio, seen in ((0.9, False), (1.0, False), (1.1, True)):
        X = np.zeros(shape)
        X[0, 0], X[1, 1] = unit, ratio * bound * unit
        limit = flow.constant(X, X[:, 0] + X[:, 1], np.inf, np.ones((m, shape[0])))
        np.testing.assert_allclose(limit.offset[:, :2], [[1.0, seen]] * m, rtol=1e-12)
        np.testing.assert_allclose(limit.matrix[:, 1, 1], not seen, rtol=1e-12, atol=1e-12)


def test_lists_will_do_and_what_is_not_finite_will_not():
    W, durations = np.array([[1.0, 0.5, 0.2], [0.0, 1.0, 1.0]]), np.array([0.3, 0.4])
    others = {"piecewise": (W, durations), "scheduled": (1, weights.step(0.3), 0.7)}
    for name, rest in others.items():
        call = getattr(flow, name)
        lists = [part.tolist() if isinstance(part, np.ndarray) else part for part in rest]
        found, truth = call(X.tolist(), Y.tolist(), *lists), call(X, Y, *rest)
        np.testing.assert_array_equal(found.matrix, truth.matrix)
        np.testing.assert_array_equal(found.offset, truth.offset)
        with pytest.raises(ValueError, match="X must be finite"):
            call(X * np.nan, Y, *rest)


@pytest.mark.parametrize("plan", [weights.step(0.0), weights.linear(0, 1), weights.step(1.0)])
def test_at_the_time_0_nothing_has_moved(plan):
    for times in (0.0, [0.0, 0.0]):
        found = flow.scheduled(X, Y, 0, plan, times)
        np.testing.assert_allclose(
            found.matrix, np.broadcast_to(np.eye(2), found.matrix.shape), rtol=0, atol=1e-15
        )
        np.testing.assert_array_equal(found.offset, np.zeros(found.offset.shape))


def test_where_no_example_says_anything_nothing_moves():
    found = flow.scheduled(0 * X, Y, 0, [weights.linear(0.5, 2.0)], 1.5)
    np.testing.assert_allclose(found.matrix, [np.eye(2)], rtol=0, atol=1e-14)
    np.testing.assert_array_equal(found.offset, [[0.0, 0.0]])


def noted(f=np.cos):
    """A function of t, and the times that it was asked for, call by call."""
    asked = []

    def function(t):
        asked.append(t)
        return f(t)

    return function, asked


@pytest.mark.parametrize("d", [1, 2, 3])
def test_there_are_as_many_segments_as_documented(d):
    """‖H‖t/8, rounded up, of 16 times each where ε varies smoothly, and none elsewhere."""
    rng = np.random.default_rng(d)
    X, y = rng.standard_normal((6, d)), 100 * rng.standard_normal(6)
    norm = np.linalg.norm(X.T @ X, 2)
    for length, count in ((0.1, 1), (7.99, 1), (8.01, 2), (23.9, 3), (24.1, 4)):
        f, asked = noted(lambda t: np.full(t.shape, 0.5))
        end = 2 + length / norm
        flow.scheduled(X, y, 1, weights.function(f, 2.0, end), end + 5, tol=1e-3)
        assert [len(t) for t in asked] == [16 * count]


def test_segments_are_halved_24_times_about_a_jump():
    f, asked = noted(lambda t: np.where(t < 1 / 3, 1.0, 0.0))
    with pytest.raises(
        flow.NotResolved, match=r"is reached on \[0\.3333333.*, 0\.33333"
    ) as failure:
        flow.scheduled(X, Y, 0, weights.function(f, 0.0, 2.0), 2.0)
    first, *others = [len(t) for t in asked]
    assert others == [32] * 24
    width = 2.0 / (first / 16) / 2**24
    a, b = map(float, re.search(r"\[(.*), (.*)\]", str(failure.value)).groups())
    assert a <= 1 / 3 <= b and b - a == pytest.approx(width, abs=1e-9)
    assert 0 <= 1 / 3 - failure.value.time <= width
    for k, t in enumerate(asked[1:], 1):
        assert np.ptp(t) < 2 * 2.0 / (first / 16) / 2**k


@pytest.mark.parametrize("m", [1, 2])
def test_a_schedule_has_up_to_16384_segments(m):
    """Where these do not suffice, the error is the one reached; where more is needed, none is."""
    f, asked = noted(lambda t: np.full(t.shape, 0.5))
    x, y = np.array([[1e5], [1e5]]), np.ones(2)
    with pytest.raises(flow.NotResolved) as failure:
        flow.scheduled(x, y, 0, [weights.function(f, 0.0, 1.0)] * m, 1.0)
    assert sum(map(len, asked)) == m * 16 * 2**14
    assert 1e-10 < failure.value.error < np.inf and failure.value.time == 0
    if m == 1:
        asked.clear()
        with pytest.raises(flow.NotResolved, match=r"\[0, ") as failure:
            flow.scheduled(x, y, 0, weights.function(f, 0.0, 1.0, [0.5]), 1.0)
        assert not asked and failure.value.error == np.inf and failure.value.time == 0


def test_a_segment_is_halved_where_its_last_coefficients_exceed_tol():
    """Two of θ's image or, in units of 1 + the offset's size for the weights 0 and 1, of β's."""
    x, y = np.array([[0.3], [1.0]]), np.array([-9.0, 0.5])  # the offset falls towards −30
    rng = np.random.default_rng(0)
    cases = [(x, y, 1), (-x, y, 1), (x, 2**-6 * y, 1), (x[::-1], -y[::-1], 0)]
    cases.append((rng.standard_normal((3, 2)) / 2, 3 * rng.standard_normal(3), 2))
    for X, y, j in cases:
        problem = flow._problem(X, y, j)
        f, asked = noted(lambda t: np.exp(-20 * (t - 0.7) ** 2))
        plan = weights.function(f, 0.0, 4.0, [0.8])
        segments = flow._segments([plan], 4.0)
        pieces = segments.take(~segments.held)
        ends = [flow.constant(X, y, 4.0, w).offset for w in (np.ones(len(y)), without(len(y), j))]
        size = 1 + np.abs(ends).max()
        last = np.abs(flow._collocated(problem, [plan], pieces)[:, :, -2:]).sum(axis=2)
        error = max(last[..., :-1].max(), last[..., -1].max() / size)
        for tol, halved in ((error * (1 - 1e-9), True), (error * (1 + 1e-9), False)):
            asked.clear()
            flow.scheduled(X, y, j, plan, 4.0, tol=tol)
            assert (sum(map(len, asked)) > 32) is halved


def test_segments_are_cut_into_equal_parts_that_leave_no_gap():
    pieces = flow._Segments(*map(np.array, ([0, 1, 1], [1, 1, 2], [0.1, 0.3, 0.7], [0.3, 0.7, 1.9],
                                            [np.nan] * 3)))  # fmt: skip
    cut = pieces.cut(np.array([3, 1, 7]))
    ends = [np.append(cut.left[cut.piece + 10 * cut.plan == name], right)
            for name, right in ((1, 0.3), (11, 0.7), (12, 1.9))]  # fmt: skip
    for found, (left, right, count) in zip(ends, ((0.1, 0.3, 3), (0.3, 0.7, 1), (0.7, 1.9, 7))):
        np.testing.assert_allclose(found, np.linspace(left, right, count + 1), rtol=1e-15)
    np.testing.assert_array_equal(cut.right, np.concatenate([own[1:] for own in ends]))
    assert cut.left[0] == 0.1 and cut.left[3] == 0.3 and cut.left[4] == 0.7


def test_each_function_is_asked_once_for_its_own_times():
    (f, first), (g, second) = noted(lambda t: t / 10), noted(lambda t: 1 - t / 10)
    plans = [
        weights.Schedule((0.0, 1.0, 2.0, 3.0), (f, g, g)),
        weights.function(f, 4.0, 6.0),
        weights.function(g, 4.0, 5.0),
    ]
    segments = flow._segments(plans, 7.0)
    segments = segments.take(~segments.held)
    t = segments.left[:, None] + (segments.right - segments.left)[:, None] * flow.NODES
    found = flow._weights_at(plans, segments, t)
    rows = [t[:1] / 10, 1 - t[1:3] / 10, t[3:4] / 10, 1 - t[4:] / 10]
    np.testing.assert_array_equal(found, np.vstack(rows))
    for asked, rows in ((first, [t[:1], t[3:4]]), (second, [t[1:3], t[4:]])):
        assert len(asked) == len(rows)
        for mine, own in zip(asked, rows):
            np.testing.assert_array_equal(mine, own.ravel())


@pytest.mark.parametrize("count, size, parts", [
    (0, 5, [0]), (1, 2**30, [1]), (2**12, 2**9, [2**12]), (2**12, 2**10, [2**11] * 2),
    (2**12 + 1, 2**9, [2**11 + 1, 2**11]), (3, 2**30, [1] * 3), (7, 1, [7]),
])  # fmt: skip
def test_blocks_are_of_16_mebibytes(count, size, parts):
    found = flow._blocks(count, size)
    assert list(map(len, found)) == parts
    np.testing.assert_array_equal(np.concatenate(found), np.arange(count))


@pytest.mark.parametrize("d", [2, 24])
def test_no_block_is_larger(monkeypatch, d):
    """Neither of segments that are resolved, in their own numbers, nor of times that are asked."""
    monkeypatch.setattr(flow, "BLOCK", 2**17)
    sizes, honest = [], flow._collocated

    def measured(problem, plans, segments):
        out = honest(problem, plans, segments)
        sizes.append(max(out.size, len(out) * d * 16 * 16))
        return out

    monkeypatch.setattr(flow, "_collocated", measured)
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((d + 3, d)), rng.standard_normal(d + 3)
    scale = np.sqrt(8 * 600) / np.linalg.norm(X, 2)
    flow.scheduled(scale * X, y, 0, weights.linear(0.0, 1.0), 1.0, tol=0.9)
    assert 2**15 < max(sizes) <= 1.1 * 2**17
    times = np.linspace(0, 1, 2000 if d > 2 else 2)
    X /= 4 * np.linalg.norm(X, 2)
    tracemalloc.start()
    flow.scheduled(X, y, 0, weights.linear(0.0, 1.0), times)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * (4 * len(times) * d**2 + 4 * 2**17) + 2**20
