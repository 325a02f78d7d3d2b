"""Proximal responses against an optimiser, closed forms and autograd."""

import networks
import numpy as np
import pytest
import torch
from explicit import KINDS, problem
from scipy.optimize import minimize

from ifcore import data, influence, proximal, risk
from ifcore.risk import Risk
from ifcore.weights import without


@pytest.mark.parametrize("seed", range(5))
def test_pbrf_of_least_squares_is_the_linearised_shift_over_one_minus_leverage(seed):
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 20, 4)
    theta, damping, j = 3 * rng.standard_normal(4), 10 ** rng.uniform(-2, 1), rng.integers(20)
    found = Risk(risk.linear, risk.squared, X, y, lam=0.1)
    M = X.T @ X + (0.1 + damping) * np.eye(4)
    h = X[j] @ np.linalg.solve(M, X[j])
    shift = proximal.pbrf(found, theta, without(20, j), damping).theta - theta
    linear = -influence.damped_influence(found, theta, damping=damping)[j]
    np.testing.assert_allclose(shift, linear / (1 - h), rtol=0, atol=1e-9 * np.linalg.norm(shift))
    exact = np.linalg.solve(M - np.outer(X[j], X[j]), X[j] * (X[j] @ theta - y[j]))
    np.testing.assert_allclose(shift, exact, rtol=0, atol=1e-9 * np.linalg.norm(shift))


def proximal_value(found, theta, start, damping, w, base):
    """The objective of pbrf by its definition, (base None: of `damped`)."""
    move = theta - start
    if base is None:
        return found.value(theta, w) + damping / 2 * move @ move
    value = base @ found.bregman(theta, start) + (w - base) @ found.losses(theta)
    return value + (found.lam + damping) / 2 * move @ move


@pytest.mark.parametrize("kind", KINDS)
def test_proximal_responses_against_a_direct_optimiser(kind):
    found, _, start, _ = problem(kind, 11, lam=0.2)
    base, w = np.ones(found.n), without(found.n, 4)
    damping = 2.0 + 2 * max(0.0, -np.linalg.eigvalsh(found.hessian(start, w))[0])
    for respond, b in ((proximal.pbrf, base), (proximal.damped, None)):
        mine = respond(found, start, w, damping, tol=1e-9)
        peer = minimize(
            lambda t: proximal_value(found, t, start, damping, w, b),
            start,
            method="BFGS",
            options={"gtol": 1e-7},
        )
        value = proximal_value(found, mine.theta, start, damping, w, b)
        assert value <= peer.fun + 1e-12 * abs(peer.fun)
        np.testing.assert_allclose(
            mine.theta, peer.x, rtol=0, atol=1e-5 * np.linalg.norm(mine.theta - start) + 1e-7
        )
        step, v = 1e-5, np.random.default_rng(0).standard_normal(found.d)
        slope = (
            proximal_value(found, mine.theta + step * v, start, damping, w, b)
            - proximal_value(found, mine.theta - step * v, start, damping, w, b)
        ) / (2 * step)
        assert abs(slope) <= 1e-6 * np.linalg.norm(found.gradients(start)[4]) * np.linalg.norm(v)


@pytest.mark.parametrize("how", ["pbrf", "damped"])
def test_an_unfinished_response_reports_its_gradient_in_the_units_it_documents(how):
    """Against the objective as the docstring writes it, by autograd."""
    found = networks.problem(lam=0.5)
    start, w = found.model.theta, np.linspace(0, 1.5, 12)
    got = getattr(proximal, how)(found, start, w, 0.1, max_steps=1, strict=False)
    assert got.steps == 1 and got.status == "max_steps"
    theta = torch.tensor(got.theta, requires_grad=True)
    move, weights = theta - torch.from_numpy(start), torch.from_numpy(w)
    losses = found.tensors.losses(theta)
    sizes = np.linalg.norm(found.gradients(start), axis=1)
    if how == "damped":
        value = weights @ losses + 0.25 * theta @ theta + 0.05 * move @ move
        scale = w @ sizes + 0.5 * np.linalg.norm(start)
    else:
        bregman = torch.func.vmap(
            lambda u, v, y: risk.squared(u, y) - risk.squared(v, y) - ((v - y) * (u - v)).sum()
        )
        outputs = [found.tensors.outputs(t) for t in (theta, torch.from_numpy(start))]
        value = bregman(*outputs, found.y).sum() + (weights - 1) @ losses + 0.3 * move @ move
        scale = np.abs(w - 1) @ sizes
    (gradient,) = torch.autograd.grad(value, theta)
    np.testing.assert_allclose(got.gradient_norm, gradient.norm().item() / scale, rtol=1e-9)


@pytest.mark.parametrize("respond", [proximal.damped, proximal.pbrf])
def test_a_response_does_not_depend_on_those_beside_it(respond):
    """Of several minima that a network may have, the same one with others as by itself."""
    found, _, start, _ = problem("softmax", 11, lam=0.05)
    W = np.array([without(found.n, j) for j in range(5)])
    options = {"tol": 1e-6, "strict": False, "block": 2}
    beside = respond(found, start, W, 0.1, **options)
    alone = respond(found, start, W[4], 0.1, **options)
    size = np.linalg.norm(alone.theta - start)
    np.testing.assert_allclose(beside.theta[4], alone.theta, rtol=0, atol=1e-12 * size)


def test_a_response_stays_on_the_branch_where_it_begins():
    """Σ w_i ½(θ² − 4)² + ½ damping θ² has two minimisers, θ² = 4 − damping/(2 Σ w_i)."""
    found = Risk(lambda t, x: t[0] ** 2 * x[0], risk.squared, np.ones((2, 1)), [4.0, 4.0])
    for side in (-1, 1):
        begin = np.array([3.0 * side])
        for w in ([1.0, 1.0], [1.0, 0.5], [0.0, 1.0]):
            fit = proximal.damped(found, [0.0], w, 0.1, begin=begin)
            assert abs(fit.theta[0] - side * (4 - 0.05 / sum(w)) ** 0.5) < 1e-9
            begin = fit.theta
    with pytest.raises(ValueError, match="begin must have length d = 1; got 2"):
        proximal.damped(found, [0.0], np.ones(2), 0.1, begin=[0.0, 1.0])
