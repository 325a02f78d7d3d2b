"""The two sides of what decides: of conditions, sizes, memory and tolerances, and the defaults."""

import re

import numpy as np
import pytest
from memory import stated
from networks import problem

from ifcore import jacobian, risk, solvers
from ifcore.risk import NotFinite, Risk
from ifcore.solvers import EPS, Diverged, NotPositiveDefinite, OutOfMemory, direct


def nearly_singular(share, d=50):
    """A matrix of unit diagonal with eigenvalues near d, 1 and share·d²ε, and columns of sum 0."""
    C, signs = np.eye(d + 1), (-1.0) ** np.arange(d)
    C[:d, :d] = np.outer(signs, signs)
    return C + share * d * d * EPS * np.diag(np.r_[np.ones(d), 0])


def test_the_smallest_eigenvalue_counts_from_the_rounding_of_the_largest(monkeypatch):
    with pytest.raises(NotPositiveDefinite) as refusal:
        direct(nearly_singular(0.5), np.ones(51))
    assert abs(refusal.value.smallest) < 51**2 * EPS and refusal.value.reached is None
    direct(nearly_singular(2.0), np.ones(51))
    monkeypatch.delattr(np.linalg, "eigvalsh")
    direct(np.diag([1.0, 1e-12, 1e6]), np.ones(3))  # a good one is not decomposed at all


@pytest.mark.parametrize("C", [[[-1.0]], [[0.0]], np.zeros((2, 2)), np.diag([-2.0, -1.0])])
def test_what_is_nowhere_positive_is_refused_and_mended(C):
    seen = []
    with pytest.raises(NotPositiveDefinite, match="C must be .* at damping = 0. .* would mend it"):
        direct(C, np.ones(len(C)))
    with pytest.raises(NotPositiveDefinite, match="B must be .*. words") as refusal:
        direct(C, np.ones(len(C)), 0.0, "B", lambda *ends: seen.append(ends) or "words")
    values = np.linalg.eigvalsh(C)
    assert seen == [(values[0], values[-1])] and refusal.value.smallest == values[0]
    np.testing.assert_allclose(
        direct(C, np.ones(len(C)), 3.0).x, 1 / (np.diag(C) + 3), rtol=1e-15, atol=0
    )
    assert solvers.mending(0.0, -2.0, -1.0) == "λ = 2.2e+00 would mend it"
    assert solvers.mending(0.0, 0.0, -1.0) == solvers.mending(0.0, 1e-3, 1.0)


def test_a_matrix_is_symmetric_up_to_rounding():
    C = np.array([[2e3, 0.0, 1.0], [0.0, 3e3, 1.0], [1.0 + 1e-6, 1.0, 1e3]])
    x = np.array([1.0, -2.0, 3.0])
    np.testing.assert_allclose(direct(C, C @ x).x, x, rtol=1e-8)
    for turned in (C, C.T):
        with pytest.raises(ValueError, match="C must be symmetric"):
            direct(turned + [[0, 0, 0], [0, 0, 0], [1e-4, 0, 0]], x)
    near = -np.ones((2, 2)) + 1e-12 * np.tri(2)
    np.testing.assert_allclose(direct(near, np.ones(2), 3.0).x, [1, 1], rtol=1e-11)


def test_a_sum_may_overflow_where_no_entry_does():
    C = np.diag([1e308, 1.2e308])
    np.testing.assert_allclose(direct(C, [1e308, 1.2e308]).x, [1, 1], rtol=1e-15)
    for wrong in np.diag([1.0, np.inf]), np.diag([1.0, np.nan]), np.diag([np.inf, -np.inf]):
        with pytest.raises(NotFinite, match="C must be finite"):
            solvers.Primal(wrong)
    with np.errstate(over="ignore"), pytest.raises(NotFinite, match="BBᵀ must be finite"):
        solvers.Dual(np.full((2, 3), 1e200), 1.0)


# the dual form ------------------------------------------------------------------------------


def test_the_dual_form_begins_above_the_rounding_of_its_kernel():
    B = np.diag([2.0, 1.0])  # BBᵀ has the trace 5
    for m, smallest in ((2, 1.0), (1, 0.0)):
        trace = 5.0 if m == 2 else 4.0
        with pytest.raises(NotPositiveDefinite) as refusal:
            solvers.Dual(B[:m], EPS * trace)
        assert refusal.value.smallest == pytest.approx(smallest, abs=1e-15)
        solvers.Dual(B[:m], EPS * trace * (1 + EPS))


def test_the_dual_form_takes_a_kernel_that_is_at_hand():
    rng = np.random.default_rng(0)
    J, S, v = jacobian.Dense(rng.standard_normal((4, 6))), rng.uniform(1, 2, (4, 1, 1)), np.ones(6)
    own = solvers.Dual(jacobian.Scaled(J, S), 0.3)
    given = solvers.Dual(jacobian.Scaled(J, S), 0.3, J.kernel())
    np.testing.assert_array_equal(given.solve(v), own.solve(v))
    doubled = solvers.Dual(jacobian.Scaled(J, S), 0.3, 4 * J.kernel())  # it is not made again
    twice = np.linalg.cholesky(4 * own.B.kernel() + 0.3 * np.eye(4))
    np.testing.assert_allclose(doubled.whiten_outputs(np.eye(4)), np.linalg.inv(twice), atol=1e-14)


@pytest.mark.parametrize("damping", [1e-2, 3.0])
def test_the_dual_form_whitens_by_the_symmetric_root(damping):
    """Also where BBᵀ is singular, with eigenvalues on both sides of 1."""
    rng = np.random.default_rng(1)
    B = rng.standard_normal((3, 6)) * [[1.0], [0.1], [3.0]]
    B = np.vstack([B, B[0] + B[1]])
    values, V = np.linalg.eigh(B.T @ B + damping * np.eye(6))
    root = V / np.sqrt(values) @ V.T
    found = solvers.Dual(B, damping).whiten(np.eye(6))
    np.testing.assert_allclose(found, root, rtol=0, atol=1e-13 / damping)


def test_the_dual_form_is_refined():
    """What the subtraction of (v − Bᵀ(λI + BBᵀ)⁻¹Bv)/λ costs is won back."""
    rng = np.random.default_rng(0)
    B, V = 30 * rng.standard_normal((5, 9)), rng.standard_normal((9, 3))
    form = solvers.Dual(B, 1.0)
    once = np.linalg.norm(form.product(form.solve(V)) - V, axis=0) / np.linalg.norm(V, axis=0)
    assert form.answer(V).residual < 0.3 * once.max()
    assert form.answer(V[:, 0]).x.shape == (9,)


# sizes and memory ---------------------------------------------------------------------------


def linear(n, d, lam=0.0, outputs=1):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d // outputs))
    if outputs == 1:
        return Risk(risk.linear, risk.squared, X, np.ones(n), lam)
    return Risk(
        lambda theta, x: theta.reshape(outputs, -1) @ x,
        risk.cross_entropy,
        X,
        np.arange(n) % outputs,
        lam,
        d=d,
    )


@pytest.mark.parametrize("n, d, outputs", [(7, 12, 1), (3, 12, 3), (20, 6, 3), (12, 12, 1)])
def test_the_forms_need_what_is_stated(n, d, outputs):
    one = linear(n, d, outputs=outputs)
    sizes = {"n": n, "d": d, "K": outputs, "f": 0, "m": n * outputs}
    primal = stated.stated(solvers.factor, "for G_w, primal", sizes)
    dual = stated.stated(solvers.factor, "dual", sizes)
    for form, needed in (("primal", primal), ("dual", dual)):
        assert solvers.choose(one, 1.0, solver=form, memory=needed) == form
        with pytest.raises(OutOfMemory) as refusal:
            solvers.choose(one, 1.0, solver=form, memory=needed - 1)
        assert refusal.value.needed == needed
    # without one, the dual form only where it is the smaller, and there is a λ
    for damping in (0.5, 0.0):
        small = n * outputs < d and damping > 0
        least = min(primal, dual) if small else primal
        with pytest.raises(OutOfMemory) as refusal:
            solvers.factor(one, np.zeros(d), damping=damping, memory=1)
        assert refusal.value.needed == least
        assert solvers.choose(one, damping, memory=least - 1) == "cg"
        assert solvers.choose(one, damping, memory=least) == ("dual" if small else "primal")
        assert solvers.choose(one, damping) == ("dual" if small else "primal")
    penalised = linear(n, d, 0.5, outputs)
    assert (solvers.choose(penalised) == "dual") == (n * outputs < d)


def test_the_forms_by_layers_need_what_is_stated():
    one = problem(7, 3)
    found = solvers._needed(one)["dual"]
    inputs = sum(layer.inputs for layer in one.model.layers)
    outputs = sum(layer.outputs for layer in one.model.layers)
    assert found < 8 * (2 * 21**2 + 21 * one.d)
    assert found >= 8 * (2 * 21**2 + 7 * inputs + 21 * outputs)
    with pytest.raises(OutOfMemory) as refusal:
        solvers.choose(one, 1.0, solver="dual", memory=found - 1)
    assert refusal.value.needed == found


def test_two_gibibytes_are_allowed_unless_the_caller_says_otherwise():
    d = 9458  # 8 (3 d² + 2 d) bytes for one example
    least, most = linear(1, d), linear(1, d + 1)
    assert solvers._needed(least)["primal"] <= 2**31 < solvers._needed(most)["primal"]
    assert [solvers.choose(one) for one in (least, most)] == ["primal", "cg"]


def test_a_lambda_for_each_parameter_leaves_the_primal_form():
    own = problem(12, lam=np.linspace(0, 1, 21))
    for matrix in ("gauss_newton", "hessian"):
        assert solvers.choose(own, 1.0, matrix) == "primal"
        with pytest.raises(ValueError, match="a λ for each parameter; got 'dual'"):
            solvers.choose(own, 1.0, matrix, "dual")


def test_only_a_risk_has_a_factor():
    for function in (solvers.factor, lambda *a: solvers.solve(*a, np.ones(2))):
        with pytest.raises(TypeError, match="risk must be a Risk"):
            function(np.eye(2), np.ones(2))


# conjugate gradients ------------------------------------------------------------------------


def test_an_answer_that_met_its_tolerance_has_converged():
    """The residual that is carried along drifts from the one it has: there is room for that."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        C = np.cov(rng.standard_normal((8, 12)))
        for tol in (1e-2, 1e-10):
            found = solvers.cg(C, rng.standard_normal((8, 2)), tol=tol)
            assert found.converged and found.residual <= tol


def test_conjugate_gradients_count_the_steps_of_the_longest_column():
    found = solvers.cg(np.diag([1.0, 2.0, 5.0]), np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0]]))
    assert found.steps == 3 and found.converged
    assert not solvers.cg(np.eye(2), np.ones(2), 1e-300, tol=1e-300).residual


@pytest.mark.parametrize(
    "C, v, damping, lowest",
    [
        (np.diag([2.0, -3.0]), np.eye(2), 0.5, -2.5),
        (np.diag([2.0, 0.0]), np.eye(2), 0.0, 0.0),
        (-np.zeros((2, 2)), np.ones(2), 0.0, 0.0),
    ],
)
def test_the_lowest_curvature_met_is_named(C, v, damping, lowest):
    words = re.escape(f"curvature {lowest:.2e}, so")
    with pytest.raises(NotPositiveDefinite, match=words) as refusal:
        solvers.cg(C, v, damping)
    assert refusal.value.smallest == lowest


def test_truncated_conjugate_gradients_at_a_curvature_of_zero():
    seen, v = [], np.array([[3.0, 0.0], [0.0, 4.0]])

    def product(V, which):
        seen.append(which.tolist())
        return np.diag([0.0, 2.0]) @ V

    for radius, first in ((np.inf, 0.0), (0.25, 0.25)):
        x, left, steps, curvature, size = solvers.truncated_cg(product, v, 0.0, 9, None, radius)
        second = min(radius, 2.0)
        np.testing.assert_array_equal(x, np.diag([first, second]))
        np.testing.assert_array_equal(left, np.diag([3.0, 4 - 2 * second]))
        assert list(steps) == [1, 1] and list(curvature) == [0, 2]
        np.testing.assert_array_equal(size, [first, second])
    assert seen == [[0, 1]] * 2  # and what has ended is not asked for again


def test_a_function_may_write_into_what_it_is_given():
    scale, v = np.array([[3.0], [2.0], [1.0]]), np.array([[1.0, 1.0], [2.0, -1.0], [3.0, 0.5]])
    for solver in (solvers.cg, solvers.lissa):
        found = solver(lambda V: np.multiply(V, scale, out=V), v)
        np.testing.assert_allclose(found.x, v / scale, rtol=1e-8)
    found = solvers.cg(np.diag([3.0, 2.0, 1.0]), v, preconditioner=lambda V: np.divide(V, 2, out=V))
    np.testing.assert_allclose(found.x, v / scale, rtol=1e-8)


@pytest.mark.parametrize("signs", [[0, 0], [1, 0], [1, -1]])
def test_a_preconditioner_is_positive_in_every_column(signs):
    with pytest.raises(ValueError, match="preconditioner must be positive definite"):
        solvers.cg(np.diag([1.0, 2.0]), np.eye(2), preconditioner=lambda V: V * signs)


# LiSSA --------------------------------------------------------------------------------------


def test_lissa_takes_five_thousand_steps_unless_told_otherwise():
    found = solvers.lissa(np.diag([1.0, 1e-6]), np.ones(2), scale=1.0)
    assert found.steps == 5000 and not found.converged


def test_lissa_ends_where_its_residual_is_the_tolerance():
    """x₀ = v/2 leaves a half, and each step halves it."""
    found = solvers.lissa(np.eye(1), np.ones(1), scale=2.0, tol=0.5)
    assert found.steps == 1 and found.residual == 0.5 and found.converged
    found = solvers.lissa(np.eye(1), np.ones(1), scale=2.0, tol=0.25)
    assert found.steps == 2 and found.residual == 0.25 and found.converged
    two = solvers.lissa(np.diag([1.0, 2.0]), np.eye(2), scale=2.0, tol=0.25)
    assert two.steps == 2 and two.residual == 0.25  # a column that is done waits for the other
    assert solvers.lissa(np.eye(2), np.zeros(2)).steps == 1


def test_a_lissa_that_grows_says_when_it_was_stopped():
    """By −3/2 a step: within a hundred times the right-hand side no more after twelve."""
    for sample in (None, lambda V: 10 * V):
        with pytest.raises(Diverged, match="after 12 steps") as failure:
            solvers.lissa(10 * np.eye(1), np.ones(1), scale=4.0, sample=sample)
        assert failure.value.steps == 12 and failure.value.scale == pytest.approx(10.5)
    with pytest.raises(NotPositiveDefinite) as refusal:
        solvers.lissa(np.diag([1.0, -2.0]), np.ones(2), 0.5, scale=2.0)
    assert refusal.value.smallest == pytest.approx(-1.5, rel=1e-12)


def test_the_largest_eigenvalue_of_a_small_matrix():
    for size in (1e-150, 1e-3, 1e150):
        C = size * np.diag([1.0, 0.1])
        assert solvers._largest(lambda V, C=C: C @ V, 2) == pytest.approx(size, rel=1e-12)


@pytest.mark.parametrize("matrix", ["gauss_newton", "hessian"])
def test_batches_are_drawn_without_replacement_and_average_to_the_whole(matrix):
    one, w = problem(12, lam=0.2), np.linspace(0.1, 2, 12)
    theta, V = one.model.theta, np.random.default_rng(0).standard_normal((21, 2))
    whole = getattr(one, matrix)(theta, w) @ V
    sample = solvers._batches(one, theta, w, matrix, 12, 0)
    np.testing.assert_allclose(sample(V), whole, rtol=0, atol=1e-13 * np.abs(whole).max())
    sample = solvers._batches(one, theta, w, matrix, 6, 0)
    drawn = np.array([sample(V) for _ in range(60)])
    spread = drawn.std(0) / np.sqrt(60)
    assert spread.max() > 0 and (np.abs(drawn.mean(0) - whole) < 5 * spread + 1e-12).all()


def test_the_batches_of_a_solve_have_the_seed_0_unless_told_otherwise():
    one, v = problem(12), np.ones(21)
    options = {"damping": 20.0, "solver": "lissa", "batch": 6, "max_steps": 3, "scale": 300.0}
    default, zero, other = (
        solvers.solve(one, one.model.theta, v, **options, **seed).x
        for seed in ({}, {"seed": 0}, {"seed": 1})
    )
    np.testing.assert_array_equal(default, zero)
    assert (default != other).any()
