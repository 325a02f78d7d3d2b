"""The chapters: clean files, outputs that are all there, and verdicts that no seed changes.

That their stored outputs are the computed ones is nbval's to say, in the same run of pytest.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell

from ifbook import figures, ledger

BOOK = Path(__file__).parents[2] / "book"
CHAPTERS = sorted(BOOK.glob("*.ipynb"))
SEEDS = os.environ.get("SEEDS", "20261").split()  # `make seeds` gives more
named = pytest.mark.parametrize("path", CHAPTERS, ids=[p.stem for p in CHAPTERS])


@pytest.fixture
def shell():
    """IPython, as in a kernel, without one's start."""
    yield InteractiveShell.instance(history_manager=None)
    InteractiveShell.clear_instance()


def run(path, folder, *parameters):
    papermill = Path(sys.executable).with_name("papermill")
    command = [
        papermill,
        "--cwd",
        folder,
        "--no-progress-bar",
        path,
        folder / "again.ipynb",
        *parameters,
    ]
    return subprocess.run(command, capture_output=True, text=True)


@named
@pytest.mark.parametrize("seed", SEEDS)
def test_another_seed_changes_no_verdict(path, seed, tmp_path):
    done = run(path, tmp_path, "-p", "seed", seed)
    assert done.returncode == 0, done.stderr[-3000:]
    again = {e["claim"]: e for e in ledger.collect(tmp_path)}
    stored = {e["claim"]: e for e in ledger.collect(BOOK) if e["chapter"] == path.stem}
    assert {c: e["verdict"] for c, e in again.items()} == {
        c: e["verdict"] for c, e in stored.items()
    }
    assert all(e["seed"] == int(seed) for e in again.values())


BAD = [
    ("sed", 7, "unknown parameter sed; this chapter has"),
    ("seed", "minus one", "seed must be an integer; got 'minus one'"),
]


@pytest.mark.parametrize("name, value, told", BAD)
def test_a_bad_parameter_is_refused_through_papermill(name, value, told, tmp_path):
    done = run(CHAPTERS[0], tmp_path, "-p", name, str(value))
    assert done.returncode != 0 and told in done.stderr


@named
@pytest.mark.parametrize("name, value, told", BAD)
def test_a_bad_parameter_is_refused_by_every_chapter(path, name, value, told, shell):
    """The cells up to that of the chapter's start, with papermill's cell after the first."""
    code = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    start = next(i for i, source in enumerate(code) if "ledger.Chapter(" in source)
    for source in (code[0], f"# Parameters\n{name} = {value!r}", *code[1:start]):
        assert shell.run_cell(source, store_history=True).success
    found = shell.run_cell(code[start], store_history=True)
    assert told in str(found.error_in_exec)


@named
def test_the_file_is_clean(path):
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, 4)
    nbformat.validate(notebook)
    assert text == nbformat.writes(notebook) + "\n"
    assert len(text) < 1_000_000
    expected = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    assert dict(notebook.metadata) == {**expected, "language_info": {"name": "python"}}
    for cell in notebook.cells:
        assert set(cell.metadata) <= {"tags", "mystnb"}, cell.id
        assert all(c >= " " or c == "\n" for c in cell.source), (
            f"{cell.id} holds a control character"
        )
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids) and all(not i.isdigit() for i in ids)


@named
def test_every_cell_was_executed_in_order_and_without_error(path):
    code = [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == list(range(1, len(code) + 1))
    kinds = [output.output_type for c in code for output in c.outputs]
    assert "error" not in kinds
    assert not any(o.get("name") == "stderr" for c in code for o in c.outputs)
    assert code[0].metadata.tags == ["parameters"] and "seed = 0" in code[0].source


@named
def test_what_other_pages_quote_is_what_is_shown(path):
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            if found := output.get("metadata", {}).get(ledger.FINDINGS):
                shown = output["data"]["text/markdown"].splitlines()
                assert sorted(shown) == sorted(f"* {text}" for text in found.values())


@named
def test_what_is_printed_fits_its_box(path):
    """On a desktop, at the size of letters that assets/book.css gives."""
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            for line in output.get("text", "").splitlines():
                assert len(line) <= 104, f"{cell['id']}: {line}"


@named
def test_every_figure_has_caption_alt_text_and_files(path):
    drawn = {}
    for cell in nbformat.read(path, 4).cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                figure = cell.metadata.mystnb
                assert len(figure.figure.caption) > 40 and len(figure.image.alt) > 40, cell.id
                assert f'"{figure.figure.name}"' in cell.source
                drawn[figure.figure.name] = output.metadata[figures.DIGEST]
    for name, digest in drawn.items():
        assert figures.digest(BOOK / "figures", name) == digest, f"{name} is of another run"
        files = figures.files(BOOK / "figures", name)
        assert {"svg", "pdf", "csv"} == {file.name.rpartition(".")[2] for file in files}
        assert all(0 < file.stat().st_size < 1_000_000 for file in files)


def test_no_figure_file_is_left_over():
    drawn = {
        c.metadata.mystnb.figure.name
        for p in CHAPTERS
        for c in nbformat.read(p, 4).cells
        if "mystnb" in c.metadata
    }
    assert {p.name.split(".")[0] for p in (BOOK / "figures").iterdir()} == drawn


def test_an_error_in_ifcore_makes_a_chapter_fail(tmp_path):
    """One formula broken in a copy of ifcore: the factor 1/(1 − h_j) of leave-one-out forgotten."""
    for name in ("ifcore", "ifbook"):
        shutil.copytree(BOOK.parent / name, tmp_path / name)
    (tmp_path / "book").mkdir()
    shutil.copy(BOOK / "claims.yml", tmp_path / "book")
    module = tmp_path / "ifcore" / "leastsquares.py"
    source = module.read_text(encoding="utf-8")
    assert source.count("residual / (h - 1)") == 1
    module.write_text(source.replace("residual / (h - 1)", "-residual"), encoding="utf-8")
    chapter = nbformat.read(BOOK / "setting-and-leave-one-out.ipynb", 4)
    code = {c.id: c.source for c in chapter.cells if c.cell_type == "code"}
    script = "\n".join(code[name] for name in ("parameters", "setup", "diabetes-fit"))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0 and "agree to 12 digits: False" in done.stdout, done.stderr


def of(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


@named
def test_a_chapter_has_its_form(path):
    """A label and a title, parameters, two to four findings, what to take away, exercises."""
    notebook = nbformat.read(path, 4)
    first = notebook.cells[0].source.splitlines()
    assert first[0] == f"({path.stem})=" and first[1].startswith("# ")
    assert len(of(notebook, "parameters")) == 1
    headings = [
        line
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ]
    assert headings[-2:] == ["## What to take away", "## Exercises"]
    found = {key for chapter, key in ledger.findings(BOOK) if chapter == path.stem}
    assert 2 <= len(found) <= 4
    asked, answered = of(notebook, "exercise"), of(notebook, "answer")
    assert 3 <= len(asked) == len(answered) <= 5
    for cell in answered:
        assert "assert " in cell.source and "chapter.answer(" in cell.source, cell.id
        (said,) = cell.outputs
        assert len(said.data["text/markdown"]) > 80, cell.id
