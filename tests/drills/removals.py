"""Twenty thousand certified removals, a thousand in a row, none beyond its bound: `make drills`.

Even against odd digits, images of length 1, ridge-logistic regression with noise; and, as the
control, the published bound for inputs that are longer, which does not hold.
"""

import numpy as np
import pytest

from ifcore import data, response, risk
from ifcore.unlearning import Certified

STREAMS, REMOVALS = 10, 1000  # of each of two steps


def noisy(seed):
    """A model that a stream begins with, and the order of its removals."""
    rng, digits = np.random.default_rng(seed), data.digits()
    X = digits.X / np.linalg.norm(digits.X, axis=1, keepdims=True)
    lam, sigma = len(X) * rng.choice([1e-3, 1e-2]), rng.choice([0.3, 1.0])
    b = sigma * rng.standard_normal(X.shape[1])
    one = risk.Risk(risk.linear, risk.logistic, X, digits.y % 2 == 0, lam=lam, b=b)
    return Certified(one, response.minimise(one).theta), rng.permutation(len(X))[:REMOVALS]


@pytest.mark.parametrize("step", ["newton", "influence"])
@pytest.mark.parametrize("seed", range(STREAMS))
def test_no_residual_exceeds_its_bound(seed, step):
    model, order = noisy(seed)
    for j in order.tolist():
        model = model.remove(j, step)
        assert model.residual <= model.bound * (1 + 1e-9) + 1e-11, (j, len(model.removed))
    assert len(model.removed) == REMOVALS


def test_the_published_bound_does_not_hold_for_longer_inputs():
    """Three kept (40, +1), removed (40, −1), λ = 100; the bound without ‖x‖ ≤ 1 holds."""
    X, y = np.full((4, 1), 40.0), np.array([1, 1, 1, 0])
    one = risk.Risk(risk.linear, risk.logistic, X, y, lam=100.0)
    model = Certified(one, response.minimise(one).theta)
    after = model.remove(3, "influence")
    move = after.theta - model.theta
    published = np.linalg.norm(X[:3], 2) * np.linalg.norm(move) * np.linalg.norm(X[:3] @ move) / 4
    assert after.residual > 5 * published
    assert after.residual <= after.bound
