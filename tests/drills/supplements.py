"""The whole supplement: made twice it is the same, its numbers are the pages', its crate is valid.

It takes ten minutes, TeX, and an environment of its own for the validator.
"""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import papers
import pytest
from bs4 import BeautifulSoup

from ifbook import supplement

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / supplement.FOLDER
VALIDATOR = "rocrate==0.16.0", "roc-validator==0.13.0"
# The validator reads the JSON-LD context from its cache; rocrate carries it.
CACHE = """
import sys, pathlib, requests, rocrate, urllib3
from rocrate_validator.utils.http import HttpRequester
url = "https://w3id.org/ro/crate/1.3/context"
body = (pathlib.Path(rocrate.__file__).parent / "data" / "ro-crate.jsonld").read_bytes()
HttpRequester.initialize_cache(cache_path=sys.argv[1], cache_max_age=-1)
for accept in ({}, {"Accept": "application/ld+json, application/json"}):
    response = requests.Response()
    response.status_code, response.url, response._content = 200, url, body
    response.headers["Content-Type"] = "application/ld+json"
    response.request = requests.Request("GET", url, headers=accept).prepare()
    response.raw = urllib3.HTTPResponse(
        body=body, headers=response.headers, status=200, request_url=url, preload_content=False
    )
    HttpRequester().session.cache.save_response(response)
"""


def sums():
    subprocess.run(["make", "supplement", "ANYWAY=1"], cwd=ROOT, check=True)
    return (FOLDER / "SHA256SUMS").read_text()


@pytest.fixture(scope="module")
def made():
    if absent := supplement.missing():
        pytest.skip(f"no {', no '.join(absent)}; on Debian: {supplement.DEBIAN}")
    subprocess.run(["make", "book"], cwd=ROOT, check=True)
    return sums()


def test_twice_is_the_same(made):
    assert "book.pdf" in made
    assert sums() == made


def test_pages_and_paper_have_the_same_numbers(made):
    pages = papers.on_pages(ROOT / "_build" / "html")
    assert pages == papers.on_paper(ROOT / "_build" / "paper" / "_build" / "latex")
    assert len(pages["equations"]) > 100 and len(pages["statements"]) > 100


def test_the_site_is_whole(made):
    with zipfile.ZipFile(FOLDER / "site.zip") as archive:
        html = ROOT / "_build" / "html"
        files = {p.relative_to(html).as_posix() for p in html.rglob("*") if p.is_file()}
        assert set(archive.namelist()) == files and "index.html" in files


def test_a_chapter_runs_by_the_lines_on_its_page(made, tmp_path):
    """In an empty folder, beside what the supplement has: the page, the wheels, the notebook."""
    with zipfile.ZipFile(FOLDER / "site.zip") as archive:
        page = BeautifulSoup(archive.read("book/leverage.html"), "html.parser")
    lines = page.find("details", class_="again").find_all("pre")[1].get_text()
    for path in (*FOLDER.glob("*.whl"), FOLDER / "notebooks" / "leverage.ipynb"):
        shutil.copy(path, tmp_path)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    given = {"PATH": f"{tmp_path / 'venv' / 'bin'}:/usr/bin:/bin", "HOME": str(tmp_path)}
    subprocess.run(["sh", "-e", "-c", lines], cwd=tmp_path, env=given, check=True)
    ran = json.loads((tmp_path / "again.ipynb").read_text())["cells"]
    code = [cell for cell in ran if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code)
    assert any("seed = 7" in "".join(cell["source"]) for cell in code)


def test_a_validator_accepts_the_crate(made, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python, cache = tmp_path / "venv" / "bin" / "python", tmp_path / "cache"
    subprocess.run([python, "-I", "-m", "pip", "install", "--quiet", *VALIDATOR], check=True)
    subprocess.run([python, "-I", "-c", CACHE, cache], check=True)
    command = [python.with_name("rocrate-validator"), "-y", "validate", "--cache-path", cache]
    options = ["--offline", "--no-paging", "--skip-availability-check", "-f", "json"]
    said = tmp_path / "said.json"
    subprocess.run([*command, *options, "-o", said, FOLDER], env={}, check=False)
    found = json.loads(said.read_text())
    assert found["passed"], found["issues"]
