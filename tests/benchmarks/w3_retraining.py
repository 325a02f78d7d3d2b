"""W3: leave-one-out retraining of many fits side by side.

The loop trains one fit after the other with torch.nn, autograd and torch.optim.SGD, as a reader
would; torch.func maps autograd over the fits. Both do a part of the work, and count for the whole.
"""

import numpy as np
import torch
from benchmarks.timing import Method, products, relative
from torch import nn
from torch.func import functional_call, grad, vmap

from ifcore import data, risk
from ifcore.network import Network
from ifcore.risk import Risk
from ifcore.runs import Run
from ifcore.training import Training, retrain

#: n, hidden units, inputs, fits, steps, fits of the loop, rounds
SIZES = {
    "2-3-1, n = 20": (20, 3, 2, 71, 1000, 2, 5),
    "8-32-1, n = 200": (200, 32, 8, 200, 400, 4, 3),
}
RATE = 0.05


def loop(problem, training, start, weights):
    """θ of every row of `weights`, one fit after the other."""
    fits, X, y, n = [], problem.X, problem.y, problem.n
    for w in torch.from_numpy(weights):
        module = problem.model.module(start).requires_grad_(True)
        optimiser = torch.optim.SGD(module.parameters(), training.rate)
        for _ in range(training.steps):
            optimiser.zero_grad()
            (w @ (0.5 * (module(X)[:, 0] - y) ** 2) / n).backward()
            optimiser.step()
        fits.append(torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy())
    return np.array(fits)


def mapped(problem, start, weights, steps):
    """θ of every row of `weights` side by side, by the gradient that torch.func derives."""
    module = problem.model.module(start)
    parameters = {
        name: p.detach().expand(len(weights), *p.shape) for name, p in module.named_parameters()
    }

    def loss(p, w):
        return w @ (0.5 * (functional_call(module, p, (problem.X,))[:, 0] - problem.y) ** 2)

    slope, W = vmap(grad(loss)), torch.from_numpy(weights)
    for _ in range(steps):
        G = slope(parameters, W)
        parameters = {name: p - RATE / problem.n * G[name] for name, p in parameters.items()}
    return torch.cat([p.reshape(len(W), -1) for p in parameters.values()], 1).numpy()


def exact(X, y, width, start, weights, steps):
    """θ of one row of weights by the chain rule in extended precision."""
    X, y, theta, w = (np.asarray(a, dtype=np.longdouble) for a in (X, y, start, weights))
    n, d = X.shape
    ends = np.cumsum([width * d, width, width, 1])
    for _ in range(steps):
        A, b, c, e = np.split(theta, ends[:-1])
        A = A.reshape(width, d)
        H = np.tanh(X @ A.T + b)
        r = w * (H @ c + e - y) / n
        inner = r[:, None] * c * (1 - H**2)
        theta = theta - RATE * np.concatenate(
            [(inner.T @ X).ravel(), inner.sum(0), H.T @ r, [r.sum()]]
        )
    return theta


def setting(n, width, d, fits):
    """The risk, θ₀ and weights in which each fit leaves a part of an example out."""
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.Linear(d, width), nn.Tanh(), nn.Linear(width, 1)))
    X, y = data.regression(0, n, d, condition=2)
    y = y / y.std()
    weights = np.ones((fits, n))
    weights[np.arange(fits), np.arange(fits) % n] = np.linspace(0, 0.5, fits)
    return Risk(network, risk.squared, X, y), network.theta, weights


def methods(size):
    n, width, d, fits, steps, few, rounds = SIZES[size]
    problem, start, weights = setting(n, width, d, fits)
    training, run = Training(steps, RATE, momentum=0, nesterov=False), Run(jobs=1, progress=False)
    X, y = problem.X.numpy(), problem.y.numpy()
    error = relative([exact(X, y, width, start, weights[k], steps) for k in range(2)])
    part = max(1, steps // 10)
    short = relative([exact(X, y, width, start, weights[k], part) for k in range(2)])
    operations = fits * steps * 6 * n * (d * width + width)
    return [
        Method(
            "ifcore",
            lambda: retrain(problem, training, start, weights, run=run).theta,
            lambda a: error(a[:2]),
        ),
        Method("limit: GEMM", products(operations / 20), share=1 / 20),
        Method(
            "torch.func, vmap of grad",
            lambda: mapped(problem, start, weights, part),
            lambda a: short(a[:2]),
            part / steps,
        ),
        Method(
            "loop of fits",
            lambda: loop(problem, training, start, weights[:few]),
            lambda a: error(a[:2]),
            few / fits,
        ),
    ], rounds
