"""Least squares against mpmath at 50 digits and against statsmodels."""

import mpmath
import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.stats.outliers_influence import OLSInfluence

from ifcore import data
from ifcore.leastsquares import UNIT, fit, leave_one_out


def exact(X, y, w):
    """argmin Σ w_i ½(y_i − x_iᵀθ)² at 50 digits, rounded, from the normal equations."""
    with mpmath.workdps(50):
        A = mpmath.matrix(X.tolist())
        W = mpmath.diag(w.tolist())
        theta = mpmath.lu_solve(A.T * W * A, A.T * W * mpmath.matrix(y.tolist()))
        return np.array([float(t) for t in theta])


def allowed(X, y, theta):
    """The relative error of a backward-stable solver, u κ (1 + κ ‖e‖ / (‖X‖ ‖θ‖)), ten times over."""
    size, kappa = np.linalg.norm(X, 2), np.linalg.cond(X)
    return (
        10
        * UNIT
        * kappa
        * (1 + kappa * np.linalg.norm(y - X @ theta) / (size * np.linalg.norm(theta)))
    )


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
