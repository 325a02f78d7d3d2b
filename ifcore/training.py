"""Training as a reader runs it, for many weight vectors and starts side by side.

What is trained is the mean risk, R_w/n: a step uses the batch's mean of w_i∇ℓ_i(θ), and (λ/n)θ. A
point that is left out keeps its place in the order and counts in the mean, so that every fit sees
the same batches. A step depends on the state before it and on its own number alone: from a `State`
that was kept, a training goes on with the same bits.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch.func import grad

from ifcore import inputs
from ifcore.identity import digest, fingerprint
from ifcore.risk import Risk
from ifcore.runs import Fit, Run

CACHE = 2**21  # bytes of activations in a block of fits: about what a core's own caches hold
EVERY = 10  # steps between two looks at the convergence criterion
FAR = 1e6  # times 1 + ‖θ₀‖ + the first step: a fit that ends further away has diverged
RUNNING = "running"  # the status, in a State, of a fit that goes on
STATUSES = {RUNNING, "converged", "diverged"}  # in a State


class Training(NamedTuple):
    """How a fit is trained; the updates are those of torch.optim.SGD and torch.optim.Adam."""

    steps: int
    rate: float  #: the learning rate, of the mean risk: a number, or one a step, (steps,)
    momentum: float = 0.9  #: for Adam, β₁ (β₂ is 0.999)
    nesterov: bool = True
    optimiser: str = "sgd"  #: or "adam"
    batch: int | None = None  #: examples a step; None is the whole data
    order: int = 0  #: the seed of the order in which batches come, anew in every epoch
    tol: float | None = None  #: stop once ‖∇R_w(θ)‖ ≤ tol · its scale, looked at every tenth step

    def checked(self, n):
        """The same for n examples, its rate as an array. Raises TypeError, ValueError."""
        steps, rate = inputs.count(self.steps, "steps"), inputs.array(self.rate, "rate")
        if rate.shape not in ((), (steps,)) or not (rate > 0).all():
            raise ValueError(
                f"rate must be positive, a number or one for each of {steps} steps; got "
                f"{self.rate!r}"
            )
        if not inputs.nonnegative(self.momentum, "momentum") < 1:
            raise ValueError(f"momentum must lie in [0, 1); got {self.momentum}")
        inputs.flag(self.nesterov, "nesterov")
        inputs.choice(self.optimiser, tuple(UPDATES), "optimiser")
        batch = None if self.batch is None else inputs.count(self.batch, "batch")
        if batch is not None and batch > n:
            raise ValueError(f"batch must be at most n = {n}; got {batch}")
        inputs.integer(self.order, "order")
        if self.tol is not None and (self.batch or not inputs.positive(self.tol, "tol")):
            raise ValueError(
                "tol is for training on the whole data; with a batch the gradient does not vanish"
            )
        return self._replace(steps=steps, rate=rate, batch=batch)

    def rows(self, n, step):
        """The batch of one step, as rows of the n examples; None is the whole data."""
        if self.batch is None:
            return None
        epoch, place = divmod(step, -(-n // self.batch))
        return _permutation(self.order, epoch, n)[place * self.batch : (place + 1) * self.batch]

    def plain(self):
        """The same with a hash of the rate in its place, for a configuration."""
        return self._replace(rate=digest(self.rate))


class State(NamedTuple):
    """Where m fits stand after `step` steps: `retrain` goes on from it as if it had not stopped."""

    step: int
    theta: np.ndarray  #: (m, d)
    moments: np.ndarray  #: (m, k, d): the velocity of SGD, or Adam's two moments; 0 once it ended
    start: np.ndarray  #: (m, d), θ₀, for the damping and for the gradient's scale
    steps: np.ndarray  #: (m,), how many steps a fit took that ended before
    status: np.ndarray  #: (m,), how it ended, or "running"; "converged" holds for the tol it met

    def fits(self, rows):
        """The state of some of the fits, or of one, without the axis."""
        return State(self.step, *(part[rows] for part in self[1:]))

    @classmethod
    def joined(cls, states):
        """Many fits at one step as one state, along the first axis. Raises ValueError."""
        steps = sorted({state.step for state in states})
        if len(steps) != 1:
            raise ValueError(f"states must be one at least, after the same step; got steps {steps}")
        parts = zip(*(state[1:] for state in states))
        return cls(steps[0], *map(np.concatenate, parts))


def sgd(training, step, rate, P, G, moments, spare):
    """One step of torch.optim.SGD, in place: P from the gradient G, which it uses up."""
    velocity, beta = moments[0], training.momentum
    velocity *= beta
    velocity += G
    if training.nesterov:
        G += np.multiply(velocity, beta, out=spare)
    P -= np.multiply(G if training.nesterov else velocity, rate, out=spare)


def adam(training, step, rate, P, G, moments, spare):
    """One step of torch.optim.Adam, in place."""
    (first, second), beta = moments, training.momentum
    first += (1 - beta) * (G - first)
    second *= 0.999
    second += 0.001 * G * G
    size = np.sqrt(second) / np.sqrt(1 - 0.999 ** (step + 1)) + 1e-8
    P -= rate / (1 - beta ** (step + 1)) * first / size


UPDATES = {"sgd": sgd, "adam": adam}
MOMENTS = {"sgd": 1, "adam": 2}


def retrain(
    risk, training, start, weights=None, *, damping=0.0, order=None, block=None, keep=(), run=Run()
):
    """θ after `training` from `start`, on R_w(θ) + (damping/2)‖θ − θ₀‖², many fits side by side.

    risk : a `Risk`. training : a `Training`. start : (d,) or (m, d), θ₀ for a cold start, θˢ for a
    warm one; or a `State` that was kept, from which training.steps are completed with the bits of
    a run that had not stopped. weights : (n,) or (m, n), `weights.without(n, j)` leaves out j; or
    w(t), a function of the step that gives one or the other (`weights.stepwise`).
    order : (m,), seeds of the batches' order in the place of training.order. keep : steps after
    which the states are kept. block : fits in one block; by default what a core's caches hold.
    run : a `Run`.

    A chain of linear layers under this package's losses trains by one batched matrix product a
    layer, and its bits depend neither on the block nor on the backend. Other models go through
    torch.func.vmap, in blocks of one size (8, filled up): there the same call gives the same bits,
    and so does the first fit of a block, whatever stands beside it.

    Returns a Fit, with the states in the order of `keep`. Its gradient_norm is beside
    Σ_i w_i‖∇ℓ_i(θ₀)‖ + ‖λθ₀‖ + ‖b‖, its statuses "trained", with tol "converged" or "unfinished",
    and "diverged" (θ is NaN where it ran into NaN, and steps the step that did). Raises
    NotConverged, BadCache; what interrupts it carries what is done as `partial`, the Fit of each
    block, or None.

    Memory, in each process: 8 (1.5 b (n + c) (a + K + 2) + 2 min(n d, 2²⁴) + 8 m d) bytes for a
    chain of layers, b fits in a block and c examples in a batch, 0 without batches.
    """
    inputs.kind(risk, Risk, "risk")
    inputs.kind(training, Training, "training")
    inputs.kind(run, Run, "run")
    training, damping = training.checked(risk.n), inputs.nonnegative(damping, "damping")
    state, alone = _state(risk, training, start)
    weights, single = _weights(weights, training, risk.n, risk.labels)
    state, weights = _side_by_side(state, weights)
    if not callable(weights):
        risk, state, weights = _sound(risk, state, weights)
    m = len(state.theta)
    orders = inputs.orders(order, training.order, m)
    keep = _kept_steps(keep, state.step, training.steps)
    size = _block(risk, training) if block is None else inputs.count(block, "block")
    parts = _parts(m, size, orders if training.batch else np.zeros(m))
    blocks = []
    for part in parts:
        # one shape for every block, where the bits depend on it
        width = part.stop - part.start if risk.chain() else size
        rows = np.minimum(part.start + np.arange(width), part.stop - 1)
        own = training._replace(order=int(orders[part.start]))
        blocks.append((risk, own, state.fits(rows), _rows(weights, rows), damping, keep))

    def configuration():
        each = [weights]
        if callable(weights):
            each = [digest(weights(step)) for step in range(training.steps)]
        fits = digest(*state, *each, orders, keep)
        options = {"damping": damping, "block": size, "fits": fits}
        return fingerprint(risk) | training.plain()._asdict() | options

    def assembled(results):
        return [r and _fit(r, part.stop - part.start, keep) for r, part in zip(results, parts)]

    try:
        fits = assembled(run.each(_train, blocks, configuration))
    except BaseException as error:
        if hasattr(error, "partial"):
            error.partial = assembled(error.partial)
        raise
    found = Fit.joined(fits)
    diverged, steps = found.status == "diverged", found.steps

    def why(i):
        tol = f", where tol = {training.tol:.0e} was asked for" if training.tol else ""
        mend = f". A smaller rate than {np.max(training.rate):g} may mend it"
        mend = mend if steps[i] else ". An example that counts has no finite gradient there"
        return f" of {training.steps}{tol}{mend if diverged[i] else ''}"

    found = found.first() if single and alone else found
    return found.require(run.strict, why=why)


def _state(risk, training, start):
    """The start as a State of one or m fits, and whether it is a single one."""
    if isinstance(start, State):
        return _continued(risk, training, start)
    given = inputs.array(start, "start")
    if given.ndim not in (1, 2) or given.shape[-1] != risk.d or not given.size:
        raise ValueError(f"start must be ({risk.d},) or (m, {risk.d}); got {given.shape}")
    theta = np.atleast_2d(given)
    moments = np.zeros((len(theta), MOMENTS[training.optimiser], risk.d))
    steps, status = np.zeros(len(theta), dtype=int), np.full(len(theta), RUNNING, "U10")
    return State(0, theta, moments, theta, steps, status), given.ndim == 1


def _continued(risk, training, start):
    """A State that came, checked, with an axis of fits, and whether it had none."""
    step, single = inputs.integer(start.step, "the step of a State"), np.ndim(start.status) == 0
    parts = (np.asarray(part)[None] if single else np.asarray(part) for part in start[1:])
    state, m = State(step, *parts), 1 if single else len(start.status)
    moments, d = (m, MOMENTS[training.optimiser], risk.d), (m, risk.d)
    if state.moments.shape != moments or not step <= training.steps:
        raise ValueError(
            f"start must be a State of moments {moments} after at most {training.steps} steps; "
            f"got {state.moments.shape} after {step}"
        )
    got = state.theta.shape, state.start.shape, state.steps.shape
    if got != (d, d, (m,)) or state.steps.dtype.kind not in "iu":
        raise ValueError(f"start must be a State of theta, start {d} and steps ({m},); got {got}")
    unknown = set(state.status.tolist()) - STATUSES
    if unknown:
        raise ValueError(f"a State's statuses must be of {sorted(STATUSES)}; got {unknown}")
    on = state.status != "diverged"  # what has diverged is NaN
    for name in ("theta", "moments", "start"):
        inputs.array(getattr(state, name)[on], f"the {name} of a State")
    floats = {name: getattr(state, name).astype(float) for name in ("theta", "moments", "start")}
    return state._replace(**floats), single


def _weights(weights, training, n, labels):
    """Weights (1, n) or (m, n), or a function of the step that gives them; are they of one fit?"""
    if not callable(weights):
        return inputs.weights(weights, n, rows=labels)
    if training.tol is not None:
        raise ValueError("tol needs weights that stay; with w(t) the gradient need not vanish")

    def at(step):
        W = weights(step)
        if W is None:
            raise TypeError(f"weights must be a function that returns weights; got None at {step}")
        return inputs.weights(W, n, zero=True)

    first, single = at(0)

    def checked(step):
        W = at(step)[0]
        if W.shape != first.shape:
            raise ValueError(
                f"weights must be of as many fits at each step; got {len(first)} at step 0, and "
                f"{len(W)} at step {step}"
            )
        return W

    return checked, single


def _side_by_side(state, weights):
    """The state and the weights of as many fits as the larger of them has."""
    starts, rows = len(state.theta), len(weights(0) if callable(weights) else weights)
    m = max(starts, rows)
    if {starts, rows} - {1, m}:
        raise ValueError(
            f"start and weights must hold as many fits, or one; got {starts} and {rows}"
        )
    every = np.arange(m)
    return state.fits(every % starts), _rows(weights, every % rows)


def _sound(risk, state, weights):
    """The same, where no example that is not finite at the start reaches a fit.

    The fits in which one counts have diverged, and those whose start it spoils where it counts in
    another fit; in the others its weight is 0.
    """
    points, which = np.unique(state.start, axis=0, return_inverse=True)
    if all(map(risk.is_finite, points)):
        return risk, state, weights
    bad = np.zeros((len(points), risk.n), dtype=bool)
    for row, point in zip(bad, points):
        row[risk.unsound(point)] = True
    bad = bad[which]
    lost = (bad & (weights > 0)).any(1)
    lost |= (bad & (weights[~lost] > 0).any(0)).any(1)
    weights[bad] = 0  # they are rows of the caller's, copied
    status = np.where(lost, "diverged", state.status)
    theta = np.where(lost[:, None], np.nan, state.theta)
    state = state._replace(theta=theta, status=status)
    for point in points[np.unique(which[~lost])]:
        risk = risk.sound(point, weights[~lost].max(0))
    return risk, state, weights


def _rows(weights, rows):
    """The weights of some of the fits."""
    return (lambda step: weights(step)[rows]) if callable(weights) else weights[rows]


def _kept_steps(keep, first, last):
    found = inputs.array(keep, "keep")
    wrong = ~((found >= first) & (found <= last) & (found == np.round(found)))
    if found.ndim > 1 or wrong.any() or isinstance(keep, bool):
        given = found[wrong][0] if found.ndim == 1 else keep
        raise ValueError(f"keep must hold steps from {first} to {last}; got {given}")
    return tuple(int(step) for step in np.atleast_1d(found))


def _parts(m, size, orders):
    """Blocks of at most `size` fits, each of one order."""
    cuts = [0, *(np.flatnonzero(np.diff(orders)) + 1), m]
    starts = ((i, b) for a, b in zip(cuts, cuts[1:]) for i in range(a, b, size))
    return [slice(int(i), int(min(i + size, b))) for i, b in starts]


def _block(risk, training):
    chain = risk.chain()
    if chain is None:
        return 8
    outputs = sum(layer.outputs for layer in chain)
    return max(1, CACHE // (24 * outputs * (training.batch or risk.n)))


@lru_cache(maxsize=2)
def _permutation(order, epoch, n):
    return np.random.default_rng([order, epoch]).permutation(n)


@np.errstate(all="ignore")  # what overflows is found and reported
def _train(risk, training, state, weights, damping, keep):
    """One block of fits, as arrays: those of a Fit, and of the states kept."""
    fits, kept = _Fits(risk, training, state, weights, damping), {}
    for step in range(state.step, training.steps):
        if step in keep:
            kept[step] = fits.state(step)
        rows = training.rows(risk.n, step)
        G = fits.gradient(step, rows)
        fits.look(step, G)
        if not fits.active.any():
            break
        fits.update(step, G)
    last = {step: fits.state(step) for step in keep if step not in kept}
    found = fits.ended()
    for k, step in enumerate(keep):
        each = (kept | last)[step]
        found |= {f"state {k} {name}": getattr(each, name) for name in State._fields[1:]}
    return found


def _fit(result, m, keep):
    """The Fit of the first m rows of what a block gave."""
    states = tuple(
        State(step, *(result[f"state {k} {name}"][:m] for name in State._fields[1:]))
        for k, step in enumerate(keep)
    )
    parts = (result[name][:m] for name in Fit._fields[:4])
    return Fit(*parts, states=states)


class _Fits:
    """A block of fits while they are trained, packed as their engine wants them."""

    def __init__(self, risk, training, state, weights, damping):
        self.risk, self.training, self.damping = risk, training, damping
        self.weights = weights if callable(weights) else None
        self.start, self.theta = state.start, state.theta.copy()
        self.steps, self.status = state.steps.copy(), state.status.astype("U10")
        self.active = self.status == RUNNING
        self.W = weights(0) if callable(weights) else weights
        self.whole = _engine(risk, self.W, risk.n)
        self.engines = {risk.n: self.whole}
        self.P, self.P0 = (self.whole.pack(theta) for theta in (state.theta, state.start))
        self.moments = [self.whole.pack(part) for part in np.moveaxis(state.moments, 1, 0)]
        self.spare, self.decay, self.slope = np.empty_like(self.P), *self._penalty()
        self.rates = np.broadcast_to(training.rate, training.steps)
        self.scale = _scale(risk, state.start, self.W)
        self.advance = UPDATES[training.optimiser]
        if (self.status == "converged").any():
            self._resume(state.step)

    def _penalty(self):
        """(λ + damping)/n, a number or packed like P, and b/n, packed, or None."""
        risk, m = self.risk, len(self.start)

        def packed(each):
            return self.whole.pack(np.tile(each / risk.n, (m, 1)))

        decay = (risk.lam + self.damping) / risk.n
        decay = decay if isinstance(decay, float) else packed(risk.lam + self.damping)
        return decay, None if risk.b is None else packed(risk.b)

    def _resume(self, step):
        """What has met another tolerance than this one, or with other weights, goes on anew."""
        again = self.status == "converged"
        if self.training.tol is not None:
            G = self.whole.unpack(self.gradient(step))
            norm = self.risk.n * _norms(G)
            again &= norm > self.training.tol * self.scale
        self.status[again], self.steps[again] = RUNNING, 0
        self.active |= again

    def gradient(self, step, rows=None):
        """The gradient of the mean risk on the batch `rows`, packed."""
        size = self.risk.n if rows is None else len(rows)
        if size not in self.engines:
            self.engines[size] = _engine(self.risk, self.W, size)
        engine = self.engines[size]
        if self.weights is not None:
            engine.weigh(self.weights(step))
        G = engine.gradient(self.P, rows)
        if np.any(self.decay):
            G += np.multiply(self.P, self.decay, out=self.spare)
        if self.damping:
            G -= np.multiply(self.P0, self.damping / self.risk.n, out=self.spare)
        if self.slope is not None:
            G += self.slope
        return G

    def look(self, step, G):
        """Ends the fits that ran into NaN, or, every tenth step, have met tol."""
        training = self.training
        if not np.isfinite(G.sum()):
            gone = self.active & ~np.isfinite(self.whole.unpack(G)).all(1)
            self._end(gone, step, "diverged", np.nan)
        if training.tol is not None and step % EVERY == 0:
            norm = self.risk.n * _norms(self.whole.unpack(G))
            met = self.active & (norm <= training.tol * self.scale)
            self._end(met, step, "converged", self.whole.unpack(self.P)[met])

    def update(self, step, G):
        self.advance(self.training, step, self.rates[step], self.P, G, self.moments, self.spare)

    def state(self, step):
        theta = self.theta.copy()
        theta[self.active] = self.whole.unpack(self.P)[self.active]
        moments = np.stack([self.whole.unpack(part) for part in self.moments], axis=1)
        moments[~self.active] = 0
        return State(step, theta, moments, self.start, self.steps.copy(), self.status.copy())

    def ended(self):
        """The arrays of a Fit."""
        training, going = self.training, self.active
        self.theta[going] = self.whole.unpack(self.P)[going]
        self.status[going] = "trained" if training.tol is None else "unfinished"
        self.steps[going] = training.steps
        self.P = self.whole.pack(self.theta)
        G = self.whole.unpack(self.gradient(training.steps - 1))
        norm = self.risk.n * _norms(G) / self.scale
        moved = np.linalg.norm(self.theta - self.start, axis=1)
        first = self.rates.max() * self.scale / self.risk.n  # at most, of plain descent
        far = ~(moved <= FAR * (1 + np.linalg.norm(self.start, axis=1) + first))
        self.status[far | ~np.isfinite(norm)] = "diverged"
        if training.tol is not None:
            self.status[(self.status == "unfinished") & (norm <= training.tol)] = "converged"
        return dict(zip(Fit._fields, (self.theta, norm, self.steps, self.status)))

    def _end(self, which, step, status, theta):
        self.steps[which], self.status[which], self.theta[which] = step, status, theta
        self.active &= ~which


def _norms(G):
    """‖G_i‖ of each row, without squares that underflow."""
    size = np.abs(G).max(axis=1, keepdims=True)
    unit = np.where(size > 0, size, 1)
    return unit[:, 0] * np.linalg.norm(G / unit, axis=1)


def _scale(risk, start, W):
    """Σ_i w_i‖∇ℓ_i(θ₀)‖ + ‖λθ₀‖ + ‖b‖ of each fit; 1 where that is 0."""
    out, sizes = np.empty(len(W)), {}
    some = [risk.tensors.subset(rows) for rows in risk.blocks()]
    for i, theta in enumerate(start):
        if (key := theta.tobytes()) not in sizes:
            parts = [part.gradients(torch.from_numpy(theta)) for part in some]
            sizes[key] = torch.cat([part.norm(dim=1) for part in parts]).numpy()
        out[i] = W[i] @ sizes[key] + risk.penalty_size(theta)
    return np.where(out > 0, out, 1)


def _engine(risk, W, size):
    chain = risk.chain()
    return _Mapped(risk.tensors, W) if chain is None else risk.side_by_side(chain, W, size)


class _Mapped:
    """The batch's mean of w_i∇ℓ_i at each row of P (m, d), by torch.func.vmap."""

    def __init__(self, risk, W):
        self.risk = risk
        self.weigh(W)

    def weigh(self, W):
        self.W = torch.tensor(W)

    def gradient(self, P, rows=None):
        risk, W = self.risk, self.W
        if rows is not None:
            risk, W = risk.subset(rows), W[:, rows]
        value = grad(lambda theta, w: w @ risk.losses(theta))
        return risk.each(value)(torch.from_numpy(P), W).numpy() / risk.n

    def pack(self, theta):
        return theta.copy()

    def unpack(self, P):
        return P
