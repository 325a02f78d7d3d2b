"""Residuals, invariances, the choice of a solver, its memory, and what is refused."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from networks import module, problem, welsch

from ifcore import data, influence, proximal, solvers
from ifcore.network import Network
from ifcore.risk import NotConvex, NotFinite, Risk
from ifcore.solvers import Diverged, NotPositiveDefinite, OutOfMemory, direct

seeds = st.integers(0, 2**32 - 1)
runs = settings(max_examples=200, deadline=None, database=None)


def matrix(rng, d=5, condition=1e2):
    X = data.design(rng, 3 * d, d, condition)
    return X.T @ X


@runs
@given(seeds, st.sampled_from([0.0, 0.5]))
def test_solves_and_reports_its_residual(seed, lam):
    rng = np.random.default_rng(seed)
    C, x = matrix(rng), rng.standard_normal((5, 3))
    found = direct(C, (C + lam * np.eye(5)) @ x, lam)
    assert np.linalg.norm(found.x - x) <= 1e-15 * np.linalg.cond(C) * 10 * np.linalg.norm(x)
    damped = C + lam * np.eye(5)
    assert found.residual <= 1e-15 * np.linalg.cond(damped) and found.steps == 0
    left = np.linalg.norm(damped @ found.x - damped @ x, axis=0)
    left = left / np.linalg.norm(damped @ x, axis=0)
    assert found.residual == pytest.approx(left.max(), abs=1e-15 * np.linalg.cond(damped))
    np.testing.assert_allclose(direct(C, C @ x[:, 0]).x, x[:, 0], rtol=1e-10, atol=1e-10)


@runs
@given(seeds)
def test_units_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    C, v, units = matrix(rng), rng.standard_normal(5), 10.0 ** rng.integers(-12, 12, 5)
    np.testing.assert_allclose(
        direct(units[:, None] * C * units, units * v).x * units,
        direct(C, v).x,
        rtol=1e-9,
        atol=1e-12,
    )


@pytest.mark.parametrize("smallest", [-2.0, 0.0, 1e-20])
def test_a_matrix_that_is_not_positive_definite_names_its_eigenvalue_and_the_mend(smallest):
    Q = data.design(0, 4, 4, 1) / 2
    C = Q @ np.diag([3.0, 2.0, 1.0, smallest]) @ Q.T
    C = (C + C.T) / 2
    with pytest.raises(
        NotPositiveDefinite, match="C must be positive definite; its smallest eigenvalue"
    ) as error:
        direct(C, np.ones(4))
    assert error.value.smallest == pytest.approx(smallest, abs=1e-14)
    lam = float(str(error.value).split("damping = ")[-1].split(" ")[0])
    assert direct(C, np.ones(4), lam).residual <= 1e-15 * np.linalg.cond(C + lam * np.eye(4))


@pytest.mark.parametrize(
    "C, v, error, words",
    [
        (np.ones((2, 3)), np.ones(2), ValueError, r"C must be \(d, d\); got \(2, 3\)"),
        (np.zeros((0, 0)), np.ones(0), ValueError, r"v must be \(0,\) .* got \(0,\)"),
        (np.eye(2), np.ones(3), ValueError, r"v must be \(2,\) or \(2, r\); got \(3,\)"),
        ([[1, 2], [0, 1]], np.ones(2), ValueError, "C must be symmetric; .* 2.0e"),
        ([[2, 1], [1.0002, 2]], np.ones(2), ValueError, "C must be symmetric; .* 2.0e-04"),
        (np.eye(2) * np.nan, np.ones(2), ValueError, "C must be finite"),
        (np.eye(2), [np.inf, 0], ValueError, "v must be finite"),
    ],
)
def test_bad_input_is_refused(C, v, error, words):
    with pytest.raises(error, match=words):
        direct(C, v)
    with pytest.raises(ValueError, match="damping must be a number at least 0"):
        direct(np.eye(2), np.ones(2), -1)
    assert solvers.direct([[2.0]], [4.0]).x == pytest.approx([2.0])


def test_the_mend_counts_from_zero_and_not_from_the_lambda_given():
    C = np.diag([-2.0, 1.0])
    with pytest.raises(
        NotPositiveDefinite, match="smallest eigenvalue is -1.00e.00 .* at damping = 1"
    ) as error:
        direct(C, np.ones(2), 1.0)
    mend = float(str(error.value).split("damping = ")[-1].split(" ")[0])
    assert 2 < mend < 2.5
    direct(C, np.ones(2), mend)


def test_the_residual_is_that_of_the_worst_right_hand_side():
    """After one step an eigenvector is done, and the other right-hand side is not."""
    C, v = np.diag([1.0, 2.0, 5.0]), np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    found = solvers.cg(C, v, max_steps=1)
    left = np.linalg.norm(C @ found.x - v, axis=0) / np.linalg.norm(v, axis=0)
    assert left[0] < 1e-15 < 0.1 < left[1]
    assert found.residual == pytest.approx(left[1], rel=1e-12) and not found.converged


@pytest.mark.parametrize(
    "call, error, words",
    [
        (
            lambda: solvers.solve(problem(), np.zeros(21), np.ones(20), damping=1.0),
            ValueError,
            r"v must be \(21,\) .* got \(20,\)",
        ),
        (
            lambda: solvers.solve(problem(), np.zeros(21), np.ones(21), damping=-1.0),
            ValueError,
            "damping must be a number at least 0; got -1",
        ),
        (
            lambda: solvers.solve(
                problem(), np.zeros(21), np.ones(21), damping=1.0, matrix="fisher"
            ),
            ValueError,
            "matrix must be .* got 'fisher'",
        ),
        (
            lambda: solvers.solve(problem(), np.zeros(21), np.ones(21), damping=1.0, solver="lu"),
            ValueError,
            "solver must be .* got 'lu'",
        ),
        (
            lambda: solvers.solve(
                problem(), np.zeros(21), np.ones(21), damping=1.0, solver="dual", tol=1e-3
            ),
            TypeError,
            "tol; the solver is 'dual'",
        ),
        (
            lambda: solvers.solve(
                problem(), np.zeros(21), np.ones(21), damping=1.0, matrix="hessian", solver="dual"
            ),
            ValueError,
            "got 'dual'",
        ),
        (lambda: solvers.cg(np.eye(2), np.ones(3)), ValueError, r"got \(2, 2\) and \(3,\)"),
        (
            lambda: solvers.cg(np.eye(2), np.ones(2), tol=0),
            ValueError,
            "tol must be positive; got 0",
        ),
        (
            lambda: solvers.cg(np.eye(2), np.ones(2), max_steps=0),
            ValueError,
            "max_steps must be an integer at least 1; got 0",
        ),
        (
            lambda: solvers.lissa(np.eye(2), np.ones(2), scale=-1),
            ValueError,
            "scale must be a number at least 0; got -1",
        ),
        (lambda: solvers.dual(np.eye(2), np.ones(3), 1.0), ValueError, r"v must be \(2,\) or"),
        (
            lambda: solvers.solve(
                problem(), np.zeros(21), np.ones(21), damping=1.0, solver="lissa", batch=13
            ),
            ValueError,
            "at most n = 12; got 13",
        ),
    ],
)
def test_bad_input_of_every_solver_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_the_solver_is_chosen_by_size_and_memory():
    few, many = problem(12), problem(40)
    v = np.ones(21)
    # few has 12 outputs and 21 parameters
    assert solvers.solve(few, np.zeros(21), v, damping=1.0).solver == "dual"
    assert solvers.solve(many, np.zeros(21), v, damping=1.0).solver == "primal"
    assert solvers.solve(few, np.zeros(21), v, damping=1.0, memory=100).solver == "cg"
    assert solvers.solve(few, np.zeros(21), v, damping=100.0, matrix="hessian").solver == "primal"
    assert influence.damped_effects(few, np.zeros(21), damping=1.0).solver == "dual"


def test_memory_is_bounded_by_the_caller_and_the_refusal_says_how_much():
    found, v = problem(), np.ones(21)
    for name in ("dual", "primal"):
        with pytest.raises(
            OutOfMemory,
            match=f"the {name} form needs .* memory allows 0 MiB. .*solver='cg' avoids it",
        ) as refusal:
            solvers.solve(found, np.zeros(21), v, damping=1.0, solver=name, memory=1000)
        needed = refusal.value.needed
        enough = solvers.solve(found, np.zeros(21), v, damping=1.0, solver=name, memory=needed)
        assert enough.solver == name
    with pytest.raises(
        OutOfMemory, match="n = 12 examples need .* damped_effects in the dual form avoids it"
    ):
        influence.damped_influence(found, np.zeros(21), damping=1.0, memory=1000)


def test_no_damping_where_it_is_needed():
    found = problem()
    with pytest.raises(
        NotPositiveDefinite, match="its smallest eigenvalue is .* would mend it"
    ) as refusal:
        solvers.solve(found, found.model.theta, np.ones(21), damping=0.0, solver="primal")
    assert abs(refusal.value.smallest) < 1e-12  # 12 outputs cannot span 21 parameters
    with pytest.raises(NotPositiveDefinite, match="the dual form needs λ > .* got λ = 0"):
        solvers.solve(found, found.model.theta, np.ones(21), damping=0.0, solver="dual")
    with pytest.raises(NotPositiveDefinite):
        influence.damped_influence(found, found.model.theta, damping=0.0, solver="primal")


def test_a_loss_that_is_not_convex_is_named_with_the_example():
    rng = np.random.default_rng(0)
    found = Risk(Network(module()), welsch, rng.standard_normal((12, 3)), np.r_[np.zeros(11), 3.0])
    for call in (
        lambda: solvers.solve(found, found.model.theta, np.ones(21), damping=1.0, solver="dual"),
        lambda: proximal.pbrf(found, found.model.theta, np.ones(12), 1.0),
    ):
        with pytest.raises(
            NotConvex, match="at example 11 its Hessian has the eigenvalue"
        ) as refusal:
            call()
        assert refusal.value.example == 11 and refusal.value.smallest < 0
    G = found.gauss_newton(found.model.theta)
    short = max(0.0, -np.linalg.eigvalsh(G)[0])
    assert short > 0
    with pytest.raises(NotPositiveDefinite, match="G_w must be positive definite"):
        solvers.solve(found, found.model.theta, np.ones(21), damping=short / 2, solver="primal")
    damped = G + 2 * short * np.eye(21)
    held = solvers.solve(found, found.model.theta, np.ones(21), damping=2 * short, solver="primal")
    assert held.residual < 1e-15 * np.linalg.cond(damped)


def test_an_indefinite_matrix_stops_the_iterations():
    C = np.diag([3.0, 1.0, -1.0])
    with pytest.raises(
        NotPositiveDefinite, match="conjugate gradients met the curvature .* damping = 0.5"
    ) as refusal:
        solvers.cg(C, np.ones(3), 0.5)
    assert refusal.value.smallest <= 0
    with pytest.raises(
        NotPositiveDefinite, match="LiSSA grows along a direction of curvature -5.00e-01"
    ) as refusal:
        solvers.lissa(C, np.ones(3), 0.5)
    assert refusal.value.smallest == pytest.approx(-0.5, rel=1e-2)


def test_a_diverging_lissa_names_a_scale_that_converges():
    C = np.diag([10.0, 1.0])
    with pytest.raises(
        Diverged,
        match="after .* steps at scale = 4, which must exceed λ_max/2; .* try scale = 10.5",
    ) as failure:
        solvers.lissa(C, np.ones(2), scale=4.0)
    assert failure.value.steps > 1
    again = solvers.lissa(C, np.ones(2), scale=failure.value.scale)
    assert again.converged and np.allclose(again.x, [0.1, 1.0], rtol=1e-8)


def test_lissa_follows_its_error_formula():
    C, v, sigma = np.diag([4.0, 1.0, 0.5]), np.array([1.0, -2.0, 3.0]), 5.0
    x = v / np.diag(C)
    for steps in (1, 7, 40):
        found = solvers.lissa(C, v, scale=sigma, tol=1e-16, max_steps=steps)
        np.testing.assert_allclose(
            found.x - x, -((1 - np.diag(C) / sigma) ** (steps + 1)) * x, rtol=1e-10, atol=1e-15
        )
        assert found.steps == steps and not found.converged
        assert found.residual == pytest.approx(
            np.linalg.norm(C @ found.x - v) / np.linalg.norm(v), rel=1e-10
        )


def test_minibatches_of_lissa_depend_on_the_seed_and_average_to_the_answer():
    found = problem(40)
    theta, v = found.model.theta, np.ones(21)
    exact = solvers.solve(found, theta, v, damping=20.0).x
    options = {"solver": "lissa", "batch": 10, "max_steps": 300, "scale": 300.0}

    def sampled(seed):
        return solvers.solve(found, theta, v, damping=20.0, seed=seed, **options).x

    one, two, same = (sampled(seed) for seed in (0, 1, 0))
    np.testing.assert_array_equal(one, same)
    assert 0 < np.linalg.norm(one - two) < 0.5 * np.linalg.norm(exact)
    many = np.mean([sampled(seed) for seed in range(30)], axis=0)
    assert np.linalg.norm(many - exact) < np.linalg.norm(one - exact)


def test_conjugate_gradients_report_what_is_left():
    C = np.diag(np.geomspace(1, 1e6, 30))
    found = solvers.cg(C, np.ones(30), max_steps=3)
    assert not found.converged and found.steps == 3
    assert found.residual == pytest.approx(np.linalg.norm(C @ found.x - 1) / np.sqrt(30), rel=1e-10)
    full = solvers.cg(
        C, np.eye(30)[:, :5], tol=1e-12, preconditioner=lambda V: V / np.diag(C)[:, None]
    )
    assert full.converged and full.steps <= 2
    nothing = solvers.cg(C, np.zeros(30))
    assert nothing.converged and nothing.residual == 0 and nothing.steps == 0


def test_the_form_is_chosen_by_the_outputs_not_the_examples_and_by_all_the_damping():
    d = problem(outputs=3).d  # 31
    v = np.ones(d)
    # 45 outputs
    assert solvers.solve(problem(15, outputs=3), np.zeros(d), v, damping=1.0).solver == "primal"
    assert solvers.solve(problem(10, outputs=3), np.zeros(d), v, damping=1.0).solver == "dual"
    penalised = problem(12, lam=1.0)
    assert solvers.solve(penalised, np.zeros(21), np.ones(21), damping=0.0).solver == "dual"
    own = problem(12, lam=np.linspace(0, 1, 21))  # for which there is no dual form
    assert influence.damped_effects(own, np.zeros(21), damping=1.0, memory=14_000).solver == "cg"
    with pytest.raises(OutOfMemory) as refusal:
        solvers.solve(
            problem(12), np.zeros(21), np.ones(21), damping=1.0, solver="primal", memory=1000
        )
    short = refusal.value.needed - 1
    with pytest.raises(OutOfMemory, match="solver='dual' or solver='cg' avoids it"):
        solvers.solve(
            problem(12), np.zeros(21), np.ones(21), damping=1.0, solver="primal", memory=short
        )


def test_a_sampled_lissa_damps_too_and_does_not_stop_at_a_batch_that_happens_to_fit():
    C, v = np.diag([4.0, 1.0, 0.5]), np.array([1.0, -2.0, 3.0])
    found = solvers.lissa(C, v, 1.0, scale=6.0, max_steps=300, sample=lambda V: C @ V)
    np.testing.assert_allclose(found.x, v / (np.diag(C) + 1), rtol=1e-10)
    # the first change is 0
    lucky = solvers.lissa(C, v, scale=6.0, max_steps=7, sample=lambda V: 6.0 * V)
    assert lucky.steps == 7 and not lucky.converged


def test_of_many_right_hand_sides_the_one_that_diverges_is_diagnosed():
    with pytest.raises(Diverged, match="try scale = 10.5"):
        solvers.lissa(np.diag([10.0, 1.0]), np.array([[0.0, 1.0], [0.0, 1.0]]), scale=4.0)


def test_the_dual_form_refuses_a_damping_below_rounding_and_names_the_smallest_eigenvalue():
    B = np.random.default_rng(0).standard_normal((5, 3))
    with pytest.raises(
        NotPositiveDefinite, match="the dual form needs λ > .*, the rounding of BBᵀ; got λ = 1e-30"
    ) as refusal:
        solvers.dual(B, np.ones(3), 1e-30)
    assert refusal.value.smallest == pytest.approx(np.linalg.svd(B)[1][-1] ** 2, rel=1e-10)


def test_right_hand_sides_have_one_axis_or_two():
    for call in (
        lambda v: solvers.direct(np.eye(3), v),
        lambda v: solvers.dual(np.eye(3), v, 1.0),
        lambda v: solvers.cg(np.eye(3), v),
    ):
        with pytest.raises(ValueError, match=r"got \(3, 2, 2\)|\(3, 2, 2\)"):
            call(np.ones((3, 2, 2)))


def test_a_matrix_that_is_not_finite_is_named():
    with pytest.raises(NotFinite, match="C must be finite; it has NaN or infinite entries"):
        solvers.Primal(np.array([[1.0, np.nan], [np.nan, 1.0]]))


def spd(rng, d, condition=1e3):
    Q = np.linalg.qr(rng.standard_normal((d, d)))[0]
    return Q @ np.diag(np.geomspace(1, condition, d)) @ Q.T


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("preconditioned", [False, True])
def test_truncated_conjugate_gradients_minimise_over_their_krylov_space(steps, preconditioned):
    """x, what is left, the size in the norm of M and the least curvature, by definition."""
    rng, r = np.random.default_rng(steps), 3
    C, v, M = spd(rng, 8), rng.standard_normal((8, r)), spd(rng, 8, 10.0)
    M = M if preconditioned else np.eye(8)
    seen = []

    def product(V, which):
        np.testing.assert_array_equal(which, np.arange(r))
        seen.append(V.copy())
        return C @ V

    solve = (lambda V: np.linalg.solve(M, V)) if preconditioned else None
    x, left, taken, curvature, size = solvers.truncated_cg(product, v, 1e-14, steps, solve)
    assert list(taken) == [steps] * r and len(seen) == steps
    for i in range(r):
        krylov = [np.linalg.solve(M, v[:, i])]
        for _ in range(steps - 1):
            krylov.append(np.linalg.solve(M, C @ krylov[-1]))
        Q = np.linalg.qr(np.array(krylov).T)[0]
        best = Q @ np.linalg.solve(Q.T @ C @ Q, Q.T @ v[:, i])
        np.testing.assert_allclose(x[:, i], best, rtol=0, atol=1e-10 * np.linalg.norm(best))
        np.testing.assert_allclose(left[:, i], v[:, i] - C @ x[:, i], rtol=0, atol=1e-12)
        assert size[i] == pytest.approx(np.sqrt(x[:, i] @ M @ x[:, i]), rel=1e-12)
        bends = [p[:, i] @ C @ p[:, i] / (p[:, i] @ p[:, i]) for p in seen]
        assert curvature[i] == pytest.approx(min(bends), rel=1e-12)


def test_truncated_conjugate_gradients_end_at_their_radius_on_the_way():
    """The path is the same up to there; each column has a radius of its own."""
    rng = np.random.default_rng(0)
    C, M, v = spd(rng, 8), spd(rng, 8, 10.0), np.tile(rng.standard_normal((8, 1)), (1, 4))

    def by(radius, steps=50):
        return solvers.truncated_cg(
            lambda V, _: C @ V, v, 1e-12, steps, lambda V: np.linalg.solve(M, V), radius
        )

    sizes = [by(np.inf, steps)[4][0] for steps in (1, 2, 3)]
    assert sizes[0] < sizes[1] < sizes[2]
    radius = np.array([sizes[0] / 2, (sizes[0] + sizes[1]) / 2, (sizes[1] + sizes[2]) / 2, np.inf])
    x, left, steps, _, size = by(radius)
    assert list(steps[:3]) == [1, 2, 3] and steps[3] > 3
    np.testing.assert_allclose(size[:3], radius[:3], rtol=1e-12)
    np.testing.assert_allclose(np.sqrt(np.einsum("ij,ij->j", x, M @ x)), size, rtol=1e-12)
    np.testing.assert_allclose(left, v - C @ x, rtol=0, atol=1e-12)
    for k in (0, 1, 2):
        before = by(np.inf, k)[0][:, k] if k else np.zeros(8)
        step, whole = x[:, k] - before, by(np.inf, k + 1)[0][:, k] - before
        share = np.linalg.norm(step) / np.linalg.norm(whole)
        np.testing.assert_allclose(step, share * whole, rtol=0, atol=1e-12)
        assert 0 < share < 1
    np.testing.assert_allclose(x[:, 3], np.linalg.solve(C, v[:, 3]), rtol=0, atol=1e-9)


def test_truncated_conjugate_gradients_follow_a_negative_curvature_to_the_radius_only():
    C, v = np.diag([2.0, -1.0]), np.array([[1.0, 0.0], [0.0, 3.0]])
    x, left, steps, curvature, size = solvers.truncated_cg(
        lambda V, _: C @ V, v, 1e-12, 9, None, 5.0
    )
    np.testing.assert_array_equal(x, [[0.5, 0], [0, 5]])
    np.testing.assert_array_equal(left, [[0, 0], [0, 8]])
    assert list(steps) == [1, 1] and list(curvature) == [2, -1] and list(size) == [0.5, 5]
    x, left, steps, *_ = solvers.truncated_cg(lambda V, _: C @ V, v, 1e-12, 9)
    np.testing.assert_array_equal(x, [[0.5, 0], [0, 0]])  # without one there is nowhere to stop
    np.testing.assert_array_equal(left, [[0, 0], [0, 3]])
    loose = solvers.truncated_cg(lambda V, _: C @ V, v, 1.0, 9, None, 5.0)
    assert not loose[0].any() and not loose[2].any()


def test_which_damping_would_mend_a_matrix():
    root = np.sqrt(np.finfo(float).eps)
    assert solvers.mending(0.5, -2.0, 3.0) == f"λ = {0.5 + 2.2 + 3 * root:.1e} would mend it"
    assert solvers.mending(0.0, 1e-20, 4.0, "damping") == f"damping = {4 * root:.1e} would mend it"
    assert solvers.mending(0.0, 0.0, 0.0) == "any λ > 0 would mend it"
    several = solvers.mending(np.ones(2), -1.0, 1.0)
    assert several == f"a λ larger by {1.1 + root:.1e} would mend it"


def test_the_size_of_columns_as_powers_of_two():
    v = np.array([[3.0, 0.0, 1e-320, 1e308], [-5.0, 0.0, 0.0, 0.0]])
    found = solvers.units(v)
    np.testing.assert_array_equal(found, [8.0, 1.0, 2.0**-1000, 2.0**1000])


@pytest.mark.parametrize("scale", [1e-200, 1e200])
@pytest.mark.parametrize("function", [solvers.cg, solvers.lissa, solvers.direct])
def test_right_hand_sides_of_any_size_are_solved(function, scale):
    C, v = np.diag([3.0, 2.0, 1.0]), np.array([[1.0, 0.0], [2.0, -1.0], [3.0, 0.5]])
    found = function(C, v * [1.0, scale], 0.5)
    np.testing.assert_allclose(found.x / [1.0, scale], v / (np.diag(C) + 0.5)[:, None], rtol=1e-9)
    assert found.converged and found.residual < 1e-9


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda C, v: solvers.cg(lambda V: V[:2], v), ValueError, r"C must take V \(3, 1\) to"),
        (lambda C, v: solvers.cg(lambda V: V * np.nan, v), ValueError, "what C gives must be fin"),
        (
            lambda C, v: solvers.cg(C, v, preconditioner=lambda V: -V),
            ValueError,
            "preconditioner must be positive definite; it gives vᵀM⁻¹v = -",
        ),
        (
            lambda C, v: solvers.cg(C, v, preconditioner=lambda V: V.T),
            ValueError,
            r"preconditioner must take V \(3, 1\) to that shape; it gives \(1, 3\)",
        ),
        (lambda C, v: solvers.lissa(C, v, sample=lambda V: V[0]), ValueError, "sample must take"),
        (lambda C, v: solvers.lissa(C, v, scale=0), ValueError, "scale must be positive; got 0"),
        (lambda C, v: solvers.lissa(C, v, tol=0), ValueError, "tol must be positive; got 0"),
        (lambda C, v: solvers.lissa(C, v, max_steps=0), ValueError, "max_steps must be an integer"),
        (lambda C, v: solvers.cg(C, v, -1), ValueError, "damping must be a number at least 0"),
        (lambda C, v: solvers.cg(C[:2], v), ValueError, r"C must be \(d, d\); got \(2, 3\)"),
        (lambda C, v: solvers.cg(C + [0, 0, 1], v), ValueError, "C must be symmetric"),
        (
            lambda C, v: solvers.cg(C, v[:0]),
            ValueError,
            r"v must be \(d,\) or \(d, r\); got \(0,\)",
        ),
        (lambda C, v: solvers.direct(C, v[:, None][:, :0]), ValueError, r"got \(3, 0\)"),
        (lambda C, v: solvers.direct(C, v[:, None, None]), ValueError, r"got \(3, 1, 1\)"),
        (lambda C, v: solvers.dual(C, v[:, None][:, :0], 1), ValueError, r"got \(3, 0\)"),
        (lambda C, v: solvers.Dual(C[:0], 1.0), ValueError, "m and d at least 1; got .0, 3."),
        (lambda C, v: solvers.Primal(C).draw(-1, 2), TypeError, "seed must be an integer"),
        (lambda C, v: solvers.Dual(C, 1.0).draw(0, 0), ValueError, "m must be an integer"),
    ],
)
def test_what_no_solver_can_take_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call(np.diag([3.0, 2.0, 1.0]), np.array([1.0, 2.0, 3.0]))


def test_lissa_takes_a_scale_a_little_above_the_largest_eigenvalue():
    C, v = np.diag([4.0, 1.0, 0.5]), np.array([1.0, -2.0, 3.0])
    found = solvers.lissa(C, v, 1.0, tol=1e-16, max_steps=7)
    same = solvers.lissa(C, v, 1.0, scale=1.05 * 5.0, tol=1e-16, max_steps=7)
    np.testing.assert_allclose(found.x, same.x, rtol=1e-8)
    nothing = solvers.lissa(np.zeros((3, 3)), v, max_steps=10)  # its scale is that of 1
    np.testing.assert_allclose(nothing.x, 11 / 1.05 * v, rtol=1e-13)
    assert not nothing.converged and nothing.residual == 1


def test_a_sampled_lissa_that_diverges_asks_for_twice_its_scale_at_least():
    C = np.diag([2.0, 1.0])
    with pytest.raises(Diverged, match="must exceed λ_max/2 of the batches") as failure:
        solvers.lissa(C, np.ones(2), scale=4.0, sample=lambda V: 20 * V)
    assert failure.value.scale == 8.0
    with pytest.raises(Diverged, match="λ_max is about 2: try scale = 2.1") as failure:
        solvers.lissa(C, np.ones(2), scale=0.5)
    assert failure.value.scale == pytest.approx(2.1, rel=1e-6)


def test_conjugate_gradients_take_ten_steps_for_each_unknown_at_most():
    C = np.diag(np.geomspace(1e-12, 1e4, 6))
    found = solvers.cg(C, np.ones(6), tol=1e-300)
    assert found.steps == 60 and not found.converged
