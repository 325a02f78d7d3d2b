"""A small network, a risk of it, losses and models that are hard: what several rooms share."""

import numpy as np
import torch

from ifcore import risk
from ifcore.network import Network
from ifcore.risk import Risk


def module(outputs=1):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, outputs))


def problem(n=12, outputs=1, lam=0.0):
    rng = np.random.default_rng(0)
    y = rng.integers(0, outputs, n) if outputs > 1 else rng.standard_normal(n)
    loss = risk.cross_entropy if outputs > 1 else risk.squared
    return Risk(Network(module(outputs)), loss, rng.standard_normal((n, 3)), y, lam)


def welsch(u, y):
    return 1 - torch.exp(-((u - y) ** 2) / 2)


class Unmapped(torch.autograd.Function):
    """A square whose derivative cannot be differentiated again, and which cannot be mapped."""

    @staticmethod
    def forward(u):
        return u**2

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        return 2 * ctx.saved_tensors[0] * slope


class Once(Unmapped):
    """The same, which can be mapped."""

    generate_vmap_rule = True


def logarithms(n, bad, lam):
    """A risk of n examples of which those in `bad` have no finite loss where θ₂ = 0."""
    rng = np.random.default_rng(0)
    X, y = rng.uniform(0.1, 1, (n, 2)), rng.standard_normal(n)
    X[bad] = -1.0

    def model(theta, x):
        return torch.log(x.sum() + theta[1] ** 2) * theta[0] + x @ theta

    return Risk(model, risk.squared, X, y, lam, d=2)
