"""A network to retrain, and the weights of seven fits of it: what the tests of two rooms share."""

import numpy as np
import torch
from torch import nn

from ifcore import data, risk
from ifcore.network import Network
from ifcore.risk import Risk


def regression(n=20, kind=nn.Tanh):
    torch.manual_seed(0)
    X, y = data.regression(0, n, 3, condition=2)
    network = Network(nn.Sequential(nn.Linear(3, 5), kind(), nn.Linear(5, 1)))
    return Risk(network, risk.squared, X, y / y.std())


W = np.vstack([np.ones(20), 1 - np.eye(20)[:6]])
