"""Which weight ε(t) forgets an example best: the notes' problem, rivals, and the optimal schedule.

Example j has the weight ε(t) = 1 up to the time s, is free to have any weight in [0, 1] on [s, T],
and is gone afterwards; the others have weight 1, the loss is the squared one, training is gradient
flow. `Problem` holds (X, y, j, θ₀, s, T).
"""

from ifcore.forgetting.optimum import Optimal, optimal
from ifcore.forgetting.problem import (
    DISTANCES,
    NotOptimal,
    Objective,
    Problem,
    objective,
    switching,
)
from ifcore.forgetting.rivals import direct, greedy

__all__ = [
    "DISTANCES",
    "NotOptimal",
    "Objective",
    "Optimal",
    "Problem",
    "direct",
    "greedy",
    "objective",
    "optimal",
    "switching",
]
