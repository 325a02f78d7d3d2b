"""What the bits of a fit do not depend on, and what is refused or reported."""

import numpy as np
import pytest
import torch
from refits import W, regression
from torch import nn

from ifcore import data, risk
from ifcore.network import Network
from ifcore.risk import Risk
from ifcore.runs import NotConverged, Run
from ifcore.training import Training, retrain


def convolution():
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(48, 3))
    return Risk(
        Network(module),
        risk.cross_entropy,
        rng.standard_normal((20, 1, 4, 4)),
        rng.integers(0, 3, 20),
    )


@pytest.mark.parametrize("kind", [nn.Tanh, nn.ReLU, nn.Sigmoid])
@pytest.mark.parametrize("batch", [None, 7])
def test_the_bits_do_not_depend_on_the_block(kind, batch):
    problem, training = regression(kind=kind), Training(60, 0.05, batch=batch)
    whole = retrain(problem, training, problem.model.theta, W, run=Run(jobs=1)).theta
    for block in (1, 2, 3, 5):
        np.testing.assert_array_equal(
            retrain(problem, training, problem.model.theta, W, block=block, run=Run(jobs=1)).theta,
            whole,
        )


@pytest.mark.parametrize("make", [regression, convolution])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_a_cold_start_with_nothing_removed_is_the_trained_theta_bit_for_bit(make, optimiser):
    problem, training = make(), Training(30, 0.01, optimiser=optimiser)
    start = problem.model.initial(3)
    theta = retrain(problem, training, start).theta
    np.testing.assert_array_equal(
        retrain(problem, training, start, W, run=Run(jobs=1)).theta[0], theta
    )


def test_starts_weights_and_orders_side_by_side_are_single_fits():
    problem, training = regression(), Training(30, 0.05, batch=6)
    starts = np.array([problem.model.initial(s) for s in (0, 0, 1, 1)])
    weights, orders = W[[0, 2, 0, 3]], [5, 5, 5, 8]
    found = retrain(problem, training, starts, weights, order=orders, run=Run(jobs=1))
    for i in range(4):
        single = retrain(problem, training._replace(order=orders[i]), starts[i], weights[i])
        np.testing.assert_array_equal(found.theta[i], single.theta)
        assert single.theta.shape == (problem.d,)
        assert single.status == "trained"
        assert single.steps == 30


def test_a_criterion_stops_each_fit_by_itself():
    X, y = data.regression(0, 20, 3, condition=2)
    problem = Risk(risk.linear, risk.squared, X, y, lam=0.5)
    found = retrain(problem, Training(2000, 0.1, tol=1e-8), np.zeros(3), W, run=Run(jobs=1))
    assert (found.status == "converged").all()
    assert (found.gradient_norm <= 1e-8).all()
    assert (found.steps < 2000).all()
    with pytest.raises(
        NotConverged,
        match=r"7 of 7 fits .* fit 0, is 'unfinished' after 20 steps, .* of 20, where tol = 1e-08",
    ) as caught:
        retrain(problem, Training(20, 0.1, tol=1e-8), np.zeros(3), W, run=Run(jobs=1))
    assert caught.value.reached.theta.shape == (7, 3)
    assert (caught.value.reached.gradient_norm > 1e-8).all()


def test_divergence_names_the_fit_and_the_step_and_keeps_the_others():
    problem = regression(kind=nn.ReLU)
    weights = np.vstack([np.ones(20), 1e150 * np.ones(20), W[1]])
    with pytest.raises(
        NotConverged,
        match=r"1 of 3 fits .* fit 1, is 'diverged' after \d+ steps, .* of 50. "
        "A smaller rate than 0.01",
    ) as caught:
        retrain(problem, Training(50, 0.01), problem.model.theta, weights, run=Run(jobs=1))
    found = caught.value.reached
    assert list(found.status) == ["trained", "diverged", "trained"] and 0 < found.steps[1] < 10
    alone = retrain(
        problem, Training(50, 0.01), problem.model.theta, weights[[0, 2]], run=Run(jobs=1)
    )
    np.testing.assert_array_equal(found.theta[[0, 2]], alone.theta)
    assert np.isnan(found.theta[1]).all()
    X, y = data.regression(0, 20, 3, condition=2)
    linear = Risk(risk.linear, risk.squared, X, y)
    # grows, and is finite yet
    lost = retrain(linear, Training(60, 3.0), np.zeros(3), run=Run(strict=False))
    assert lost.status == "diverged"


@pytest.mark.parametrize(
    "training, error, match",
    [
        (Training(0, 0.1), ValueError, "steps must be"),
        (Training(5, -0.1), ValueError, "rate must be positive"),
        (Training(5, [0.1, 0.2]), ValueError, "one for each of 5 steps"),
        (Training(5, 0.1, momentum=1.0), ValueError, r"momentum must lie in \[0, 1\)"),
        (Training(5, 0.1, optimiser="lbfgs"), ValueError, "got 'lbfgs'"),
        (Training(5, 0.1, batch=21), ValueError, "batch must be at most n = 20; got 21"),
        (Training(5, 0.1, batch=5, tol=1e-3), ValueError, "tol is for training on the whole data"),
        ((5, 0.1), TypeError, "must be a Training; got tuple"),
    ],
)
def test_a_training_that_cannot_be_is_refused(training, error, match):
    problem = regression()
    with pytest.raises(error, match=match):
        retrain(problem, training, problem.model.theta)


def test_fits_that_do_not_fit_are_refused():
    problem, training = regression(), Training(5, 0.1)
    with pytest.raises(ValueError, match=r"start must be \(26,\) or \(m, 26\); got \(5,\)"):
        retrain(problem, training, np.zeros(5))
    with pytest.raises(ValueError, match="got 2 and 7"):
        retrain(problem, training, np.zeros((2, 26)), W)
    with pytest.raises(ValueError, match="order must be 7 integers"):
        retrain(problem, training, problem.model.theta, W, order=[1, 2])
    with pytest.raises(ValueError, match="start must be finite"):
        retrain(problem, training, np.full(26, np.nan))
