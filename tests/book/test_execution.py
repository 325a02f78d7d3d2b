"""`make book` and `make refresh`: what is executed again and what is kept, what a failure says."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import yaml

from ifbook import chapters

ROOT = Path(__file__).parents[2]

IMPORTING = "from ifcore import data, leastsquares\nprint(len(data.diabetes().y))"


def write(root, name, *sources, prose="Some prose."):
    cells = [nbformat.v4.new_markdown_cell(prose, id="prose")]
    cells += [nbformat.v4.new_code_cell(source, id=f"code-{i}") for i, source in enumerate(sources)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), root / "book" / f"{name}.ipynb")


@pytest.fixture
def project(tmp_path):
    """A small project with two chapters: one computes with ifcore, the other does not."""
    (tmp_path / "book").mkdir()
    (tmp_path / "requirements.txt").write_text("numpy==1\n")
    (tmp_path / "constraints.txt").write_text("")
    rows = [
        {"id": "X1", "chapter": "alone", "right": "a"},
        {"id": "X2", "chapter": "elsewhere", "right": "b"},
    ]
    (tmp_path / "book" / "claims.yml").write_text(yaml.safe_dump(rows))
    write(tmp_path, "alone", "x = 6 * 7", "print(x)")
    write(tmp_path, "importing", IMPORTING)
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
    honest = chapters.digest
    path = ROOT / "ifcore" / changed
    monkeypatch.setattr(chapters, "digest", lambda c: "other" if c == path else honest(c))
    assert executed(project, capsys) == ({"importing"} if stale else set())


def test_a_new_data_file_reaches_them_too(project, capsys, monkeypatch):
    executed(project, capsys)
    monkeypatch.setattr(
        chapters, "imported", lambda names, honest=chapters.imported: [*honest(names), "new.csv"]
    )
    assert not chapters.fresh(project, project / "book" / "importing.ipynb")


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
    command = [sys.executable, "-m", "ifbook.chapters", "book", "--root", project]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "1 of the chapters failed: broken" in done.stderr
    assert (project / "_build" / "executed" / "alone.json").exists()
    assert not (project / "_build" / "html").exists()


@pytest.mark.parametrize("how, code", [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_resumes_after_a_kill(project, capsys, how, code):
    write(project, "slow", "import time\nopen('started', 'w').close()\ntime.sleep(600)")
    command = [sys.executable, "-m", "ifbook.chapters", "book", "--root", project, "--jobs", "2"]
    running = subprocess.Popen(
        command,
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


def test_a_stamp_cut_short_is_no_stamp(project, capsys):
    executed(project, capsys)
    stamp = project / "_build" / "executed" / "alone.json"
    stamp.write_text(stamp.read_text()[:40])
    assert executed(project, capsys) == {"alone"}


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
    assert not chapters.fresh(project, project / "book" / "alone.ipynb")
    write(project, "alone", "x = 6 * 7", "print(x)")
    assert executed(project, capsys) == {"alone"}


def test_names_with_blanks_are_names(tmp_path):
    path = tmp_path / "my book" / "flow.py"
    path.parent.mkdir()
    path.write_text("x = 1")
    assert list(chapters.imported(f"{path}\n".splitlines())) == [str(path)]


def test_make_alone_says_what_there_is_to_type():
    done = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, env=os.environ
    )
    for target in ("book", "test", "refresh"):
        assert f"make {target}" in done.stdout


def test_the_makefile_and_ci_say_what_the_readme_says():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make book" in readme and "make test" in readme
    assert "make test" in (ROOT / ".ci" / "run").read_text()
