"""Games of data: nearest neighbours, with their Shapley values closed in form, and refits."""

import numpy as np
import torch
from scipy.spatial.distance import cdist

from ifcore import inputs
from ifcore.response import minimise
from ifcore.risk import Risk
from ifcore.runs import Fit
from ifcore.valuation.values import members

BLOCK = 2**20  # distances held at a time
LOSSES = 2**18  # outputs on test data, held at a time


def nearest_neighbours(X, y, test_X, test_y, K):
    """Shapley values of a classifier by K nearest neighbours, closed in form: (n,).

    X : (n, d), y : (n,), classes as numbers. test_X : (t, d), test_y : (t,). K : at least 1, above
    n too. The game is `neighbour_game`. With the points sorted by their distance to a test point,
    φ_n = min(K, n)/(n K)·1[y_n = t], φ_i = φ_{i+1} + (1[y_i = t] − 1[y_{i+1} = t])/K·min(K, i)/i,
    and the mean over test points. Of two points as far away the one of the lower index is nearer.

    Raises ValueError for shapes that do not fit. Source: Jia et al. (2019), for K ≤ n.

    Memory, for t test points: 8 (5 b n) bytes, with b = min(t, 2²⁰/n).
    """
    X, y, test_X, test_y, K = _data(X, y, test_X, test_y, K)
    n, values = len(X), np.zeros(len(X))
    i = np.arange(1, n)
    share, size = np.minimum(K, i) / (K * i), max(1, BLOCK // n)
    for first in range(0, len(test_X), size):
        rows = slice(first, first + size)
        order, hits = _ranked(X, y, test_X[rows], test_y[rows])
        phi = np.empty_like(hits)
        phi[:, :-1] = (hits[:, :-1] - hits[:, 1:]) * share
        phi[:, -1] = hits[:, -1] * (min(K, n) / (n * K))
        phi = np.cumsum(phi[:, ::-1], axis=1)[:, ::-1]
        values += np.bincount(order.ravel(), phi.ravel(), n)
    return values / len(test_X)


def neighbour_game(X, y, test_X, test_y, K):
    """The game of `nearest_neighbours`: W (m, n) ↦ (m,), to be enumerated or sampled.

    v(S) = 1/K · how many of the K nearest points in S, or of all where S has fewer, are of the test
    point's class, and the mean over test points; v(∅) = 0. Arguments and errors as there.
    Memory: 24 t n bytes, with t test points; 24 m n bytes for a call.
    """
    X, y, test_X, test_y, K = _data(X, y, test_X, test_y, K)
    order, hits = _ranked(X, y, test_X, test_y)

    def value(W):
        found = np.zeros(len(W))
        for nearest, right in zip(order, hits):
            there = W[:, nearest]
            found += (there * (there.cumsum(axis=1) <= K)) @ right
        return found / (K * len(order))

    return value


def refits(risk, test, start=None, measure=None, **options):
    """A game of models: w ↦ minus the mean loss of θ(w) on `test`, or measure(θ(w)).

    risk : a `Risk`, whose points are the players. test : a `Risk` on test data of the same model;
    None where there is a measure. start, options : as for `response.minimise`, which refits all
    coalitions of a call side by side; a network needs method="newton-cg". measure : θ (d,) ↦ a
    number. The empty coalition's θ is the minimiser of ½ Σ_k λ_kθ_k² + bᵀθ, which there is where
    λ > 0 for every parameter: asked for at λ = 0 it raises ValueError.

    Returns value(W), W (m, n) of 0 and 1 ↦ (m,). It raises NotConverged where a fit did not end
    well, naming its coalition; `reached` is the Fit of all m. Raises TypeError, ValueError for a
    test that does not fit.
    Source: Ghorbani and Zou (2019).

    Memory: as for `response.minimise`.
    """
    inputs.kind(risk, Risk, "risk")
    if measure is not None:
        inputs.function(measure, "measure")
    else:
        inputs.kind(test, Risk, "test")
        if test.d != risk.d:
            raise ValueError(f"test must be of the same model, of d = {risk.d}; got {test.d}")
    start = None if start is None else risk.parameters(start, "start").numpy()

    def value(W):
        found = _refitted(risk, start, inputs.weights(W, risk.n, zero=True)[0], options)
        found.require(True, "coalition", lambda i: f". It is that {members(W[i])}")
        if measure is None:
            return -_mean_losses(test, found.theta)
        return np.array([measure(theta) for theta in found.theta])

    return value


def _mean_losses(test, theta):
    """The mean loss on `test` at each θ (m, d), side by side: (m,)."""
    tensors, size = test.tensors, max(1, LOSSES // (test.n * test.K))
    each = tensors.each(lambda t: tensors.losses(t).mean())
    parts = (theta[first : first + size] for first in range(0, len(theta), size))
    return np.concatenate([each(torch.from_numpy(part)).numpy() for part in parts])


def _refitted(risk, start, W, options):
    """θ(w) of every row of W, as a Fit; that of an empty one without data."""
    some = W.any(axis=1)
    theta = np.empty((len(W), risk.d))
    status = np.full(len(W), "converged", dtype="U10")
    out = Fit(theta, np.zeros(len(W)), np.zeros(len(W), dtype=int), status)
    if not some.all():
        theta[~some] = _alone(risk)
    if some.any():
        found = minimise(risk, start, W[some], **options | {"strict": False})
        for part, fitted in zip(out[:4], found):
            part[some] = fitted
    return out


def _alone(risk):
    """The minimiser of the penalty: θ = −b/λ."""
    lam = risk.penalty_curvature()
    if not (lam > 0).all():
        k = int(np.argmin(lam))
        raise ValueError(
            f"the risk must have lam > 0 for every parameter where the empty coalition is asked "
            f"for, which has no minimiser without; got {lam[k]:g} for parameter {k}"
        )
    return np.zeros(risk.d) if risk.b is None else -risk.b / lam


def _data(X, y, test_X, test_y, K):
    X, y = inputs.examples(X, y)
    test_X, test_y = inputs.examples(test_X, test_y, ("test_X", "test_y"))
    if test_X.shape[1] != X.shape[1]:
        raise ValueError(f"test_X must have the {X.shape[1]} columns of X; got {test_X.shape[1]}")
    return X, y, test_X, test_y, inputs.count(K, "K")


def _ranked(X, y, test_X, test_y):
    """The points by their distance to each test point (t, n), and which are of its class."""
    order = np.argsort(cdist(test_X, X, "sqeuclidean"), kind="stable")
    return order, (y[order] == test_y[:, None]).astype(float)
