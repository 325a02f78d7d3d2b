"""Copies of the package and its tests, each of which runs the tests of one room at a time.

A run is forked from this process, so it begins with the libraries that this one has imported.
"""

import json
import os
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = "ifcore", "tests", "pyproject.toml"
MEMORY = 8 * 2**30  # bytes that one run may hold
OPTIONS = ["-p", "_hypothesis_pytestplugin", "--hypothesis-seed=0", "--tb=short"]


@dataclass(frozen=True)
class Work:
    """Tests in `folders`, the fastest first by `seconds`, and without those in `but`.

    Where there is a fault they run with it, up to the first that fails. limit : seconds of a
    processor; six times as long by the clock, for what waits for ever.
    """

    room: str
    folders: list
    limit: float
    seconds: dict = field(default_factory=dict)
    but: list = field(default_factory=list)
    fault: object = None


class Copies:
    def __init__(self, folder, jobs):
        self.folder, self.running, self.stamp = folder, {}, int(time.time())
        self.free = [folder / f"copy-{number}" for number in range(jobs)]
        for copy in self.free:
            shutil.rmtree(copy, ignore_errors=True)
            copy.mkdir(parents=True)
            for part in PARTS:
                source = ROOT / part
                if source.is_dir():
                    ignored = shutil.ignore_patterns("__pycache__", ".*")
                    shutil.copytree(source, copy / part, ignore=ignored)
                else:
                    shutil.copy(source, copy / part)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in self.running:
            _kill(pid)

    def map(self, works):
        """(work, its outcome) as each ends: exit code or "late", seconds, which tests failed."""
        works = iter(works)
        while True:
            while self.free and (work := next(works, None)):
                self._start(work, self.free.pop())
            if not self.running:
                return
            time.sleep(0.02)
            for pid, (work, copy, begun) in list(self.running.items()):
                late = time.monotonic() - begun > 6 * work.limit
                if late:
                    _kill(pid)
                ended, status, used = os.wait4(pid, 0 if late else os.WNOHANG)
                if ended:
                    _kill(pid)  # what the tests started
                    del self.running[pid]
                    self.free.append(copy)
                    if work.fault:
                        self._write(copy / work.fault.path, (ROOT / work.fault.path).read_bytes())
                    code = os.waitstatus_to_exitcode(status)
                    code = "late" if late or code == -signal.SIGXCPU else code
                    yield work, _outcome(copy, code, used.ru_utime + used.ru_stime)

    def _start(self, work, copy):
        (copy / "outcome.json").unlink(missing_ok=True)
        if work.fault:
            source = (ROOT / work.fault.path).read_bytes()
            self._write(copy / work.fault.path, work.fault.planted(source))
        pid = os.fork()
        if not pid:
            _test(work, copy)
        os.setpgid(pid, pid)
        self.running[pid] = work, copy, time.monotonic()

    def _write(self, path, source):
        """With a time of its own: by time and size Python knows its compiled files."""
        self.stamp += 1
        path.write_bytes(source)
        os.utime(path, (self.stamp, self.stamp))


class _Watch:
    """A plugin of pytest that orders the tests and notes which take how long, and which fail."""

    def __init__(self, work):
        self.work, self.seconds, self.failed = work, Counter(), []

    def pytest_collection_modifyitems(self, items):
        items[:] = [item for item in items if item.nodeid not in self.work.but]
        items.sort(key=lambda item: self.work.seconds.get(item.nodeid, 0))

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report):
        if report.failed:
            self.failed.append(report.nodeid)


def _test(work, copy):
    """Never returns: the forked process ends here."""
    code = 70
    try:
        os.setpgid(0, 0)
        log = os.open(copy / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (int(work.limit), int(work.limit) + 5))
        os.chdir(copy)
        os.environ |= {"PYTHONPATH": str(copy), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        own = {ROOT, Path(__file__).parent}
        sys.path[:] = [str(copy)] + [path for path in sys.path if Path(path).resolve() not in own]
        sys.modules["__main__"] = type(sys)("__main__")  # what a worker of Dask's imports again
        import ifcore

        assert Path(ifcore.__file__).parent == copy / "ifcore", ifcore.__file__
        watch, stop = _Watch(work), ["-x"] if work.fault else []
        folders = [f"tests/{folder}" for folder in work.folders]
        code = pytest.main([*folders, *stop, *OPTIONS, f"--rootdir={copy}"], plugins=[watch])
        (copy / "outcome.json").write_text(json.dumps([watch.failed, watch.seconds]))
    finally:
        os._exit(code)


def _outcome(copy, code, seconds):
    found = copy / "outcome.json"
    failed, by_test = json.loads(found.read_text()) if found.exists() else ([], {})
    return {"code": code, "took": round(seconds, 2), "failed": failed, "seconds": by_test}


def _kill(pid):
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
