"""The RO-Crate of a supplement: which notebook made which figure from which data, in JSON-LD.

After RO-Crate 1.3 (https://w3id.org/ro/crate/1.3); a run of a notebook is a CreateAction.
"""

import json
import mimetypes
import platform
import re
from pathlib import Path

from ifbook import citing, figures, ledger, runs, stamps

NAME = "ro-crate-metadata.json"
SPECIFICATION = "https://w3id.org/ro/crate/1.3"
LICENCES = {
    "MIT": ("https://spdx.org/licenses/MIT", "MIT License", "LICENSE"),
    "CC-BY-4.0": (
        "https://spdx.org/licenses/CC-BY-4.0",
        "Creative Commons Attribution 4.0 International",
        "LICENSE-CC-BY-4.0.txt",
    ),
}
# Of the files in a folder, what they are and under which licences; the data sets have their own.
KINDS = {
    "figures": ("A figure, or the numbers plotted in it", ["CC-BY-4.0"]),
    "notebooks": ("An executed chapter", ["CC-BY-4.0", "MIT"]),
    "environment": ("The versions of the packages", ["MIT"]),
    "tables": ("A stored table, or its provenance", ["CC-BY-4.0"]),
    "data": ("A data set, or its provenance", []),
}
TYPES = {
    ".ipynb": "application/x-ipynb+json",
    ".bib": "application/x-bibtex",
    ".cff": "application/yaml",
    ".whl": "application/zip",
    ".gz": "application/gzip",
    ".csv": "text/csv",
    ".md": "text/markdown",
}
PIN = re.compile(r"^([\w.-]+)==([^\s;]+)", re.M)


def write(root, folder, citation, commit, date):
    """ro-crate-metadata.json of a supplement's files, as they are in `folder`."""
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    files = {name: _file(folder, name) for name in names if name != NAME}
    libraries = [_software(*pin) for pin in pins(root)]
    actions, took = [], runs.gathered(root)
    for path in sorted((folder / "notebooks").glob("*.ipynb")):
        notebook, used, drawn = run_of(root, folder, path)
        files[notebook] |= {
            "@type": ["File", "SoftwareSourceCode"],
            "name": ledger.title(path),
            "programmingLanguage": _to("#python"),
            "softwareRequirements": _to(*(library["@id"] for library in libraries)),
        }
        for figure in drawn:
            files[figure]["isBasedOn"] = _to(notebook, *used)
        ended = {}
        if path.stem in took:  # as a date in UTC that JSON-LD can read
            ended["endTime"] = took[path.stem]["finished"].replace(" ", "T") + ":00Z"
        actions.append(
            ended
            | {
                "@id": f"#run-{path.stem}",
                "@type": "CreateAction",
                "name": f"Execution of {ledger.title(path)}",
                "instrument": _to(notebook),
                "object": _to(*used),
                "result": _to(*drawn),
            }
        )
    python = {"@id": "#python", "@type": "ComputerLanguage", "name": "Python"}
    python |= {"version": platform.python_version(), "url": "https://www.python.org"}
    authors = [
        {
            "@id": a.get("orcid", f"#author-{i}"),
            "@type": "Organization" if "name" in a else "Person",
            "name": citing.whole(a),
        }
        for i, a in enumerate(citation["authors"], 1)
    ]
    book = {
        "@id": "./",
        "@type": "Dataset",
        "name": citation["title"],
        "description": citation["abstract"].strip(),
        "version": f"{citation['version']}, commit {commit}",
        "datePublished": date.date().isoformat(),
        "license": _to(*(url for url, _, _ in LICENCES.values())),
        "author": _to(*(author["@id"] for author in authors)),
        "keywords": ", ".join(citation["keywords"]),
        "hasPart": _to(*files),
        "mentions": _to(*(action["@id"] for action in actions)),
    }
    if "doi" in citation:
        book["identifier"] = f"https://doi.org/{citation['doi']}"
    about = {"@id": NAME, "@type": "CreativeWork", "about": _to("./")}
    about["conformsTo"] = _to(SPECIFICATION)
    licences = [
        {"@id": url, "@type": "CreativeWork", "name": name, "url": url, "sameAs": _to(text)}
        for url, name, text in LICENCES.values()
    ]
    graph = [about, book, *files.values(), *actions, python, *libraries, *authors, *licences]
    text = json.dumps(
        {"@context": f"{SPECIFICATION}/context", "@graph": graph}, indent=1, ensure_ascii=False
    )
    (folder / NAME).write_text(text + "\n", encoding="utf-8")


def pins(root):
    """(name, version) of each package that the book names itself."""
    return PIN.findall((root / "requirements.txt").read_text(encoding="utf-8"))


def run_of(root, folder, path):
    """A notebook of the supplement, the files that it reads, and those of the figures it draws."""
    cells = stamps.code_cells(path)
    kept = json.loads(stamps.executed(root, path).with_suffix(".json").read_text(encoding="utf-8"))
    ours = [name for name in kept["files"] if name.startswith("ifbook/") and name.endswith(".py")]
    code = "\n".join(
        [cell.source for cell in cells] + [(stamps.CODE / name).read_text("utf-8") for name in ours]
    )
    data = sorted(p for p in (folder / "data").iterdir() if re.search(rf"\bdata\.{p.stem}\b", code))
    read = "ifbook/tables.py" in kept["files"]
    tables = sorted((folder / "tables").rglob("*.csv.gz")) if read else []
    named = (cell.metadata.get("mystnb", {}).get("figure", {}).get("name") for cell in cells)
    drawn = [p for name in named if name for p in figures.files(folder / "figures", name)]

    def names(paths):
        return [p.relative_to(folder).as_posix() for p in paths]

    return *names([path]), names(data + tables), names(drawn)


def _file(folder, name):
    path = folder / name
    kind = TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] or "text/plain"
    about = {"@id": name, "@type": "File", "name": name, "encodingFormat": kind}
    about |= {"contentSize": str(path.stat().st_size), "sha256": stamps.digest(path)}
    if Path(name).parts[0] in KINDS:
        about["description"], licences = KINDS[Path(name).parts[0]]
        under = [LICENCES[licence][0] for licence in licences] or ["data/README.md"]
        about["license"] = _to(*under)
    return about


def _software(name, version):
    about = {"@id": f"#{name}-{version}", "@type": "SoftwareApplication", "name": name}
    return about | {"version": version, "url": f"https://pypi.org/project/{name}/{version}/"}


def _to(*names):
    """A reference; of several names a list."""
    references = [{"@id": name} for name in names]
    return references[0] if len(references) == 1 else references
