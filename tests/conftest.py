"""What the tests share: the project's folder, its pages, and an interrupt at a chosen call."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def root():
    return ROOT


@pytest.fixture(scope="session")
def html(tmp_path_factory):
    """The book from the stored outputs; -W fails on a warning, -n on a reference to nowhere.

    It is built once, for all that test at the same time; where PAGES names a folder, it is that.
    """
    if "PAGES" in os.environ:
        return Path(os.environ["PAGES"]).resolve()
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with open(folder / "pages.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        built = folder / "pages" / "_build" / "html"
        if not built.exists():
            _build(folder / "pages")
    return built


def _build(folder):
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("book", "assets"):
        shutil.copytree(ROOT / name, folder / "source" / name)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, folder / "source")
    command = [Path(sys.executable).with_name("jupyter-book"), "build", folder / "source"]
    options = ["--path-output", folder, "-W", "-n", "--keep-going"]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    if done.returncode or "WARNING" in done.stderr:
        shutil.rmtree(folder / "_build")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr


@pytest.fixture
def interrupted(monkeypatch):
    """interrupted(room, name, at): room.name is stopped, once, at its call `at`; its calls."""

    def interrupt(room, name, at):
        calls, honest = [], getattr(room, name)

        def counted(*block):
            calls.append(block)
            if len(calls) == at:
                raise KeyboardInterrupt
            return honest(*block)

        monkeypatch.setattr(room, name, counted)
        return calls

    return interrupt


def pytest_collect_file(parent, file_path):
    """Where a chapter was never executed, nbval compares nothing, silently: here it is an error."""
    import nbformat

    if file_path.suffix == ".ipynb" and file_path.parent.name == "stored":
        for cell in nbformat.read(file_path, 4).cells:
            if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None:
                raise pytest.UsageError(
                    f"{file_path.name}: cell {cell.id} has no stored output; run make refresh"
                )
