"""Every argument of every public function, given what it cannot be.

An error must come from the door or the function itself, not from the depths of a library, and
name the argument.
"""

import traceback
from importlib import import_module

import numpy as np
import pytest
import torch

from ifcore import (
    data,
    forgetting,
    gaps,
    network,
    posterior,
    response,
    risk,
    training,
    unlearning,
    weights,
)
from ifcore.runs import Run

BAD = {
    "an object": object(),
    "a word": "nonsense",
    "NaN": np.nan,
    "a complex number": 1j,
    "rows of two lengths": [[1, 2], [3]],
    "an array of words": np.array(["a", "b", "c"]),
    "a masked array": np.ma.array([1.0, 2.0, 3.0], mask=[0, 1, 0]),
    "a tensor that requires a gradient, of NaN": torch.full((3,), np.nan, requires_grad=True),
}

X, Y = data.regression(0, 12, 3)
CLASSES = data.classification(0, 20, 3)
QUIET = Run(jobs=1, progress=False)
CONVEX = risk.Risk(risk.linear, risk.logistic, *CLASSES, lam=1.0)
THETA = response.minimise(CONVEX).theta
NET = network.perceptron(0, 3, 2, 1)
CURVED = risk.Risk(NET, risk.squared, X, Y, lam=0.5)
START = NET.initial(0)
SHORT = training.Training(5, 0.01)
PROBLEM = forgetting.Problem(X, Y, 0, np.zeros(3), 1.0, 3.0)
SCHEDULE = weights.piecewise([1.0, 3.0], [0.5])
STEP = weights.step(1.0)
CERTIFIED = unlearning.Certified(CONVEX, THETA)
GAUSSIAN = posterior.gaussian(CONVEX, THETA, 1.0)
HALVES = (tuple(range(6)), tuple(range(6, 12)))
LOSSES = np.random.default_rng(0).random((2, 10, 4))


def size(W):
    return W.sum(axis=1)


PLAIN = {
    "data.standardise": {"X": X, "intercept": True},
    "data.design": {"seed": 0, "n": 12, "d": 3, "condition": 10.0},
    "data.orthonormal": {"seed": 0, "n": 12, "d": 3},
    "data.low_rank": {"seed": 0, "n": 12, "d": 3, "rank": 2},
    "data.regression": {"seed": 0, "n": 12, "d": 3, "condition": 10.0, "noise": 1.0},
    "data.classification": {"seed": 0, "n": 12, "d": 3, "condition": 10.0},
    "data.contexts": {"text": "a line of text", "length": 3},
    "data.mnist": {"folder": "no folder"},
    "leastsquares.fit": {"X": X, "y": Y, "weights": None},
    "leastsquares.any_minimiser": {"seed": 0, "X": X, "y": Y},
    "leastsquares.leave_one_out": {"X": X, "y": Y, "weights": None, "strict": False},
    "leastsquares.leverage": {"X": X, "weights": None},
    "leastsquares.diagnostics": {"X": X, "y": Y, "weights": None, "strict": False},
    "network.Network": {"module": torch.nn.Linear(3, 1)},
    "network.Network.initial": {"seed": 0},
    "network.Network.module": {"theta": START},
    "network.Network.flat": {"module": NET.module(START)},
    "risk.Risk": {
        "model": risk.linear,
        "loss": risk.squared,
        "X": X,
        "y": Y,
        "lam": 1.0,
        "b": None,
        "d": None,
    },
    "risk.Risk.value": {"theta": THETA, "weights": None},
    "risk.Risk.gradient": {"theta": THETA, "weights": None},
    "risk.Risk.hessian": {"theta": THETA, "weights": None},
    "risk.Risk.gauss_newton": {"theta": THETA, "weights": None},
    "risk.Risk.hessian_product": {"theta": THETA, "V": np.ones(3), "weights": None},
    "risk.Risk.gauss_newton_product": {"theta": THETA, "V": np.ones(3), "weights": None},
    "risk.Risk.losses": {"theta": THETA},
    "risk.Risk.gradients": {"theta": THETA},
    "risk.Risk.outputs": {"theta": THETA},
    "risk.Risk.jacobian": {"theta": THETA},
    "risk.Risk.output_gradients": {"theta": THETA},
    "risk.Risk.output_hessians": {"theta": THETA},
    "risk.Risk.bregman": {"theta": THETA, "reference": THETA},
    "risk.Risk.subset": {"rows": [0, 1]},
    "solvers.direct": {"C": np.eye(3), "v": np.ones(3), "damping": 0.0},
    "solvers.dual": {"B": np.ones((4, 3)), "v": np.ones(3), "damping": 1.0},
    "solvers.cg": {
        "C": np.eye(3),
        "v": np.ones(3),
        "damping": 0.0,
        "tol": 1e-10,
        "max_steps": None,
        "preconditioner": None,
    },
    "solvers.lissa": {
        "C": np.eye(3),
        "v": np.ones(3),
        "damping": 0.1,
        "scale": None,
        "tol": 1e-6,
        "max_steps": 100,
        "sample": None,
    },
    "solvers.Primal": {"C": np.eye(3), "damping": 0.0},
    "solvers.Dual": {"B": np.ones((4, 3)), "damping": 1.0},
    "solvers.factor": {
        "risk": CONVEX,
        "theta": THETA,
        "weights": None,
        "damping": 0.0,
        "matrix": "hessian",
        "form": None,
        "memory": 2**30,
    },
    "solvers.solve": {
        "risk": CONVEX,
        "theta": THETA,
        "v": np.ones(3),
        "weights": None,
        "damping": 0.0,
        "matrix": "hessian",
        "solver": None,
        "memory": 2**30,
    },
    "solvers.choose": {
        "risk": CONVEX,
        "damping": 0.0,
        "matrix": "hessian",
        "solver": None,
        "memory": 2**30,
    },
    "response.minimise": {
        "risk": CONVEX,
        "start": None,
        "weights": None,
        "method": "newton",
        "strict": True,
        "tol": 1e-10,
        "max_steps": 50,
    },
    "response.leave_one_out": {"risk": CONVEX, "start": None, "remove": [0, 1], "run": QUIET},
    "weights.without": {"n": 12, "remove": [0, 1]},
    "weights.groups": {"n": 12, "remove": [[0, 1], [2]]},
    "weights.stepwise": {"n": 12, "j": 0, "schedule": STEP, "dt": 0.5},
    "weights.Schedule": {"knots": (0.0, 1.0), "pieces": (0.5,)},
    "weights.step": {"tau": 1.0},
    "weights.linear": {"s": 0.0, "t1": 1.0},
    "weights.polynomial": {"s": 0.0, "t1": 1.0, "degree": 2},
    "weights.piecewise": {"knots": [0.0, 1.0], "values": [0.5]},
    "weights.function": {"f": np.exp, "s": 0.0, "T": 1.0, "breaks": ()},
    "training.retrain": {
        "risk": CURVED,
        "training": SHORT,
        "start": START,
        "weights": None,
        "damping": 0.0,
        "order": None,
        "block": None,
        "keep": (),
        "run": QUIET,
    },
    "proximal.damped": {
        "risk": CURVED,
        "start": START,
        "weights": None,
        "damping": 1.0,
        "begin": None,
    },
    "proximal.pbrf": {
        "risk": CURVED,
        "start": START,
        "weights": weights.without(12, 0),
        "damping": 1.0,
        "base": None,
    },
    "influence.influence": {"risk": CONVEX, "theta": THETA, "weights": None, "tol": 1e-6},
    "influence.loss_influence": {
        "risk": CONVEX,
        "theta": THETA,
        "weights": None,
        "tol": 1e-6,
        "memory": 2**30,
    },
    "influence.self_influence": {
        "risk": CONVEX,
        "theta": THETA,
        "weights": None,
        "damping": 0.0,
        "matrix": "hessian",
        "memory": 2**30,
        "run": QUIET,
    },
    "influence.top": {
        "risk": CONVEX,
        "theta": THETA,
        "test": CONVEX,
        "k": 2,
        "weights": None,
        "damping": 0.0,
        "matrix": "hessian",
        "memory": 2**30,
        "run": QUIET,
    },
    "influence.diagnostics": {
        "risk": CONVEX,
        "theta": THETA,
        "weights": None,
        "dispersion": None,
        "tol": 1e-6,
    },
    "influence.damped_influence": {
        "risk": CONVEX,
        "theta": THETA,
        "weights": None,
        "damping": 0.1,
        "matrix": "gauss_newton",
        "solver": None,
        "memory": 2**30,
    },
    "influence.damped_effects": {
        "risk": CONVEX,
        "theta": THETA,
        "weights": None,
        "damping": 0.1,
        "test": None,
        "solver": None,
        "memory": 2**30,
    },
    "influence.newton_step": {"risk": CONVEX, "theta": THETA, "remove": [0, 1], "weights": None},
    "gaps.decompose": {
        "risk": CURVED,
        "protocol": gaps.Protocol(SHORT, 1.0),
        "start": START[None],
        "remove": [0],
        "order": None,
        "measure": None,
        "keep": False,
        "run": QUIET,
    },
    "gaps.spread": {"values": np.ones((4, 3)), "low": 0.1, "high": 0.9},
    "flow.gradient_flow": {
        "risk": CONVEX,
        "theta0": np.zeros(3),
        "times": [0.1, 0.2],
        "weights": None,
        "tol": 1e-8,
        "method": "DOP853",
        "evaluations": 2000,
    },
    "flow.constant": {"X": X, "y": Y, "times": [0.1, 1.0], "weights": None},
    "flow.augmented": {"X": X, "y": Y, "weights": None},
    "flow.piecewise": {"X": X, "y": Y, "weights": np.ones((2, 12)), "durations": [1.0, 1.0]},
    "flow.scheduled": {"X": X, "y": Y, "j": 0, "schedule": STEP, "times": [0.5, 2.0], "tol": 1e-8},
    "forgetting.Problem": {"X": X, "y": Y, "j": 0, "theta0": np.zeros(3), "s": 1.0, "T": 3.0},
    "forgetting.direct": {"problem": PROBLEM, "pieces": 4, "starts": 1, "seed": 0},
    "forgetting.greedy": {"problem": PROBLEM},
    "forgetting.objective": {"problem": PROBLEM, "schedule": SCHEDULE, "distance": "optimum"},
    "forgetting.optimal": {"problem": PROBLEM},
    "forgetting.switching": {
        "problem": PROBLEM,
        "schedule": SCHEDULE,
        "times": [1.5],
        "target": None,
    },
    "unlearning.Certified": {
        "risk": CONVEX,
        "theta": THETA,
        "budget": np.inf,
        "third": None,
        "removed": (),
        "bound": None,
    },
    "unlearning.Certified.remove": {"j": 0, "step": "newton"},
    "unlearning.Shards": {"n": 12, "shards": HALVES},
    "unlearning.Shards.split": {"n": 12, "S": 2, "seed": 0},
    "unlearning.Shards.delete": {"j": 0},
    "unlearning.budget": {"sigma": 1.0, "epsilon": 1.0, "delta": 1e-3},
    "unlearning.gaussian_delta": {"shift": 1.0, "sigma": 1.0, "epsilon": 1.0},
    "unlearning.membership_ratio": {
        "risk": CONVEX,
        "theta": THETA,
        "j": 0,
        "sigma": 1.0,
        "weights": None,
    },
    "unlearning.residual_bound": {"X": X, "move": np.ones(3), "third": 0.1},
    "unlearning.sensitivity": {
        "rate": 0.1,
        "L": 2.0,
        "mu": 1.0,
        "disturbance": 0.1,
        "steps": 5,
        "switch": 2,
    },
    "unlearning.soft_weights": {"a": [1.0, 1.0], "c": [1.0, 2.0], "u": None, "t": 0.0},
    "unlearning.rewind": {
        "risk": CURVED,
        "training": SHORT,
        "states": training.retrain(CURVED, SHORT, START, keep=(2,), run=QUIET).states,
        "weights": weights.without(12, 0),
        "switch": 2,
        "run": QUIET,
    },
    "posterior.gaussian": {
        "risk": CONVEX,
        "theta": THETA,
        "damping": 1.0,
        "beta": 1.0,
        "weights": None,
        "matrix": "hessian",
    },
    "posterior.Gaussian.draw": {"seed": 0, "m": 3},
    "posterior.Gaussian.solve": {"v": np.ones(3)},
    "posterior.Gaussian.influence_on_outputs": {"test": None},
    "posterior.Gaussian.influence_on_losses": {"test": None},
    "posterior.langevin": {
        "risk": CONVEX,
        "theta": THETA,
        "damping": 1.0,
        "beta": 1.0,
        "step": 1e-3,
        "draws": 10,
        "weights": None,
        "chains": 2,
        "burn": 5,
        "thin": 1,
        "batch": None,
        "seed": 0,
        "observables": None,
        "run": QUIET,
    },
    "posterior.bayesian_influence": {"losses": LOSSES, "observables": LOSSES, "beta": 1.0},
    "posterior.mixing": {"values": LOSSES[..., 0]},
    "valuation.nearest_neighbours": {
        "X": CLASSES[0],
        "y": CLASSES[1],
        "test_X": CLASSES[0][:3],
        "test_y": CLASSES[1][:3],
        "K": 2,
    },
    "valuation.neighbour_game": {
        "X": CLASSES[0],
        "y": CLASSES[1],
        "test_X": CLASSES[0][:3],
        "test_y": CLASSES[1][:3],
        "K": 2,
    },
    "valuation.permutation_shapley": {
        "value": size,
        "n": 4,
        "permutations": 8,
        "seed": 0,
        "tol": None,
        "block": 4,
        "run": QUIET,
    },
    "valuation.refits": {"risk": CONVEX, "test": CONVEX, "start": None, "measure": None},
    "valuation.semivalues": {"value": size, "n": 4, "sizes": [0.25] * 4},
    "valuation.shapley": {"value": size, "n": 4},
    "valuation.training_influence": {
        "risk": CURVED,
        "training": SHORT,
        "start": START,
        "direction": np.eye(12)[0],
        "weights": None,
        "keep": None,
    },
}
FINE = {  # what it may be
    ("data.contexts", "text", "a word"),
    ("weights.groups", "remove", "rows of two lengths"),
    ("gaps.decompose", "remove", "rows of two lengths"),
    ("unlearning.Shards", "shards", "rows of two lengths"),
}
OF = {
    "network.Network": NET,
    "risk.Risk": CONVEX,
    "unlearning.Certified": CERTIFIED,
    "unlearning.Shards": unlearning.Shards(12, HALVES),
    "posterior.Gaussian": GAUSSIAN,
}


def called(name):
    """The function of a name, a method of the object in `OF`."""
    owner, _, method = name.rpartition(".")
    if owner in OF:
        return getattr(OF[owner], method)
    room, _, function = name.partition(".")
    return getattr(import_module(f"ifcore.{room}"), function)


@pytest.mark.parametrize("name", PLAIN)
def test_what_an_argument_cannot_be_is_refused_by_its_name(name):
    wrong = []
    for argument in PLAIN[name]:
        for kind, value in BAD.items():
            if (name, argument, kind) in FINE:
                continue
            try:
                called(name)(**PLAIN[name] | {argument: value})
                wrong.append(f"{argument} as {kind} is taken")
            except Exception as error:
                last = traceback.extract_tb(error.__traceback__)[-1]
                if "/ifcore/" not in last.filename:
                    wrong.append(f"{argument} as {kind}: {error!r} from {last.filename}")
                elif argument not in str(error):
                    wrong.append(f"{argument} as {kind} is not named: {error!r}")
    assert not wrong, "\n".join(wrong)
