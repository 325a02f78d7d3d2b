"""Stored tables: what took hours, as numbers with where they come from.

A table is a compressed CSV file, and beside it a JSON file with its provenance. It is read only if
it belongs to what is asked for, and holds what was written.
"""

import csv
import gzip
import hashlib
import io
import json
import platform
import subprocess
import time
import zlib
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ifbook.environment import BOOK, ROOT
from ifcore.identity import differences

FOLDER = BOOK / "tables"
LIBRARIES = ("numpy", "scipy", "torch")


class Foreign(ValueError):
    """A stored table that is damaged, or not of the experiment that is asked for."""


def write(path, columns, experiment, seconds, **beside):
    """`columns`, lists of one length by name, to path.csv.gz; what they are of to path.json.

    experiment : what the numbers depend on, {name: text or number}. seconds : by the clock, of the
    last run that computed. beside : further provenance by name, or other than what is found here.
    Raises ValueError for columns of unequal length.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"the columns of {path.name} must be of one length; got {lengths}")
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(columns)
    table.writerows(zip(*(map(_text, column) for column in columns.values())))
    content = out.getvalue().encode()
    about = {
        "experiment": experiment,
        "content": _digest(content),
        "commit": commit(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "processor": processor(),
        "finished": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": round(seconds),
        **beside,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".csv.gz").write_bytes(gzip.compress(content, mtime=0))
    path.with_suffix(".json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n")


def read(path, experiment, text=()):
    """The columns of path.csv.gz, as arrays, and its provenance.

    text : the columns that are text although they may look like numbers.

    Raises FileNotFoundError, and Foreign where it is damaged, was changed by hand, or is of
    another experiment than that of this code.
    """
    packed = path.with_suffix(".csv.gz").read_bytes()
    try:
        content = gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise Foreign(f"{path.name}.csv.gz is damaged: {error}") from error
    try:
        about = json.loads(path.with_suffix(".json").read_text("utf-8"))
        stored, digest = about["experiment"], about["content"]
    except (ValueError, KeyError, TypeError) as error:
        raise Foreign(f"the provenance of {path.name} is damaged: {error!r}") from error
    if digest != _digest(content):
        raise Foreign(
            f"{path.name}.csv.gz is not what was computed: its digest is {_digest(content)}, its "
            f"provenance says {digest}"
        )
    if changes := differences(stored, experiment):
        raise Foreign(f"{path.name} is of another experiment: {changes}")
    header, *rows = csv.reader(io.StringIO(content.decode()))
    kinds = {name: np.array if name in text else _column for name in header}
    return {name: kinds[name](values) for name, values in zip(header, zip(*rows))}, about


def _text(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _column(values):
    try:
        return np.array(values, dtype=float)
    except ValueError:
        return np.array(values)


def _digest(content):
    return hashlib.sha256(content).hexdigest()[:16]


def commit():
    """The commit that computes, with a + where files differ from it; "" outside a checkout."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def processor():
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
