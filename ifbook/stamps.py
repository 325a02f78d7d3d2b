"""Whether an executed chapter, or the pages, are what they would be if they were made now.

A chapter's stamp tells all that its outputs depend on, by digest: its code cells, its claims, the
files of ifcore and ifbook that it imported, the data, the pins; and the outputs themselves. Prose
is no part of it. Files have names relative to their checkout, which may be moved.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import nbformat

from ifbook import environment, figures, ledger

CODE = environment.ROOT  # of ifcore and ifbook
DATA = "ifcore/data/"
TABLES = "book/tables/"


def stamp(root, path):
    """What a chapter's outputs depend on, with every file that it may import."""
    code = [cell.source for cell in code_cells(path)]
    claims = ledger.claims(root / "book" / "claims.yml").values()
    mine = [claim for claim in claims if claim["chapter"] == path.stem]
    pins = [digest(root / name) for name in environment.PINS]
    return {
        "code": digest(json.dumps(code)),
        "claims": digest(json.dumps(mine)),
        "pins": digest(json.dumps([*pins, sys.version])),
        "files": {name: digest(CODE / name) for name in sources()},
    }


def keep(root, path, before, imported):
    """Writes the stamp taken `before` a chapter was executed, once its outputs are there."""
    kept = narrowed(before, imported) | {"outputs": outputs(root, path)}
    replace(executed(root, path).with_suffix(".json"), json.dumps(kept, indent=1))


def fresh(root, path):
    """Whether a chapter's outputs are whole, and nothing that they depend on has changed."""
    try:
        kept = json.loads(executed(root, path).with_suffix(".json").read_text())
        imported = set(kept["files"])
    except (OSError, ValueError, KeyError, TypeError):  # never executed, or no stamp of ours
        return False
    return kept == narrowed(stamp(root, path), imported) | {"outputs": outputs(root, path)}


def narrowed(stamp, imported):
    """The stamp with the files that were imported; with what reads data or tables, all of them."""
    read = {f"{DATA}__init__.py": DATA, "ifbook/tables.py": TABLES}
    folders = tuple(folder for file, folder in read.items() if file in imported)
    files = {
        name: was
        for name, was in stamp["files"].items()
        if name in imported or (name.startswith(folders) and not name.endswith(".py"))
    }
    return stamp | {"files": files}


def outputs(root, path):
    """{file: digest} of a chapter's execution: the notebook, and the figures that it draws."""
    folder = executed(root, path).parent
    shown = (cell.metadata.get("mystnb", {}).get("figure", {}) for cell in code_cells(path))
    drawn = [
        file.relative_to(folder).as_posix()
        for figure in shown
        if "name" in figure
        for file in figures.files(folder / figures.FOLDER, figure["name"])
    ]
    return {name: digest(folder / name) for name in (path.name, *drawn)}


def names(path, files):
    """The files of what a chapter imported, relative to this checkout; refuses another's."""
    others = [name for name in files if not Path(name).resolve().is_relative_to(CODE)]
    if others:
        raise RuntimeError(
            f"{path.name} imported {others[0]}, which is not of this checkout, {CODE}; "
            "`make clean` takes the environment away that leads there"
        )
    return {Path(name).resolve().relative_to(CODE).as_posix() for name in files}


def sources():
    """The files of ifcore and ifbook that outputs and pages depend on, by their relative names."""
    found = [
        *(CODE / "ifcore").rglob("*.py"),
        *(CODE / "ifbook").rglob("*.py"),
        *(CODE / DATA).glob("*.csv"),
        *(CODE / DATA).glob("*.txt"),
        *(p for p in (CODE / TABLES).rglob("*.*") if p.suffix in (".gz", ".json")),
    ]
    return sorted(path.relative_to(CODE).as_posix() for path in found)


def pages(root):
    """A digest of what the pages are made from: what was laid out, code, pins, CITATION.cff."""
    named = {name: digest(CODE / name) for name in sources()}
    named |= {name: digest(root / name) for name in environment.PINS}
    named["CITATION.cff"] = digest(CODE / "CITATION.cff")
    return tree(root / "_build" / "source") + digest(json.dumps(named))


def tree(folder):
    """A digest of a folder's files and their names; hidden files, as of a file manager, aside."""
    files = sorted(p for p in folder.rglob("[!.]*") if p.is_file())
    return digest("".join(f"{p.relative_to(folder)} {digest(p)}\n" for p in files))


def executed(root, path):
    return root / "_build" / "executed" / path.name


def code_cells(path):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


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
