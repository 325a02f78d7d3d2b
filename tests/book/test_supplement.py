"""`make supplement`: what it refuses, the same bytes from the same commit, the crate, the PDF."""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import books
import matplotlib.pyplot as plt
import nbformat
import papers
import pytest
import yaml

import ifcore
from ifbook import chapters, crate, figures, paper, supplement

ROOT = Path(__file__).parents[2]
EPOCH = 1_700_000_001  # 2023-11-14, 22:13:21
CHAPTER = """# One

A weight has a loss.

$$
w = 1
$$

```{prf:definition} Weighted
:label: def-weighted
The response is

$$
\\theta(w) = w^2 .
$$ (square)
```

```{prf:proof}
It is computed.
```

## Its derivative at $\\varepsilon = 1/n$

$$
\\theta'(w) = 2w
$$ (slope)

::::{dropdown} A fold of words
:name: row-x1
It says something.
:::{dropdown} The code of it
`foldedword`
:::
::::
"""
OTHER = """# Another

By {eq}`square`, {eq}`slope` and {prf:ref}`def-weighted` it grows, as {numref}`fig-line` shows and
[a fold](#row-x1) says.

```{prf:theorem} Growth
:label: thm-growth

$$
a = b
$$ (same)
```

See {prf:ref}`thm-growth`.
"""


@pytest.fixture
def project(tmp_path):
    """A small book in a git checkout, one commit."""
    books.two_chapters(tmp_path)
    books.with_pages(tmp_path)
    for name in ("pyproject.toml", "CITATION.cff", "CHANGELOG.md", *supplement.LICENCES):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("ifcore", "ifbook"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    (tmp_path / "book" / "tables").mkdir()
    (tmp_path / "book" / "tables" / "a.csv.gz").write_bytes(b"")
    (tmp_path / ".gitignore").write_text("_build/\n")
    commit(tmp_path)
    return tmp_path


def commit(root):
    person = ["-c", "user.name=A", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-A"], [*person, "commit", "-qm", "All"]):
        subprocess.run(["git", *command], cwd=root, check=True)


def laid_out(root):
    """As `make book` leaves it: pages, and executed chapters with their stamps."""
    executed = root / "_build" / "executed"
    executed.mkdir(parents=True)
    for path in (root / "book").glob("*.ipynb"):
        shutil.copy(path, executed)
        stamp = {"files": ["ifbook/figures.py", "ifcore/data/__init__.py"]}
        (executed / f"{path.stem}.json").write_text(json.dumps(stamp))
    chapters.lay_out(root)
    (root / "_build" / "html").mkdir()
    (root / "_build" / "html" / "index.html").write_text("<p>pages</p>")


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("pyproject.toml", 'version = "', 'version = "9.'),
        ("CITATION.cff", "version: 0", "version: 9"),
        ("CHANGELOG.md", "## 0", "## 9"),
        ("_config.yml", "    numfig: true", "    numfig: true\n    release: 9.0"),
        ("book/index.md", "# A small book", "# A small book, version 9.0"),
    ],
)
def test_a_version_that_disagrees_stops_it_whatever_is_said(project, name, old, new):
    assert supplement.version(project) == "0.1.0"
    path = project / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(SystemExit, match=rf"(?s)version.*9\.\S* in {name}"):
        supplement.refuse(project, anyway=True)


def test_a_tree_that_is_no_commit_or_was_not_executed_is_refused_unless_told_otherwise(
    project, capsys
):
    with pytest.raises(SystemExit, match="make book"):
        supplement.refuse(project, anyway=True)
    (project / "_build" / "html").mkdir(parents=True)
    (project / "book" / "index.md").write_text("# Edited\n")
    (project / "new.txt").write_text("new")
    with pytest.raises(SystemExit, match="ANYWAY=1"):
        supplement.refuse(project, anyway=False)
    said = capsys.readouterr().err
    assert "not committed: book/index.md, new.txt" in said
    assert "stale outputs" in said and "alone, importing" in said
    assert "X1 is undecided" in said
    supplement.refuse(project, anyway=True)
    assert capsys.readouterr().err == said


def test_a_claim_that_is_pending_is_undecided(project):
    rows = yaml.safe_load((project / "book" / "claims.yml").read_text())
    for row in rows:
        row["pending"] = True
    (project / "book" / "claims.yml").write_text(yaml.safe_dump(rows))
    assert "undecided claims: X1, X2" in list(supplement.faults(project))


def test_what_is_no_checkout_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="no git checkout"):
        supplement.git(tmp_path, "status")


def test_an_archive_has_the_same_bytes_whoever_made_the_files_and_when(tmp_path):
    files = {"b.txt": b"b", "a/c.txt": b"c" * 1000, "a b.txt": b""}
    for folder, names, mode in (("one", list(files), 0o600), ("two", list(files)[::-1], 0o755)):
        for i, name in enumerate(names):
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(files[name])
            path.chmod(mode)
            os.utime(path, (i, i))
        supplement.pack(tmp_path / folder, tmp_path / f"{folder}.zip", EPOCH)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files
        assert archive.infolist()[0].date_time[:5] == (2023, 11, 14, 22, 13)


def test_without_tex_the_rest_is_made_twice_the_same_and_it_says_what_to_install(
    project, capsys, monkeypatch
):
    laid_out(project)
    monkeypatch.setattr(supplement.shutil, "which", lambda name: None)
    folder, made = project / supplement.FOLDER, []
    for _ in range(2):
        supplement.make(project)
        made.append({p: p.read_bytes() for p in folder.rglob("*") if p.is_file()})
    assert made[0] == made[1]
    said = capsys.readouterr().out
    assert "no latexmk, no xelatex" in said and "apt-get install" in said

    names = {p.relative_to(folder).as_posix() for p in made[0]}
    assert {"site.zip", "source.zip", "notebooks/alone.ipynb", "data/diabetes.csv"} < names
    assert {"tables/a.csv.gz", "CITATION.cff", "citation.bib", "references.bib"} < names
    assert {"LICENSE", "environment/constraints.txt", "ifbook-0-py3-none-any.whl"} < names
    assert "ifcore-0.1.0-py3-none-any.whl" in names
    assert "book.pdf" not in names and "left out" in (folder / "README.md").read_text()
    listed = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in listed} == names - {"SHA256SUMS"}
    for digest, name in listed:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    with zipfile.ZipFile(folder / "source.zip") as archive:
        assert "book/alone.ipynb" in archive.namelist()


def test_a_font_or_a_style_that_is_missing_is_named(tmp_path, monkeypatch):
    said = {"fc-list": "TeX Gyre Termes\\nDejaVu Sans Mono,Other\\n", "kpsewhich": "titlesec.sty"}
    for name in (*supplement.PROGRAMS, "kpsewhich"):
        (tmp_path / name).write_text(f"#!/bin/sh\nprintf '{said.get(name, '')}'\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = supplement.missing()
    assert "font FreeSerif" in found and "style unicode-math.sty" in found
    assert not {"font TeX Gyre Termes", "font DejaVu Sans Mono", "style titlesec.sty"} & set(found)


def test_the_crate_says_which_notebook_made_which_figure_from_which_data(tmp_path):
    root, folder = tmp_path, tmp_path / "supplement"
    for name in ("notebooks", "figures", "data", "tables"):
        (folder / name).mkdir(parents=True)
    (root / "book").mkdir()
    for name in ("drawn", "silent"):
        source = ["x = data.diabetes()", "figures.show()"] if name == "drawn" else ["1"]
        books.write(root, name, *source, prose=f"# The {name} chapter")
        (root / "book" / f"{name}.ipynb").rename(folder / "notebooks" / f"{name}.ipynb")
        stamp = root / "_build" / "executed" / f"{name}.json"
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(json.dumps({"files": []}))
    (root / "book" / "drawn.ipynb").write_text("{}")
    ran = {"finished": "2026-12-01 09:30"}
    (root / "_build" / "executed" / "drawn.run.json").write_text(json.dumps(ran))
    path = folder / "notebooks" / "drawn.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells[-1].metadata["mystnb"] = {"figure": {"name": "fig-a", "caption": "A."}}
    nbformat.write(notebook, path)
    for name in ("figures/fig-a.svg", "figures/fig-a.csv", "data/diabetes.csv", "data/adult.csv"):
        (folder / name).write_text(name)
    (root / "requirements.txt").write_text("# pins\nnumpy==2.4.6\ntorch==2.13.0\n")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    crate.write(root, folder, citation, "abcdef", datetime.fromtimestamp(EPOCH, UTC))

    graph = json.loads((folder / crate.NAME).read_text())["@graph"]
    found = {entity["@id"]: entity for entity in graph}
    assert len(found) == len(graph)
    run = found["#run-drawn"]
    assert run["instrument"] == {"@id": "notebooks/drawn.ipynb"}
    assert run["object"] == {"@id": "data/diabetes.csv"}
    assert {r["@id"] for r in run["result"]} == {"figures/fig-a.svg", "figures/fig-a.csv"}
    assert run["endTime"] == "2026-12-01T09:30:00Z"
    assert found["#run-silent"]["result"] == [] and "endTime" not in found["#run-silent"]
    assert {"@id": "notebooks/drawn.ipynb"} in found["figures/fig-a.svg"]["isBasedOn"]
    assert found["notebooks/drawn.ipynb"]["name"] == "The drawn chapter"
    needs = {r["@id"] for r in found["notebooks/drawn.ipynb"]["softwareRequirements"]}
    assert {(found[i]["name"], found[i]["version"]) for i in needs} == {
        ("numpy", "2.4.6"),
        ("torch", "2.13.0"),
    }
    assert found["./"]["datePublished"] == "2023-11-14"
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*.*") if p.is_file()}
    assert {r["@id"] for r in found["./"]["hasPart"]} == files - {crate.NAME}
    digest = hashlib.sha256(b"data/adult.csv").hexdigest()
    assert found["data/adult.csv"]["sha256"] == digest

    def references(value):
        if isinstance(value, dict):
            return [value["@id"]]
        return [i for item in value for i in references(item)] if isinstance(value, list) else []

    for entity in graph:  # whatever is named is there
        for key, value in entity.items():
            for name in references(value):
                outside = key == "conformsTo" or name in ("LICENSE", "LICENSE-CC-BY-4.0.txt")
                assert outside or name in found or name == "data/README.md", (entity["@id"], name)


def test_every_figure_of_the_book_is_some_notebooks():
    drawn = set()
    for path in (ROOT / "book").glob("*.ipynb"):
        for cell in nbformat.read(path, 4).cells:
            name = cell.metadata.get("mystnb", {}).get("figure", {}).get("name", "")
            drawn |= set(figures.files(ROOT / "book" / "figures", name)) if name else set()
    assert drawn == set((ROOT / "book" / "figures").iterdir())


def test_faults_are_read_from_the_log():
    log = (
        "Missing character: There is no ᵀ (U+1D40) in font X!\n"
        "Overfull \\hbox (9.9pt too wide) in paragraph at lines 1--2\n"
        "Overfull \\hbox (10.5pt too wide) in paragraph at lines 3--4\n"
        "LaTeX Warning: Hyper reference `a' on page 6 undefined on input line 1.\n"
        "LaTeX Warning: Label `b' multiply defined.\n"
        "LaTeX Font Warning: Font shape `b/n' undefined\n"
    )
    found = supplement.log_faults(log)
    assert len(found) == 4
    assert "a line sticks out by 10.5 pt in paragraph at lines 3--4" in found


def test_a_formula_in_a_title_can_be_read_in_a_list_of_contents():
    assert paper.spoken(r"\varepsilon = 1/n") == "ε = 1/n"
    assert paper.spoken(r"\mathcal{Q}_j \to \infty") == "Qj → ∞"


def cell(source, name="", tags=(), outputs=()):
    about = {"figure": {"name": name, "caption": "A line: $x$."}, "image": {"alt": "A line."}}
    metadata = {"tags": list(tags)} | ({"mystnb": about} if name else {})
    made = nbformat.v4.new_code_cell(source, metadata=metadata, outputs=list(outputs))
    made.execution_count = 1
    return made


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """A small book as pages and as a PDF: its pages' folder, TeX's folder, the PDF's text."""
    if absent := supplement.missing():
        pytest.skip(f"no {', no '.join(absent)}; on Debian: {supplement.DEBIAN}")
    root = tmp_path_factory.mktemp("printed")
    source = root / "_build" / "source"
    book = source / "book"
    book.mkdir(parents=True)
    shutil.copytree(ROOT / "assets", source / "assets")
    shutil.copy(ROOT / "_config.yml", source)
    shutil.copy(ROOT / "book" / "references.bib", book)
    part = {"caption": "First", "numbered": True}
    part["chapters"] = [{"file": "book/one"}, {"file": "book/other"}]
    last = {"caption": "Last", "chapters": [{"file": "book/after"}]}
    toc = {"format": "jb-book", "root": "book/index", "parts": [part, last]}
    (source / "_toc.yml").write_text(yaml.safe_dump(toc))
    (book / "index.md").write_text("# A small book\n\nWords.\n\n## A section\n\nMore.\n")
    (book / "after.md").write_text("# Afterwards\n\n## No number\n\nThe end.\n")
    (book / "other.md").write_text(OTHER)
    output = nbformat.v4.new_output
    touch = '<div class="touch" data-figure="x"><script>1</script></div>'
    plain = {"text/plain": "<IPython.core.display.HTML object>"}
    (book / "figures").mkdir()
    figure, axes = plt.subplots()
    axes.set_title("drawnword")
    with plt.rc_context({"pdf.fonttype": 42}):
        figure.savefig(book / "figures" / "fig-line.pdf")
    plt.close(figure)
    png = io.BytesIO()
    figure.savefig(png)
    image = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": "an image"}
    shown = output("display_data", image)
    cells = [
        nbformat.v4.new_markdown_cell(CHAPTER),
        cell("seed = 0", tags=["parameters"]),
        cell("foldedword = 1\nimport math"),
        cell("print('openword ∇ℓ₁ −0.5 𝓔 ᵀ')", outputs=[output("stream", text="∇ℓ₁ −0.5 𝓔 ᵀ\n")]),
        cell("figures.show(fig)", "fig-line", outputs=[shown]),
        cell("figures.touch('x')", outputs=[output("display_data", {"text/html": touch, **plain})]),
    ]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})
    nbformat.write(notebook, book / "one.ipynb")
    command = [sys.executable, "-c", chapters.JUPYTER_BOOK, "build", source]
    options = ["--path-output", root, "-q"]
    subprocess.run([*command, *options], check=True, capture_output=True)
    supplement.paper(root, root / "book.pdf", EPOCH)
    text = subprocess.run(["pdftotext", "-layout", root / "book.pdf", "-"], capture_output=True)
    latex = root / "_build" / "paper" / "_build" / "latex"
    return root / "_build" / "html", latex, text.stdout.decode()


def test_pages_and_paper_have_the_same_numbers(printed):
    html, latex, text = printed
    pages = papers.on_pages(html)
    assert pages == papers.on_paper(latex)
    assert pages["equations"]["other", "same"] == "3"
    assert pages["statements"] == {"Definition 1", "Theorem 1"}
    assert pages["headings"] == {"1", "1.1", "2"}
    assert "By (1), (2) and Definition 1 it grows, as Fig. 1 shows" in " ".join(text.split())


def test_on_paper_code_that_folds_is_left_out_and_words_stand_open(printed):
    _, latex, text = printed
    assert "openword" in text and "foldedword" not in text and "seed = 0" not in text
    assert "A fold of words" in text and "It says something" in text
    assert "HTML object" not in text and "an image" not in text
    assert "drawnword" in text  # the figure is its PDF, no image of points
    assert f"Version {ifcore.__version__}" in text
    assert "First" in text and "Afterwards" in text
    assert re.search(r"^\s*Contents\s*$", text, re.M)
    assert supplement.log_faults((latex / "book.log").read_text(encoding="utf-8")) == []
