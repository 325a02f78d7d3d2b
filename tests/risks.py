"""A risk of each kind on random data, with models of no structure to rely on."""

import numpy as np
import torch

from ifcore import data, risk
from ifcore.risk import Risk


def network(theta, x):
    """Two tanh units, two outputs, for x of length 3: 8 + 4 = 12 parameters, no structure."""
    return theta[8:].reshape(2, 2) @ torch.tanh(theta[:6].reshape(2, 3) @ x + theta[6:8])


def softmax(theta, x):
    return theta.reshape(3, 3) @ x


def problems(seed):
    """A risk of each kind on random data, a point, and weights."""
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 12, 3)
    classes = rng.integers(0, 3, 12)
    for problem in (
        Risk(risk.linear, risk.squared, X, y, lam=0.3),
        Risk(risk.linear, risk.logistic, X, y > 0),
        Risk(softmax, risk.cross_entropy, X, classes, lam=0.1, d=9),
        Risk(network, risk.squared, X, rng.standard_normal((12, 2)), lam=0.2, d=12),
        Risk(network, risk.cross_entropy, X, classes % 2, d=12),
    ):
        yield problem, rng.standard_normal(problem.d), rng.uniform(0, 2, 12)
