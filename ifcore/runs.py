"""What a computation that takes long gives back, and how it is run.

One result of every fit (`Fit`), one error for what did not converge (`NotConverged`), one object
for the folder, the jobs, the progress and what is strict (`Run`). Blocks of work go through joblib,
and are kept on disk as they come: a killed run resumes, and what is partial says so.
"""

import json
import numbers
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import threadpoolctl
import torch
from tqdm import tqdm

from ifcore import inputs
from ifcore.identity import Opaque, differences, digest, source, text

# what NumPy and zipfile raise on a damaged file
CORRUPT = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)
HELD = ("converged", "trained")  # the statuses of a fit that ended well


class BadCache(ValueError):
    """A folder of results that are corrupt, of another configuration, or of code that is not known.

    path : the file, or the folder.
    """

    def __init__(self, message, path=None):
        super().__init__(message)
        self.path = path


class NotConverged(RuntimeError):
    """What stopped short of what was asked for; `reached` is the whole result as far as it got."""

    def __init__(self, message, reached=None):
        super().__init__(message)
        self.reached = reached


class Fit(NamedTuple):
    """What every fit gives, for m fits; a single one is without the first axis."""

    theta: np.ndarray  #: (m, d); NaN where it ran into NaN
    gradient_norm: np.ndarray  #: (m,), ‖∇‖ over a scale that each fit states; NaN where not finite
    steps: np.ndarray  #: (m,)
    status: np.ndarray  #: (m,), "converged" and "trained" where it ended well
    curvature: np.ndarray | None = None  #: (m,), the least pᵀHp/‖p‖² met on the last step, or NaN
    states: tuple = ()  #: states of a training, where they were asked for

    def first(self):
        """The first of m fits, without the axis."""
        parts = (None if part is None else part[0] for part in self[:5])
        return Fit(*parts, tuple(state.fits(0) for state in self.states))

    @classmethod
    def joined(cls, fits):
        """Many fits as one, along the first axis."""
        columns = list(zip(*fits))
        parts = [None if c[0] is None else np.concatenate(c) for c in columns[:5]]
        return cls(*parts, tuple(states[0].joined(states) for states in zip(*columns[5])))

    def require(self, strict, named="fit", why=""):
        """This result; where `strict`, raises NotConverged if a fit did not end well.

        named : what a fit is called; why : for index i, what is said beside it.
        """
        status = np.atleast_1d(self.status)
        bad = np.flatnonzero(~np.isin(status, HELD))
        if not strict or not bad.size:
            return self
        i = int(bad[0])
        steps, norm = (np.atleast_1d(part)[i] for part in (self.steps, self.gradient_norm))
        raise NotConverged(
            f"{bad.size} of {len(status)} fits did not end well; the first, {named} {i}, is "
            f"{str(status[i])!r} after {steps} steps, its relative gradient norm {norm:.1e}"
            + (why(i) if callable(why) else why),
            self,
        )


class Run(NamedTuple):
    """How a computation is run: where it is kept, by how many, and what it does if a fit fails.

    folder : where each block of results is kept once it is there, so that the same call goes on
    after a kill; None keeps nothing. jobs : as for joblib.Parallel, whose backend is this machine's
    cores, or what `joblib.parallel_config` names, such as a Dask cluster. progress : True for a
    bar, False for none, None for one on a terminal. strict : True raises NotConverged where a fit
    did not end well; False returns it with its status. name : stands for the code of the model, the
    loss and the measure where the folder is to hold it; None for the code itself, with the values
    that it uses, which a compiled function does not show.
    """

    folder: str | Path | None = None
    jobs: int = -1
    progress: bool | None = None
    strict: bool = True
    name: str | None = None

    def each(self, function, blocks, configuration):
        """What `function` gives for each of `blocks`, tuples of arguments: dicts of arrays.

        Each runs on one thread, so that its bits are the same anywhere. configuration : a function
        that gives {name: value} of all that the results depend on; called where there is a folder.
        Raises BadCache, and what a block raises, or the backend: its `partial` then holds the
        blocks, None where not done.
        """
        if not isinstance(self.jobs, numbers.Integral) or self.jobs == 0:
            raise ValueError(f"jobs must be an integer other than 0; got {self.jobs!r}")
        inputs.flag(self.strict, "strict")
        if self.progress is not None:
            inputs.flag(self.progress, "progress")
        results, cache = [None] * len(blocks), None
        if self.folder is not None:
            cache = _Cache(Path(self.folder), self._plain(configuration()))
            results = [cache.read(i) for i in range(len(blocks))]
        missing = [i for i, result in enumerate(results) if result is None]
        try:
            with self._bar(len(blocks), len(missing)) as bar:
                for i, result in self._computed(function, blocks, missing):
                    results[i] = result
                    if cache is not None:
                        cache.write(i, result)
                    bar.update()
        except BaseException as error:
            done = sum(result is not None for result in results)
            kept = "" if cache is None else f", kept in {cache.folder}: the same call goes on there"
            error.add_note(f"The result is partial: {done} of {len(blocks)} blocks are done{kept}.")
            error.partial = results
            raise
        return results

    def _plain(self, configuration):
        """The same as strings; code as its digest, or as this run's name."""
        try:
            return {name: text(value, self.name) for name, value in configuration.items()}
        except Opaque as error:
            raise BadCache(
                f"{error} cannot be told from another, and results kept in {self.folder} might be "
                "its; give the run a name that stands for this code: Run(…, name=…)",
                self.folder,
            ) from error

    def _bar(self, total, missing):
        disable = None if self.progress is None else not self.progress
        return tqdm(total=total, initial=total - missing, unit="block", disable=disable)

    def _computed(self, function, blocks, missing):
        if self.jobs == 1 or len(missing) < 2:
            return (_one(function, i, blocks[i]) for i in missing)
        calls = (joblib.delayed(_one)(function, i, blocks[i]) for i in missing)
        return joblib.Parallel(n_jobs=self.jobs, return_as="generator_unordered")(calls)


ALONE = Run(jobs=1, progress=False, strict=False)  # inside a block of another run


def _one(function, i, block):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpoolctl.threadpool_limits(1):
            return i, function(*block)
    finally:
        torch.set_num_threads(before)


def _content(result):
    return digest(*(part for name in sorted(result) for part in (name, result[name])))


class _Cache:
    def __init__(self, folder, configuration):
        self.folder = folder
        configuration = configuration | {"source": source()}
        self.key = digest(json.dumps(configuration, sort_keys=True))
        path = folder / "configuration.json"
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            text = json.dumps(configuration, indent=1).encode()
            self._replace(path, lambda file: file.write(text))
            return
        try:
            there = json.loads(path.read_bytes())
            if not isinstance(there, dict):
                raise ValueError(f"it must hold names and values; got {there!r}")
        except (ValueError, RecursionError) as error:
            raise BadCache(
                f"{path} is corrupt ({error}); delete the folder, or give another one", path
            ) from error
        if changes := differences(there, configuration):
            raise BadCache(
                f"{folder} holds results of another configuration: {changes}. "
                "Give another folder, or delete it",
                path,
            )

    def read(self, i):
        path = self._path(i)
        if not path.exists():
            return None
        try:
            stored = np.load(path, allow_pickle=False)
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise ValueError("it is no .npz file")
            with stored:
                result = {name: stored[name] for name in stored.files}
            key, content = str(result.pop("key")), str(result.pop("content"))
            if content != _content(result):
                raise ValueError("its arrays are not those that were kept")
        except CORRUPT as error:
            raise BadCache(
                f"{path} is corrupt ({error}); delete it, and its block is computed again", path
            ) from error
        if key != self._key(i):
            raise BadCache(
                f"{path} is of another configuration or block, {key}, and this one is "
                f"{self._key(i)}; delete it",
                path,
            )
        return result

    def write(self, i, result):
        marks = {"key": self._key(i), "content": _content(result)}
        self._replace(self._path(i), lambda file: np.savez(file, **marks, **result))

    def _key(self, i):
        return f"{self.key}-{i}"

    def _path(self, i):
        return self.folder / f"block-{i:05d}.npz"

    def _replace(self, path, write):
        """Written beside, then moved into place: a file is whole or not there."""
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        with open(beside, "wb") as file:
            write(file)
        os.replace(beside, path)
