"""Figure 3 at a small scale: the paths of all targets lie on one curve, bent by the residual."""

import numpy as np
import pytest
import torch
from torch import nn

from ifcore import leastsquares, response, risk
from ifcore.network import Network
from ifcore.risk import Risk
from ifcore.runs import Run
from ifcore.training import Training, retrain
from ifcore.weights import without

LEVELS = np.linspace(0, 1, 9)


def bow(path):
    """The largest distance from the line through the ends, over the distance of the ends."""
    ends = path[-1] - path[0]
    along = (path - path[0]) @ ends / (ends @ ends)
    return np.linalg.norm(path - path[0] - np.outer(along, ends), axis=1).max() / np.linalg.norm(
        ends
    )


def weights(n, j, levels):
    W = np.ones((len(levels), n))
    W[:, j] = levels
    return W


@pytest.fixture(params=range(3))
def case(request):
    """A network at its optimum without a point, and the problem for any target of that point."""
    rng, n, j = np.random.default_rng(request.param), 16, 5
    network = Network(nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1)))
    x = rng.uniform(-2, 2, (n, 1))
    y = network(torch.from_numpy(1.5 * rng.standard_normal(10)), torch.from_numpy(x)).numpy()[
        :, 0
    ] + 0.1 * rng.standard_normal(n)

    def problem(target):
        return Risk(network, risk.squared, x, np.where(np.arange(n) == j, target, y), lam=0.1)

    start = retrain(
        problem(0),
        Training(2000, 0.1),
        network.initial(request.param),
        without(n, j),
        run=Run(jobs=1),
    ).theta
    theta = response.minimise(
        problem(0), start, without(n, j), method="newton-cg", preconditioner=False, max_steps=300
    ).theta
    assert np.linalg.eigvalsh(problem(0).hessian(theta, without(n, j)))[0] > 1e-3

    def path(target, levels):
        return response.minimise(
            problem(target),
            theta,
            weights(n, j, levels),
            method="newton-cg",
            preconditioner=False,
            max_steps=300,
        ).theta

    return problem, path, theta, j


@pytest.mark.parametrize("side", [-1, 1])
def test_the_paths_of_two_targets_lie_on_one_curve(case, side):
    problem, path, theta, j = case
    predicted = problem(0).outputs(theta)[j]
    near, far = predicted + 0.1 * side, predicted + 0.2 * side
    points = path(near, LEVELS)
    outputs = np.array([problem(0).outputs(t)[j] for t in points])
    # the weights at which the farther target pulls as much
    again = path(far, LEVELS * (near - outputs) / (far - outputs))
    np.testing.assert_allclose(
        again, points, rtol=0, atol=1e-6 * np.linalg.norm(points[-1] - points[0])
    )


def test_the_bow_grows_with_the_residual_and_not_with_the_distance_from_the_target(case):
    problem, path, theta, j = case
    predicted = problem(0).outputs(theta)[j]
    bows = np.array([bow(path(predicted + e, LEVELS)) for e in (0.001, 0.002, 0.004)])
    assert bows.min() > 0
    np.testing.assert_allclose(bows / bows[0], [1, 2, 4], rtol=0.05)


def test_in_least_squares_every_path_is_straight():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 3)), rng.standard_normal(20)
    for residual in (0.1, 10):
        y[5] = X[5] @ leastsquares.leave_one_out(X, y).theta[5] + residual
        path = np.array([leastsquares.fit(X, y, w) for w in weights(20, 5, LEVELS)])
        assert bow(path) < 1e-12
