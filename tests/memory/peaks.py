"""The peak memory of a call beyond its inputs, by the kernel's own count.

NumPy's and torch's arrays both count. A call is made in a process of its own, forked from one that
has imported what it needs and has computed a little of everything: what is read in once, and what
ran before, is not measured. Run as a program, this is that process.
"""

import contextlib
import ctypes
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
MMAP_THRESHOLD = -3  # of glibc's mallopt: an array of this size goes back as soon as it is freed


def counted():
    """Whether the kernel counts a peak that can be set anew."""
    return RESET.exists() and hasattr(ctypes.CDLL(None), "mallopt")


@contextlib.contextmanager
def server():
    """(case, sizes) ↦ bytes that its call takes at its peak, beyond what was made for it."""
    tests = Path(__file__).parents[1]
    path = os.pathsep.join(map(str, (tests, tests.parent)))
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    own = os.environ | {"PYTHONPATH": path} | dict.fromkeys(names, "1")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, __file__], env=own, **pipes) as process:

        def peak(case, sizes):
            print(json.dumps([case, sizes]), file=process.stdin, flush=True)
            return int(process.stdout.readline())

        yield peak
        process.stdin.close()


def _serve():
    from memory import cases

    cases.warm()
    for line in sys.stdin:
        case, sizes = json.loads(line)
        child = os.fork()
        if not child:
            print(_measured(cases.CASES[case].make, sizes), flush=True)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            print(-1, flush=True)


def _measured(make, sizes):
    libc = ctypes.CDLL(None)
    libc.mallopt(MMAP_THRESHOLD, 2**16)
    call = make(**sizes)
    gc.collect()
    libc.malloc_trim(0)
    RESET.write_text("5")  # from here on the peak counts
    before = _largest()
    result = call()
    after = _largest()
    del result
    return after - before


def _largest():
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    _serve()
