"""Influence against refits, explicit matrices, differences of responses, and statsmodels."""

import explicit
import networks
import numpy as np
import pytest
import statsmodels.api as sm
import torch
from explicit import KINDS

from ifcore import data, influence, proximal, response, risk
from ifcore.risk import Risk


def softmax(theta, x):
    return theta.reshape(3, 3) @ x


def bounded(theta, x):
    return torch.tanh(x @ theta)


def problems(seed):
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 15, 3)
    yield Risk(risk.linear, risk.squared, X, y, lam=0.5)
    yield Risk(risk.linear, risk.logistic, *data.classification(rng, 15, 3), lam=0.5)
    yield Risk(softmax, risk.cross_entropy, X, rng.integers(0, 3, 15), lam=0.5, d=9)
    # its Hessian is not its Gauss–Newton matrix
    yield Risk(bounded, risk.squared, X, np.tanh(y) / 2, lam=0.5)


@pytest.mark.parametrize("seed", range(5))
def test_influences_against_refits(seed):
    """Central differences of converged refits in one weight, Richardson-extrapolated twice."""
    for problem in problems(seed):
        rng = np.random.default_rng(seed)
        w = rng.uniform(0.5, 1.5, 15)
        theta = response.minimise(problem, weights=w).theta
        J = influence.influence(problem, theta, w)
        L = influence.loss_influence(problem, theta, w)
        for j in (0, 8):
            steps = 0.1 * np.array([1, -1, 0.5, -0.5, 0.25, -0.25])
            refits = response.minimise(problem, theta, w + steps[:, None] * np.eye(15)[j]).theta
            for values, expected in (
                (refits, J[j]),
                (np.array([problem.losses(t) for t in refits]), L[:, j]),
            ):
                quotients = (values[0::2] - values[1::2]) / (2 * steps[0::2, None])
                once = (4 * quotients[1:] - quotients[:-1]) / 3
                twice = (16 * once[1] - once[0]) / 15
                size = np.abs(J).max() * max(1, np.abs(values).max())
                assert np.abs(twice - expected).max() <= 1e-7 * size


def test_the_newton_step_of_logistic_regression_against_statsmodels():
    """One iteration of reweighted least squares on the data without a point is one Newton step."""
    rng = np.random.default_rng(3)
    X = data.design(rng, 80, 3, 3)
    y = (rng.random(80) < 1 / (1 + np.exp(-X @ [0.5, -0.3, 0.2]))).astype(float)
    problem = Risk(risk.linear, risk.logistic, X, y)
    theta = response.minimise(problem).theta
    for j in range(80):
        rest = np.delete(X, j, 0), np.delete(y, j)
        p = 1 / (1 + np.exp(-rest[0] @ theta))
        working = rest[0] @ theta + (rest[1] - p) / (p * (1 - p))
        expected = sm.WLS(working, rest[0], p * (1 - p)).fit().params
        np.testing.assert_allclose(
            influence.newton_step(problem, theta, j), expected, rtol=1e-10, atol=1e-12
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damping", [0.1, 100.0])
def test_damped_influence_and_effects_against_explicit_matrices(kind, damping):
    found, module, theta, w = explicit.problem(kind, 7, lam=0.3)
    test, *_ = explicit.problem(kind, 8, n=6)
    test = Risk(found.model, found.loss, test.X, test.y)
    J, g, _, G = explicit.explicit(found, module, theta, w)
    Jt, gt, _, _ = explicit.explicit(test, module, theta, np.ones(6))
    gradients = np.einsum("nkd,nk->nd", J, g)
    moves = -np.linalg.solve(G + damping * np.eye(found.d), gradients.T).T
    outputs = np.einsum("tkd,jd->tkj", Jt, moves)
    losses, own = np.einsum("tk,tkj->tj", gt, outputs), np.einsum("jd,jd->j", gradients, moves)
    for name in ("primal", "dual", "cg"):
        options = {"solver": name}
        tolerance = 1e-7 if name == "cg" else 1e-10
        np.testing.assert_allclose(
            influence.damped_influence(found, theta, w, damping, **options),
            moves,
            rtol=0,
            atol=tolerance * np.abs(moves).max(),
        )
        effects = influence.damped_effects(found, theta, w, damping, test=test, **options)
        assert effects.solver == name
        for mine, truth in (
            (effects.outputs, outputs),
            (effects.losses, losses),
            (effects.own, own),
        ):
            np.testing.assert_allclose(
                mine.reshape(truth.shape), truth, rtol=0, atol=tolerance * np.abs(truth).max()
            )
    itself = influence.damped_effects(found, theta, w, damping)
    np.testing.assert_allclose(np.diag(itself.losses), own, rtol=0, atol=1e-10 * np.abs(own).max())
    assert (own <= 0).all()


@pytest.mark.parametrize("kind", ["squared", "softmax", "gated"])
def test_the_hessian_in_place_of_gauss_newton(kind):
    found, _, theta, w = explicit.problem(kind, 3, lam=0.2)
    H = found.hessian(theta, w)
    damping = 1.0 + 2 * max(0.0, -np.linalg.eigvalsh(H)[0])
    truth = -np.linalg.solve(H + damping * np.eye(found.d), found.gradients(theta).T).T
    for name in ("primal", "cg"):
        moves = influence.damped_influence(found, theta, w, damping, matrix="hessian", solver=name)
        np.testing.assert_allclose(moves, truth, rtol=0, atol=1e-8 * np.abs(truth).max())


@pytest.mark.parametrize("kind", KINDS)
def test_the_influence_is_the_derivative_of_the_response(kind):
    """At a θˢ stationary for nothing, weights that are not 1, by differences of fourth order."""
    found, _, theta, base = explicit.problem(kind, 13, lam=0.2)
    damping, j, step = 2.0, 6, 4e-3
    weights = base + step * np.array([[-2], [-1], [1], [2]]) * np.eye(found.n)[j]
    ends = proximal.pbrf(found, theta, weights, damping, base, tol=1e-8).theta
    slope = (ends[0] - 8 * ends[1] + 8 * ends[2] - ends[3]) / (12 * step)
    expected = influence.damped_influence(found, theta, base, damping)[j]
    np.testing.assert_allclose(slope, expected, rtol=0, atol=1e-5 * np.linalg.norm(expected))


def test_effects_on_other_examples_of_the_same_number():
    train, rng = networks.problem(12), np.random.default_rng(3)
    test = Risk(train.model, risk.squared, rng.standard_normal((12, 3)), rng.standard_normal(12))
    theta = train.model.theta
    found = influence.damped_effects(train, theta, damping=1.0, test=test)
    moves = np.linalg.solve(train.gauss_newton(theta) + np.eye(21), train.gradients(theta).T)
    np.testing.assert_allclose(
        found.outputs.reshape(12, 12), -test.jacobian(theta) @ moves, rtol=1e-10, atol=1e-12
    )
