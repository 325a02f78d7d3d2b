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
    for j, found in enumerate(leave_one_out(X, y)):
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
    for j, found in enumerate(leave_one_out(X, y)):
        assert_accurate(X, y, (np.arange(20) != j).astype(float), found)


@pytest.mark.parametrize("seed", range(5))
def test_leave_one_out_of_a_gross_error(seed):
    """Without the point whose y is off, θ*₋ⱼ is small beside θ*."""
    X, y = data.regression(seed, 20, 4, 2, 0.1)
    y[3] += 1e10
    for j, found in enumerate(leave_one_out(X, y)):
        assert_accurate(X, y, (np.arange(20) != j).astype(float), found)


@pytest.mark.parametrize("n, d", [(2, 1), (5, 4), (6, 4), (9, 4), (6, 5)])
@pytest.mark.parametrize("noise", [0, 1e-6, 1])
@pytest.mark.parametrize("seed", range(5))
def test_leave_one_out_with_hardly_more_points_than_parameters(seed, noise, n, d):
    X, y = data.regression(seed, n, d, 1 if d == 1 else 3, noise)
    for j, found in enumerate(leave_one_out(X, y)):
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
        fit(X, y) - leave_one_out(X, y), influence.dfbetas * spread, rtol=1e-9, atol=1e-12
    )


def test_diabetes_is_refitted_442_times():
    patients = data.diabetes()
    for X in (data.standardise(patients.X), np.column_stack([np.ones(442), patients.X])):
        for j, found in enumerate(leave_one_out(X, patients.y)):
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
    ]:
        np.testing.assert_allclose(ours, theirs, rtol=tol, atol=tol * np.abs(theirs).max())
    assert found.leverage.sum() == pytest.approx(d, rel=1e-12)
    assert found.s2 == pytest.approx(peer.results.mse_resid, rel=1e-12)


def test_diagnostics_against_refits():
    X, y = data.regression(4, 40, 3)
    found, left_out = leastsquares.diagnostics(X, y), leastsquares.leave_one_out(X, y)
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
