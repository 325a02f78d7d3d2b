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
    assert close(leave_one_out(X[order], y[order]).theta, leave_one_out(X, y).theta[order])


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
    assert close(leave_one_out(X @ V, y).theta, leave_one_out(X, y).theta @ V)


@runs
@given(seeds)
def test_an_integer_weight_is_a_repeated_row(seed):
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 20, 4)
    w = rng.integers(0, 4, 20)
    w[:8] += 1
    assert close(fit(X, y, w), fit(np.repeat(X, w, axis=0), np.repeat(y, w)))


def test_many_weight_vectors_are_many_fits(monkeypatch):
    """In blocks first: memory that no block has filled cannot hold the fits by chance."""
    rng = np.random.default_rng(3)
    X, y = data.regression(rng, 15, 3)
    W = rng.uniform(0, 1, (7, 15))
    with monkeypatch.context() as small:
        small.setattr(leastsquares, "BLOCK", 2 * 15 * 4)  # two fits a block
        in_blocks = fit(X, y, W)
    together = fit(X, y, W)
    assert together.shape == (7, 3)
    np.testing.assert_array_equal(in_blocks, together)
    np.testing.assert_array_equal(in_blocks, [fit(X, y, w) for w in W])


@runs
@given(seeds, st.sampled_from([1.0, 10.0, 1e3]), st.sampled_from([1e-6, 1.0]))
def test_the_fast_form_and_qr_agree(seed, condition, noise):
    X, y = data.regression(seed, 40, 5, condition, noise)

    def nothing(*_):
        pass

    fast = leastsquares._each_by_cholesky(X, y, np.ones(40), nothing, 1e4)
    if fast is not None:
        for one, other in zip(fast, leastsquares._each_by_qr(X, y, np.ones(40), nothing)):
            rounding = 1e-15 * np.linalg.norm(y) / np.linalg.norm(other)
            assert close(one, other, 1e-13 * condition**2 + rounding)


def test_the_fast_form_is_taken_where_it_may_be_and_only_there():
    def taken(X, y):
        fast = leastsquares._each_by_cholesky(X, y, np.ones(len(y)), lambda *_: None, 1e4)
        return fast is not None

    assert taken(*data.regression(0, 1000, 50, 2))
    assert not taken(*data.regression(0, 100, 5, 1e7))


def test_units_of_the_columns_do_not_matter():
    X, y = data.regression(0, 30, 4)
    units = np.array([1e-150, 1e-9, 1.0, 1e120])
    assert close(fit(X * units, y) * units, fit(X, y))
    assert close(leave_one_out(X * units, y).theta * units, leave_one_out(X, y).theta)


def test_integers_are_converted():
    X, y = np.array([[1, 0], [0, 1], [1, 1]]), np.array([1, 2, 4])
    np.testing.assert_array_equal(fit(X, y), fit(X.astype(float), y.astype(float)))
    np.testing.assert_allclose(leave_one_out(X, y).theta[2], [1, 2], rtol=1e-14)


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
    np.testing.assert_allclose(
        leave_one_out(X, y * 1e160).theta, 1e160 * leave_one_out(X, y).theta, rtol=1e-12
    )
    np.testing.assert_allclose(
        leave_one_out(X * 1e-160, y).theta, 1e160 * leave_one_out(X, y).theta, rtol=1e-12
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


@pytest.mark.parametrize("n", [100, 1000])
def test_the_rank_is_that_of_numpy(n):
    """Whose least singular value is one by rounding up to ε·max(n, d) of the largest."""
    X, y = np.zeros((n, 2)), np.arange(n, dtype=float)
    X[:2] = [[1, 1], [0, 0]]
    for share, rank in ((0.75, 1), (1.5, 2)):
        X[1, 1] = 2 * share * n * np.finfo(float).eps
        assert np.linalg.matrix_rank(X) == rank
        if rank == 2:
            assert np.isfinite(fit(X, y)).all()
        else:
            with pytest.raises(RankDeficient, match=f"got rank 1 from {n}"):
                fit(X, y)


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
        V = data.design(seed, 4, 4, condition=1)
        for design in (X, X @ V):
            with pytest.raises(RankDeficient, match="example j = 5 does not exist") as told:
                leave_one_out(design, y, strict=True)
            assert told.value.row == 5
        with pytest.raises(RankDeficient, match="got n = 3 and d = 3"):
            leave_one_out(*data.regression(seed, 3, 3, 3, noise))


def alone(seed):
    """Forty examples, two of which have a feature each that no other has."""
    X, y = data.regression(seed, 40, 3)
    return np.column_stack([X, np.arange(40) == 5, np.arange(40) == 9]), y


def test_what_has_leverage_one_does_not_take_the_others_away():
    for seed in range(5):
        X, y = alone(seed)
        others = np.delete(np.arange(40), [5, 9])
        with pytest.warns(UserWarning, match="its row NaN: j = 5, 9$"):
            found = leave_one_out(X, y)
        with pytest.warns(UserWarning, match="its row NaN: j = 5, 9$"):
            told = leastsquares.diagnostics(X, y)
        for status in (found.status, told.status):
            assert set(status[others]) == {"found"} and set(status[[5, 9]]) == {"leverage 1"}
        assert np.isnan(found.theta[[5, 9]]).all()
        refits = fit(X, y, (1 - np.eye(40))[others])
        assert close(found.theta[others], refits)
        seen = told._asdict()
        for name in ("theta", "residual", "leverage", "influence", "s2"):
            assert np.isfinite(seen.pop(name)).all()
        assert told.leverage[5] == 1 and told.residual[5] == 0 and not told.influence[5].any()
        del seen["status"]
        # without the two features that are theirs alone, the others are what they are
        rest = leastsquares.diagnostics(X[others, :3], y[others])
        for name, value in seen.items():
            assert np.isnan(value[[5, 9]]).all() and np.isfinite(value[others][..., :3]).all()
            if name not in ("cooks_distance", "dfbetas", "covratio"):
                assert close(value[others], getattr(rest, name), 1e-11)
        assert close(told.dfbetas[others, :3], rest.dfbetas, 1e-11)
        for function in (leave_one_out, leastsquares.diagnostics):
            with pytest.raises(RankDeficient, match="example j = 5 does not exist"):
                function(X, y, strict=True)


def test_weights_may_leave_as_many_as_parameters():
    X, y = data.regression(0, 6, 3)
    with pytest.warns(UserWarning, match="j = 0, 2, 4"):
        found = leave_one_out(X, y, [1, 0, 2, 0, 1, 0])
    assert close(found.theta[[1, 3, 5]], np.tile(fit(X[::2], y[::2]), (3, 1)))
    with pytest.raises(RankDeficient, match="got rank 2"):
        leave_one_out(X, y, [1, 0, 2, 0, 0, 0])
    with pytest.raises(ValueError, match=r"must be one vector \(6,\); got shape \(2, 6\)"):
        leave_one_out(X, y, np.ones((2, 6)))
    with pytest.raises(ValueError, match="n ≥ d . 2 .* positive weight; got n = 4 and d = 3"):
        leastsquares.diagnostics(X, y, [1, 0, 2, 0, 1, 1])


def test_a_point_of_leverage_one_is_named():
    with pytest.warns(UserWarning, match="j = 0$") as told:
        found = leave_one_out([[5], [0]], [5, 1])
    assert told[0].filename == __file__
    np.testing.assert_array_equal(found.theta, [[np.nan], [1]])
    X, y = data.regression(0, 12, 3)
    X = np.column_stack([X, np.zeros(12)])
    X[7, 3] = 1e-3
    with pytest.raises(RankDeficient, match="example j = 7 does not exist: its leverage is 1"):
        leave_one_out(X, y, strict=True)
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
        with pytest.raises(RankDeficient, match="example j = 5 does not exist"):
            leastsquares.diagnostics(X, y, strict=True)


def test_diagnostics_refuse_what_has_none():
    X, y = data.regression(0, 12, 3)
    with pytest.raises(
        ValueError, match="need n ≥ d . 2 examples of positive weight; got n = 4 and d = 3"
    ):
        leastsquares.diagnostics(X[:4], y[:4])
    with pytest.raises(RankDeficient, match="got rank 1"):
        leastsquares.diagnostics(np.ones((6, 2)), np.arange(6))
    with pytest.raises(RankDeficient, match="got rank 1"):
        leastsquares.leverage(np.ones((6, 2)))
    with pytest.raises(ValueError, match="X must be finite"):
        leastsquares.leverage([[np.nan]])


def test_a_gross_error_among_exact_targets_stands_out_without_bound():
    """The fit without it is exact, so that its external residual is infinite, not rounding."""
    for seed in range(50):
        X, y = data.regression(seed, 20, 3, noise=0)
        y[3] += 5
        found = leastsquares.diagnostics(X, y)
        assert found.external[3] == np.inf and found.dffits[3] == np.inf and found.covratio[3] == 0
        assert np.isfinite(np.delete(found.external, 3)).all()


@pytest.mark.parametrize("scale", [1e-160, 1, 1e160])
@pytest.mark.parametrize("far", [1, 1e6])
def test_the_rounding_of_an_exact_fit_is_not_studentised(far, scale):
    for seed in range(30):
        X, y = data.regression(seed, 20, 3, noise=0)
        X[4] *= far
        y = scale * (X @ leastsquares.fit(np.delete(X, 4, 0), np.delete(y, 4)))
        for weights in (None, np.random.default_rng(seed).uniform(0.1, 3, 20)):
            with pytest.warns(UserWarning, match="exact to rounding"):
                found = leastsquares.diagnostics(X, y, weights)
            assert set(found.status) == {"exact fit"}
            for name in "internal external cooks_distance dffits dfbetas covratio".split():
                assert np.isnan(getattr(found, name)).all()
        noise = 1e-12 * np.random.default_rng(seed).standard_normal(20)
        found = leastsquares.diagnostics(X, y + scale * noise)
        assert set(found.status) == {"found"} and np.isfinite(found.dfbetas).all()


def test_an_exact_fit_may_have_a_point_of_leverage_one():
    X, _ = alone(0)
    with pytest.warns(UserWarning) as told:
        found = leastsquares.diagnostics(X, X.sum(axis=1))
    assert [str(w.message).split()[0] for w in told] == ["the", "without"]
    assert {w.filename for w in told} == {__file__}
    assert list(found.status[4:10]) == ["exact fit", "leverage 1", *3 * ["exact fit"], "leverage 1"]


def test_a_line_through_the_origin_is_exact():
    x = np.arange(1.0, 11)
    with pytest.warns(UserWarning, match="exact to rounding"):
        found = leastsquares.diagnostics(np.column_stack([np.ones(10), x]), 2 * x)
    assert np.isnan(found.internal).all() and found.theta[1] == pytest.approx(2, rel=1e-14)


def test_a_small_column_is_no_missing_one():
    X, y = data.regression(0, 30, 3)
    small = X * [1, 1e-9, 1]
    assert close(fit(small, y) * [1, 1e-9, 1], fit(X, y))
    assert close(leave_one_out(small, y).theta * [1, 1e-9, 1], leave_one_out(X, y).theta)
    assert close(leastsquares.leverage(small), leastsquares.leverage(X))
    assert close(leastsquares.diagnostics(small, y).dfbetas, leastsquares.diagnostics(X, y).dfbetas)


@runs
@given(seeds)
def test_weights_are_repeated_rows(seed):
    """A repeated row shares its leverage; left out one by one, it is weight that is lowered."""
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 20, 4)
    w = rng.integers(0, 4, 20)
    w[:8] += 1
    rows = np.repeat(np.arange(20), w)
    once, many = leastsquares.diagnostics(X, y, w), leastsquares.diagnostics(X[rows], y[rows])
    assert close(once.leverage, np.bincount(rows, many.leverage, 20), 1e-13)
    assert close(once.influence[rows], many.influence)
    assert close(once.residual[rows], many.residual)


@runs
@given(seeds, st.integers(-300, 300))
def test_the_scale_of_the_weights_is_that_of_the_variance(seed, power):
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 20, 4)
    w, c = rng.uniform(0.1, 2, 20), 2.0**power
    one, other = leastsquares.diagnostics(X, y, w), leastsquares.diagnostics(X, y, c * w)
    for name, a, b in zip(one._fields, one, other):
        np.testing.assert_array_equal(
            b, a * {"s2": c, "influence": 1 / c}.get(name, 1) if name != "status" else a
        )


def test_a_fit_without_an_example_does_not_depend_on_how_much_it_weighed():
    """Down to small targets, one of which is large beside the others."""
    X, y = data.regression(0, 20, 3)
    X[4], y[7] = [0, 0, 1], 1e5
    y, w = 1e-20 * y, np.random.default_rng(0).uniform(0.5, 1, 20)
    rest = fit(np.delete(X, 4, 0), np.delete(y, 4), np.delete(w, 4))
    found = []
    for power in (20, 500, 1000):
        w[4] = 2.0**power
        found.append(leave_one_out(X, y, w).theta[4])
    assert close(found[0], rest)
    np.testing.assert_array_equal(found[1:], found[:1] * 2)


def test_a_weight_of_zero_takes_an_example_out():
    """Whatever it is: its leverage is 0, and its left-out fit is the fit."""
    X, y = data.regression(0, 20, 3)
    w = np.ones(20)
    w[3] = 0
    kept = np.arange(20) != 3
    rest = leastsquares.diagnostics(X[kept], y[kept])
    for far in (1, 1e6, 1e200):
        X[3] *= far
        found, left_out = leastsquares.diagnostics(X, y, w), leave_one_out(X, y, w)
        assert (left_out.status == "found").all() and close(left_out.theta[3], rest.theta)
        assert found.leverage[3] == 0 == leastsquares.leverage(X, w)[3]
        assert found.left_out_residual[3] == found.residual[3]
        assert found.residual[3] == pytest.approx(y[3] - X[3] @ rest.theta, rel=1e-12)
        assert found.internal[3] == found.dffits[3] == 0 and not found.dfbetas[3].any()
        assert found.covratio[3] == 1
        for name in set(found._fields) - {"theta", "s2", "status"}:
            assert close(getattr(found, name)[kept], getattr(rest, name), 1e-12)
        assert found.s2 == pytest.approx(rest.s2, rel=1e-12)


def test_rows_are_sized_by_the_largest_entry_in_the_units_of_the_columns():
    sizes = leastsquares._sizes(np.array([[1.0, -4.0], [2.0, 1.0], [-0.5, 0.0]]))
    np.testing.assert_array_equal(sizes, [1.0, 1.0, 0.25])


def test_what_is_told_of_a_fit_is_told_where_it_is_asked_for():
    X = np.vstack([np.eye(2)[[0] * 5], [[0, 1]]])
    y = np.array([1.0, 2, 4, 3, 0, 5])
    for call, words in (
        (lambda: leave_one_out(X, y), "its row NaN: j = 5"),
        (lambda: leastsquares.diagnostics(X, y), "its row NaN: j = 5"),
        (lambda: leastsquares.diagnostics(X, X @ [1.0, 2.0]), "the fit is exact to rounding"),
    ):
        with pytest.warns(UserWarning) as told:
            call()
        assert {warning.filename for warning in told} == {__file__}
        assert words in " ".join(str(warning.message) for warning in told)


def test_leave_one_out_where_every_example_is_needed_is_refused():
    X = np.array([[1.0, 0], [1, 1]])
    for function in (leave_one_out, lambda X, y: leave_one_out(X, y, [1.0, 2.0])):
        with pytest.raises(RankDeficient, match=r"n − 1 ≥ d; got n = 2 and d = 2") as error:
            function(X, np.ones(2))
        assert error.value.row == 0
    with pytest.raises(ValueError, match=r"one vector \(2,\); got shape \(2, 2\)"):
        leave_one_out(X, np.ones(2), np.ones((2, 2)))
