"""`retrain` against a plain loop over fits in torch, and refits by L-BFGS."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from ifcore import data, response, risk
from ifcore.network import Network
from ifcore.risk import Risk
from ifcore.runs import Run
from ifcore.training import Training, retrain


class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.hidden, self.out = nn.Embedding(7, 3), nn.Linear(6, 5), nn.Linear(5, 7)

    def forward(self, x):
        return self.out(torch.tanh(self.hidden(self.embedding(x.long()).flatten(1))))


def problem(kind, n=30, lam=0.3):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 4))
    torch.manual_seed(0)
    module, loss, X, y = {
        "regression": lambda: (
            nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1)),
            risk.squared,
            X,
            X[:, 0],
        ),
        "classes": lambda: (
            nn.Sequential(nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 3, bias=False)),
            risk.cross_entropy,
            X,
            rng.integers(0, 3, n),
        ),
        "labels": lambda: (nn.Sequential(nn.Linear(4, 1)), risk.logistic, X, rng.integers(0, 2, n)),
        "autoencoder": lambda: (
            nn.Sequential(nn.Linear(4, 2, bias=False), nn.Tanh(), nn.Linear(2, 4), nn.Sigmoid()),
            risk.squared,
            X,
            X,
        ),
        "convolution": lambda: (
            nn.Sequential(
                nn.Conv2d(1, 2, 3, padding=1),
                nn.Tanh(),
                nn.AvgPool2d(2),
                nn.Flatten(),
                nn.Linear(8, 3),
            ),
            risk.cross_entropy,
            rng.standard_normal((n, 1, 4, 4)),
            rng.integers(0, 3, n),
        ),
        "language": lambda: (
            Language(),
            risk.cross_entropy,
            rng.integers(0, 7, (n, 2)),
            rng.integers(0, 7, n),
        ),
    }[kind]()
    return Risk(Network(module), loss, X, y, lam)


def loop(problem, training, start, w, damping=0.0):
    """One fit by torch.nn, autograd and torch.optim, in the batches that the training states."""
    n, w, network = problem.n, torch.from_numpy(w), problem.model
    module = network.module(start).requires_grad_(True)
    named = dict(module.named_parameters())
    parameters = [named[name] for name in [*dict(network.module(start).named_parameters())]]
    before = [p.detach().clone() for p in parameters]
    if training.optimiser == "adam":
        optimiser = torch.optim.Adam(parameters, betas=(training.momentum, 0.999))
    else:
        optimiser = torch.optim.SGD(
            parameters, lr=1.0, momentum=training.momentum, nesterov=training.nesterov
        )
    size = training.batch or n
    for step, rate in enumerate(np.broadcast_to(training.rate, training.steps)):
        epoch, place = divmod(step, -(-n // size))
        order = (
            np.arange(n)
            if training.batch is None
            else np.random.default_rng([training.order, epoch]).permutation(n)
        )
        rows = order[place * size : (place + 1) * size]
        optimiser.param_groups[0]["lr"] = float(rate)
        optimiser.zero_grad()
        f = module(problem.X[rows])
        f = f[:, 0] if f.shape[1:] == (1,) else f
        value = w[rows] @ torch.vmap(problem.loss)(f, problem.y[rows]) / len(rows)
        for p, q in zip(parameters, before):
            value = value + (problem.lam * (p**2).sum() + damping * ((p - q) ** 2).sum()) / (2 * n)
        value.backward()
        optimiser.step()
    return torch.cat([p.detach().reshape(-1) for p in parameters]).numpy()


KINDS = ["regression", "classes", "labels", "autoencoder", "convolution", "language"]
TRAININGS = {
    "momentum": Training(25, 0.1),
    "plain": Training(25, np.linspace(0.2, 0.01, 25), momentum=0.0, nesterov=False),
    "heavy ball": Training(25, 0.1, nesterov=False),
    "batches": Training(25, 0.05, batch=8, order=3),
    "adam": Training(25, 0.01, optimiser="adam"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", TRAININGS.values(), ids=TRAININGS)
def test_side_by_side_is_the_loop_over_fits(kind, training):
    case = problem(kind)
    W = np.vstack([np.ones(30), 1 - np.eye(30)[:3], np.linspace(0, 1, 30)])
    for damping, steps, ulps in ((0.0, 1, 16), (0.7, 25, 400)):
        rates = np.broadcast_to(training.rate, 25)[:steps]
        short = training._replace(steps=steps, rate=rates if steps > 1 else float(rates[0]))
        found = retrain(case, short, case.model.theta, W, damping=damping, run=Run(jobs=1)).theta
        truth = np.array([loop(case, short, case.model.theta, w, damping) for w in W])
        assert np.abs(found - truth).max() <= ulps * np.finfo(float).eps * np.abs(truth).max()


@pytest.mark.parametrize("seed", range(3))
def test_a_whole_run_differs_by_no_more_than_ten_times_what_one_ulp_does(seed):
    case = problem("regression", lam=0.0)
    start = case.model.initial(seed)
    nudged = start + np.spacing(start) * np.random.default_rng(seed).choice([-1, 1], len(start))
    training, W = Training(1000, 0.1), 1 - np.eye(30)[:4]
    found, other = (
        retrain(case, training, theta, W, run=Run(jobs=1)).theta for theta in (start, nudged)
    )
    truth = np.array([loop(case, training, start, w) for w in W])
    assert np.linalg.norm(found - truth) <= 10 * np.linalg.norm(found - other)


@pytest.mark.parametrize("kind", ["linear", "logistic", "softmax"])
def test_trained_to_convergence_is_the_refit_by_lbfgs(kind):
    X, y = data.classification(1, 40, 3, condition=2)
    y = y if kind != "softmax" else (y + (X[:, 1] > 0)) % 3
    loss = {"linear": risk.squared, "logistic": risk.logistic, "softmax": risk.cross_entropy}[kind]
    model = risk.linear if kind != "softmax" else Network(nn.Sequential(nn.Linear(3, 3)))
    case = Risk(model, loss, X, y, lam=1.0)
    training, W = Training(5000, 0.2, tol=1e-12), np.vstack([np.ones(40), 1 - np.eye(40)[:4]])
    for start in (np.zeros(case.d), np.random.default_rng(0).standard_normal(case.d)):
        found = retrain(case, training, start, W, run=Run(jobs=1))
        assert (found.status == "converged").all()
        assert (found.gradient_norm <= 1e-12).all()
        assert (found.steps < 5000).all()
        for w, theta in zip(W, found.theta):
            options = {"ftol": 0, "gtol": 1e-10, "maxiter": 2000}
            truth = minimize(
                lambda t: (case.value(t, w), case.gradient(t, w)),
                np.zeros(case.d),
                jac=True,
                method="L-BFGS-B",
                options=options,
            ).x
            np.testing.assert_allclose(theta, truth, rtol=0, atol=1e-6)
            np.testing.assert_allclose(
                theta, response.minimise(case, weights=w).theta, rtol=0, atol=1e-9
            )
