"""Influence over training: how each step of a training answers to its weights, exactly."""

from typing import NamedTuple

import numpy as np
import torch
from torch.func import grad, vjp

from ifcore import inputs
from ifcore.risk import Risk
from ifcore.runs import Run
from ifcore.training import Training, retrain, sgd

CHUNK = 2**18  # numbers of the states that are held at a time
QUIET = Run(progress=False)  # of one block


class TrainingPath(NamedTuple):
    """A training path at the steps kept, and its derivative."""

    steps: np.ndarray  #: (k,)
    theta: np.ndarray  #: (k, d), θ after so many steps
    derivative: np.ndarray  #: (k, d), or (k, m, d) for m directions


def training_influence(risk, training, start, direction, weights=None, *, keep=None):
    """d/dε of θ_k after each step of `training` with the weights w + ε · direction, at ε = 0.

    risk : a `Risk`, twice differentiable. training : a `Training` by SGD, without tol. start :
    (d,), θ₀, which does not move. direction : (n,), or (m, n) for m of them, of any sign: e_j for
    ∂θ_k/∂w_j; or a function of the step that gives one or the other, such as e_j in a window of
    steps and 0 outside. weights : (n,), w; None is 1; or w(t), a function of the step. keep : steps
    from 0 to training.steps to return; None is the last one. Returns a TrainingPath.

    Forward through the same steps: θ_k is that of `retrain`, bit for bit, and the derivative goes
    by the same update of θ and velocity, which is linear, from
    G′_k = mean_{i ∈ B_k} (w_i ∇²ℓ_i(θ_k) θ′_k + direction_i ∇ℓ_i(θ_k)) + λ/n θ′_k.
    The batch B_k is as in `retrain`: it holds the same points whatever their weights, all n of them
    where training.batch is None, and the mean is over their number, which no weight changes.

    Raises ValueError for Adam, whose update is not linear, for tol, and for a window outside the
    training; NotConverged where it diverged, with the Fit so far; NotDifferentiable, NotFinite.

    Memory, for k steps kept: 8 (max(2 min(n d, 2²⁴), n (1.5 a + K) (min(m, 16) + 4)) + 2¹⁹ +
    2 k (m + 1) d + 4 m d) bytes.
    """
    inputs.kind(risk, Risk, "risk")
    inputs.kind(training, Training, "training")
    training, begin = training.checked(risk.n), risk.parameters(start, "start").numpy()
    _require_linear(training)
    risk.require_second_derivatives()
    push, single = _pushes(direction, risk.n)
    pull = _weights(weights, risk)
    keep = _kept(keep, training.steps)
    pushed = sum(np.abs(push(k)) for k in range(training.steps if callable(direction) else 1))
    if callable(direction):
        _require_push(pushed, training.steps)
    risk = risk.sound(begin, None if callable(weights) else pushed.sum(0) + pull(0))
    moved = np.zeros((len(pushed), risk.d))
    velocity, spare, found = np.zeros_like(moved), np.empty_like(moved), {}
    rates = np.broadcast_to(training.rate, training.steps)
    wanted = set(keep)
    for k, theta in _path(risk, training, begin, weights):
        if k in wanted:
            found[k] = theta, moved.copy()
        if k < training.steps:
            G = _slope(risk, theta, moved, push(k), pull(k), training.rows(risk.n, k))
            sgd(training, k, rates[k], moved, G, [velocity], spare)
    theta, moved = (np.stack(part) for part in zip(*(found[k] for k in keep)))
    return TrainingPath(np.array(keep), theta, moved[:, 0] if single else moved)


def _path(risk, training, start, weights):
    """The steps of a training with their θ, by `retrain`, some of them held at a time."""
    size, state = max(1, CHUNK // (4 * risk.d)), start
    for first in range(0, training.steps, size):
        last = min(first + size, training.steps)
        rate = training.rate[:last] if training.rate.ndim else training.rate
        part = training._replace(steps=last, rate=rate)
        keep = range(first, last + 1)
        *states, state = retrain(risk, part, state, weights, keep=keep, run=QUIET).states
        yield from ((each.step, each.theta) for each in states)
    yield state.step, state.theta


def _slope(risk, theta, moved, push, w, rows):
    """The derivative of the gradient of the mean risk on a batch, along θ′ (m, d) and w′ (m, n)."""
    some = risk.tensors
    if rows is not None:
        some, push, w = some.subset(rows), push[:, rows], w[rows]
    theta, w = torch.from_numpy(theta), torch.from_numpy(w)
    _, back = vjp(grad(lambda t: w @ some.losses(t)), theta)
    curved = some.each(lambda v: back(v)[0], chunk_size=16)(torch.from_numpy(moved))
    _, of_losses = vjp(some.losses, theta)
    pushed = some.each(lambda c: of_losses(c)[0], chunk_size=16)(torch.from_numpy(push))
    return (curved + pushed).numpy() / some.n + risk.lam / risk.n * moved


def _pushes(direction, n):
    """The direction as a function of the step that gives (m, n), and whether it came as (n,)."""

    def at(step):
        found = direction(step) if callable(direction) else direction
        found = inputs.array(found, "direction")
        if found.ndim not in (1, 2) or found.shape[-1] != n or not found.size:
            raise ValueError(f"direction must be ({n},) or (m, {n}); got {found.shape}")
        return found

    first = at(0)

    def checked(step):
        found = at(step) if callable(direction) else first
        if found.shape != first.shape:
            raise ValueError(
                f"direction must have one shape at each step; got {first.shape} at step 0, and "
                f"{found.shape} at step {step}"
            )
        return found.reshape(-1, n)

    return checked, first.ndim == 1


def _require_push(pushed, steps):
    """That each of the directions, summed over the steps, is one. Raises ValueError."""
    still = ~pushed.any(axis=1)
    if still.any():
        raise ValueError(
            f"direction must be other than 0 at a step of the training, 0, …, {steps - 1}; of "
            f"{len(still)} directions, {int(np.argmax(still))} is 0 at all of them"
        )


def _weights(weights, risk):
    """The weights as a function of the step that gives (n,)."""
    if not callable(weights):
        w = risk.weights(weights).numpy()
        return lambda step: w
    return lambda step: risk.weights(weights(step), zero=True).numpy()


def _kept(keep, last):
    if keep is None:
        return [last]
    return inputs.indices(keep, last + 1, "keep").tolist()


def _require_linear(training):
    if training.optimiser != "sgd":
        raise ValueError(
            f"training must be by 'sgd', whose update is linear in the gradient; got "
            f"{training.optimiser!r}, for which differences of training.retrain work"
        )
    if training.tol is not None:
        raise ValueError("training must have tol = None: a path that stops by it has no derivative")
