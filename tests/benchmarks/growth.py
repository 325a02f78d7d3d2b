"""How each cost grows: the sweeps of ifbook.benchmarks, every size once in each round."""

from functools import partial

import numpy as np
from benchmarks import longer, w2_influence, w4_flows
from benchmarks.timing import products, timed

from ifbook import decomposition
from ifbook.benchmarks import GROWN, SWEEPS, hidden
from ifcore import data, flow, forgetting, gaps, influence, leastsquares, risk, valuation, weights
from ifcore.network import perceptron
from ifcore.risk import Risk
from ifcore.runs import Run
from ifcore.training import Training, retrain

ALONE = Run(jobs=1, progress=False, strict=False)
ROUNDS = 7
REFERENCE = 2 * 500**3  # operations of the matrix product that times are beside


def network(n, *widths, seed=0):
    """A risk of a fresh perceptron of these widths on n drawn examples, and its θ₀."""
    rng = np.random.default_rng(seed)
    model = perceptron(0, *widths)
    y = rng.standard_normal((n, widths[-1])) if widths[-1] > 1 else rng.standard_normal(n)
    one = Risk(model, risk.squared, rng.standard_normal((n, widths[0])), y)
    return one, model.theta


def least_squares(n, d):
    X, y = data.regression(0, n, d, condition=2)
    return partial(leastsquares.leave_one_out, X, y)


def effects(n, *widths, solver="dual"):
    (one, theta), (test, _) = network(n, *widths), network(100, *widths, seed=1)
    test = Risk(one.model, risk.squared, test.X.numpy(), test.y.numpy())
    options = {"damping": 1e-3 * n, "test": test, "solver": solver}
    return partial(influence.damped_effects, one, theta, **options)


def retraining(fits, n, *widths):
    one, theta = network(n, *widths)
    W = np.ones((fits, n))
    W[np.arange(fits), np.arange(fits) % n] = 0
    return partial(retrain, one, Training(50, 0.01), theta, W, run=ALONE)


def flows(n, d, plans):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((n, d)) / np.sqrt(n), rng.standard_normal(n)
    many = [weights.piecewise((0.5, 1.5, 2.5, 3.5), v) for v in rng.uniform(0, 1, (plans, 3))]
    starts = rng.standard_normal((100, d))
    return lambda: flow.scheduled(X, y, 0, many, w4_flows.TIMES, tol=1e-9)(starts)


def one_product(n, *widths):
    one, theta = network(n, *widths)
    layers, v = one.gauss_newton_map(theta), np.random.default_rng(0).standard_normal((one.d, 1))
    return partial(layers, v)


def decomposed(n):
    task = decomposition.TASKS["MLP, Concrete"]
    one = decomposition.problem(task, n)
    plan = decomposition.protocols(task._replace(sizes={n: 3}), n, 100)["base"]
    start = np.array([one.model.initial(0)])
    return partial(gaps.decompose, one, [plan], start, [0, 1, 2], order=[0], run=ALONE)


def exact_values(coalitions):
    n = coalitions.bit_length() - 1
    value = longer.game(n)[-1]
    return partial(valuation.shapley, value, n)


def orders(n):
    return partial(valuation.permutation_shapley, longer.game(n)[-1], n, 4, run=ALONE)


def schedule(n, d):
    problems = [longer.forget(n, d, seed) for seed in range(3)]
    return lambda: [forgetting.optimal(problem) for problem in problems]


WORK = {
    "W1 n": lambda n: least_squares(n, 100),
    "W1 d": lambda d: least_squares(4000, d),
    "W2 n": lambda n: effects(n, *w2_influence.WIDTHS),
    "W2 d": lambda d: effects(400, 8, hidden(d), hidden(d), 1),
    "W2 K": lambda K: effects(200, 8, 64, 64, K),
    "primal d": lambda d: effects(400, 8, hidden(d), hidden(d), 1, solver="primal"),
    "W3 fits": lambda m: retraining(m, 200, 8, 32, 1),
    "W3 n": lambda n: retraining(16, n, 8, 32, 1),
    "W3 d": lambda d: retraining(16, 200, 8, (d - 1) // 10, 1),
    "W3 K": lambda K: retraining(16, 200, 8, 32, K),
    "W4 n": lambda n: flows(n, 4, 50),
    "W4 d": lambda d: flows(40, d, 50),
    "W4 plans": lambda m: flows(40, 4, m),
    "product n": lambda n: one_product(n, *w2_influence.WIDTHS),
    "product d": lambda d: one_product(1000, 8, hidden(d), hidden(d), 1),
    "product K": lambda K: one_product(1000, 8, 64, 64, K),
    "decomposition n": decomposed,
    "coalitions": exact_values,
    "orders n": orders,
    "schedules n": lambda n: schedule(n, 3),
    "schedules d": lambda d: schedule(20, d),
}


def rows(sweep):
    """The rows of one sweep, as columns by GROWN."""
    calls = {size: WORK[sweep](size) for size in SWEEPS[sweep].sizes}
    reference, found = products(REFERENCE), []
    for call in (reference, *calls.values()):
        call()
    for number in range(ROUNDS):
        base = min(timed(reference)[0] for _ in range(3))
        for size, call in calls.items():
            seconds, _ = timed(call)
            found.append((sweep, size, number, seconds, seconds / base))
    return dict(zip(GROWN, map(list, zip(*found))))
