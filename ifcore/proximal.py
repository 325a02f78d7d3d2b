"""The proximal responses from any point θˢ: the damped response, and the Bregman one (PBRF).

They are what influence functions with damping approximate; `response` has the truth.
"""

import numpy as np
import torch

from ifcore import inputs
from ifcore.response import Objective, descend, of_sound
from ifcore.risk import Risk


def damped(risk, start, weights, damping, *, begin=None, **options):
    """The damped response argmin_θ R_w(θ) + (damping/2)‖θ − θˢ‖², for many weights w at once.

    risk : a `Risk`. start : θˢ (d,), any point. weights : (n,) or (m, n); `weights.without(n, j)`
    leaves out j. damping : above 0 (without it, `response.minimise`). begin : (d,), where the
    search begins, by default θˢ; from the response to other weights it stays on their branch.
    options : tol = 1e-10, a fit has converged once ‖∇‖ ≤ tol (Σ_i w_i‖∇ℓ_i(θˢ)‖ + λ‖θˢ‖);
    max_steps = 50; block = 4 fits at a time; preconditioner = True for the factor of
    G_w + (λ + damping)I, w one weight for all, where there is one that fits `memory`, in bytes.
    strict = True to raise where a fit is unfinished, False to return it with its status.

    Method: Newton's in a trust region with conjugate gradients (`response.descend`), to a local
    minimum near where it begins. Returns a Fit. Raises NotConverged (`reached` is the whole Fit).
    Source: the notes' damped response, with damping = n λ for their λ.

    Memory: 8 (max(2 min(n K d, 2²⁴), b n (4 a + 6 K)) + 3 d² + m n) bytes, with b = min(m, 4) fits
    in a block.
    """
    inputs.kind(risk, Risk, "risk")
    start, damping = risk.parameters(start, "start"), inputs.positive(damping, "damping")
    begin = None if begin is None else risk.parameters(begin, "begin")
    inputs.options(options, descend)
    risk.require_second_derivatives()
    W, single = inputs.weights(weights, risk.n, rows=risk.labels)

    def fit(risk, _, W):
        objective = Objective(risk, start, damping)
        return descend(objective, W, objective.scale(W), damping, begin=begin, **options)

    found = of_sound(risk, start.numpy(), W, options.get("strict", True), fit)
    return found.first() if single else found


def pbrf(risk, start, weights, damping, base=None, **options):
    """The proximal Bregman response from θˢ, for many weight vectors w at once, with b = base:

    argmin_θ Σ_i b_i D_i(f(θ; x_i), f(θˢ; x_i)) + Σ_i (w_i − b_i) ℓ_i(θ) + (λ + damping)/2 ‖θ − θˢ‖²

    risk : a `Risk`, whose penalty enters with its own divergence λ/2‖θ − θˢ‖². start : θˢ (d,), any
    point. weights : (n,) or (m, n). damping : at least 0. base : b (n,), the weights of θˢ; None is
    w = 1. options : as for `damped`, but ‖∇‖ ≤ tol Σ_i abs(w_i − b_i)‖∇ℓ_i(θˢ)‖.

    Finds a local minimum near θˢ; a global one need not exist. Returns a Fit. Errors as for
    `damped`, and NotConvex for a loss that is not convex in the output at θˢ.
    Source: the notes' PBRF, with damping = n λ for their λ; Bae et al. (2022).

    Memory: 8 (max(2 min(n K d, 2²⁴), b n (4 a + 6 K)) + 3 d² + m n) bytes, with b = min(m, 4) fits
    in a block.
    """
    inputs.kind(risk, Risk, "risk")
    theta, b = risk.parameters(start, "start"), risk.weights(base, name="base")
    damping = inputs.nonnegative(damping, "damping")
    W, single = inputs.weights(weights, risk.n, rows=risk.labels)
    inputs.options(options, descend)
    risk.require_second_derivatives()
    risk = risk.sound(theta, np.maximum(W, b.numpy()).max(0))
    risk.convex_hessians(theta)
    slopes = risk.tensors.output_gradients(theta)
    slopes = b.reshape(-1, *[1] * (slopes.ndim - 1)) * slopes
    whole = damping + (risk.lam if isinstance(risk.lam, float) else torch.from_numpy(risk.lam))
    objective = Objective(risk, theta, whole, slopes)
    sizes = np.linalg.norm(risk.gradients(theta), axis=1)
    scale = np.abs(W - b.numpy()) @ sizes
    found = descend(objective, W, scale, damping, b, **options)
    return found.first() if single else found
