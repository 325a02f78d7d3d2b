"""W2: influence of 1,000 points on 200 test losses and on their own, damped Gauss–Newton.

A network 8-64-64-1 stopped early, λ = 1e-3 in the notes' mean convention. W5: one inverse product
of the same matrix. And one product with it.
"""

import numpy as np
import torch
from benchmarks.timing import Method, products, relative
from scipy.linalg import cho_factor, cho_solve
from torch.func import functional_call, jacrev, jvp, vjp, vmap

from ifbook.benchmarks import dual_operations, product_operations
from ifcore import influence, risk, solvers
from ifcore.network import Network

WIDTHS = 8, 64, 64, 1
CHECKED = 3  # training points whose influences are held to the exact ones


def problem(n=1_000, t=200):
    """The risks of training and test points, θˢ after 300 steps of Adam, damping, module."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n + t, 8))
    y = np.sin(X[:, :4].sum(1)) + 0.1 * rng.standard_normal(n + t)
    layers = (
        torch.nn.Linear(8, 64),
        torch.nn.Tanh(),
        torch.nn.Linear(64, 64),
        torch.nn.Tanh(),
        torch.nn.Linear(64, 1),
    )
    module = torch.nn.Sequential(*layers).double()
    optimiser = torch.optim.Adam(module.parameters(), 3e-3)
    inputs, targets = torch.from_numpy(X[:n]), torch.from_numpy(y[:n])
    for _ in range(300):
        optimiser.zero_grad()
        ((module(inputs)[:, 0] - targets) ** 2).mean().backward()
        optimiser.step()
    model = Network(module)
    train, test = (
        risk.Risk(model, risk.squared, X[rows], y[rows]) for rows in (slice(n), slice(n, None))
    )
    return train, test, model.theta, 1e-3 * n, module


def gradients(data, module):
    """J and the losses' gradients of every example, by torch.func."""
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    J = vmap(jacrev(lambda p, x: functional_call(module, p, (x,))[0]), (None, 0))(
        parameters, data.X
    )
    J = torch.cat([J[name].reshape(len(data.X), -1) for name in parameters], 1).numpy()
    residual = (module(data.X)[:, 0] - data.y).detach().numpy()
    return J, residual[:, None] * J


def answer(x, g, other):
    return -other @ x, -np.einsum("ij,ji->j", x, g)


def primal(train, test, damping, module):
    """Effects on the test losses, and self-influences, by an explicit d × d matrix."""
    (J, g), (_, other) = gradients(train, module), gradients(test, module)
    G = J.T @ J
    G.flat[:: len(G) + 1] += damping
    return answer(cho_solve(cho_factor(G, overwrite_a=True), g.T), g, other)


def inverse(J, damping, V):
    """(JᵀJ + λI)⁻¹V, the residual of each refinement in extended precision."""
    factor, wide = cho_factor(J.T @ J + damping * np.eye(J.shape[1])), J.astype(np.longdouble)
    x = np.zeros(V.shape, dtype=np.longdouble)
    for _ in range(4):
        left = V - wide.T @ (wide @ x) - damping * x
        x += cho_solve(factor, left.astype(float))
    return x


def product(train, damping, module):
    """v ↦ (JᵀJ + λI)v for a flat v, by forward and reverse differentiation."""
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    sizes = [p.numel() for p in parameters.values()]

    def outputs(p):
        return functional_call(module, p, (train.X,))[:, 0]

    _, back = vjp(outputs, parameters)

    def multiplied(v):
        parts = {
            name: part.view_as(p) for (name, p), part in zip(parameters.items(), v.split(sizes))
        }
        _, moved = jvp(outputs, (parameters,), (parts,))
        return torch.cat([part.reshape(-1) for part in back(moved)[0].values()]) + damping * v

    return multiplied


def conjugate_gradients(product, v, steps=200):
    x, r = torch.zeros_like(v), v.clone()
    p, rho = r, r @ r
    for _ in range(steps):
        q = product(p)
        alpha = rho / (p @ q)
        x, r = x + alpha * p, r - alpha * q
        rho, before = r @ r, rho
        p = r + rho / before * p
    return x


def by_curvlinops(train, module, damping):
    """The damped Gauss–Newton matrix of the sum of the losses as curvlinops has it, and K-FAC."""
    import curvlinops

    loss, parameters = torch.nn.MSELoss(reduction="sum"), list(module.parameters())
    data = [(train.X, train.y.reshape(-1, 1))]
    options = {"check_deterministic": False}
    G = curvlinops.GGNLinearOperator(module, loss, parameters, data, **options)

    def dense():  # of (f − y)², twice ours
        with torch.no_grad():
            return (G @ torch.eye(train.d, dtype=torch.float64)).numpy() / 2

    def factored(v):
        kfac = curvlinops.KFACLinearOperator(
            module, loss, parameters, data, fisher_type=curvlinops.FisherType.TYPE2, **options
        )
        inverse = curvlinops.KFACInverseLinearOperator(
            kfac, damping=2 * damping, use_exact_damping=True
        )
        return 2 * (inverse @ v)

    return G, dense, factored


def methods(peers):
    train, test, _, damping, module = given = problem()
    theta = given[2]
    (J, g), (_, other) = gradients(train, module), gradients(test, module)
    first = slice(CHECKED)
    truth = answer(inverse(J, damping, g[first].T), g[first], other)
    scale = [relative(part) for part in truth]

    def error(found):
        return max(of(part) for of, part in zip(scale, (found[0][:, first], found[1][first])))

    found = [
        Method(
            "ifcore",
            lambda: influence.damped_effects(train, theta, damping=damping, test=test),
            lambda e: error((e.losses, e.own)),
        ),
        Method("limit: GEMM", products(dual_operations(train.n, test.n, WIDTHS))),
        Method("torch.func, primal", lambda: primal(train, test, damping, module), error),
    ]
    if "curvlinops-for-pytorch" in peers:
        _, dense, factored = by_curvlinops(train, module, damping)

        def by_dense():
            G = dense()
            G.flat[:: len(G) + 1] += damping
            return answer(cho_solve(cho_factor(G, overwrite_a=True), g.T), g, other)

        def by_kfac():
            return answer(factored(torch.from_numpy(g.T.copy())).detach().numpy(), g, other)

        found += [
            Method("curvlinops, dense", by_dense, error, once=True),
            Method("curvlinops, K-FAC", by_kfac, error),
        ]
    return found, 4


def one(peers, what):
    """W5, an inverse product, or "product", one product: its methods."""
    train, test, theta, damping, module = problem()
    v = test.gradients(theta)[0]
    V, multiplied = torch.from_numpy(v), product(train, damping, module)
    layers = train.gauss_newton_map(theta)
    J, _ = gradients(train, module)
    linear = "curvlinops-for-pytorch" in peers
    if linear:
        G, _, _ = by_curvlinops(train, module, damping)
    if what == "product":
        wide = J.astype(np.longdouble)
        error = relative(wide.T @ (wide @ v))
        found = [
            Method("ifcore", lambda: layers(v[:, None])[:, 0], error),
            Method("limit: GEMM", products(product_operations(train.n, WIDTHS))),
            Method("torch.func", lambda: multiplied(V), lambda a: error(a.numpy() - damping * v)),
            Method("explicit J", lambda: J.T @ (J @ v), error),
        ]
        if linear:
            found.append(
                Method("curvlinops", lambda: G @ V, lambda a: error(a.detach().numpy() / 2))
            )
        return found, 15
    error = relative(inverse(J, damping, v[:, None])[:, 0])

    def solve(**options):
        return solvers.solve(train, theta, v, damping=damping, **options).x

    found = [
        Method("ifcore", solve, error),
        Method(
            "limit: GEMM",
            products(train.n**2 * (sum(WIDTHS[:-1]) + sum(WIDTHS[1:])) + train.n**3 / 3),
        ),
        Method("ifcore, CG", lambda: solve(solver="cg", tol=1e-10), error),
        Method(
            "torch.func, 200 steps of CG",
            lambda: conjugate_gradients(multiplied, V),
            lambda a: error(a.numpy()),
        ),
    ]
    if linear:

        def by_cg():
            return conjugate_gradients(lambda p: (G @ p).detach() / 2 + damping * p, V, 200)

        found.append(
            Method("curvlinops, 200 steps of CG", by_cg, lambda a: error(a.numpy()), once=True)
        )
    return found, 5
