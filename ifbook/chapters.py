"""Executes the stale chapters and builds the pages: `make book`, `make pages`, `make refresh`.

A chapter is executed into _build/executed/, beside its stamp. The chapters and their outputs are
then laid out in _build/source/ for jupyter-book; `pages` lays out the stored outputs instead, and
executes nothing. Nothing that git tracks is written, except by `refresh`. One run at a time has
_build.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm import tqdm

from ifbook import environment, runs, stamps

# Asked of the kernel at the end: what of ours it imported, and its memory at the peak. Linux counts
# the parent's memory into `ru_maxrss`, and has the process's own as VmHWM.
PROBE = """import json, resource, sys
ours = (m for n, m in sys.modules.items() if n.split(".")[0] in ("ifcore", "ifbook"))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if sys.platform != "darwin":
    kept = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")]
    peak = 1024 * int((kept or [peak])[0])
print(json.dumps({"files": [m.__file__ for m in ours], "memory": peak}))"""
# Its script names the interpreter in a way that a folder's name may break.
JUPYTER_BOOK = "from jupyter_book.cli.main import main; main()"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=["book", "pages", "refresh"])
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).parents[1], help="the project's folder"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="chapters executed at once"
    )
    arguments = parser.parse_args()
    root = arguments.root.resolve()
    with environment.lock(root):
        try:
            make(root, arguments)
        except KeyboardInterrupt:
            leave()


def make(root, arguments):
    """What the command names, under the lock; exits with an error where a chapter failed."""
    if arguments.command == "pages":
        build(root, stored=True)
        return
    failed = execute(root, arguments.jobs, afresh=arguments.command == "refresh")
    if failed:
        sys.exit(
            f"{len(failed)} of the chapters failed: {', '.join(sorted(failed))}. "
            "The others are kept."
        )
    if arguments.command == "refresh":
        store(root)
    else:
        build(root)


def execute(root, jobs, afresh=False):
    """Executes the stale chapters, `jobs` at once; returns the names of those that failed."""
    executed = root / "_build" / "executed"
    executed.mkdir(parents=True, exist_ok=True)
    if afresh:  # no figure of a chapter that draws it no longer
        shutil.rmtree(executed, ignore_errors=True)
        executed.mkdir()
    chapters = sorted((root / "book").glob("*.ipynb"))
    stale = [path for path in chapters if afresh or not stamps.fresh(root, path)]
    print(f"{len(chapters)} chapters, {len(stale)} to execute", flush=True)
    failed = set()
    cells = sum(c.cell_type == "code" for path in stale for c in nbformat.read(path, 4).cells)
    with tqdm(total=cells, unit="cell", disable=None) as bar, ThreadPoolExecutor(jobs) as pool:
        at_work = {
            pool.submit(execute_one, root, path, bar, min(jobs, len(stale))): path.stem
            for path in stale
        }
        try:
            for run in as_completed(at_work):
                error = run.exception()
                if error is None:
                    bar.write(f"  executed {at_work[run]} ({run.result()} cells)")
                else:
                    failed.add(at_work[run])
                    bar.write(f"  FAILED   {error}", file=sys.stderr)
                sys.stdout.flush()
        except KeyboardInterrupt:
            leave()  # here, for the pool would wait for its chapters
    return failed


def execute_one(root, path, bar, beside):
    """Executes one chapter in a kernel of its own; keeps it with its stamp and what it took.

    beside : how many are executed at once. Returns its number of code cells.
    """
    before, began = stamps.stamp(root, path), time.monotonic()
    notebook = nbformat.read(path, 4)
    executed = root / "_build" / "executed"
    # Through sockets in a folder of its own: a port that is free may be taken before it is used.
    sockets = tempfile.TemporaryDirectory()
    kernel = AsyncKernelManager(
        kernel_name="python3", transport="ipc", ip=os.path.join(sockets.name, "kernel")
    )
    client = NotebookClient(
        notebook,
        km=kernel,
        timeout=1800,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(executed)}},
    )
    code = [(i, cell) for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    with sockets, client.setup_kernel():
        for number, (i, cell) in enumerate(code, 1):
            bar.set_postfix_str(f"{path.stem} {number}/{len(code)}")
            where = f"{path.name}, code cell {number} of {len(code)} (id {cell.id})"
            execute_cell(client, cell, i, where)
            bar.update()
        probe = nbformat.v4.new_code_cell(PROBE)
        seconds = time.monotonic() - began
        notebook.cells.append(probe)
        client.execute_cell(probe, len(notebook.cells) - 1, store_history=False)
        notebook.cells.pop()
    found = json.loads(probe.outputs[0].text)
    imported = stamps.names(path, found["files"])
    stamps.replace(executed / path.name, nbformat.writes(notebook) + "\n")
    runs.keep(root, path, seconds, found["memory"], beside)
    stamps.keep(root, path, before, imported)
    return len(code)


def execute_cell(client, cell, i, where):
    """Executes one cell; raises RuntimeError, which says `where`, if it fails or warns."""
    try:
        client.execute_cell(cell, i)
    except CellExecutionError as error:
        raise RuntimeError(f"{where}\n{error}") from None
    except Exception as error:  # the kernel died, or the time was up
        raise RuntimeError(f"{where}: {error!r}") from error
    warned = [output.text for output in cell.outputs if output.get("name") == "stderr"]
    if warned:
        raise RuntimeError(f"{where} wrote to stderr, which is no output:\n{''.join(warned)}")


def with_outputs(source, executed):
    """The chapter as it stands now, with the outputs of its execution."""
    notebook = nbformat.read(source, 4)
    code = (c for c in nbformat.read(executed, 4).cells if c.cell_type == "code")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            ran = next(code)
            cell.outputs, cell.execution_count = ran.outputs, ran.execution_count
    return nbformat.writes(notebook) + "\n"


def store(root):
    """Writes the outputs into the chapters themselves, and the figures beside them."""
    executed = root / "_build" / "executed"
    for path in sorted((root / "book").glob("*.ipynb")):
        stamps.replace(path, with_outputs(path, executed / path.name))
    shutil.rmtree(root / "book" / "figures", ignore_errors=True)
    if (executed / "figures").exists():
        shutil.copytree(executed / "figures", root / "book" / "figures")
    print("stored the outputs in book/; `git status` shows what changed")


def build(root, stored=False):
    """Builds the pages from the executed chapters, unless they are built already.

    stored : from the outputs that the chapters have instead. Any warning fails the build.
    """
    lay_out(root, stored)
    html, built = root / "_build" / "html", root / "_build" / "pages.sha256"
    made_from = stamps.pages(root)
    if not pages_stand(root):
        built.unlink(missing_ok=True)
        shutil.rmtree(html, ignore_errors=True)  # Sphinx's pages depend on what it finds there
        print("building the pages", flush=True)
        options = ["--path-output", str(root), "--all", "-q", "-W", "-n", "--keep-going"]
        run = subprocess.run(
            [sys.executable, "-c", JUPYTER_BOOK, "build", root / "_build" / "source", *options],
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt reaches this process alone, which ends that one
        )
        if run.returncode:
            sys.exit(
                "the pages were not built: jupyter-book ended with an error or a warning, "
                "shown above"
            )
        built.write_text(made_from + stamps.tree(html))
    print(f"The book is built. Open it at {(html / 'index.html').as_uri()}")


def pages_stand(root):
    """Whether the pages are whole, and of what is laid out now."""
    built = root / "_build" / "pages.sha256"
    wanted = stamps.pages(root) + stamps.tree(root / "_build" / "html")
    return built.exists() and built.read_text() == wanted


def lay_out(root, stored=False):
    """Puts into _build/source/ what jupyter-book reads: the chapters with outputs and figures."""
    source, executed = root / "_build" / "source", root / "_build" / "executed"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(
        root / "book", source / "book", ignore=shutil.ignore_patterns(".ipynb_checkpoints")
    )
    shutil.copytree(root / "assets", source / "assets")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy2(root / name, source / name)
    if stored:
        return
    for path in (source / "book").glob("*.ipynb"):
        path.write_text(with_outputs(path, executed / path.name), encoding="utf-8")
    (source / "book" / runs.FILE).write_text(json.dumps(runs.gathered(root)), encoding="utf-8")
    if (executed / "figures").exists():
        shutil.copytree(executed / "figures", source / "book" / "figures", dirs_exist_ok=True)


def leave():
    """Ends this process at once: the kernels see that their parent is gone, and end."""
    print(
        "\nInterrupted. What was finished is kept; run it again to go on.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(130)


if __name__ == "__main__":
    main()
