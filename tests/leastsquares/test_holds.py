"""Invariances, agreement of the two forms, and what is refused."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from ifcore import data, leastsquares
from ifcore.leastsquares import RankDeficient, fit, leave_one_out

seeds = st.integers(0, 2**32 - 1)
runs = settings(max_examples=200, deadline=None, database=None)


def close(a, b, tol=1e-12):
    return np.linalg.norm(a - b) <= tol * np.linalg.norm(b)


@runs
@given(seeds)
def test_permuting_the_rows_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 20, 4)
    w, order = rng.uniform(0.1, 2, 20), rng.permutation(20)
    assert close(fit(X[order], y[order], w[order]), fit(X, y, w))
    assert close(leave_one_out(X[order], y[order]), leave_one_out(X, y)[order])


@runs
@given(seeds, st.floats(1e-200, 1e200))
def test_scaling_all_weights_changes_nothing(seed, c):
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 20, 4)
    w = rng.uniform(0.1, 2, 20)
    assert close(fit(X, y, c * w), fit(X, y, w))


@runs
@given(seeds)
def test_rotating_the_features_rotates_the_parameters(seed):
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 20, 4)
    V = data.design(rng, 4, 4, condition=1) / 2
    assert close(fit(X @ V, y), V.T @ fit(X, y))
    assert close(leave_one_out(X @ V, y), leave_one_out(X, y) @ V)


@runs
@given(seeds)
def test_an_integer_weight_is_a_repeated_row(seed):
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 20, 4)
    w = rng.integers(0, 4, 20)
    w[:8] += 1
    assert close(fit(X, y, w), fit(np.repeat(X, w, axis=0), np.repeat(y, w)))


def test_many_weight_vectors_are_many_fits(monkeypatch):
    rng = np.random.default_rng(3)
    X, y = data.regression(rng, 15, 3)
    W = rng.uniform(0, 1, (7, 15))
    together = fit(X, y, W)
    assert together.shape == (7, 3)
    np.testing.assert_array_equal(together, [fit(X, y, w) for w in W])
    monkeypatch.setattr(leastsquares, "BLOCK", 2 * 15 * 4)  # two fits a block
    np.testing.assert_array_equal(together, fit(X, y, W))


@runs
@given(seeds, st.sampled_from([1.0, 10.0, 1e3]), st.sampled_from([1e-6, 1.0]))
def test_the_fast_form_and_qr_agree(seed, condition, noise):
    X, y = data.regression(seed, 40, 5, condition, noise)

    def nothing(*_):
        pass

    fast = leastsquares._each_by_cholesky(X, y, nothing, 1e4)
    if fast is not None:
        for one, other in zip(fast, leastsquares._each_by_qr(X, y, nothing)):
            rounding = 1e-15 * np.linalg.norm(y) / np.linalg.norm(other)
            assert close(one, other, 1e-13 * condition**2 + rounding)


def test_the_fast_form_is_taken_where_it_may_be_and_only_there():
    def taken(*problem):
        return leastsquares._each_by_cholesky(*problem, lambda *_: None, 1e4) is not None

    assert taken(*data.regression(0, 1000, 50, 2))
    assert not taken(*data.regression(0, 100, 5, 1e7))


def test_units_of_the_columns_do_not_matter():
    X, y = data.regression(0, 30, 4)
    units = np.array([1e-150, 1e-9, 1.0, 1e120])
    assert close(fit(X * units, y) * units, fit(X, y))
    assert close(leave_one_out(X * units, y) * units, leave_one_out(X, y))


def test_integers_are_converted():
    X, y = np.array([[1, 0], [0, 1], [1, 1]]), np.array([1, 2, 4])
    np.testing.assert_array_equal(fit(X, y), fit(X.astype(float), y.astype(float)))
    np.testing.assert_allclose(leave_one_out(X, y)[2], [1, 2], rtol=1e-14)


def test_inputs_are_left_as_they_came():
    X, y = data.regression(0, 10, 2)
    kept = X.copy(), y.copy()
    fit(X, y, np.ones((3, 10)))
    leave_one_out(X, y)
    np.testing.assert_array_equal(X, kept[0])
    np.testing.assert_array_equal(y, kept[1])


def test_parameters_that_overflow_are_refused():
    X, y = data.regression(0, 10, 2)
    for function in (fit, leave_one_out):
        with pytest.raises(OverflowError, match="columns too small beside y"):
            function(X * 1e-310, y)
    np.testing.assert_allclose(leave_one_out(X, y * 1e160), 1e160 * leave_one_out(X, y), rtol=1e-12)
    np.testing.assert_allclose(
        leave_one_out(X * 1e-160, y), 1e160 * leave_one_out(X, y), rtol=1e-12
    )


X, Y = np.eye(3)[:, :2] + 1, np.arange(3.0)


@pytest.mark.parametrize("function", [fit, leave_one_out])
@pytest.mark.parametrize(
    "X, y, error, words",
    [
        (
            np.ones((3, 2)),
            Y,
            RankDeficient,
            "X must have full column rank d = 2 .* got rank 1 from 3",
        ),
        (np.ones((1, 2)), Y[:1], RankDeficient, "full column rank d = 2 .* got rank 1"),
        (np.zeros((3, 2)), Y, RankDeficient, "got rank 0"),
    ],
)
def test_examples_without_full_rank_are_refused(function, X, y, error, words):
    with pytest.raises(error, match=words):
        function(X, y)


def test_too_few_weighted_rows_are_named():
    with pytest.raises(
        RankDeficient,
        match="X, its rows weighted by weight vector 1, must have .* got rank 1 from 3",
    ):
        fit(X, Y, [[1, 1, 1], [0, 0, 1]])


@pytest.mark.parametrize("noise", [0, 1e-3, 1])
def test_a_point_of_leverage_one_never_passes(noise):
    """Its residual is 0 but for rounding, and so is 1 − h: a quotient of the two means nothing."""
    for seed in range(100):
        X, y = data.regression(seed, 12, 3, 3, noise)
        X = np.column_stack([X, np.arange(12) == 5])
        with pytest.raises(RankDeficient, match="example j = 5 does not exist"):
            leave_one_out(X, y)
        V = data.design(seed, 4, 4, condition=1)
        with pytest.raises(RankDeficient, match="example j = 5 does not exist"):
            leave_one_out(X @ V, y)
        with pytest.raises(RankDeficient, match="got n = 3 and d = 3"):
            leave_one_out(*data.regression(seed, 3, 3, 3, noise))


def test_a_point_of_leverage_one_is_named():
    with pytest.raises(RankDeficient, match="example j = 0 does not exist"):
        leave_one_out([[5], [0]], [5, 1])
    X, y = data.regression(0, 12, 3)
    X = np.column_stack([X, np.zeros(12)])
    X[7, 3] = 1e-3
    with pytest.raises(RankDeficient, match="example j = 7 does not exist: its leverage is 1"):
        leave_one_out(X, y)
    with pytest.raises(RankDeficient, match="got n = 2 and d = 2"):
        leave_one_out(np.eye(2), [1, 2])


@runs
@given(seeds)
def test_leverages_are_those_of_a_projection(seed):
    X, _ = data.regression(seed, 20, 4)
    P = X @ np.linalg.solve(X.T @ X, X.T)
    h = leastsquares.leverage(X)
    np.testing.assert_allclose(h, np.diag(P), rtol=0, atol=1e-13)
    assert (h >= 0).all() and (h <= 1).all() and abs(h.sum() - 4) < 1e-12
    np.testing.assert_allclose(leastsquares.leverage(X * [1e-9, 1, 1e9, 3]), h, rtol=0, atol=1e-12)


def test_a_leverage_of_one_is_neither_exceeded_nor_passed_over():
    """By rounding it may come out a little below 1, or above."""
    for seed in range(100):
        X, y = data.regression(seed, 12, 3, 3)
        X = np.column_stack([X, np.arange(12) == 5]) @ data.design(seed, 4, 4, condition=1)
        h = leastsquares.leverage(X)
        assert 1 - 1e-14 <= h[5] <= 1
        with pytest.raises(RankDeficient, match="example j = 5 has leverage 1"):
            leastsquares.diagnostics(X, y)


def test_diagnostics_refuse_what_has_none():
    X, y = data.regression(0, 12, 3)
    with pytest.raises(RankDeficient, match="example j = 5 has leverage 1"):
        leastsquares.diagnostics(np.column_stack([X, np.arange(12) == 5]), y)
    with pytest.raises(ValueError, match="need n ≥ d . 2 examples; got n = 4 and d = 3"):
        leastsquares.diagnostics(X[:4], y[:4])
    with pytest.raises(RankDeficient, match="got rank 1"):
        leastsquares.diagnostics(np.ones((6, 2)), np.arange(6))
    with pytest.raises(RankDeficient, match="got rank 1"):
        leastsquares.leverage(np.ones((6, 2)))
    with pytest.raises(ValueError, match="X must be finite"):
        leastsquares.leverage([[np.nan]])


def test_a_gross_error_among_exact_targets_stands_out_without_bound():
    """The fit without it is exact: its external residual is infinite but for rounding, not NaN."""
    for seed in range(50):
        X, y = data.regression(seed, 20, 3, noise=0)
        y[3] += 5
        external = leastsquares.diagnostics(X, y).external
        assert external[3] > 1e6 and np.isfinite(np.delete(external, 3)).all()
