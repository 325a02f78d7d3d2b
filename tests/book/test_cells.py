"""How chapters are shown: what is folded, what opens a page, what other pages quote."""

import json

import pytest

from ifbook import cells, ledger

EVIDENCE = {
    "claim": "N1",
    "verdict": "H",
    "on": "problems",
    "what": "error",
    "bound": 2.5e-8,
    "instances": 7,
    "ratio": 0.1,
    "control": "a version",
    "controls": 7,
    "rejected": 6,
    "missed_by": 4e5,
    "margin": 1e3,
}


def code(source, *outputs, tags=None):
    cell = {"cell_type": "code", "source": [source], "outputs": list(outputs), "metadata": {}}
    return {**cell, "metadata": {"tags": tags}} if tags else cell


def text(source):
    return {"cell_type": "markdown", "source": [source], "metadata": {}}


def shown(*of):
    return cells.dressed({"cells": list(of)})["cells"]


@pytest.mark.parametrize(
    "source, tags, label",
    [
        ("seed = 0", ["parameters"], None),
        ("import numpy as np", [], "The code that sets up"),
        ("x = 1\nprint(x)", [], None),
        ("\n".join(["x = 1"] * 11), [], "The code that computes this"),
        ("\n".join(["x = 1"] * 11), ["show"], None),
        ("def f():\n    '''What f is. More.'''", ["hide-input"], "The code of f: What f is. More"),
        ("def f(): 0\ndef g(): 0\ndef h(): 0", ["hide-input"], "The code of f and g, …"),
        ("figures.show(fig, 'a', x=[1])", [], "The code of the figure"),
        ("figures.touch('a', x=[1])", [], "The code of the figure to touch"),
        ("chapter.decide('N1')", [], "The code that decides"),
        ("chapter.close(a='b')", [], ""),
    ],
)
def test_what_is_folded_and_what_the_fold_says(source, tags, label):
    assert cells.folded(source, tags) == label


def test_folded_cells_that_follow_each_other_are_one_unless_one_printed():
    long = "\n".join(["x = 1"] * 11)
    printed = {"output_type": "stream", "name": "stdout", "text": "1\n"}
    found = shown(code(long), code(long, printed), code(long), text("…"), code(long))
    assert [cell["cell_type"] for cell in found] == ["code", "code", "markdown", "code"]
    assert "".join(found[0]["source"]) == f"{long}\n\n\n{long}" and found[0]["outputs"] == [printed]


def test_a_decision_is_a_card_that_leads_to_the_ledger():
    output = {"data": {"text/markdown": "| a | row |"}, "metadata": {ledger.KEY: EVIDENCE}}
    (cell,) = shown(code("chapter.decide('N1')", output))
    card = cell["outputs"][0]["data"]["text/markdown"]
    for part in (
        "(#row-n1)",
        "[holds]",
        "7 instances: problems",
        r"$2.5 \times 10^{-8}$",
        "6 of 7",
        "$10^{5}$",
    ):
        assert part in card


def test_the_findings_open_the_page_and_can_be_quoted(tmp_path):
    said = {"factor": "It falls short by 5 %.", "other": "So it is."}
    lines = [f"* {line}\n" for line in said.values()]
    output = {"data": {"text/markdown": lines}, "metadata": {ledger.FINDINGS: said}}
    notebook = {"cells": [text("# Title"), code("chapter.close()", output)]}
    (tmp_path / "a-chapter.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    title, box, closing = cells.dressed(notebook)["cells"]
    assert title["source"] == ["# Title"] and not closing["outputs"]
    assert box["source"][2:-1] == lines
    quoted = cells.quoted("Is it so? {finding}`a-chapter factor`", tmp_path)
    assert quoted == "Is it so? It falls short by 5 %. (*[Title](a-chapter.ipynb)*)"
    with pytest.raises(KeyError, match="a-chapter none"):
        cells.quoted("{finding}`a-chapter none`", tmp_path)


def test_a_claim_of_the_notes_leads_to_its_row():
    (cell,) = shown(text("```{admonition} The notes claim (D7b)\nThat it is so.\n```"))
    assert "The notes claim ([D7b](#row-d7b))" in cell["source"][0]
    with pytest.raises(KeyError, match="no claim Z9, to which a badge would lead"):
        shown(text("```{admonition} The notes claim (Z9)\nThat it is so.\n```"))


def test_an_exercise_is_a_box_with_its_answer_and_the_code_of_that_in_folds():
    asked = {**text("How large is it?"), "metadata": {"tags": ["exercise"]}}
    output = {"data": {"text/markdown": "It is 3."}, "metadata": {}}
    answered = code("chapter.answer(f'It is {1 + 2}.')", output, tags=["answer"])
    box, last = cells.dressed({"cells": [asked, answered, text("…")]}, "leverage")["cells"]
    box = "".join(box["source"])
    for part in ("Exercise 1\n", ":name: exercise-leverage-1\n", "How large", "It is 3.", "1 + 2"):
        assert part in box
    for alone in ([asked], [asked, text("…")], [answered]):
        with pytest.raises(ValueError, match="exercise"):
            cells.dressed({"cells": alone})


def test_a_key_or_a_tag_that_means_nothing_is_refused():
    for metadata in ({"tags": ["hide-imput"]}, {"tag": []}, {"mystnb": {"figure": {"nam": 1}}}):
        with pytest.raises(ValueError, match="hide-imput|'tag'|'nam'"):
            cells.dressed({"cells": [{**text("…"), "metadata": metadata}]})
