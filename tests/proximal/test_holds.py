"""Proximal responses: blocks, what they report, and what they refuse."""

import networks
import numpy as np
import pandas as pd
import pytest
import torch
from networks import module, problem, welsch

from ifcore import proximal, risk, solvers
from ifcore.network import Network
from ifcore.risk import NotConvex, Risk
from ifcore.runs import NotConverged
from ifcore.weights import without


@pytest.mark.parametrize(
    "call, error, words",
    [
        (
            lambda: proximal.pbrf(problem(), np.zeros(21), np.ones(11), 1.0),
            ValueError,
            r"weights must have shape \(12,\)",
        ),
        (
            lambda: proximal.pbrf(problem(), np.zeros(20), np.ones(12), 1.0),
            ValueError,
            "start must have length d = 21; got 20",
        ),
        (
            lambda: proximal.pbrf(problem(), np.zeros(21), np.ones(12), -1.0, preconditioner=False),
            ValueError,
            "damping must be a number at least 0; got -1",
        ),
        (
            lambda: proximal.damped(
                problem(), np.zeros(21), np.ones(12), 0.0, preconditioner=False
            ),
            ValueError,
            "damping must be positive; got 0",
        ),
        (
            lambda: proximal.damped(problem(), np.zeros(21), np.ones(12), 1.0, tol=0),
            ValueError,
            "tol must be positive; got 0",
        ),
        (
            lambda: proximal.damped(problem(), np.zeros(21), np.ones(12), 1.0, block=0),
            ValueError,
            "block must be an integer at least 1",
        ),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("respond", [proximal.pbrf, proximal.damped])
def test_what_is_no_risk_and_what_is_no_option_is_named(respond):
    with pytest.raises(TypeError, match="risk must be a Risk; got int"):
        respond(3, np.zeros(21), np.ones(12), 1.0)
    with pytest.raises(TypeError, match="options must be among tol, max_steps, .*; got 'steps'"):
        respond(problem(), np.zeros(21), np.ones(12), 1.0, steps=3)


def test_nothing_removed_is_nothing_moved():
    found = problem(lam=0.1)
    theta = found.model.theta
    still = proximal.pbrf(found, theta, np.ones(12), 1.0)
    np.testing.assert_array_equal(still.theta, theta)
    assert still.gradient_norm < 1e-15 and still.steps == 0 and still.status == "converged"


@pytest.mark.parametrize("respond", [proximal.pbrf, proximal.damped])
def test_many_responses_at_once_are_each_alone_in_any_blocks(respond):
    found = problem(lam=0.1)
    theta, W = found.model.theta, 1 - np.eye(12)[:5]
    together = respond(found, theta, W, 2.0, tol=1e-9)
    assert together.theta.shape == (5, 21)
    assert (together.gradient_norm <= 1e-9).all()
    assert (together.status == "converged").all()
    others = respond(found, theta, W, 2.0, tol=1e-9, block=2, preconditioner=False)
    np.testing.assert_allclose(
        others.theta, together.theta, rtol=0, atol=1e-7 * np.linalg.norm(together.theta - theta)
    )
    alone = respond(found, theta, W[3], 2.0, tol=1e-9)
    assert alone.theta.shape == (21,)
    np.testing.assert_allclose(
        alone.theta, together.theta[3], rtol=0, atol=1e-7 * np.linalg.norm(alone.theta - theta)
    )


def test_an_unfinished_response_is_reported_and_kept():
    found = problem(lam=0.1)
    with pytest.raises(
        NotConverged,
        match="2 of 2 fits did not end well; the first, weight vector 0, is 'max_steps'",
    ) as failure:
        proximal.pbrf(found, found.model.theta, 1 - np.eye(12)[:2], 0.05, max_steps=1, tol=1e-12)
    kept = failure.value.reached
    assert kept.theta.shape == (2, 21)
    assert (kept.gradient_norm > 1e-12).all()
    assert list(kept.status) == ["max_steps"] * 2
    same = proximal.pbrf(
        found, found.model.theta, 1 - np.eye(12)[:2], 0.05, max_steps=1, tol=1e-12, strict=False
    )
    np.testing.assert_array_equal(same.theta, kept.theta)


def test_a_response_that_does_not_exist_diverges_and_says_so():
    """n = 1, f = θ₁θ₂, y = −3: the objective is −3θ₁θ₂ + (λ/2)‖θ‖², unbounded below for λ < 3."""
    # the second says nothing
    product = Risk(
        lambda theta, x: x[0] * theta[0] * theta[1], risk.squared, [[1.0], [0.0]], [-3.0, 0.0], d=2
    )
    w = without(2, 0)
    lost = proximal.pbrf(product, [0.1, 0.0], w, 1.0, strict=False)
    assert lost.status in ("diverged", "max_steps") and lost.curvature < 0
    with pytest.raises(NotConverged, match="damping must grow by more than"):
        proximal.pbrf(product, [0.1, 0.0], w, 1.0)
    held = proximal.pbrf(product, [0.1, 0.0], w, 5.0)
    assert held.status == "converged" and held.curvature > 0


def test_fits_that_end_at_different_steps_do_not_disturb_each_other():
    found = problem()
    W = np.ones((4, 12))
    W[1, 3], W[2] = 0.999, without(12, 5)
    W[3] = without(12, 0)
    got = proximal.pbrf(found, found.model.theta, W, 0.5)
    assert got.steps[0] == 0 and len(set(got.steps)) > 2
    for w, theta, steps in zip(W, got.theta, got.steps):
        alone = proximal.pbrf(found, found.model.theta, w, 0.5)
        np.testing.assert_allclose(theta, alone.theta, rtol=1e-8, atol=1e-10)
        assert steps == alone.steps


def test_a_tolerance_below_rounding_stalls_at_the_best_point():
    found = problem()
    got = proximal.pbrf(found, found.model.theta, without(12, 5), 0.5, tol=1e-30, strict=False)
    assert got.status == "stalled" and got.gradient_norm < 1e-13
    good = proximal.pbrf(found, found.model.theta, without(12, 5), 0.5)
    np.testing.assert_allclose(got.theta, good.theta, rtol=1e-8)


def test_a_response_refuses_a_loss_that_is_not_convex_without_a_preconditioner_too():
    rng = np.random.default_rng(0)
    found = Risk(Network(module()), welsch, rng.standard_normal((12, 3)), np.r_[np.zeros(11), 3.0])
    with pytest.raises(NotConvex, match="at example 11"):
        proximal.pbrf(found, found.model.theta, np.ones(12), 1.0, preconditioner=False)


def test_a_preconditioner_that_does_not_fit_the_memory_is_not_formed(monkeypatch):
    found, w = problem(), without(12, 5)
    full = proximal.pbrf(found, found.model.theta, w, 0.5)
    monkeypatch.setattr(
        solvers, "factor", lambda *_, **__: pytest.fail("a factor in spite of the memory")
    )
    lean = proximal.pbrf(found, found.model.theta, w, 0.5, memory=1000)
    np.testing.assert_allclose(lean.theta, full.theta, rtol=1e-8, atol=1e-10)


def test_a_response_without_bound_ends_as_diverged():
    product = Risk(
        lambda theta, x: x[0] * theta[0] * theta[1], risk.squared, [[1.0], [0.0]], [-3.0, 0.0], d=2
    )
    lost = proximal.pbrf(product, [0.1, 0.0], without(2, 0), 1.0, max_steps=200, strict=False)
    assert lost.status == "diverged" and lost.steps < 200


@pytest.mark.parametrize("respond", [proximal.pbrf, proximal.damped])
def test_labels_of_weights_must_agree_with_those_of_the_data(respond):
    rows = list("abc")
    X = pd.DataFrame({"one": 1.0, "x": [1.0, 2, 4]}, index=rows)
    found = Risk(risk.linear, risk.squared, X, pd.Series([1.0, 3, 2], index=rows), lam=1.0)
    w = pd.Series([1.0, 0.0, 1.0], index=["b", "a", "c"])
    with pytest.raises(ValueError, match="must have the same labels .* at row 0"):
        respond(found, np.zeros(2), w, 1.0)
    assert respond(found, np.zeros(2), w.set_axis(rows), 1.0).status == "converged"


@pytest.mark.parametrize("part", ["loss", "model"])
@pytest.mark.parametrize("respond", [proximal.pbrf, proximal.damped])
def test_what_has_no_second_derivative_is_refused(respond, part):
    parts = {"loss": (risk.linear, lambda f, y: networks.Once.apply(f - y))}
    parts["model"] = (lambda t, x: networks.Once.apply(t @ x), risk.squared)
    with pytest.warns(UserWarning, match="second derivative"):
        found = Risk(*parts[part], np.eye(3), np.zeros(3), lam=1.0, d=3)
    for options in ({}, {"preconditioner": False}):
        with pytest.raises(risk.NotDifferentiable):
            respond(found, np.ones(3), np.ones(3), 1.0, **options)


def test_an_example_that_is_not_finite_is_refused_unless_it_does_not_count():
    X = np.array([[1.0], [-1.0], [2.0]])
    found = Risk(lambda t, x: torch.log(x[0]) * t[0], risk.squared, X, np.ones(3), lam=1.0)
    with pytest.raises(risk.NotFinite, match="example 1 must have a finite loss"):
        proximal.damped(found, [0.5], np.ones(3), 1.0)
    assert proximal.damped(found, [0.5], np.ones(3), 1.0, strict=False).status == "not finite"
    assert proximal.damped(found, [0.5], without(3, 1), 1.0).status == "converged"


def test_a_penalty_for_each_parameter_is_in_the_response_too():
    rng = np.random.default_rng(2)
    X, y, lam = rng.standard_normal((15, 3)), rng.standard_normal(15), np.array([0.0, 0.5, 2.0])
    theta, j, damping = rng.standard_normal(3), 4, 0.7
    found = Risk(risk.linear, risk.squared, X, y, lam=lam)
    M = X.T @ X - np.outer(X[j], X[j]) + np.diag(lam + damping)
    expected = np.linalg.solve(M, X[j] * (X[j] @ theta - y[j]))
    shift = proximal.pbrf(found, theta, without(15, j), damping).theta - theta
    np.testing.assert_allclose(shift, expected, rtol=0, atol=1e-10 * np.linalg.norm(expected))


def test_an_example_that_counts_on_neither_side_is_left_out_of_the_bregman_response():
    X = np.array([[1.0, 0.3], [-1.0, 0.1], [2.0, -0.4], [0.5, 1.0]])

    def logarithm(t, x):
        return torch.log(x[0]) * t[0] + x[1] * t[1]

    whole = Risk(logarithm, risk.squared, X, np.ones(4), lam=1.0, d=2)
    part = whole.subset([0, 2, 3])
    W, base = np.array([[1.0, 0, 0, 1], [1, 0, 1, 0]]), np.array([1.0, 0, 1, 1])
    found = proximal.pbrf(whole, [0.5, 0.2], W, 1.0, base)
    kept = proximal.pbrf(part, [0.5, 0.2], W[:, [0, 2, 3]], 1.0, base[[0, 2, 3]])
    np.testing.assert_allclose(found.theta, kept.theta, rtol=0, atol=1e-12)


def test_an_example_that_counts_in_one_response_has_to_be_finite():
    X = np.array([[1.0], [-1.0], [2.0]])
    found = Risk(lambda t, x: torch.log(x[0]) * t[0], risk.squared, X, np.ones(3), lam=1.0)
    base, W = without(3, 1), np.array([without(3, 1), np.ones(3)])
    for respond, more in ((proximal.pbrf, (base,)), (proximal.damped, ())):
        with pytest.raises(risk.NotFinite, match="example 1 "):
            respond(found, [0.5], W, 1.0, *more)
