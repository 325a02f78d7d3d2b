"""The house: contracts, one version, the picture of the rooms, a wheel that installs alone."""

import importlib
import importlib.metadata
import subprocess
import sys
import tomllib
import venv
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import ifcore
from ifbook import rooms, supplement

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_contracts_between_the_rooms_hold():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-logo"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_contract_of_layers_lists_every_room_in_the_order_of_the_package():
    (layers,) = (
        contract["layers"]
        for contract in PROJECT["tool"]["importlinter"]["contracts"]
        if contract.get("containers") == ["ifcore"]
    )
    assert layers[::-1] == ifcore.__all__
    assert all(importlib.import_module(f"ifcore.{room}").__doc__ for room in ifcore.__all__)


def test_an_import_upwards_or_of_a_private_name_is_found(tmp_path):
    """One of each planted in a copy of the package."""
    copied = subprocess.run(["cp", "-R", ROOT / "ifcore", ROOT / "ifbook", tmp_path], check=True)
    assert copied.returncode == 0
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    room = tmp_path / "ifcore" / "risk" / "empirical.py"
    text = room.read_text(encoding="utf-8")
    room.write_text(
        "from ifcore import solvers\n" + text + "\nprint(solvers._largest)\n", encoding="utf-8"
    )
    lint, ruff = (Path(sys.executable).with_name(name) for name in ("lint-imports", "ruff"))
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [lint, "--no-logo", "--no-cache"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode != 0
    assert "ifcore.risk is not allowed to import ifcore.solvers" in done.stdout
    found = subprocess.run(
        [ruff, "check", "--no-cache", room], cwd=tmp_path, capture_output=True, text=True
    )
    assert "SLF001" in found.stdout and "_largest" in found.stdout


def test_the_version_is_the_same_everywhere():
    assert supplement.version(ROOT) == ifcore.__version__


def test_the_picture_of_the_rooms_is_made_from_the_imports():
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    made = rooms.picture(rooms.imports())
    assert rooms.MARKS[0] + made + rooms.MARKS[1] in page
    assert rooms.imports()["flow"] == {"inputs", "risk", "weights"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of ifcore, built from a copy so that nothing is left beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(["cp", "-R", ROOT / "ifcore", ROOT / "pyproject.toml", folder], check=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    options = ["--no-build-isolation", "--wheel-dir", folder / "out", folder]
    subprocess.run([*command, *options], check=True, capture_output=True)
    (built,) = (folder / "out").glob("ifcore-*.whl")
    return built


def declared(name):
    """The distributions that a wheel's metadata asks for, and what those ask for."""
    found, todo = {}, list(name)
    while todo:
        requirement = Requirement(todo.pop())
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            distribution = importlib.metadata.distribution(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            continue  # the parts of CUDA, for a build that needs none
        if distribution.name not in found:
            found[distribution.name] = distribution
            todo += distribution.requires or []
    return found


LEAVE_ONE_OUT = """
import numpy as np, sys
from ifcore import data, leastsquares, response, risk
X, y = data.standardise(data.diabetes().X), data.diabetes().y
left_out = leastsquares.leave_one_out(X, y).theta
again = response.minimise(
    risk.Risk(risk.linear, risk.squared, X, y), weights=1 - np.eye(len(y))[:3]
).theta
assert np.abs(left_out[:3] - again).max() < 1e-10 * np.abs(again).max()
assert not {"IPython", "matplotlib", "yaml", "ifbook"} & set(sys.modules)
print(len(left_out), "left out")
"""


def test_a_wheel_in_a_bare_environment_computes_a_leave_one_out(wheel, tmp_path):
    """The environment holds the wheel, and links to the distributions that it declares."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith("METADATA"))
        asked = Parser().parsestr(archive.read(metadata).decode()).get_all("Requires-Dist")
    assert {"ifcore/data/diabetes.csv", "ifcore/forgetting/search.py"} <= set(names)
    venv.create(tmp_path / "bare", symlinks=True)
    (site,) = (tmp_path / "bare" / "lib").glob("python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    for distribution in declared(asked).values():
        for top in {file.parts[0] for file in distribution.files if file.parts[0] != ".."}:
            source, target = Path(distribution.locate_file(top)), site / top
            if source.exists() and not target.exists() and top != "__pycache__":
                target.symlink_to(source)
    python = tmp_path / "bare" / "bin" / "python"
    done = subprocess.run(
        [python, "-I", "-c", LEAVE_ONE_OUT], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == "442 left out\n", done.stderr[-2000:]
