"""Small books to execute and to build: two chapters, one of which computes with ifcore."""

import shutil
from pathlib import Path

import nbformat
import yaml

from ifbook import environment

ROOT = Path(__file__).parents[1]

IMPORTING = "from ifcore import data, leastsquares\nprint(len(data.diabetes().y))"
CODE = "# The code\n\n```{eval-rst}\n.. automodule:: ifbook.ledger\n   :members: claims\n```\n"


def write(root, name, *sources, prose="Some prose."):
    """A chapter of `sources`, a code cell each."""
    cells = [nbformat.v4.new_markdown_cell(prose, id="prose")]
    cells += [nbformat.v4.new_code_cell(source, id=f"code-{i}") for i, source in enumerate(sources)]
    python = {"language_info": {"name": "python"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=python)
    nbformat.write(notebook, root / "book" / f"{name}.ipynb")


def two_chapters(root):
    """All that their execution needs."""
    (root / "book").mkdir()
    for name in environment.PINS:
        (root / name).write_text("numpy==1\n")
    rows = [
        {"id": "X1", "chapter": "alone", "right": "a"},
        {"id": "X2", "chapter": "elsewhere", "right": "b"},
    ]
    (root / "book" / "claims.yml").write_text(yaml.safe_dump(rows))
    write(root, "alone", "x = 6 * 7", "print(x)")
    write(root, "importing", IMPORTING)


def with_pages(root):
    """All that the pages need besides: an index, and a page of the code."""
    (root / "assets").mkdir()
    for name in ("book.css", "ledger.js", "touch.js"):
        shutil.copy(ROOT / "assets" / name, root / "assets")
    shutil.copy(ROOT / "_config.yml", root)
    shutil.copy(ROOT / "book" / "references.bib", root / "book")
    pages = "".join(f"  - file: book/{name}\n" for name in ("alone", "importing", "status", "code"))
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: book/index\nchapters:\n{pages}")
    (root / "book" / "status.md").write_text("# Status\n\n```{status}\n```\n")
    (root / "book" / "index.md").write_text("# A small book\n")
    (root / "book" / "code.md").write_text(CODE)
    write(root, "alone", "x = 6 * 7", "print(x)", prose="# Alone")
    write(root, "importing", IMPORTING, prose="# Importing")
