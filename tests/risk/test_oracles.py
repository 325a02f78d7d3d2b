"""Derivatives against finite differences, losses against mpmath and closed forms."""

import math

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
import scipy
import torch
from hypothesis import given, settings
from risks import problems

from ifcore import risk

seeds = st.integers(0, 2**32 - 1)
runs = settings(max_examples=60, deadline=None, database=None)


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
def test_gauss_newton_against_its_definition(seed):
    for problem, theta, w in problems(seed):
        # (n, outputs, d) transposed
        J = difference(lambda t: problem.outputs(t).reshape(12, -1).T, theta, 1e-3)
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


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("output", [-800.0, -50.0, -30.0, -1e-3, 0.0, 1.0, 20.0, 37.0, 800.0])
def test_the_losses_and_their_derivatives_keep_their_digits(output, label):
    """Logistic, and cross-entropy of two classes at (0, f), which is the same function of f."""
    sign = 1 - 2 * label
    with mpmath.workdps(400):
        x = sign * mpmath.mpf(output)
        p = 1 / (1 + mpmath.exp(-x))
        truth = [mpmath.log1p(mpmath.exp(x)), sign * p, p / (1 + mpmath.exp(x))]
    f = torch.tensor(output, dtype=torch.float64)
    y = torch.tensor(float(label), dtype=torch.float64)

    def two_classes(f, y):
        return risk.cross_entropy(torch.stack([torch.zeros_like(f), f]), y)

    for loss in (risk.logistic, two_classes):
        for function, expected in zip(
            [loss, torch.func.grad(loss), torch.func.hessian(loss)], truth
        ):
            assert function(f, y).item() == pytest.approx(float(expected), rel=2e-15, abs=1e-303)


def test_bregman_of_the_squared_loss_and_of_softmax():
    rng = np.random.default_rng(0)
    u, v, y = rng.standard_normal((3, 4))
    assert risk.bregman(risk.squared, u, v, y).item() == pytest.approx(
        np.sum((u - v) ** 2) / 2, rel=1e-13
    )
    p, q = (np.exp(a) / np.exp(a).sum() for a in (u, v))
    divergence = np.sum(q * np.log(q / p))  # Kullback–Leibler, of the second from the first
    for label in range(4):
        assert risk.bregman(risk.cross_entropy, u, v, label).item() == pytest.approx(
            divergence, rel=1e-12
        )


def test_poisson_against_scipys_log_probability():
    """ℓ is −log P(y) up to log y!, which no output changes."""
    f, y = np.linspace(-3, 3, 13), np.arange(13) % 5
    ours = [risk.poisson(torch.tensor(u), torch.tensor(float(v))).item() for u, v in zip(f, y)]
    truth = -scipy.stats.poisson.logpmf(y, np.exp(f)) - scipy.special.gammaln(y + 1)
    np.testing.assert_allclose(ours, truth, rtol=1e-12, atol=1e-12)


def test_poisson_of_several_counts_is_the_sum_over_them():
    f, y = np.array([0.3, -1.2, 2.0]), np.array([1.0, 0.0, 5.0])
    each = np.exp(f) - y * f
    found = risk.poisson(torch.tensor(f), torch.tensor(y)).item()
    assert found == pytest.approx(math.fsum(each), rel=1e-15)


@pytest.mark.parametrize("loss", [risk.squared, risk.logistic, risk.poisson, risk.cross_entropy])
def test_the_slope_that_a_loss_brings_is_its_gradient(loss):
    rng = np.random.default_rng(0)
    outputs = 3 if loss is risk.cross_entropy else 1
    f, y = 3 * rng.standard_normal((2, 6, outputs)), rng.integers(0, 2, 6).astype(float)
    targets, out = loss.targets(y, outputs), np.empty_like(f)
    before = f.copy()
    loss.slope(f, targets, out)
    one = torch.func.vmap(torch.func.grad(loss))
    for fit, slopes in zip(f, out):
        given = torch.tensor(fit) if outputs == 3 else torch.tensor(fit[:, 0])
        truth = one(given, torch.tensor(y)).numpy().reshape(6, -1)
        np.testing.assert_allclose(slopes, truth, rtol=1e-13, atol=1e-15)
    np.testing.assert_array_equal(f, before)


@pytest.mark.parametrize("loss", [risk.squared, risk.poisson])
def test_the_slope_of_several_outputs_is_that_of_each(loss):
    f, y = np.random.default_rng(0).standard_normal((2, 2, 6, 3))
    out, y = np.empty_like(f), y[0]
    loss.slope(f, loss.targets(y, 3), out)
    mean = f if loss is risk.squared else np.exp(f)
    np.testing.assert_allclose(out, mean - y, rtol=1e-13, atol=1e-15)


def test_the_slope_of_softmax_neither_over_nor_underflows():
    y = np.arange(6.0) % 3
    f = np.random.default_rng(0).standard_normal((2, 6, 3))
    shifts = 1e3 * np.arange(-6, 6).reshape(2, 6, 1)
    one, two = np.empty_like(f), np.empty_like(f)
    risk.cross_entropy.slope(f, risk.cross_entropy.targets(y, 3), one)
    risk.cross_entropy.slope(f + shifts, risk.cross_entropy.targets(y, 3), two)
    np.testing.assert_allclose(two, one, rtol=0, atol=1e-12)
    far = np.array([[[0.0, 800.0, -800.0]]])
    risk.cross_entropy.slope(far, np.zeros((1, 3)), out := np.empty_like(far))
    np.testing.assert_array_equal(out, [[[0, 1, 0]]])


def test_bregman_of_lists_has_all_their_digits():
    found = risk.bregman(risk.squared, [0.1, 0.2], [0.3, 0.7], [1, 2])
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx((0.2**2 + 0.5**2) / 2, rel=1e-14)
