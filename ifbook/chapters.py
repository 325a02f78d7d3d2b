"""Executes the stale chapters and builds the pages: what `make book` and `make refresh` run.

A chapter is executed into _build/executed/, beside a stamp of all that its outputs depend on: its
code cells, its claims, the files of ifcore and ifbook that it imported, the data, the pins. Prose
is no part of it. The chapters and their outputs are then laid out in _build/source/ for
jupyter-book. Nothing that git tracks is written, except by `refresh`.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from tqdm import tqdm

import ifbook
import ifcore
from ifbook import ledger

IMPORTED = """import sys
ours = (m for n, m in sys.modules.items() if n.split(".")[0] in ("ifcore", "ifbook"))
print("\\n".join(sorted(m.__file__ for m in ours)))"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("command", choices=["book", "refresh"])
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).parents[1], help="the project's folder"
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count(), help="chapters executed at once"
    )
    arguments = parser.parse_args()
    root = arguments.root.resolve()
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
    stale = [path for path in chapters if afresh or not fresh(root, path)]
    print(f"{len(chapters)} chapters, {len(stale)} to execute", flush=True)
    failed = set()
    cells = sum(c.cell_type == "code" for path in stale for c in nbformat.read(path, 4).cells)
    with tqdm(total=cells, unit="cell", disable=None) as bar, ThreadPoolExecutor(jobs) as pool:
        runs = {pool.submit(execute_one, root, path, bar): path.stem for path in stale}
        try:
            for run in as_completed(runs):
                error = run.exception()
                if error is None:
                    bar.write(f"  executed {runs[run]} ({run.result()} cells)")
                else:
                    failed.add(runs[run])
                    bar.write(f"  FAILED   {error}", file=sys.stderr)
                sys.stdout.flush()
        except KeyboardInterrupt:
            print(
                "\nInterrupted. The finished chapters are kept; run it again to go on.",
                file=sys.stderr,
                flush=True,
            )
            os._exit(130)  # at once: the kernels see that their parent is gone, and end
    return failed


def execute_one(root, path, bar):
    """Executes one chapter in a kernel of its own and keeps it with its stamp.

    Returns its number of code cells.
    """
    notebook = nbformat.read(path, 4)
    executed = root / "_build" / "executed"
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=1800,
        record_timing=False,
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(executed)}},
    )
    before = stamp(root, path)
    code = [(i, cell) for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]
    with client.setup_kernel():
        for number, (i, cell) in enumerate(code, 1):
            bar.set_postfix_str(f"{path.stem} {number}/{len(code)}")
            try:
                client.execute_cell(cell, i)
            except CellExecutionError as error:
                raise RuntimeError(
                    f"{path.name}, code cell {number} of {len(code)} (id {cell.id})\n{error}"
                ) from None
            except Exception as error:  # the kernel died, or the time was up
                raise RuntimeError(
                    f"{path.name}, code cell {number} of {len(code)} (id {cell.id}): {error!r}"
                ) from error
            bar.update()
        probe = nbformat.v4.new_code_cell(IMPORTED)
        notebook.cells.append(probe)
        client.execute_cell(probe, len(notebook.cells) - 1, store_history=False)
        notebook.cells.pop()
    before["files"] = {
        name: digest(Path(name)) for name in imported(probe.outputs[0].text.splitlines())
    }
    replace(executed / path.name, nbformat.writes(notebook) + "\n")
    replace(executed / f"{path.stem}.json", json.dumps(before, indent=1))
    return len(code)


def stamp(root, path):
    """What a chapter's outputs depend on, but for the files it imports.

    Only its execution tells those.
    """
    code = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    mine = [
        c for c in ledger.claims(root / "book" / "claims.yml").values() if c["chapter"] == path.stem
    ]
    pins = [(root / name).read_text() for name in ("requirements.txt", "constraints.txt")]
    return {
        "code": digest(json.dumps(code)),
        "claims": digest(json.dumps(mine)),
        "pins": digest(json.dumps([*pins, sys.version])),
    }


def fresh(root, path):
    """Whether a chapter was executed since anything that its outputs depend on changed."""
    executed = root / "_build" / "executed"
    try:
        kept = json.loads((executed / f"{path.stem}.json").read_text())
        files = kept.pop("files")
        if any(digest(Path(name)) != was for name, was in files.items()):
            return False
        if set(imported(files)) != set(files):
            return False
        return kept == stamp(root, path) and (executed / path.name).exists()
    except (OSError, ValueError, KeyError):  # never executed, or a stamp cut short
        return False


def imported(names):
    """The files among `names`, and with its data room every data file."""
    for name in map(Path, names):
        if name.parent.name == "data" and name.name == "__init__.py":
            yield from map(
                str, sorted(p for p in name.parent.iterdir() if p.suffix in (".csv", ".txt"))
            )
        if name.suffix == ".py":
            yield str(name)


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
        replace(path, with_outputs(path, executed / path.name))
    shutil.rmtree(root / "book" / "figures", ignore_errors=True)
    if (executed / "figures").exists():
        shutil.copytree(executed / "figures", root / "book" / "figures")
    print("stored the outputs in book/; `git status` shows what changed")


def build(root):
    """Builds the pages from the executed chapters, unless they are built already.

    Any warning fails the build.
    """
    source, html = root / "_build" / "source", root / "_build" / "html"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(
        root / "book", source / "book", ignore=shutil.ignore_patterns(".ipynb_checkpoints")
    )
    shutil.copytree(root / "assets", source / "assets")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy2(root / name, source / name)
    executed = root / "_build" / "executed"
    for path in (source / "book").glob("*.ipynb"):
        path.write_text(with_outputs(path, executed / path.name), encoding="utf-8")
    if (executed / "figures").exists():
        shutil.copytree(executed / "figures", source / "book" / "figures", dirs_exist_ok=True)
    files = sorted(p for p in source.rglob("*") if p.is_file())
    for package in (ifcore, ifbook):  # the pages show the code
        files += sorted(Path(package.__file__).parent.rglob("*.py"))
    files += [root / "requirements.txt", root / "constraints.txt"]
    state = digest("".join(f"{p} {digest(p)}\n" for p in files))
    built = root / "_build" / "pages.sha256"
    if not (built.exists() and built.read_text() == state and (html / "index.html").exists()):
        built.unlink(missing_ok=True)
        print("building the pages", flush=True)
        options = ["--path-output", str(root), "--all", "-q", "-W", "-n", "--keep-going"]
        jupyter_book = Path(sys.executable).with_name("jupyter-book")
        run = subprocess.run(
            [jupyter_book, "build", str(source), *options], stdout=subprocess.DEVNULL
        )
        if run.returncode:
            sys.exit(
                "the pages were not built: jupyter-book ended with an error or a warning, "
                "shown above"
            )
        built.write_text(state)
    print(f"The book is built. Open it at {(html / 'index.html').as_uri()}")


def digest(content):
    """SHA-256 of a text, or of a file's bytes; an absent file has none."""
    if isinstance(content, Path):
        return hashlib.sha256(content.read_bytes()).hexdigest() if content.is_file() else None
    return hashlib.sha256(content.encode()).hexdigest()


def replace(path, text):
    """Writes a file whole or not at all, whenever the process is killed."""
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


if __name__ == "__main__":
    main()
