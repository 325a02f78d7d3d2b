"""Running again: what a run took, the lines of the pages, a notebook alone, Binder, workflows."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import books
import nbformat
import pytest
import yaml
from books import write
from bs4 import BeautifulSoup

from ifbook import chapters, environment, runs

ROOT = Path(__file__).parents[2]
ADDRESS = "https://github.com/somebody/influence"
CHAPTER = 'from ifbook import ledger\nchapter = ledger.Chapter("alone", seed)'


def made(root, command):
    """The pages of a small book, as soup by name, after `make book` or `make pages`."""
    done = subprocess.run(
        [sys.executable, "-m", "ifbook.chapters", command, "--root", root],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    files = (root / "_build" / "html" / "book").glob("*.html")
    return {p.stem: BeautifulSoup(p.read_text(encoding="utf-8"), "html.parser") for p in files}


def chapter(root, *sources):
    """Writes a chapter `alone` with parameters; returns its path."""
    write(root, "alone", "seed = 0\nrows = 100", *sources, prose="# Alone")
    path = root / "book" / "alone.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells[1].metadata["tags"] = ["parameters"]
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def book(tmp_path):
    """A small book; one of its chapters has parameters."""
    books.two_chapters(tmp_path)
    books.with_pages(tmp_path)
    chapter(tmp_path, "print(rows * 2)")
    return tmp_path


def again(page):
    """The lines that a chapter's page gives: those of a clone, and those of a notebook alone."""
    fold = page.find("details", class_="again")
    return [block.get_text() for block in fold.find_all("pre")]


def test_time_and_memory_are_measured(tmp_path, capsys):
    """Of one that holds 400 MB and waits for 2 seconds, beside one that does neither."""
    books.two_chapters(tmp_path)
    write(tmp_path, "alone", "import time", "x = b'.' * 400_000_000\ndel x\ntime.sleep(2)")
    write(tmp_path, "importing", "import time")
    assert not chapters.execute(tmp_path, 1)
    large, small = (runs.gathered(tmp_path)[name] for name in ("alone", "importing"))
    assert 380e6 < large["memory"] - small["memory"] < 420e6
    assert 10e6 < small["memory"] < 300e6
    assert 2 <= large["seconds"] < 60 and large["beside"] == 1


def test_pages_say_what_a_run_took_and_how_it_is_run_again(book):
    pages = made(book, "book")
    ran = runs.gathered(book)["alone"]
    (table,) = pages["status"].find_all("table")
    rows = [[cell.get_text() for cell in row.find_all("td")] for row in table.find_all("tr")[1:]]
    assert [row[0] for row in rows] == ["Alone", "Importing"]
    assert rows[0][1] == f"{ran['seconds']:.0f}" and rows[0][3] == "0"
    assert ran["libraries"]["numpy"] in pages["status"].get_text()
    fold = pages["alone"].find("details", class_="again")
    assert f"took {ran['seconds']:.0f} seconds" in fold.get_text()
    link = fold.find("a", attrs={"download": True})["href"]
    assert nbformat.read(book / "_build" / "html" / "book" / link, 4).cells[2].outputs
    line, _ = again(pages["alone"])
    command = line.replace("\\\n", " ").replace(".venv/bin", str(Path(sys.executable).parent))
    done = subprocess.run(shlex.split(command), cwd=book, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ran = nbformat.read(book / "_build" / "again.ipynb", 4).cells
    assert [
        c.source.strip() for c in ran if "injected-parameters" in c.metadata.get("tags", [])
    ] == ["# Parameters\nseed = 7\nrows = 100"]


def test_pages_from_stored_outputs_execute_nothing(book):
    path = book / "book" / "alone.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="as it was stored\n")]
    nbformat.write(notebook, path)
    pages = made(book, "pages")
    assert "as it was stored" in pages["alone"].get_text()
    for page in ("alone", "status"):
        assert runs.UNKNOWN in pages[page].get_text()
    assert not (book / "_build" / "executed").exists()
    pages = made(book, "book")
    assert "as it was stored" not in pages["alone"].get_text()
    assert runs.UNKNOWN not in pages["status"].get_text()
    assert runs.UNKNOWN in made(book, "pages")["status"].get_text()


def test_what_launches_a_chapter_is_there_where_the_repository_has_an_address(book):
    page = made(book, "pages")["alone"]
    hosts = re.compile("mybinder|colab")
    assert not page.find(href=hosts) and "git+" not in again(page)[1]
    assert "CC BY 4.0" in page.find(class_="bd-footer-content").get_text()  # a theme's option too
    config = book / "_config.yml"
    text = config.read_text(encoding="utf-8")
    assert text.count('url: ""') == 1
    config.write_text(text.replace('url: ""', f"url: {ADDRESS}"), encoding="utf-8")
    page = made(book, "pages")["alone"]
    assert {link["href"] for link in page.find_all(href=hosts)} == {
        "https://mybinder.org/v2/gh/somebody/influence/main?urlpath=lab/tree/book/alone.ipynb",
        "https://colab.research.google.com/github/somebody/influence/blob/main/book/alone.ipynb",
    }
    version = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    for part in (f"git+{ADDRESS}@v{version}", "#subdirectory=ifbook"):
        assert part in again(page)[1]
    assert "%pip install" in page.find("details", class_="again").get_text()


@pytest.mark.parametrize(
    "given, said",
    [
        ([], None),
        (["seed", "0"], None),
        (["seed", "7"], "Run with seed 7, not the book's 0."),
        (["rows", "10"], "Run with rows 10, not the book's 100."),
    ],
)
def test_a_parameter_that_is_not_the_books_is_shown(book, given, said):
    path = chapter(book, CHAPTER)
    papermill = [Path(sys.executable).with_name("papermill"), "--no-progress-bar"]
    options = ["-p", *given] if given else []
    subprocess.run([*papermill, path, book / "again.ipynb", *options], check=True)
    outputs = nbformat.read(book / "again.ipynb", 4).cells[-1].outputs
    assert [o.data["text/markdown"] for o in outputs] == ([f"**{said}**"] if said else [])


def test_a_seed_that_was_edited_is_shown(book):
    write(book, "alone", "seed = 3", CHAPTER)
    assert not chapters.execute(book, 1)
    (output,) = nbformat.read(book / "_build" / "executed" / "alone.ipynb", 4).cells[-1].outputs
    assert output.data["text/markdown"] == "**Run with seed 3, not the book's 0.**"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """Wheels of the two packages, built from a copy so that nothing is left beside the sources."""
    folder = tmp_path_factory.mktemp("wheels")
    (folder / "book").mkdir()
    for name in ("ifcore", "ifbook", "pyproject.toml", "book/claims.yml", "book/tables"):
        subprocess.run(["cp", "-R", ROOT / name, (folder / name).parent], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    options = ["--no-build-isolation", "--wheel-dir", folder / "out", folder, folder / "ifbook"]
    subprocess.run([*command, *options], check=True, capture_output=True)
    return folder / "out"


def test_a_notebook_alone_runs_beside_the_wheels(wheels, tmp_path):
    """By the lines of its page, in a folder that holds nothing else; pip installs no dependency."""
    name = "beyond-identity"
    notebook = json.loads((ROOT / "book" / f"{name}.ipynb").read_text(encoding="utf-8"))
    _, lines = re.findall(r"```sh\n(.*?)```", runs.again(name, notebook, None, ""), re.S)
    install, papermill = lines.replace("\\\n", " ").splitlines()
    folder, packages = tmp_path / "alone", tmp_path / "packages"
    folder.mkdir()
    shutil.copy(ROOT / "book" / f"{name}.ipynb", folder)
    pip = [sys.executable, "-m", *shlex.split(install), "--target", packages, "--no-deps"]
    subprocess.run(pip, cwd=wheels, check=True, capture_output=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    alone = os.environ | {"PYTHONPATH": str(packages), "PATH": path}
    where = "from ifbook import decomposition, tables; print(decomposition.risk.__file__)\n"
    where += "print(tables.__file__, len(decomposition.stored()))"
    found = subprocess.check_output([sys.executable, "-c", where], cwd=folder, env=alone, text=True)
    assert found.count(str(packages)) == 2
    stored = list((ROOT / "book" / "tables" / "decomposition").glob("*.json"))
    assert found.split()[-1] == str(len(stored))
    done = subprocess.run(
        shlex.split(papermill), cwd=folder, env=alone, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Run with seed 7, not the book's 0." in (folder / "again.ipynb").read_text("utf-8")


def test_the_wheel_of_the_book_has_the_claims_and_the_tables(wheels):
    (wheel,) = wheels.glob("ifbook-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert archive.read("ifbook/book/claims.yml") == (ROOT / "book" / "claims.yml").read_bytes()
    tables = (ROOT / "book" / "tables").rglob("*.*")
    assert {f"ifbook/book/tables/{p.relative_to(ROOT / 'book' / 'tables')}" for p in tables} <= set(
        names
    )


def test_binder_makes_the_environment_of_make_book(tmp_path):
    """What it runs, in a copy whose .venv is made already: the kernel of that is Binder's then."""
    for name in (*environment.PINS, "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("ifbook", "binder"):
        shutil.copytree(ROOT / name, tmp_path / name)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    packages = Path(nbformat.__file__).parents[1]
    venv.create(tmp_path / "binders", symlinks=True)
    given = os.environ | {
        "PATH": f"{tmp_path / 'binders' / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": f"{tmp_path}:{packages}",
    }
    ready = (
        "from ifbook.environment import ROOT, wanted; (ROOT / '.venv/.ready').write_text(wanted())"
    )
    subprocess.run([sys.executable, "-c", ready], cwd=tmp_path, env=given, check=True)
    subprocess.run([tmp_path / "binder" / "postBuild"], cwd=tmp_path, env=given, check=True)
    kernel = tmp_path / "binders" / "share" / "jupyter" / "kernels" / "python3" / "kernel.json"
    assert json.loads(kernel.read_text())["argv"][0] == str(python)


def test_binder_has_no_pins_of_its_own():
    script = (ROOT / "binder" / "postBuild").read_text(encoding="utf-8")
    assert "python -m ifbook.environment" in script and "pip" not in script
    assert not re.search(r"\d\.\d", script)
    assert {p.name for p in (ROOT / "binder").iterdir()} == {"postBuild", "runtime.txt"}
    python = (ROOT / "binder" / "runtime.txt").read_text().strip().removeprefix("python-")
    assert python in pythons()


def pythons():
    """The versions that the README names."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.search(r"Python (3\.\d+), (3\.\d+) or (3\.\d+)", readme).groups()


def workflow(name):
    text = (ROOT / ".github" / "workflows" / f"{name}.yml").read_text(encoding="utf-8")
    return yaml.load(text, yaml.BaseLoader)  # in which `on` is no truth value


def steps(name):
    return [s for job in workflow(name)["jobs"].values() for s in job.get("steps", [])]


def test_the_workflow_runs_the_readmes_two_commands_where_the_readme_says():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = [s["run"] for s in steps("test") if "run" in s]
    assert [" ".join(c.split()[:2]) for c in commands] == ["make book", "make test"]
    assert all(" ".join(c.split()[:2]) in readme for c in commands)
    matrix = workflow("test")["jobs"]["test"]["strategy"]["matrix"]
    assert tuple(matrix["python"]) == pythons() and "on Linux or macOS" in readme
    assert matrix["system"] == ["ubuntu-latest", "macos-latest"]
    index = re.search(r"TORCH_INDEX=(\S+)", readme)[1]
    assert index in workflow("test")["jobs"]["test"]["env"]["INDEX"]
    assert f"TORCH_INDEX={index}" in " ".join(s.get("run", "") for s in steps("publish"))


def test_a_tag_publishes_what_was_tested():
    publish = workflow("publish")
    assert publish["on"] == {"push": {"tags": ["v*"]}}
    assert publish["jobs"]["test"]["uses"] == "./.github/workflows/test.yml"
    assert "workflow_call" in workflow("test")["on"]
    needs = {name: job.get("needs") for name, job in publish["jobs"].items()}
    assert needs == {"test": None, "build": "test", "pages": "build", "release": "build"}
    permissions = [publish["permissions"]] + [
        j.get("permissions", {}) for j in publish["jobs"].values()
    ]
    assert sum(set(p.values()) == {"write"} for p in permissions) == 2


@pytest.mark.parametrize("name", ["test", "publish"])
def test_actions_are_pinned_and_targets_are_of_the_makefile(name):
    used = [s["uses"] for s in steps(name) if "uses" in s]
    assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+", action) for action in used)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    called = re.findall(r"\bmake (\w+)", "\n".join(s.get("run", "") for s in steps(name)))
    assert called and all(re.search(rf"^{target}:", makefile, re.M) for target in called)


def test_the_tag_must_be_the_version(tmp_path):
    (line,) = (s["run"] for s in steps("publish") if s.get("name") == "The tag is the version")
    version = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    codes = [
        subprocess.run(
            ["bash", "-c", line], cwd=ROOT, env=os.environ | {"GITHUB_REF_NAME": tag}
        ).returncode
        for tag in (f"v{version}", f"v{version}1")
    ]
    assert codes == [0, 1]
