"""Decisions by `ifbook.ledger`: what carries a verdict and what does not."""

import numpy as np
import pytest
import yaml

from ifbook import ledger
from ifbook.ledger import Chapter, NotDecided

CHAPTER = "here"
ROWS = [
    {"id": "H1", "verdict": "H"},
    {"id": "C1", "verdict": "C"},
    {"id": "F1", "verdict": "F"},
    {"id": "Q1", "verdict": "A"},
    {"id": "O1", "verdict": "O"},
    {"id": "P1", "verdict": "H", "pending": True},
    {"id": "S1", "parts": [{"id": "S1a", "verdict": "H"}, {"id": "S1b", "verdict": "F"}]},
]
SMALL, LARGE = [1e-15, 2e-15], [1e-15, 0.5]


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    path = tmp_path / "claims.yml"
    path.write_text(yaml.safe_dump([{"chapter": CHAPTER, "right": "so", **row} for row in ROWS]))
    monkeypatch.setattr(ledger, "CLAIMS", path)
    monkeypatch.setattr(ledger.claims, "__defaults__", (path,))
    return Chapter(CHAPTER, 0)


def decide(chapter, claim, **errors):
    chapter.decide(claim, on="numbers", bound=1e-12, **errors)


@pytest.mark.parametrize(
    "claim, errors",
    [
        ("H1", {"notes": SMALL, "fault": LARGE}),
        ("C1", {"right": SMALL, "notes": LARGE}),
        ("F1", {"right": SMALL, "notes": LARGE}),
        ("Q1", {"notes": None, "right": SMALL, "fault": LARGE}),
        ("S1a", {"notes": SMALL, "fault": LARGE}),
        ("S1b", {"right": SMALL, "notes": LARGE}),
    ],
)
def test_evidence_that_carries(chapter, claim, errors):
    decide(chapter, claim, **errors)
    evidence = chapter.decided[claim]
    assert evidence["ratio"] == pytest.approx(2e-3) and evidence["missed_by"] == pytest.approx(5e11)
    assert evidence["instances"] == 2 and evidence["seed"] == 0


@pytest.mark.parametrize(
    "claim, errors, words",
    [
        (
            "H1",
            {"notes": LARGE, "fault": LARGE},
            "H1: instance 1 of 2 has an error 5.00e.11 times its bound",
        ),
        (
            "H1",
            {"notes": SMALL, "fault": SMALL},
            "the control .* must miss the bound by more than 1000",
        ),
        ("H1", {"notes": SMALL, "fault": [1e-10]}, "must miss the bound"),
        ("H1", {"notes": SMALL}, "H1 has verdict H, which needs the errors of another version"),
        ("C1", {"right": SMALL, "notes": SMALL}, "must miss the bound"),
        ("C1", {"right": LARGE, "notes": LARGE}, "instance 1 of 2"),
        ("F1", {"notes": LARGE}, "needs the errors of another version"),
        ("O1", {"notes": SMALL, "fault": LARGE}, "O1 has verdict O"),
        ("H1", {"notes": [np.nan], "fault": LARGE}, "errors must be finite"),
        ("H1", {"notes": [-1.0], "fault": LARGE}, "errors must be finite, at least 0"),
        ("H1", {"notes": [], "fault": LARGE}, "errors must be finite"),
        ("H1", {"notes": SMALL, "fault": [np.inf]}, "errors must be finite"),
    ],
)
def test_evidence_that_does_not(chapter, claim, errors, words):
    with pytest.raises(NotDecided, match=words):
        decide(chapter, claim, **errors)
    assert claim not in chapter.decided


@pytest.mark.parametrize("bound", [0, -1, np.nan, np.inf, [1e-12, 0]])
def test_a_bound_must_bound(chapter, bound):
    with pytest.raises(ValueError, match="the bound must be positive and finite"):
        chapter.decide("H1", on="numbers", bound=bound, notes=SMALL, fault=LARGE)


def test_a_bound_of_each_instance(chapter):
    with pytest.raises(
        NotDecided, match=r"instance 0 of 2 has an error 1.00e\+01 times its bound \(1.0e-16\)"
    ):
        chapter.decide("H1", on="numbers", bound=[1e-16, 1e-12], notes=SMALL, fault=LARGE)


def test_a_claim_is_decided_once_here_and_not_pending(chapter):
    decide(chapter, "H1", notes=SMALL, fault=LARGE)
    with pytest.raises(NotDecided, match="decided twice"):
        decide(chapter, "H1", notes=SMALL, fault=LARGE)
    for claim in ("P1", "X9"):
        with pytest.raises(KeyError, match=f"{claim} is not a claim that here decides"):
            decide(chapter, claim, notes=SMALL, fault=LARGE)
    with pytest.raises(NotDecided, match="leaves undecided: C1, F1, O1, Q1, S1a, S1b"):
        chapter.close()


@pytest.mark.parametrize(
    "seed, error", [(-1, ValueError), (1.5, TypeError), ("1", TypeError), (True, TypeError)]
)
def test_a_bad_seed_is_refused(chapter, seed, error):
    with pytest.raises(error, match="seed must be"):
        Chapter(CHAPTER, seed)


def test_random_streams_are_independent_of_each_other(chapter):
    one, again, other = (chapter.rng(label).random(3) for label in ("H1", "H1", "C1"))
    np.testing.assert_array_equal(one, again)
    assert (one != other).all()
    assert (Chapter(CHAPTER, 1).rng("H1").random(3) != one).all()


def test_faults_of_a_ledger():
    row = {"verdict": "H", "chapter": "here"}
    good = {
        "claim": "H1",
        "verdict": "H",
        "chapter": "here",
        "ratio": 0.1,
        "missed_by": 1e9,
        "margin": 1e3,
    }
    assert list(ledger.faults({"H1": row}, [good])) == []
    for listed, evidence, words in [
        ({"H1": row}, [], "H1 is undecided, and not marked pending"),
        ({"H1": {**row, "pending": True}}, [good], "H1 is marked pending, and decided"),
        ({"H1": row}, [good, good], "H1 is decided 2 times"),
        ({}, [good], "not in the list of claims"),
        (
            {"H1": {**row, "verdict": "F"}},
            [good],
            "F in here by the list, H in here by the evidence",
        ),
        ({"H1": {**row, "chapter": "there"}}, [good], "H in there by the list"),
        ({"H1": row}, [{**good, "ratio": 1.5}], "misses its bound"),
        ({"H1": row}, [{**good, "missed_by": 10}], "a control that passes"),
    ]:
        assert any(words in fault for fault in ledger.faults(listed, evidence)), words


def test_claims_listed_twice_are_refused(tmp_path):
    path = tmp_path / "claims.yml"
    path.write_text(yaml.safe_dump([{"id": "H1"}, {"id": "H1"}]))
    with pytest.raises(ValueError, match="twice: H1"):
        ledger.claims(path)


def test_a_control_must_be_clearly_rejected(chapter):
    for margin in (0, -1, 2, np.nan):
        with pytest.raises(ValueError, match="margin must be at least 10"):
            chapter.decide("H1", on="numbers", bound=1e-12, notes=SMALL, fault=LARGE, margin=margin)


def test_bounds_fit_the_errors(chapter):
    with pytest.raises(ValueError, match="one for each of the 2 errors; got 3"):
        chapter.decide("H1", on="numbers", bound=[1e-12] * 3, notes=SMALL, fault=LARGE)


@pytest.mark.parametrize(
    "value, at_most, more_than", [(1e-12, -12, -12), (3.4e-11, -10, -11), (5, 1, 0), (1e3, 3, 3)]
)
def test_powers_bound_from_the_safe_side(value, at_most, more_than):
    assert ledger._at_most(value) == f"$10^{{{at_most}}}$"
    assert ledger._more_than(value) == f"$10^{{{more_than}}}$"


@pytest.mark.parametrize(
    "bound, said",
    [
        (2e-4, r"2 \times 10^{-4}"),
        (0.025, r"2.5 \times 10^{-2}"),
        (3 * 1e-4, r"3 \times 10^{-4}"),  # a rounding above 3e-4
        (1.2345e-7, r"1.3 \times 10^{-7}"),
        (9.91e-5, "10^{-4}"),
        (1e-13, "10^{-13}"),
        (1e3, "10^{3}"),
        (1.0, "1"),
        (4.01, "4.1"),
    ],
)
def test_a_bound_is_said_to_two_digits_and_never_too_small(bound, said):
    assert ledger._rounded_up(bound) == f"${said}$"


def test_the_page_says_the_bound_and_the_row_a_power_of_ten(chapter):
    chapter.decide("F1", on="numbers", bound=2e-4, right=SMALL, notes=LARGE)
    said = chapter.decided["F1"]
    assert r"nowhere above $2 \times 10^{-4}$, which was allowed" in ledger.checked(said)
    assert "| $10^{-3}$ |" in ledger._decision(said)


def test_what_is_no_error_is_called_by_its_name(chapter):
    chapter.decide("F1", on="tests", what="$p$-value", bound=2e-4, right=SMALL, notes=LARGE)
    said = ledger.checked(chapter.decided["F1"])
    assert ": tests. The $p$-value is nowhere above" in said


def test_distance_is_relative_to_the_truth():
    assert ledger.distance([3.0, 4.0], [3.0, 0.0]) == pytest.approx(4 / 3)
    assert ledger.distance(np.ones(3), np.ones(3)) == 0
