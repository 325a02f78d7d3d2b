"""The libraries that are compared with: put into _build/peers, where the network allows.

They come without what they depend on: the environment's own packages, pinned, stand before them.
"""

import importlib
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

from ifbook.environment import ROOT

FOLDER = ROOT / "_build" / "peers"
PINS = Path(__file__).with_name("peers.txt")
LIBRARIES = {"captum": "captum", "curvlinops-for-pytorch": "curvlinops", "dattri": "dattri"}


def ready():
    """The versions of those that can be imported, {name: version}; says what is left out."""
    kept, wanted = FOLDER / ".pins", PINS.read_text(encoding="utf-8")
    if not kept.exists() or kept.read_text(encoding="utf-8") != wanted:
        options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--upgrade"]
        command = [sys.executable, "-m", "pip", "install", *options]
        done = subprocess.run([*command, "--target", FOLDER, "-r", PINS])
        if done.returncode == 0:
            kept.write_text(wanted, encoding="utf-8")
    if str(FOLDER) not in sys.path:
        sys.path.append(str(FOLDER))
    importlib.invalidate_caches()
    there = {found.name: found.version for found in distributions(path=[str(FOLDER)])}
    return {name: there[name] for name, module in LIBRARIES.items() if _imports(name, module)}


def _imports(name, module):
    try:
        importlib.import_module(module)
    except ImportError as error:
        print(f"{name} is left out: {error}")
        return False
    return True
