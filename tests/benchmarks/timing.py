"""Timing methods beside each other, in rounds, and the peak of memory of each."""

import gc
import os
import time
from typing import NamedTuple

import numpy as np
import torch
from memory import peaks
from scipy.linalg import cho_factor

from ifbook.benchmarks import COLUMNS, OURS

OURS_FIRST = f"the first method must be {OURS}"


class Method(NamedTuple):
    """A way to do a work, or a part of it."""

    name: str
    call: object  #: () ↦ the answer
    error: object = None  #: the answer ↦ its error; None: it answers nothing
    share: float = 1.0  #: of the work, that the call does: its seconds are divided by it
    once: bool = False  #: timed in the first round alone, without a call before it, no memory


def rows(work, size, methods, rounds):
    """Each method once in each round, the first being this package's: columns by COLUMNS."""
    if methods[0].name != OURS:
        raise ValueError(f"{OURS_FIRST}; got {methods[0].name}")
    found = []
    errors, peak = {}, {}
    for method in methods:
        if not method.once:
            answer = method.call()
            errors[method.name] = np.nan if method.error is None else method.error(answer)
            del answer
            peak[method.name] = memory(method.call)
    for number in range(rounds):
        gc.collect()
        for method in methods:
            if method.once and number:
                continue
            seconds, answer = timed(method.call)
            if method.once:
                errors[method.name] = np.nan if method.error is None else method.error(answer)
            del answer
            seconds /= method.share
            if method.name == OURS:
                base = seconds
            own = errors[method.name], peak.get(method.name, np.nan)
            found.append((work, size, method.name, number, seconds, seconds / base, *own))
    return {name: list(map(_plain, column)) for name, column in zip(COLUMNS, zip(*found))}


def timed(call, least=0.02):
    """Seconds of a call, repeated until they can be told, and the last answer."""
    start, count = time.perf_counter(), 0
    while not count or time.perf_counter() - start < least:
        answer = call()
        count += 1
    return (time.perf_counter() - start) / count, answer


def memory(call):
    """Bytes that a call takes at its peak beyond what was there; NaN where none are counted."""
    if not peaks.counted():
        return np.nan
    there, back = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(back, str(peaks._measured(lambda: call, {})).encode())
        finally:
            os._exit(0)
    os.close(back)
    with os.fdopen(there) as text:
        said = text.read()
    os.waitpid(child, 0)
    return float(said) if said else np.nan


def relative(truth):
    """answer ↦ its largest difference from the truth, beside the truth's largest entry."""
    truth = np.asarray(truth, dtype=float)
    scale = np.abs(truth).max()
    return lambda answer: float(np.abs(np.asarray(answer, dtype=float) - truth).max() / scale)


def products(operations, seed=0):
    """A matrix product of as many operations, of a size that BLAS likes: what GEMM allows."""
    size = int(min(1000, max(16, (operations / 2) ** (1 / 3))))
    times = operations / (2 * size**3)
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((size, size))
    B = rng.standard_normal((size, max(1, round(times * size))))
    return lambda: A @ B


def cholesky(n, seed=0):
    A = np.random.default_rng(seed).standard_normal((n, n))
    G = A @ A.T + n * np.eye(n)
    return lambda: cho_factor(G)


def tensor(a):
    return torch.from_numpy(np.ascontiguousarray(a))


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value
