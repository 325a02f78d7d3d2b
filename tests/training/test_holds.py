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


@pytest.mark.parametrize("model", [risk.linear, lambda theta, x: x @ theta])
@pytest.mark.parametrize("batch", [None, 4])
def test_a_penalty_for_each_parameter_and_a_linear_term_have_their_share_of_each_step(model, batch):
    """θ ← θ − rate (mean of w_i∇ℓ_i + (λθ + b + damping (θ − θ₀))/n), by hand."""
    rng = np.random.default_rng(0)
    X, y, starts = (
        rng.standard_normal((10, 3)),
        rng.standard_normal(10),
        rng.standard_normal((2, 3)),
    )
    lam, b, weights = np.array([0.0, 2.0, 0.5]), rng.standard_normal(3), rng.uniform(0, 2, (2, 10))
    problem = Risk(model, risk.squared, X, y, lam, b)
    training = Training(7, 0.3, momentum=0.0, nesterov=False, batch=batch, order=2)
    found = retrain(problem, training, starts, weights, damping=0.7, run=Run(jobs=1)).theta
    for start, w, theta in zip(starts, weights, found):
        truth = start.copy()
        for step in range(7):
            rows = np.arange(10) if batch is None else training.rows(10, step)
            slope = (w[rows] * (X[rows] @ truth - y[rows])) @ X[rows] / len(rows)
            truth = truth - 0.3 * (slope + (lam * truth + b + 0.7 * (truth - start)) / 10)
        np.testing.assert_allclose(theta, truth, rtol=0, atol=1e-14)


def test_the_criterion_is_looked_at_every_tenth_step():
    X, y = data.regression(0, 20, 3, condition=2)
    problem, start = Risk(risk.linear, risk.squared, X, y, lam=0.5), np.full(3, 2.0)
    training = Training(400, 0.1, momentum=0.0, nesterov=False)
    for tol in (0.1, 1e-2, 1e-3):
        found = retrain(problem, training._replace(tol=tol), start)
        assert found.status == "converged" and found.steps % 10 == 0
        before, there = (
            retrain(problem, training._replace(steps=int(found.steps) - back), start)
            for back in (10, 0)
        )
        assert there.gradient_norm <= tol < before.gradient_norm
        np.testing.assert_array_equal(there.theta, found.theta)
        scale = np.linalg.norm(problem.gradients(start), axis=1).sum()
        scale += np.linalg.norm(problem.lam * start)
        slope = np.linalg.norm(problem.gradient(found.theta))
        assert found.gradient_norm == pytest.approx(slope / scale, rel=1e-12)


def test_models_without_a_chain_are_trained_in_blocks_of_eight(tmp_path):
    problem = convolution()
    for m, count in ((8, 1), (9, 2)):
        retrain(
            problem,
            Training(1, 0.1),
            problem.model.theta,
            np.ones((m, 20)),
            run=Run(tmp_path / f"{m}", 1),
        )
        assert len(list((tmp_path / f"{m}").glob("block-*.npz"))) == count


def test_where_an_example_is_not_finite_the_fits_without_it_are_trained():
    rng = np.random.default_rng(0)
    X, y = rng.uniform(0.1, 1, (6, 3)), rng.standard_normal(6)
    X[2] = -1.0
    problem = Risk(lambda t, x: torch.log(x @ t.exp()), risk.squared, X, y, lam=0.1, d=3)
    start, weights = 0.1 * rng.standard_normal(3), np.vstack([np.ones(6), np.arange(6) != 2])
    training, loose = Training(5, 0.3, momentum=0.0, nesterov=False), Run(jobs=1, strict=False)
    found = retrain(problem, training, start, weights, run=loose)
    assert list(found.status) == ["diverged", "trained"] and list(found.steps) == [0, 5]
    assert np.isnan(found.theta[0]).all()
    truth = start.copy()
    for _ in range(5):
        truth = truth - 0.3 / 6 * problem.gradient(truth, weights[1])
    np.testing.assert_allclose(found.theta[1], truth, rtol=1e-13)
    with pytest.raises(NotConverged, match="1 of 2 .* An example that counts has no finite grad"):
        retrain(problem, training, start, weights, run=Run(jobs=1))
    assert retrain(problem, training, start, run=loose).status == "diverged"


def test_a_fit_that_ends_far_away_has_diverged_though_it_is_finite():
    """The error is multiplied by 1 − 3 in every step, and the allowed way is 10⁶ (1 + 5 + 12)."""
    problem = Risk(risk.linear, risk.squared, np.ones((2, 1)), np.ones(2))
    for steps, status in ((22, "trained"), (23, "diverged")):
        training = Training(steps, 3.0, momentum=0.0, nesterov=False)
        found = retrain(problem, training, [5.0], run=Run(strict=False))
        assert found.status == status and found.steps == steps
        assert found.theta == 1 + 4 * (-2.0) ** steps


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"rate": 0.0}, ValueError, "rate must be positive, a number or one for each of 5 steps"),
        ({"rate": np.full((5, 1), 0.1)}, ValueError, "rate must be positive"),
        ({"momentum": -0.1}, ValueError, "momentum must be a number at least 0; got -0.1"),
        ({"nesterov": 1}, TypeError, "nesterov must be True or False; got 1"),
        ({"steps": 2.5}, ValueError, "steps must be an integer at least 1; got 2.5"),
        ({"batch": 0}, ValueError, "batch must be an integer at least 1; got 0"),
        ({"order": -1}, TypeError, "order must be an integer at least 0; got -1"),
        ({"tol": 0}, ValueError, "tol must be positive; got 0"),
    ],
)
def test_each_field_of_a_training_is_checked(change, error, words):
    problem, training = regression(), Training(5, 0.1)._replace(**change)
    with pytest.raises(error, match=words):
        retrain(problem, training, problem.model.theta)


def test_a_training_may_have_a_rate_for_each_step_and_batches_of_all():
    found = Training(3.0, [0.1, 0.2, 0.3], momentum=0, batch=20).checked(20)
    assert type(found.steps) is int and found.rate.shape == (3,) and found.batch == 20
    assert sorted(found.rows(20, 2)) == list(range(20))
    assert Training(3, 0.1).rows(20, 2) is None
