"""How a chapter is shown: findings first, code folded, decisions as cards; and its quotations.

A Sphinx extension. What it changes is the text that Sphinx reads of a page, no file.
"""

import ast
import json
import re
from pathlib import Path

from ifbook import ledger, runs

TAGS = {"parameters", "show", "hide-input", "exercise", "answer"}  # that a cell may have
FIGURE = {"figure": {"name", "caption"}, "image": {"alt"}}  # keys of its `mystnb`, and theirs
BADGE = re.compile(r"(?P<words>\{admonition\} The notes \w+) \((?P<claim>\w+)\)")
QUOTE = re.compile(r"\{finding\}`(?P<chapter>[\w-]+) (?P<name>\w+)`")
# Two words that a chapter with decisions uses from its first lines on.
WORDS = """
The {term}`notes` are those whose claims this book decides. Each decision has a {term}`control`, a
version that is wrong and has to be refused.
"""
OPEN = 10  # lines of code that are shown; more are folded, but for cells with the tag "show"


def dressed(notebook, name=""):
    """The notebook, a dict, with its code folded and its decisions as cards; changed in place.

    Of folded cells that follow each other without an output there is one fold. name : of the
    chapter, in the labels of its exercises. Raises ValueError, naming the cell, for a key or a tag
    that means nothing here, and for an exercise without an answer.
    """
    for cell in notebook["cells"]:
        _require_known(cell)
    cells = []
    for cell in _exercises(notebook["cells"], name):
        if cell["cell_type"] == "code":
            cell["outputs"] = [_output(output) for output in cell["outputs"]]
            _fold(cell)
            if cells and _goes_on(cells[-1], cell):
                cell["source"] = [*cells.pop()["source"], "\n\n\n", *cell["source"]]
        else:
            cell["source"] = [BADGE.sub(_linked, "".join(cell["source"]))]
        cells.append(cell)
    found = _findings(cells)
    if found:
        said = [WORDS] if any(ledger.KEY in o.get("metadata", {}) for o in _outputs(cells)) else []
        text = ["```{admonition} In short\n", ":class: in-short\n", *found, *said, "```"]
        cells.insert(1, {"cell_type": "markdown", "metadata": {}, "source": text, "id": "in-short"})
    notebook["cells"] = cells
    return notebook


def _require_known(cell):
    metadata = cell["metadata"]
    shown = metadata.get("mystnb", {})
    known = [(metadata, {"tags", "mystnb"}), (shown, FIGURE)]
    known += [(shown[key], FIGURE[key]) for key in shown if key in FIGURE]
    known += [(metadata.get("tags", []), TAGS)]
    for keys, allowed in known:
        if odd := sorted(set(keys) - set(allowed)):
            raise ValueError(
                f"cell {cell.get('id')} has {odd[0]!r} where there can be {sorted(allowed)}"
            )


def _exercises(cells, name):
    """The cells, with each exercise in a box and its answer, and the code of that, in folds."""
    found, asked = [], None
    for cell in cells:
        tags = cell["metadata"].get("tags", [])
        if asked is not None and "answer" not in tags:
            raise ValueError(f"the exercise {asked.get('id')} has no answer")
        if "exercise" in tags:
            asked = cell
        elif "answer" in tags:
            if asked is None:
                raise ValueError(f"the answer {cell.get('id')} has no exercise before it")
            number = 1 + sum(c.get("id", "").startswith("exercise-") for c in found)
            found.append(_exercise(asked, cell, number, name))
            asked = None
        else:
            found.append(cell)
    if asked is not None:
        raise ValueError(f"the exercise {asked.get('id')} has no answer")
    return found


def _exercise(asked, answered, number, name):
    said = ["".join(o["data"]["text/markdown"]) for o in answered["outputs"]]
    lines = [
        f"::::::{{admonition}} Exercise {number}",
        ":class: exercise",
        f":name: exercise-{name}-{number}",
        "",
        "".join(asked["source"]),
        "",
        ":::::{dropdown} Answer",
        *said,
        "",
        "::::{dropdown} The code that computes it",
        "```python",
        "".join(answered["source"]),
        "```",
        "::::",
        ":::::",
        "::::::",
    ]
    text = "\n".join(lines)
    return {"cell_type": "markdown", "metadata": {}, "source": [text], "id": f"exercise-{number}"}


def _findings(cells):
    """What the chapter found, as the lines of a list; its output is taken out."""
    found = []
    for cell in cells:
        for output in list(cell.get("outputs", [])):
            if ledger.FINDINGS in output.get("metadata", {}):
                found += "".join(output["data"]["text/markdown"]).splitlines(keepends=True)
                cell["outputs"].remove(output)
    return found


def _outputs(cells):
    return [output for cell in cells for output in cell.get("outputs", [])]


def _linked(match):
    """Of a claim in parts, to the row of the first."""
    claim = match["claim"]
    row = next((row for row in ledger.claims() if row.startswith(claim)), None)
    if row is None:
        raise KeyError(f"the ledger has no claim {claim}, to which a badge would lead")
    return f"{match['words']} ([{claim}](#row-{row.lower()}))"


def _fold(cell):
    label = folded("".join(cell["source"]), cell["metadata"].get("tags", []))
    if label is not None:
        tags = cell["metadata"].setdefault("tags", [])
        tags.append("hide-input" if label else "remove-input")
        shown = {"code_prompt_show": label, "code_prompt_hide": label}
        cell["metadata"].setdefault("mystnb", {}).update(shown)


def _goes_on(before, cell):
    both = all("hide-input" in c["metadata"].get("tags", []) for c in (before, cell))
    return both and not before.get("outputs") and before["cell_type"] == "code"


def folded(source, tags):
    """What the fold of a cell's code says; None where the code is shown, "" where it is left out.

    Left out is the cell that closes a chapter. Folded are setup, figures, decisions, and what is
    longer than a reader would read.
    """
    if "parameters" in tags or "show" in tags:
        return None
    tree = ast.parse(source)
    called = [ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)]
    if "chapter.close" in called:
        return ""
    if "chapter.decide" in called:
        return "The code that decides"
    if "figures.show" in called:
        return "The code of the figure"
    if "figures.touch" in called:
        return "The code of the figure to touch"
    if any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in tree.body):
        return "The code that sets up"
    if len(source.splitlines()) <= OPEN and "hide-input" not in tags:
        return None
    return _of_functions([n for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))])


def _of_functions(defined):
    """What the functions of a cell are for: their names, and the docstring of a single one."""
    if not defined:
        return "The code that computes this"
    names = " and ".join(node.name for node in defined[:2]) + ", …" * (len(defined) > 2)
    text = ast.get_docstring(defined[0]) if len(defined) == 1 else None
    return f"The code of {names}" + (f": {text.splitlines()[0].rstrip('.')}" if text else "")


def _output(output):
    """An output as it is shown: the row of a decision as a card."""
    evidence = output.get("metadata", {}).get(ledger.KEY)
    return {**output, "data": {"text/markdown": ledger.card(evidence)}} if evidence else output


def quoted(text, folder):
    """The text with each {finding}`chapter name` replaced by what that chapter found, and a link.

    folder : of the chapters. Raises KeyError, naming it, for one that no chapter has.
    """
    found = ledger.findings(folder)

    def sentence(match):
        chapter, name = match["chapter"], match["name"]
        if (chapter, name) not in found:
            raise KeyError(f"no chapter has the finding {match[0]}")
        title = ledger.title(folder / f"{chapter}.ipynb")
        return f"{found[chapter, name]} (*[{title}]({chapter}.ipynb)*)"

    return QUOTE.sub(sentence, text)


def _read(app, docname, source):
    path = Path(app.env.doc2path(docname))
    if path.suffix == ".ipynb":
        notebook = json.loads(source[0])
        last = [_again(app, path, notebook)] if app.builder.format == "html" else []
        dressed(notebook, path.stem)["cells"] += last
        source[0] = json.dumps(notebook)
    elif QUOTE.search(source[0]):
        for chapter in path.parent.glob("*.ipynb"):
            app.env.note_dependency(str(chapter))
        source[0] = quoted(source[0], path.parent)


def _again(app, path, notebook):
    """The cell that says how the chapter is run again."""
    app.env.note_dependency(str(path.with_name(runs.FILE)))
    run = runs.read(path.parent).get(path.stem)
    address = app.config.html_theme_options.get("repository_url", "")
    text = runs.again(path.stem, notebook, run, address)
    return {"cell_type": "markdown", "metadata": {}, "source": [text], "id": "run-again"}


def setup(app):
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
