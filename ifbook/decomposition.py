"""The error decomposition at full size: its tasks, what is computed of each, and what is kept.

`make full` computes the parts that book/tables lacks, and goes on where it was stopped; the
chapter and the tests read them, and compute small ones anew.
"""

import argparse
import json
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
from distributed import Client
from scipy.linalg import eigh
from torch import nn

from ifbook import tables
from ifbook.environment import ROOT
from ifcore import data, gaps, risk
from ifcore.identity import digest, told_apart
from ifcore.network import Network
from ifcore.runs import HELD, Run
from ifcore.training import Training

SEEDS = 5
STEPS = (100, 300, 1000, 3000)
DECAY = 0.01  # λ̄, the weight decay of the mean risk
DAMPING = 0.01  # λ_d, and a tenth of it in the variant "light"
LIGHT = (300, 3000, "settled")  # where that is computed, which takes Newton's method long
REORDER = 1000  # an order of the batches that none of the seeds has
FOLDER = tables.FOLDER / "decomposition"
SETTLED = "settled"  # in the place of the steps: θˢ is a minimiser, reached by Newton's method


class Task(NamedTuple):
    """A model, its data, and at which sizes, after which trainings it is decomposed."""

    module: object  #: a function that gives the torch module
    loss: object
    examples: object  #: a function that gives X and y, all there are, or of chosen rows
    rate: float
    #: removals by n; the examples of a smaller n are among those of a larger, and the removed are
    #: the first of them, the same for every n
    sizes: dict
    batch: int | None = None
    steps: tuple = (*STEPS, SETTLED)


class NextCharacter(nn.Module):
    """Logits of the next character from the three before it."""

    def __init__(self, alphabet, features=4, hidden=16):
        super().__init__()
        self.embedding = nn.Embedding(alphabet, features)
        self.dense = dense(3 * features, hidden, alphabet)

    def forward(self, x):
        return self.dense(self.embedding(x.long()).flatten(1))


def dense(*sizes):
    """Linear layers with tanh between them."""
    layers = [m for a, b in zip(sizes, sizes[1:]) for m in (nn.Linear(a, b), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


def convolution():
    """Four channels of 3 × 3 on an image of 8 × 8, and logits of ten classes."""
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 10))


def concrete(n):
    X, y = _first(n, data.concrete())
    return data.standardise(X, intercept=False), (y - y.mean()) / y.std()


def cancer(n):
    X, y = _first(n, data.breast_cancer())
    return data.standardise(X, intercept=False), y


def digits(n):
    X, y = _first(n, data.digits())
    return X / 16, y


def images(n):
    X, y = digits(n)
    return X.reshape(-1, 1, 8, 8), y


def pixels(n):
    X, _ = digits(n)
    return X, X


def characters(n):
    """The next character of five sonnets from the three before it."""
    X, y, _ = data.contexts(data.sonnets().lower(), 3)
    return _first(n, (X, y))


def _first(n, dataset):
    """The first n of all examples in an order that is drawn once."""
    X, y = dataset[:2]
    rows = np.random.default_rng(0).permutation(len(y))[:n]
    return X[rows], y[rows]


squared, logistic, softmax = risk.squared, risk.logistic, risk.cross_entropy
ALL, FULL = (20, 20, 20), (20, 20, 10, 10)  # removals, fewer where a fit takes long
CHUNK = 10  # removals that are computed at once
CONCRETE, DIGITS = (100, 300, 1030), (100, 300, 1000, 1797)
BATCHES = {"batch": 100, "steps": (300, 1000, 3000)}


def sizes(n, removals=FULL):
    return dict(zip(n, removals))


TASKS = {
    "linear, Concrete": Task(lambda: nn.Linear(8, 1), squared, concrete, 0.1, sizes(CONCRETE, ALL)),
    "logistic, cancer": Task(
        lambda: nn.Linear(30, 1), logistic, cancer, 0.1, sizes((100, 300, 569), ALL)
    ),
    "softmax, digits": Task(lambda: nn.Linear(64, 10), softmax, digits, 0.3, sizes(DIGITS)),
    "MLP, Concrete": Task(lambda: dense(8, 16, 1), squared, concrete, 0.1, sizes(CONCRETE, ALL)),
    "MLP, digits": Task(lambda: dense(64, 16, 10), softmax, digits, 0.3, sizes(DIGITS)),
    "autoencoder": Task(
        lambda: dense(64, 12, 64), squared, pixels, 0.05, sizes(DIGITS, (10, 5, 3, 2))
    ),
    "convolutional": Task(convolution, softmax, images, 0.3, sizes(DIGITS, (10, 5, 5, 5))),
    "language model": Task(
        lambda: NextCharacter(34), softmax, characters, 0.3, {100: 10, 300: 10, 1000: 3, 3083: 2}
    ),
    "MLP, Concrete, batches": Task(
        lambda: dense(8, 16, 1), squared, concrete, 0.1, sizes((300, 1030)), **BATCHES
    ),
    "MLP, digits, batches": Task(
        lambda: dense(64, 16, 10), softmax, digits, 0.3, sizes((300, 1797), (20, 10)), **BATCHES
    ),
    "MLP 128-128, Concrete": Task(
        lambda: dense(8, 128, 128, 1), squared, concrete, 0.05, {721: 5}, 128, (3000,)
    ),
}
CONVEX = tuple(TASKS)[:3]
NETWORKS = tuple(TASKS)[3:8]


def of_mnist(folder):
    """The published network on a reader's own copy of MNIST; its table is not stored here."""

    def examples(n):
        X, y = _first(n, data.mnist(folder))
        return X / 255, y

    return Task(lambda: dense(784, 128, 128, 10), softmax, examples, 0.1, {1000: 2}, 128, (1000,))


def problem(task, n):
    """The risk of a task for n examples."""
    X, y = task.examples(n)
    return risk.Risk(Network(task.module()), task.loss, X, y, lam=DECAY * n)


def protocols(task, n, steps):
    """The variants of a decomposition after `steps`, by name.

    base : a warm start as long as the training, the damped response by Newton's method.
    light : a tenth of the damping. short : a warm start of a tenth of the steps. trained : the
    damped response trained for as many steps. reordered : the cold start, and its control, with
    the batches in another order.
    """
    settled = steps == SETTLED
    rate, chunk = task.rate, min(CHUNK, task.sizes[n])
    training = Training(2000 if settled else steps, rate, batch=task.batch)
    proximal = {
        "preconditioner": task.examples is not pixels,
        "max_steps": 400,
        "tol": 1e-9,
        "block": chunk,
    }
    base = gaps.Protocol(
        training,
        DAMPING * n,
        converged=settled,
        solver_options={"max_steps": 100},
        proximal=proximal,
        chunk=chunk,
    )
    found = {"base": base}
    if steps in LIGHT:
        found["light"] = replace(base, damping=DAMPING * n / 10)
    if not settled:
        found["short"] = replace(base, warm=training._replace(steps=steps // 10))
        found["trained"] = replace(base, near=training)
    if task.batch:
        found["reordered"] = replace(base, reorder=REORDER)
    return found


def decomposed(name, n, seeds=None, removed=None, steps=None, run=Run()):
    """The risk of a task, and its Gaps by (steps, variant), for all seeds and removals or some."""
    task, seeds = TASKS[name], range(SEEDS) if seeds is None else seeds
    one = problem(task, n)
    plans = {
        (stop, variant): protocol
        for stop in (task.steps if steps is None else steps)
        for variant, protocol in protocols(task, n, stop).items()
    }
    starts = np.array([one.model.initial(seed) for seed in seeds])
    removed = range(task.sizes[n]) if removed is None else removed
    call = list(plans.values()), starts, list(removed)
    found = gaps.decompose(one, *call, order=list(seeds), keep=True, run=run)
    return one, dict(zip(plans, found))


def rows(one, found, seeds, removed):
    """The columns of a table: a row for each plan, seed and removal, and for nothing removed."""
    columns = {name: [] for name in COLUMNS}
    for (steps, variant), gap in found.items():
        for s, seed in enumerate(seeds):
            sizes = np.linalg.norm(one.gradients(gap.theta[s]), axis=1) / one.n
            still = [one.outputs(c) for c in gap.controls[s]]
            for i, j in enumerate([*removed, "none"]):
                if j == "none":
                    own = _control(one, gap, s, steps == SETTLED)
                else:
                    own = (*_removal(one, gap, s, i, j, still), float(sizes[j]), np.nan)
                for name, value in zip(COLUMNS, (steps, variant, seed, j, *own)):
                    columns[name].append(value)
    return columns


COLUMNS = (
    *("steps", "variant", "seed", "removed", "ended"),
    # in the outputs: the gaps, those of the effect, the direct distance, from θˢ to PBRF
    *gaps.NAMES,
    *(f"{name}, effect" for name in gaps.NAMES),
    *("direct", "shift"),
    # the change by retraining, and what the exact estimate misses of it; the same for a warm start
    *("change", "missed", "change, warm", "missed, warm"),
    # the change of the removed example's own loss
    *("own loss, again", "own loss, PBRF", "own loss, estimate"),
    # in the parameters
    *(f"{name}, parameters" for name in gaps.NAMES),
    *(f"{name}, effect, parameters" for name in gaps.NAMES),
    # ‖∇ℓ_j(θˢ)‖/n; where nothing is removed ‖∇R(θˢ)‖/n, and there, at a minimiser, the smallest
    # eigenvalue of the Hessian of R/n
    *("gradient", "smallest eigenvalue"),
)


def _control(one, found, s, settled):
    """What COLUMNS say from `ended` on, of seed s where nothing is removed."""
    left = float(np.linalg.norm(one.gradient(found.theta[s])) / one.n)
    return (
        _ended(found.status[s, -1]),
        *found.outputs.control[s].tolist(),
        *[np.nan] * 14,
        *found.parameters.control[s].tolist(),
        *[np.nan] * 5,
        left,
        smallest_eigenvalue(one, found.theta[s]) / one.n if settled else np.nan,
    )


def smallest_eigenvalue(one, theta):
    """Of the Hessian of R at θ, from the matrix: 0 is one where the risk has a symmetry."""
    H = one.hessian(theta)
    return float(eigh(H, eigvals_only=True, subset_by_index=[0, 0], overwrite_a=True)[0])


def _removal(one, found, s, i, j, still):
    """And of removal i, example j, but for the last; `still` has the controls' outputs."""
    o, e = found.outputs, found.estimates[s, i]
    cold, warm, guess = ((one.outputs(e[k]) - still[k]).ravel() / one.n**0.5 for k in (0, 1, 4))
    sizes = [np.linalg.norm(v) for v in (cold, cold - guess, warm, warm - guess)]
    loss = found.measured[s, i, :, j] - found.measured_control[s, :, j]
    return (
        _ended(found.status[s, i]),
        *o.gaps[s, i].tolist(),
        *o.effect[s, i].tolist(),
        *(float(size) for size in (o.direct[s, i], o.shift[s, i], *sizes)),
        *loss[[0, 3, 4]].tolist(),
        *found.parameters.gaps[s, i].tolist(),
        *found.parameters.effect[s, i].tolist(),
    )


def _ended(statuses):
    """How the fits of a row ended: "well", or the status of the first that did not."""
    return next((str(status) for status in statuses if status not in HELD), "well")


def experiment(name, n):
    """What the numbers of a part depend on; the same on every machine."""
    task = TASKS[name]
    one = problem(task, n)
    X, y = task.examples(n)
    values = np.concatenate([np.ravel(X)[:: max(1, X.size // 5000)], np.ravel(y)[:1000]])
    plans = {
        f"{steps}, {variant}": str(protocol.checked(n).configuration())
        for steps in task.steps
        for variant, protocol in protocols(task, n, steps).items()
    }
    return {
        "task": name,
        "n": n,
        "d": one.d,
        "seeds": SEEDS,
        "removals": task.sizes[n],
        "decay": DECAY,
        "data": told_apart(lambda _: values, 1),
        "losses": told_apart(one.losses, one.d),
        "protocols": digest(json.dumps(plans)),
        "columns": digest(json.dumps(COLUMNS)),
    }


def path(name, n):
    return FOLDER / f"{name.replace(', ', '-').replace(' ', '-').lower()}-{n}"


def read(name, n):
    """The stored columns of a part, and their provenance. Raises Foreign, FileNotFoundError."""
    return tables.read(path(name, n), experiment(name, n), ("steps", "variant", "removed", "ended"))


def stored():
    """The parts that are stored, {(name, n): (columns, provenance)}. Raises Foreign."""
    there = [part for part in parts() if path(*part).with_suffix(".json").exists()]
    return {part: read(*part) for part in there}


def again(name, n, steps, seed, removed):
    """Rows of a stored part, their numbers as they are computed anew, and as they are stored.

    Of one seed, the trainings of `steps` and the removals of a list, all variants: two arrays of
    one shape.
    """
    run = Run(jobs=1, strict=False, progress=False)
    fresh = rows(*decomposed(name, n, [seed], removed, [steps], run), [seed], removed)
    columns, _ = read(name, n)
    numbers = [c for c in COLUMNS if columns[c].dtype.kind == "f" and c != "seed"]
    here = columns["seed"] == seed
    kept = []
    for which in zip(*(fresh[c] for c in ("steps", "variant", "removed"))):
        named = zip(("steps", "variant", "removed"), map(str, which))
        (row,) = np.flatnonzero(here & np.all([columns[c] == value for c, value in named], axis=0))
        kept.append([columns[c][row] for c in numbers])
    return np.array([fresh[c] for c in numbers], dtype=float).T, np.array(kept)


def chosen(columns, steps, variant):
    """Of a part's columns one plan: with a removal, arrays (s, p), and with none, (s,)."""
    plan = (columns["steps"] == str(steps)) & (columns["variant"] == variant)
    if not plan.any():
        raise KeyError(f"no rows of steps {steps!r} and variant {variant!r} in this part")
    none = columns["removed"] == "none"
    removed = {name: v[plan & ~none].reshape(SEEDS, -1) for name, v in columns.items()}
    return removed, {name: v[plan & none] for name, v in columns.items()}


def resampled(of, *values, draws=400):
    """of(*values) of values that are drawn anew, (draws, …): a bootstrap over seeds and removals.

    values : arrays (s, p, …) whose first two axes are the same seeds and removals. Both are drawn
    with replacement, each by itself (Owen, 2007), the same for all of `values`.
    """
    rng, found = np.random.default_rng(0), []
    s, p = values[0].shape[:2]
    for _ in range(draws):
        rows, columns = rng.integers(s, size=s), rng.integers(p, size=p)
        found.append(of(*(v[rows][:, columns] for v in values)))
    return np.array(found)


def interval(of, *values, draws=400, level=0.95):
    """of(*values) and its interval, (3, …), the value first, by `resampled`."""
    tail = (1 - level) / 2
    ends = np.quantile(resampled(of, *values, draws=draws), [tail, 1 - tail], axis=0)
    return np.array([of(*values), *ends])


def parts(names=TASKS):
    """Every task and size, the small ones first."""
    return sorted(((name, n) for name in names for n in TASKS[name].sizes), key=lambda p: p[1])


def compute(name, n, kept, jobs):
    """Computes a part and stores its table; blocks that are done are kept in `kept`."""
    began, removed = time.monotonic(), range(TASKS[name].sizes[n])
    run = Run(kept / path(name, n).name, jobs=jobs, strict=False, name=f"decomposition, {name}")
    one, found = decomposed(name, n, run=run)
    columns = rows(one, found, range(SEEDS), removed)
    tables.write(path(name, n), columns, experiment(name, n), time.monotonic() - began)


@contextmanager
def _workers(address):
    """Those of a Dask cluster, which must have this environment; without an address those here."""
    if address is None:
        yield
    else:
        with Client(address) as client, joblib.parallel_config(backend="dask", client=client):
            yield


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tasks", nargs="*", help="all where none is named")
    parser.add_argument("--jobs", type=int, default=-1, help="processes side by side")
    parser.add_argument("--mnist", type=Path, help="the folder of your own copy of MNIST")
    parser.add_argument("--dask", help="the address of a Dask scheduler, tcp://…, in their place")
    parser.add_argument("--folder", type=Path, default=ROOT / "_build" / "full")
    asked = parser.parse_args()
    if asked.mnist:
        TASKS["MLP 128-128, MNIST"] = of_mnist(asked.mnist)
    if unknown := set(asked.tasks) - set(TASKS):
        parser.error(f"no such task: {', '.join(sorted(unknown))}; there are {'; '.join(TASKS)}")
    todo, foreign = [], []
    for name, n in parts(asked.tasks or TASKS):
        try:
            read(name, n)
        except FileNotFoundError:
            todo.append((name, n))
        except tables.Foreign as error:
            foreign.append(str(error))
    print(f"{len(todo)} parts are to be computed; what is done is kept in {asked.folder}")
    with _workers(asked.dask):
        for i, (name, n) in enumerate(todo):
            print(f"part {i + 1} of {len(todo)}: {name}, n = {n}", flush=True)
            compute(name, n, asked.folder, asked.jobs)
    if foreign:
        sys.exit(
            "\n".join([*foreign, "Kept as they are; delete them, and they are computed again."])
        )


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped; what was computed is kept, and the same command goes on")
