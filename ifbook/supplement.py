"""Makes the folder to deposit, from a commit and what `make book` made of it: `make supplement`.

Twice from one commit it is the same bytes: every date is the commit's. Where TeX is missing the
PDF is left out, and what to install is said.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import yaml

from ifbook import chapters, citing, crate, environment, ledger, stamps

FOLDER = "_build/supplement"
CITED = re.compile(r"version (\d+(?:\.\d+)+)")
PACKAGES = (  # of Debian and Ubuntu
    "latexmk texlive-latex-recommended texlive-latex-extra texlive-fonts-recommended "
    "texlive-xetex fonts-texgyre fonts-texgyre-math fonts-dejavu-core fonts-freefont-otf"
)
DEBIAN = f"apt-get install --no-install-recommends {PACKAGES}"
PROGRAMS = "latexmk", "xelatex", "xdvipdfmx", "fc-list"
FONTS = "TeX Gyre Termes", "TeX Gyre Termes Math", "TeX Gyre Heros", "DejaVu Sans Mono", "FreeSerif"
WIDE = 10  # points that a line of the PDF may stick out
LICENCES = "LICENSE", "LICENSE-CC-BY-4.0.txt"
README = """# {title}

Version {version}, commit {commit}.

| | |
|--|--|
| `book.pdf` | the whole book on paper{without} |
| `site.zip` | its pages; unpack, and open `index.html` |
| `notebooks/` | the executed chapters |
| `figures/` | each figure as SVG and PDF, and the plotted numbers as CSV |
| `data/`, `tables/` | the data sets, and the stored tables with their provenance |
| `source.zip` | the repository: unpack, and `make book` makes all this again |
| `ifcore-*.whl`, `ifbook-*.whl` | the two packages that a notebook alone runs beside |
| `environment/` | the versions of all packages |
| `CITATION.cff`, `citation.bib`, `references.bib` | how to cite the book, and what it cites |
| `ro-crate-metadata.json` | which notebook made which figure from which data with which versions |
| `SHA256SUMS` | for `sha256sum --check SHA256SUMS` |

Code is under the MIT licence (`LICENSE`), text and figures under CC BY 4.0
(`LICENSE-CC-BY-4.0.txt`); the data sets keep their own (`data/README.md`).
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--root", type=Path, default=Path(__file__).parents[1], help="the project's folder"
    )
    parser.add_argument("--anyway", action="store_true", help="make it in spite of faults")
    arguments = parser.parse_args()
    root = arguments.root.resolve()
    with environment.lock(root):
        refuse(root, arguments.anyway)
        make(root, arguments.anyway)


def refuse(root, anyway):
    """Ends with what speaks against a deposit; `anyway` it is only said, but for the version."""
    version(root)
    if not (root / "_build" / "html").exists():
        sys.exit("there are no pages to deposit yet; `make book` makes them.")
    found = list(faults(root))
    for fault in found:
        print(fault, file=sys.stderr)
    if found and not anyway:
        sys.exit("no supplement was made; `make supplement ANYWAY=1` makes it in spite of this.")


def version(root):
    """The version that every file gives; exits where two disagree, or where one has none."""

    def text(name):
        return (root / name).read_text(encoding="utf-8")

    heading = re.search(r"^## ([^\s,]+)", text("CHANGELOG.md"), re.M)
    configured = yaml.safe_load(text("_config.yml")).get("sphinx", {}).get("config", {})
    found = {
        "pyproject.toml": tomllib.loads(text("pyproject.toml"))["project"]["version"],
        "CITATION.cff": str(yaml.safe_load(text("CITATION.cff"))["version"]),
        "CHANGELOG.md": heading and heading[1],
    }
    found |= {
        f"_config.yml ({k})": configured[k] for k in ("version", "release") if k in configured
    }
    for page in sorted((root / "book").glob("*.md")):
        found |= {f"book/{page.name}": v for v in CITED.findall(page.read_text(encoding="utf-8"))}
    if len(set(found.values())) > 1:
        said = ", ".join(f"{value} in {name}" for name, value in found.items())
        sys.exit(f"the version must be the same everywhere; it is {said}.")
    return found["pyproject.toml"]


def faults(root):
    """What speaks against a deposit from this tree, as sentences."""
    if changed := git(root, "status", "--porcelain").splitlines():
        names = ", ".join(line[3:] for line in changed[:5])
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        yield f"not committed: {names}{more}"
    notebooks = sorted((root / "book").glob("*.ipynb"))
    if stale := [path.stem for path in notebooks if not stamps.fresh(root, path)]:
        yield f"stale outputs, which `make book` makes anew: {', '.join(stale)}"
    else:
        chapters.lay_out(root)
        if not chapters.pages_stand(root):
            yield "the pages are not of these chapters; `make book` builds them"
    claims = ledger.claims(root / "book" / "claims.yml")
    evidence = ledger.collect(root / "_build" / "executed")
    yield from ledger.faults(claims, evidence)
    if pending := [claim for claim, row in claims.items() if row.get("pending")]:
        yield f"undecided claims: {', '.join(pending)}"


def git(root, *arguments):
    """What git says of the checkout; exits where it is none."""
    done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{root} is no git checkout, and a supplement is of a commit: {done.stderr}")
    return done.stdout


def make(root, anyway=False):
    """Makes the folder anew."""
    folder = root / FOLDER
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    epoch = int(git(root, "log", "-1", "--format=%ct"))
    copy_files(root, folder)
    pack(root / "_build" / "html", folder / "site.zip", epoch)
    tracked = git(root, "ls-files", "-z").split("\0")
    pack(root, folder / "source.zip", epoch, [name for name in tracked if (root / name).is_file()])
    wheels(root, folder, epoch)
    if absent := missing():
        print(f"the PDF is left out: there is no {', no '.join(absent)}. On Debian: {DEBIAN}")
    else:
        print("making the PDF, which takes minutes", flush=True)
        paper(root, folder / "book.pdf", epoch, anyway)
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    entry = citing.bibtex(citing.edition(root / "CITATION.cff")) + "\n"
    (folder / "citation.bib").write_text(entry, encoding="utf-8")
    commit = git(root, "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*").strip()
    about = {"title": citation["title"], "version": citation["version"], "commit": commit}
    without = " (left out here: TeX was missing)" if absent else ""
    text = README.format(**about, without=without)
    (folder / "README.md").write_text(text, encoding="utf-8")
    crate.write(root, folder, citation, commit, datetime.fromtimestamp(epoch, UTC))
    checksums(folder)
    print(f"The supplement is made, of commit {commit}: {folder}")


def copy_files(root, folder):
    """What is deposited as it stands: laid out by `make book`, or tracked."""
    laid = root / "_build" / "source" / "book"
    for name, files in {
        "notebooks": laid.glob("*.ipynb"),
        "figures": (laid / "figures").glob("fig-*"),
        "data": [p for p in (root / "ifcore/data").glob("*.*") if p.suffix != ".py"],
        "environment": [root / name for name in environment.PINS],
        "": [root / name for name in ("CITATION.cff", "book/references.bib", *LICENCES)],
    }.items():
        (folder / name).mkdir(exist_ok=True)
        for path in files:
            shutil.copyfile(path, folder / name / path.name)
    shutil.copytree(root / "book" / "tables", folder / "tables", copy_function=shutil.copyfile)


def pack(folder, path, epoch, names=None):
    """The files of a folder as a zip file, in order of their names, with one date and one mode.

    names : of the files, relative to the folder; without them all.
    """
    if names is None:
        names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    date = datetime.fromtimestamp(epoch, UTC)
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(names):
            entry = zipfile.ZipInfo(name, date.timetuple()[:6])
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, (folder / name).read_bytes())


def wheels(root, folder, epoch):
    """The wheels of ifcore and ifbook, built from a copy so that nothing is left beside them."""
    parts = "ifcore", "ifbook", "pyproject.toml", "LICENSE", "book/claims.yml", "book/tables"
    with tempfile.TemporaryDirectory() as place:
        for name in git(root, "ls-files", "-z", *parts).split("\0")[:-1]:
            to = Path(place, name)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, to)
            to.chmod(0o644)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
        options = ["--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", folder]
        sources = [place, Path(place, "ifbook")]
        run([*command, *options, *sources], dated(epoch), "the wheels were not built")


def missing():
    """The programs, styles and fonts that the PDF needs and this machine does not have."""
    absent = [name for name in PROGRAMS if not shutil.which(name)]
    if absent:
        return absent
    fonts = subprocess.run(["fc-list", ":", "family"], capture_output=True, text=True).stdout
    families = {name.strip() for line in fonts.splitlines() for name in line.split(",")}
    styles = ("unicode-math.sty", "titlesec.sty", "tcolorbox.sty")
    found = subprocess.run(["kpsewhich", *styles], capture_output=True, text=True).stdout
    return [f"style {s}" for s in styles if s not in found] + [
        f"font {f}" for f in FONTS if f not in families
    ]


def paper(root, path, epoch, anyway=False):
    """The PDF of the laid out book; exits with the log's faults, which `anyway` are only said."""
    build = root / "_build" / "paper"
    shutil.rmtree(build, ignore_errors=True)
    source = root / "_build" / "source"
    options = ["--path-output", build, "--builder", "latex", "-q", "-W", "-n", "--keep-going"]
    run(
        [sys.executable, "-c", chapters.JUPYTER_BOOK, "build", source, *options],
        dated(epoch),
        "the book was not written in LaTeX",
    )
    latex = build / "_build" / "latex"
    command = ["latexmk", "-pdfxe", "-silent", "-interaction=nonstopmode", "book.tex"]
    run(command, dated(epoch), f"TeX ended with an error, see {latex / 'book.log'}", cwd=latex)
    found = log_faults((latex / "book.log").read_text(encoding="utf-8", errors="replace"))
    for fault in found:
        print(fault, file=sys.stderr)
    if found and not anyway:
        sys.exit(f"the PDF has faults, above; it is {latex / 'book.pdf'}")
    shutil.copyfile(latex / "book.pdf", path)


def log_faults(log):
    """What a log of TeX says that a reader would see: signs, references, lines that stick out."""
    lost = re.findall(
        r"^Missing character: .*|^LaTeX Warning: .*(?:undefined|multiply defined).*", log, re.M
    )
    wide = re.findall(r"^Overfull \\hbox \(([\d.]+)pt too wide\)(.*)", log, re.M)
    lines = [f"a line sticks out by {pt} pt{where}" for pt, where in wide if float(pt) > WIDE]
    return sorted(set(lost)) + lines


def dated(epoch):
    """The environment of what writes dates, so that they are the commit's."""
    fixed = {"SOURCE_DATE_EPOCH": str(epoch), "FORCE_SOURCE_DATE": "1", "TZ": "UTC"}
    return os.environ | fixed | {"max_print_line": "10000"}  # a line of the log is a line


def run(command, env, failed, cwd=None):
    """Runs a command; exits with the end of what it said where it fails."""
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{(done.stdout + done.stderr)[-3000:]}\n{failed}")


def checksums(folder):
    """SHA256SUMS: the digest of every other file, as sha256sum writes it."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    lines = [f"{stamps.digest(p)}  {p.relative_to(folder).as_posix()}\n" for p in files]
    (folder / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The supplement is made anew next time.")
