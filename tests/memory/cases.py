"""What is measured: every public function that takes data, at two sizes or more."""

from functools import partial
from typing import NamedTuple

import numpy as np
import scipy.linalg
import torch
import torch._dynamo  # else the first derivative imports it
from torch.utils.data import TensorDataset

from ifcore import (
    data,
    flow,
    forgetting,
    gaps,
    influence,
    jacobian,
    leastsquares,
    posterior,
    proximal,
    response,
    risk,
    solvers,
    unlearning,
    valuation,
    weights,
)
from ifcore.data.datasets import gathered
from ifcore.network import perceptron
from ifcore.risk import Risk
from ifcore.runs import Run
from ifcore.training import Training, retrain

ALONE = Run(jobs=1, progress=False, strict=False)
ANY = 2**50  # of memory that a call may take


class Case(NamedTuple):
    function: object  #: whose docstring states the formula
    make: object  #: **sizes ↦ the call, its inputs made
    sizes: tuple
    words: str  #: of the clause that is meant


CASES = {}


def case(function, make, *sizes, words=""):
    """One line of the table."""
    name = " ".join([function.__module__, function.__qualname__, words]).strip()
    CASES[f"{name} {len(CASES)}"] = Case(function, make, sizes, words)


def linear(n, d, **others):
    """The sizes of a linear model."""
    return {"n": n, "d": d, "p": d, "K": 1, "m": n, "f": 1, "a": 1} | others


def network(n, p, h, K, **others):
    """The sizes of a perceptron with h hidden units."""
    sizes = {"n": n, "p": p, "h": h, "K": K, "m": n * K, "d": (p + 1) * h + (h + 1) * K}
    return sizes | {"f": max(2 * h, h + K), "a": 2 * h + K} | others


def draw(*shape):
    return np.random.default_rng(len(shape)).standard_normal(shape)


def definite(d):
    C = draw(d, d)
    return C + C.T + 40 * d**0.5 * np.eye(d)


def model(p, K, h=None, inputs=None, **_):
    return risk.linear if h is None else perceptron(0, inputs or p, h, K)


def problem(loss=risk.squared, lam=0.0, **sizes):
    """A risk of these sizes, and a point."""
    n, d, p = sizes["n"], sizes["d"], sizes.get("inputs", sizes["p"])
    K = sizes.get("outputs", sizes["K"])
    y = draw(n, K) if K > 1 else draw(n)
    found = Risk(model(**sizes), loss, draw(n, p), y if loss is risk.squared else y > 0, lam)
    return found, draw(d) / d**0.5


def of_risk(call, **options):
    """make, from a function of (risk, θ, sizes) that gives the call."""

    def make(**sizes):
        return call(*problem(**options | sizes), sizes)

    return make


def of_method(name, *more):
    """make, for a method of Risk of θ and of what is made of its d and the sizes."""
    return of_risk(
        lambda found, theta, s: partial(getattr(found, name), theta, *(f(s) for f in more))
    )


def of_factor(form, name):
    """make, for a method of a factor: of V (d, r), or m draws."""

    def make(d, r=None, k=None, m=None):
        k = m if k is None else k
        found = (
            solvers.Primal(definite(d))
            if form == "primal"
            else solvers.Dual(jacobian.Dense(draw(k, d)), 1.0)
        )
        return (
            partial(found.draw, 0, m)
            if name == "draw"
            else partial(getattr(found, name), draw(d, r))
        )

    return make


# Methods of a risk

TALL = linear(2_000_000, 3), linear(1_000_000, 6)
NETS = network(80_000, 20, 40, 4), network(20_000, 10, 100, 20)
for name in ("outputs", "losses", "value", "gradient", "output_gradients", "output_hessians"):
    case(getattr(Risk, name), of_method(name), TALL[0], *NETS)
for name in ("output_roots", "convex_hessians"):
    case(getattr(Risk, name), of_method(name), TALL[1], NETS[1])
case(Risk.bregman, of_method("bregman", lambda s: draw(s["d"])), TALL[0], NETS[1])
LONG = linear(200_000, 60), linear(40_000, 400)
WIDE = network(10_000, 20, 30, 4), network(20_000, 5, 30, 8)
case(Risk.gradients, of_method("gradients"), *LONG)
case(Risk.gradients, of_method("gradients"), *WIDE, words="for a Network")
case(Risk.unsound, of_method("unsound"), LONG[0], WIDE[0])
few = network(5_000, 20, 30, 4), network(5_000, 5, 30, 8)
case(Risk.jacobian, of_method("jacobian"), LONG[0], *few)
case(Risk.jacobian_map, of_method("jacobian_map"), *LONG)
case(
    Risk.jacobian_map,
    of_method("jacobian_map"),
    network(40_000, 20, 40, 4),
    network(3_000, 10, 100, 20),
    words="by layers",
)
SQUARE = (
    linear(1_000, 2_000),
    linear(300_000, 30),
    network(400, 20, 30, 4),
    network(3_000, 20, 15, 4),
)
case(Risk.hessian, of_method("hessian"), *SQUARE)
case(Risk.gauss_newton, of_method("gauss_newton"), *SQUARE[:2], WIDE[0])


def right(s):
    return draw(s["d"], s["r"])


products = linear(400_000, 20, r=10), linear(200_000, 40, r=40)
through = network(10_000, 20, 30, 4, r=10), network(3_000, 20, 60, 4, r=40)
case(Risk.hessian_product, of_method("hessian_product", right), products[1], *through)
case(Risk.gauss_newton_product, of_method("gauss_newton_product", right), *products)
case(
    Risk.gauss_newton_product,
    of_method("gauss_newton_product", right),
    network(20_000, 20, 60, 4, r=10),
    network(20_000, 20, 30, 4, r=40),
    words="by layers",
)
case(Risk.subset, of_risk(lambda f, t, s: partial(f.subset, np.arange(s["n"]))), *LONG)


def made(**s):
    X, y, f = draw(s["n"], s["p"]), draw(s["n"], s["K"]), model(**s)
    return partial(Risk, f, risk.squared, X, y if s["K"] > 1 else y[:, 0])


def read(n, p, **s):
    pairs = TensorDataset(torch.from_numpy(draw(n, p)), torch.from_numpy(draw(n)))
    return partial(Risk, risk.linear, risk.squared, pairs)


def gather(n, p, **_):
    return partial(gathered, TensorDataset(torch.from_numpy(draw(n, p)), torch.from_numpy(draw(n))))


rows = linear(60_000, 100), linear(30_000, 300)
case(Risk, made, *LONG, network(400_000, 30, 4, 4), network(400_000, 10, 4, 20))
case(Risk, read, *rows, words="from a dataset")
case(gathered, gather, *rows)

# Solvers


def of_matrix(solver, **options):
    def make(d, r):
        return partial(solver, definite(d), draw(d, r), 1.0, **options)

    return make


case(solvers.Primal, lambda d: partial(solvers.Primal, definite(d)), {"d": 2_000}, {"d": 3_000})
case(
    solvers.Dual,
    lambda m, d: partial(solvers.Dual, jacobian.Dense(draw(m, d)), 1.0),
    {"m": 4_000, "d": 1_000},
    {"m": 3_500, "d": 4_000},
)
case(
    solvers.Dual,
    lambda m, d: partial(
        solvers.Dual, jacobian.Scaled(jacobian.Dense(draw(m, d)), np.ones((m, 1, 1))), 1.0
    ),
    {"m": 4_000, "d": 1_000},
    {"m": 3_500, "d": 4_000},
    words="for a `jacobian.Scaled`",
)
for name in ("solve", "whiten", "squares", "answer"):
    sizes = {"d": 1_000, "r": 5_000}, {"d": 500, "r": 9_000}
    case(getattr(solvers.Primal, name), of_factor("primal", name), *sizes)
    sizes = tuple({"m": m} | size for m, size in zip((300, 200), sizes))
    case(getattr(solvers.Dual, name), of_factor("dual", name), *sizes)
case(
    solvers.Primal.draw,
    of_factor("primal", "draw"),
    {"d": 1_000, "m": 5_000},
    {"d": 500, "m": 8_000},
)
case(
    solvers.Dual.draw,
    of_factor("dual", "draw"),
    {"d": 1_000, "m": 4_000, "k": 300},
    {"d": 500, "m": 7_000, "k": 200},
)
case(solvers.direct, of_matrix(solvers.direct), {"d": 2_500, "r": 1}, {"d": 1_000, "r": 5_000})
case(solvers.cg, of_matrix(solvers.cg), {"d": 500, "r": 2_000}, {"d": 200, "r": 5_000})
case(
    solvers.lissa,
    of_matrix(solvers.lissa, max_steps=9),
    {"d": 500, "r": 4_000},
    {"d": 200, "r": 9_000},
)
case(
    solvers.dual,
    lambda m, d, r: partial(solvers.dual, draw(m, d), draw(d, r), 1.0),
    {"m": 3_000, "d": 3_500, "r": 1},
    {"m": 500, "d": 1_000, "r": 3_000},
)


def factored(**options):
    return of_risk(lambda f, t, s: partial(solvers.factor, f, t, damping=1e4, **options))


def solved(solver, **options):
    return of_risk(
        lambda f, t, s: partial(
            solvers.solve, f, t, right(s), damping=1e4, solver=solver, **options
        )
    )


case(
    solvers.factor,
    factored(form="primal"),
    linear(1_000, 2_500),
    linear(150_000, 60),
    network(3_000, 20, 30, 4),
    words="for G_w, primal",
)
case(
    solvers.factor, factored(form="dual"), linear(2_500, 4_000), linear(1_500, 8_000), words="dual"
)
case(
    solvers.factor,
    factored(form="dual"),
    network(600, 20, 200, 4),
    network(1_800, 20, 3_000, 1),
    words="by layers",
)
case(
    solvers.factor,
    factored(matrix="hessian"),
    linear(1_000, 1_800),
    linear(300_000, 30),
    network(1_500, 20, 40, 1),
    words="for H_w",
)
case(
    solvers.solve,
    solved("primal"),
    linear(2_000, 2_000, r=10),
    linear(600, 600, r=5_000),
    words='by "primal"',
)
case(
    solvers.solve,
    solved("dual"),
    linear(2_000, 4_000, r=10),
    linear(400, 1_500, r=2_000),
    words='by "dual"',
)
case(
    solvers.solve,
    solved("cg", max_steps=2),
    linear(600, 600, r=2_000),
    linear(300, 1_000, r=1_000),
    words='by "cg"',
)
case(
    solvers.solve,
    solved("lissa", max_steps=2, scale=1e6),
    linear(600, 600, r=2_000),
    linear(300, 1_000, r=1_500),
    words='by "lissa"',
)

# The response


def many(s):
    return np.ones((s["m"], s["n"]))


def responded(**options):
    return of_risk(
        lambda f, t, s: partial(response.minimise, f, t, many(s), strict=False, **options), lam=1.0
    )


def moved(room, **options):
    return of_risk(
        lambda f, t, s: partial(room, f, t, many(s), 1.0, max_steps=2, strict=False, **options),
        lam=1.0,
    )


case(
    response.minimise,
    responded(max_steps=2),
    linear(150_000, 40, m=1),
    linear(1_000, 1_000, m=1),
    linear(200, 100, m=120),
    words='by "newton"',
)
case(
    response.minimise,
    responded(method="newton-cg", max_steps=2),
    linear(100_000, 60, m=1),
    network(4_000, 20, 40, 4, m=2),
    words='by "newton-cg"',
)
case(
    response.leave_one_out,
    of_risk(
        lambda f, t, s: partial(
            response.leave_one_out, f, remove=range(s["p"]), max_steps=2, run=ALONE
        ),
        lam=1.0,
    ),
    linear(150_000, 40, inputs=40) | {"p": 1},
    linear(1_000, 20, inputs=20) | {"p": 100},
)
near = (
    linear(100_000, 60, m=2),
    linear(200_000, 10, m=8),
    network(4_000, 20, 40, 4, m=2),
    network(6_000, 10, 30, 1, m=8),
)
case(proximal.damped, moved(proximal.damped), *near)
case(proximal.pbrf, moved(proximal.pbrf), *near)

# Influence


def stationary(call):
    return of_risk(
        lambda f, t, s: (
            partial(call, f, leastsquares.fit(f.X.numpy(), f.y.numpy()), memory=ANY)
            if call is influence.loss_influence
            else partial(call, f, leastsquares.fit(f.X.numpy(), f.y.numpy()))
        )
    )


def tested(s):
    own = s | {"n": s["t"]}
    return own


def effects(call, **options):
    def make(**s):
        found, theta = problem(**s)
        X, y = draw(s["t"], s["p"]), draw(s["t"], s["K"])
        test = Risk(found.model, risk.squared, X, y if s["K"] > 1 else y[:, 0])
        return call(found, theta, test)

    return make


def damped_effects(solver):
    options = {"damping": 1.0, "solver": solver, "memory": ANY}
    return effects(lambda f, t, test: partial(influence.damped_effects, f, t, test=test, **options))


case(
    influence.influence,
    stationary(influence.influence),
    linear(100_000, 30),
    linear(6_000, 500),
    linear(6_000, 250),
)
case(
    influence.loss_influence,
    stationary(influence.loss_influence),
    linear(4_000, 30),
    linear(3_000, 600),
)
case(
    influence.damped_influence,
    of_risk(lambda f, t, s: partial(influence.damped_influence, f, t, damping=1.0, memory=ANY)),
    linear(100_000, 30),
    linear(6_000, 500),
)
case(
    influence.damped_effects,
    damped_effects("primal"),
    linear(4_000, 500, t=2_000),
    linear(40_000, 100, t=100),
    words="primal",
)
case(
    influence.damped_effects,
    damped_effects("dual"),
    linear(1_500, 2_000, t=800),
    linear(800, 1_000, t=3_000),
    words="dual",
)
case(
    influence.damped_effects,
    damped_effects("dual"),
    network(600, 20, 200, 4, t=300),
    network(1500, 20, 100, 1, t=1500),
    words="by layers",
)
case(
    influence.self_influence,
    of_risk(lambda f, t, s: partial(influence.self_influence, f, t, damping=1.0, run=ALONE)),
    linear(100_000, 30),
    linear(6_000, 500),
    linear(1_000, 1_800),
)
case(
    influence.top,
    effects(lambda f, t, test: partial(influence.top, f, t, test, 5, damping=1.0, run=ALONE)),
    linear(200_000, 30, t=30),
    linear(3_000, 600, t=2_000),
)
case(
    influence.diagnostics,
    stationary(influence.diagnostics),
    linear(100_000, 30),
    linear(6_000, 500),
)
case(
    influence.newton_step,
    of_risk(lambda f, t, s: partial(influence.newton_step, f, t, 3)),
    linear(300_000, 30),
    linear(3_000, 1_500),
)

# Training


def trained(**options):
    return of_risk(
        lambda f, t, s: partial(
            retrain, f, Training(3, 1e-3), t, many(s), run=ALONE, block=s["b"], **options
        )
    )


chain = network(2_000, 20, 40, 4, m=24, b=12, c=0), linear(100_000, 10, m=30, b=30, c=0)
case(retrain, trained(), *chain, words="for a chain")


def gap(**s):
    found, theta = problem(**s)
    t = Training(3, 1e-3)
    p = gaps.Protocol(
        t,
        10.0,
        solver="cg",
        chunk=s["c"],
        solver_options={"max_steps": 1},
        proximal={"max_steps": 1},
    )
    return partial(
        gaps.decompose, found, p, np.tile(theta, (s["s"], 1)), list(range(s["c"] * 2)), run=ALONE
    )


case(
    gaps.decompose,
    gap,
    network(1_000, 20, 40, 4, c=8, s=1, inputs=20) | {"p": 16},
    network(8_000, 10, 10, 1, c=10, s=1, inputs=10) | {"p": 20},
)

# Weights and data
case(weights.without, lambda n: partial(weights.without, n, 3), {"n": 10**7}, {"n": 2 * 10**7})
case(
    weights.groups,
    lambda n, p: partial(weights.groups, n, list(range(p))),
    {"n": 10**6, "p": 20},
    {"n": 10**4, "p": 3_000},
)
case(
    weights.stepwise,
    lambda n, m: partial(weights.stepwise(n, 3, [weights.step(1.0)] * m, 0.1), 3),
    {"n": 10**6, "m": 20},
    {"n": 10**4, "m": 3_000},
)
case(
    data.contexts,
    lambda n, length: partial(data.contexts, "abcdefghij" * (n // 10), length),
    {"n": 10**6, "length": 20},
    {"n": 3 * 10**6, "length": 3},
)
case(
    data.standardise,
    lambda n, d: partial(data.standardise, draw(n, d)),
    {"n": 10**6, "d": 10},
    {"n": 5 * 10**4, "d": 200},
)


# Flow, least squares, forgetting


def fitted(function, condition=1.0, *more):
    """make, for a function of X (n, d), of that condition or more, and y."""

    def make(n, d, **s):
        X, y = draw(n, d), draw(n)
        X[:, 0] *= condition
        data = (X,) if function is leastsquares.leverage else (X, y)
        return partial(function, *data, *(f(n, d, **s) for f in more))

    return make


tall = {"n": 100_000, "d": 40}, {"n": 8_000, "d": 400}
for words, condition in (("by Cholesky", 1.0), ("by QR", 1e9)):
    for function in (leastsquares.leave_one_out, leastsquares.leverage, leastsquares.diagnostics):
        case(function, fitted(function, condition), *tall, words=words)
case(leastsquares.fit, fitted(leastsquares.fit), *({"m": 1} | s for s in tall), words="with")
case(
    leastsquares.any_minimiser,
    lambda n, d: partial(leastsquares.any_minimiser, 0, draw(n, d), draw(n)),
    *tall,
)
case(
    leastsquares.fit,
    fitted(leastsquares.fit, 1.0, lambda n, d, m: np.ones((m, n))),
    {"n": 5000, "d": 100, "m": 10},
    words="with",
)


def times(n, d, K, **_):
    return np.linspace(0.0, 1e-3, K)


def fl(function, *more):
    return fitted(function, 1.0, *more)


case(
    flow.constant,
    fl(flow.constant, times, lambda n, d, K, m: np.ones((m, n))),
    {"n": 20_000, "d": 60, "K": 3, "m": 5},
    {"n": 600, "d": 300, "K": 20, "m": 3},
)
case(flow.augmented, fl(flow.augmented), *tall)
case(
    flow.piecewise,
    fl(flow.piecewise, lambda n, d: np.ones((2, n)), lambda n, d: np.ones(2)),
    {"n": 100_000, "d": 40},
    {"n": 4_000, "d": 400},
)
sched = (
    {"n": 100_000, "d": 40, "m": 1, "K": 1, "S": 0},
    {"n": 600, "d": 200, "m": 5, "K": 20, "S": 0},
)
case(
    flow.scheduled,
    fl(flow.scheduled, lambda *_, **__: 0, lambda n, d, m, **_: [weights.step(1e-3)] * m, times),
    *sched,
    words="for S",
)
case(
    flow.gradient_flow,
    of_risk(
        lambda f, t, s: partial(
            flow.gradient_flow, f, t, np.linspace(0, 1e-9, s["K"]), many(s), tol=1e-3
        )
    ),
    linear(30_000, 40, m=4) | {"K": 2, "outputs": 1},
    linear(1_000, 300, m=12) | {"K": 10, "outputs": 1},
    words="beside",
)


def forgot(n, d):
    X = draw(n, d) / n**0.5
    return forgetting.Problem(X, draw(n), 0, draw(d), 0.5, 2.0)


def forget(call):
    return lambda n, d, **s: partial(call, forgot(n, d), **s)


def pieces(found, k):
    return forgetting.direct(found, k, starts=2)


def value(found):
    return forgetting.objective(found, weights.step(1.0))


def switches(found, K):
    return forgetting.switching(found, weights.step(1.0), np.linspace(0, 2, K))


case(
    forgetting.Problem,
    lambda n, d: partial(forgetting.Problem, draw(n, d), draw(n), 0, draw(d), 0.5, 2.0),
    *tall,
)
case(forgetting.objective, forget(value), {"n": 100_000, "d": 40}, {"n": 4_000, "d": 500})
case(
    forgetting.switching,
    forget(switches),
    {"n": 100_000, "d": 40, "K": 2},
    {"n": 1_000, "d": 300, "K": 20},
)
case(forgetting.optimal, forget(forgetting.optimal), {"n": 800_000, "d": 2}, {"n": 600_000, "d": 3})
case(forgetting.greedy, forget(forgetting.greedy), {"n": 800_000, "d": 2}, {"n": 400_000, "d": 5})
case(
    forgetting.direct,
    forget(pieces),
    {"n": 1_500_000, "d": 2, "k": 16},
    {"n": 1_000, "d": 100, "k": 200},
)


def warm():
    """A little of everything, so that nothing is read in, or reserved, when it counts."""
    C = definite(1_500)
    scipy.linalg.cho_solve(scipy.linalg.cho_factor(C), C)
    scipy.linalg.solve_triangular(C, C)
    torch.from_numpy(C) @ torch.from_numpy(C), C @ C
    for sizes in (linear(9, 2), network(9, 2, 3, 2)):
        found, theta = problem(**sizes)
        found.bregman(theta, theta), found.hessian(theta), found.gauss_newton(theta)
        V = draw(found.d, 2)
        found.hessian_product(theta, V), found.gauss_newton_product(theta, V)
        proximal.damped(found, theta, np.ones(9), 1.0, strict=False)


# Unlearning


def certified(found, theta, _):
    return partial(unlearning.Certified(found, theta, third=0.1).remove, 3)


logistic = {"loss": risk.logistic, "lam": 1.0}
case(
    unlearning.residual_bound,
    lambda n, d: partial(unlearning.residual_bound, draw(n, d), draw(d)),
    {"n": 200_000, "d": 30},
    {"n": 6_000, "d": 500},
)
case(
    unlearning.Certified.remove,
    of_risk(certified, **logistic),
    linear(100_000, 30),
    linear(6_000, 500),
)
case(
    unlearning.membership_ratio,
    of_risk(
        lambda found, theta, _: partial(unlearning.membership_ratio, found, theta, 3, 0.5),
        **logistic,
    ),
    linear(100_000, 30),
    linear(6_000, 500),
)
case(
    unlearning.soft_weights,
    lambda n: partial(unlearning.soft_weights, draw(n), 0.1, draw(n, 1)[:, 0], 0.5),
    {"n": 400_000},
    {"n": 200_000},
)


case(
    gaps.spread,
    lambda c: partial(gaps.spread, draw(20, c // 20)),
    {"c": 4_000_000},
    {"c": 1_000_000},
)


# The local posterior


def local(found, theta, _):
    return posterior.gaussian(found, theta, 1.0, matrix="gauss_newton").influence_on_losses


def seen(found, theta, _):
    return posterior.gaussian(found, theta, 1.0, matrix="gauss_newton").influence_on_outputs


def drawn(found, theta, sizes):
    draws = sizes["c"] // 4
    return partial(
        posterior.langevin, found, theta, 1.0, 1.0, 1e-3, draws, burn=0, thin=1, run=ALONE
    )


def covariances(n, k, c):
    return partial(posterior.bayesian_influence, draw(4, c // 4, n), draw(4, c // 4, k))


case(
    posterior.Gaussian.influence_on_losses,
    of_risk(local),
    linear(3_000, 1_500, t=3_000),
    linear(3_000, 60, t=3_000),
    network(600, 10, 15, 4, t=600),
)
case(
    posterior.Gaussian.influence_on_outputs,
    of_risk(seen),
    linear(3_000, 1_500, t=3_000),
    linear(6_000, 60, t=6_000),
    network(600, 10, 15, 4, t=600),
)
case(
    posterior.langevin,
    of_risk(drawn),
    linear(1_000, 30, c=4_000, k=30),
    linear(60, 500, c=8_000, k=500),
)
case(
    posterior.bayesian_influence,
    covariances,
    {"n": 10, "k": 4_000, "c": 1_000},
    {"n": 1_000, "k": 10, "c": 20_000},
)
case(
    posterior.mixing,
    lambda c, k: partial(posterior.mixing, draw(4, c // 4, k)),
    {"c": 4_000, "k": 1_000},
    {"c": 400_000, "k": 10},
)


# Valuation

case(
    valuation.semivalues,
    lambda n, c: partial(valuation.semivalues, lambda W: W[:, 0], n, np.eye(n)[0]),
    {"n": 20, "c": 2**20},
    {"n": 19, "c": 2**19},
)
case(
    valuation.permutation_shapley,
    lambda n, p: partial(
        valuation.permutation_shapley, lambda W: W[:, 0], n, p, tol=1e9, run=ALONE
    ),
    {"n": 1_000, "p": 2_000},
    {"n": 200, "p": 8_000},
)
case(
    valuation.nearest_neighbours,
    lambda n, t: partial(valuation.nearest_neighbours, draw(n, 2), draw(n), draw(t, 2), draw(t), 5),
    {"n": 5_000, "t": 1_000},
    {"n": 20_000, "t": 40},
)


def neighbours(n, t):
    return draw(n, 2), draw(n), draw(t, 2), draw(t), 5


def asked(n, m):
    return partial(valuation.neighbour_game(*neighbours(n, 3)), np.eye(m, n))


case(
    valuation.neighbour_game,
    lambda n, t: partial(valuation.neighbour_game, *neighbours(n, t)),
    {"n": 5_000, "t": 1_000},
    {"n": 20_000, "t": 200},
    words="with t",
)
case(
    valuation.neighbour_game,
    asked,
    {"n": 5_000, "m": 1_000},
    {"n": 1_000, "m": 8_000},
    words="for a call",
)


def path(**s):
    found, theta = problem(**s)
    follow = partial(valuation.training_influence, found, Training(s["k"], 1e-3), theta)
    return partial(follow, np.eye(s["m"], s["n"]), keep=range(s["k"]))


case(
    valuation.training_influence,
    path,
    linear(200_000, 20, m=1, k=3),
    network(10_000, 20, 30, 4, m=20, k=3),
    network(300, 20, 40, 4, m=20, k=300),
)
