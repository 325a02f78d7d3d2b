"""`ifcore.solvers`: the residual it reports, invariances, and what it refuses."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from ifcore import data, solvers
from ifcore.solvers import NotPositiveDefinite, direct

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
    left = np.linalg.norm(damped @ found.x - damped @ x, axis=0) / np.linalg.norm(
        damped @ x, axis=0
    )
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
    lam = float(str(error.value).split("λ = ")[-1].split(" ")[0])
    assert direct(C, np.ones(4), lam).residual <= 1e-15 * np.linalg.cond(C + lam * np.eye(4))


@pytest.mark.parametrize(
    "C, v, error, words",
    [
        (
            np.ones((2, 3)),
            np.ones(2),
            ValueError,
            r"must be \(d, d\), v .* got \(2, 3\) and \(2,\)",
        ),
        (np.eye(2), np.ones(3), ValueError, r"got \(2, 2\) and \(3,\)"),
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
        NotPositiveDefinite, match="smallest eigenvalue is -1.00e.00 .* at λ = 1"
    ) as error:
        direct(C, np.ones(2), 1.0)
    mend = float(str(error.value).split("λ = ")[-1].split(" ")[0])
    assert 2 < mend < 2.5
    direct(C, np.ones(2), mend)


def test_the_residual_is_that_of_the_worst_right_hand_side():
    """After one step an eigenvector is done, and the other right-hand side is not."""
    C, v = np.diag([1.0, 2.0, 5.0]), np.array([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0]])
    found = solvers.cg(C, v, max_steps=1)
    left = np.linalg.norm(C @ found.x - v, axis=0) / np.linalg.norm(v, axis=0)
    assert left[0] < 1e-15 < 0.1 < left[1]
    assert found.residual == pytest.approx(left[1], rel=1e-12) and not found.converged
