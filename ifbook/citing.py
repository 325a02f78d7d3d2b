"""How the book, a chapter and a claim are cited: by CITATION.cff, and no other place."""

import re
from pathlib import Path
from typing import NamedTuple

import yaml

CFF = Path(__file__).parents[1] / "CITATION.cff"
PART = {"": "book", "chapter": "incollection", "claim": "incollection"}  # kinds of BibTeX


class Edition(NamedTuple):
    """What CITATION.cff says; authors are its dicts, url and doi are empty where it has none."""

    title: str
    authors: list
    version: str
    year: str
    url: str = ""
    doi: str = ""

    def page(self, name):
        """The address of a page of this edition, such as `ledger.html`; empty without `url`."""
        return f"{self.url.rstrip('/')}/book/{name}" if self.url else ""


def edition(path=CFF):
    """The edition at hand. Raises KeyError, naming it, for a field that the file lacks."""
    read = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    year = str(read["date-released"])[:4]
    optional = {key: str(read.get(key, "")) for key in ("url", "doi")}
    return Edition(read["title"], read["authors"], str(read["version"]), year, **optional)


def authors(of):
    """Their names in a sentence."""
    names = [whole(author) for author in of.authors]
    return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + names[-1:])


def apa(of, part="", address=""):
    """A line in the style of the APA. part : "Claim C3b", or a chapter's title; address : its."""
    names = [_short(author) for author in of.authors]
    if len(names) > 1:
        names[-1] = f"& {names[-1]}"
    who = ", ".join(names).rstrip(".") + "."
    where = f"https://doi.org/{of.doi}" if of.doi and not part else address or of.url
    whole = f"{of.title} (Version {of.version})."
    what = f"{part}. In {whole}" if part else whole
    return " ".join([f"{who} ({of.year}). {what}", where]).strip()


def bibtex(of, kind="", name="", part="", address=""):
    """An entry. kind : "", "chapter" or "claim"; name : what it is called in the key."""
    names = " and ".join(_inverted(author) for author in of.authors)
    key = "-".join([*re.findall(r"\w+", of.title.partition(":")[0].lower()), of.year, name])
    fields = {"author": names, "title": part or of.title, "booktitle": of.title if part else ""}
    fields |= {"year": of.year, "note": f"Version {of.version}"}
    fields |= {"doi": of.doi, "url": address or of.url}
    for field in ("title", "booktitle"):  # the inner braces hold the capitals
        fields[field] = fields[field] and f"{{{_escaped(fields[field])}}}"
    lines = [f"  {field:<9} = {{{text}}}," for field, text in fields.items() if text]
    return "\n".join([f"@{PART[kind]}{{{key.rstrip('-')},", *lines, "}"])


def _escaped(text):
    return re.sub(r"([&%#_])", r"\\\1", text)


def whole(author):
    return author.get("name") or f"{author['given-names']} {author['family-names']}"


def _inverted(author):
    name = author.get("name")
    return f"{{{name}}}" if name else f"{author['family-names']}, {author['given-names']}"


def _short(author):
    if "name" in author:
        return author["name"]
    initials = " ".join(f"{given[0]}." for given in author["given-names"].split())
    return f"{author['family-names']}, {initials}"
