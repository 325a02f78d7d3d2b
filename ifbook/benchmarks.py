"""How fast, and against whom: which works are timed, how they are kept, and what is read of them.

`make benchmarks` times them (tests/benchmarks) and stores two tables, methods beside each other
and growth with size; the chapter reads them and times nothing.
"""

from typing import NamedTuple

import numpy as np

from ifbook import tables

FOLDER = tables.FOLDER / "benchmarks"
OURS = "ifcore"  # the method that the ratios are to
PEERS = "statsmodels", "torch.func", "curvlinops", "captum", "dattri"
#: each work and its sizes, in words
WORKS = {
    "W1": ("1,000 × 50", "20,000 × 200"),
    "W2": ("8-64-64-1, n = 1,000",),
    "W3": ("2-3-1, n = 20", "8-32-1, n = 200"),
    "W4": ("constant pieces", "linear pieces"),
    "W5": ("8-64-64-1, n = 1,000",),
    "product": ("8-64-64-1, n = 1,000",),
    "logistic": ("breast cancer, n = 469",),
    "self-influence": ("100,000 × 100",),
    "coalitions": ("n = 10",),
    "schedules": ("n = 20, d = 3",),
}
COLUMNS = ("work", "size", "method", "round", "seconds", "ratio", "error", "memory")
TEXT = "work", "method", "sweep"
GROWN = ("sweep", "size", "round", "seconds", "ratio")


class Sweep(NamedTuple):
    """A work at sizes that differ in one thing."""

    title: str
    sizes: tuple
    operations: object  #: size ↦ the leading operations; None where theory has no count
    limit: float | None  #: the exponent of the largest term as the size grows without end


def dual_operations(n, t, widths, K=1):
    """The dual form by layers: gradients, kernels of nK rows, a factor, what is solved with it."""
    pairs, m, tested = list(zip(widths, widths[1:])), n * K, t * K
    kernels = (n * n + 2 * n * t) * sum(a + K * K * b for a, b in pairs)
    gradients = 2 * (n + t) * (K + 1) * sum(a * b for a, b in pairs)
    return kernels + gradients + m**3 / 3 + m * m * (n + tested) + 2 * m * n * tested


def product_operations(n, widths, K=1):
    """A product from the factors of the layers: with the inputs and with the slopes, each twice."""
    return 4 * n * sum(a * b + K * b for a, b in zip(widths, widths[1:]))


#: what grows, at which sizes, and the count of operations that the chapter derives
SWEEPS = {
    "W1 n": Sweep(
        "leave-one-out, $n$ ($d = 100$)",
        (1000, 2000, 4000, 8000, 16000),
        lambda n: 3 * n * 100**2 + 100**3,
        1,
    ),
    "W1 d": Sweep(
        "leave-one-out, $d$ ($n = 4{,}000$)",
        (50, 100, 200, 400),
        lambda d: 3 * 4000 * d**2 + d**3,
        3,
    ),
    "W2 n": Sweep(
        "influence, dual form, $n$",
        (200, 400, 800, 1600),
        lambda n: dual_operations(n, 100, (8, 64, 64, 1)),
        3,
    ),
    "W2 d": Sweep(
        "influence, dual form, $d$ ($n = 400$)",
        (1377, 4801, 17793, 68353),
        lambda d: dual_operations(400, 100, (8, hidden(d), hidden(d), 1)),
        1,
    ),
    "W2 K": Sweep(
        "influence, dual form, $K$ ($n = 200$)",
        (1, 2, 4, 8),
        lambda K: dual_operations(200, 100, (8, 64, 64, K), K),
        3,
    ),
    "primal d": Sweep(
        "influence, primal form, $d$ ($n = 400$)",
        (153, 433, 1377, 2833),
        lambda d: 400 * d**2 + d**3 / 3 + 2 * 400 * d**2,
        3,
    ),
    "W3 fits": Sweep("retraining, fits", (8, 16, 32, 64), lambda m: m, 1),
    "W3 n": Sweep("retraining, $n$", (100, 200, 400, 800), lambda n: n, 1),
    "W3 d": Sweep(
        "retraining, $d$", (161, 321, 641, 1281), lambda d: 6 * 200 * d + 40 * d, 1
    ),  # fits of 8-h-1
    "W3 K": Sweep(
        "retraining, $K$", (1, 4, 16, 64), lambda K: 6 * 200 * (8 * 32 + 32 * K) + 40 * 33 * K, 1
    ),
    "W4 n": Sweep(
        "flow, $n$",
        (1000, 4000, 16000, 64000),
        lambda n: 2 * n * 4**2 + 50 * 100 * (2 * 5**3 + 2 * 100 * 4**2),
        1,
    ),
    "W4 d": Sweep(
        "flow, $d$", (2, 4, 8, 16), lambda d: 50 * 100 * (2 * (d + 1) ** 3 + 2 * 100 * d**2), 3
    ),
    "W4 plans": Sweep("flow, schedules", (20, 40, 80, 160), lambda m: m, 1),
    "product n": Sweep(
        "one product, $n$",
        (500, 1000, 2000, 4000),
        lambda n: product_operations(n, (8, 64, 64, 1)),
        1,
    ),
    "product d": Sweep(
        "one product, $d$ ($n = 1{,}000$)",
        (1377, 4801, 17793, 68353),
        lambda d: product_operations(1000, (8, hidden(d), hidden(d), 1)),
        1,
    ),
    "product K": Sweep(
        "one product, $K$ ($n = 1{,}000$)",
        (1, 4, 16, 64),
        lambda K: product_operations(1000, (8, 64, 64, K), K),
        2,
    ),
    "decomposition n": Sweep(
        "decomposition, $n$", (100, 200, 400, 800), lambda n: n, 1
    ),  # a start, three removals, 100 steps
    "coalitions": Sweep(
        "exact coalition values, $2^n$", (2**10, 2**11, 2**12, 2**13), lambda c: c, 1
    ),
    "orders n": Sweep("values by random orders, $n$", (8, 16, 32, 64), lambda n: n * n, 2),
    "schedules n": Sweep("optimal schedule, $n$ ($d = 3$)", (100, 1000, 10000, 100000), None, 1),
    "schedules d": Sweep("optimal schedule, $d$ ($n = 20$)", (2, 3, 4, 6), None, None),
}


def hidden(d):
    """The width h of a network 8-h-h-1 of d = h² + 11h + 1 parameters."""
    h = round((np.sqrt(121 + 4 * (d - 1)) - 11) / 2)
    if h * h + 11 * h + 1 != d:
        raise ValueError(f"no network 8-h-h-1 has {d} parameters")
    return h


def experiment(name):
    """What the table depends on: what is timed, at which sizes."""
    if name == "methods":
        return {"columns": " ".join(COLUMNS)} | {w: "; ".join(s) for w, s in WORKS.items()}
    sizes = {s: " ".join(map(str, sweep.sizes)) for s, sweep in SWEEPS.items()}
    return {"columns": " ".join(GROWN)} | sizes


def path(name, folder=None):
    return (FOLDER if folder is None else folder) / name


def read(name, folder=None):
    """The stored columns, and their provenance. Raises Foreign, FileNotFoundError.

    name : "methods", rows of COLUMNS, or "growth", rows of GROWN.
    """
    return tables.read(path(name, folder), experiment(name), TEXT)


def chosen(columns, **those):
    """The rows of a table that have these values, as columns."""
    here = np.all([columns[name] == value for name, value in those.items()], axis=0)
    return {name: values[here] for name, values in columns.items()}


def grown(columns, sweep):
    """The ratios of a sweep, (rounds, sizes), to a matrix product timed in the same round."""
    rows = chosen(columns, sweep=sweep)
    sizes, rounds = SWEEPS[sweep].sizes, np.unique(rows["round"])
    out = np.full((len(rounds), len(sizes)), np.nan)
    which = np.searchsorted(rounds, rows["round"]), np.searchsorted(sizes, rows["size"])
    out[which] = rows["ratio"]
    return out


def slope(sizes, values):
    """The exponent p of a power law c·sizeᵖ: the least-squares line through the logarithms."""
    x = np.log(sizes) - np.mean(np.log(sizes))
    return float(np.log(values) @ x / (x @ x))


def exponent(sizes, times, draws=1000, level=0.95, seed=0):
    """The exponent with which times grow, and its interval: three numbers, the value first.

    times : (rounds, sizes), every size once in each round. The exponent is that of the medians, by
    `slope`; the interval a bootstrap over rounds, each drawn whole, so that what slows down a whole
    round slows down all its sizes. Raises ValueError for fewer than four sizes, or times that are
    not positive.
    """
    times = np.asarray(times, dtype=float)
    if times.ndim != 2 or times.shape[1] != len(sizes) or len(sizes) < 4:
        raise ValueError(f"times must be (rounds, sizes), four sizes at least; got {times.shape}")
    if not (times > 0).all():
        raise ValueError("times must be positive, every size in every round")
    rng, tail = np.random.default_rng(seed), (1 - level) / 2
    which = rng.integers(len(times), size=(draws, len(times)))
    drawn = [slope(sizes, np.median(times[rows], axis=0)) for rows in which]
    ends = np.quantile(drawn, [tail, 1 - tail])
    return np.array([slope(sizes, np.median(times, axis=0)), *ends])


def counted(sweep):
    """The exponent of the count of operations over the sizes of a sweep; NaN where there is none"""
    found = SWEEPS[sweep]
    if found.operations is None:
        return np.nan
    return slope(found.sizes, [float(found.operations(size)) for size in found.sizes])
