"""Networks of every kind, far from any minimum, and their J, g, H and G_w by torch.func."""

import numpy as np
import torch
from torch.func import functional_call, hessian, jacrev, vmap

from ifcore import risk
from ifcore.network import Network
from ifcore.risk import Risk


def network(seed, outputs=1, bias=True):
    torch.manual_seed(seed)
    first = torch.nn.Linear(3, 5, bias=bias)
    last = torch.nn.Linear(5, outputs, bias=bias)
    return torch.nn.Sequential(first, torch.nn.Tanh(), last).double()


class Gated(torch.nn.Module):
    """With a convolution and a parameter of its own: no list of linear layers describes it."""

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
    labels = {"softmax": rng.integers(0, 4, n), "logistic": rng.integers(0, 2, n)}
    y = labels.get(kind, rng.standard_normal(n))
    found = Risk(Network(module), loss, X, y, lam)
    theta = found.model.theta + 0.3 * rng.standard_normal(found.d)
    return found, module, theta, rng.uniform(0, 2, n)


KINDS = ["squared", "logistic", "softmax", "no bias", "gated"]


def explicit(found, module, theta, w):
    """J (n, K, d), g (n, K), H (n, K, K) by torch.func, and G_w with the risk's penalty."""
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
    G = torch.einsum("n,nka,nkl,nlb->ab", torch.from_numpy(w), J, H, J)
    G = G + found.lam * torch.eye(found.d, dtype=torch.float64)
    return tuple(part.detach().numpy() for part in (J, g, H, G))
