"""`solvers.factor`: it solves, whitens and draws, in both forms."""

import numpy as np
import pytest
from memory import stated

from ifcore import risk, solvers
from ifcore.network import perceptron
from ifcore.risk import Risk


def problem(n, outputs=1):
    rng = np.random.default_rng(0)
    y = rng.integers(0, outputs, n) if outputs > 1 else rng.standard_normal(n)
    loss = risk.cross_entropy if outputs > 1 else risk.squared
    return Risk(perceptron(0, 3, 4, outputs), loss, rng.standard_normal((n, 3)), y, lam=0.3)


CASES = {
    "primal": (problem(40), "gauss_newton", "primal"),
    "dual": (problem(12), "gauss_newton", "dual"),
    "dual, three outputs": (problem(7, 3), "gauss_newton", "dual"),
    "dual, more outputs than parameters": (problem(40), "gauss_newton", "dual"),
    "hessian": (problem(40), "hessian", "primal"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_solves_and_whitens_the_matrix_itself(case):
    one, matrix, form = case
    theta, w = one.model.theta, np.linspace(0.1, 2, one.n)
    C = getattr(one, matrix)(theta, w) + 30.0 * np.eye(one.d)
    found = solvers.factor(one, theta, w, 30.0, matrix=matrix, form=form)
    assert found.form == form
    inverse, V = np.linalg.inv(C), np.random.default_rng(1).standard_normal((one.d, 3))
    tolerance = {"rtol": 0, "atol": 1e-13 * np.linalg.cond(C)}
    np.testing.assert_allclose(found.solve(V), inverse @ V, **tolerance)
    np.testing.assert_allclose(found.product(V), C @ V, rtol=1e-10, atol=1e-10)
    white = found.whiten(V)
    np.testing.assert_allclose(white.T @ white, V.T @ inverse @ V, **tolerance)
    np.testing.assert_allclose(found.whiten(V[:, 0]), white[:, 0], rtol=1e-10, atol=1e-12)
    answer = found.answer(V)
    assert answer.residual < 1e-12 and answer.solver == form


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_its_squares_are_those_of_the_inverse(case):
    one, matrix, form = case
    theta, V = one.model.theta, np.random.default_rng(1).standard_normal((one.d, 3))
    C = getattr(one, matrix)(theta) + 30.0 * np.eye(one.d)
    found = solvers.factor(one, theta, damping=30.0, matrix=matrix, form=form)
    expected = np.einsum("ij,ij->j", V, np.linalg.solve(C, V))
    np.testing.assert_allclose(found.squares(V), expected, rtol=1e-13 * np.linalg.cond(C))
    np.testing.assert_allclose(found.squares(V[:, 0]), expected[:1], rtol=1e-13 * np.linalg.cond(C))
    for function in (found.squares, found.solve, found.whiten):
        with pytest.raises(ValueError, match=rf"v must be \({one.d},\) or .* got \({one.d + 1},\)"):
            function(np.ones(one.d + 1))


def test_outputs_are_whitened_by_the_root_of_their_own_matrix():
    rng = np.random.default_rng(0)
    B, U = rng.standard_normal((4, 6)), rng.standard_normal((4, 3))
    white = solvers.Dual(B, 0.5).whiten_outputs(U)
    L = np.linalg.cholesky(B @ B.T + 0.5 * np.eye(4))
    np.testing.assert_allclose(white, np.linalg.solve(L, U), rtol=0, atol=1e-14)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_its_draws_have_the_covariance_of_the_inverse(case):
    """Whitened by the root of the inverse, they have the covariance I to what chance allows."""
    one, matrix, form = case
    theta, m = one.model.theta, 40_000
    C = getattr(one, matrix)(theta) + 30.0 * np.eye(one.d)
    draws = solvers.factor(one, theta, damping=30.0, matrix=matrix, form=form)
    draws = draws.draw(np.random.default_rng(5), m)
    assert draws.shape == (m, one.d)
    white = draws @ np.linalg.cholesky(C)
    covariance = white.T @ white / m
    assert np.abs(white.mean(0)).max() < 5 / np.sqrt(m)
    assert np.abs(covariance - np.eye(one.d)).max() < 6 * np.sqrt(2 / m)


def test_the_same_seed_draws_the_same():
    for case in CASES.values():
        one, matrix, form = case
        found = solvers.factor(one, one.model.theta, damping=30.0, matrix=matrix, form=form)
        one_draw, two = (found.draw(np.random.default_rng(3), 2) for _ in range(2))
        np.testing.assert_array_equal(one_draw, two)


def test_the_form_is_chosen_by_size_and_refused_by_memory():
    few, many = problem(12), problem(40)
    assert solvers.factor(few, few.model.theta, damping=1.0).form == "dual"
    assert solvers.factor(many, many.model.theta, damping=1.0).form == "primal"
    with pytest.raises(solvers.OutOfMemory, match="the smallest factor needs .* MiB") as refusal:
        solvers.factor(few, few.model.theta, damping=1.0, memory=1000)
    for matrix in ("gauss_newton", "hessian"):
        with pytest.raises(solvers.OutOfMemory) as refusal:
            solvers.factor(few, few.model.theta, damping=9.0, matrix=matrix, memory=100)
        enough = refusal.value.needed
        solvers.factor(few, few.model.theta, damping=9.0, matrix=matrix, memory=enough)
    with pytest.raises(ValueError, match="form must be None, 'primal' or 'dual'; got 'cg'"):
        solvers.factor(few, few.model.theta, damping=1.0, form="cg")
    with pytest.raises(ValueError, match="matrix must be .* got 'fisher'"):
        solvers.factor(few, few.model.theta, damping=1.0, matrix="fisher")
    with pytest.raises(ValueError, match="solver must be None, 'primal'"):
        solvers.factor(few, few.model.theta, damping=1.0, matrix="hessian", form="dual")


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_factor_of_the_hessian_is_refused_one_byte_below_what_is_stated(outputs):
    """For a network a counts what its layers give, and what the activations make of it."""
    found = problem(200, outputs)
    sizes = {"n": 200, "d": found.d, "K": outputs, "a": 2 * (4 + outputs)}
    needed = stated.stated(solvers.factor, "for H_w", sizes)
    options = {"damping": 1e3, "matrix": "hessian"}
    with pytest.raises(solvers.OutOfMemory) as refusal:
        solvers.factor(found, found.model.theta, memory=needed - 1, **options)
    assert refusal.value.needed == needed
    assert solvers.factor(found, found.model.theta, memory=needed, **options).form == "primal"
