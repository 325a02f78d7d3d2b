"""Forgetting in practice: certified removal, descend or rewind, shards, soft weights.

What these methods approximate is θ(w), retraining with other weights. `certified` removes points
from a convex model and bounds what is left of them; `retraining` goes on with a training from a
checkpoint, or trains shards that a deletion touches one of; `soft` finds the weights nearest to 1
that meet a constraint.
"""

from ifcore.unlearning.certified import (
    Certified,
    Exhausted,
    budget,
    gaussian_delta,
    membership_ratio,
    residual_bound,
)
from ifcore.unlearning.retraining import Shards, rewind, sensitivity
from ifcore.unlearning.soft import Infeasible, SoftWeights, soft_weights

__all__ = [
    "Certified",
    "Exhausted",
    "Infeasible",
    "Shards",
    "SoftWeights",
    "budget",
    "gaussian_delta",
    "membership_ratio",
    "residual_bound",
    "rewind",
    "sensitivity",
    "soft_weights",
]
