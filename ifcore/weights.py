"""Which weights: examples left out, one weight ε(t) during training, w(t) from step to step.

`Schedule` is the notes' ε(t): 1 up to its first knot, 0 after its last.
"""

from dataclasses import dataclass

import numpy as np

from ifcore import inputs


def without(n, remove):
    """Weights (n,) that leave out examples: 0 there, 1 elsewhere.

    remove : an index, or a list of distinct ones. Raises IndexError for an index outside
    0, …, n − 1, ValueError for one that comes twice, TypeError for what is no index.
    Memory: 8 n bytes.
    """
    w = np.ones(inputs.count(n, "n"))
    w[inputs.indices(remove, n, "remove")] = 0
    return w


def groups(n, remove):
    """Weights (p, n), one row for each of p removals, each an index or a list of them.

    Raises TypeError for what is no list of removals, and as for `without`.
    Memory: 8 p n bytes.
    """
    listed = isinstance(remove, (list, tuple, range))
    if not (listed or getattr(remove, "ndim", 0)) or not len(remove):
        raise TypeError(f"remove must be a list of indices, or of lists of them; got {remove!r}")
    W = np.ones((len(remove), inputs.count(n, "n")))
    for row, part in zip(W, remove if listed else inputs.real(remove, "remove")):
        row[inputs.indices(part, n, "remove")] = 0
    return W


def stepwise(n, j, schedule, dt):
    """w(t) for `training.retrain`: example j has the weight ε((k + ½)dt) at step k, the others 1.

    schedule : a `Schedule`, or a list of m of them for m fits. dt : the time of a step; that of
    training with the rate η on the mean risk is η/n. Returns a function of the step k to weights
    (n,) or (m, n). At the middle of the step, so that a switch between two steps is between them.
    Memory: 8 m n bytes at each step.
    """
    n, dt = inputs.count(n, "n"), inputs.positive(dt, "dt")
    j = inputs.index(j, n)
    many = isinstance(schedule, (list, tuple))
    plans = list(schedule) if many else [schedule]
    if not plans or not all(isinstance(plan, Schedule) for plan in plans):
        raise TypeError(f"schedule must be a Schedule, or a list of them; got {schedule!r}")

    def weights(step):
        w = np.ones((len(plans), n))
        w[:, j] = [float(plan((step + 0.5) * dt)) for plan in plans]
        return w if many else w[0]

    return weights


@dataclass(frozen=True)
class Schedule:
    """ε(t): 1 up to the first knot, 0 after the last, between two a number or a function of t.

    knots : nondecreasing times at least 0. pieces : one fewer, numbers in [0, 1] or vectorised
    smooth functions of t. Called with times of any shape, it gives the weights; at a knot, that to
    the left. As an element of the notes' E_s for the horizon T (almost everywhere) it needs s ≤ the
    first knot, and the last knot ≤ T. Raises ValueError for knots or weights that are none.
    """

    knots: tuple
    pieces: tuple = ()

    def __post_init__(self):
        knots = inputs.array(self.knots, "knots", 1)
        if not len(knots) or (np.diff(knots) < 0).any() or knots[0] < 0:
            raise ValueError(
                f"knots must be a nondecreasing sequence of times at least 0; got {self.knots}"
            )
        given = _sequence(self.pieces, "pieces")
        if len(given) != len(knots) - 1:
            raise ValueError(
                f"{len(knots)} knots need {len(knots) - 1} pieces between them, values or "
                f"functions; got {len(given)}"
            )
        pieces = tuple(p if callable(p) else _piece(p) for p in given)
        object.__setattr__(self, "knots", tuple(float(k) for k in knots))
        object.__setattr__(self, "pieces", pieces)

    @property
    def constant(self):
        """Whether ε is piecewise constant."""
        return not any(map(callable, self.pieces))

    @property
    def values(self):
        """1, the pieces, 0: what ε is before, between and after the knots."""
        return (1.0, *self.pieces, 0.0)

    def __call__(self, t):
        t = inputs.array(t, "t")
        which = np.searchsorted(self.knots, t)
        if self.constant:
            return np.array(self.values)[which]
        out = np.empty(t.shape)
        for i in np.unique(which):
            piece, here = self.values[i], which == i
            out[here] = evaluated(piece, t[here]) if callable(piece) else piece
        return out

    def backwards(self, T):
        """u ↦ ε(T − u) on [0, T], for the adjoint equation."""
        T = inputs.nonnegative(T, "T")
        if not self.knots[-1] <= T:
            raise ValueError(
                f"the horizon T must not lie before the last knot {self.knots[-1]:g}; got {T:g}"
            )
        turned = (
            p if not callable(p) else (lambda u, p=p: p(T - u)) for p in reversed(self.values)
        )
        return Schedule((0.0, *(T - k for k in reversed(self.knots)), T), tuple(turned))


def evaluated(piece, t):
    """ε at times t (k,), for a piece that is a function; what leaves [0, 1] by rounding is moved.

    Raises TypeError, ValueError where it does not give a weight in [0, 1] for each time.
    """
    found = inputs.real(piece(t), "ε(t)")
    if found.shape != t.shape:
        raise ValueError(
            f"ε(t) must give one weight for each time, {t.shape} for t {t.shape}; got {found.shape}"
        )
    return inputs.epsilon(found, t)


def _sequence(values, name):
    """What comes one by one, as a tuple."""
    if isinstance(values, (list, tuple)):
        return tuple(values)
    found = inputs.array(values, name)
    if not found.ndim:
        raise TypeError(f"{name} must be a sequence; got {values!r}")
    return tuple(found)


def _piece(value):
    if np.ndim(value):
        raise ValueError(f"a piece must be a number or a function of t; got {value!r}")
    return float(inputs.epsilon(value))


def step(tau):
    """ε_τ = 1_[0, τ]: the notes' (0.9), Lemma 0.0.2."""
    return Schedule((inputs.nonnegative(tau, "tau"),))


def linear(s, t1):
    """1 up to s, then falling linearly to 0 at t1: the notes' ε_lin, (0.14)."""
    return polynomial(s, t1, 1)


def polynomial(s, t1, degree):
    """1 up to s, then ((t1 − t)/(t1 − s))^degree, and 0 after t1.

    degree : above 0, a whole number where ε is to be smooth.
    """
    s, t1 = inputs.nonnegative(s, "s"), inputs.nonnegative(t1, "t1")
    degree = inputs.nonnegative(degree, "degree")
    if not s < t1 or not degree > 0:
        raise ValueError(
            f"a decay needs s < t1 and degree > 0; got s = {s}, t1 = {t1}, degree = {degree}"
        )
    return Schedule((s, t1), (lambda t: ((t1 - t) / (t1 - s)) ** degree,))


def piecewise(knots, values):
    """1 up to the first knot, values[i] between knots i and i + 1, 0 after the last."""
    return Schedule(knots, _sequence(values, "values"))


def function(f, s, T, breaks=()):
    """1 up to s, then f(t), and 0 after T; f is vectorised, and smooth but at the `breaks`."""
    inputs.function(f, "f")
    s, T = inputs.nonnegative(s, "s"), inputs.nonnegative(T, "T")
    knots = (s, *inputs.array(breaks, "breaks", 1), T)
    return Schedule(knots, (f,) * (len(knots) - 1))
