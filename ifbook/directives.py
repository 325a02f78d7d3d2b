"""What the pages are made with: the directives `ledger`, `status`, `statements` and `cite-as`, the
role `edition`, links to the files of each figure, and the foot of each page.

A Sphinx extension.
"""

import itertools
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

from ifbook import citing, figures, ledger, runs

SCREEN = 2500  # characters, with those of the formulas' TeX
GLOSSARY = "book/glossary"
NUMBERED = re.compile(r"(Definition|Lemma|Proposition|Corollary)s? (\d[\d.]*)(?: and (\d))?")
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


class CiteAs(SphinxDirective):
    """How to cite `book`, `chapter NAME` or `claim ID`, as BibTeX and in the style of the APA.

    Raises ValueError for anything else, and KeyError for a claim that the ledger has not.
    """

    required_arguments = 1
    optional_arguments = 1

    def run(self):
        self.env.note_dependency(str(citing.CFF))
        of, (kind, name) = citing.edition(), [*self.arguments, ""][:2]
        if kind == "chapter":
            part = ledger.title(Path(self.env.srcdir) / "book" / f"{name}.ipynb")
            page = f"{name}.html"
        elif kind == "claim":
            part, page = f"Claim {ledger.claims()[name]['id']}", f"ledger.html#row-{name.lower()}"
        elif kind == "book" and not name:
            return self._blocks(citing.bibtex(of), citing.apa(of))
        else:
            raise ValueError(f"cite-as takes book, chapter NAME or claim ID; got {self.arguments}")
        entry = citing.bibtex(of, kind, name, part, of.page(page))
        return self._blocks(entry, citing.apa(of, part, of.page(page)))

    def _blocks(self, entry, line):
        blocks = [nodes.literal_block(text, text, classes=["cite-as"]) for text in (entry, line)]
        for block, language in zip(blocks, ("bibtex", "text")):
            block["language"] = language
        return blocks


def edition(name, rawtext, text, lineno, inliner, options=None, content=None):
    """The role `edition`: of CITATION.cff the authors, the title, the version or the year."""
    of = citing.edition()
    said = citing.authors(of) if text == "authors" else getattr(of, text)
    return [nodes.Text(said)], []


class statements(nodes.General, nodes.Element):
    """Where the list of statements goes, once they are numbered."""


class Statements(SphinxDirective):
    """Every statement of the book but proofs, with its number, its title and a link."""

    def run(self):
        return [statements()]


def list_statements(app, doctree, docname):
    """Puts the list in its place: a line for each chapter, and its statements under it."""
    for place in list(doctree.findall(statements)):
        found = []
        for chapter in _in_order(app.env, app.config.root_doc):
            items = [
                _statement(app, docname, chapter, node)
                for node in _stated(app.env.get_doctree(chapter))
            ]
            if items:
                address = app.builder.get_relative_uri(docname, chapter)
                title = _reference(address, *app.env.titles[chapter].children)
                found += [nodes.rubric("", "", title), nodes.bullet_list("", *items)]
        place.replace_self(nodes.container("", *found, classes=["statements"]))


def say_terms(app, doctree, docname):
    """A link to a term says what it means where the pointer rests, as far as words say it."""
    links = [n for n in doctree.findall(nodes.reference) if "#term-" in n.get("refuri", "")]
    if links:
        meant = _meanings(app.env.get_doctree(GLOSSARY))
        for link in links:
            link["reftitle"] = meant[link["refuri"].partition("#")[2]]


def _meanings(glossary):
    """By the id of each term, what its definition says before its first formula or link."""
    meant = {}
    for item in glossary.findall(nodes.definition_list_item):
        said = itertools.takewhile(lambda n: isinstance(n, nodes.Text), item[-1][0].children)
        words = re.match(r"(.*)[.,:;]|", "".join(said), re.S)[1] or ""
        meant |= {name: words for term in item.findall(nodes.term) for name in term["ids"]}
    return meant


def _stated(document):
    return [node for node in document.findall(nodes.Element) if "realtype" in node]


def _in_order(env, docname):
    yield docname
    for child in env.toctree_includes.get(docname, ()):
        yield from _in_order(env, child)


def _statement(app, docname, chapter, node):
    number = app.env.toc_fignumbers[chapter][node["countertype"]][node["label"]]
    called = f"{node['realtype'].title()} {'.'.join(map(str, number))}"
    address = app.builder.get_relative_uri(docname, chapter) + f"#{node['label']}"
    title = [child.deepcopy() for child in node.next_node(nodes.title).children]
    title[0] = nodes.Text(title[0].removeprefix(" ("))  # the brackets in which sphinx-proof has it
    title[-1] = nodes.Text(title[-1].removesuffix(")"))
    link = _reference(address, nodes.Text(called))
    return nodes.list_item("", nodes.paragraph("", "", link, nodes.Text(": "), *title))


def _reference(address, *content):
    held = nodes.inline("", "", *(child.deepcopy() for child in content))
    return nodes.reference("", "", held, internal=True, refuri=address)


class Status(SphinxDirective):
    """What each chapter took to execute, on what, and with which seed."""

    def run(self):
        folder = Path(self.env.srcdir) / "book"
        for path in [folder / runs.FILE, *folder.glob("*.ipynb")]:
            self.env.note_dependency(str(path))
        return self.parse_text_to_nodes(runs.status(folder))


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


class Indexed(SphinxTransform):
    """A statement whose title has a number of the notes is found in a search by that number."""

    default_priority = 500

    def apply(self):
        for node in _stated(self.document):
            for kind, *numbers in NUMBERED.findall(node["title"]):
                entries = [
                    ("single", f"{kind} {n}", node["label"], "main", None) for n in numbers if n
                ]
                place = node.parent.index(node)
                node.parent.insert(place, addnodes.index(entries=entries))


def without_aliases(app, what, name, obj, options, lines):
    """A field of a named tuple that has no comment says nothing, not which number it has."""
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()


def at_the_foot(app, config):
    """Authors, year and version of CITATION.cff; a button where the repository has an address."""
    of, options = citing.edition(), config.html_theme_options
    config.author, config.copyright = citing.authors(of), of.year
    options["extra_footer"] = f"<p>Version {of.version}. {options['extra_footer']}</p>"
    options["use_repository_button"] = bool(options.get("repository_url"))


def launched_from_an_address(app, config):
    """Takes the buttons that launch a chapter away where the repository has no address."""
    theme = config.html_theme_options
    if not theme.get("repository_url"):
        theme.pop("launch_buttons", None)


def setup(app):
    app.connect("config-inited", at_the_foot)
    app.connect("config-inited", launched_from_an_address)
    app.connect("doctree-resolved", list_statements)
    app.connect("doctree-resolved", say_terms)
    app.add_directive("cite-as", CiteAs)
    app.add_directive("statements", Statements)
    app.add_node(statements)
    app.add_role("edition", edition)
    app.connect("autodoc-process-docstring", without_aliases)
    app.add_directive("ledger", Ledger)
    app.add_directive("status", Status)
    app.add_transform(FigureFiles)
    app.add_transform(Proofs)
    app.add_transform(Indexed)
    return {"parallel_read_safe": True}
