"""The directive `ledger` of the pages, a Sphinx extension."""

from pathlib import Path

from sphinx.util.docutils import SphinxDirective

from ifbook import ledger


class Ledger(SphinxDirective):
    """`score` or `table`, as the argument says, from the book's executed chapters."""

    required_arguments = 1

    def run(self):
        folder = Path(self.env.srcdir) / "book"
        for path in [ledger.CLAIMS, *folder.glob("*.ipynb")]:
            self.env.note_dependency(str(path))
        text = {"score": ledger.score, "table": ledger.table}[self.arguments[0]](folder)
        return self.parse_text_to_nodes(text)


def setup(app):
    app.add_directive("ledger", Ledger)
    return {"parallel_read_safe": True}
