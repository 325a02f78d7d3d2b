"""W3: leave-one-out retraining of many fits side by side, as ratios to a loop over fits.

The loop trains one fit after the other with torch.nn, autograd and torch.optim.SGD, as a reader
would. Every figure is the median of interleaved runs, over the median of the loop, timed on a few
of the fits in the same process; one thread.
"""

import statistics
import time

import numpy as np
import torch
from torch import nn

from ifcore import data, risk
from ifcore.network import Network
from ifcore.risk import Risk
from ifcore.runs import Run
from ifcore.training import Training, retrain


def loop(problem, training, start, weights):
    """θ of every row of `weights`, one fit after the other."""
    fits, X, y, n = [], problem.X, problem.y, problem.n
    for w in torch.from_numpy(weights):
        module = problem.model.module(start).requires_grad_(True)
        optimiser = torch.optim.SGD(
            module.parameters(), training.rate, training.momentum, nesterov=training.nesterov
        )
        for _ in range(training.steps):
            optimiser.zero_grad()
            (w @ (0.5 * (module(X)[:, 0] - y) ** 2) / n).backward()
            optimiser.step()
        fits.append(torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy())
    return np.array(fits)


def compare(title, target, n, width, d, fits, steps, few, rounds):
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.Linear(d, width), nn.Tanh(), nn.Linear(width, 1)))
    X, y = data.regression(0, n, d, condition=2)
    problem = Risk(network, risk.squared, X, y / y.std())
    training = Training(steps, 0.05)
    weights = np.ones((fits, n))
    weights[np.arange(fits), np.arange(fits) % n] = np.linspace(0, 0.5, fits)
    ours, theirs = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        found = retrain(
            problem, training, network.theta, weights, run=Run(jobs=1, progress=False)
        ).theta
        middle = time.perf_counter()
        truth = loop(problem, training, network.theta, weights[:few])
        theirs.append((time.perf_counter() - middle) / few * fits)
        ours.append(middle - start)
    change = np.abs(found[:few] - truth).max() / np.abs(truth).max()
    ratio = statistics.median(theirs) / statistics.median(ours)
    print(
        f"{title:<52} {ratio:6.0f} times the loop   (target: at least {target}); "
        f"largest difference {change:.0e}"
    )


def main():
    torch.set_num_threads(1)
    compare("71 fits of 2-3-1, n = 20, 1,000 steps", 60, 20, 3, 2, 71, 1000, 2, 5)
    compare("200 fits of 8-32-1, n = 200, 2,000 steps", 8, 200, 32, 8, 200, 2000, 4, 3)


if __name__ == "__main__":
    main()
