"""The book on paper: what LaTeX is given where a page folds, links and moves.

A Sphinx extension. The pages are as they are without it; numbers are the same in both.
"""

import re
import unicodedata
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform

import ifcore
from ifbook import figures

PREAMBLE = Path(__file__).with_name("paper.tex")
FOLDED = {"tag_hide-input", "tag_remove-input", "tag_parameters"}
CODE = "The code "  # how the title of a fold with code begins
END = r"\hspace*{\fill}\nolinebreak\hspace*{1em}$\square$"  # of a proof
NOTE = (
    "Equations, statements, figures and chapters have the numbers that they have on the pages. "
    "The code that the pages fold is left out here; it stands in the notebooks."
)
LONG = 30  # rows of a table that Sphinx lets go over pages
KEPT = {"decision", "proof"}  # classes of containers that paper.tex knows
ELEMENTS = {
    "papersize": "a4paper",
    "pointsize": "10pt",
    "extraclassoptions": "openany,oneside",
    "babel": "",
    "polyglossia": r"\usepackage{polyglossia}\setmainlanguage[variant=british]{english}",
    "fontpkg": "",
    "fncychap": "",
    "fvset": r"\fvset{fontsize=\small}",
    "sphinxsetup": "hmargin=25mm,vmargin={25mm,27mm},TitleColor={rgb}{0,0,0},"
    "InnerLinkColor={rgb}{0,.27,.45},OuterLinkColor={rgb}{0,.27,.45},verbatimwithframe=false,"
    "VerbatimColor={gray}{.96},verbatimhintsturnover=false,"
    "div.note_title-background-TeXcolor={rgb}{.92,.94,.96},div.note_border-TeXcolor={gray}{.7},"
    "div.note_background-TeXcolor={gray}{1}",
    "maketitle": rf"\renewcommand\releasename{{Version}}\release{{{ifcore.__version__}}}"
    r"\def\sphinxheadercomma{, }\sphinxmaketitle",
    "makeindex": "",
    "printindex": "",
}


class Folds(SphinxPostTransform):
    """What folds: code is left out, text stands open. What moves: the figure beside it is there."""

    formats = ("latex",)
    default_priority = 3  # before MyST-NB chooses the form of an output

    def run(self, **kwargs):
        for cell in _containers(self.document, lambda n: FOLDED.intersection(n["classes"])):
            for code in _containers(cell, lambda n: "cell_input" in n["classes"]):
                code.parent.remove(code)
        for fold in _containers(self.document, lambda n: _component(n) == "dropdown"):
            title, mark = fold[0], _mark(fold[0])
            if title.astext().startswith(CODE):
                fold.parent.remove(fold)
            else:
                fold.replace(title, nodes.paragraph("", "", mark, *_strong(title)))
                fold.insert(0, nodes.raw("", r"\medbreak", format="latex"))
        for bundle in _containers(self.document, lambda n: n.get("nb_element") == "mime_bundle"):
            if any('class="touch"' in raw.astext() for raw in bundle.findall(nodes.raw)):
                bundle.parent.remove(bundle)
        for line in list(self.document.findall(nodes.paragraph)):
            if "figure-files" in line["classes"]:
                line.parent.remove(line)


class Drawings(SphinxPostTransform):
    """A figure is its PDF, which scales, where `figures.show` wrote one."""

    formats = ("latex",)
    default_priority = 5

    def run(self, **kwargs):
        folder = Path(self.env.srcdir) / "book" / figures.FOLDER
        for figure in self.document.findall(nodes.figure):
            for image in figure.findall(nodes.image):
                for name in (*figure["names"], Path(image["uri"]).stem):
                    drawing = folder / f"{name}.pdf"
                    if drawing.exists():
                        path = drawing.relative_to(self.env.srcdir).as_posix()
                        self.env.images.add_file(self.env.docname, path)
                        image["uri"], image["candidates"] = path, {"*": path}
                        break


class Plain(SphinxPostTransform):
    """Cards as a list; proofs without a box; no class that means nothing here."""

    formats = ("latex",)
    default_priority = 200  # after references are resolved

    def run(self, **kwargs):
        for grid in _containers(self.document, lambda n: _component(n) == "grid-container"):
            cards = _containers(grid, lambda n: _component(n) == "card")
            grid.replace_self(nodes.bullet_list("", *map(_item, cards)))
        for box in list(self.document.findall(nodes.Admonition)):
            if "proof" in box["classes"] and not isinstance(box, nodes.admonition):
                place = box.parent.index(box)  # a statement, whose label needs a place
                box.parent.insert(place, nodes.raw("", r"\phantomsection", format="latex"))
            elif "proof" in box["classes"]:
                list(box.findall(nodes.paragraph))[-1].append(nodes.raw("", END, format="latex"))
                box.replace_self(nodes.container("", *box.children, classes=["proof"]))
            elif "exercise" in box["classes"]:
                box.insert(1, nodes.paragraph("", "", _mark(box)))
        for node in self.document.findall(nodes.container):
            node["classes"] = [name for name in node["classes"] if name in KEPT]
        for table in self.document.findall(nodes.table):
            _widths(table)
        for title in self.document.findall(nodes.title):
            for math in list(title.findall(nodes.math)):
                text = rf"\texorpdfstring{{\({math.astext()}\)}}{{{spoken(math.astext())}}}"
                title.replace(math, nodes.raw("", text, format="latex"))


class Opening(SphinxPostTransform):
    """The front page is a chapter without a number, before the first part."""

    formats = ("latex",)
    default_priority = 201

    def run(self, **kwargs):
        book = next(self.document.findall(nodes.section))
        before = [n for n in book if not list(n.findall(addnodes.start_of_file))]
        title, *leading = before
        chapter = nodes.section("", nodes.title("", "In short"), ids=["in-short"])
        for node in leading:
            book.remove(node)
        chapter += [nodes.paragraph("", "", nodes.emphasis("", NOTE)), *leading]
        book.insert(1, [nodes.raw("", r"\bookopening", format="latex"), chapter])


def parts(app, doctree):
    """Before the chapters of a part, its caption, and whether they are numbered."""
    for toctree in list(doctree.findall(addnodes.toctree)):
        numbered = "" if toctree.get("numbered") else "*"
        text = f"\\bookpart{numbered}{{{toctree.get('caption')}}}"
        toctree.parent.insert(toctree.parent.index(toctree), nodes.raw("", text, format="latex"))


def spoken(formula):
    """A formula of a title as a reader's list of contents can show it, in letters and signs."""
    text = re.sub(r"\\([A-Za-z]+)", lambda found: _letter(found[1]), formula)
    return re.sub(r"[\\{}^_$]", "", text)


def _letter(name):
    """Of a TeX command: the Greek letter that it names, or nothing."""
    case = "CAPITAL" if name[0].isupper() else "SMALL"
    try:
        return unicodedata.lookup(f"GREEK {case} LETTER {name.removeprefix('var')}")
    except KeyError:
        return {"infty": "∞", "sqrt": "√", "to": "→", "ne": "≠", "le": "≤", "ge": "≥"}.get(name, "")


def _containers(node, wanted):
    return [n for n in node.findall(nodes.container) if wanted(n)]


def _component(node):
    return node.get("design_component")


def _widths(table):
    """A table that goes over pages has columns as wide as their longest text asks for."""
    rows = list(table.findall(nodes.row))
    if len(rows) > LONG:
        columns = list(table.findall(nodes.colspec))
        for column, cells in zip(columns, zip(*rows)):
            column["colwidth"] = min(60, max(len(cell.astext()) for cell in cells))
        table["classes"].append("colwidths-given")


def _mark(node):
    """The targets of a box, which LaTeX has in its text."""
    page = node
    while "docname" not in page.attributes:  # as each section has it that holds a page
        page = page.parent
    docname = page["docname"]
    labels = "".join(rf"\label{{\detokenize{{{docname}:{name}}}}}" for name in node["ids"])
    return nodes.raw("", rf"\phantomsection{labels}" if labels else "", format="latex")


def _strong(title):
    """A fold's title in bold, unless it has roles of its own, as a row of the ledger has."""
    own = any(n.get("classes") for n in title.findall(nodes.inline))
    return title.children if own else [nodes.strong("", "", *title.children)]


def _item(card):
    title = next(n for n in card.findall() if _component(n) == "card-title")
    links = list(card.findall(nodes.reference))[:1]
    text = [n for n in card.findall(nodes.paragraph) if not list(n.findall(nodes.reference))]
    words = [child for paragraph in text for child in paragraph.children]
    head, space = nodes.strong("", title.astext()), nodes.Text(" ")
    return nodes.list_item("", nodes.paragraph("", "", head, space, *words, space, *links))


def configured(app, config):
    config.latex_elements = {**ELEMENTS, "preamble": PREAMBLE.read_text(encoding="utf-8")}
    config.latex_domain_indices = False
    config.latex_use_xindy = False


def setup(app):
    app.connect("config-inited", configured, priority=100)
    app.connect("doctree-read", parts, priority=900)
    for transform in (Folds, Drawings, Plain, Opening):
        app.add_post_transform(transform)
    return {"parallel_read_safe": True}
