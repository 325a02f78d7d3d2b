"""Weights without examples, schedules as values, their mirror image, and what is refused."""

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings

from ifcore import weights
from ifcore.weights import without

seeds = st.integers(0, 2**32 - 1)
runs = settings(max_examples=20, deadline=None, database=None)


def test_without():
    np.testing.assert_array_equal(without(4, 2), [1, 1, 0, 1])
    np.testing.assert_array_equal(without(4, [0, 3]), [0, 1, 1, 0])


def test_the_values_of_each_kind():
    t = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 2.5])
    np.testing.assert_array_equal(weights.step(1.0)(t), [1, 1, 1, 0, 0, 0])
    np.testing.assert_allclose(weights.linear(1.0, 2.0)(t), [1, 1, 1, 0.5, 0, 0])
    np.testing.assert_allclose(weights.polynomial(1.0, 2.0, 2)(t), [1, 1, 1, 0.25, 0, 0])
    np.testing.assert_array_equal(
        weights.piecewise([0.5, 1, 2], [0.2, 0.7])(t), [1, 1, 0.2, 0.7, 0.7, 0]
    )
    np.testing.assert_allclose(
        weights.function(lambda t: t / 4, 0.5, 2)(t), [1, 1, 0.25, 0.375, 0.5, 0]
    )
    assert weights.step(1.0).constant and not weights.linear(0, 1).constant
    assert weights.step(1.0)(0.3).shape == ()
    assert weights.linear(0, 1)(np.ones((2, 3))).shape == (2, 3)


def test_pieces_may_have_no_length_and_functions_breaks():
    t = np.array([0.0, 0.5, 1.0, 1.5, 2.0, 2.5])
    twice = weights.piecewise([1, 1, 2], [0.3, 0.7])
    np.testing.assert_array_equal(twice(t), weights.piecewise([1, 2], [0.7])(t))
    broken, whole = (weights.function(np.exp2, -0.0, 2, breaks) for breaks in ([1, 1.2], ()))
    assert broken.knots == (0.0, 1.0, 1.2, 2.0) and len(broken.pieces) == 3
    with pytest.raises(ValueError, match="got 1.41421356 at t = 0.5"):
        whole(0.5)
    np.testing.assert_array_equal(weights.linear(0, 2).backwards(2)(2 - t[:4]), 1 - t[:4] / 2)


def test_a_schedule_is_a_value_of_plain_numbers():
    plan = weights.piecewise(np.array([0, 1, 2]), [np.float32(0.5), True])
    assert plan == weights.Schedule((0.0, 1.0, 2.0), (0.5, 1.0)) and {plan: 1}[plan] == 1
    assert repr(plan) == "Schedule(knots=(0.0, 1.0, 2.0), pieces=(0.5, 1.0))"


@runs
@given(seeds)
def test_backwards_is_the_mirror_image(seed):
    rng = np.random.default_rng(seed)
    knots, T = np.sort(rng.uniform(0, 3, 3)), 3.5
    for plan in (
        weights.piecewise(knots, rng.uniform(0, 1, 2)),
        weights.linear(knots[0], knots[2]),
        weights.step(knots[1]),
    ):
        t = rng.uniform(0, T, 50)
        np.testing.assert_allclose(plan.backwards(T)(T - t), plan(t), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: without(4, 4), IndexError, "remove must lie in 0, …, 3; got 4"),
        (lambda: without(4, -1), IndexError, "remove must lie in 0, …, 3; got -1"),
        (lambda: without(4, [1, 1]), ValueError, "remove must not repeat an index"),
        (lambda: without(4, 1.0), TypeError, "remove must be an index"),
        (lambda: without(4, []), TypeError, "remove must be an index"),
        (lambda: weights.step(-1.0), ValueError, "tau must be a number at least 0; got -1"),
        (lambda: weights.piecewise([1.0, 0.5], [0.3]), ValueError, "nondecreasing .* got"),
        (lambda: weights.piecewise([0.0, 1.0, 0.5], [0.3, 0.2]), ValueError, "nondecreasing"),
        (lambda: weights.Schedule(()), ValueError, r"nondecreasing .* got \(\)"),
        (lambda: weights.piecewise([-0.5, 0.5], [0.3]), ValueError, "times at least 0; got"),
        (
            lambda: weights.piecewise([0.5, 1.0], [0.3, 0.4]),
            ValueError,
            "2 knots need 1 pieces between them",
        ),
        (lambda: weights.piecewise([0.5, 1.0], [1.5]), ValueError, r"\[0, 1\]; got 1.5"),
        (lambda: weights.piecewise([0.5, 1.0], [np.nan]), ValueError, r"\[0, 1\]; got nan"),
        (
            lambda: weights.piecewise([0.5, np.inf], [0.5]),
            ValueError,
            r"finite; .* the first at \(1,\)",
        ),
        (lambda: weights.linear(1.0, 1.0), ValueError, "s < t1 .* got s = 1.0, t1 = 1.0"),
        (lambda: weights.polynomial(0.0, 1.0, 0), ValueError, "degree = 0"),
        (lambda: weights.function(lambda t: 3 * t, 0, 1)(0.5), ValueError, "got 1.5 at t = 0.5"),
        (
            lambda: weights.function(lambda t: t * np.inf, 0, 1)(np.array([0.5])),
            ValueError,
            "got inf at t = 0.5",
        ),
        (
            lambda: weights.step(1.0).backwards(0.5),
            ValueError,
            "horizon T must not lie before the last knot 1; got 0.5",
        ),
        (
            lambda: weights.linear(0.5, 2.0).backwards(1.0),
            ValueError,
            "horizon T must not lie before the last knot 2; got 1",
        ),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_groups_are_rows_without_each():
    found = weights.groups(5, [1, [0, 4], np.array([2, 3])])
    np.testing.assert_array_equal(found, [without(5, 1), without(5, [0, 4]), without(5, [2, 3])])
    pairs = np.array([[0, 1], [2, 3]])
    np.testing.assert_array_equal(weights.groups(5, pairs), weights.groups(5, pairs.tolist()))
    one_each = weights.groups(5, np.array([0, 3]))
    np.testing.assert_array_equal(one_each, [without(5, 0), without(5, 3)])
    frame = pd.DataFrame(pairs, columns=["first", "second"])  # a row is a removal
    np.testing.assert_array_equal(weights.groups(5, frame), weights.groups(5, pairs))
    np.testing.assert_array_equal(weights.groups(5, pd.Series([0, 3], index=[3, 0])), one_each)
    for wrong in (3, [], "abc", {0, 1}, {0: 1}):
        with pytest.raises(TypeError, match="remove must be a list of indices"):
            weights.groups(5, wrong)
    with pytest.raises(IndexError, match="remove must lie in 0, …, 4; got 5"):
        weights.groups(5, [0, [1, 5]])


def test_a_schedule_step_by_step_is_taken_at_the_middle_of_a_step():
    plan, other = weights.step(0.2), weights.piecewise([0.1, 0.4], [0.5])
    alone = weights.stepwise(3, 1, plan, 0.1)
    both = weights.stepwise(3, 1, [plan, other], 0.1)
    for step, epsilon, half in ((0, 1, 1), (1, 1, 0.5), (2, 0, 0.5), (3, 0, 0.5), (4, 0, 0)):
        np.testing.assert_array_equal(alone(step), [1, epsilon, 1])
        np.testing.assert_array_equal(both(step), [[1, epsilon, 1], [1, half, 1]])


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: weights.stepwise(3, 0, 0.5, 0.1), TypeError, "must be a Schedule, or a list"),
        (lambda: weights.stepwise(3, 0, [], 0.1), TypeError, "must be a Schedule, or a list"),
        (lambda: weights.stepwise(3, 0, [weights.step(1), 1], 0.1), TypeError, "be a Schedule, or"),
        (lambda: weights.stepwise(3, [0, 1], weights.step(1), 0.1), TypeError, "j must be one"),
        (lambda: weights.groups(4, np.array(1)), TypeError, "remove must be a list of indices"),
        (lambda: weights.piecewise([0, 1], [np.ones(2)]), ValueError, "a piece must be a number"),
        (lambda: weights.without(2.5, 0), ValueError, "n must be an integer at least 1; got 2.5"),
        (lambda: weights.groups("3", [0]), TypeError, "n must be an integer at least 1; got '3'"),
        (lambda: weights.stepwise(3.5, 0, weights.step(1), 0.1), ValueError, "n must be an int"),
        (lambda: weights.stepwise(3, 0, weights.step(1), np.nan), ValueError, "dt must be finite"),
        (lambda: weights.stepwise(3, 0, weights.step(1), "1"), TypeError, "dt must be an array"),
        (lambda: weights.step(1)(np.nan), ValueError, "t must be finite; got 1 NaN"),
        (lambda: weights.step(1)("1"), TypeError, "t must be an array of real numbers; got <U1"),
        (lambda: weights.step(1)(1j), TypeError, "t must be an array of real numbers; got compl"),
        (lambda: weights.step("1"), TypeError, "tau must be an array of real numbers"),
        (lambda: weights.step(np.nan), ValueError, "tau must be finite"),
        (lambda: weights.step([1, 2]), ValueError, "tau must be a number at least 0"),
        (lambda: weights.linear("0", 1), TypeError, "s must be an array of real numbers"),
        (lambda: weights.linear(0, np.nan), ValueError, "t1 must be finite"),
        (lambda: weights.linear(0, np.inf), ValueError, "t1 must be finite"),
        (lambda: weights.linear(None, 1), TypeError, "s must be an array of real numbers"),
        (lambda: weights.polynomial(0, 1, "2"), TypeError, "degree must be an array of real"),
        (lambda: weights.polynomial(0, 1, np.inf), ValueError, "degree must be finite"),
        (lambda: weights.piecewise(1, [0.5]), ValueError, "knots must be a vector"),
        (lambda: weights.piecewise([0, 1], 0.5), TypeError, "values must be a sequence; got 0.5"),
        (lambda: weights.piecewise([0, 1], ["a"]), TypeError, "real numbers; got <U1"),
        (lambda: weights.piecewise([0, 1], [0.5j]), TypeError, "real numbers; got complex128"),
        (lambda: weights.function(0.5, 0, 1), TypeError, "f must be a function; got 0.5"),
        (
            lambda: weights.function(lambda t: t * 1j, 0, 1)(1),
            TypeError,
            r"ε\(t\) must be an array of real num",
        ),
        (lambda: weights.function(np.cos, 0, 1, 0.5), ValueError, "breaks must be a vector"),
        (lambda: weights.function(np.cos, 0, 1, [2]), ValueError, "nondecreasing"),
        (lambda: weights.function(np.mean, 0, 1)(np.ones(3)), ValueError, r"time.*; got \(\)"),
        (lambda: weights.step(1).backwards("2"), TypeError, "T must be an array of real numbers"),
        (lambda: weights.step(1).backwards(np.nan), ValueError, "T must be finite"),
    ],
)
def test_what_is_no_schedule_index_or_group_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
