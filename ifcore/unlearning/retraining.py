"""Unlearning by training on, from the end or a checkpoint, and by shards that train alone."""

from dataclasses import dataclass
from itertools import chain

import numpy as np

from ifcore import inputs
from ifcore.runs import Run
from ifcore.training import State, retrain


def rewind(risk, training, states, weights, switch, *, run=Run()):
    """θ after `training` that uses w = 1 for `switch` steps and `weights` from there on.

    Rewind-to-delete, for a checkpoint s = switch; with training.steps beyond the steps of the model
    and switch at its end, descend-to-delete; switch = 0 is retraining, bit for bit.

    risk : a `Risk`. training : a `Training`, its steps counted from θ₀. states : those that were
    kept of the training on all data (`retrain(…, keep=…)`), of one fit or of m. weights : (n,), or
    (m, n). run : a `Run`. Returns a Fit.
    Raises ValueError for a checkpoint that was not kept, with those there are; as for `retrain`.
    Source: the notes' ε_s with s the checkpoint; Neel et al. (2021), Mu and Klabjan (2025).
    Memory: as for `training.retrain`.
    """
    switch = inputs.integer(switch, "switch")
    some = isinstance(states, (tuple, list))
    if not some or not all(isinstance(state, State) for state in states):
        raise TypeError(f"states must be those that training kept; got {states!r}")
    there = {state.step: state for state in states}
    if switch not in there:
        raise ValueError(
            f"switch must be a step whose state was kept, of {sorted(there)}; got {switch}"
        )
    return retrain(risk, training, there[switch], weights, run=run)


def sensitivity(rate, L, mu, disturbance, steps, switch):
    """How far gradient descent with a switch can end from training without it, at most.

    One drops examples after `switch` of `steps` steps θ ← θ − rate ∇(R/n), the other has never met
    them; both begin at one θ₀. L, mu : bounds of the eigenvalues of the Hessian of R_w/n, w without
    them, between the two; mu may be negative. disturbance : a bound of ‖∇(R₁ − R_w)‖/n on the way,
    a number or one for each step, (switch,). With batches, of the batches' Hessians and means.

    rate Σ_{k < switch} q^{steps − 1 − k} disturbance_k, q = max(abs(1 − rate mu), abs(1 − rate L)).
    Source: gradient descent that is disturbed; with mu = −L, Mu and Klabjan (2025), for the mean
    over those that are left.
    """
    rate, L, mu = inputs.positive(rate, "rate"), inputs.positive(L, "L"), inputs.array(mu, "mu", 0)
    steps, switch = inputs.count(steps, "steps"), inputs.integer(switch, "switch")
    if not mu <= L:
        raise ValueError(f"mu must be at most L = {L:g}; got {mu:g}")
    if switch > steps:
        raise ValueError(f"switch must lie in 0, …, steps = {steps}; got {switch}")
    push = inputs.array(disturbance, "disturbance")
    if push.shape not in ((), (switch,)) or (push < 0).any():
        raise ValueError(
            f"disturbance must be at least 0, a number or one for each of {switch} steps; got "
            f"{disturbance!r}"
        )
    push = np.broadcast_to(push, switch)
    q = max(abs(1 - rate * mu), abs(1 - rate * L))
    some = np.flatnonzero(push)
    with np.errstate(over="ignore"):  # to infinity
        grown = np.float64(q) ** (steps - 1 - some) * push[some]
        return float(rate * grown.sum())


@dataclass(frozen=True)
class Shards:
    """Points in S shards with a model each, so that a deletion retrains one of them (SISA).

    shards : S tuples of the points that are there. n : of all, the deleted ones included. It does
    not change: `delete` returns another. Raises TypeError, ValueError, IndexError for shards that
    are none, share a point or have one outside 0, …, n − 1.
    Source: Bourtoule et al. (2021), without slices.
    """

    n: int
    shards: tuple

    def __post_init__(self):
        n = inputs.count(self.n, "n")
        if not isinstance(self.shards, (tuple, list)) or not self.shards:
            raise TypeError(f"shards must be a tuple of tuples of points; got {self.shards!r}")
        parts = [inputs.indices(part, n, "shards").tolist() for part in self.shards]
        inputs.indices(list(chain(*parts)), n, "shards")  # none of them in two
        object.__setattr__(self, "n", n)
        object.__setattr__(self, "shards", tuple(map(tuple, parts)))

    @classmethod
    def split(cls, n, S, seed=0):
        """n points into S shards by lot, of sizes that differ by 1 at most.

        Raises ValueError for fewer shards than one, or more than points.
        """
        n, S = inputs.count(n, "n"), inputs.count(S, "S")
        if S > n:
            raise ValueError(f"S must be at most n = {n}, a point for each shard; got {S}")
        rows = inputs.generator(seed).permutation(n)
        return cls(n, tuple(tuple(sorted(part.tolist())) for part in np.array_split(rows, S)))

    @property
    def weights(self):
        """(S, n), 1 for the points of a shard, a row each: what `training.retrain` takes."""
        W = np.zeros((len(self.shards), self.n))
        for row, members in zip(W, self.shards):
            row[list(members)] = 1
        return W

    def delete(self, j):
        """Without point j: the Shards, which of them has to be trained anew, on how many points.

        Raises ValueError for a point that is gone, or the last one of its shard; IndexError.
        """
        j = inputs.index(j, self.n)
        which = next((k for k, members in enumerate(self.shards) if j in members), None)
        if which is None:
            raise ValueError(f"j must be a point that is there; {j} was deleted before")
        left = tuple(i for i in self.shards[which] if i != j)
        if not left:
            raise ValueError(f"j must leave a point in its shard; {j} is the last one of {which}")
        shards = (*self.shards[:which], left, *self.shards[which + 1 :])
        return Shards(self.n, shards), which, len(left)
