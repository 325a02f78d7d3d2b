"""Plants faults in copies of `ifcore`, one at a time, and sees which of them the tests find.

What is found is kept in _build/mutants as it comes, as long as neither `ifcore` nor the tests
change: started again, the command goes on. The checkout is only read.
"""

import argparse
import hashlib
import importlib
import json
import os
import random
import signal
import sys
from difflib import unified_diff
from functools import cache
from itertools import chain, zip_longest
from pathlib import Path

import yaml
from copies import ROOT, Copies, Work
from faults import draw, faults
from tqdm import tqdm

KEPT = ROOT / "_build" / "mutants"
ROOMS = sorted(path.stem for path in (ROOT / "ifcore").iterdir() if path.stem[0] not in "_.")
BESIDE = {  # rooms that others call all the time, and the tests of others that do so most
    "inputs": ["weights", "leastsquares", "influence"],
    "jacobian": ["risk"],
    "network": ["jacobian", "risk"],
    "identity": ["runs"],
}
WARM = ["_hypothesis_pytestplugin", "joblib", "mpmath", "nbformat", "numpy", "sympy"]
WARM += ["scipy.integrate", "scipy.linalg", "scipy.optimize", "scipy.stats"]
WARM += ["torch", "torch.func", "torch._dynamo"]


def main():
    asked = _arguments()
    os.environ |= {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sources = {path: (ROOT / path).read_bytes() for room in asked.rooms for path in _files(room)}
    every = {room: _faults(room, sources) for room in asked.rooms}
    drawn = _drawn(every, sources, asked)
    for name in WARM:
        importlib.import_module(name)
    kept = Kept(KEPT / "results.jsonl")
    with Copies(KEPT, asked.jobs) as copies:
        clean = _clean(asked.rooms, copies, kept)
        _plant(drawn, clean, copies, kept)
    listed = yaml.safe_load((Path(__file__).with_name("equivalent.yml")).read_text("utf-8")) or []
    report = "\n".join(_report(every, drawn, clean, kept, listed, sources))
    (KEPT / "report.txt").write_text(report + "\n", encoding="utf-8")
    print(report)


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rooms", nargs="*", help="all of them where none is named")
    parser.add_argument("--count", type=int, default=320, help="faults, evenly over the rooms")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="side by side")
    asked = parser.parse_args()
    if unknown := set(asked.rooms) - set(ROOMS):
        parser.error(f"no such room: {', '.join(sorted(unknown))}; there are {', '.join(ROOMS)}")
    asked.rooms = asked.rooms or ROOMS
    return asked


class Kept:
    """A table of results by key in a file that grows by a line at a time."""

    def __init__(self, path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("a+", encoding="utf-8")
        self.file.seek(0)
        lines = self.file.read().split("\n")
        if lines[-1]:
            self.file.write("\n")  # it was stopped within a line
        self.found = dict(json.loads(line) for line in lines[:-1] if line.endswith("]"))

    def put(self, key, outcome):
        self.found[key] = outcome
        self.file.write(json.dumps([key, outcome]) + "\n")
        self.file.flush()


# what is drawn ------------------------------------------------------------------------------


def _files(room):
    whole = ROOT / "ifcore" / room
    paths = sorted(whole.glob("*.py")) if whole.is_dir() else [whole.with_suffix(".py")]
    return [path.relative_to(ROOT).as_posix() for path in paths]


def _faults(room, sources):
    """All faults of a room; its files are ifcore/room.py, or ifcore/room/part.py."""
    found = []
    for path in _files(room):
        module = [part for part in Path(path).with_suffix("").parts[1:] if part != "__init__"]
        found += faults(path, ".".join(module), sources[path])
    return found


def _drawn(every, sources, asked):
    """Faults by room, evenly; the order of rooms does not matter to what one gives."""
    share, more = divmod(asked.count, len(every))
    return {
        room: draw(found, sources, share + (i < more), random.Random(f"{asked.seed} {room}"))
        for i, (room, found) in enumerate(every.items())
    }


# what is run --------------------------------------------------------------------------------


def _folders(room):
    folders = [room, *BESIDE.get(room, []), "hostile"]
    return [folder for folder in folders if (ROOT / "tests" / folder).is_dir()]


@cache
def _digest(room):
    """Of the package and the tests that a fault of the room meets."""
    tests = ROOT / "tests"
    folders = [ROOT / "ifcore", *(tests / folder for folder in _folders(room))]
    files = chain(tests.glob("*.py"), *(folder.rglob("*.*") for folder in folders))
    total = hashlib.sha256((ROOT / "pyproject.toml").read_bytes())
    for path in sorted(files):
        if path.is_file() and path.suffix != ".pyc":
            total.update(path.read_bytes())
    return total.hexdigest()[:16]


def _key(room, fault):
    return f"{_digest(room)} {fault.path} {fault.start} {fault.end} {fault.text}"


def _clean(rooms, copies, kept):
    """By room, the tests without a fault: seconds of each and in all, and those that fail.

    They run twice: the second time in the order in which faults will meet them.
    """
    keys = {room: _digest(room) for room in rooms}
    todo = [room for room in rooms if keys[room] not in kept.found]
    first = {}
    works = (Work(room, _folders(room), 3600) for room in todo)
    for work, outcome in tqdm(copies.map(works), "tests, timed", len(todo)):
        first[work.room] = outcome
    works = (Work(room, _folders(room), 3600, first[room]["seconds"]) for room in todo)
    for work, outcome in tqdm(copies.map(works), "tests, in order", len(todo)):
        if outcome["code"] not in (0, 1):
            sys.exit(f"the tests of {work.room} do not run without a fault: {outcome['code']}")
        outcome["failed"] = sorted({*outcome["failed"], *first[work.room]["failed"]})
        kept.put(keys[work.room], outcome)
    return {room: kept.found[keys[room]] for room in rooms}


def _plant(drawn, clean, copies, kept):
    """Each fault that is not in `kept`, one of each room by turns."""
    turns = chain(*zip_longest(*([(room, fault) for fault in drawn[room]] for room in drawn)))
    todo = [turn for turn in turns if turn and _key(*turn) not in kept.found]
    works = (
        Work(
            room,
            _folders(room),
            limit=20 + 3 * clean[room]["took"],
            seconds=clean[room]["seconds"],
            but=clean[room]["failed"],
            fault=fault,
        )
        for room, fault in todo
    )
    with tqdm(total=len(todo), desc="faults") as bar:
        survived = 0
        for work, outcome in copies.map(works):
            survived += outcome["code"] == 0
            bar.set_postfix(survived=survived)
            bar.update()
            kept.put(_key(work.room, work.fault), outcome | {"seconds": {}})


# what is said -------------------------------------------------------------------------------


def _report(every, drawn, clean, kept, listed, sources):
    """Lines: the faults that nobody found, what is wrong with the lists, a table by room."""
    known = {_name(**entry) for entry in listed}
    table, doubts = [], []
    for room, chosen in drawn.items():
        codes = {fault: kept.found[_key(room, fault)]["code"] for fault in chosen}
        alive = [fault for fault in chosen if codes[fault] == 0]
        unknown = [fault for fault in alive if fault.name not in known]
        late = list(codes.values()).count("late")
        killed = len(chosen) - len(alive)
        table.append((room, len(chosen), killed, late, len(alive) - len(unknown), len(unknown)))
        for fault in unknown:
            yield from _diff(fault, sources[fault.path])
        found = {fault.name for fault in chosen if codes[fault] != 0}
        doubts += [f"listed as equivalent, but found: {name}" for name in sorted(known & found)]
        doubts += [f"fails without a fault, left out: {name}" for name in clean[room]["failed"]]
    there = {fault.name for found in every.values() for fault in found}
    stale = {name for name in known if name[0].split(".")[0] in every} - there
    yield from doubts
    yield from (f"listed as equivalent, but there no more: {name}" for name in sorted(stale))
    yield from _rows(table)


def _rows(table):
    """Killed (late: by the time limit), and the rate among those that are not equivalent."""
    form = "{:>12} {:>8} {:>8} {:>8} {:>12} {:>10} {:>8}"
    yield form.format("room", "faults", "killed", "(late)", "equivalent", "survived", "rate")
    for room, *counts in [*table, ("all", *map(sum, zip(*[row[1:] for row in table])))]:
        rate = counts[1] / max(1, counts[1] + counts[4])
        yield form.format(room, *counts, f"{rate:.1%}")


def _name(function, was, now, why):
    return function, " ".join(was.split()), " ".join(now.split())


def _diff(fault, source):
    before, after = (text.decode().splitlines() for text in (source, fault.planted(source)))
    yield f"{fault.path}:{fault.line} in {fault.function}"
    yield from unified_diff(before, after, f"a/{fault.path}", f"b/{fault.path}", lineterm="", n=2)
    yield ""


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("stopped; what was found is kept, and the same command goes on")
