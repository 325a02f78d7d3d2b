"""Makes .venv, the environment of this checkout, unless it is there: what `make` runs first.

It runs in any Python, before a package is there, so the standard library is all that it uses.
"""

import argparse
import fcntl
import hashlib
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BOOK = Path(__file__).with_name("book")  # in a wheel; setup.py puts there what chapters read
if not BOOK.exists():
    BOOK = ROOT / "book"
PYTHON = ROOT / ".venv" / "bin" / "python"
PINS = "requirements.txt", "constraints.txt", "torch.txt"


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--torch-index", metavar="URL", help="where torch alone is taken from")
    arguments = parser.parse_args()
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        sys.exit(
            f"{sys.executable} is Python {platform.python_version()}; "
            "the book needs Python 3.11, 3.12 or 3.13."
        )
    if not ready():
        with lock(ROOT):
            make(arguments.torch_index)
    if not any((ROOT / "_build" / "matplotlib").glob("fontlist*")):
        # Matplotlib lists the fonts once, and a kernel that waits for it would say so in a chapter.
        run(PYTHON, "-c", "import matplotlib.font_manager")


def ready():
    """Whether .venv was made for these pins, in this place: what is in it knows absolute paths."""
    kept = ROOT / ".venv" / ".ready"
    return PYTHON.exists() and kept.exists() and kept.read_text(encoding="utf-8") == wanted()


def wanted():
    """The place of this checkout, and a hash of what its environment is made from."""
    names = *PINS, "pyproject.toml", "ifbook/pyproject.toml"
    content = b"".join((ROOT / name).read_bytes() for name in names)
    return f"{ROOT}\n{hashlib.sha256(content).hexdigest()}\n"


def make(torch_index=None):
    """All packages by their hashes; then torch, whose build differs by index; then the book's."""
    kept = ROOT / ".venv" / ".ready"
    if kept.exists():
        kept.unlink()
        print("the environment in .venv is of other pins, or of another folder than this")
    print(f"making .venv with Python {platform.python_version()}", flush=True)
    run(sys.executable, "-I", "-m", "venv", "--clear", ROOT / ".venv")
    index = ["--index-url", torch_index] if torch_index else []
    install("--no-deps", "--require-hashes", "-r", ROOT / "constraints.txt")
    install(*index, "-r", ROOT / "requirements.txt", "-c", ROOT / "torch.txt")
    own = ["--editable", ROOT, "--editable", ROOT / "ifbook"]
    install("--no-deps", "--no-build-isolation", *own)
    kept.write_text(wanted(), encoding="utf-8")


def install(*arguments):
    run(PYTHON, "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *arguments)


def run(*command):
    """Runs a command; where it fails, so does this, after what it said."""
    if subprocess.run(command).returncode:
        sys.exit(f"the environment in .venv was not made: {' '.join(map(str, command))} failed")


def lock(root):
    """Takes `root`/_build for one run: until the file returned is closed, or the process ends.

    Exits with a word where another run has it, or where nothing can be written.
    """
    folder = root / "_build"
    try:
        folder.mkdir(exist_ok=True)
        file = open(folder / "lock", "w")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"another run is at work in {folder}; when it has ended, run this again.")
    except OSError as error:
        sys.exit(f"{folder} cannot be written to ({error.strerror}), and the book is built there.")
    return file


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\nInterrupted. The environment is made anew next time.", file=sys.stderr)
        sys.exit(130)
