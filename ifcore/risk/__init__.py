"""The weighted empirical risk R_w(θ) = Σ_i w_i ℓ_i(θ) + (λ/2)‖θ‖², with ℓ_i(θ) = ℓ(f(θ; x_i), y_i).

A model is any function f(θ, x) of a flat parameter vector and one example's input, written in
torch, or a `Network`; a loss is any function ℓ(f, y) of the model's output and one target, or one
of torch's own. Everything is float64. `Risk` takes and gives arrays; its `tensors` are the same as
functions of tensors, to be mapped and differentiated.
"""

from ifcore.risk.empirical import JACOBIAN, NotConvex, NotFinite, Risk
from ifcore.risk.losses import bregman, cross_entropy, linear, logistic, poisson, squared
from ifcore.risk.trial import NotDifferentiable

__all__ = [
    "JACOBIAN",
    "NotConvex",
    "NotDifferentiable",
    "NotFinite",
    "Risk",
    "bregman",
    "cross_entropy",
    "linear",
    "logistic",
    "poisson",
    "squared",
]
