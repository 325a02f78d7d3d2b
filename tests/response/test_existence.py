"""Minimisers that do not exist, and rows without an answer: refused for the rows they concern."""

import networks
import numpy as np
import pytest

from ifcore import influence, response, risk
from ifcore.influence import NotStationary
from ifcore.response import leave_one_out, minimise
from ifcore.risk import NotFinite, Risk
from ifcore.runs import HELD, NotConverged, Run
from ifcore.solvers import NotPositiveDefinite
from ifcore.weights import without


def one_sided(rotated=False):
    """Classes that x = 1 separates but x = 0 does not: inf R = 6 log 2 is not attained."""
    x = np.array([0.0] * 6 + [1] * 4)
    X = np.column_stack([np.ones(10), x])
    angle = np.array([[np.cos(1), -np.sin(1)], [np.sin(1), np.cos(1)]])
    return X @ angle if rotated else X, np.array([0, 1, 0, 1, 1, 0, 1, 1, 1, 1.0])


@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("method", ["newton", "newton-cg"])
@pytest.mark.parametrize("loss", [risk.logistic, risk.poisson])
def test_a_direction_without_a_minimum_is_no_convergence(loss, method, rotated):
    X, y = one_sided(rotated)
    y = 1 - y if loss is risk.poisson else y  # no count at all where x = 1
    problem = Risk(risk.linear, loss, X, y)
    for steps in (50, 100, 300):
        found = minimise(problem, method=method, strict=False, max_steps=steps)
        assert found.status not in HELD
    with pytest.raises((NotConverged, risk.NotConvex, np.linalg.LinAlgError)):
        minimise(problem, method=method)
    mended = minimise(Risk(risk.linear, loss, X, y, lam=1e-3), method=method)
    assert mended.status == "converged"


def test_the_row_that_separates_has_no_answer_and_the_others_have_theirs():
    X, y = one_sided()
    X, y = np.vstack([X, [1, 1]]), np.append(y, 0)  # the only 0 where x = 1
    problem = Risk(risk.linear, risk.logistic, X, y)
    with pytest.warns(UserWarning, match="example 10 have no leave-one-out fit"):
        found = leave_one_out(problem)
    assert np.isnan(found.theta[10]).all() and found.status[10] not in HELD
    for j in range(10):
        single = minimise(problem, weights=without(11, j))
        np.testing.assert_allclose(found.theta[j], single.theta, rtol=1e-9)
    with pytest.raises(NotConverged):
        leave_one_out(problem, run=Run(jobs=1, strict=True))


def test_influence_at_a_point_on_the_way_to_no_minimum_is_refused():
    for rotated, far in ((False, 51.0), (False, 25.0), (True, 25.0)):
        X, y = one_sided(rotated)
        direction = np.linalg.solve(X[[0, 6]], [0, far])
        with pytest.raises((NotStationary, np.linalg.LinAlgError)):
            influence.influence(Risk(risk.linear, risk.logistic, X, y), direction)


def test_interpolation_and_tiny_solutions_are_minimisers():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((8, 3))
    for theta in (np.zeros(3), np.ones(3), 1e-9 * np.ones(3)):
        problem = Risk(risk.linear, risk.squared, X, X @ theta)
        for method in ("newton", "newton-cg"):
            found = minimise(problem, method=method, strict=False)
            assert found.status in HELD
            np.testing.assert_allclose(found.theta, theta, rtol=1e-9, atol=1e-15)


def test_fits_with_an_example_that_is_not_finite_stand_apart():
    rng = np.random.default_rng(0)
    X, y = np.abs(rng.standard_normal((8, 2))) + 0.1, rng.standard_normal(8)
    X[3] = -1.0

    def logarithm(theta, x):
        import torch

        return torch.log(x.sum()) * theta[0] + x @ theta

    problem = Risk(logarithm, risk.squared, X, y, lam=0.1, d=2)
    others = problem.subset([0, 1, 2, 4, 5, 6, 7])
    W = np.vstack([np.ones(8), without(8, 3), without(8, [3, 4])])
    found = minimise(problem, weights=W, strict=False)
    assert list(found.status) == ["not finite", "converged", "converged"]
    np.testing.assert_allclose(found.theta[1], minimise(others).theta, rtol=1e-12)
    with pytest.raises(NotFinite, match="example 3 must have a finite loss .* weight vector 0"):
        minimise(problem, weights=W)
    with pytest.warns(UserWarning, match="example 0, and 6 others have no leave-one-out fit"):
        left_out = leave_one_out(problem)
    np.testing.assert_allclose(left_out.theta[3], found.theta[1], rtol=1e-12)


def test_chosen_rows_come_in_blocks_and_go_on_after_a_kill(tmp_path, monkeypatch, interrupted):
    rng = np.random.default_rng(0)
    problem = Risk(risk.linear, risk.logistic, rng.standard_normal((40, 3)), rng.random(40) < 0.5)
    whole, chosen = leave_one_out(problem), [7, 3, 30, 21]
    found = leave_one_out(problem, remove=chosen)
    np.testing.assert_allclose(found.theta, whole.theta[chosen], rtol=1e-12)
    monkeypatch.setattr(response, "BLOCK", 2 * 40 * 3)
    run = Run(tmp_path, jobs=1, progress=False)
    calls = interrupted(response, "_left_out", 2)
    with pytest.raises(KeyboardInterrupt):
        leave_one_out(problem, remove=chosen, run=run)
    np.testing.assert_allclose(
        leave_one_out(problem, remove=chosen, run=run).theta, whole.theta[chosen], rtol=1e-10
    )
    assert len(calls) == 3  # the first block was kept


def test_a_network_is_told_the_method_that_it_needs():
    net = networks.problem(n=12, lam=0.3)
    with pytest.warns(UserWarning, match="example 1, and .*'singular'.*method='newton-cg'"):
        lost = leave_one_out(net, remove=[1, 2])
    assert np.isnan(lost.theta).all()
    with pytest.raises(NotConverged, match="row 0, is 'singular'.*method='newton-cg'"):
        leave_one_out(net, remove=[1, 2], run=Run(jobs=1))
    with pytest.raises(NotPositiveDefinite, match="method='newton-cg'"):
        minimise(net)
    found = leave_one_out(net, remove=[1, 2], method="newton-cg", max_steps=500)
    for theta, j in zip(found.theta, (1, 2)):
        w = without(12, j)
        assert np.linalg.norm(net.gradient(theta, w)) < 1e-7
        assert np.linalg.eigvalsh(net.hessian(theta, w))[0] > 0


def test_a_penalty_of_some_parameters_counts_where_a_direction_has_no_end():
    """Two classes apart in the first column, the second penalised: the risk falls along the first.

    A minimiser exists where a linear term pulls back, although its terms are as small there.
    """
    X, y = np.array([[1.0, 0.2], [-1.0, 0.1], [2.0, -0.3], [-1.5, 0.4]]), [1, 0, 1, 0]
    apart = Risk(risk.linear, risk.logistic, X, y, lam=[0.0, 1.0])
    found = minimise(apart, strict=False)
    assert found.status == "endless"
    held = Risk(risk.linear, risk.logistic, X, y, lam=[0.0, 1.0], b=[1e-9, 0.0])
    there = minimise(held)
    assert there.status == "converged"
    assert np.linalg.norm(held.gradient(there.theta)) < 1e-15


def test_a_hessian_that_has_all_but_vanished_is_singular():
    X = np.array([[1e-148, 0.0], [0.0, 1e-148]])
    found = minimise(Risk(risk.linear, risk.squared, X, [1e-148, 0.0]), strict=False)
    assert found.status == "singular"
    less = Risk(risk.linear, risk.squared, 1e78 * X, [1e-70, 0.0])
    np.testing.assert_allclose(minimise(less).theta, [1.0, 0.0], rtol=1e-12)


def test_of_two_examples_each_can_be_left_out():
    found = Risk(risk.linear, risk.squared, np.array([[1.0], [2.0]]), [3.0, 4.0])
    np.testing.assert_allclose(leave_one_out(found).theta, [[2.0], [3.0]], rtol=1e-12)
