"""The computation behind *What Influence Functions Answer*: one idea, the response map θ(w).

For the weighted risk R_w(θ) = Σ_i w_i ℓ_i(θ) + (λ/2)‖θ‖², θ(w) is its minimiser. The whole data is
w = 1, leave-one-out is w_j = 0, a homotopy is w_j = ε in [0, 1]. The weights do not touch λ. Every
sign and every factor 1/n in the book follows from this one convention.

Data flows down the list of rooms, and a room imports only from those before it. A room is loaded
when it is first named.
"""

from importlib import import_module
from importlib.metadata import version

__version__ = version("ifcore")
__all__ = [
    "inputs",
    "data",
    "leastsquares",
    "jacobian",
    "network",
    "risk",
    "solvers",
    "identity",
    "runs",
    "response",
    "weights",
    "training",
    "proximal",
    "influence",
    "gaps",
    "flow",
    "forgetting",
    "unlearning",
    "posterior",
    "valuation",
]


def __getattr__(name):
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
