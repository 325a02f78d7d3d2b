"""Damped Gauss–Newton solves, influence and the proximal responses of networks, against explicit matrices, optimisers and closed forms."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch.func import functional_call, hessian, jacrev, vmap

from ifcore import data, influence, proximal, risk, solvers
from ifcore.network import Network
from ifcore.risk import Risk
from ifcore.weights import without


def network(seed, outputs=1, bias=True):
    torch.manual_seed(seed)
    layers = (
        torch.nn.Linear(3, 5, bias=bias),
        torch.nn.Tanh(),
        torch.nn.Linear(5, outputs, bias=bias),
    )
    return torch.nn.Sequential(*layers).double()


class Gated(torch.nn.Module):
    """A network with a convolution and a parameter of its own, which no list of linear layers describes."""

    def __init__(self):
        super().__init__()
        self.filters = torch.nn.Conv1d(1, 2, 2)
        self.gain = torch.nn.Parameter(torch.randn(2))

    def forward(self, x):
        return (self.gain * torch.tanh(self.filters(x[:, None, :])).mean(2)).sum(1, keepdim=True)


def problem(kind, seed, n=25, lam=0.0):
    """(risk, module, θ, weights) with θ far from any minimum."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    X = rng.standard_normal((n, 3))
    module = {
        "softmax": lambda: network(seed, 4),
        "no bias": lambda: network(seed, 1, False),
        "gated": lambda: Gated().double(),
    }.get(kind, lambda: network(seed))()
    loss = {"softmax": risk.cross_entropy, "logistic": risk.logistic}.get(kind, risk.squared)
    y = {"softmax": rng.integers(0, 4, n), "logistic": rng.integers(0, 2, n)}.get(
        kind, rng.standard_normal(n)
    )
    found = Risk(Network(module), loss, X, y, lam)
    return (
        found,
        module,
        found.model.theta + 0.3 * rng.standard_normal(found.d),
        rng.uniform(0, 2, n),
    )


KINDS = ["squared", "logistic", "softmax", "no bias", "gated"]


def explicit(found, module, theta, w):
    """J (n, K, d), g (n, K), H (n, K, K) by torch.func on the module itself, and G_w with the risk's penalty."""
    sizes = {name: p.shape for name, p in module.named_parameters()}

    def outputs(flat, x):
        parts, at = {}, 0
        for name, shape in sizes.items():
            parts[name] = flat[at : at + shape.numel()].view(shape)
            at += shape.numel()
        return functional_call(module, parts, (x[None],))[0]

    t = torch.from_numpy(theta)
    J = torch.stack([jacrev(outputs)(t, x) for x in found.X])
    f = torch.stack([outputs(t, x) for x in found.X]).detach()

    def loss(u, y):
        return found.loss(u if found.loss is risk.cross_entropy else u[0], y)

    g, H = vmap(jacrev(loss))(f, found.y), vmap(hessian(loss))(f, found.y)
    G = torch.einsum("n,nka,nkl,nlb->ab", torch.from_numpy(w), J, H, J) + found.lam * torch.eye(
        found.d, dtype=torch.float64
    )
    return tuple(part.detach().numpy() for part in (J, g, H, G))


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
        assert answer.residual == pytest.approx(
            residual.max(), rel=1e-2, abs=1e-13 * kappa
        )  # the residual it reports is the one it has
        if answer.converged:
            assert np.linalg.norm(answer.x - truth) <= (
                3e-15 * kappa + 2 * answer.residual * np.sqrt(kappa)
            ) * np.linalg.norm(truth)
        assert answer.solver == name and (answer.converged or name == "lissa")
        assert (answer.steps > 0) == (name in ("cg", "lissa"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damping", [0.1, 100.0])
def test_damped_influence_and_effects_against_explicit_matrices(kind, damping):
    found, module, theta, w = problem(kind, 7, lam=0.3)
    test, *_ = problem(kind, 8, n=6)
    test = Risk(found.model, found.loss, test.X, test.y)
    J, g, _, G = explicit(found, module, theta, w)
    Jt, gt, _, _ = explicit(test, module, theta, np.ones(6))
    gradients = np.einsum("nkd,nk->nd", J, g)
    moves = -np.linalg.solve(G + damping * np.eye(found.d), gradients.T).T
    outputs = np.einsum("tkd,jd->tkj", Jt, moves)
    losses, own = np.einsum("tk,tkj->tj", gt, outputs), np.einsum("jd,jd->j", gradients, moves)
    for name in ("primal", "dual", "cg"):
        options = {"solver": name}
        tolerance = 1e-7 if name == "cg" else 1e-10
        np.testing.assert_allclose(
            influence.damped_influence(found, theta, w, damping, **options),
            moves,
            rtol=0,
            atol=tolerance * np.abs(moves).max(),
        )
        effects = influence.damped_effects(found, theta, w, damping, test=test, **options)
        assert effects.solver == name
        for mine, truth in (
            (effects.outputs, outputs),
            (effects.losses, losses),
            (effects.own, own),
        ):
            np.testing.assert_allclose(
                mine.reshape(truth.shape), truth, rtol=0, atol=tolerance * np.abs(truth).max()
            )
    itself = influence.damped_effects(found, theta, w, damping)
    np.testing.assert_allclose(np.diag(itself.losses), own, rtol=0, atol=1e-10 * np.abs(own).max())
    assert (own <= 0).all()


@pytest.mark.parametrize("kind", ["squared", "softmax", "gated"])
def test_the_hessian_in_place_of_gauss_newton(kind):
    found, _, theta, w = problem(kind, 3, lam=0.2)
    H = found.hessian(theta, w)
    damping = 1.0 + 2 * max(0.0, -np.linalg.eigvalsh(H)[0])
    truth = -np.linalg.solve(H + damping * np.eye(found.d), found.gradients(theta).T).T
    for name in ("primal", "cg"):
        moves = influence.damped_influence(found, theta, w, damping, matrix="hessian", solver=name)
        np.testing.assert_allclose(moves, truth, rtol=0, atol=1e-8 * np.abs(truth).max())


@pytest.mark.parametrize("seed", range(5))
def test_pbrf_of_least_squares_is_the_linearised_shift_over_one_minus_leverage(seed):
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 20, 4)
    theta, damping, j = 3 * rng.standard_normal(4), 10 ** rng.uniform(-2, 1), rng.integers(20)
    found = Risk(risk.linear, risk.squared, X, y, lam=0.1)
    M = X.T @ X + (0.1 + damping) * np.eye(4)
    h = X[j] @ np.linalg.solve(M, X[j])
    shift = proximal.pbrf(found, theta, without(20, j), damping).theta - theta
    linear = -influence.damped_influence(found, theta, damping=damping)[j]
    np.testing.assert_allclose(shift, linear / (1 - h), rtol=0, atol=1e-9 * np.linalg.norm(shift))
    exact = np.linalg.solve(M - np.outer(X[j], X[j]), X[j] * (X[j] @ theta - y[j]))
    np.testing.assert_allclose(shift, exact, rtol=0, atol=1e-9 * np.linalg.norm(shift))


def proximal_value(found, theta, start, damping, w, base):
    """The objective of pbrf by its definition, (base None: of `damped`)."""
    move = theta - start
    if base is None:
        return found.value(theta, w) + damping / 2 * move @ move
    value = base @ found.bregman(theta, start) + (w - base) @ found.losses(theta)
    return value + (found.lam + damping) / 2 * move @ move


@pytest.mark.parametrize("kind", KINDS)
def test_proximal_responses_against_a_direct_optimiser(kind):
    found, _, start, _ = problem(kind, 11, lam=0.2)
    base, w = np.ones(found.n), without(found.n, 4)
    damping = 2.0 + 2 * max(0.0, -np.linalg.eigvalsh(found.hessian(start, w))[0])
    for respond, b in ((proximal.pbrf, base), (proximal.damped, None)):
        mine = respond(found, start, w, damping, tol=1e-9)
        peer = minimize(
            lambda t: proximal_value(found, t, start, damping, w, b),
            start,
            method="BFGS",
            options={"gtol": 1e-7},
        )
        value = proximal_value(found, mine.theta, start, damping, w, b)
        assert value <= peer.fun + 1e-12 * abs(peer.fun)
        np.testing.assert_allclose(
            mine.theta, peer.x, rtol=0, atol=1e-5 * np.linalg.norm(mine.theta - start) + 1e-7
        )
        step, v = 1e-5, np.random.default_rng(0).standard_normal(found.d)
        slope = (
            proximal_value(found, mine.theta + step * v, start, damping, w, b)
            - proximal_value(found, mine.theta - step * v, start, damping, w, b)
        ) / (2 * step)
        assert abs(slope) <= 1e-6 * np.linalg.norm(found.gradients(start)[4]) * np.linalg.norm(v)


@pytest.mark.parametrize("kind", KINDS)
def test_the_influence_is_the_derivative_of_the_response(kind):
    """At a θˢ that is stationary for nothing, with weights of training that are not 1, by differences of fourth order."""
    found, _, theta, base = problem(kind, 13, lam=0.2)
    damping, j, step = 2.0, 6, 4e-3
    weights = base + step * np.array([[-2], [-1], [1], [2]]) * np.eye(found.n)[j]
    ends = proximal.pbrf(found, theta, weights, damping, base, tol=1e-8).theta
    slope = (ends[0] - 8 * ends[1] + 8 * ends[2] - ends[3]) / (12 * step)
    expected = influence.damped_influence(found, theta, base, damping)[j]
    np.testing.assert_allclose(slope, expected, rtol=0, atol=1e-5 * np.linalg.norm(expected))


def test_bregman_of_the_squared_loss_and_of_softmax():
    rng = np.random.default_rng(0)
    u, v, y = rng.standard_normal((3, 4))
    assert risk.bregman(risk.squared, u, v, y).item() == pytest.approx(
        np.sum((u - v) ** 2) / 2, rel=1e-13
    )
    p, q = (np.exp(a) / np.exp(a).sum() for a in (u, v))
    divergence = np.sum(q * np.log(q / p))  # Kullback–Leibler, of the second from the first
    for label in range(4):
        assert risk.bregman(risk.cross_entropy, u, v, label).item() == pytest.approx(
            divergence, rel=1e-12
        )
