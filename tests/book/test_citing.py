"""The entries to cite: read back by a reader of BibTeX, and typed nowhere else."""

import re
from pathlib import Path
from types import SimpleNamespace

import pybtex.database
import pytest
import yaml
from jupyter_book.config import get_final_config

from ifbook import citing, directives

ROOT = Path(__file__).parents[2]
PEOPLE = """
title: "A book: with a part"
authors:
  - family-names: Okafor
    given-names: Ada Grace
  - name: The Group
version: 2.0.1
date-released: 2027-03-04
url: https://example.org/book/
doi: 10.1234/abc
"""


@pytest.fixture
def people(tmp_path):
    (tmp_path / "CITATION.cff").write_text(PEOPLE, encoding="utf-8")
    return citing.edition(tmp_path / "CITATION.cff")


def read(entry):
    ((key, found),) = pybtex.database.parse_string(entry, "bibtex").entries.items()
    return key, found


def test_an_entry_of_the_book_reads_back(people):
    key, found = read(citing.bibtex(people))
    assert (key, found.type) == ("a-book-2027", "book")
    first, second = found.persons["author"]
    assert (first.last_names, first.first_names, first.middle_names) == (
        ["Okafor"],
        ["Ada"],
        ["Grace"],
    )
    assert str(second) == "{The Group}"
    assert found.fields["title"] == "{A book: with a part}"
    assert found.fields["note"] == "Version 2.0.1" and found.fields["year"] == "2027"
    assert found.fields["doi"] == "10.1234/abc"


def test_an_entry_of_a_chapter_has_its_title_and_its_address(people):
    address = people.page("leverage.html")
    key, found = read(citing.bibtex(people, "chapter", "leverage", "Costs & effects", address))
    assert (key, found.type) == ("a-book-2027-leverage", "incollection")
    assert found.fields["title"] == r"{Costs \& effects}"
    assert found.fields["booktitle"] == "{A book: with a part}"
    assert found.fields["url"] == "https://example.org/book/book/leverage.html"


def test_the_line_in_the_style_of_the_apa(people):
    assert citing.authors(people) == "Ada Grace Okafor and The Group"
    assert citing.apa(people) == (
        "Okafor, A. G., & The Group. (2027). A book: with a part (Version 2.0.1). "
        "https://doi.org/10.1234/abc"
    )
    assert citing.apa(people, "Claim C3b", "https://example.org/book/ledger.html") == (
        "Okafor, A. G., & The Group. (2027). Claim C3b. In A book: with a part (Version 2.0.1). "
        "https://example.org/book/ledger.html"
    )


def test_without_an_address_there_is_none():
    given = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    _, found = read(citing.bibtex(citing.edition()))
    assert found.fields["note"] == f"Version {given['version']}"
    for field in ("url", "doi"):
        assert (field in found.fields) == (field in given)


def test_a_field_that_is_missing_is_named(tmp_path):
    (tmp_path / "CITATION.cff").write_text("title: A book\n", encoding="utf-8")
    with pytest.raises(KeyError, match="date-released"):
        citing.edition(tmp_path / "CITATION.cff")


def test_pages_and_configuration_type_neither_version_nor_authors():
    of = citing.edition()
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    for path in (ROOT / "book").glob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(rf"\b{re.escape(of.version)}\b", text), path.name
    assert not {"author", "copyright"} & set(yaml.safe_load(config))
    assert of.title.startswith(yaml.safe_load(config)["title"])


@pytest.mark.parametrize("url", ["", "https://github.com/someone/a-book"])
def test_the_foot_and_the_button_of_the_repository(url):
    """Through jupyter-book's own reading of the configuration."""
    given = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    licences = given["html"]["extra_footer"]
    given["repository"] = {"url": url}
    sphinx, _ = get_final_config(user_yaml=given, cli_config={"latex_individualpages": False})
    config = SimpleNamespace(html_theme_options=sphinx["html_theme_options"])
    directives.at_the_foot(None, config)
    assert config.html_theme_options["use_repository_button"] is bool(url)
    assert config.html_theme_options["repository_url"] == url
    foot = config.html_theme_options["extra_footer"]
    assert citing.edition().version in foot and licences in foot
    assert config.author == citing.authors(citing.edition())
