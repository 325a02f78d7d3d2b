"""Least squares and its diagnostics against mpmath at 50 digits, statsmodels and refits."""

import mpmath
import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.stats.outliers_influence import OLSInfluence

from ifcore import data, leastsquares
from ifcore.leastsquares import UNIT, fit, leave_one_out


def exact(X, y, w):
    """argmin Σ w_i ½(y_i − x_iᵀθ)² at 50 digits, rounded, from the normal equations."""
    with mpmath.workdps(50):
        A = mpmath.matrix(X.tolist())
        W = mpmath.diag(w.tolist())
        theta = mpmath.lu_solve(A.T * W * A, A.T * W * mpmath.matrix(y.tolist()))
        return np.array([float(t) for t in theta])


def allowed(X, y, theta):
    """Ten times the relative error of a stable solver, u κ (1 + κ ‖e‖ / (‖X‖ ‖θ‖))."""
    size, kappa = np.linalg.norm(X, 2), np.linalg.cond(X)
    residual = np.linalg.norm(y - X @ theta) / (size * np.linalg.norm(theta))
    return 10 * UNIT * kappa * (1 + kappa * residual)


def assert_accurate(X, y, w, found):
    theta = exact(X, y, w)
    root = np.sqrt(w)
    kept = w > 0
    bound = allowed((root[:, None] * X)[kept], (root * y)[kept], theta)
    assert np.linalg.norm(found - theta) <= bound * np.linalg.norm(theta)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("noise", [0, 1e-6, 1e-2, 1])
@pytest.mark.parametrize("condition", [1, 10, 1e3, 1e5, 1e6, 1e8])
def test_leave_one_out_against_50_digits(condition, noise, seed):
    X, y = data.regression(seed, 20, 4, condition, noise)
    for j, found in enumerate(leave_one_out(X, y).theta):
        theta = exact(np.delete(X, j, 0), np.delete(y, j), np.ones(19))
        bound = max(allowed(X, y, fit(X, y)), allowed(np.delete(X, j, 0), np.delete(y, j), theta))
        assert np.linalg.norm(found - theta) <= bound * np.linalg.norm(theta)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("noise", [0, 1e-6, 1])
@pytest.mark.parametrize("far", [1e1, 1e3, 1e6])
def test_leave_one_out_of_an_outlying_point(far, noise, seed):
    """A row far out has a leverage near 1, and 1 − h_j keeps no digits."""
    rng = np.random.default_rng(seed)
    X = data.design(rng, 20, 4, 2)
    X[3] *= far
    y = X @ rng.standard_normal(4) + noise * rng.standard_normal(20)
    for j, found in enumerate(leave_one_out(X, y).theta):
        assert_accurate(X, y, (np.arange(20) != j).astype(float), found)


@pytest.mark.parametrize("seed", range(5))
def test_leave_one_out_of_a_gross_error(seed):
    """Without the point whose y is off, θ*₋ⱼ is small beside θ*."""
    X, y = data.regression(seed, 20, 4, 2, 0.1)
    y[3] += 1e10
    for j, found in enumerate(leave_one_out(X, y).theta):
        assert_accurate(X, y, (np.arange(20) != j).astype(float), found)


@pytest.mark.parametrize("n, d", [(2, 1), (5, 4), (6, 4), (9, 4), (6, 5)])
@pytest.mark.parametrize("noise", [0, 1e-6, 1])
@pytest.mark.parametrize("seed", range(5))
def test_leave_one_out_with_hardly_more_points_than_parameters(seed, noise, n, d):
    X, y = data.regression(seed, n, d, 1 if d == 1 else 3, noise)
    for j, found in enumerate(leave_one_out(X, y).theta):
        assert_accurate(X, y, (np.arange(n) != j).astype(float), found)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("condition", [1, 1e4, 1e8])
def test_fit_against_50_digits(condition, seed):
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 20, 4, condition, 0.1)
    for w in (np.ones(20), rng.uniform(0.1, 3, 20), (np.arange(20) > 5).astype(float)):
        assert_accurate(X, y, w, fit(X, y, w))


@pytest.mark.parametrize("seed", range(5))
def test_against_statsmodels(seed):
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 60, 5)
    w = rng.uniform(0.1, 3, 60)
    np.testing.assert_allclose(fit(X, y, w), sm.WLS(y, X, w).fit().params, rtol=1e-10)
    influence = OLSInfluence(sm.OLS(y, X).fit())
    spread = np.sqrt(influence.sigma2_not_obsi)[:, None] * np.sqrt(np.diag(np.linalg.inv(X.T @ X)))
    np.testing.assert_allclose(
        fit(X, y) - leave_one_out(X, y).theta, influence.dfbetas * spread, rtol=1e-9, atol=1e-12
    )


def test_diabetes_is_refitted_442_times():
    patients = data.diabetes()
    for X in (data.standardise(patients.X), np.column_stack([np.ones(442), patients.X])):
        for j, found in enumerate(leave_one_out(X, patients.y).theta):
            rest = np.delete(X, j, 0), np.delete(patients.y, j)
            theta = np.linalg.lstsq(*rest, rcond=None)[0]
            assert np.linalg.norm(found - theta) <= allowed(*rest, theta) * np.linalg.norm(theta)


@pytest.mark.parametrize("n, d, condition", [(60, 5, 2), (60, 5, 50), (40, 3, 1e4), (500, 8, 3)])
@pytest.mark.parametrize("seed", range(3))
def test_diagnostics_against_statsmodels(seed, n, d, condition):
    X, y = data.regression(seed, n, d, condition)
    found, peer = leastsquares.diagnostics(X, y), OLSInfluence(sm.OLS(y, X).fit())
    tol = 1e-10 if condition < 100 else 1e-7
    for ours, theirs in [
        (found.leverage, peer.hat_matrix_diag),
        (leastsquares.leverage(X), peer.hat_matrix_diag),
        (found.internal, peer.resid_studentized_internal),
        (found.external, peer.resid_studentized_external),
        (found.cooks_distance, peer.cooks_distance[0]),
        (found.left_out_residual, peer.resid_press),
        (found.dffits, peer.dffits[0]),
        (found.dfbetas, peer.dfbetas),
        (found.covratio, peer.cov_ratio),
    ]:
        np.testing.assert_allclose(ours, theirs, rtol=tol, atol=tol * np.abs(theirs).max())
    assert found.leverage.sum() == pytest.approx(d, rel=1e-12)
    assert found.s2 == pytest.approx(peer.results.mse_resid, rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_weighted_diagnostics_against_statsmodels(seed):
    """OLSInfluence of WLS takes x_j for √w_j x_j: its leverage is h_j/√w_j, its residual ê_j. On
    the rows √w_j (x_j, y_j) its convention is ours, but for residuals, which there are √w_j ê_j.
    """
    X, y = data.regression(seed, 60, 5)
    w = np.random.default_rng(seed).uniform(0.1, 3, 60)
    root, fitted = np.sqrt(w), sm.WLS(y, X, w).fit()
    found = leastsquares.diagnostics(X, y, w)
    peer = OLSInfluence(sm.OLS(root * y, root[:, None] * X).fit())
    for ours, theirs in [
        (found.theta, fitted.params),
        (found.residual, fitted.resid),
        (found.s2, fitted.scale),
        (found.leverage / root, OLSInfluence(fitted).hat_matrix_diag),
        (found.leverage, peer.hat_matrix_diag),
        (leastsquares.leverage(X, w), peer.hat_matrix_diag),
        (root * found.left_out_residual, peer.resid_press),
        (found.internal, peer.resid_studentized_internal),
        (found.external, peer.resid_studentized_external),
        (found.cooks_distance, peer.cooks_distance[0]),
        (found.dffits, peer.dffits[0]),
        (found.dfbetas, peer.dfbetas),
        (found.covratio, peer.cov_ratio),
    ]:
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12 * np.abs(theirs).max())


@pytest.mark.parametrize("condition", [2, 1e3])
@pytest.mark.parametrize("seed", range(3))
def test_weighted_leave_one_out_against_refits(seed, condition):
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 30, 4, condition)
    w = rng.uniform(0.1, 3, 30) * (rng.uniform(size=30) > 0.2)
    left_out, found = leave_one_out(X, y, w).theta, leastsquares.diagnostics(X, y, w)
    for j in range(30):
        others = np.where(np.arange(30) == j, 0, w)
        assert_accurate(X, y, others, left_out[j])
        moved = w[j] * found.influence[j] / (1 - found.leverage[j])
        np.testing.assert_allclose(
            moved, found.theta - left_out[j], rtol=0, atol=1e-13 * condition**2
        )


def exact_diagnostics(X, y, w):
    """The definitions at 60 digits, rounded: G⁻¹ by LU, every example by its own sums."""
    n, d = X.shape
    found = {name: [] for name in leastsquares.Diagnostics._fields}
    with mpmath.workdps(60):
        A, b, weights = (mpmath.matrix(v.tolist()) for v in (X, y, w))
        inverse = (A.T * mpmath.diag(w.tolist()) * A) ** -1
        theta = inverse * (A.T * mpmath.matrix([v * t for v, t in zip(weights, b)]))
        e = b - A * theta
        total = sum(v * t**2 for v, t in zip(weights, e))
        free = int((w > 0).sum()) - d
        for j in range(n):
            z = inverse * A[j, :].T
            h = weights[j] * (A[j, :] * z)[0]
            left, root = e[j] / (1 - h), mpmath.sqrt(weights[j])
            variance = (total - weights[j] * e[j] * left) / (free - (w[j] > 0))
            moved = [weights[j] * z[k] * left for k in range(d)]  # θ* − θ*₋ⱼ
            for name, value in {
                "residual": e[j],
                "leverage": h,
                "left_out_residual": left,
                "influence": [z[k] * e[j] for k in range(d)],
                "internal": root * e[j] / mpmath.sqrt(total / free * (1 - h)),
                "external": root * e[j] / mpmath.sqrt(variance * (1 - h)),
                "cooks_distance": weights[j] * left**2 * h / (d * total / free),
                "dffits": root * left * mpmath.sqrt(h / variance),
                "dfbetas": [moved[k] / mpmath.sqrt(variance * inverse[k, k]) for k in range(d)],
                "covratio": (variance * free / total) ** d / (1 - h),
            }.items():
                found[name].append(value)
        found |= {"theta": list(theta), "s2": total / free, "status": None}
        return leastsquares.Diagnostics(
            *(value if value is None else np.array(value, float) for value in found.values())
        )


def far_row(X, y, w):
    X[3] *= 1e6


def far_entry(X, y, w):
    X[3, 1] = 1e6


def two_far_rows(X, y, w):
    X[3] *= 1e6
    X[9] *= 1e4


def gross_error(X, y, w):
    y[3] += 1e10


def wide_weights(X, y, w):
    w *= 10.0 ** np.linspace(-12, 0, 20)[np.argsort(X[:, 0])]


@pytest.mark.parametrize("spoil", [far_row, far_entry, two_far_rows, gross_error, wide_weights])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_diagnostics_keep_the_digits_of_the_data(seed, weighted, spoil):
    """1 − h_j down to 1e-12, ê_j down to 1e-12 beside y_j, s₋ⱼ down to 1e-10 s."""
    rng = np.random.default_rng(seed)
    X, w = data.design(rng, 20, 4, 2), np.ones(20)
    y = rng.standard_normal(20)
    if weighted:
        w = rng.uniform(0.1, 3, 20)
        w[5] = 0
    spoil(X, y, w)
    y += X @ rng.standard_normal(4)
    found, exact = leastsquares.diagnostics(X, y, w), exact_diagnostics(X, y, w)
    for name, ours, true in zip(found._fields, found[:-1], exact):
        np.testing.assert_allclose(
            ours, true, rtol=1e-10, atol=1e-12 * np.abs(true).max(), err_msg=name
        )
    left = exact.left_out_residual
    np.testing.assert_allclose(found.left_out_residual[3], left[3], rtol=1e-12)
    np.testing.assert_allclose(found.residual[3], exact.residual[3], rtol=1e-12)
    np.testing.assert_allclose(found.external[3], exact.external[3], rtol=1e-12)


SIZES = [(1e-160, 1), (1e160, 1), (1, 1e-180), (1, 1e160), (1e160, 1e160), (1e-153, 1), (1e154, 1)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("n, weighted", [(20, False), (20, True), (200, False)])
def test_no_square_under_or_overflows(monkeypatch, n, weighted, sizes):
    """What has no unit does not feel it, and none of 200 is refitted; s² alone leaves the range."""
    if n == 200:
        monkeypatch.delattr(leastsquares, "_without")
    x_size, y_size = sizes
    X, y = data.regression(1, n, 3)
    w = np.random.default_rng(1).uniform(0.1, 3, n) if weighted else None
    one = leastsquares.diagnostics(X, y, w)
    found = leastsquares.diagnostics(X * x_size, y * y_size, w)
    ratio = y_size / x_size
    units = dict.fromkeys(["theta", "influence"], ratio)
    units |= dict.fromkeys(["residual", "left_out_residual"], y_size)
    for name in set(found._fields) - {"s2", "status"}:
        expected = getattr(one, name)
        atol = 1e-13 * np.abs(expected).max()
        ours = getattr(found, name) / units.get(name, 1)
        np.testing.assert_allclose(ours, expected, rtol=1e-11, atol=atol, err_msg=name)
    np.testing.assert_allclose(
        leave_one_out(X * x_size, y * y_size, w).theta / ratio,
        leave_one_out(X, y, w).theta,
        rtol=1e-12,
        atol=1e-13,
    )


def test_diagnostics_against_refits():
    X, y = data.regression(4, 40, 3)
    found, left_out = leastsquares.diagnostics(X, y), leastsquares.leave_one_out(X, y).theta
    moved = X @ (left_out - found.theta).T  # (n, n), column j the predictions' change without j
    np.testing.assert_allclose(found.cooks_distance, (moved**2).sum(0) / (3 * found.s2), rtol=1e-10)
    np.testing.assert_allclose(
        found.left_out_residual, y - np.einsum("ij,ij->i", X, left_out), rtol=1e-10
    )
    for j in range(40):
        rest = np.delete(y, j) - np.delete(X, j, 0) @ left_out[j]
        s = np.sqrt(rest @ rest / 36)
        expected = found.residual[j] / (s * np.sqrt(1 - found.leverage[j]))
        assert found.external[j] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("error", [1e-6, 1.0])
@pytest.mark.parametrize("far", [5, 20, 60, 1e3, 1e4])
@pytest.mark.parametrize("seed", range(5))
def test_diagnostics_of_an_outlying_point(seed, far, error):
    """1 − h_j = 1/(1 + x_jᵀ(XᵀX − x_jx_jᵀ)⁻¹x_j) is small there, and must have kept its digits."""
    X, y = data.regression(seed, 40, 3, 1.2)
    X[7] *= far
    rest = np.delete(X, 7, 0)
    fitted = X[7] @ leastsquares.fit(rest, np.delete(y, 7))
    y[7] = fitted + error
    found = leastsquares.diagnostics(X, y)
    left = 1 / (1 + X[7] @ np.linalg.solve(rest.T @ rest, X[7]))
    for h in (found.leverage[7], leastsquares.leverage(X)[7]):
        assert abs(1 - h - left) <= 2e-15
    assert found.left_out_residual[7] == pytest.approx(y[7] - fitted, rel=0, abs=1e-14 / left)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("condition", [1, 50, 1e3, 1e5, 1e7])
def test_leverages_against_50_digits(condition, seed):
    X, y = data.regression(seed, 20, 3, condition)
    with mpmath.workdps(50):
        A = mpmath.matrix(X.tolist())
        P = A * mpmath.inverse(A.T * A) * A.T
        exact = np.array([float(P[i, i]) for i in range(20)])
    for h in (leastsquares.leverage(X), leastsquares.diagnostics(X, y).leverage):
        assert np.abs(h - exact).max() <= 10 * leastsquares.UNIT * max(condition, 50)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_any_minimiser_solves_the_normal_equations_and_is_none_of_the_others(rank):
    X, y = data.low_rank(0, 6, 3, rank), np.random.default_rng(1).standard_normal(6)
    one, two = (leastsquares.any_minimiser(seed, X, y) for seed in (2, 3))
    for theta in (one, two):
        np.testing.assert_allclose(X.T @ (X @ theta - y), 0, atol=1e-13)
    assert (np.linalg.norm(one - two) > 1e-3) == (rank < 3)
    np.testing.assert_array_equal(one, leastsquares.any_minimiser(np.random.default_rng(2), X, y))


@pytest.mark.parametrize("n, d", [(12, 3), (40, 5)])
def test_a_step_of_refinement_takes_half_of_the_error_away(n, d, monkeypatch):
    """Where a large row has left its rounding in the others; in the mean over 20 problems."""
    problems = [data.regression(seed, n, d, 10, 1.0) for seed in range(20)]
    for X, y in problems:
        X[3] *= 1e3
        y[3] *= 1e3

    def errors():
        for X, y in problems:
            theta, truth = leastsquares.diagnostics(X, y).theta, exact(X, y, np.ones(n))
            yield max(np.linalg.norm(theta - truth) / np.linalg.norm(truth), UNIT / 16)

    refined = np.log(list(errors())).mean()
    monkeypatch.setattr(leastsquares, "_unlike", lambda order, b: False)
    assert refined < np.log(list(errors())).mean() - np.log(2)
