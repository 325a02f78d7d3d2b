"""Jacobians and the products with them against torch.func on the module."""

import numpy as np
import pytest
from explicit import KINDS, explicit, problem


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
