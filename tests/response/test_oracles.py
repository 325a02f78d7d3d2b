"""Logistic regression, penalised or not, and softmax, against mpmath, statsmodels, scikit-learn."""

import mpmath
import numpy as np
import pytest
import statsmodels.api as sm
from sklearn.linear_model import LogisticRegression

from ifcore import data, response, risk
from ifcore.risk import Risk


def exact(X, y, w, lam, start):
    """The minimiser of the penalised logistic risk at 40 digits, by Newton's method."""
    with mpmath.workdps(40):
        A, theta = mpmath.matrix(X.tolist()), mpmath.matrix(start.tolist())
        n, d = X.shape
        for _ in range(8):
            p = [1 / (1 + mpmath.exp(-sum(A[i, k] * theta[k] for k in range(d)))) for i in range(n)]
            gradient = mpmath.matrix(d, 1)
            H = lam * mpmath.eye(d)
            for i in range(n):
                for k in range(d):
                    gradient[k] += w[i] * (p[i] - y[i]) * A[i, k]
                    for m in range(d):
                        H[k, m] += w[i] * p[i] * (1 - p[i]) * A[i, k] * A[i, m]
            gradient += lam * theta
            theta -= mpmath.lu_solve(H, gradient)
        assert mpmath.norm(gradient) < 1e-30
        return np.array([float(t) for t in theta])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("lam", [1e-3, 1.0])
def test_logistic_responses_against_40_digits(seed, lam):
    rng = np.random.default_rng(seed)
    X, y = data.classification(rng, 20, 3)
    W = np.vstack([rng.uniform(0, 2, (2, 20)), 1 - np.eye(20)[:3]])
    problem = Risk(risk.linear, risk.logistic, X, y, lam)
    for w, theta in zip(W, response.minimise(problem, weights=W).theta):
        kappa = np.linalg.cond(problem.hessian(theta, w))
        error = np.linalg.norm(theta - exact(X, y, w, lam, theta))
        assert error <= 1e-14 * kappa * np.linalg.norm(theta)


@pytest.mark.parametrize("seed", range(4))
def test_plain_logistic_regression_against_statsmodels(seed):
    rng = np.random.default_rng(seed)
    X = data.design(rng, 200, 4, 3)
    y = (rng.random(200) < 1 / (1 + np.exp(-X @ [0.5, -0.5, 0.2, 0.1]))).astype(float)
    w = rng.integers(1, 4, 200)
    model = sm.GLM(y, X, family=sm.families.Binomial(), freq_weights=w)
    fitted = model.fit(tol=1e-14, maxiter=200)
    found = response.minimise(Risk(risk.linear, risk.logistic, X, y), weights=w).theta
    np.testing.assert_allclose(found, fitted.params, rtol=1e-9, atol=1e-10)


def test_breast_cancer_against_scikit_learn():
    tumours = data.breast_cancer()
    X = data.standardise(tumours.X)
    found = response.minimise(Risk(risk.linear, risk.logistic, X, tumours.y, lam=2.0)).theta
    model = LogisticRegression(
        C=0.5, fit_intercept=False, solver="newton-cholesky", tol=1e-12, max_iter=1000
    )
    np.testing.assert_allclose(found, model.fit(X, tumours.y).coef_[0], rtol=1e-7, atol=1e-9)


def test_softmax_against_scikit_learn():
    rng = np.random.default_rng(5)
    X = data.design(rng, 60, 3, 3)
    y = rng.integers(0, 3, 60)

    def softmax(theta, x):
        return theta.reshape(3, 3) @ x

    found = response.minimise(Risk(softmax, risk.cross_entropy, X, y, lam=1.0, d=9)).theta
    model = LogisticRegression(C=1.0, fit_intercept=False, solver="lbfgs", tol=1e-12, max_iter=5000)
    np.testing.assert_allclose(found.reshape(3, 3), model.fit(X, y).coef_, rtol=0, atol=1e-6)


@pytest.mark.parametrize("lam", [1e-13, 1e-10, 1e-6])
def test_a_hardly_penalised_separable_problem(lam):
    """Its losses are tiny: one that loses its digits gives a wrong θ with a small gradient."""
    X, y = np.column_stack([np.ones(6), np.arange(6.0)]), np.array([0, 0, 0, 1, 1, 1])
    theta = response.minimise(Risk(risk.linear, risk.logistic, X, y, lam)).theta
    error = np.linalg.norm(theta - exact(X, y, np.ones(6), lam, theta))
    assert error <= 1e-11 * np.linalg.norm(theta)
