"""Jacobians and the products with them against torch.func on the module."""

import tracemalloc

import numpy as np
import pytest
import scipy.linalg
from explicit import KINDS, explicit, problem

from ifcore import jacobian
from ifcore.jacobian import Dense, Layers, Scaled


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_jacobian_and_gauss_newton_against_torch_func(kind, seed):
    found, module, theta, w = problem(kind, seed, lam=0.7)
    J, g, H, G = explicit(found, module, theta, w)
    assert found.layered == (kind != "gated")
    np.testing.assert_allclose(
        found.jacobian(theta).reshape(J.shape), J, rtol=0, atol=1e-14 * np.abs(J).max()
    )
    np.testing.assert_allclose(
        found.output_gradients(theta).reshape(g.shape), g, rtol=0, atol=1e-14 * np.abs(g).max()
    )
    np.testing.assert_allclose(
        found.output_hessians(theta), H, rtol=0, atol=1e-14 * np.abs(H).max()
    )
    np.testing.assert_allclose(
        found.gauss_newton(theta, w), G, rtol=0, atol=1e-13 * np.abs(G).max()
    )
    V = np.random.default_rng(seed).standard_normal((found.d, 3))
    scale = np.abs(G).max() * np.abs(V).max() * found.d
    np.testing.assert_allclose(
        found.gauss_newton_product(theta, V, w), G @ V, rtol=0, atol=1e-15 * scale
    )
    np.testing.assert_allclose(
        found.gauss_newton_product(theta, V[:, 0], w), G @ V[:, 0], rtol=0, atol=1e-15 * scale
    )
    hessian_ = found.hessian(theta, w)
    np.testing.assert_allclose(
        found.hessian_product(theta, V, w),
        hessian_ @ V,
        rtol=0,
        atol=1e-14 * np.abs(hessian_).max() * found.d,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_against_products_of_the_matrices(kind):
    """Of one Jacobian, and of two, of so many examples that a kernel is made in blocks."""
    found, _, theta, _ = problem(kind, 0, n=400)
    few, *_ = problem(kind, 1, n=40)
    ours, theirs = found.jacobian_map(theta), few.jacobian_map(theta)
    J, other = ours.dense(), theirs.dense()
    S = np.random.default_rng(2).standard_normal((400, found.K, found.K))
    S += S.transpose(0, 2, 1)
    SJ = (S @ J.reshape(400, found.K, -1)).reshape(J.shape)
    scaled = Scaled(ours, S)
    for kernel, left, right in (
        (ours.kernel(), J, J),
        (ours.kernel(theirs), J, other),
        (theirs.kernel(ours), other, J),
        (ours.kernel(Dense(other)), J, other),
        (Dense(other).kernel(ours), other, J),
        (scaled.kernel(), SJ, SJ),
        (scaled.kernel(J @ J.T), SJ, SJ),
    ):
        bound = 1e-14 * np.linalg.norm(left, axis=1).max() * np.linalg.norm(right, axis=1).max()
        np.testing.assert_allclose(kernel, left @ right.T, rtol=0, atol=bound)


@pytest.mark.parametrize("kind", ["squared", "softmax", "no bias"])
def test_products_go_by_blocks_of_columns_whose_memory_is_bounded(kind, monkeypatch):
    found, _, theta, _ = problem(kind, 0, n=40)
    monkeypatch.setattr(jacobian, "COLUMNS", 1000 * found.n)
    J, r = found.jacobian_map(theta), 2000
    rng = np.random.default_rng(1)
    dense, V, U = (
        J.dense(),
        rng.standard_normal((J.shape[1], r)),
        rng.standard_normal((J.shape[0], r)),
    )
    for product, given, expected in ((J.product, V, dense @ V), (J.transposed, U, dense.T @ U)):
        tracemalloc.start()
        try:
            answer = product(given)
            taken = tracemalloc.get_traced_memory()[1] - answer.nbytes
        finally:
            tracemalloc.stop()
        assert taken < 4 * 8 * jacobian.COLUMNS
        bound = 1e-14 * np.abs(expected).max()
        np.testing.assert_allclose(answer, expected, rtol=0, atol=bound)


def test_products_by_layers_in_blocks_whose_last_is_smaller(monkeypatch):
    found, _, theta, _ = problem("softmax", 3)
    J, dense = found.jacobian_map(theta), found.jacobian_map(theta).dense()
    widest = max(delta.shape[2] for _, _, delta, _ in J.layers)
    monkeypatch.setattr(jacobian, "COLUMNS", 2 * found.n * widest)
    rng = np.random.default_rng(0)
    V, U = rng.standard_normal((found.d, 5)), rng.standard_normal((len(dense), 5))
    assert [split for _, split in J._blocks(5)] == [2, 2, 1]
    np.testing.assert_allclose(J.product(V), dense @ V, rtol=0, atol=1e-13 * np.abs(dense).max())
    np.testing.assert_allclose(J.transposed(U), dense.T @ U, rtol=0, atol=1e-12)


def layers(n, K, *shapes, seed=0):
    """A Jacobian by layers (q, p, bias), each behind the one before."""
    rng, parts, d = np.random.default_rng(seed), [], 0
    for q, p, bias in shapes:
        parts.append((d, rng.standard_normal((n, p)), rng.standard_normal((n, K, q)), bias))
        d += q * (p + bias)
    return Layers(parts, d)


def test_a_temporary_holds_four_million_numbers_at_most():
    n, q, r = 64, 64, 4096
    J = layers(n, 1, (q, 1, False))
    V, U = np.ones((q, r)), np.ones((n, r))
    for product, given in ((J.product, V), (J.transposed, U)):
        tracemalloc.start()
        try:
            answer = product(given)
            taken = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert taken < 2.2 * 8 * 2**22 + 2 * answer.nbytes  # of a block, and of that before it


def test_an_example_wider_than_a_block_goes_alone(monkeypatch):
    J, rng = layers(3, 2, (4, 2, True), (2, 4, False)), np.random.default_rng(0)
    V, U = rng.standard_normal((J.shape[1], 3)), rng.standard_normal((6, 3))
    monkeypatch.setattr(jacobian, "COLUMNS", 1)
    assert [split for _, split in J._blocks(3)] == [1, 1, 1]
    np.testing.assert_allclose(J.product(V), J.dense() @ V, rtol=0, atol=1e-13)
    np.testing.assert_allclose(J.transposed(U), J.dense().T @ U, rtol=0, atol=1e-13)
    many = layers(2**17 + 1, 1, (1, 1, True))  # more columns than a block of a kernel has numbers
    one = layers(2, 1, (1, 1, True), seed=1)
    np.testing.assert_allclose(one.kernel(many), one.dense() @ many.dense().T, rtol=0, atol=1e-13)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("K", [1, 2, 3])
def test_blocks_scale_the_rows_of_their_examples(n, K):
    rng = np.random.default_rng(0)
    S, U = rng.standard_normal((n, K, K)), rng.standard_normal((n * K, 4))
    expected = scipy.linalg.block_diag(*S) @ U
    np.testing.assert_allclose(jacobian.scale(S, U), expected, rtol=0, atol=1e-14)


def test_a_jacobian_of_one_layer_and_of_dense_rows_has_the_products_of_its_matrix():
    rng = np.random.default_rng(0)
    for J in (layers(4, 3, (2, 5, True)), layers(1, 1, (1, 1, False)), Dense(rng.random((4, 3)))):
        full = J.dense()
        V, U = (rng.standard_normal((size, 2)) for size in full.shape[::-1])
        assert J.shape == full.shape
        np.testing.assert_allclose(J.product(V), full @ V, rtol=0, atol=1e-13)
        np.testing.assert_allclose(J.transposed(U), full.T @ U, rtol=0, atol=1e-13)
        np.testing.assert_allclose(J.kernel(), full @ full.T, rtol=0, atol=1e-13)
