"""The door: what comes in is checked here, once, and leaves it as plain float64 arrays.

An error names the argument, what came, and what was needed. What carries more than numbers is
refused where the rest would be lost: a mask, labels in another order, an imaginary part.
"""

import inspect
import numbers
import warnings

import numpy as np

WHOLE = 2**53  # up to here every integer is a float64
MOST = 2**63  # what an index can count


def array(value, name, ndim=None, infinite=False):
    """`value` as a float64 array, its rows together, that may be written to.

    Lists, arrays, tensors, series and frames of integers, booleans or floats. No copy where it is
    such an array already. infinite : whether ±∞ will do. Raises TypeError where it is not real
    numbers, or is masked or sparse; ValueError for NaN, infinity, an integer above 2⁵³ or a wrong
    number of axes.
    """
    given = real(value, name)
    if given.dtype.kind in "iu" and given.size and max(-int(given.min()), int(given.max())) > WHOLE:
        raise ValueError(f"{name} must hold integers up to 2⁵³, beyond which float64 loses digits")
    with np.errstate(over="ignore", invalid="ignore"):
        out = np.require(given, np.float64, ["C", "A", "W"])
        out = out.copy() if min(out.strides, default=0) < 0 else out  # of one entry, turned
        finite = np.isfinite(out.sum())  # one pass and no copy; a sum can overflow, so look again
    if ndim is not None and out.ndim != ndim:
        shape = {0: "a number", 1: "a vector (n,)", 2: "a matrix (n, d)"}[ndim]
        raise ValueError(f"{name} must be {shape}; got shape {out.shape}")
    bad = np.zeros(0) if finite else np.isnan(out) if infinite else ~np.isfinite(out)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(
            f"{name} must be finite; got {int(bad.sum())} NaN or infinite entries, "
            f"the first at {where}"
        )
    return out


def real(value, name):
    """`value` as a NumPy array of real numbers, of whatever type and layout."""
    if np.ma.is_masked(value):
        raise TypeError(
            f"{name} must not be masked; got {np.ma.count_masked(value)} masked entries. Leave "
            "their rows out, or fill them in"
        )
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        raise TypeError(
            f"{name} must be dense; got a {type(value).__name__}. .toarray() makes it so"
        )
    value = _moved(value, name) if hasattr(value, "detach") else value
    try:
        given = np.asarray(value)
        if given.dtype == object and _kinds(value) <= set("biuf"):
            given = value.to_numpy(dtype=np.float64)  # a frame whose columns differ in type
    except (TypeError, ValueError, RuntimeError):
        given = None
    if given is None or given.dtype.kind not in "biuf":
        objects = given is None or given.dtype == object
        what = type(value).__name__ if objects else given.dtype
        words = given is not None and given.size and isinstance(given.flat[0], (str, bytes))
        raise TypeError(
            f"{name} must be an array of real numbers; got {what}"
            + (" of strings. Encode them as numbers, classes as 0, …, K − 1" if words else "")
        ) from None
    return given


def _moved(tensor, name):
    """A tensor as an array, without its graph; said where it comes from another device."""
    if tensor.is_sparse or tensor.is_quantized:
        raise TypeError(f"{name} must be dense, of real numbers; got a {tensor.type()}")
    if tensor.device.type == "meta":
        raise TypeError(f"{name} must hold values; got a tensor on the device meta, which has none")
    if tensor.device.type != "cpu":
        warn(f"{name} is on {tensor.device}; a copy is moved to the CPU")
    tensor = tensor.detach().cpu().resolve_conj()
    return tensor.numpy() if tensor.dtype.itemsize > 2 else tensor.double().numpy()


def _kinds(frame):
    """The kinds of types of a frame's columns; that of an object for what is no frame."""
    types = getattr(frame, "dtypes", None)
    return {getattr(kind, "kind", "O") for kind in getattr(types, "array", [types])}


def labels(value):
    """The labels of the rows of a series or frame; None for what has none."""
    index = getattr(value, "index", None)
    return index if hasattr(index, "equals") else None


def same_labels(one, other, names):
    """That two sets of labels, where both are there, agree in their order. Raises ValueError."""
    if one is None or other is None or one.equals(other):
        return
    first, second = names
    places = (i for i, (a, b) in enumerate(zip(one, other)) if a != b)
    i = next(places, min(len(one), len(other)))
    a, b = (f"{rows[i]}" if i < len(rows) else "nothing" for rows in (one, other))
    raise ValueError(
        f"{first} and {second} must have the same labels in the same order; at row {i} they have "
        f"{a} and {b}. Align them, or pass arrays to combine them by position"
    )


def nested(function, value):
    """`function` of an array, or of each in a tuple or dict of them, as the same structure."""
    if isinstance(value, dict):
        return {key: nested(function, part) for key, part in value.items()}
    if isinstance(value, tuple) and not all(map(np.isscalar, value)):
        return tuple(nested(function, part) for part in value)
    return function(value)


def leaves(value):
    """The arrays of a nested value, as a list."""
    found = []
    nested(found.append, value)
    return found


def examples(X, y, names=("X", "y")):
    """A design matrix X (n, d) and targets y (n,) that fit together, n ≥ 1 and d ≥ 1."""
    same_labels(labels(X), labels(y), names)
    X, y = array(X, names[0], 2), array(y, names[1], 1)
    if X.shape[0] == 0 or X.shape[1] == 0:
        raise ValueError(
            f"{names[0]} must have at least one row and one column; got shape {X.shape}"
        )
    if len(y) != len(X):
        raise ValueError(
            f"{names[1]} must have one entry for each of the {len(X)} rows of {names[0]}; got "
            f"{len(y)}"
        )
    return X, y


def weights(value, n, zero=False, rows=None, name="weights"):
    """Weights as an (m, n) array, and whether a single vector came; None is the whole data, w = 1.

    rows : the examples' labels, with which those of a series must agree. Raises ValueError for a
    wrong length, a negative or non-finite weight, or, unless `zero`, a vector of zeros.
    """
    w = np.ones(n) if value is None else array(value, name)
    same_labels(rows, labels(value) if w.ndim == 1 else None, ("the data", name))
    if w.ndim not in (1, 2) or w.shape[-1] != n or w.size == 0:
        raise ValueError(f"{name} must have shape ({n},) or (m, {n}) with m ≥ 1; got {w.shape}")
    if (w < 0).any():
        where = tuple(int(i) for i in np.argwhere(w < 0)[0])
        raise ValueError(f"{name} must be at least 0; got {w[where]:g} at {where}")
    rows = np.atleast_2d(w)
    empty = ~rows.any(axis=1)
    if empty.any() and not zero:
        raise ValueError(
            f"{name} must not all be 0; they are in row {int(np.argmax(empty))} of {len(rows)}"
        )
    return rows, w.ndim == 1


def indices(j, n, name="j"):
    """One index or several distinct ones out of range(n), as an integer array of one axis."""
    try:
        out = np.atleast_1d(real(j, name))
    except TypeError:
        out = np.empty(0)
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


def rows(value, n):
    """Rows out of range(n), which may repeat: a slice, a mask (n,), an index or a list of them."""
    if isinstance(value, slice):
        return value
    try:
        out = np.atleast_1d(real(value, "rows"))
    except TypeError:
        out = np.empty(0)
    if out.dtype.kind == "b" and out.shape == (n,):
        out = np.flatnonzero(out)
    if out.dtype.kind not in "iu" or out.ndim != 1 or out.size == 0:
        raise TypeError(f"rows must be a slice, a mask ({n},) or a list of indices; got {value!r}")
    if (out < 0).any() or (out >= n).any():
        wrong = int(out[(out < 0) | (out >= n)][0])
        raise IndexError(f"rows must lie in 0, …, {n - 1}; got {wrong}")
    return out.astype(np.int64)


def whole(value):
    """Whether the numbers came as integers."""
    return real(value, "X").dtype.kind in "iu"


def orders(value, default, m):
    """Seeds of batches for m fits, (m,): one each, one for all, or None for the default."""
    out = np.full(m, default) if value is None else real(value, "order")
    out = np.full(m, out) if out.ndim == 0 else out
    if out.shape != (m,) or out.dtype.kind not in "iu" or (out < 0).any():
        given = default if value is None else value
        raise ValueError(f"order must be {m} integers at least 0; got {given!r}")
    return out


def kind(value, of, name):
    """A value of a class. Raises TypeError for another."""
    if not isinstance(value, of):
        raise TypeError(f"{name} must be a {of.__name__}; got {type(value).__name__}")
    return value


def function(value, name):
    """What can be called. Raises TypeError."""
    if not callable(value):
        raise TypeError(f"{name} must be a function; got {value!r}")
    return value


def flag(value, name):
    """True or False, and nothing that only counts as one of them. Raises TypeError."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False; got {value!r}")
    return bool(value)


def choice(value, among, name, more=""):
    """One of some words, or None where it is one of them. Raises ValueError."""
    if not (value is None or isinstance(value, str)) or value not in among:
        *first, last = map(repr, among)
        raise ValueError(f"{name} must be {', '.join(first)} or {last}{more}; got {value!r}")
    return value


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
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be an integer at least 1; got {value!r}")
    if not 1 <= value < np.inf or int(value) != value:
        raise ValueError(f"{name} must be an integer at least 1; got {value!r}")
    if value >= MOST:
        raise ValueError(f"{name} must be an integer below 2⁶³; got {value!r}")
    return int(value)


def integer(value, name):
    """An integer at least 0, such as a seed."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
        raise TypeError(f"{name} must be an integer at least 0; got {value!r}")
    return int(value)


def memory(value):
    """Bytes that may be taken, above 0; infinity sets no bound."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"memory must be a number of bytes above 0; got {value!r}")
    if not value > 0:
        raise ValueError(f"memory must be a number of bytes above 0; got {value!r}")
    return value


def generator(seed):
    """A NumPy Generator, or one that draws the same for the same seed."""
    if isinstance(seed, np.random.Generator):
        return seed
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or seed < 0:
        raise TypeError(f"seed must be an integer at least 0, or a Generator; got {seed!r}")
    return np.random.default_rng(int(seed))


def options(given, function):
    """That keyword options are some of a function's own. Raises TypeError with those there are."""
    parameters = inspect.signature(function).parameters.values()
    known = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "strict"]
    unknown = [name for name in given if name not in (*known, "strict")]
    if unknown:
        raise TypeError(f"options must be among {', '.join(known)}; got {unknown[0]!r}")


def right_sides(v, d):
    """Right-hand sides v (d,) or (d, r) as an array."""
    v = array(v, "v")
    if v.ndim not in (1, 2) or len(v) != d or not v.size:
        raise ValueError(f"v must be ({d},) or ({d}, r); got {v.shape}")
    return v


def epsilon(value, t=None):
    """Weights ε(t) at times t, in [0, 1]; what leaves it by rounding is moved to its end."""
    out = real(value, "a weight ε")
    wrong = ~((out >= -1e-12) & (out <= 1 + 1e-12))  # NaN too
    if wrong.any():
        first = np.unravel_index(np.argmax(wrong), out.shape)
        where = "" if t is None else f" at t = {np.broadcast_to(t, out.shape)[first]:.9g}"
        raise ValueError(f"a weight ε must lie in [0, 1]; got {out[first]:.9g}{where}")
    return np.clip(out.astype(float), 0, 1)


def warn(message):
    """Warns, where the reader's own code called the package."""
    frame, level = inspect.currentframe(), 1
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("ifcore."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def warn_of_rows(rows, statuses, what, more=""):
    """Warns that rows of an answer are NaN, once, with the first of them and why."""
    others = f", and {len(rows) - 1} others" if len(rows) > 1 else ""
    status = str(statuses[0])
    warn(f"example {rows[0]}{others} have no {what}: NaN, with the status {status!r}{more}")
