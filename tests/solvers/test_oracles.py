"""Every solver against an explicit Cholesky factorisation."""

import numpy as np
import pytest
from explicit import KINDS, explicit, problem

from ifcore import solvers


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damping", [1e-2, 1.0, 1e4])
def test_every_solver_against_an_explicit_cholesky(kind, damping):
    found, module, theta, w = problem(kind, 5)
    *_, G = explicit(found, module, theta, w)
    M = G + damping * np.eye(found.d)
    V = np.random.default_rng(0).standard_normal((found.d, 4))
    truth, kappa = np.linalg.solve(M, V), np.linalg.cond(M)
    for name, options in (
        ("primal", {}),
        ("dual", {}),
        ("cg", {"tol": 1e-10}),
        ("lissa", {"tol": 1e-9, "max_steps": 400_000 if kappa < 1e3 else 1}),
    ):
        answer = solvers.solve(found, theta, V, w, damping, solver=name, **options)
        residual = np.linalg.norm(M @ answer.x - V, axis=0) / np.linalg.norm(V, axis=0)
        # the residual it reports is the one it has
        assert answer.residual == pytest.approx(residual.max(), rel=1e-2, abs=1e-13 * kappa)
        if answer.converged:
            allowed = 3e-15 * kappa + 2 * answer.residual * np.sqrt(kappa)
            assert np.linalg.norm(answer.x - truth) <= allowed * np.linalg.norm(truth)
        assert answer.solver == name and (answer.converged or name == "lissa")
        assert (answer.steps > 0) == (name in ("cg", "lissa"))


def test_the_dual_form_takes_many_right_hand_sides():
    rng = np.random.default_rng(5)
    B, V = rng.standard_normal((4, 7)), rng.standard_normal((7, 3))
    expected = np.linalg.solve(B.T @ B + 0.3 * np.eye(7), V)
    np.testing.assert_allclose(solvers.dual(B, V, 0.3).x, expected, rtol=1e-12)
    np.testing.assert_allclose(solvers.dual(B, V[:, 0], 0.3).x, expected[:, 0], rtol=1e-12)
    np.testing.assert_array_equal(solvers.dual(B.tolist(), V, 0.3).x, solvers.dual(B, V, 0.3).x)
