"""Semivalues of a game: exact by all of its coalitions, Shapley values by random orders too."""

from math import comb, log10
from typing import NamedTuple

import numpy as np

from ifcore import inputs
from ifcore.identity import Code, digest
from ifcore.runs import Run

LARGEST = 20  # points whose 2ⁿ coalitions are asked for, one by one
BLOCK = 2**12  # coalitions asked for at once
IN_A_ROW = 6  # coalitions that are near the full value, before an order is left
SAME = 1e-9  # of the larger value, by which two answers to one question may differ
SHOWN = 8  # points of a coalition that a message names


def semivalues(value, n, sizes):
    """φ_j = Σ_s sizes_s · mean over S of s points without j of v(S + j) − v(S): (n,), exact.

    value : a game, W (m, n) of 0 and 1 ↦ (m,). n : points, up to 20, for all 2ⁿ coalitions are
    asked for, 4096 at a time. sizes : (n,), the probability that j joins 0, …, n − 1 points, at
    least 0 with the sum 1: uniform for Shapley's value, all on n − 1 for leave-one-out, binomial
    C(n − 1, s)/2ⁿ⁻¹ for Banzhaf's.

    Raises ValueError for n above 20, with how many coalitions that would be; for a value of another
    shape, one that is not finite, with its coalition, or one that changes when asked for twice: the
    full and the empty coalition are, and may differ by 1e-9 of the larger.
    Source: Shapley (1953), for the uniform sizes.

    Memory, for c = 2ⁿ coalitions, beside what `value` takes: 8 (2 c + 4 b n) bytes, with
    b = min(c, 2¹²).
    """
    n = inputs.count(n, "n")
    if n > LARGEST:
        raise ValueError(
            f"n must be at most {LARGEST}, for all 2ⁿ coalitions are asked for; got {n}, with "
            f"{_power(n)} of them. permutation_shapley estimates Shapley values from some of them"
        )
    share = _sizes(sizes, n) / [comb(n - 1, s) for s in range(n)]
    ends(value, n)
    v = _all_values(value, n)
    share = share[np.bitwise_count(np.arange(2 ** (n - 1)))]  # of each S, j's own bit cut out
    out = np.empty(n)
    for j in range(n):
        without, joined = np.moveaxis(v.reshape(-1, 2, 2**j), 1, 0)
        out[j] = share @ (joined - without).ravel()
    return out


def shapley(value, n):
    """Shapley values of a game, (n,), exact by all 2ⁿ coalitions: `semivalues`, uniform in size.

    Their sum is v(N) − v(∅). Source: Shapley (1953); for data, Ghorbani and Zou (2019).
    Memory: as for `semivalues`.
    """
    n = inputs.count(n, "n")
    return semivalues(value, n, np.full(min(n, LARGEST), 1 / n))


class Sampled(NamedTuple):
    """Shapley values from random orders."""

    values: np.ndarray  #: (n,), means of the contributions
    errors: np.ndarray  #: (n,), their standard errors
    evaluations: int  #: coalitions whose value was asked for, the empty and the full one once
    truncated: float  #: the share of the contributions that were taken for 0


def permutation_shapley(value, n, permutations, *, seed=0, tol=None, block=64, run=Run()):
    """Shapley values as means of what each point adds in random orders, with standard errors.

    value : a game, as for `semivalues`, asked for one coalition of each order of a block at once.
    permutations : how many orders, at least 2. seed : order k is that of the seeds (seed, k), so
    that the values depend neither on blocks nor on the backend, if the value of a coalition does
    not depend on those beside it. block : orders in a block. run : a `Run`; its folder needs a name
    for a `value` that does not show its code. Returns Sampled.
    tol : an order is left once abs(v(N) − v(S)) ≤ tol abs(v(N) − v(∅)) for six coalitions in a row,
    and the contributions behind are 0, which biases the values by what they would have been; None:
    never, and the sum of the values is v(N) − v(∅).

    Raises ValueError as `semivalues`, but for n; BadCache. Source: Castro et al. (2009); Ghorbani
    and Zou (2019), whose code leaves an order at the sixth in a row, within a share of v(N) itself.

    Memory, for p permutations, beside what `value` takes: 24 p n bytes.
    """
    inputs.kind(run, Run, "run")
    n, permutations = inputs.count(n, "n"), inputs.count(permutations, "permutations")
    seed, block = inputs.integer(seed, "seed"), inputs.count(block, "block")
    tol = None if tol is None else inputs.nonnegative(tol, "tol")
    if permutations < 2:
        raise ValueError(f"permutations must be at least 2, for an error; got {permutations}")
    first = ends(value, n)
    starts = range(0, permutations, block)
    orders = [range(a, min(a + block, permutations)) for a in starts]
    blocks = [(value, n, seed, some, first, tol) for some in orders]

    def configuration():
        own = {"n": n, "seed": seed, "tol": tol, "permutations": permutations, "block": block}
        return own | {"ends": digest([f"{v:.5e}" for v in first.tolist()]), "value": Code(value)}

    parts = run.each(_contributions, blocks, configuration)
    lengths = np.concatenate([part["lengths"] for part in parts])
    each = np.concatenate([part["contributions"] for part in parts])
    return Sampled(
        each.mean(0),
        each.std(0, ddof=1) / permutations**0.5,
        2 + int(np.minimum(lengths, n - 1).sum()),
        1 - float(lengths.sum()) / (permutations * n),
    )


def _contributions(value, n, seed, which, first, tol):
    """What each point adds in some orders (m, n), and how many of them were asked for, (m,)."""
    orders = np.array([np.random.default_rng([seed, k]).permutation(n) for k in which])
    m, (empty, full) = len(orders), first
    path, W, near = np.full((m, n + 1), full), np.zeros((m, n)), np.zeros(m, int)
    path[:, 0], lengths, active = empty, np.full(m, n), np.arange(m)
    for s in range(1, n):
        W[active, orders[active, s - 1]] = 1
        path[active, s] = asked(value, W[active])
        if tol is not None:
            close = np.abs(full - path[:, s]) <= tol * abs(full - empty)
            near = np.where(close, near + 1, 0)
            left = active[near[active] >= IN_A_ROW]
            path[left, s:], lengths[left] = path[left, s, None], s
            active = np.setdiff1d(active, left)
        if not active.size:
            break
    out = np.empty((m, n))
    np.put_along_axis(out, orders, np.diff(path), 1)
    return {"contributions": out, "lengths": lengths}


def asked(value, W):
    """value(W), (m,) finite numbers. Raises TypeError, ValueError."""
    found = inputs.real(value(W.copy()), "what value gives")
    if found.shape != (len(W),):
        raise ValueError(
            f"value must give one number for each coalition, ({len(W)},) for W {W.shape}; got "
            f"shape {found.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(found))
    if bad.size:
        raise ValueError(
            f"value must be finite; got {found[bad[0]]} for the coalition {members(W[bad[0]])}"
        )
    return found.astype(float)


def ends(value, n):
    """v(∅) and v(N), which must stay as they are when asked for again. Raises ValueError."""
    inputs.function(value, "value")
    W = np.vstack([np.zeros(n), np.ones(n)])
    first, again = asked(value, W), asked(value, W)
    moved = np.abs(again - first)
    if (moved > SAME * np.abs(first).max()).any():
        i = int(np.argmax(moved))
        raise ValueError(
            f"value must give the same when asked twice; for the coalition {members(W[i])} it gave "
            f"{first[i]:.9g}, then {again[i]:.9g}"
        )
    return first


def members(w):
    """A coalition in words."""
    points = np.flatnonzero(w).tolist()
    if len(points) in (0, len(w)):
        return "of all points" if points else "of no points"
    more = f", … ({len(points)} of {len(w)})" if len(points) > SHOWN else ""
    return f"of {', '.join(map(str, points[:SHOWN]))}{more}"


def _power(n):
    """2ⁿ in words."""
    return f"{2**n:,}" if n < 100 else f"more than 10^{int(n * log10(2))}"


def _sizes(sizes, n):
    sizes = inputs.array(sizes, "sizes", 1)
    if len(sizes) != n or (sizes < 0).any() or abs(sizes.sum() - 1) > 1e-12:
        raise ValueError(
            f"sizes must be n = {n} numbers at least 0 with the sum 1; got {len(sizes)}, the least "
            f"{sizes.min(initial=np.inf):g}, with the sum {sizes.sum():.15g}"
        )
    return sizes


def _all_values(value, n):
    """v of all 2ⁿ coalitions; point j is in those whose number has bit j."""
    v = np.empty(2**n)
    for first in range(0, len(v), BLOCK):
        numbers = np.arange(first, min(first + BLOCK, len(v)))
        W = ((numbers[:, None] >> np.arange(n)) & 1).astype(float)
        v[numbers] = asked(value, W)
    return v
