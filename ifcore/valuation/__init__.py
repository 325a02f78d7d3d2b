"""What a point is worth: Shapley values, other semivalues, and influence over training.

A coalition is a weight vector w in {0, 1}ⁿ. A game is a function value(W) of many coalitions at
once, W (m, n) of 0 and 1, that gives (m,) numbers: a game made of models refits its coalitions side
by side. `values` has the semivalues of any game, exact or by random orders; `games` two games of
data, and the closed form of one; `paths` how a training path answers to its weights.
"""

from ifcore.valuation.games import nearest_neighbours, neighbour_game, refits
from ifcore.valuation.paths import TrainingPath, training_influence
from ifcore.valuation.values import Sampled, permutation_shapley, semivalues, shapley

__all__ = [
    "Sampled",
    "TrainingPath",
    "nearest_neighbours",
    "neighbour_game",
    "permutation_shapley",
    "refits",
    "semivalues",
    "shapley",
    "training_influence",
]
