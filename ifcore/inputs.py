"""The door: what comes in is checked here, once.

An error names the argument, what came, and what was needed.
"""

import numbers

import numpy as np


def array(value, name, ndim=None):
    """`value` as a finite float64 array; integers and booleans are converted.

    Raises TypeError where it is not real numbers, ValueError for NaN, infinity or a wrong number
    of axes.
    """
    try:
        given = np.asarray(value)
        if given.dtype.kind not in "biuf":
            raise TypeError
        out = given.astype(np.float64, copy=False)
    except (TypeError, ValueError):
        what = getattr(locals().get("given"), "dtype", type(value).__name__)
        raise TypeError(f"{name} must be an array of real numbers; got {what}") from None
    if ndim is not None and out.ndim != ndim:
        shape = {1: "a vector (n,)", 2: "a matrix (n, d)"}[ndim]
        raise ValueError(f"{name} must be {shape}; got shape {out.shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(out.sum())  # one pass and no copy; a sum can overflow, so look again
    if not finite and not np.isfinite(out).all():
        bad = ~np.isfinite(out)
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{name} must be finite; got {int(bad.sum())} NaN or infinite entries, "
            f"the first at {where}"
        )
    return out


def examples(X, y):
    """A design matrix X (n, d) and targets y (n,) that fit together, n ≥ 1 and d ≥ 1."""
    X, y = array(X, "X", 2), array(y, "y", 1)
    if X.shape[0] == 0 or X.shape[1] == 0:
        raise ValueError(f"X must have at least one row and one column; got shape {X.shape}")
    if len(y) != len(X):
        raise ValueError(f"y must have one entry for each of the {len(X)} rows of X; got {len(y)}")
    return X, y


def weights(value, n, zero=False):
    """Weights as an (m, n) array, and whether a single vector came; None is the whole data, w = 1.

    Raises ValueError for a wrong length, a negative or non-finite weight, or, unless `zero`, a
    vector of zeros.
    """
    w = np.ones(n) if value is None else array(value, "weights")
    if w.ndim not in (1, 2) or w.shape[-1] != n or w.size == 0:
        raise ValueError(f"weights must have shape ({n},) or (m, {n}) with m ≥ 1; got {w.shape}")
    if (w < 0).any():
        where = tuple(int(i) for i in np.argwhere(w < 0)[0])
        raise ValueError(f"weights must be at least 0; got {w[where]:g} at {where}")
    rows = np.atleast_2d(w)
    empty = ~rows.any(axis=1)
    if empty.any() and not zero:
        raise ValueError(
            f"weights must not all be 0; they are in row {int(np.argmax(empty))} of {len(rows)}"
        )
    return rows, w.ndim == 1


def indices(j, n, name="j"):
    """One index or several distinct ones out of range(n), as an integer array of one axis."""
    out = np.atleast_1d(np.asarray(j))
    if out.dtype.kind not in "iu" or out.ndim != 1 or out.size == 0:
        raise TypeError(f"{name} must be an index or a list of indices; got {j!r}")
    if (out < 0).any() or (out >= n).any():
        wrong = int(out[(out < 0) | (out >= n)][0])
        raise IndexError(f"{name} must lie in 0, …, {n - 1}; got {wrong}")
    if len(np.unique(out)) < len(out):
        raise ValueError(f"{name} must not repeat an index; got {out.tolist()}")
    return out


def index(j, n, name="j"):
    """One index out of range(n), as an int."""
    found = indices(j, n, name)
    if np.ndim(j):
        raise TypeError(f"{name} must be one index; got {j!r}")
    return int(found[0])


def orders(value, default, m):
    """Seeds of batches for m fits, (m,): one each, one for all, or None for the default."""
    out = np.full(m, default) if value is None else np.asarray(value)
    out = np.full(m, out) if out.ndim == 0 else out
    if out.shape != (m,) or out.dtype.kind not in "iu" or (out < 0).any():
        given = default if value is None else value
        raise ValueError(f"order must be {m} integers at least 0; got {given!r}")
    return out


def nonnegative(value, name):
    """A finite number at least 0."""
    out = array(value, name)
    if out.ndim != 0 or out < 0:
        raise ValueError(f"{name} must be a number at least 0; got {value!r}")
    return float(out)


def positive(value, name):
    """A finite number above 0."""
    out = nonnegative(value, name)
    if not out > 0:
        raise ValueError(f"{name} must be positive; got {value!r}")
    return out


def count(value, name):
    """An integer at least 1."""
    if not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be an integer at least 1; got {value!r}")
    if not 1 <= value < np.inf or int(value) != value:
        raise ValueError(f"{name} must be an integer at least 1; got {value!r}")
    return int(value)


def right_sides(v, d):
    """Right-hand sides v (d,) or (d, r) as an array."""
    v = array(v, "v")
    if v.ndim not in (1, 2) or len(v) != d or not v.size:
        raise ValueError(f"v must be ({d},) or ({d}, r); got {v.shape}")
    return v


def epsilon(value, t=None):
    """Weights ε(t) at times t, in [0, 1]; what leaves it by rounding is moved to its end."""
    out = np.asarray(value)
    if out.dtype.kind not in "biuf":
        raise TypeError(f"a weight ε must be a real number; got {value!r}")
    wrong = ~((out >= -1e-12) & (out <= 1 + 1e-12))  # NaN too
    if wrong.any():
        first = np.unravel_index(np.argmax(wrong), out.shape)
        where = "" if t is None else f" at t = {np.broadcast_to(t, out.shape)[first]:.9g}"
        raise ValueError(f"a weight ε must lie in [0, 1]; got {out[first]:.9g}{where}")
    return np.clip(out.astype(float), 0, 1)
