"""Identities that hold for every risk, and what is refused."""

import re

import hypothesis.strategies as st
import networks
import numpy as np
import pytest
from hypothesis import given, settings

from ifcore import data, influence, leastsquares, proximal, response, risk
from ifcore.influence import NotStationary, loss_influence, newton_step
from ifcore.risk import Risk
from ifcore.runs import NotConverged
from ifcore.solvers import NotPositiveDefinite
from ifcore.weights import without

seeds = st.integers(0, 2**32 - 1)
runs = settings(max_examples=40, deadline=None, database=None)


def least_squares(seed):
    X, y = data.regression(seed, 20, 4)
    return Risk(risk.linear, risk.squared, X, y), X, y


@runs
@given(seeds)
def test_influences_of_a_scaled_risk_cancel(seed):
    """θ(cw) = θ(w) without a penalty, so Jθ(w) w = 0 (Euler); with one, Jθ(w) w = λ H⁻¹θ."""
    rng = np.random.default_rng(seed)
    w = rng.uniform(0.2, 2, 25)
    for lam in (0.0, 0.7):
        X, y = data.regression(rng, 25, 3)
        problem = Risk(risk.linear, risk.squared, X, y, lam)
        theta = response.minimise(problem, weights=w).theta
        J = influence.influence(problem, theta, w).T
        expected = lam * np.linalg.solve(problem.hessian(theta, w), theta)
        np.testing.assert_allclose(
            J @ w, expected, rtol=0, atol=1e-12 * np.linalg.norm(np.abs(J) @ w)
        )


@runs
@given(seeds)
def test_least_squares_has_the_closed_forms(seed):
    problem, X, y = least_squares(seed)
    found = leastsquares.diagnostics(X, y)
    size = np.abs(found.influence).max()
    np.testing.assert_allclose(
        influence.influence(problem, found.theta), found.influence, rtol=0, atol=1e-12 * size
    )
    left_out = leastsquares.leave_one_out(X, y).theta
    for j in (0, 7):
        newton = newton_step(problem, found.theta, j)
        assert np.linalg.norm(newton - left_out[j]) <= 1e-12 * np.linalg.norm(left_out[j])
        at_zero = influence.influence(problem, left_out[j], without(20, j))[j]
        np.testing.assert_allclose(
            at_zero * (1 - found.leverage[j]) ** 2,
            found.influence[j],
            rtol=0,
            atol=1e-12 * np.abs(at_zero).max(),
        )
    Q = loss_influence(problem, found.theta)
    np.testing.assert_allclose(
        np.diag(Q), -(found.residual**2) * found.leverage, rtol=0, atol=1e-12 * np.abs(Q).max()
    )
    np.testing.assert_allclose(Q, Q.T, rtol=0, atol=1e-12 * np.abs(Q).max())


@runs
@given(seeds)
def test_a_newton_step_drops_a_group_of_least_squares_exactly(seed):
    rng = np.random.default_rng(seed)
    problem, X, y = least_squares(rng)
    group = rng.choice(20, size=5, replace=False)
    expected = leastsquares.fit(np.delete(X, group, 0), np.delete(y, group))
    for start in (np.zeros(4), leastsquares.fit(X, y)):
        miss = np.linalg.norm(newton_step(problem, start, group) - expected)
        assert miss <= 1e-11 * np.linalg.norm(expected)
    w = rng.uniform(0.5, 2, 20)
    expected = leastsquares.fit(X, y, w * without(20, group))
    miss = np.linalg.norm(newton_step(problem, np.zeros(4), group, w) - expected)
    assert miss <= 1e-11 * np.linalg.norm(expected)


def refusals():
    problem, X, y = least_squares(0)
    theta = leastsquares.fit(X, y)
    flat = Risk(risk.linear, risk.squared, np.column_stack([X, X[:, 0]]), y)
    return [
        (
            lambda: influence.influence(problem, theta + 1),
            NotStationary,
            r"theta must be stationary .* = \d\.\d\de\+",
        ),
        (
            lambda: loss_influence(problem, theta, without(20, 0)),
            NotStationary,
            "theta must be stationary",
        ),
        (
            lambda: influence.influence(flat, np.append(theta, 0)),
            NotPositiveDefinite,
            "H_w must be .* smallest eigenvalue",
        ),
        (lambda: newton_step(problem, theta, []), TypeError, "remove must be an index"),
        (
            lambda: newton_step(problem, theta, [3, 3]),
            ValueError,
            r"remove must not repeat an index; got \[3, 3\]",
        ),
        (
            lambda: newton_step(problem, theta, 20),
            IndexError,
            "remove must lie in 0, …, 19; got 20",
        ),
        (
            lambda: newton_step(problem, theta, range(20)),
            ValueError,
            "remove must leave at least one point",
        ),
        (
            lambda: newton_step(problem, theta, range(17)),
            NotPositiveDefinite,
            "H_w without `remove`.* 3 points are left, .* rank 3 of d = 4",
        ),
        (
            lambda: newton_step(problem, theta, range(17), np.full(20, 5.0)),
            NotPositiveDefinite,
            "; 3 points are left",
        ),
        (
            lambda: newton_step(problem, theta, 0, np.ones(19)),
            ValueError,
            r"weights must have shape \(20,\) .* got \(19,\)",
        ),
        (
            lambda: newton_step(problem, theta[:3], 0),
            ValueError,
            "theta must have length d = 4; got 3",
        ),
        (
            lambda: influence.damped_effects(
                networks.problem(), np.zeros(21), damping=1.0, test=networks.problem(outputs=2)
            ),
            ValueError,
            "d = 21 parameters; got 26",
        ),
    ]


@pytest.mark.parametrize("number", range(12))
def test_bad_input_is_refused(number):
    call, error, words = refusals()[number]
    with pytest.raises(error, match=words):
        call()


def test_the_gradient_norm_comes_with_the_error():
    problem, X, y = least_squares(0)
    with pytest.raises(NotStationary) as error:
        influence.influence(problem, np.zeros(4))
    assert 0.01 < error.value.gradient_norm <= 1


def test_a_penalty_alone_can_make_a_point_not_stationary():
    """Every loss has its minimum at θ, and the penalty has not."""
    X, y = np.eye(3)[:, :2] + 1, np.array([3.0, 3.0, 2.0])  # y = X(1, 1)
    with pytest.raises(NotStationary, match=r"∇R_w\(θ\)‖ = 1\.41e"):
        influence.influence(Risk(risk.linear, risk.squared, X, y, lam=1.0), [1, 1])


def test_points_that_are_fitted_exactly_have_no_influence():
    X, y = np.eye(3)[:, :2] + 1, np.array([3.0, 3.0, 2.0])
    np.testing.assert_array_equal(
        influence.influence(Risk(risk.linear, risk.squared, X, y), [1, 1]), np.zeros((3, 2))
    )


def test_weights_are_left_as_they_came():
    problem, *_ = least_squares(0)
    w = np.linspace(1, 2, 20)
    newton_step(problem, np.zeros(4), [2, 5], w)
    np.testing.assert_array_equal(w, np.linspace(1, 2, 20))


def test_the_penalty_of_the_risk_and_the_damping_add_up():
    rng = np.random.default_rng(3)
    X, y = data.regression(rng, 15, 3)
    theta = rng.standard_normal(3)
    one, two = (Risk(risk.linear, risk.squared, X, y, lam) for lam in (0.0, 2.0))
    np.testing.assert_allclose(
        influence.damped_influence(one, theta, damping=3.0),
        influence.damped_influence(two, theta, damping=1.0),
        rtol=1e-12,
    )
    for w in (without(15, 2), rng.uniform(0, 2, 15)):
        np.testing.assert_allclose(
            proximal.pbrf(one, theta, w, 3.0).theta,
            proximal.pbrf(two, theta, w, 1.0).theta,
            rtol=1e-8,
        )


def test_an_influence_that_its_solver_has_not_reached_is_refused():
    found = networks.problem()
    with pytest.raises(NotConverged, match="lissa has the residual .* after .* steps") as refusal:
        influence.damped_influence(found, found.model.theta, damping=1e-8, solver="lissa")
    assert refusal.value.reached.residual > 1e-6


def test_where_there_is_no_damping_the_message_names_what_has_one():
    """With the λ that is named, in place of the risk's own, the matrix is positive definite."""
    found = networks.problem(n=12)
    theta = found.model.theta
    for call, words in (
        (lambda r: influence.influence(r, theta, tol=1e3), "minimised anew; damped_influence"),
        (lambda r: newton_step(r, theta, 3), "proximal.damped and proximal.pbrf take a damping"),
        (lambda r: influence.diagnostics(r, theta, tol=1e3), "with theta minimised anew"),
    ):
        with pytest.raises(NotPositiveDefinite, match=r"In the Risk, .*λ = .* would mend") as error:
            call(found)
        assert words in str(error.value) and "damping =" not in str(error.value)
        lam = float(re.search(r"λ = (\S+) would mend", str(error.value))[1])
        assert np.isfinite(call(networks.problem(n=12, lam=1.01 * lam))[0]).all()
