"""`make book` in checkouts that are moved, copied, shared and locked: `make drills`.

Each makes environments of its own, which takes minutes. The book is a small one.
"""

import os
import shutil
import subprocess
from pathlib import Path

import books
import pytest

ROOT = Path(__file__).parents[2]
REST = ".git", ".venv", "_build", "book", "assets", "_config.yml", "_toc.yml"
GIVEN = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("MAKE", "PYTHON")) and name != "MFLAGS"
}


def start(folder, *options):
    command = ["make", "book", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=GIVEN, **pipes)


def make(folder, *options):
    """What `make book` says where it ends well."""
    running = start(folder, *options)
    out, err = running.communicate()
    assert running.returncode == 0, err[-3000:]
    return out


def pages(folder):
    return {p.name: p.read_bytes() for p in (folder / "_build" / "html" / "book").glob("*.html")}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout with a small book, its .venv made; a name that a shell would take apart."""
    folder = tmp_path_factory.mktemp("drills") / "my $HOME book"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*REST))
    pins = {name: (ROOT / name).read_bytes() for name in books.environment.PINS}
    books.two_chapters(folder)
    books.with_pages(folder)
    for name, content in pins.items():
        (folder / name).write_bytes(content)
    said = make(folder)
    assert "making .venv" in said and "2 chapters, 2 to execute" in said
    assert "The book is built" in said
    return folder


def test_two_at_once_are_one_and_a_word(checkout):
    shutil.rmtree(checkout / "_build")
    runs = [start(checkout), start(checkout)]
    said = [run.communicate()[1] for run in runs]
    assert sorted(bool(run.returncode) for run in runs) == [False, True], said
    refused = said[0] if runs[0].returncode else said[1]
    assert "another run is at work" in refused and "Traceback" not in refused
    assert "0 to execute" in make(checkout)


@pytest.mark.skipif(
    os.geteuid() == 0 and not shutil.which("unshare"), reason="root writes anywhere"
)
def test_a_checkout_that_cannot_be_written_to(checkout):
    shutil.rmtree(checkout / "_build")
    if os.geteuid():
        checkout.chmod(0o555)
        command = ["make", "book"]
    else:
        script = 'mount --bind . . && mount -o remount,bind,ro . && cd "$PWD" && make book'
        command = ["unshare", "--mount", "sh", "-c", script]
    done = subprocess.run(command, cwd=checkout, env=GIVEN, capture_output=True, text=True)
    checkout.chmod(0o755)
    assert done.returncode and "cannot be written to" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr


def test_a_copy_that_is_edited_computes_with_its_own_code(checkout):
    make(checkout)
    original = pages(checkout)
    copy = checkout.with_name("copy")
    shutil.copytree(checkout, copy, symlinks=True)
    module = copy / "ifcore" / "leastsquares.py"
    module.write_text(module.read_text() + "\nprint('edited')\n")
    said = make(copy)
    assert "of another folder" in said and "making .venv" in said
    assert "2 chapters, 1 to execute" in said
    assert b"edited" in pages(copy)["importing.html"]
    assert "0 to execute" in make(checkout) and pages(checkout) == original


def test_a_checkout_that_was_moved_is_built_already(checkout):
    make(checkout)
    before = pages(checkout)
    moved = checkout.rename(checkout.with_name("moved"))
    said = make(moved)
    assert "making .venv" in said and "0 to execute" in said
    assert "building the pages" not in said and pages(moved) == before
