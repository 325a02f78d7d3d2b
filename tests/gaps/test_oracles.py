"""`decompose` against closed forms, refits, and estimates made one by one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from ifcore import data, gaps, leastsquares, proximal, risk
from ifcore.network import Network
from ifcore.risk import Risk
from ifcore.runs import Run
from ifcore.training import Training, retrain
from ifcore.weights import without


def network(n=24, lam=0.0):
    torch.manual_seed(0)
    X, y = data.regression(0, n, 3, condition=2)
    model = Network(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)))
    return Risk(model, risk.squared, X, y / y.std(), lam)


@pytest.mark.parametrize("seed", range(3))
def test_linear_least_squares_at_its_minimiser(seed):
    """Warm-start and non-convergence gaps are 0, PBRF the linearised shift over 1 − h_λ."""
    X, y = data.regression(seed, 40, 4, condition=3)
    problem, damping = Risk(risk.linear, risk.squared, X, y), 2.0
    found = gaps.decompose(
        problem,
        gaps.Protocol(Training(20, 0.1), damping, converged=True, solver="cg"),
        np.zeros(4),
        range(10),
        keep=True,
        run=Run(jobs=1),
    )
    size = found.parameters.shift.max()
    np.testing.assert_allclose(found.parameters.gaps[0, :, [0, 2]], 0, atol=1e-7 * size)
    np.testing.assert_allclose(found.parameters.gaps[0, :, 4], 0, atol=1e-9 * size)
    assert (found.parameters.control <= 1e-7 * size).all()
    np.testing.assert_allclose(
        found.estimates[0, :, 0], leastsquares.leave_one_out(X, y).theta[:10], atol=1e-7 * size
    )
    h = np.einsum("ij,jk,ik->i", X, np.linalg.inv(X.T @ X + damping * np.eye(4)), X)[:10]
    linear = found.estimates[0, :, 4] - found.theta[0]
    np.testing.assert_allclose(
        found.estimates[0, :, 3] - found.theta[0], linear / (1 - h)[:, None], atol=1e-9 * size
    )
    for distances in (found.parameters, found.outputs):
        np.testing.assert_allclose(distances.gaps[0, :, 3] / distances.shift[0], h, rtol=1e-7)
        assert (distances.gaps[0, :, 1] > 1e-3 * distances.shift[0]).all()  # proximity stays


def test_logistic_regression_at_its_minimiser_against_lbfgs():
    X, y = data.classification(0, 40, 3, condition=2)
    problem = Risk(risk.linear, risk.logistic, X, y, lam=0.5)
    found = gaps.decompose(
        problem,
        gaps.Protocol(Training(20, 0.5), 1.0, converged=True),
        np.zeros(3),
        range(6),
        keep=True,
        run=Run(jobs=1),
    )
    size = found.parameters.shift.max()
    np.testing.assert_allclose(found.parameters.gaps[0, :, [0, 2]], 0, atol=1e-7 * size)
    for j in range(6):
        w = without(40, j)

        def damped(t, w=w):
            move = t - found.theta[0]
            return problem.value(t, w) + 0.5 * move @ move, problem.gradient(t, w) + move

        for k, objective in (
            (0, lambda t, w=w: (problem.value(t, w), problem.gradient(t, w))),
            (2, damped),
        ):
            truth = minimize(
                objective,
                np.zeros(3),
                jac=True,
                method="L-BFGS-B",
                options={"ftol": 0, "gtol": 1e-10},
            ).x
            np.testing.assert_allclose(found.estimates[0, j, k], truth, atol=1e-6)


def test_each_estimate_is_the_one_made_by_itself():
    problem, training, warm, damping = network(), Training(80, 0.05), Training(40, 0.02), 0.8
    starts = np.array([problem.model.initial(s) for s in (0, 1)])
    removed = [0, [3, 5], 7]
    found = gaps.decompose(
        problem,
        gaps.Protocol(
            training, damping, warm=warm, chunk=2, solver="cg", solver_options={"max_steps": 3}
        ),
        starts,
        removed,
        keep=True,
        run=Run(jobs=1),
    )
    W = np.array([without(24, j) for j in removed])
    for s, start in enumerate(starts):
        theta = retrain(problem, training, start).theta
        np.testing.assert_array_equal(found.theta[s], theta)
        np.testing.assert_array_equal(found.controls[s, [0, 3, 4, 5]], [theta] * 4)
        np.testing.assert_array_equal(
            found.estimates[s, :, 0], retrain(problem, training, start, W, run=Run(jobs=1)).theta
        )
        np.testing.assert_array_equal(
            found.estimates[s, :, 1], retrain(problem, warm, theta, W, run=Run(jobs=1)).theta
        )
        np.testing.assert_array_equal(found.controls[s, 1], retrain(problem, warm, theta).theta)
        own = retrain(problem, training, start).gradient_norm
        np.testing.assert_allclose(found.gradient_norm[s, 3, 0], own, rtol=1e-12)
        still = proximal.damped(problem, theta, np.ones(24), damping).theta
        near = proximal.damped(problem, theta, W, damping, begin=still).theta
        for k, alone in ((2, near), (3, proximal.pbrf(problem, theta, W, damping).theta)):
            assert np.linalg.norm(found.estimates[s, :, k] - alone) <= 1e-7
        G, v = problem.gauss_newton(theta) + damping * np.eye(problem.d), problem.gradients(theta)
        for i, j in enumerate(removed):
            exact = theta + np.linalg.solve(G, v[np.atleast_1d(j)].sum(0))
            np.testing.assert_allclose(found.estimates[s, i, 4], exact, atol=1e-9)
    assert (found.residual > 1e-4).all() and (found.parameters.gaps[:, :, 4] > 0).all()


def test_batches_in_another_order_and_a_damped_response_that_is_trained():
    """The control of the cold start is then another training of the whole data than θˢ."""
    problem, training, damping = network(lam=0.5), Training(80, 0.05, batch=8, order=3), 0.8
    start, removed = problem.model.initial(0), [0, [3, 5], 7]
    W = np.array([np.ones(24), *(without(24, j) for j in removed)])
    near = Training(50, 0.03, batch=6, order=99)  # its order is θˢ's
    plan = gaps.Protocol(training, damping, near=near, reorder=11, chunk=2)
    found = gaps.decompose(problem, plan, start, removed, keep=True, run=Run(jobs=1))
    theta = retrain(problem, training, start).theta
    np.testing.assert_array_equal(found.theta[0], theta)
    cold = retrain(problem, training._replace(order=11), start, W).theta
    np.testing.assert_array_equal([found.controls[0, 0], *found.estimates[0, :, 0]], cold)
    assert np.linalg.norm(found.controls[0, 0] - theta) > 1e-3
    warm = retrain(problem, training, theta, W).theta
    np.testing.assert_array_equal([found.controls[0, 1], *found.estimates[0, :, 1]], warm)
    heavier = Risk(problem.model, problem.loss, problem.X, problem.y, 0.5 + 0.8, b=-0.8 * theta)
    pulled = retrain(heavier, near._replace(order=3), theta, W).theta
    np.testing.assert_allclose(found.estimates[0, :, 2], pulled[1:], rtol=0, atol=1e-14)
    np.testing.assert_allclose(found.controls[0, 2], pulled[0], rtol=0, atol=1e-14)
    np.testing.assert_array_equal(found.controls[0, 3:], [theta] * 3)
    apart = found.parameters.direct - found.parameters.effect_direct  # c₀ is not c₅
    assert (np.abs(apart) > 1e-3).all()


def test_a_training_towards_the_damped_response_arrives():
    problem, training = network(lam=0.5), Training(80, 0.05)
    plan = gaps.Protocol(training, 20.0, near=Training(3000, 0.1))
    found = gaps.decompose(problem, plan, problem.model.initial(0), [2, 4], keep=True)
    W = np.array([without(24, j) for j in (2, 4)])
    there = proximal.damped(problem, found.theta[0], W, 20.0).theta
    np.testing.assert_allclose(found.estimates[0, :, 2], there, rtol=0, atol=1e-8)


def test_protocols_side_by_side_are_those_alone(monkeypatch):
    """And what they share is computed once: one cold start, as many warm ones as there are."""
    problem, training = network(lam=0.5), Training(40, 0.05, batch=8)
    base = gaps.Protocol(training, 0.8, chunk=2)
    plans = [
        base,
        replace(base, damping=2.0),
        replace(base, warm=Training(4, 0.05, batch=8)),
        replace(base, near=training),
        replace(base, reorder=5),
        replace(base, solver="cg"),
        replace(base, training=training._replace(steps=30)),
        replace(base, converged=True),
    ]
    starts = np.array([problem.model.initial(s) for s in (0, 1)])
    alone = [gaps.decompose(problem, p, starts, range(3), run=Run(jobs=1)) for p in plans]
    fits = []
    for name in ("retrain", "damped", "pbrf"):
        own = getattr(gaps, name)
        count = lambda *a, own=own, name=name, **b: fits.append(name) or own(*a, **b)  # noqa: E731
        monkeypatch.setattr(gaps, name, count)
    found = gaps.decompose(problem, plans, starts, range(3), run=Run(jobs=1))
    for one, other in zip(alone, found):
        for part, same in zip((*one.parameters, *one.outputs), (*other.parameters, *other.outputs)):
            np.testing.assert_array_equal(part, same)
        for name in ("theta", "measured", "measured_control", "status", "residual", "done"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    blocks = 2 * 2  # seeds and chunks; trained: two cold, one reordered, three warm, one near
    assert fits.count("retrain") == blocks * 7
    assert fits.count("damped") == 2 * fits.count("pbrf") == 2 * blocks * 4  # the control first


def test_the_gaps_telescope_and_their_norms_bound():
    problem = network()
    starts = np.array([problem.model.initial(s) for s in (0, 1)])
    found = gaps.decompose(
        problem,
        gaps.Protocol(Training(60, 0.05), 0.8),
        starts,
        range(5),
        keep=True,
        run=Run(jobs=1),
    )
    E, C = found.estimates, found.controls[:, None]
    F, D = (
        np.array([[[problem.outputs(t) for t in e] for e in s] for s in part]) / np.sqrt(24)
        for part in (E, C)
    )
    for distances, values, control in ((found.parameters, E, C), (found.outputs, F, D)):
        for whole, steps, direct in (
            (values, distances.gaps, distances.direct),
            (values - control, distances.effect, distances.effect_direct),
        ):
            vectors = whole[:, :, :-1] - whole[:, :, 1:]
            np.testing.assert_allclose(
                vectors.sum(2),
                whole[:, :, 0] - whole[:, :, 5],
                rtol=0,
                atol=8e-16 * np.abs(whole).max(),
            )
            np.testing.assert_allclose(steps, np.linalg.norm(vectors, axis=3), rtol=1e-12)
            np.testing.assert_allclose(
                direct, np.linalg.norm(whole[:, :, 0] - whole[:, :, 5], axis=2), rtol=1e-12
            )
            assert (direct <= steps.sum(2) * (1 + 1e-12)).all()
        np.testing.assert_allclose(
            distances.control,
            np.linalg.norm(control[:, 0, :-1] - control[:, 0, 1:], axis=2),
            rtol=1e-12,
        )
        np.testing.assert_allclose(
            distances.shift, np.linalg.norm(values[:, :, 3] - control[:, :, 3], axis=2), rtol=1e-12
        )
        assert (distances.control[:, 3:] == 0).all()
    np.testing.assert_array_equal(found.measured[1, 2, 3], problem.losses(E[1, 2, 3]))
    np.testing.assert_array_equal(found.measured_control[1, 1], problem.losses(C[1, 0, 1]))


def test_where_the_hessian_is_indefinite_the_minimisers_are_reached_all_the_same():
    """Of (ab − y)²/2 and (λ/2)(a² + b²): a = b with a² the mean of y less λ over their number."""
    found = Risk(lambda t, x: t[0] * t[1] * x[0], risk.squared, np.ones((2, 1)), [3, 0.5], 0.1, d=2)
    how = gaps.Protocol(Training(1, 0.01), 9.0, converged=True)
    made = gaps.decompose(found, how, [0.3, 0.1], [0], keep=True, run=Run(jobs=1))
    np.testing.assert_allclose(made.theta[0], np.sqrt([(3.5 - 0.1) / 2] * 2), rtol=1e-9)
    np.testing.assert_allclose(made.estimates[0, 0, :2], np.sqrt(0.5 - 0.1), rtol=1e-9)
    for theta, w in (([0.3, 0.1], [1, 1]), (made.theta[0], [0, 1])):
        assert np.linalg.eigvalsh(found.hessian(theta, w))[0] < 0
