"""Convex works: a logistic regression's influence, beside the libraries, and its self-influence.

For a linear model the Hessian and the Gauss–Newton matrix are one, so all answer one question.
"""

import numpy as np
import torch
from benchmarks.timing import Method, products, relative
from torch import nn
from torch.func import hessian
from torch.utils.data import DataLoader, TensorDataset

from ifcore import data, influence, response, risk, solvers
from ifcore.risk import Risk
from ifcore.runs import Run

TRAIN, LAM = 469, 1.0
ALONE = Run(jobs=1, progress=False)


def tumours():
    """X, y, and θ*, of the first 469 tumours in a drawn order, λ = 1."""
    X, y = data.breast_cancer()[:2]
    order = np.random.default_rng(0).permutation(len(y))
    X, y = data.standardise(X)[order], np.asarray(y, dtype=float)[order]
    train, test = (
        Risk(risk.linear, risk.logistic, X[rows], y[rows], lam=LAM)
        for rows in (slice(TRAIN), slice(TRAIN, None))
    )
    return X, y, train, test, response.minimise(train).theta.reshape(-1)


def explicit(X, y, theta, dtype=float):
    """∂ℓ_t/∂w_j for the test losses t and training points j, (t, n), the Hessian written out."""
    X, y, theta = (np.asarray(a, dtype=dtype) for a in (X, y, theta))
    p = 1 / (1 + np.exp(-X @ theta))
    g = (p - y)[:, None] * X
    H = (X[:TRAIN].T * (p * (1 - p))[:TRAIN]) @ X[:TRAIN] + LAM * np.eye(X.shape[1], dtype=dtype)
    x = np.zeros_like(g[:TRAIN].T)
    for _ in range(1 if dtype is float else 3):  # refined in the wider type
        left = (g[:TRAIN].T - H @ x).astype(float)
        x = x + np.linalg.solve(H.astype(float), left)
    return -g[TRAIN:] @ x


def by_torch(module, X, y):
    """The same, the Hessian by torch.func."""
    n, theta = TRAIN, module.weight.detach()[0]
    of = nn.functional.binary_cross_entropy_with_logits
    H = hessian(lambda t: of(X[:n] @ t, y[:n], reduction="sum") + LAM / 2 * t @ t)(theta)
    g = (torch.sigmoid(X @ theta) - y)[:, None] * X
    return (-g[n:] @ torch.linalg.solve(H, g[:n].T)).numpy()


def by_dattri(module, X, y, batch):
    """IFAttributorExplicit, with the sign of a rise in weight."""
    from dattri.algorithm import IFAttributorExplicit
    from dattri.task import AttributionTask

    def loss(parameters, given):
        out = torch.func.functional_call(module, parameters, (given[0],))[..., 0]
        return nn.functional.binary_cross_entropy_with_logits(out, given[1], reduction="sum")

    task = AttributionTask(loss, module, {k: v.detach() for k, v in module.state_dict().items()})
    explicit = IFAttributorExplicit(task, regularization=LAM)
    train = DataLoader(TensorDataset(X[:TRAIN], y[:TRAIN]), batch_size=batch)
    explicit.cache(train)
    test = DataLoader(TensorDataset(X[TRAIN:], y[TRAIN:]), batch_size=len(X))
    return -explicit.attribute(train, test).detach().numpy().T


def by_captum(module, X, y):
    """NaiveInfluenceFunction with all directions kept, with the sign of a rise in weight."""
    from captum.influence import NaiveInfluenceFunction

    class Loss(nn.BCEWithLogitsLoss):
        def forward(self, out, target):
            return super().forward(out[:, 0], target)

    naive = NaiveInfluenceFunction(
        module,
        TensorDataset(X[:TRAIN], y[:TRAIN]),
        "",
        checkpoints_load_func=lambda *_: 1.0,
        loss_fn=Loss(reduction="sum"),
        batch_size=TRAIN,
        projection_dim=X.shape[1],
        hessian_reg=LAM,
        hessian_inverse_tol=0.0,
        sample_wise_grads_per_batch=True,
    )
    return -naive.influence((X[TRAIN:], y[TRAIN:])).numpy()


def methods(peers):
    X, y, train, test, theta = tumours()
    error = relative(explicit(X, y, theta, np.longdouble))
    module = nn.Linear(X.shape[1], 1, bias=False).double()
    with torch.no_grad():
        module.weight[:] = torch.from_numpy(theta)
    Xt, yt = torch.from_numpy(X), torch.from_numpy(y)
    n, d, t = TRAIN, X.shape[1], len(y) - TRAIN
    found = [
        Method(
            "ifcore",
            lambda: influence.damped_effects(train, theta, test=test, solver="primal").losses,
            error,
        ),
        Method("limit: GEMM", products(2 * n * d * d + d**3 / 3 + 2 * n * d * d + 2 * n * t * d)),
        Method("NumPy, by hand", lambda: explicit(X, y, theta), error),
        Method("torch.func, Hessian", lambda: by_torch(module, Xt, yt), error),
    ]
    if "captum" in peers:
        found.append(Method("captum, naive", lambda: by_captum(module, Xt, yt), error))
    if "dattri" in peers:
        found += [
            Method("dattri, one batch", lambda: by_dattri(module, Xt, yt, TRAIN), error),
            Method(
                "dattri, batches of 64", lambda: by_dattri(module, Xt, yt, 64), error, once=True
            ),
        ]
    return found, 5


def self_influence():
    """Of 100,000 points of a logistic regression, d = 100; the limit is its Hessian's factor."""
    X, y = data.classification(0, 100_000, 100, condition=3)
    problem, theta = Risk(risk.linear, risk.logistic, X, y, lam=1.0), np.zeros(100)

    def by_hand():
        H = X.T @ X / 4 + np.eye(100)
        g = (0.5 - y)[:, None] * X
        return -(g * np.linalg.solve(H, g.T).T).sum(1)

    checked = slice(0, 100_000, 40_000)
    g, H = (0.5 - y[checked])[:, None] * X[checked], X.T @ X / 4 + np.eye(100)
    wide, x = X.astype(np.longdouble), np.zeros(g.T.shape, dtype=np.longdouble)
    for _ in range(3):  # the residual in extended precision
        x += np.linalg.solve(H, (g.T - wide.T @ (wide @ x) / 4 - x).astype(float))
    error = relative(-(g.T * x).sum(0))
    return [
        Method(
            "ifcore",
            lambda: influence.self_influence(problem, theta, run=ALONE),
            lambda a: error(np.asarray(a)[checked]),
        ),
        Method(
            "limit: the Hessian's factor", lambda: solvers.factor(problem, theta, matrix="hessian")
        ),
        Method("NumPy, by hand", by_hand, lambda a: error(a[checked])),
    ], 3
