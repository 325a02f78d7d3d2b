"""Influence against refits in the weight, and the diagnostics of least squares against statsmodels."""

import mpmath
import numpy as np
import pytest
import statsmodels.api as sm
import torch
from statsmodels.stats.outliers_influence import OLSInfluence

from ifcore import data, influence, leastsquares, response, risk
from ifcore.risk import Risk


def softmax(theta, x):
    return theta.reshape(3, 3) @ x


def bounded(theta, x):
    return torch.tanh(x @ theta)


def problems(seed):
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 15, 3)
    yield Risk(risk.linear, risk.squared, X, y, lam=0.5)
    yield Risk(risk.linear, risk.logistic, *data.classification(rng, 15, 3), lam=0.5)
    yield Risk(softmax, risk.cross_entropy, X, rng.integers(0, 3, 15), lam=0.5, d=9)
    yield Risk(
        bounded, risk.squared, X, np.tanh(y) / 2, lam=0.5
    )  # its Hessian is not its Gauss–Newton matrix


@pytest.mark.parametrize("seed", range(5))
def test_influences_against_refits(seed):
    """Central differences of converged refits in one weight, Richardson-extrapolated twice."""
    for problem in problems(seed):
        rng = np.random.default_rng(seed)
        w = rng.uniform(0.5, 1.5, 15)
        theta = response.minimise(problem, weights=w).theta
        J = influence.influence(problem, theta, w)
        L = influence.loss_influence(problem, theta, w)
        for j in (0, 8):
            steps = 0.1 * np.array([1, -1, 0.5, -0.5, 0.25, -0.25])
            refits = response.minimise(problem, theta, w + steps[:, None] * np.eye(15)[j]).theta
            for values, expected in (
                (refits, J[j]),
                (np.array([problem.losses(t) for t in refits]), L[:, j]),
            ):
                quotients = (values[0::2] - values[1::2]) / (2 * steps[0::2, None])
                once = (4 * quotients[1:] - quotients[:-1]) / 3
                twice = (16 * once[1] - once[0]) / 15
                assert np.abs(twice - expected).max() <= 1e-7 * np.abs(J).max() * max(
                    1, np.abs(values).max()
                )


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
    """There 1 − h_j = 1/(1 + x_jᵀ(XᵀX − x_jx_jᵀ)⁻¹x_j) is small, and what is divided by it must have kept its digits."""
    X, y = data.regression(seed, 40, 3, 1.2)
    X[7] *= far
    rest = np.delete(X, 7, 0)
    fitted = X[7] @ leastsquares.fit(rest, np.delete(y, 7))
    y[7] = fitted + error
    found, left = (
        leastsquares.diagnostics(X, y),
        1 / (1 + X[7] @ np.linalg.solve(rest.T @ rest, X[7])),
    )
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


def test_a_gross_error_among_exact_targets_stands_out_without_bound():
    """The fit without it is exact, so its externally studentised residual is infinite but for rounding, and never NaN."""
    for seed in range(50):
        X, y = data.regression(seed, 20, 3, noise=0)
        y[3] += 5
        external = leastsquares.diagnostics(X, y).external
        assert external[3] > 1e6 and np.isfinite(np.delete(external, 3)).all()


def test_the_newton_step_of_logistic_regression_against_statsmodels():
    """One iteration of reweighted least squares on the data without a point is one Newton step."""
    rng = np.random.default_rng(3)
    X = data.design(rng, 80, 3, 3)
    y = (rng.random(80) < 1 / (1 + np.exp(-X @ [0.5, -0.3, 0.2]))).astype(float)
    problem = Risk(risk.linear, risk.logistic, X, y)
    theta = response.minimise(problem).theta
    for j in range(80):
        rest = np.delete(X, j, 0), np.delete(y, j)
        p = 1 / (1 + np.exp(-rest[0] @ theta))
        working = rest[0] @ theta + (rest[1] - p) / (p * (1 - p))
        expected = sm.WLS(working, rest[0], p * (1 - p)).fit().params
        np.testing.assert_allclose(
            influence.newton_step(problem, theta, j), expected, rtol=1e-10, atol=1e-12
        )
