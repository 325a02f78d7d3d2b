"""W2: influence of 1,000 points on 200 test losses and on their own, over the primal form.

A network 8-64-64-1 stopped early, damped Gauss–Newton matrix, λ = 1e-3 in the notes' mean
convention. The baseline is timed in the same process: the Jacobian by torch.func, G = JᵀJ,
Cholesky, 1,000 right-hand sides.
"""

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from torch.func import functional_call, jacrev, vmap
from w1_leave_one_out import medians

from ifcore import influence, risk
from ifcore.network import Network


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


def primal(train, test, damping, module):
    """Effects on the test losses, and self-influences, by an explicit d × d matrix."""
    parameters = {name: p.detach() for name, p in module.named_parameters()}

    def jacobian(X):
        J = vmap(jacrev(lambda p, x: functional_call(module, p, (x,))[0]), (None, 0))(parameters, X)
        return torch.cat([J[name].reshape(len(X), -1) for name in parameters], 1).numpy()

    def gradients(data):
        residual = (module(data.X)[:, 0] - data.y).detach().numpy()
        J = jacobian(data.X)
        return J, residual[:, None] * J

    (J, g), (_, other) = gradients(train), gradients(test)
    G = J.T @ J
    G.flat[:: len(G) + 1] += damping
    x = cho_solve(cho_factor(G, overwrite_a=True), g.T)
    return -other @ x, -np.einsum("ij,ji->j", x, g)


def main():
    torch.set_num_threads(1)
    train, test, theta, damping, module = problem()
    found = medians(
        5,
        ours=lambda: influence.damped_effects(train, theta, damping=damping, test=test),
        primal=lambda: primal(train, test, damping, module),
    )
    ours = influence.damped_effects(train, theta, damping=damping, test=test)
    losses, own = primal(train, test, damping, module)
    errors = [
        np.abs(a - b).max() / np.abs(b).max() for a, b in ((ours.losses, losses), (ours.own, own))
    ]
    print(f"n = {train.n}, {test.n} test points, d = {train.d}, the {ours.solver} form")
    ratio = found["primal"] / found["ours"]
    print(f"  primal over damped_effects           {ratio:8.1f}   (target: at least 40)")
    print(f"  relative error                       {max(errors):8.0e}   (target: at most 1e-10)")


if __name__ == "__main__":
    main()
