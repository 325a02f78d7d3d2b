"""What the pages are made with: the directive `ledger`, and links to the files of each figure.

A Sphinx extension.
"""

from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

from ifbook import figures, ledger

SCREEN = 2500  # characters, with those of the formulas' TeX
GIVEN_TO_ALL = {"proof", "proof-content"}  # the ids that sphinx-proof gives to every proof


class Ledger(SphinxDirective):
    """`score` or `table`, as the argument says, from the book's executed chapters."""

    required_arguments = 1

    def run(self):
        folder = Path(self.env.srcdir) / "book"
        for path in [ledger.CLAIMS, *folder.glob("*.ipynb")]:
            self.env.note_dependency(str(path))
        text = {"score": ledger.score, "table": ledger.table}[self.arguments[0]](folder)
        return self.parse_text_to_nodes(text)


class FigureFiles(SphinxTransform):
    """Below each figure of a chapter, a line of links to the files that `figures.show` wrote."""

    default_priority = 500

    def apply(self):
        folder = Path(self.env.doc2path(self.env.docname)).parent / figures.FOLDER
        for figure in list(self.document.findall(nodes.figure)):
            name = next((name for name in figure["names"] if figures.files(folder, name)), "")
            if name:
                links = self._links(name, figures.files(folder, name))
                figure.parent.insert(figure.parent.index(figure) + 1, links)

    def _links(self, name, files):
        drawings = {f"{name}.{kind}": text for text, kind in figures.KINDS.items()}
        line = nodes.paragraph(classes=["figure-files"])
        for path in files:
            if len(line):
                line += nodes.Text(" · ")
            table = path.stem.removeprefix(name).removeprefix(".").replace("-", " ")
            text = drawings.get(path.name, f"numbers: {table}" if table else "numbers")
            target = f"{figures.FOLDER}/{path.name}"
            line += addnodes.download_reference(
                "", "", nodes.inline("", text), reftarget=target, refdoc=self.env.docname
            )
        return line


class Proofs(SphinxTransform):
    """A proof that is longer than a screen is folded; no id occurs twice on a page."""

    default_priority = 500

    def apply(self):
        boxes = [n for n in self.document.findall(nodes.Element) if "proof" in n.get("classes", ())]
        for i, node in enumerate(boxes):
            for part in (node, *node.findall(nodes.section)):
                if GIVEN_TO_ALL.intersection(part["ids"]):
                    part["ids"] = [f"{part['ids'][0]}-box-{i}"]
            if isinstance(node, nodes.admonition) and len(node.astext()) > SCREEN:
                ends = ('<details class="proof-fold"><summary>Proof</summary>', "</details>")
                before, after = (nodes.raw("", html, format="html") for html in ends)
                place = node.parent.index(node)
                node.parent[place : place + 1] = [before, node, after]


def without_aliases(app, what, name, obj, options, lines):
    """A field of a named tuple that has no comment says nothing, not which number it has."""
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()


def setup(app):
    app.connect("autodoc-process-docstring", without_aliases)
    app.add_directive("ledger", Ledger)
    app.add_transform(FigureFiles)
    app.add_transform(Proofs)
    return {"parallel_read_safe": True}
