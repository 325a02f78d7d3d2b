"""The ledger: every claim of the notes is listed, and what is decided has its evidence."""

import re

import pytest
import yaml

from ifbook import ledger

PART_ONE = "1 2 3 3b 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26"
PART_TWO = (
    "1 2 3 4 5 6 7 7b 7c 8 9 10 11 12 13 14 15 16 17 18 19a 19b 19b2 19c 19d 19e 19f 19g 19h 19i "
    "20 20b 21 21b 21c 22 23 23b 24 25 26 27 28 29"
)


def entries():
    return yaml.safe_load(ledger.CLAIMS.read_text(encoding="utf-8"))


def test_all_86_entries_are_there_once():
    expected = [f"C{i}" for i in PART_ONE.split()] + [f"D{i}" for i in PART_TWO.split()]
    expected += [f"Q{i}" for i in range(1, 6)] + [f"N{i}" for i in range(1, 11)]
    assert len(expected) == 86 and sorted(e["id"] for e in entries()) == sorted(expected)
    assert len(ledger.claims()) >= 86


def test_every_row_is_complete():
    for claim, row in ledger.claims().items():
        missing = {"id", "place", "kind", "context", "notes", "right", "verdict", "chapter"} - set(
            row
        )
        assert not missing, f"{claim} lacks {missing}"
        assert row["kind"] in {"formula", "statement", "hypothesis", "slip", "question"}, claim
        assert row["verdict"] in ledger.VERDICTS, claim
        assert row.get("pending", True) is True, f"{claim}: pending is true or absent"
        if row["kind"] == "slip":
            assert "slip" in row, claim
        for key in ("context", "notes", "right", "slip"):
            text = row.get(key, "")
            assert text.count("$") % 2 == 0 and "$$" not in text, f"{claim}: {key}"
            assert not re.search(r"\$[^$]*\|[^$]*\$", text), (
                f"{claim}: {key} has a raw | in mathematics"
            )


def test_the_ends_meet(root):
    assert list(ledger.faults(ledger.claims(), ledger.collect(root / "book"))) == []


def test_a_claim_waits_for_a_chapter_that_is_not_written(root):
    """A chapter that exists has no claim pending, and decides each under its link target."""
    written = {
        path.stem: path.read_text(encoding="utf-8") for path in (root / "book").glob("*.ipynb")
    }
    for claim, row in ledger.claims().items():
        if row["chapter"] in written:
            assert not row.get("pending"), claim
            assert f"({ledger.label(claim)})=" in written[row["chapter"]], claim
        else:
            assert row.get("pending"), claim


@pytest.mark.parametrize("part", ["score", "table"])
def test_the_page_reads_the_evidence(root, part):
    text = getattr(ledger, part)(root / "book")
    decided = ledger.collect(root / "book")
    if part == "score":
        assert f"{len(decided)} of {len(ledger.claims())} rows" in text
    else:
        assert text.count("**Evidence.**") == len(decided)
        assert text.count("{dropdown}") == len(ledger.claims())
