"""Gradient flow θ̇ = −∇R_w(θ); for least squares exact, with weights that are constant or change in time.

For the squared loss θ̇ = b − Hθ with H = XᵀWX, b = XᵀWy, so that the state at any time is an affine
function of θ₀. What is computed is this map, once for all initial conditions.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch.func import vmap

from ifcore import _inputs

BLOCK = 2**22  # numbers in one block of stacked maps: 32 MiB
LEVELS = 12  # halvings of the step before a weight ε(t) is given up as too rough


class NotResolved(RuntimeError):
    """A flow that was not computed to the tolerance asked for; `error` is the one reached."""

    def __init__(self, message, error):
        super().__init__(message)
        self.error = error


class Affine(NamedTuple):
    """The map θ₀ ↦ matrix θ₀ + offset, or many of them along leading axes."""

    matrix: np.ndarray  # (…, d, d)
    offset: np.ndarray  # (…, d)

    def __call__(self, theta0):
        """The image of θ₀: (…, d) for theta0 (d,), and (k, …, d) for theta0 (k, d)."""
        d = self.offset.shape[-1]
        theta0 = _inputs.array(theta0, "theta0")
        if theta0.ndim not in (1, 2) or theta0.shape[-1] != d:
            raise ValueError(f"theta0 must have shape ({d},) or (k, {d}); got {theta0.shape}")
        out = np.atleast_2d(theta0) @ self.matrix.reshape(-1, d).T
        out = out.reshape(-1, *self.offset.shape)
        out += self.offset
        return out[0] if theta0.ndim == 1 else out

    def then(self, later):
        """The composition: first this map, then `later`."""
        return Affine(later.matrix @ self.matrix, np.einsum("...ij,...j->...i", later.matrix, self.offset) + later.offset)


def gradient_flow(risk, theta0, times, weights=None, *, tol=1e-10, method="DOP853"):
    """θ(t) for θ̇ = −∇R_w(θ), θ(0) = θ₀, of any Risk: the notes' (GF) for w = 1 + (ε − 1)e_j.

    theta0 : (d,). times : (K,), nondecreasing from t ≥ 0. weights : (n,), or (m, n) for m flows; None is
    w = 1. tol : the integrator's relative tolerance, and absolute one in units of max(1, ‖θ₀‖).
    method : an integrator of SciPy's solve_ivp; the default is explicit, "LSODA" suits a stiff risk.
    Returns (K, d) or (m, K, d). Raises NotResolved where the integrator gives up.
    """
    W, single = _inputs.weights(weights, risk.n)
    theta0 = risk._theta(theta0).numpy()
    times, scalar = _times(times)
    W, each = torch.from_numpy(W), vmap(risk._gradients)

    def velocity(_, state):
        theta = torch.from_numpy(state.reshape(len(W), risk.d))
        return -(torch.einsum("mn,mnd->md", W, each(theta)) + risk.lam * theta).numpy().ravel()

    start = np.tile(theta0, len(W))
    atol = tol * max(1.0, np.linalg.norm(theta0))
    found = solve_ivp(velocity, (0, max(times[-1], 1e-300)), start, method, times, rtol=max(tol, 3e-14), atol=atol)
    if not found.success:
        raise NotResolved(f"the flow was integrated to t = {found.t[-1] if found.t.size else 0:.3g} only: {found.message}", np.inf)
    out = found.y.T.reshape(len(times), len(W), risk.d).swapaxes(0, 1)
    out = out[:, 0] if scalar else out
    return out[0] if single else out


def constant(X, y, times, weights=None):
    """The map θ₀ ↦ θ(t) of the squared loss with constant weights, at any rank: the notes' (LRGF), (0.10), (0.11).

    X : (n, d), y : (n,). times : t or (K,), nondecreasing, t ≥ 0; np.inf is the limit of Lemma 0.0.1.
    weights : (n,), or (m, n); None is w = 1. Returns an Affine with leading axes (K,), or (m, K);
    a single t has no axis K.

    By the singular values σ of √W X: 1 − e^{−σ²t} in place of e^{−Ht}, so that a singular H needs no
    care. The error is of the order u(1 + σ_max σ t) in the mode of σ, u the unit roundoff; as t → ∞,
    σ ≤ max(n, d)·2u·σ_max counts as 0. Source: Lemma 0.0.1, with X⁺ for H⁻¹Xᵀ.
    """
    X, y = _inputs.examples(X, y)
    W, single = _inputs.weights(weights, len(y))
    times, scalar = _times(times, infinite=True)
    root = np.sqrt(W)
    U, sigma, Vt = np.linalg.svd(root[:, :, None] * X, full_matrices=False)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        power = -(sigma[:, None] ** 2) * times[:, None]  # (m, K, r)
        zero = sigma <= max(X.shape) * np.finfo(float).eps * sigma[:, :1]
        power = np.where(np.isinf(times)[:, None], np.where(zero, 0.0, -np.inf)[:, None], power)
        gain = np.where(power < 0, -np.expm1(power) / sigma[:, None], 0.0)
    matrix = (Vt.mT[:, None] * np.exp(power)[:, :, None]) @ Vt[:, None]
    if len(y) < X.shape[1]:  # what no row sees stays
        matrix += (np.eye(X.shape[1]) - Vt.mT @ Vt)[:, None]
    target = np.einsum("mnr,mn->mr", U, root * y)
    offset = np.einsum("mrd,mkr->mkd", Vt, gain * target[:, None])
    keep = (0 if single else slice(None), 0 if scalar else slice(None))
    return Affine(matrix[keep], offset[keep])


def piecewise(X, y, weights, durations):
    """The map θ₀ ↦ θ(t) of the squared loss for weights that hold one after the other.

    weights : (p, n). durations : (p,), each at least 0. Returns an Affine without leading axes.
    """
    X, y = _inputs.examples(X, y)
    weights, durations = _inputs.array(weights, "weights", 2), _inputs.array(durations, "durations", 1)
    if len(weights) != len(durations) or not len(durations):
        raise ValueError(f"there must be one duration for each row of weights; got {len(durations)} and {len(weights)}")
    out = Affine(np.eye(X.shape[1]), np.zeros(X.shape[1]))
    for w, duration in zip(weights, durations):
        out = out.then(constant(X, y, duration, w))
    return out


def scheduled(X, y, j, schedule, times, *, tol=1e-10):
    """The map θ₀ ↦ θ(t) of the squared loss where example j has the weight ε(t): the notes' (0.13).

    X : (n, d), y : (n,), j : the example. schedule : a `Schedule`, or a list of m. times : t or (K,),
    nondecreasing, from t ≥ 0. Returns an Affine with leading axes (K,), or (m, K); a single t has no
    axis K.

    Where ε is piecewise constant the map is exact, with an error of the order u(1 + ‖H‖t). Elsewhere
    each smooth piece of ε is replaced by its values at the midpoints of N equal steps, whose exact
    map has an error with an expansion in N⁻²; N is doubled, and the maps extrapolated (Romberg),
    until two in a row differ by at most tol (1 + ‖offset‖). Raises NotResolved where that takes more than
    2^12 steps in one piece, as with a jump of ε that is not among its knots.
    """
    X, y = _inputs.examples(X, y)
    (j,) = _inputs.indices(j, len(y))
    many = isinstance(schedule, (list, tuple)) and not hasattr(schedule, "knots")
    plans = list(schedule) if many else [schedule]
    times, scalar = _times(times)
    edges, place = _edges(plans, times)
    pair = _pair(X, y, j)
    if all(plan.constant for plan in plans):
        maps = _midpoints(pair, plans, edges, 1)[place]
    else:
        maps = _romberg(lambda n: _midpoints(pair, plans, edges, n)[place], tol)
    maps = maps[:, 0] if scalar else maps
    maps = maps if many else maps[0]
    return Affine(np.ascontiguousarray(maps[..., :-1, :-1]), np.ascontiguousarray(maps[..., :-1, -1]))


def _pair(X, y, j):
    """H and b as [A b] without example j, (d, d + 1), and x_j[x_jᵀ y_j], which joins it with the weight ε."""
    table = np.column_stack([X, y])
    rest = np.delete(table, j, axis=0)
    return rest[:, :-1].T @ rest, np.outer(X[j], table[j])


def _midpoints(pair, plans, edges, steps):
    """Maps from 0 to every edge, (m, I + 1, d + 1, d + 1), with ε held at the midpoints of `steps` parts of each interval."""
    without, own = pair
    d = len(own)
    m, intervals = len(plans), edges.shape[1] - 1
    out = np.empty((m, intervals + 1, d + 1, d + 1))
    state = out[:, 0] = np.eye(d + 1)
    width = max(1, BLOCK // (m * steps * (d + 1) ** 2))
    for first in range(0, intervals, width):
        left, right = edges[:, :-1][:, first : first + width], edges[:, 1:][:, first : first + width]
        h = (right - left) / steps
        middle = left[..., None] + h[..., None] * (np.arange(steps) + 0.5)
        epsilon = np.stack([plan(t) for plan, t in zip(plans, middle)])
        values, which = np.unique(epsilon, return_inverse=True)
        values = values[:, None, None]
        E = _exponentials(without + values * own, which.reshape(epsilon.shape), h)
        while E.shape[2] > 1:
            E = E[:, :, 1::2] @ E[:, :, ::2]
        for i in range(E.shape[1]):
            state = np.matmul(E[:, i, 0], state, out=out[:, first + i + 1])
    return out


def _exponentials(table, which, h):
    """The maps of θ̇ = b − Hθ over durations h (m, I), as matrices of size d + 1: [H b] = table[which], which (m, I, steps)."""
    d = table.shape[1]
    values, V = np.linalg.eigh(table[:, :, :-1])
    target = (table[:, None, :, -1] @ V)[:, 0]  # Vᵀb
    rate, t = values[which], h[..., None, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = np.where(rate * t != 0, -np.expm1(-rate * t) / rate, t)  # ∫₀ᵗ e^{−λu} du
    V = V[which]
    E = np.zeros((*which.shape, d + 1, d + 1))
    E[..., :-1, :-1] = (V * np.exp(-rate * t)[..., None, :]) @ V.mT
    E[..., :-1, -1] = (V @ (gain * target[which])[..., None])[..., 0]
    E[..., -1, -1] = 1
    return E


def _romberg(maps, tol):
    """The limit of maps(N) as N = 1, 2, 4, … grows, where the error has an expansion in N⁻²."""
    row, error = [maps(1)], np.inf
    for level in range(1, LEVELS + 1):
        new = [maps(2**level)]
        for k, old in enumerate(row, 1):
            new.append(new[-1] + (new[-1] - old) / (4**k - 1))
        scale = 1 + np.abs(new[-1][..., :-1, -1]).max()
        error = np.abs(new[-1] - row[-1]).max() / scale
        if error <= tol:
            return new[-1]
        row = new[:6]  # beyond order 14 only rounding is gained
    raise NotResolved(
        f"the weight ε(t) is not resolved by 2^{LEVELS} steps a piece: two extrapolations in a row differ by {error:.1e}, "
        f"tol = {tol:.0e} was asked for. Put the points where ε is not smooth among its breaks", error
    )


def _edges(plans, times):
    """For each schedule 0, its knots and the times, sorted, (m, I + 1), and the places of `times`, (m, K), as an index."""
    most = max(len(plan.knots) for plan in plans)
    knots = np.array([[*plan.knots, *[plan.knots[-1]] * (most - len(plan.knots))] for plan in plans])
    rows = np.hstack([np.zeros((len(plans), 1)), np.broadcast_to(times, (len(plans), len(times))), np.clip(knots, 0, times[-1])])
    order = np.argsort(rows, axis=1, kind="stable")
    place = np.argsort(order, axis=1)[:, 1 : 1 + len(times)]
    return np.take_along_axis(rows, order, axis=1), (np.arange(len(plans))[:, None], place)


def _times(times, infinite=False):
    """Times as (K,), and whether a single one came."""
    given = np.asarray(times, dtype=float)
    t = np.atleast_1d(given)
    if t.ndim > 1 or t.size == 0 or np.isnan(t).any() or (t < 0).any() or (t[1:] < t[:-1]).any():
        raise ValueError(f"times must be t ≥ 0 or a nondecreasing sequence of such; got {times!r}")
    if np.isinf(t).any() and not infinite:
        raise ValueError("times must be finite here; `flow.constant` has the limit t = ∞")
    return t, given.ndim == 0
