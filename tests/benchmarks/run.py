"""Times the works of the book and stores the ratios: `make benchmarks`.

Works are timed one by one, each method in turn in every round, on one thread. A run that is
stopped goes on where it was; what is complete replaces the tables in book/tables/benchmarks, all
at once. --fresh forgets what a stopped run has kept.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import time
import warnings
from importlib.metadata import version

import numpy as np
import torch
from benchmarks import (
    convex,
    growth,
    longer,
    peers,
    w1_leave_one_out,
    w2_influence,
    w3_retraining,
    w4_flows,
)
from benchmarks.timing import rows

from ifbook import benchmarks, tables
from ifbook.benchmarks import SWEEPS, WORKS
from ifbook.environment import ROOT

KEPT = ROOT / "_build" / "benchmarks"
#: (work, size, the peers that are there) ↦ methods and rounds
METHODS = {
    "W1": lambda size, _: w1_leave_one_out.methods(size),
    "W2": lambda _, there: w2_influence.methods(there),
    "W3": lambda size, _: w3_retraining.methods(size),
    "W4": lambda size, _: w4_flows.methods(size),
    "W5": lambda _, there: w2_influence.one(there, "W5"),
    "product": lambda _, there: w2_influence.one(there, "product"),
    "logistic": lambda _, there: convex.methods(there),
    "self-influence": lambda *_: convex.self_influence(),
    "coalitions": lambda *_: longer.coalitions(),
    "schedules": lambda *_: longer.schedules(),
}


def parts(there):
    """Every part of the run by name: () ↦ its columns."""
    for work, sizes in WORKS.items():
        for k, size in enumerate(sizes):

            def timed(work=work, size=size):
                return rows(work, size, *METHODS[work](size, there))

            yield f"methods-{work}-{k}", timed
    for sweep in SWEEPS:
        yield f"growth-{sweep.replace(' ', '-')}", lambda sweep=sweep: growth.rows(sweep)


def told(name, columns):
    """A line for each method, or for the sweep."""
    if name.startswith("growth"):
        (sweep,) = set(columns["sweep"])
        arrays = {key: np.array(values) for key, values in columns.items()}
        times = benchmarks.grown(arrays, sweep)
        found = benchmarks.exponent(SWEEPS[sweep].sizes, times)
        print(f"{sweep:18s} exponent {found[0]:.2f} [{found[1]:.2f}, {found[2]:.2f}], ", end="")
        print(f"by the count of operations {benchmarks.counted(sweep):.2f}", flush=True)
        return
    for method in dict.fromkeys(columns["method"]):
        mine = [i for i, each in enumerate(columns["method"]) if each == method]
        ratio = statistics.median(columns["ratio"][i] for i in mine)
        error = columns["error"][mine[0]]
        title = f"{columns['work'][0]}, {columns['size'][0]}"
        print(f"{title:34s} {method:28s} × {ratio:10.3g}   error {error:8.1e}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="forget what a stopped run has kept")
    if parser.parse_args().fresh:
        shutil.rmtree(KEPT, ignore_errors=True)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of the peers
    KEPT.mkdir(parents=True, exist_ok=True)
    there, commit, found = peers.ready(), tables.commit(), {"methods": {}, "growth": {}}
    seconds = 0.0
    for name, timed in parts(there):
        path = KEPT / f"{name}.json"
        kept = json.loads(path.read_text("utf-8")) if path.exists() else {}
        if kept.get("commit") != commit or commit.endswith("+") or kept.get("peers") != there:
            start = time.monotonic()
            kept = {"commit": commit, "peers": there, "columns": timed()}
            kept["seconds"] = time.monotonic() - start
            path.write_text(json.dumps(kept), encoding="utf-8")
        told(name, kept["columns"])
        seconds += kept["seconds"]
        table = found[name.partition("-")[0]]
        for column, values in kept["columns"].items():
            table.setdefault(column, []).extend(values)
    libraries = {name: version(name) for name in (*tables.LIBRARIES, "statsmodels")} | there
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads()}
    machine |= {"system": platform.system(), "load": os.getloadavg()[0]}
    for name, columns in found.items():
        about = machine | {"commit": commit, "libraries": libraries}
        tables.write(benchmarks.path(name), columns, benchmarks.experiment(name), seconds, **about)
    shutil.rmtree(KEPT)
    print(f"stored in {benchmarks.FOLDER.relative_to(ROOT)}, after {seconds:.0f} s of timing")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped; what was timed is kept, and the same command goes on")
