"""The error of an influence estimate in five gaps, from retraining down to the solver's answer.

For a removed point, or group, with weights w (0 there, 1 elsewhere), six estimates of θ(w), each
the next one's neighbour:

0. cold-start retraining, from the θ₀ of θˢ with the training of θˢ;
1. warm-start retraining, from θˢ;
2. the damped response, argmin R_w(θ) + (damping/2)‖θ − θˢ‖², by Newton's method: with nothing
   removed from θˢ, and from there with a removal; or a training towards it from θˢ;
3. the proximal Bregman response (PBRF), whose optimum is θˢ where nothing is removed;
4. its linearization θˢ + (G + damping·I)⁻¹ Σ_{i removed} ∇ℓ_i(θˢ), exactly;
5. the same by an iterative solver.

A gap is the difference of two neighbours: e_k − e_{k+1}. The five add up to e_0 − e_5, and their
norms to an upper bound of its norm. The control is the same with nothing removed, w = 1, and the
removal's effect an estimate minus its own control.
Source: Bae et al. (2022); `damping` is n times the notes' λ.
"""

from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import numpy as np

from ifcore import inputs, solvers
from ifcore.identity import Code, code, digest, fingerprint, told_apart
from ifcore.proximal import damped, pbrf
from ifcore.response import minimise
from ifcore.risk import Risk
from ifcore.runs import ALONE, HELD, Fit, NotConverged, Run
from ifcore.training import Training, retrain
from ifcore.weights import groups

NAMES = ("warm-start", "proximity", "non-convergence", "linearization", "solver")
FITS = ("cold start", "warm start", "damped response", "PBRF")


@dataclass(frozen=True)
class Protocol:
    """How the six estimates are made."""

    training: Training  #: of θˢ and of the cold start
    damping: float  #: positive, of the book's R_w
    warm: Training | None = None  #: of the warm start, by default that of θˢ; batches in θˢ's order
    #: of the damped response, from θˢ, in θˢ's order; None: Newton's method, to the minimiser
    near: Training | None = None
    #: the seed of an order of the batches for the cold start and its control; None: θˢ's order,
    #: and the control of the cold start is θˢ
    reorder: int | None = None
    #: True: go on from where training ends to the minimiser of R_w by Newton's method, cold and
    #: warm; θˢ is then stationary, and the control 0
    converged: bool = False
    solver: str = "lissa"  #: or "cg"
    solver_options: dict = field(default_factory=dict)  #: what `solvers.solve` takes for it
    #: options of `proximal.damped`, `pbrf`, and of Newton's method with `converged`
    proximal: dict = field(default_factory=dict)
    memory: int = solvers.MEMORY  #: bytes, for G and its factor
    chunk: int = 8  #: removals in one task, which trains the control beside them

    def checked(self, n):
        """The same for n examples. Raises TypeError, ValueError where it cannot be."""
        for training in (self.training, self.warm, self.near):
            if training is not None and not isinstance(training, Training):
                raise TypeError(f"training must be a Training; got {type(training).__name__}")
        inputs.choice(self.solver, ("cg", "lissa"), "solver")
        inputs.flag(self.converged, "converged")
        training, warm = self.training.checked(n), (self.warm or self.training).checked(n)
        near = self.near and self.near.checked(n)
        reorder = None if self.reorder is None else inputs.integer(self.reorder, "reorder")
        if reorder is not None and (training.batch is None or self.converged):
            raise ValueError(
                "reorder is for a training by batches that stops where it ends; got "
                f"batch={training.batch}, converged={self.converged}"
            )
        damping, chunk = inputs.positive(self.damping, "damping"), inputs.count(self.chunk, "chunk")
        rest = self.converged, self.solver, self.solver_options, self.proximal, self.memory
        return Protocol(training, damping, warm, near, reorder, *rest, chunk)

    def configuration(self):
        """What the results depend on, plainly."""
        parts = self.training, self.warm, self.near
        plain = {
            name: part and part.plain() for name, part in zip(("training", "warm", "near"), parts)
        }
        return asdict(self) | plain


class Distances(NamedTuple):
    """Sizes of the gaps for s seeds and p removals.

    In the parameters, ‖·‖, or in the outputs, root of the mean over the examples of ‖·‖².
    """

    gaps: np.ndarray  #: (s, p, 5), in the order of NAMES
    control: np.ndarray  #: (s, 5), the same gaps with nothing removed
    effect: np.ndarray  #: (s, p, 5), the gaps of the removal's effect
    direct: np.ndarray  #: (s, p), from the first estimate to the last; at most the gaps' sum
    effect_direct: np.ndarray  #: (s, p), the same for the removal's effect
    shift: np.ndarray  #: (s, p), from θˢ to PBRF


class Gaps(NamedTuple):
    """What `decompose` found for s seeds and p removals; NaN where it is not done."""

    parameters: Distances
    outputs: Distances
    theta: np.ndarray  #: (s, d), θˢ of each seed
    measured: np.ndarray  #: (s, p, 6, …), `measure` at the six estimates
    measured_control: np.ndarray  #: (s, 6, …), and at their controls
    status: np.ndarray  #: (s, p + 1, 4), of the fits FITS, the control last; "missing": not done
    gradient_norm: np.ndarray  #: (s, p + 1, 4), their relative gradient norms
    #: (s, p), ‖(G + damping·I)x − v‖/‖v‖ of the solver's answer, the largest of a chunk
    residual: np.ndarray
    estimates: np.ndarray | None  #: (s, p, 6, d), and
    controls: np.ndarray | None  #: (s, 6, d), with keep=True
    done: np.ndarray  #: (s, p): False where the result is partial


def decompose(risk, protocol, start, remove, *, order=None, measure=None, keep=False, run=Run()):
    """The five gaps of every removal and seed.

    risk : a `Risk`, with a loss convex in the output. protocol : a `Protocol`, or a list of some
    with one `chunk`: what two of them have in common is computed once. start : (s, d), θ₀ of every
    seed (`Network.initial`), or (d,) for one. remove : p removals, each an index or a list of
    them. order : (s,), seeds of the batches' order in the place of the training's.
    measure : θ ↦ an array, kept for every estimate; by default risk.losses, whose entry j is the
    own loss of point j. keep : True to return the estimates themselves. run : a `Run`.

    Returns Gaps, or a list of them for a list. Raises NotConverged (`reached` is the whole Gaps),
    and what the estimators raise; after an error or an interrupt its `partial` is the Gaps of what
    is done, a list for a list.
    Memory: 8 (1.5 c n (a + 6 K + 2) + 7 c d + 8 s p n + 2 n K d + 3 d²) bytes for c removals in a
    chunk and the measure of n numbers.
    """
    inputs.kind(risk, Risk, "risk")
    inputs.kind(run, Run, "run")
    inputs.flag(keep, "keep")
    protocols, single = _protocols(protocol, risk.n)
    starts = np.atleast_2d(inputs.array(start, "start"))
    if starts.ndim != 2 or starts.shape[1] != risk.d or not len(starts):
        raise ValueError(
            f"start must be (s, {risk.d}) with s ≥ 1, or ({risk.d},); got {starts.shape}"
        )
    W, s = groups(risk.n, remove), len(starts)
    empty = ~W.any(axis=1)
    if empty.any():
        raise ValueError(
            f"remove must leave an example; removal {int(np.argmax(empty))} takes all {risk.n}"
        )
    orders = inputs.orders(order, protocols[0].training.order, s)
    measure, size = _measure(measure, risk, starts[0]), protocols[0].chunk
    chunks = [slice(i, min(i + size, len(W))) for i in range(0, len(W), size)]
    parts = [(seed, rows) for seed in range(s) for rows in chunks]
    plan = _Plan(risk, protocols, measure, keep)
    blocks = [(plan, starts[seed], int(orders[seed]), W[rows]) for seed, rows in parts]

    def configuration():
        fits = digest(starts, orders, W)
        own = {"measure": told_apart(measure, risk.d), "measure code": Code(measure)}
        own |= {"keep": keep, "fits": fits}
        if single:
            return fingerprint(risk) | protocols[0].configuration() | own
        each = {f"protocol {i}": one.configuration() for i, one in enumerate(protocols)}
        return fingerprint(risk) | each | own

    def assembled(results):
        every = [
            _assembled([r and _of_protocol(r, i) for r in results], parts, s, len(W))
            for i in range(len(protocols))
        ]
        return every[0] if single else every

    try:
        results = run.each(_task, blocks, configuration)
    except BaseException as error:
        if hasattr(error, "partial"):
            error.partial = assembled(error.partial)
        raise
    found = assembled(results)
    if run.strict:
        for one in [found] if single else found:
            _require(one, len(W))
    return found


def _protocols(given, n):
    """The Protocols, checked for n examples, and whether it was one, not a list."""
    single = isinstance(given, Protocol)
    listed = [given] if single else given
    if not isinstance(listed, list) or not all(isinstance(one, Protocol) for one in listed):
        raise TypeError(f"protocol must be a Protocol, or a list of them; got {given!r}")
    if not listed:
        raise ValueError("protocol must be a Protocol, or a list of one at least; got []")
    checked = [one.checked(n) for one in listed]
    first = checked[0]
    for one in checked:
        if (one.chunk, one.training.order) != (first.chunk, first.training.order):
            raise ValueError(
                "protocols of one list must have one chunk and one order; got "
                f"{first.chunk}, {first.training.order} and {one.chunk}, {one.training.order}"
            )
    return checked, single


def spread(values, low=0.1, high=0.9):
    """Quantiles (3, …) over all seeds and removals, the first two axes: low, median, high.

    values : (s, p, …). low, high : in [0, 1]. NaN, what is not done, is left out. Raises TypeError,
    ValueError for inputs that are none.
    Memory: 10 c bytes for c values.
    """
    values = inputs.real(values, "values")
    if values.dtype.kind not in "iuf" or values.ndim < 2 or not values.size:
        raise ValueError(
            f"values must be numbers (s, p, …), s and p ≥ 1; got {values.dtype} {values.shape}"
        )
    low, high = inputs.nonnegative(low, "low"), inputs.nonnegative(high, "high")
    if not low <= high <= 1:
        raise ValueError(f"quantiles need 0 ≤ low ≤ high ≤ 1; got low = {low}, high = {high}")
    rows = values.reshape(-1, *values.shape[2:])
    return np.nanquantile(rows, [low, 0.5, high], axis=0)


def _measure(measure, risk, theta):
    """`measure`, tried at θ."""
    measure = risk.losses if measure is None else inputs.function(measure, "measure")
    found = np.asarray(measure(theta))
    if found.dtype.kind not in "biuf":
        raise TypeError(f"measure must give real numbers; got {found.dtype}")
    return measure


class _Plan(NamedTuple):
    risk: object
    protocols: list
    measure: object
    keep: bool


def _require(found, p):
    bad = np.argwhere(~np.isin(found.status, HELD))
    if len(bad):
        seed, j, fit = (int(i) for i in bad[0])
        which = f"removal {j}" if j < p else "the control"
        raise NotConverged(
            f"{len(bad)} of {found.status.size} fits did not end well; the first, the {FITS[fit]} "
            f"of seed {seed}, {which}, is {str(found.status[seed, j, fit])!r}, its relative "
            f"gradient norm {found.gradient_norm[seed, j, fit]:.1e}",
            found,
        )


def _task(plan, start, order, W):
    """One seed, some removals and the control, which comes first: the arrays of one block.

    Their names begin with the number of the protocol.
    """
    W, made, out = np.vstack([np.ones(plan.risk.n), W]), _Made(), {}
    for i, protocol in enumerate(plan.protocols):
        E, fits, theta, residual = _estimates(plan.risk, protocol, start, order, W, made)
        own = _measured(plan, E, theta)
        converged = "converged", 0.0  # PBRF's control, which is θˢ
        for name, value in (("status", converged[0]), ("gradient_norm", converged[1])):
            columns = [getattr(fit, name) for fit in fits]
            columns[-1] = np.concatenate([[value], columns[-1]])
            own[name] = np.stack(columns, axis=1)
        own["residual"] = np.full(len(W) - 1, residual)
        out |= {f"{i}.{name}": value for name, value in own.items()}
    return out


def _of_protocol(result, i):
    """Those arrays of a block that are protocol i's."""
    return {
        name.partition(".")[2]: value
        for name, value in result.items()
        if name.partition(".")[0] == str(i)
    }


class _Made(dict):
    """What the protocols of one block have made so far, by what it depends on."""

    def once(self, make, *on):
        key = code(on)
        if key not in self:
            self[key] = make()
        return self[key]


def _estimates(risk, protocol, start, order, W, made):
    """The six estimates (1 + c, 6, d) for the rows of W, the control first; the fits FITS; θˢ."""
    options = {"memory": protocol.memory, "strict": False} | protocol.proximal
    damping, converged = protocol.damping, protocol.converged
    by_newton = options if converged else None
    base = protocol.training.plain(), by_newton  # what θˢ depends on

    def trained(training, begin, W, order, damping=0.0):
        block = None if risk.chain() else protocol.chunk + 1  # one shape for every chunk
        return retrain(
            risk, training._replace(order=order), begin, W, damping=damping, block=block, run=ALONE
        )

    def cold(order):
        return made.once(
            lambda: trained(protocol.training, start, W, order), "cold", base[0], order
        )

    def settled():
        return minimise(risk, cold(order).theta, W, method="newton-cg", **options)

    def warm():
        if converged:
            return minimise(risk, theta, W, method="newton-cg", **options)
        return trained(protocol.warm, theta, W, order)

    def near():
        if protocol.near is None:
            control = damped(risk, theta, W[:1], damping, **options)
            begin = control.theta[0] if control.status[0] in HELD else None
            others = damped(risk, theta, W[1:], damping, begin=begin, **options)
            return Fit.joined([control, others])
        return trained(protocol.near, theta, W, order, damping)

    def solved(by):
        return solvers.solve(risk, theta, v, damping=damping, **by)

    first = made.once(settled, "settled", base) if converged else cold(order)
    theta = first.theta[0]
    if first.status[0] not in HELD:
        raise NotConverged(
            f"θˢ is {str(first.status[0])!r} at step {first.steps[0]}, its relative gradient norm "
            f"{first.gradient_norm[0]:.1e}",
            first,
        )
    if protocol.reorder is not None:
        first = cold(protocol.reorder)
    second = made.once(warm, "warm", base, None if converged else protocol.warm.plain())
    third = made.once(near, "near", base, damping, protocol.near and protocol.near.plain(), options)
    bregman = made.once(
        lambda: pbrf(risk, theta, W[1:], damping, **options), "pbrf", base, damping, options
    )
    v = risk.gradients(theta).T @ (1 - W[1:]).T
    exactly = {"memory": protocol.memory}
    exact = made.once(lambda: solved(exactly), "solve", base, damping, exactly)
    by = {"solver": protocol.solver, **protocol.solver_options}
    found = made.once(lambda: solved(by), "solve", base, damping, by)
    still = np.repeat(theta[None], len(W), axis=0)
    E = np.stack([first.theta, second.theta, third.theta, still, still, still], axis=1)
    E[1:, 3:] = np.stack([bregman.theta, theta + exact.x.T, theta + found.x.T], axis=1)
    return E, (first, second, third, bregman), theta, found.residual


def _measured(plan, E, theta):
    """What is kept of the estimates (1 + c, 6, d) around θˢ."""
    risk = plan.risk
    bad = ~np.isfinite(E).all(axis=2)
    E = np.where(bad[:, :, None], theta, E)  # NaN is refused further down
    F = np.array([[risk.outputs(e).reshape(-1) for e in row] for row in E])
    measured = np.array([[plan.measure(e) for e in row] for row in E], dtype=float)
    for values in (E, F, measured):
        values[bad] = np.nan
    out = {"theta": theta, "measured": measured}
    for name, values in (("parameters", E), ("outputs", F / np.sqrt(risk.n))):
        distances = _distances(values)._asdict()
        out |= {f"{name}.{part}": value for part, value in distances.items()}
    return out | ({"estimates": E} if plan.keep else {})


def _distances(E):
    """The Distances of one seed's estimates (1 + p, 6, …), the control first."""
    effect = E[1:] - E[0]

    def norms(values):
        return np.linalg.norm(values, axis=-1)

    def steps(values):
        return norms(values[..., :-1, :] - values[..., 1:, :])

    return Distances(
        gaps=steps(E[1:]),
        control=steps(E[0]),
        effect=steps(effect),
        direct=norms(E[1:, 0] - E[1:, 5]),
        effect_direct=norms(effect[:, 0] - effect[:, 5]),
        shift=norms(E[1:, 3] - E[0, 3]),
    )


def _assembled(results, parts, s, p):
    """Gaps from the blocks that are there; None where none is."""
    first = next((result for result in results if result), None)
    if first is None:
        return None

    def empty(lead, value, fill=np.nan):
        return np.full((*lead, *value.shape), fill, dtype=value.dtype)

    # per seed: theta and the controls; per removal; and with the control as row p
    own = ["measured"] + (["estimates"] if "estimates" in first else [])
    sizes = [name for name in first if "." in name]
    one = {name: empty((s,), first[name][0]) for name in own}
    one |= {name: empty((s,), first[name]) for name in sizes if name.endswith("control")}
    each = {name: empty((s, p), first[name][0]) for name in [*own, "residual"]}
    each |= {name: empty((s, p), first[name][0]) for name in sizes if name not in one}
    fits = {
        "status": empty((s, p + 1), first["status"][0], "missing"),
        "gradient_norm": empty((s, p + 1), first["gradient_norm"][0]),
    }
    theta, done = empty((s,), first["theta"]), np.zeros((s, p), dtype=bool)
    for result, (seed, rows) in zip(results, parts):
        if not result:
            continue
        theta[seed], done[seed, rows] = result["theta"], True
        for name, value in one.items():
            value[seed] = result[name] if "." in name else result[name][0]
        for name, value in each.items():
            value[seed, rows] = result[name][1:] if name in own else result[name]
        for name, value in fits.items():
            value[seed, rows], value[seed, p] = result[name][1:], result[name][0]
    found = one | each
    distances = (
        Distances(*(found[f"{name}.{part}"] for part in Distances._fields))
        for name in ("parameters", "outputs")
    )
    return Gaps(
        *distances,
        theta=theta,
        measured=each["measured"],
        measured_control=one["measured"],
        status=fits["status"],
        gradient_norm=fits["gradient_norm"],
        residual=each["residual"],
        estimates=each.get("estimates"),
        controls=one.get("estimates"),
        done=done,
    )
