"""The statements of Figure 1, N1 and N2, on the stored tables and on small fresh runs."""

import os

import numpy as np
import pytest

from ifbook import decomposition
from ifbook.decomposition import CONVEX, NETWORKS, SETTLED, TASKS, chosen, interval
from ifcore.gaps import NAMES
from ifcore.runs import Run

PARTS = decomposition.stored()
STOPPED = [part for part in PARTS if part[0] not in CONVEX]


def five(rows, kind=""):
    return np.stack([rows[gap + kind] for gap in NAMES], -1)


def middle(values):
    return np.median(values, (0, 1))


def three_to_two(sizes):
    """log of the first three gaps together over the other two together."""
    return np.log(sizes[..., :3].sum(-1) / sizes[..., 3:].sum(-1))


@pytest.mark.parametrize("name, n", STOPPED)
def test_figure_one_the_first_three_gaps_together_are_the_longer_ones(name, n):
    """For every network, size and stop, with the interval; and so are those of the effect."""
    for steps in TASKS[name].steps:
        rows, _ = chosen(PARTS[name, n][0], steps, "base")
        for kind in ("", ", effect"):
            assert interval(middle, three_to_two(five(rows, kind)))[1] > 0, (steps, kind)


@pytest.mark.parametrize("name, n", [part for part in PARTS if part[0] in CONVEX])
def test_n2_at_a_convex_minimum_two_of_the_first_three_are_0(name, n):
    rows, still = chosen(PARTS[name, n][0], SETTLED, "base")
    size = np.median(rows["shift"])
    assert five(rows)[..., [0, 2]].max() < 1e-3 * size
    assert five(still).max() < 1e-3 * size
    assert (rows["linearization"] > 0).all()


PAIRS = {"MLP, Concrete": "linear, Concrete", "MLP, digits": "softmax, digits"}


@pytest.mark.parametrize(
    "name, n", [(a, n) for a, b in PAIRS.items() for c, n in PARTS if c == a and (b, n) in PARTS]
)
def test_n1_a_network_misses_more_of_retraining_than_the_linear_model(name, n):
    linear, _ = chosen(PARTS[PAIRS[name], n][0], SETTLED, "base")
    for steps in TASKS[name].steps:
        network, _ = chosen(PARTS[name, n][0], steps, "base")
        ratio = network["missed"] / network["change"] * linear["change"] / linear["missed"]
        assert interval(middle, np.log(ratio))[1] > 0, steps


def sizes(name):
    return [n for task, n in PARTS if task == name]


@pytest.mark.parametrize(
    "name", [name for name in ("logistic, cancer", *NETWORKS) if len(sizes(name)) > 2]
)
def test_the_exponents_are_those_of_the_theory_or_steeper(name):
    """Of the effect, the shift, the linearisation; the control falls more slowly than the effect.

    The theory bounds them for a curvature that does not change; within 0.3, its intervals.
    """
    p = min(TASKS[name].sizes[n] for n in sizes(name))
    x = np.log(sizes(name)) - np.mean(np.log(sizes(name)))
    plans = [chosen(PARTS[name, n][0], 100, "base") for n in sizes(name)]

    def slope(v):
        return np.log(middle(v)) @ x / (x @ x)

    def common(values):
        return np.stack([v[:, :p] for v in values], -1)

    effect = common([five(rows, ", effect")[..., :3].sum(-1) for rows, _ in plans])
    shift = common([rows["shift"] for rows, _ in plans])
    linear = common([rows["linearization"] for rows, _ in plans])
    still = [five(still)[:, :3].sum(-1) for _, still in plans]
    control = common([np.tile(v[:, None], (1, p)) for v in still])
    for values, most in ((effect, -0.7), (shift, -0.7), (linear, -1.4)):
        assert interval(slope, values)[1] < most
    assert interval(lambda c, e: slope(c) - slope(e), control, effect)[1] > 0


def test_the_statements_come_out_of_a_small_fresh_run():
    """A start that no table has, three removals of a hundred examples, 300 steps."""
    rng = np.random.default_rng(entropy := int.from_bytes(os.urandom(4)))
    seed, removed = int(rng.integers(100, 10_000)), rng.choice(20, 3, replace=False).tolist()
    run, missed = Run(jobs=1, progress=False), {}
    for name, steps in (("MLP, Concrete", 300), ("linear, Concrete", SETTLED)):
        one, found = decomposition.decomposed(name, 100, [seed], removed, [steps], run)
        rows = decomposition.rows(one, found, [seed], removed)
        base = [i for i, v in enumerate(rows["variant"]) if v == "base"][:-1]
        column = {key: np.array([values[i] for i in base]) for key, values in rows.items()}
        missed[name] = np.median(column["missed"] / column["change"])
        ratio = np.median(three_to_two(five(column)[None]))
        if name in NETWORKS:
            assert ratio > 0, entropy
        else:
            assert five(column)[:, [0, 2]].max() < 1e-6 * column["shift"].max(), entropy
    assert missed["MLP, Concrete"] > missed["linear, Concrete"], entropy
