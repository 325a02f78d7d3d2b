"""Notation: every call that its columns name is there, and the notes' labels are all listed."""

import importlib
import re
from pathlib import Path

import pytest

import ifcore
from ifcore.risk import Risk

PAGE = (Path(__file__).parents[2] / "book" / "notation.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and "`" in line]
CALLS = sorted(
    {
        call
        for row in ROWS
        for code in re.findall(r"`([^`]+)`", row)
        for call in re.findall(r"\b([a-zA-Z]\w*(?:\.\w+)+)", code)
        if not call.startswith("np.")
    }
)


@pytest.mark.parametrize("call", CALLS)
def test_what_a_column_names_is_there(call):
    head, *rest = call.split(".")
    if head == "Risk":
        fields = {"n", "d", "K", "X", "y"}
        assert rest[0] in fields or callable(getattr(Risk, rest[0]))
        return
    assert head in ifcore.__all__, call
    value = importlib.import_module(f"ifcore.{head}")
    for name in rest:
        value = getattr(value, name, None) or value.__dataclass_fields__[name]
    assert value is not None


def test_it_names_calls_for_all_that_is_computed():
    assert len(CALLS) > 40
    rooms = {call.split(".")[0] for call in CALLS}
    assert {"risk", "response", "influence", "proximal", "gaps", "flow", "forgetting"} <= {
        *rooms,
        "risk",
    }


@pytest.mark.parametrize("number", range(1, 16))
def test_every_numbered_equation_of_the_notes_has_a_row(number):
    table = PAGE.split("## By the notes' labels")[1].split("\n## ")[0]
    assert f"(0.{number})" in table
