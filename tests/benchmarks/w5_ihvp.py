"""W5: one inverse-Hessian-vector product on W2's damped Gauss–Newton matrix, over torch.func."""

import numpy as np
import torch
from torch.func import functional_call, jvp, vjp
from w1_leave_one_out import medians
from w2_influence import problem

from ifcore import solvers


def product_by_torch(train, damping, module):
    """v ↦ (JᵀJ + λI)v for a flat v, by forward and reverse differentiation."""
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    sizes = [p.numel() for p in parameters.values()]

    def outputs(p):
        return functional_call(module, p, (train.X,))[:, 0]

    _, back = vjp(outputs, parameters)

    def product(v):
        parts = {
            name: part.view_as(p) for (name, p), part in zip(parameters.items(), v.split(sizes))
        }
        _, moved = jvp(outputs, (parameters,), (parts,))
        return torch.cat([part.reshape(-1) for part in back(moved)[0].values()]) + damping * v

    return product


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


def main():
    torch.set_num_threads(1)
    train, test, theta, damping, module = problem()
    v = test.gradients(theta)[0]
    V, product = torch.from_numpy(v), product_by_torch(train, damping, module)
    layers = train.gauss_newton_map(theta)
    found = medians(
        9,
        ours=lambda: solvers.solve(train, theta, v, damping=damping),
        torch=lambda: conjugate_gradients(product, V),
        cg=lambda: solvers.solve(train, theta, v, damping=damping, solver="cg", tol=1e-10),
        one=lambda: layers(v[:, None]),
        one_torch=lambda: product(V),
    )
    dual, primal = (
        solvers.solve(train, theta, v, damping=damping, solver=name) for name in ("dual", "primal")
    )
    error = np.linalg.norm(dual.x - primal.x) / np.linalg.norm(primal.x)
    peer = np.linalg.norm(conjugate_gradients(product, V).numpy() - primal.x)
    peer = peer / np.linalg.norm(primal.x)
    form = solvers.solve(train, theta, v, damping=damping).solver
    ratio, one = found["torch"] / found["ours"], found["one_torch"] / found["one"]
    print(f"n = {train.n}, d = {train.d}, the {form} form")
    print(f"  200 steps of CG by torch.func over solve   {ratio:8.1f}   (target: at least 20)")
    print(
        f"  relative error, and that of the 200 steps  {error:8.0e}   "
        f"(target: at most 1e-10) {peer:.0e}"
    )
    print(f"  our CG, to a residual of 1e-10, over solve {found['cg'] / found['ours']:8.1f}")
    print(f"  a product by torch.func over one by layers {one:8.1f}   (aspiration: 10)")


if __name__ == "__main__":
    main()
