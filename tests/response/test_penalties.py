"""A penalty for each parameter and a linear term, in every estimator, against closed forms."""

import numpy as np
import pytest
import torch

from ifcore import data, flow, influence, proximal, response, risk, solvers, training
from ifcore.network import perceptron
from ifcore.risk import Risk

LAM, B = np.array([0, 0.5, 2.0]), np.array([0.3, -1, 0.2])


@pytest.fixture(params=[0, 1])
def quadratic(request):
    """A least-squares risk with the penalty, weights, H and the right-hand side, a point."""
    rng = np.random.default_rng(request.param)
    X, y = data.regression(rng, 20, 3)
    w = rng.uniform(0.2, 2, 20)
    found = Risk(risk.linear, risk.squared, X, y, lam=LAM, b=B)
    return found, w, (X.T * w) @ X + np.diag(LAM), X.T @ (w * y) - B, rng.standard_normal(3)


@pytest.mark.parametrize("method", ["newton", "newton-cg"])
def test_the_minimiser_and_its_derivative(quadratic, method):
    found, w, H, right, _ = quadratic
    theta = np.linalg.solve(H, right)
    fit = response.minimise(found, weights=w, method=method)
    np.testing.assert_allclose(fit.theta, theta, rtol=1e-9)
    expected = -np.linalg.solve(H, found.gradients(theta).T).T
    np.testing.assert_allclose(influence.influence(found, theta, w), expected, rtol=1e-9)
    step = influence.newton_step(found, np.zeros(3), 4, w)
    w[4] = 0
    np.testing.assert_allclose(step, response.minimise(found, weights=w).theta, rtol=1e-9)


def test_the_proximal_responses(quadratic):
    found, w, H, right, start = quadratic
    near = np.linalg.solve(H + 1.5 * np.eye(3), right + 1.5 * start)
    got = proximal.damped(found, start, w, 1.5).theta
    np.testing.assert_allclose(got, near, rtol=1e-9)
    X, y = found.X.numpy(), found.y.numpy()
    G = X.T @ X + np.diag(LAM + 1.5)  # PBRF's, around θˢ with b = 1
    moved = start - np.linalg.solve(G + (X.T * (w - 1)) @ X, X.T @ ((w - 1) * (X @ start - y)))
    np.testing.assert_allclose(proximal.pbrf(found, start, w, 1.5).theta, moved, rtol=1e-8)


def test_the_solvers_and_their_forms(quadratic):
    found, w, H, _, v = quadratic
    expected = np.linalg.solve(H + 0.7 * np.eye(3), v)
    for solver in (None, "primal", "cg"):
        for matrix in ("gauss_newton", "hessian"):
            got = solvers.solve(found, v, v, w, 0.7, matrix=matrix, solver=solver)
            np.testing.assert_allclose(got.x, expected, rtol=1e-8)
    with pytest.raises(ValueError, match="'primal', 'cg' or 'lissa' .* a λ for each parameter"):
        solvers.solve(found, v, v, w, 0.7, solver="dual")


def test_the_flow_ends_at_the_minimiser(quadratic):
    found, w, H, right, start = quadratic
    end = flow.gradient_flow(found, start, [0.1, 200.0], w)
    values, V = np.linalg.eigh(H)
    limit = np.linalg.solve(H, right)
    early = limit + V @ (np.exp(-0.1 * values) * (V.T @ (start - limit)))
    np.testing.assert_allclose(end, [early, limit], rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("damping", [0.0, 0.4])
def test_training_is_torchs_own_on_the_mean_of_the_whole_risk(outputs, damping):
    rng = np.random.default_rng(outputs)
    net, X = perceptron(3, 3, 4, outputs), rng.standard_normal((9, 3))
    y = rng.standard_normal((9, outputs)) if outputs > 1 else rng.standard_normal(9)
    lam, b, w = rng.uniform(0, 2, net.d), rng.standard_normal(net.d), rng.uniform(0, 2, 9)
    chain = Risk(net, risk.squared, X, y, lam, b)
    mapped = Risk(lambda t, x: net(t, x), risk.squared, X, y, lam, b, d=net.d)
    start = torch.from_numpy(net.theta)
    theta = start.clone().requires_grad_()
    steps = torch.optim.SGD([theta], lr=0.05, momentum=0.9, nesterov=True)
    for _ in range(12):
        steps.zero_grad()
        value = chain.tensors.losses(theta) @ torch.from_numpy(w)
        value = value + (torch.from_numpy(lam) * theta**2).sum() / 2 + torch.from_numpy(b) @ theta
        ((value + damping / 2 * ((theta - start) ** 2).sum()) / 9).backward()
        steps.step()
    run = training.Training(12, 0.05)
    for problem in (chain, mapped):
        got = training.retrain(problem, run, net.theta, w, damping=damping).theta
        np.testing.assert_allclose(got, theta.detach(), rtol=1e-10, atol=1e-13)
