"""Blocks, labels, thresholds and what is told at the edges of what a fit can be."""

import numpy as np
import pandas as pd
import pytest

from ifcore import data, leastsquares
from ifcore.leastsquares import UNIT, RankDeficient, diagnostics, fit, leave_one_out, leverage


def test_fits_come_in_blocks_of_the_numbers_that_are_stated(monkeypatch):
    X, y = data.regression(0, 15, 3)
    W, sizes = np.random.default_rng(0).uniform(0, 1, (7, 15)), []
    triangles = leastsquares._triangles

    def counted(table, rows, W, first):
        sizes.append(len(W))
        return triangles(table, rows, W, first)

    monkeypatch.setattr(leastsquares, "_triangles", counted)
    for block, expected in (
        (120, [2, 2, 2, 1]),
        (179, [2, 2, 2, 1]),
        (180, [3, 3, 1]),
        (1, 7 * [1]),
    ):
        sizes.clear()
        monkeypatch.setattr(leastsquares, "BLOCK", block)
        fit(X, y, W)
        assert sizes == expected
    W[5] = W[5] * (np.arange(15) < 2)
    with pytest.raises(RankDeficient, match="weight vector 5, must .* got rank 2") as told:
        fit(X, y, W)
    assert told.value.row == 5


def test_a_block_has_two_to_the_24_numbers(monkeypatch):
    n, d, sizes = 2**20, 7, []

    def counted(table, rows, W, first):
        sizes.append(len(W))
        return np.broadcast_to(np.eye(d + 1), (len(W), d + 1, d + 1))

    monkeypatch.setattr(leastsquares, "_triangles", counted)
    monkeypatch.setattr(leastsquares, "_sizes", lambda X: np.ones(n))
    monkeypatch.setattr(np.linalg, "solve", lambda R, c: c)
    fit(np.ones((n, d)), np.ones(n), np.ones((3, n)))
    assert sizes == [2, 1]


def test_rows_in_blocks_are_rows(monkeypatch):
    """Also across blocks of rows, of which there are several from 1025 rows on."""
    X, y = data.regression(0, 2500, 3)
    w = np.random.default_rng(0).uniform(0.5, 2, 2500)
    left_out, found = leave_one_out(X, y, w), diagnostics(X, y, w)
    theta = np.linalg.lstsq(np.sqrt(w)[:, None] * X, np.sqrt(w) * y, rcond=None)[0]
    inverse = np.linalg.inv(X.T @ (w[:, None] * X))
    h = w * np.einsum("ij,jk,ik->i", X, inverse, X)
    moved = (w * (y - X @ theta) / (1 - h))[:, None] * (X @ inverse)
    np.testing.assert_allclose(found.theta, theta, rtol=1e-12)
    np.testing.assert_allclose(left_out.theta, theta - moved, rtol=1e-12)
    for ours in (found.leverage, leverage(X, w)):
        np.testing.assert_allclose(ours, h, rtol=1e-11)
    X[2400] = X[1500] = [1e-3, 1e-4, 0]
    np.testing.assert_allclose(
        leastsquares._sizes(X), np.abs(X / np.abs(X).max(0)).max(1), rtol=1e-15
    )
    with pytest.warns(UserWarning, match="exact to rounding"):
        exact = diagnostics(X, X.sum(axis=1))
    assert set(exact.status) == {"exact fit"}


@pytest.mark.parametrize("function", [fit, leave_one_out, diagnostics])
def test_weights_with_other_labels_are_refused(function):
    X, y = data.regression(0, 8, 2)
    frame, names = pd.DataFrame(X, index=list("abcdefgh")), list("abcdefhg")
    w = np.arange(1.0, 9)
    same, plain = function(frame, y, pd.Series(w, frame.index)), function(X, y, w)
    np.testing.assert_array_equal(getattr(same, "theta", same), getattr(plain, "theta", plain))
    with pytest.raises(ValueError, match="the data and weights must have the same labels"):
        function(frame, y, pd.Series(w, names))


def test_a_minimiser_takes_singular_values_below_a_hundred_millionth_for_zero():
    y = np.array([1.0, 1.0])
    for small, counts in ((2e-8, True), (0.5e-8, False)):
        found = {leastsquares.any_minimiser(seed, np.diag([1, small]), y)[1] for seed in range(3)}
        assert (len({round(theta * small, 6) for theta in found}) == 1) == counts or not counts
        assert all((abs(theta * small - 1) < 1e-6) == counts for theta in found)


def test_diagnostics_begin_with_two_examples_more_than_parameters():
    X, y = data.regression(0, 5, 3)
    assert np.isfinite(diagnostics(X, y).external).all()
    with pytest.raises(ValueError, match="got n = 4 and d = 3"):
        diagnostics(X[:4], y[:4])


def test_targets_of_zero_are_fitted_exactly():
    X, _ = data.regression(0, 12, 3)
    with pytest.warns(UserWarning, match="exact to rounding"):
        found = diagnostics(X, np.zeros(12))
    assert set(found.status) == {"exact fit"} and not found.theta.any() and found.s2 == 0


def test_what_overflows_is_refused():
    X, y = data.regression(0, 12, 3)
    with pytest.raises(OverflowError, match="columns too small beside y"):
        diagnostics(X * 1e-310, y)
    with pytest.raises(OverflowError, match="columns too small beside y"):
        diagnostics(X * 1e-100, y, np.full(12, 1e-300))  # θ* is 1e100, an influence 1e400
    # alone the fit without example 0 overflows
    with pytest.raises(OverflowError, match="columns too small beside y"):
        leave_one_out([[1.0], [1e-300], [1e-300]], [1.0, 1e10, 1e10])


def test_where_no_weight_is_left_there_is_no_fit():
    for w in ([1.0, 0.0], [1e-300, 0.0]):
        with pytest.warns(UserWarning, match="j = 0$"):
            found = leave_one_out([[1.0], [2.0]], [3.0, 5.0], w)
        np.testing.assert_array_equal(found.theta, [[np.nan], [3.0]])
        assert list(found.status) == ["leverage 1", "found"]


def test_weights_are_taken_over_a_power_of_two_of_the_largest():
    for top, unit in ((1.0, 1.0), (3.0, 2.0), (1e-300, 2.0**-997), (1.99, 1.0)):
        *_, w, found = leastsquares._problem(np.eye(3), np.ones(3), [0, top / 2, top])
        assert found == unit and 1 <= w.max() < 2
        np.testing.assert_array_equal(w * unit, [0, top / 2, top])


@pytest.mark.parametrize("scale", [1e-250, 1e-3, 1e3, 1e250])
def test_the_bound_of_a_norm_holds_and_is_near(scale):
    rng = np.random.default_rng(0)
    column = np.eye(9)[:1].T * np.ones(9)
    for A in (np.eye(9), column, column.T, rng.standard_normal((9, 9)), -np.ones((9, 9))):
        norm = scale * np.linalg.norm(A, 2)
        bound = leastsquares._norm_bound(scale * A)
        assert norm * (1 - 1e-14) <= bound <= 3 * norm * (1 + 1e-14)


def test_norms_have_no_unit():
    A = np.array([[3.0, -4.0], [-3e200, 4e-200], [-6e-320, 0], [0, 0], [-5e307, -12e307]])
    expected = [5, 3e200, 6e-320, 0, 13e307]
    np.testing.assert_allclose(leastsquares._norms(A), expected, rtol=1e-15)
    np.testing.assert_allclose([leastsquares._norms(row) for row in A], expected, rtol=1e-15)


def test_rows_are_sorted_where_they_differ_by_over_two_to_the_nine():
    order, small = leastsquares._largest_first, 2.0**-9
    np.testing.assert_array_equal(order(np.array([small, 1, 0, 1])), [0, 1, 2, 3])
    np.testing.assert_array_equal(order(np.array([0.99 * small, 1, 0, 1.5])), [3, 1, 0, 2])
    np.testing.assert_array_equal(order(np.array([0, 1e-300, 1])), [2, 1, 0])
    np.testing.assert_array_equal(order(1e-200 * np.array([small, 1])), [0, 1])
    both = order(np.array([[0.0, 0, 0], [1e-9, 2, 1e9]]))
    np.testing.assert_array_equal(both, [[0, 1, 2], [2, 1, 0]])


def test_where_rows_are_unlike():
    order = np.arange(4)
    assert not leastsquares._unlike(order, np.array([1.0, -1, 100, 2]))
    assert leastsquares._unlike(order, np.array([1.0, -1, -1e4, -2]))
    assert leastsquares._unlike(order[[0, 2, 1, 3]], np.ones(4))


def test_a_triangle_is_that_of_the_sorted_rows():
    """To the last bit, where the order decides over what rounding leaves."""
    rng = np.random.default_rng(0)
    table, W = rng.standard_normal((8, 3)), rng.uniform(0.5, 1, (2, 8))
    sizes = leastsquares._sizes(table[:, :2])
    kept = np.linalg.qr(np.sqrt(W)[:, :, None] * table, mode="r")
    np.testing.assert_array_equal(leastsquares._triangles(table, sizes, W), kept)
    table[5, :2] *= 1e6
    sizes = leastsquares._sizes(table[:, :2])
    order = [leastsquares._largest_first(np.sqrt(w) * sizes) for w in W]
    turned = [
        np.linalg.qr(np.sqrt(w[rows])[:, None] * table[rows], mode="r") for w, rows in zip(W, order)
    ]
    np.testing.assert_array_equal(leastsquares._triangles(table, sizes, W), turned)


def test_every_form_of_a_leverage_is_between_0_and_1():
    X = np.array([[1.0, 0], [1, 0], [0, 1e-3], [0, 0]])
    np.testing.assert_allclose(leverage(X), [0.5, 0.5, 1, 0], rtol=1e-15)
    np.testing.assert_allclose(leverage(X, [1, 3, 1, 0]), [0.25, 0.75, 1, 0], rtol=1e-15)
    assert 0 < UNIT < 2e-16
