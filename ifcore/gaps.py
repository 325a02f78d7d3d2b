"""The error of an influence estimate in five gaps, from retraining without a point down to the solver's answer.

For a removed point, or group, with weights w (0 there, 1 elsewhere), six estimates of θ(w), each the next one's neighbour:

0. cold-start retraining, from the θ₀ of θˢ with the training of θˢ;
1. warm-start retraining, from θˢ;
2. the damped response, argmin R_w(θ) + (damping/2)‖θ − θˢ‖²;
3. the proximal Bregman response (PBRF), whose optimum is θˢ where nothing is removed;
4. its linearization θˢ + (G + damping·I)⁻¹ Σ_{i removed} ∇ℓ_i(θˢ), exactly;
5. the same by an iterative solver.

A gap is the difference of two neighbours: e_k − e_{k+1}. The five add up to e_0 − e_5, and their norms to an upper bound of its norm. The
control is the same with nothing removed, w = 1, and the removal's effect an estimate minus its own control.
Source: Bae et al. (2022); `damping` is n times the notes' λ.
"""

from typing import NamedTuple

import numpy as np

from ifcore import _blocks, _inputs, _training, solvers
from ifcore.response import Proximal, Training, damped, pbrf
from ifcore.risk import without
from ifcore.solvers import NotConverged

NAMES = ("warm-start", "proximity", "non-convergence", "linearization", "solver")
FITS = ("cold start", "warm start", "damped response", "PBRF")
_HELD = ("converged", "trained")


class Distances(NamedTuple):
    """Sizes of the gaps, in the parameters, ‖·‖, or in the outputs, root of the mean over the examples of ‖·‖²; s seeds, p removals."""

    gaps: np.ndarray  # (s, p, 5), in the order of NAMES
    control: np.ndarray  # (s, 5), the same gaps with nothing removed
    effect: np.ndarray  # (s, p, 5), the gaps of the removal's effect
    direct: np.ndarray  # (s, p), from the first estimate to the last; at most the sum of the gaps
    effect_direct: np.ndarray  # (s, p), the same for the removal's effect
    shift: np.ndarray  # (s, p), from θˢ to PBRF


class Gaps(NamedTuple):
    """What `decompose` found for s seeds and p removals; NaN where it is not done."""

    parameters: Distances
    outputs: Distances
    theta: np.ndarray  # (s, d), θˢ of each seed
    measured: np.ndarray  # (s, p, 6, …), `measure` at the six estimates
    measured_control: np.ndarray  # (s, 6, …), and at their controls
    status: (
        np.ndarray
    )  # (s, p + 1, 4), of the fits FITS, the control last; "missing" where not done
    gradient_norm: np.ndarray  # (s, p + 1, 4), their relative gradient norms
    residual: (
        np.ndarray
    )  # (s, p), ‖(G + damping·I)x − v‖/‖v‖ of the solver's answer, the largest of its chunk
    estimates: np.ndarray | None  # (s, p, 6, d), and
    controls: np.ndarray | None  # (s, 6, d), with keep=True
    done: np.ndarray  # (s, p): False where the result is partial


def decompose(risk, training, starts, removed, damping, *, warm=None, converged=False, solver="lissa", solver_options=None, proximal=None, orders=None,
              measure=None, keep=False, chunk=8, memory=solvers.MEMORY, folder=None, jobs=-1, progress=None, strict=True):  # fmt: skip
    """The five gaps of every removal and seed.

    risk : a `Risk`, with a loss convex in the output. training : a `Training`, that of θˢ and of the cold start. starts : (s, d), θ₀ of every
    seed (`response.initial`). removed : p removals, each an index or a list of them. damping : positive, of the book's R_w.
    warm : the Training of the warm start; by default that of θˢ. orders : (s,), seeds of the batches' order. converged : True to go on, from where
    training ends, to the minimiser of R_w by Newton's method, cold and warm: θˢ is then stationary, and the control 0.
    solver, solver_options : "cg" or "lissa" and what `solvers.solve` takes for it. proximal : options of `response.damped` and `pbrf`.
    measure : θ ↦ an array, kept for every estimate; by default risk.losses, whose entry j is the own loss of point j.
    keep : True to return the estimates themselves. chunk : removals in one task, which trains the control beside them.
    folder, jobs, progress : as for `response.retrain`. strict : raise where a fit is unfinished; False returns it with its status.

    Returns Gaps. Raises NotConverged (`response` is the whole Gaps), and what the estimators raise; after an error or an
    interrupt its `partial` is the Gaps of what is done. Memory, in each process: `memory` for G and its factor, about
    7·chunk·(d + n·K) numbers, and what `response.retrain` takes; for the answer s·p·6 times the size of `measure`, and times d with keep.
    """
    damping, starts = (
        _inputs.nonnegative(damping, "damping"),
        np.atleast_2d(_inputs.array(starts, "starts")),
    )
    if starts.ndim != 2 or starts.shape[1] != risk.d:
        raise ValueError(f"starts must be (s, {risk.d}); got {starts.shape}")
    training = _training._checked(training, risk.n)
    warm = training if warm is None else _training._checked(warm, risk.n)
    if solver not in ("cg", "lissa"):
        raise ValueError(f"solver must be 'cg' or 'lissa'; got {solver!r}")
    if not isinstance(removed, (list, tuple, range, np.ndarray)) or not len(removed):
        raise ValueError(f"removed must be a list of indices, or of lists of them; got {removed!r}")
    W = np.array([without(risk.n, j) for j in removed])
    orders = np.full(len(starts), training.order) if orders is None else np.asarray(orders)
    if orders.shape != (len(starts),):
        raise ValueError(
            f"orders must hold one seed for each of {len(starts)} starts; got {orders!r}"
        )
    chunk = solvers._steps(chunk, "chunk")
    plan = _Plan(
        risk,
        training,
        warm,
        converged,
        damping,
        solver,
        solver_options or {},
        proximal or {},
        measure or risk.losses,
        keep,
        memory,
        chunk,
    )
    parts = [
        (s, slice(i, min(i + chunk, len(W))))
        for s in range(len(starts))
        for i in range(0, len(W), chunk)
    ]
    blocks = [(plan, starts[s], int(orders[s]), W[rows]) for s, rows in parts]
    configuration = {}
    if folder is not None:
        configuration = (
            _blocks.fingerprint(risk) | plan._asdict() | {"fits": _blocks.digest(starts, orders, W)}
        )
        configuration |= {
            "training": _plain(training),
            "warm": _plain(warm),
            "measure": getattr(plan.measure, "__qualname__", "a function"),
        }
        configuration.pop("risk")
    try:
        results = _blocks.run(
            _task, blocks, configuration, folder=folder, jobs=jobs, progress=progress
        )
    except BaseException as error:
        if hasattr(error, "partial"):
            error.partial = _assembled(error.partial, parts, len(starts), len(W))
        raise
    found = _assembled(results, parts, len(starts), len(W))
    bad = np.argwhere(~np.isin(found.status, _HELD))
    if strict and len(bad):
        s, j, fit = (int(i) for i in bad[0])
        which = f"removal {j}" if j < len(W) else "the control"
        raise NotConverged(
            f"{len(bad)} of {found.status.size} fits did not end well; the first, the {FITS[fit]} of seed {s}, {which}, is "
            f"{str(found.status[s, j, fit])!r}, its relative gradient norm {found.gradient_norm[s, j, fit]:.1e}",
            found,
        )
    return found


def spread(values, low=0.1, high=0.9):
    """Quantiles (3, …) over all seeds and removals, the first two axes of `values`: low, median, high. NaN, not done, is left out."""
    values = np.asarray(values)
    return np.nanquantile(values.reshape(-1, *values.shape[2:]), [low, 0.5, high], axis=0)


class _Plan(NamedTuple):
    risk: object
    training: Training
    warm: Training
    converged: bool
    damping: float
    solver: str
    solver_options: dict
    proximal: dict
    measure: object
    keep: bool
    memory: int
    chunk: int


def _plain(training):
    return training._replace(rate=_blocks.digest(training.rate))


def _task(plan, start, order, W):
    """One seed, some removals and the control, which comes first: the arrays of one block."""
    risk, c = plan.risk, len(W)
    W = np.vstack([np.ones(risk.n), W])
    options = {"memory": plan.memory, "strict": False} | plan.proximal
    cold = _trained(plan, plan.training, start, W, order)
    if plan.converged:
        fits = [damped(risk, theta, 0, w, **options) for theta, w in zip(cold.theta, W)]
        cold = Proximal(*map(np.array, zip(*fits)))
    theta = cold.theta[0]
    if not np.isfinite(theta).all() or cold.status[0] not in _HELD:
        raise NotConverged(
            f"θˢ is {str(cold.status[0])!r} at step {cold.steps[0]}, its relative gradient norm {cold.gradient_norm[0]:.1e}",
            cold,
        )
    warm = (
        damped(risk, theta, 0, W, **options)
        if plan.converged
        else _trained(plan, plan.warm, theta, W, order)
    )
    near = damped(risk, theta, plan.damping, W, **options)
    bregman = pbrf(risk, theta, plan.damping, W[1:], **options)
    v = risk.gradients(theta).T @ (1 - W[1:]).T
    exact = solvers.solve(risk, theta, v, plan.damping, memory=plan.memory)
    found = solvers.solve(risk, theta, v, plan.damping, solver=plan.solver, **plan.solver_options)
    still = np.repeat(theta[None], c + 1, axis=0)
    E = np.stack([cold.theta, warm.theta, near.theta, still, still, still], axis=1)
    E[1:, 3:] = np.stack([bregman.theta, theta + exact.x.T, theta + found.x.T], axis=1)
    bad = ~np.isfinite(E).all(axis=2)
    E = np.where(bad[:, :, None], theta, E)  # NaN is refused further down
    F = np.array([[risk.outputs(e).reshape(-1) for e in row] for row in E])
    measured = np.array([[plan.measure(e) for e in row] for row in E], dtype=float)
    for values in (E, F, measured):
        values[bad] = np.nan
    held = [
        np.concatenate([["converged"], bregman.status]),
        np.concatenate([[0.0], bregman.gradient_norm]),
    ]
    out = {
        "theta": theta,
        "measured": measured,
        "status": np.stack([cold.status, warm.status, near.status, held[0]], axis=1).astype("U10"),
        "gradient_norm": np.stack(
            [cold.gradient_norm, warm.gradient_norm, near.gradient_norm, held[1]], axis=1
        ),
        "residual": np.full(c, found.residual),
    }
    for name, values in (("parameters", E), ("outputs", F / np.sqrt(risk.n))):
        out |= {f"{name}.{field}": value for field, value in _distances(values)._asdict().items()}
    return out | ({"estimates": E} if plan.keep else {})


def _trained(plan, training, start, W, order):
    """`training` of every row of W."""
    block = (
        None if _training._layers(plan.risk) else plan.chunk + 1
    )  # one shape for every chunk, the control first
    return _training.retrain(
        plan.risk,
        training._replace(order=order),
        start,
        W,
        block=block,
        jobs=1,
        progress=False,
        strict=False,
    )


def _distances(E):
    """The Distances of one seed's estimates (1 + p, 6, …), the control first."""
    effect = E[1:] - E[0]

    def norms(values):
        return np.linalg.norm(values, axis=-1)

    def steps(values):
        return norms(values[..., :-1, :] - values[..., 1:, :])

    return Distances(
        steps(E[1:]),
        steps(E[0]),
        steps(effect),
        norms(E[1:, 0] - E[1:, 5]),
        norms(effect[:, 0] - effect[:, 5]),
        norms(E[1:, 3] - E[0, 3]),
    )


def _assembled(results, parts, s, p):
    """Gaps from the blocks that are there."""
    first = next((result for result in results if result), None)
    if first is None:
        return None

    def empty(name, lead, rows, fill=np.nan):
        value = first[name]
        return np.full((*lead, *value.shape[rows:]), fill, dtype=value.dtype)

    each = {
        name: empty(name, (s, p), 1)
        for name in ("measured", "residual", *(["estimates"] if "estimates" in first else []))
    }
    ends = {name: empty(name, (s,), 1) for name in each if name != "residual"}
    fits = {
        "status": empty("status", (s, p + 1), 1, "missing"),
        "gradient_norm": empty("gradient_norm", (s, p + 1), 1),
    }
    sizes = {
        name: empty(
            name, (s,) if name.endswith("control") else (s, p), not name.endswith("control")
        )
        for name in first
        if "." in name
    }
    theta, done = empty("theta", (s,), 0), np.zeros((s, p), dtype=bool)
    for result, (seed, rows) in zip(results, parts):
        if not result:
            continue
        theta[seed], done[seed, rows] = result["theta"], True
        for name in ends:
            each[name][seed, rows], ends[name][seed] = result[name][1:], result[name][0]
        each["residual"][seed, rows] = result["residual"]
        for name, value in fits.items():
            value[seed, rows], value[seed, p] = result[name][1:], result[name][0]
        for name, value in sizes.items():
            value[(seed,) if name.endswith("control") else (seed, rows)] = result[name]
    distances = [
        Distances(*(sizes[f"{name}.{field}"] for field in Distances._fields))
        for name in ("parameters", "outputs")
    ]
    return Gaps(
        *distances, theta, each["measured"], ends["measured"], fits["status"], fits["gradient_norm"], each["residual"],
        each.get("estimates"), ends.get("estimates"), done,
    )  # fmt: skip
