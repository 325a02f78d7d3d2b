"""A small network, a risk of it, and a loss that is not convex: what several rooms share."""

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
