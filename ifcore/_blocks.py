"""Blocks of work through joblib, kept on disk as they come: a killed run resumes, and what is partial says so."""

import hashlib
import json
import os
import zipfile
import zlib
from pathlib import Path

import joblib
import numpy as np
import threadpoolctl
import torch
from tqdm import tqdm


class BadCache(ValueError):
    """A folder of results that are corrupt, or from another configuration; `path` is the file."""

    def __init__(self, message, path):
        super().__init__(message)
        self.path = path


def run(function, blocks, configuration, *, folder=None, jobs=-1, progress=None):
    """[function(*block) for block in blocks], each a dict of arrays; each runs on one thread, so that its bits are the same anywhere.

    configuration : {name: value} of all that the results depend on. folder : where each block is kept once it is
    there; blocks that are there are read, not computed. jobs : as for joblib.Parallel, whose backend is this machine's
    cores, or what `joblib.parallel_config` names. progress : True for a bar, False for none, None for one on a terminal.

    Raises BadCache, and what a block raises, or the backend: its `partial` then holds the blocks, None where not done.
    """
    results, cache = [None] * len(blocks), None
    if folder is not None:
        cache = _Cache(Path(folder), configuration)
        results = [cache.read(i) for i in range(len(blocks))]
    missing = [i for i, result in enumerate(results) if result is None]
    jobs = 1 if len(missing) < 2 else jobs
    calls = (joblib.delayed(_one)(function, i, blocks[i]) for i in missing)
    bar = tqdm(
        total=len(blocks),
        initial=len(blocks) - len(missing),
        unit="block",
        disable=None if progress is None else not progress,
    )
    try:
        parallel = (
            {"backend": "sequential"}
            if jobs == 1
            else {"n_jobs": jobs, "return_as": "generator_unordered"}
        )
        with bar:
            for i, result in (
                joblib.Parallel(**parallel)(calls)
                if jobs != 1
                else (call[0](*call[1]) for call in calls)
            ):
                results[i] = result
                if cache is not None:
                    cache.write(i, result)
                bar.update()
    except BaseException as error:
        done = sum(result is not None for result in results)
        kept = (
            "" if cache is None else f", kept in {cache.folder}: the same call goes on from there"
        )
        error.add_note(f"The result is partial: {done} of {len(blocks)} blocks are done{kept}.")
        error.partial = results
        raise
    return results


def digest(*values):
    """A short hash of arrays, numbers and strings."""
    found = hashlib.sha256()
    for value in values:
        value = np.ascontiguousarray(value)
        found.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    return found.hexdigest()[:16]


def fingerprint(risk):
    """What a risk is, for a configuration: its data, and what its model does with them at a fixed θ, to six digits."""
    theta = torch.from_numpy(np.random.default_rng(0).standard_normal(risk.d) / risk.d**0.5)
    losses = [
        f"{loss:.5e}" for loss in risk._some(np.arange(min(risk.n, 64)))._losses(theta).tolist()
    ]
    return {
        "n": risk.n,
        "d": risk.d,
        "lam": risk.lam,
        "data": digest(risk.X.numpy(), risk.y.numpy()),
        "model": digest(losses),
    }


def source():
    """A hash of this package's code and of the libraries it computes with."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return digest(
        np.__version__, torch.__version__, *(path.read_text(encoding="utf-8") for path in files)
    )


def _one(function, i, block):
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpoolctl.threadpool_limits(1):
            return i, function(*block)
    finally:
        torch.set_num_threads(before)


class _Cache:
    def __init__(self, folder, configuration):
        self.folder = folder
        configuration = {name: str(value) for name, value in configuration.items()} | {
            "source": source()
        }
        self.key = digest(json.dumps(configuration, sort_keys=True))
        path = folder / "configuration.json"
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            self._replace(
                path, lambda file: file.write(json.dumps(configuration, indent=1).encode())
            )
            return
        try:
            there = dict(json.loads(path.read_bytes()))
        except ValueError as error:
            raise BadCache(
                f"{path} is corrupt ({error}); delete the folder, or give another one", path
            ) from error
        names = [
            name
            for name in there.keys() | configuration.keys()
            if there.get(name) != configuration.get(name)
        ]
        if names:
            which = "; ".join(
                f"{name} was {there.get(name)}, now {configuration.get(name)}"
                for name in sorted(names)
            )
            raise BadCache(
                f"{folder} holds results of another configuration: {which}. Give another folder, or delete it",
                path,
            )

    def read(self, i):
        path = self._path(i)
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as stored:
                result = {name: stored[name] for name in stored.files}
            key = str(result.pop("key"))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise BadCache(
                f"{path} is corrupt ({error}); delete it, and its block is computed again", path
            ) from error
        if key != self.key:
            raise BadCache(
                f"{path} is of another configuration, {key}, and this one is {self.key}; delete it",
                path,
            )
        return result

    def write(self, i, result):
        self._replace(self._path(i), lambda file: np.savez(file, key=self.key, **result))

    def _path(self, i):
        return self.folder / f"block-{i:05d}.npz"

    def _replace(self, path, write):
        """Written beside, then moved into place: a file is whole or not there."""
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        with open(beside, "wb") as file:
            write(file)
        os.replace(beside, path)
