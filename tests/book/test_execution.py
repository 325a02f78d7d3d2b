"""`make book` and `make refresh`: what is executed again and what is kept, what a failure says."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import books
import nbformat
import pytest
import yaml
from books import write

from ifbook import chapters, environment, figures, stamps

ROOT = Path(__file__).parents[2]
PAGES = "index", "alone", "importing", "status", "code"


def command(root):
    return [sys.executable, "-m", "ifbook.chapters", "book", "--root", root]


@pytest.fixture
def project(tmp_path):
    """A small project with two chapters: one computes with ifcore, the other does not."""
    books.two_chapters(tmp_path)
    return tmp_path


def executed(root, capsys, **options):
    """The chapters that one more `execute` ran."""
    failed = chapters.execute(root, 2, **options)
    lines = capsys.readouterr().out.splitlines()
    assert not failed
    return {line.split()[1] for line in lines if line.strip().startswith("executed")}


def test_executes_once_and_then_exactly_what_a_change_makes_stale(project, capsys):
    assert executed(project, capsys) == {"alone", "importing"}
    assert executed(project, capsys) == set()

    write(project, "alone", "x = 6 * 7", "print(x)", prose="Other prose.")
    assert executed(project, capsys) == set()
    text = chapters.with_outputs(
        project / "book" / "alone.ipynb", project / "_build" / "executed" / "alone.ipynb"
    )
    assert "Other prose." in text and "42" in text

    write(project, "alone", "x = 6 * 8", "print(x)")
    assert executed(project, capsys) == {"alone"}

    rows = yaml.safe_load((project / "book" / "claims.yml").read_text())
    rows[1]["right"] = "another chapter's"
    (project / "book" / "claims.yml").write_text(yaml.safe_dump(rows))
    assert executed(project, capsys) == set()
    rows[0]["right"] = "its own"
    (project / "book" / "claims.yml").write_text(yaml.safe_dump(rows))
    assert executed(project, capsys) == {"alone"}

    (project / "requirements.txt").write_text("numpy==2\n")
    assert executed(project, capsys) == {"alone", "importing"}
    assert executed(project, capsys, afresh=True) == {"alone", "importing"}


@pytest.mark.parametrize(
    "changed, stale", [("leastsquares.py", True), ("data/diabetes.csv", True), ("risk.py", False)]
)
def test_a_change_in_ifcore_or_its_data_reaches_the_chapters_that_use_it(
    project, capsys, monkeypatch, changed, stale
):
    executed(project, capsys)
    honest = stamps.digest
    path = ROOT / "ifcore" / changed
    monkeypatch.setattr(stamps, "digest", lambda c: "other" if c == path else honest(c))
    assert executed(project, capsys) == ({"importing"} if stale else set())


def test_a_new_data_file_reaches_them_too(project, capsys, monkeypatch):
    executed(project, capsys)
    found = [*stamps.sources(), "ifcore/data/new.csv"]
    monkeypatch.setattr(stamps, "sources", lambda: found)
    assert executed(project, capsys) == {"importing"}


def test_a_new_table_reaches_the_chapters_that_read_tables(project, capsys, monkeypatch):
    write(project, "reading", "from ifbook import tables")
    executed(project, capsys)
    assert executed(project, capsys) == set()
    found = [*stamps.sources(), "book/tables/new.csv.gz"]
    monkeypatch.setattr(stamps, "sources", lambda: found)
    assert executed(project, capsys) == {"reading"}


def test_a_failure_names_chapter_and_cell_shows_the_traceback_and_keeps_the_others(project, capsys):
    write(project, "broken", "x = 1", "def divide(a):\n    return a / 0\n\ndivide(x)")
    assert chapters.execute(project, 2) == {"broken"}
    said = capsys.readouterr()
    assert "broken.ipynb, code cell 2 of 2 (id code-1)" in said.err
    assert "ZeroDivisionError" in said.err and "return a / 0" in said.err
    assert "executed alone" in said.out and "executed importing" in said.out
    write(project, "broken", "x = 1", "x + 1")
    assert executed(project, capsys) == {"broken"}


def test_a_dead_kernel_is_a_failure(project, capsys):
    write(project, "dying", "import os", "os._exit(3)")
    assert chapters.execute(project, 2) == {"dying"}
    assert "dying.ipynb, code cell 2 of 2" in capsys.readouterr().err


def test_a_failure_ends_the_command_with_an_error_and_builds_nothing(project):
    write(project, "broken", "1 / 0")
    done = subprocess.run(command(project), capture_output=True, text=True)
    assert done.returncode == 1 and "1 of the chapters failed: broken" in done.stderr
    assert (project / "_build" / "executed" / "alone.json").exists()
    assert not (project / "_build" / "html").exists()


@pytest.mark.parametrize("how, code", [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_resumes_after_a_kill(project, capsys, how, code):
    write(project, "slow", "import time\nopen('started', 'w').close()\ntime.sleep(600)")
    running = subprocess.Popen(
        [*command(project), "--jobs", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(
            signal.SIGINT, signal.SIG_DFL
        ),  # a shell ignores it in what it runs in the background
    )
    kept = [
        project / "_build" / "executed" / name
        for name in ("alone.json", "importing.json", "started")
    ]
    deadline = time.monotonic() + 300
    while not all(path.exists() for path in kept) and time.monotonic() < deadline:
        time.sleep(0.2)
    running.send_signal(how)
    assert running.wait(timeout=120) == code
    assert all(path.exists() for path in kept)
    write(project, "slow", "print('quick now')")
    assert executed(project, capsys) == {"slow"}


@pytest.mark.parametrize("text", ["", '{"code": ', "null", "[]", "3", '{"files": null}'])
def test_what_is_no_stamp_is_none(project, capsys, text):
    executed(project, capsys)
    (project / "_build" / "executed" / "alone.json").write_text(text)
    assert executed(project, capsys) == {"alone"}


def emptied(path):
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    nbformat.write(notebook, path)


SPOILT = {
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:200]),
    "empty": lambda path: path.write_text(""),
    "gone": lambda path: path.unlink(),
    "another chapter's": lambda path: shutil.copy(path.with_name("importing.ipynb"), path),
    "without outputs": emptied,
}


@pytest.mark.parametrize("how", SPOILT)
def test_an_executed_chapter_that_was_spoilt_is_executed_again(project, capsys, how):
    executed(project, capsys)
    path = project / "_build" / "executed" / "alone.ipynb"
    whole = path.read_bytes()
    SPOILT[how](path)
    assert executed(project, capsys) == {"alone"}
    assert path.read_bytes() == whole


@pytest.mark.parametrize("kind", [*figures.KINDS.values(), "csv", "more.csv"])
def test_a_figure_that_was_spoilt_is_drawn_again(project, capsys, kind):
    draw = "import matplotlib.pyplot as plt\nfrom ifbook import figures\n"
    write(
        project, "drawing", draw + 'figures.show(plt.figure(), "empty", x=[1], more={"y": [1, 2]})'
    )
    path = project / "book" / "drawing.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells[1].metadata["mystnb"] = {"figure": {"name": "empty"}}
    nbformat.write(notebook, path)
    executed(project, capsys)
    figure = project / "_build" / "executed" / "figures" / f"empty.{kind}"
    whole = figure.read_bytes()
    figure.write_bytes(whole[:3])
    assert executed(project, capsys) == {"drawing"}
    assert figure.read_bytes() == whole


def test_what_changes_while_a_chapter_runs_makes_it_stale(project, capsys, monkeypatch):
    honest = stamps.digest
    changed = []

    def digest(content):
        return "other" if changed and content == ROOT / "ifcore" / "inputs.py" else honest(content)

    monkeypatch.setattr(stamps, "digest", digest)
    monkeypatch.setattr(
        stamps, "names", lambda *a, names=stamps.names: changed.append(1) or names(*a)
    )
    executed(project, capsys)
    assert executed(project, capsys) == {"importing"}


def test_a_checkout_that_was_moved_executes_nothing(project, capsys):
    executed(project, capsys)
    moved = project.rename(project.with_name("my $HOME [book] #1"))
    assert executed(moved, capsys) == set()
    write(moved, "alone", "print(6 * 8)")
    assert executed(moved, capsys) == {"alone"}


def test_another_checkouts_code_is_refused(project, capsys, monkeypatch):
    shutil.copytree(ROOT / "ifcore", project / "other" / "ifcore")
    monkeypatch.setenv("PYTHONPATH", str(project / "other"))
    assert chapters.execute(project, 2) == {"importing"}
    said = capsys.readouterr().err
    assert "importing.ipynb imported" in said and f"not of this checkout, {ROOT}" in said


def test_a_warning_is_no_output(project, capsys):
    write(project, "warning", "x = 1", "import warnings\nwarnings.warn('of something')")
    assert chapters.execute(project, 2) == {"warning"}
    said = capsys.readouterr().err
    assert "warning.ipynb, code cell 2 of 2 (id code-1) wrote to stderr" in said
    assert "of something" in said
    assert not stamps.fresh(project, project / "book" / "warning.ipynb")


def environment_of_make(folder, **given):
    """What the Makefile, if it lies in `folder`, exports to what it runs."""
    folder.mkdir(exist_ok=True)
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "show.mk").write_text("include Makefile\nshow: ; @env -0\n")
    command = ["make", "--no-print-directory", "-f", "show.mk", "show"]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | given, capture_output=True, text=True, check=True
    )
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if line)


def test_make_gives_the_folder_whole_whatever_its_name(tmp_path):
    folder = tmp_path / "my $HOME #1 'book'"
    found = environment_of_make(folder)
    assert found["PYTHONPATH"] == str(folder)
    for name in ("IPYTHONDIR", "MPLCONFIGDIR"):
        assert Path(found[name]).parent == folder / "_build"


def test_the_readers_settings_do_not_count(project, capsys, monkeypatch):
    """In a home that cannot be written to, with settings that would change every output."""
    home = project / "home"
    profile = home / ".ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_config.py").write_text(
        'get_config().InteractiveShell.ast_node_interactivity = "all"'
    )
    (home / "startup.py").write_text("print('hello')")
    (home / ".config").write_text("where a folder should be")
    (home / ".cache").write_text("where a folder should be")
    given = {"HOME": str(home), "MPLBACKEND": "nonesuch", "PYTHONWARNINGS": "always"}
    given["PYTHONSTARTUP"] = str(home / "startup.py")
    found = environment_of_make(project, **given)
    for name in {*os.environ, *given}:
        monkeypatch.delenv(name, raising=False)
    for name, value in (found | {"PYTHONPATH": str(ROOT)}).items():
        monkeypatch.setenv(name, value)
    write(project, "alone", "x = 6 * 7\nx\nx + 1", "import matplotlib.pyplot as plt\nx")
    assert executed(project, capsys) == {"alone", "importing"}
    cells = nbformat.read(project / "_build" / "executed" / "alone.ipynb", 4).cells[1:]
    assert [[o.data["text/plain"] for o in cell.outputs] for cell in cells] == [["43"], ["42"]]


def test_one_run_at_a_time(project):
    (project / "_build").mkdir()
    with environment.lock(project):
        second = subprocess.run(command(project), capture_output=True, text=True)
    assert second.returncode == 1 and "another run is at work" in second.stderr
    assert "Traceback" not in second.stderr
    assert not (project / "_build" / "executed").exists()
    environment.lock(project).close()


def test_a_checkout_that_cannot_be_written_to_says_so(project):
    (project / "_build").write_text("where a folder should be")
    done = subprocess.run(command(project), capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{project / '_build'} cannot be written to" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def small_book(project):
    """The small project with all that pages need: an index, and a page of the code."""
    books.with_pages(project)
    return project


def built(root):
    """The pages that one more `make book` gives, as bytes; and whether it built them."""
    done = subprocess.run(command(root), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {p.name: p.read_bytes() for p in (root / "_build" / "html" / "book").glob("*.html")}
    return pages, "building the pages" in done.stdout


def test_pages_are_built_once_and_again_where_one_is_spoilt(small_book):
    pages, new = built(small_book)
    assert new and set(pages) == {f"{p}.html" for p in PAGES}
    assert built(small_book) == (pages, False)
    for page in pages.values():
        assert str(ROOT).encode() not in page and str(small_book).encode() not in page
    page = small_book / "_build" / "html" / "book" / "alone.html"
    page.write_bytes(page.read_bytes()[:500])
    assert built(small_book) == (pages, True)
    moved = small_book.rename(small_book.with_name("my $HOME book"))
    assert built(moved) == (pages, False)
    shutil.rmtree(moved / "_build" / "html")
    assert built(moved) == (pages, True)


def test_an_interrupt_while_pages_are_built_is_a_word_and_they_are_built_anew(small_book):
    running = subprocess.Popen(
        command(small_book),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while "building the pages" not in (line := running.stdout.readline()):
        assert line
    while not (small_book / "_build" / "html").exists():  # which Sphinx makes before it reads
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Interrupted." in said and "Traceback" not in said
    assert built(small_book)[1]


def test_an_environment_is_of_its_folder_and_its_pins(tmp_path):
    """`ready` of a checkout's own copy of the script, for no other knows its folder."""
    for name in (*environment.PINS, "pyproject.toml", "ifbook"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)

    def ask(folder, what):
        script = f"from ifbook import environment; print({what})"
        return subprocess.run(
            [sys.executable, "-c", script],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()

    assert ask(tmp_path, "environment.ready()") == "False"
    ask(tmp_path, "(environment.ROOT / '.venv' / '.ready').write_text(environment.wanted())")
    assert ask(tmp_path, "environment.ready()") == "True"
    copy = tmp_path.with_name("copy")
    shutil.copytree(tmp_path, copy, symlinks=True)
    assert ask(copy, "environment.ready()") == "False"
    with open(tmp_path / "constraints.txt", "a") as file:
        file.write("more==1\n")
    assert ask(tmp_path, "environment.ready()") == "False"


def test_every_package_is_pinned_and_all_but_torchs_by_hash():
    """Each requirement stands in one of the two files, at the same version."""
    text = {name: (ROOT / name).read_text(encoding="utf-8") for name in environment.PINS}
    asked, held, torch = (dict(re.findall(r"^([\w.-]+)==(\S+)", t, re.M)) for t in text.values())
    assert {name.lower(): version for name, version in asked.items()}.items() <= (
        held | torch
    ).items()
    assert not held.keys() & torch.keys()
    assert {name.split("-")[0] for name in torch} == {"torch", "triton", "cuda", "nvidia"}
    for entry in re.split(r"\n(?=[a-z])", text["constraints.txt"])[1:]:
        assert "--hash=sha256:" in entry, entry


def test_refresh_stores_the_same_bytes_each_time(project, capsys):
    outputs = []
    for _ in range(2):
        executed(project, capsys, afresh=True)
        chapters.store(project)
        outputs.append([p.read_bytes() for p in sorted((project / "book").glob("*.ipynb"))])
    assert outputs[0] == outputs[1]
    assert json.loads(outputs[0][0])["cells"][2]["outputs"][0]["text"] == ["42\n"]


def test_a_refresh_that_fails_keeps_no_stamp_of_what_it_took_away(project, capsys):
    executed(project, capsys)
    figures = project / "_build" / "executed" / "figures"
    figures.mkdir()
    (figures / "gone.svg").write_text("of a chapter that draws it no longer")
    write(project, "alone", "1 / 0")
    assert chapters.execute(project, 2, afresh=True) == {"alone"}
    capsys.readouterr()
    assert not figures.exists()
    assert not stamps.fresh(project, project / "book" / "alone.ipynb")
    write(project, "alone", "x = 6 * 7", "print(x)")
    assert executed(project, capsys) == {"alone"}


def test_make_alone_says_what_there_is_to_type():
    done = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, env=os.environ
    )
    for target in ("book", "pages", "lab", "test", "refresh"):
        assert f"make {target}" in done.stdout


def test_the_makefile_and_ci_say_what_the_readme_says():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make book" in readme and "make test" in readme
    assert "make test" in (ROOT / ".ci" / "run").read_text()
