"""W1: leverage and leave-one-out parameters of all points of least squares.

The limit is one matrix product of the size of X with a Cholesky factorisation.
"""

import numpy as np
import statsmodels.api as sm
from benchmarks.timing import Method, relative
from scipy.linalg import cho_factor, cho_solve
from statsmodels.stats.outliers_influence import OLSInfluence

from ifcore import data, leastsquares

SIZES = {"1,000 × 50": (1_000, 50, 8), "20,000 × 200": (20_000, 200, 5)}
FEW, CHECKED = 20, 4  # refits of the loop that are timed; points whose answer is checked


def refits(X, y, few):
    """θ without each of the first points, one fit after the other."""
    keep = np.ones(len(y), dtype=bool)
    out = []
    for j in range(few):
        keep[j] = False
        out.append(np.linalg.lstsq(X[keep], y[keep])[0])
        keep[j] = True
    return np.array(out)


def dfbetas(X, y):
    return OLSInfluence(sm.OLS(y, X).fit()).dfbetas


def pieces(X, y):
    """θ₋ⱼ of every point from what statsmodels has: G⁻¹, the hat matrix, the residuals."""
    fit = sm.OLS(y, X).fit()
    h = OLSInfluence(fit).hat_matrix_diag
    return fit.params - (fit.resid / (1 - h))[:, None] * (X @ fit.normalized_cov_params)


def refined(X, y, j):
    """θ without j, and the sum of its squared residuals, in extended precision."""
    keep = np.arange(len(y)) != j
    wide, target, factor = X[keep].astype(np.longdouble), y[keep], cho_factor(X[keep].T @ X[keep])
    theta = np.zeros(X.shape[1], dtype=np.longdouble)
    for _ in range(4):
        slope = wide.T @ (target - wide @ theta)
        theta += cho_solve(factor, slope.astype(float))
    return theta, ((target - wide @ theta) ** 2).sum()


def methods(size):
    n, d, rounds = SIZES[size]
    X, y = data.regression(0, n, d, condition=2)
    G = X.T @ X
    exact = [refined(X, y, j) for j in range(CHECKED)]
    error = relative([theta for theta, _ in exact])
    found = [
        Method(
            "ifcore", lambda: leastsquares.leave_one_out(X, y), lambda a: error(a.theta[:CHECKED])
        ),
        Method("limit: GEMM and Cholesky", lambda: (X @ G, np.linalg.cholesky(G))),
        Method("statsmodels, by hand", lambda: pieces(X, y), lambda a: error(a[:CHECKED])),
        Method(
            "loop of refits", lambda: refits(X, y, FEW), lambda a: error(a[:CHECKED]), FEW / n, True
        ),
    ]
    if n < 5000:
        whole = np.linalg.lstsq(X, y)[0]
        root = np.sqrt(np.diag(np.linalg.inv(G)))
        own = relative([(whole - a) / np.sqrt(rss / (n - 1 - d)) / root for a, rss in exact])
        found.append(
            Method(
                "statsmodels, dfbetas", lambda: dfbetas(X, y), lambda a: own(a[:CHECKED]), once=True
            )
        )
    return found, rounds
