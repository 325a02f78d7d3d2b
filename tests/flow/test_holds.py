"""Shapes, invariances, and what is refused."""

import hypothesis.strategies as st
import numpy as np
import pytest
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


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: flow.constant(X, Y, -1.0), ValueError, r"times must be t ≥ 0 .* got -1.0"),
        (lambda: flow.constant(X, Y, [2.0, 1.0]), ValueError, "nondecreasing"),
        (lambda: flow.constant(X, Y, np.nan), ValueError, "got nan"),
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
