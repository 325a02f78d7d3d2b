"""What each chapter's run took, and on what: measured as it is executed, shown on the pages.

A run is kept beside the executed chapter, for no output is to depend on it. The pages find the
runs of all chapters in one file; pages that are made from stored outputs have none.
"""

import json
import os
import platform
import re
import shlex
import time
from importlib.metadata import version
from pathlib import Path

import ifcore
from ifbook import ledger, stamps, tables

FILE = "runs.json"  # beside the chapters of the pages: {chapter: run}
LIBRARIES = (*tables.LIBRARIES, "matplotlib", "jupyter-book")
UNKNOWN = "not measured in this build"
OTHER = "7"  # a seed that is not the book's


def keep(root, path, seconds, memory, beside):
    """Keeps what a chapter took: `seconds` by the clock, `memory` in bytes at its peak.

    beside : how many chapters were executed at once.
    """
    run = {
        "seconds": round(seconds, 1),
        "memory": memory,
        "beside": beside,
        "finished": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "commit": tables.commit(),
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in LIBRARIES},
        "processor": tables.processor(),
        "cores": os.cpu_count(),
    }
    stamps.replace(_kept(root, path), json.dumps(run, indent=1))


def gathered(root):
    """{chapter: run} of the executed chapters whose run was measured."""
    chapters = sorted((root / "book").glob("*.ipynb"))
    return {
        p.stem: json.loads(_kept(root, p).read_text()) for p in chapters if _kept(root, p).exists()
    }


def read(folder):
    """The runs that lie beside the chapters of the pages; none where there is no such file."""
    path = Path(folder) / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def parameters(notebook):
    """A chapter's parameters, as code by name; there are none without a cell of that tag."""
    tagged = (c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", []))
    return ledger.assigned("".join(next(tagged, {"source": ""})["source"]))


def status(folder):
    """The status of the book's chapters in MyST: a table of their runs, and what they ran on."""
    runs = read(folder)
    rows = ["| chapter | seconds | memory, GB | seed | executed, UTC | commit |"]
    rows += ["|--|--:|--:|--:|--|--|"]
    toc = (Path(folder).parent / "_toc.yml").read_text(encoding="utf-8")
    pages = [Path(folder) / f"{name}.ipynb" for name in re.findall(r"file: book/(\S+)", toc)]
    for path in filter(Path.exists, pages):
        seed = parameters(json.loads(path.read_text(encoding="utf-8"))).get("seed", "none")
        took, memory, finished, commit = UNKNOWN, "–", "–", "–"
        if run := runs.get(path.stem):
            took, memory, finished = f"{run['seconds']:.0f}", _gigabytes(run), run["finished"]
            commit = f"`{run['commit']}`" if run["commit"] else "no checkout"
        cells = f"[{ledger.title(path)}]({path.name})", took, memory, seed, finished, commit
        rows.append(f"| {' | '.join(cells)} |")
    minutes = sum(run["seconds"] for run in runs.values()) / 60
    below = [f"Together they took {minutes:.0f} minutes, one after the other."] if runs else []
    below += sorted({_machine(run) for run in runs.values()})
    return "\n".join(rows) + "\n\n" + "\n\n".join(below)


def _machine(run):
    libraries = ", ".join(f"{name} {number}" for name, number in run["libraries"].items())
    return (
        f"Executed by Python {run['python']} with {libraries}, on {run['processor']} with "
        f"{run['cores']} cores, at most {run['beside']} at a time."
    )


def again(name, notebook, run, address):
    """A chapter's last words in MyST, a fold: how it is run again, and what that takes.

    name : of its file, without the ending. run : what was measured, or None. address : of the
    public repository, or "".
    """
    given = {**parameters(notebook), "seed": OTHER}
    given = " ".join(f"-p {key} {shlex.quote(value)}" for key, value in given.items())
    took = f"What the run takes was [{UNKNOWN}](status.md)."
    if run:
        spent = f"{run['seconds']:.0f} seconds and {_gigabytes(run)} GB of memory"
        took = f"The run of [this build](status.md) took {spent}."
    source = f"git+{address}@v{ifcore.__version__}"
    beside, colab = "the two packages that it imports", ""
    installed = f'"ifcore @ {source}"', f'"ifbook @ {source}#subdirectory=ifbook"'
    if not address:
        beside = f"{beside}, as wheels in the supplement"
        installed = f"ifcore-{ifcore.__version__}-py3-none-any.whl", "ifbook-0-py3-none-any.whl"
    elif "github.com" in address:
        colab = "On Colab, a first cell `%pip install …` installs the same."
    return f"""::::{{dropdown}} Run this chapter again
:class-container: again

In a clone of the repository, after `make book`, with another seed:

```sh
.venv/bin/papermill --cwd _build {given} \\
    book/{name}.ipynb _build/again.ipynb
```

{took} `make lab` opens the chapters in JupyterLab.

Without a clone, <a href="../_sources/book/{name}.ipynb" download>the notebook alone</a> runs beside
{beside}, in a folder of your own:

```sh
pip install {installed[0]} \\
    {installed[1]}
papermill {given} {name}.ipynb again.ipynb
```

{colab}
::::
"""


def _gigabytes(run):
    return f"{run['memory'] / 1e9:.1f}"


def _kept(root, path):
    return stamps.executed(root, path).with_suffix(".run.json")
