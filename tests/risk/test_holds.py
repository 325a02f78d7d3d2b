"""Sums, blocks and permutations, and what is refused."""

import hypothesis.strategies as st
import networks
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from networks import module
from risks import network, problems

from ifcore import data, risk
from ifcore.network import Network
from ifcore.risk import Risk, doubts

seeds = st.integers(0, 2**32 - 1)
runs = settings(max_examples=60, deadline=None, database=None)


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


def test_gauss_newton_is_summed_up_in_blocks(monkeypatch):
    for problem, theta, w in problems(0):
        whole = problem.gauss_newton(theta, w)
        # five examples at a time, of twelve
        monkeypatch.setattr(risk.empirical, "JACOBIAN", 5 * problem.K * problem.d)
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
    one = Risk(risk.linear, risk.squared, X, y)
    two = Risk(risk.linear, risk.squared, X[order], y[order])
    np.testing.assert_allclose(one.losses(theta)[order], two.losses(theta), rtol=1e-13)


def test_later_changes_of_the_arrays_do_not_reach_the_risk():
    X, y = data.regression(0, 5, 2)
    problem = Risk(risk.linear, risk.squared, X, y)
    before = problem.value(np.ones(2))
    X[:] = 0
    assert problem.value(np.ones(2)) == before


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
        (lambda: Risk(risk.linear, risk.squared, X, Y, d=2.5), ValueError, "integer at least 1"),
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
        (
            lambda: Risk(Network(module()), risk.cross_entropy, np.eye(3), [0, 1, 0]),
            ValueError,
            r"cross_entropy needs .* \(K,\)",
        ),
        (
            lambda: Risk(Network(module(2)), risk.cross_entropy, np.eye(3), [0, 1, 2]),
            ValueError,
            "2",
        ),
        (
            lambda: Risk(Network(module(2)), risk.squared, np.eye(3), np.zeros(3)),
            ValueError,
            r"\(3, 2\); got \(3,\)",
        ),
        (
            lambda: Risk(Network(module()), risk.squared, np.ones((3, 4)), np.zeros(3)),
            ValueError,
            "the model must take",
        ),
        (
            lambda: risk.bregman(risk.squared, [1.0, 2], [1.0], 0.0),
            ValueError,
            r"one shape; got \(2,\) and \(1,\)",
        ),
        (
            lambda: networks.problem().gauss_newton_product(np.zeros(21), np.ones(20)),
            ValueError,
            r"V must be \(21,\) or \(21, r\); got \(20,\)",
        ),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_tensors_are_checked_like_arrays(kind):
    problem = Risk(risk.linear, risk.squared, X, Y, lam=0.1)
    good = torch.tensor([0.5, 1.0], dtype=kind)
    np.testing.assert_array_equal(problem.gradient(good), problem.gradient([0.5, 1.0]))
    with pytest.raises(ValueError, match="theta must be finite"):
        problem.gradient(torch.full((2,), torch.nan, dtype=kind))
    with pytest.raises(ValueError, match="weights must be at least 0"):
        problem.hessian(good, -torch.ones(3, dtype=kind))
    with pytest.raises(ValueError, match="weights must not all be 0"):
        problem.gauss_newton(good, torch.zeros(3, dtype=kind))
    for product in (problem.gauss_newton_product, problem.hessian_product):
        with pytest.raises(ValueError, match="weights must not all be 0"):
            product(good, np.ones(2), np.zeros(3))


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: Risk(lambda t, x: 3.0, risk.squared, X, Y), TypeError, "model must give a tensor"),
        (lambda: Risk(risk.linear, lambda f, y: 3.0, X, Y), TypeError, "loss must give a tensor"),
        (
            lambda: Risk(classes, risk.cross_entropy, X, np.eye(3), d=6),
            ValueError,
            r"one class an example, \(n,\); got shape \(3, 3\)",
        ),
    ],
)
def test_what_gives_no_tensor_and_one_hot_classes_are_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_loss_that_is_not_convex_in_the_output_is_named_with_its_example():
    found = Risk(risk.linear, lambda f, y: torch.cos(f - y), np.eye(3), np.array([0.0, 0.0, 3.0]))
    with pytest.raises(risk.NotConvex, match="at example 0 its Hessian has the eigenvalue -1.00e"):
        found.convex_hessians([0.0, 1.0, 0.5])


def test_a_linear_model_trains_side_by_side():
    (layer,) = Risk(risk.linear, risk.squared, np.eye(3), np.zeros(3)).chain()
    assert layer[1:] == (1, 3, 0, None, None)


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_perceptron_trains_side_by_side_unless_more_is_attached_to_it(outputs):
    """A hook does not show in its layers, but in what it gives."""
    found = networks.problem(outputs=outputs)
    first, second = found.chain()
    assert first[1:] == (4, 3, 0, 12, torch.nn.Tanh)
    assert second[1:] == (outputs, 4, 16, 16 + 4 * outputs, None)
    hooked = module(outputs)
    hooked[0].register_forward_hook(lambda _, x, out: 2 * out)
    assert Risk(Network(hooked), found.loss, found.X, found.y).chain() is None


def test_a_loss_of_a_batch_is_a_mean_where_its_shares_add_up_to_one():
    """And not where they add up to less, or more, or are equal, or one of them is nothing."""
    each = np.random.default_rng(0).standard_normal((6, 2))
    for shares in ([0.3, 0.7], [0.2, 0.8]):
        assert doubts._is_mean(each, each @ shares)
    for shares in ([0.2, 0.3], [0.3, 0.9], [0.5, 0.5], [0.0, 1.0], [-0.2, 1.2]):
        assert not doubts._is_mean(each, each @ shares)
