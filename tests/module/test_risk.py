"""`ifcore.risk`: derivatives against finite differences and each other, invariances, refusals."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from ifcore import data, risk
from ifcore.risk import Risk
from ifcore.weights import without

seeds = st.integers(0, 2**32 - 1)
runs = settings(max_examples=60, deadline=None, database=None)


def network(theta, x):
    """Two tanh units, two outputs, for x of length 3: 8 + 4 = 12 parameters and no structure to rely on."""
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


def difference(function, theta, step):
    """Central differences in each coordinate, Richardson-extrapolated once."""
    columns = []
    for k in range(len(theta)):
        e = np.zeros(len(theta))
        e[k] = step
        one = (function(theta + e) - function(theta - e)) / (2 * step)
        two = (function(theta + 2 * e) - function(theta - 2 * e)) / (4 * step)
        columns.append((4 * one - two) / 3)
    return np.array(columns).T


@runs
@given(seeds)
def test_gradients_and_hessians_against_differences(seed):
    for problem, theta, w in problems(seed):
        gradients, H = problem.gradients(theta), problem.hessian(theta, w)
        np.testing.assert_allclose(
            gradients, difference(problem.losses, theta, 1e-3), rtol=1e-7, atol=1e-8
        )
        numeric = difference(lambda t: problem.gradient(t, w), theta, 1e-3)
        np.testing.assert_allclose(H, numeric, rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(H, H.T, rtol=0, atol=1e-13 * np.abs(H).max())


@runs
@given(seeds)
def test_the_weighted_risk_is_the_weighted_sum(seed):
    for problem, theta, w in problems(seed):
        penalty = problem.lam / 2 * theta @ theta
        assert problem.value(theta, w) == pytest.approx(
            w @ problem.losses(theta) + penalty, rel=1e-13
        )
        expected = w @ problem.gradients(theta) + problem.lam * theta
        scale = w @ np.linalg.norm(problem.gradients(theta), axis=1)
        np.testing.assert_allclose(problem.gradient(theta, w), expected, rtol=0, atol=1e-13 * scale)
        assert problem.value(theta) == problem.value(theta, np.ones(12))


@runs
@given(seeds)
def test_gauss_newton_is_the_hessian_of_a_linear_model_and_of_no_other(seed):
    *linear, smooth, _ = problems(seed)
    for problem, theta, w in linear:
        H = problem.hessian(theta, w)
        np.testing.assert_allclose(
            problem.gauss_newton(theta, w), H, rtol=0, atol=1e-13 * np.abs(H).max()
        )
    problem, theta, w = smooth
    H, G = problem.hessian(theta, w), problem.gauss_newton(theta, w)
    assert np.abs(H - G).max() > 1e-6 * np.abs(G).max()
    assert np.linalg.eigvalsh(G).min() >= problem.lam * (1 - 1e-9)


@runs
@given(seeds)
def test_gauss_newton_against_its_definition(seed):
    for problem, theta, w in problems(seed):
        J = difference(
            lambda t: problem.outputs(t).reshape(12, -1).T, theta, 1e-3
        )  # (n, outputs, d) transposed
        J = np.moveaxis(J, 1, 0) if J.ndim == 3 else J
        f = problem.outputs(theta).reshape(12, -1)
        if problem.loss is risk.squared:
            inner = np.broadcast_to(np.eye(f.shape[1]), (12, f.shape[1], f.shape[1]))
        elif problem.loss is risk.logistic:
            p = 1 / (1 + np.exp(-f))
            inner = (p * (1 - p))[:, :, None]
        else:
            p = np.exp(f) / np.exp(f).sum(1, keepdims=True)
            inner = np.array([np.diag(q) - np.outer(q, q) for q in p])
        jacobians = [
            difference(lambda t, i=i: problem.outputs(t).reshape(12, -1)[i], theta, 1e-3)
            for i in range(12)
        ]
        G = sum(
            wi * Ji.T @ Hi @ Ji for wi, Ji, Hi in zip(w, jacobians, inner)
        ) + problem.lam * np.eye(problem.d)
        np.testing.assert_allclose(problem.gauss_newton(theta, w), G, rtol=1e-7, atol=1e-8)


def test_gauss_newton_is_summed_up_in_blocks(monkeypatch):
    for problem, theta, w in problems(0):
        whole = problem.gauss_newton(theta, w)
        monkeypatch.setattr(
            risk, "JACOBIAN", 5 * problem.K * problem.d
        )  # five examples at a time, of twelve
        np.testing.assert_allclose(
            problem.gauss_newton(theta, w), whole, rtol=0, atol=1e-14 * np.abs(whole).max()
        )
        monkeypatch.undo()


@runs
@given(seeds)
def test_permuting_the_examples_permutes_the_losses(seed):
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 12, 3)
    order, theta = rng.permutation(12), rng.standard_normal(3)
    one, two = (
        Risk(risk.linear, risk.squared, X, y),
        Risk(risk.linear, risk.squared, X[order], y[order]),
    )
    np.testing.assert_allclose(one.losses(theta)[order], two.losses(theta), rtol=1e-13)


def test_later_changes_of_the_arrays_do_not_reach_the_risk():
    X, y = data.regression(0, 5, 2)
    problem = Risk(risk.linear, risk.squared, X, y)
    before = problem.value(np.ones(2))
    X[:] = 0
    assert problem.value(np.ones(2)) == before


def test_without():
    np.testing.assert_array_equal(without(4, 2), [1, 1, 0, 1])
    np.testing.assert_array_equal(without(4, [0, 3]), [0, 1, 1, 0])


def classes(theta, x):
    return theta.reshape(3, 2) @ x


X, Y = np.eye(3)[:, :2], np.arange(3.0)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (
            lambda: Risk(risk.linear, risk.squared, X * np.nan, Y),
            ValueError,
            "X must be finite; got 6",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, X, [1, 2, np.inf]),
            ValueError,
            "y must be finite",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, X, Y[:2]),
            ValueError,
            r"one entry for each of the 3 .* \(2,\)",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, X[:0], Y[:0]),
            ValueError,
            r"at least one example .* \(0, 2\)",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, X, Y, lam=-1),
            ValueError,
            "lam must be a number at least 0; got -1",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, X, Y, lam=np.nan),
            ValueError,
            "lam must be finite",
        ),
        (
            lambda: Risk(network, risk.squared, X[:, None], Y),
            ValueError,
            "d, the number of parameters, must be given",
        ),
        (
            lambda: Risk(risk.linear, risk.logistic, X, [1, -1, 1]),
            ValueError,
            "labels 0 and 1 for the logistic loss",
        ),
        (
            lambda: Risk(classes, risk.cross_entropy, X, [0, 0.5, 1], d=6),
            ValueError,
            "classes 0, …, 2 for this model",
        ),
        (
            lambda: Risk(classes, risk.cross_entropy, X, [0, 1, 3], d=6),
            ValueError,
            r"classes 0, …, 2 .* got \[0. 1. 3.\]",
        ),
        (lambda: Risk(classes, risk.squared, X, Y, d=6), ValueError, r"= \(3, 3\); got \(3,\)"),
        (
            lambda: Risk(risk.linear, risk.squared, X, np.ones((3, 2))),
            ValueError,
            r"= \(3,\); got \(3, 2\)",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, X, Y, d=3),
            ValueError,
            r"theta \(3,\) and an example of shape \(2,\)",
        ),
        (lambda: Risk(risk.linear, risk.squared, X, Y, d=2.5), TypeError, "integer"),
        (
            lambda: Risk(risk.linear, lambda f, y: torch.stack([f, y]), X, Y),
            ValueError,
            r"one number .* shape \(2,\)",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, X, Y).value([1, 2, 3]),
            ValueError,
            "length d = 2; got 3",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, X, Y).losses([np.nan, 0]),
            ValueError,
            "theta must be finite",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, X, Y).hessian([0, 0], -Y),
            ValueError,
            "weights must be at least 0",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, X, Y).hessian([0, 0], np.ones((2, 3))),
            ValueError,
            "one vector of length 3",
        ),
        (lambda: without(4, 4), IndexError, "remove must lie in 0, …, 3; got 4"),
        (lambda: without(4, -1), IndexError, "remove must lie in 0, …, 3; got -1"),
        (lambda: without(4, [1, 1]), ValueError, "remove must not repeat an index"),
        (lambda: without(4, 1.0), TypeError, "remove must be an index"),
        (lambda: without(4, []), TypeError, "remove must be an index"),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()
