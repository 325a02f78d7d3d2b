"""Deciding a claim of the notes, recording the evidence, and collecting it on the ledger's page.

`book/claims.yml` lists the claims. A chapter decides each of its own in one cell by
`Chapter.decide`, whose evidence goes into the cell's output; `collect` reads it back from the
executed notebooks.
"""

import ast
import json
import math
import zlib
from collections import Counter
from decimal import ROUND_CEILING, Context
from pathlib import Path

import numpy as np
import yaml
from IPython import get_ipython
from IPython.display import Markdown, display

from ifbook.environment import BOOK

CLAIMS = BOOK / "claims.yml"
KEY = "ifcore.ledger"  # of the evidence in an output's metadata
FINDINGS = "ifcore.findings"  # and of what a chapter found
CHANGED = "ifcore.changed"  # and of the parameters that are not the book's
SEED = 0  # the book's
VERDICTS = {"H": "holds", "C": "corrected", "F": "false", "O": "open", "A": "answered"}


class NotDecided(AssertionError):
    """The evidence does not carry the verdict."""


def claims(path=None):
    """The claims by id, each a dict of the fields that `book/claims.yml` explains.

    A claim's parts take its place. They are read from `path`, and without one from that file.
    """
    path = path or CLAIMS
    with open(path, encoding="utf-8") as file:
        entries = yaml.safe_load(file)
    rows = []
    for entry in entries:
        parts = entry.pop("parts", None)
        rows += [{**entry, **part} for part in parts] if parts else [entry]
    found = {row["id"]: row for row in rows}
    if len(found) < len(rows):
        twice = [key for key, count in Counter(row["id"] for row in rows).items() if count > 1]
        raise ValueError(f"{path} must list every claim once; twice: {', '.join(twice)}")
    return found


class Chapter:
    """One run of a chapter: its seed, its random streams, and the claims it decides.

    name : the stem of the chapter's file. seed : an integer at least 0. A run with another seed
    than the book's, or with other parameters, says so.
    Raises TypeError or ValueError for a bad seed, and NameError, naming it, for a parameter that
    papermill passed and the notebook's `parameters` cell does not have.
    """

    def __init__(self, name, seed):
        book, given = _parameters()
        if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool):
            raise TypeError(f"seed must be an integer; got {seed!r}")
        if seed < 0:
            raise ValueError(f"seed must be at least 0; got {seed}")
        self.name, self.seed, self.decided = name, int(seed), {}
        self.claims = {
            i: c for i, c in claims().items() if c["chapter"] == name and not c.get("pending")
        }
        book, given = book | {"seed": str(SEED)}, given | {"seed": str(self.seed)}
        changed = {key: value for key, value in given.items() if value != book[key]}
        if changed:
            said = ", ".join(f"{key} {given[key]}, not the book's {book[key]}" for key in changed)
            display(Markdown(f"**Run with {said}.**"), metadata={CHANGED: changed})

    def rng(self, label):
        """A random generator of its own for each label.

        So no cell's draws depend on another's.
        """
        return np.random.default_rng([self.seed, zlib.crc32(label.encode())])

    def decide(
        self,
        claim,
        *,
        on,
        bound,
        notes,
        right=None,
        fault=None,
        control="the notes' version",
        what="error",
        margin=1e3,
    ):
        """Decides a claim, shows the row and records the evidence.

        It fails where the evidence falls short.

        on : in words, the instances. bound : the largest error allowed, a number or one an
        instance. notes, right, fault : errors, one an instance, of the notes' version, of the
        corrected one, and of one with a deliberate fault. control : in words, the version that
        fails. what : the name of what is bounded, where that is no error, as a p-value.

        Where the claim holds (H), the notes' version is within the bound on every instance, and the
        faulty one exceeds it `margin`-fold on one at least, so that the same check rejects it;
        where the claim is corrected (C) or false (F), the corrected version is within the bound and
        the notes' exceeds it; a question's answer (A) is `right`, with a `fault`. The row says on
        how many instances the control is rejected.
        Raises NotDecided (the error, the bound, the instance) or KeyError for a claim not of this
        chapter.
        """
        self._require_open(claim, bound, margin)
        verdict = self.claims[claim]["verdict"]
        versions = {"H": (notes, fault), "C": (right, notes), "A": (right, fault)}
        versions["F"] = versions["C"]
        if verdict not in versions or any(version is None for version in versions[verdict]):
            raise NotDecided(
                f"{claim} has verdict {verdict}, "
                "which needs the errors of another version than came"
            )
        holds, fails = (_ratios(claim, errors, bound) for errors in versions[verdict])
        _require_carried(claim, holds, fails, bound, control, margin)
        evidence = {
            "claim": claim,
            "verdict": verdict,
            "on": on,
            "what": what,
            "bound": float(np.max(bound)),
            "instances": holds.size,
            "ratio": float(holds.max()),
            "control": control,
            "controls": fails.size,
            "rejected": int((fails > margin).sum()),
            "missed_by": float(fails.max()),
            "margin": float(margin),
            "seed": self.seed,
        }
        self.decided[claim] = evidence
        display(Markdown(_decision(evidence)), metadata={KEY: evidence})

    def _require_open(self, claim, bound, margin):
        if claim not in self.claims:
            raise KeyError(
                f"{claim} is not a claim that {self.name} decides; "
                f"claims.yml gives it {sorted(self.claims)}"
            )
        if claim in self.decided:
            raise NotDecided(f"{claim} is decided twice")
        if not (np.isfinite(bound).all() and np.greater(bound, 0).all()):
            raise ValueError(f"{claim}: the bound must be positive and finite; got {bound}")
        if not margin >= 10:
            raise ValueError(
                f"{claim}: margin must be at least 10, for a control that is clearly rejected; "
                f"got {margin}"
            )

    def answer(self, text):
        """Shows the answer to an exercise, Markdown with the numbers that its cell computed."""
        display(Markdown(text))

    def close(self, **findings):
        """Shows what the chapter found and decided; the findings open its page.

        findings : sentences of Markdown by name, with numbers that the chapter computed. Other
        pages quote them by {finding}`chapter name`. Raises NotDecided where a claim is missing.
        """
        missing = sorted(set(self.claims) - set(self.decided))
        if missing:
            raise NotDecided(f"{self.name} leaves undecided: {', '.join(missing)}")
        rows = "".join(
            f"| [{i}](#{label(i)}) | {VERDICTS[e['verdict']]} "
            f"| {self.claims[i]['right'].strip()} |\n"
            for i, e in self.decided.items()
        )
        if findings:
            text = "".join(f"* {finding}\n" for finding in findings.values())
            display(Markdown(text), metadata={FINDINGS: findings})
        if rows:
            display(Markdown("| claim | verdict | what is true |\n|--|--|--|\n" + rows))


def distance(found, truth):
    """‖found − truth‖/‖truth‖, the error that most decisions are about."""
    return np.linalg.norm(np.subtract(found, truth)) / np.linalg.norm(truth)


def label(claim):
    """The link target of a claim's deciding cell."""
    return f"claim-{claim.lower()}"


def collect(folder):
    """The evidence stored in a folder's executed notebooks.

    Returns dicts as `decide` records them, with their chapter.
    """
    return [{**said, "chapter": chapter} for chapter, said in _stored(folder, KEY)]


def findings(folder):
    """What the folder's executed notebooks found, sentences by (chapter, name)."""
    found = _stored(folder, FINDINGS)
    return {(chapter, name): text for chapter, said in found for name, text in said.items()}


def _stored(folder, key):
    """What the notebooks' outputs have under a key of their metadata, each with its chapter."""
    for path in sorted(Path(folder).glob("*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                if key in output.get("metadata", {}):
                    yield path.stem, output["metadata"][key]


def title(path):
    """A chapter's title, as its notebook has it."""
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
    lines = (line for cell in cells for line in "".join(cell["source"]).splitlines())
    return next(line for line in lines if line.startswith("# ")).removeprefix("# ")


def faults(listed, evidence):
    """What does not fit between the claims and the evidence, as sentences.

    There are none where the ledger is whole.
    """
    count = Counter(e["claim"] for e in evidence)
    for claim, row in listed.items():
        if row.get("pending") and count[claim]:
            yield f"{claim} is marked pending, and decided"
        elif not row.get("pending") and not count[claim]:
            yield f"{claim} is undecided, and not marked pending"
    for claim, times in count.items():
        if times > 1:
            yield f"{claim} is decided {times} times"
    for e in evidence:
        row = listed.get(e["claim"])
        if row is None:
            yield f"{e['claim']} is decided in {e['chapter']}, and not in the list of claims"
        elif (row["verdict"], row["chapter"]) != (e["verdict"], e["chapter"]):
            yield (
                f"{e['claim']} is {row['verdict']} in {row['chapter']} by the list, "
                f"{e['verdict']} in {e['chapter']} by the evidence"
            )
        if not e["ratio"] <= 1:
            yield f"{e['claim']} misses its bound {e['ratio']:.1e} times over"
        if not e["missed_by"] > e["margin"]:
            yield f"{e['claim']} has a control that passes"


def score(folder):
    """A sentence of Markdown: how many claims are decided, and how."""
    listed, verdicts = claims(), Counter(e["verdict"] for e in collect(folder))
    words = {**VERDICTS, "H": "hold"}
    found = ", ".join(f"{verdicts[v]} {words[v]}" for v in words if verdicts[v]) or "none"
    done = sum(verdicts.values())
    return (
        f"{done} of {len(listed)} rows are decided, where a claim in parts has a row for each: "
        f"{found}. Pending: {len(listed) - done or 'none'}."
    )


def table(folder):
    """The ledger in MyST: of each claim a line, which opens; linked to the deciding cells."""
    evidence = {e["claim"]: e for e in collect(folder)}
    parts = _parts(folder)
    lines = ["::::::{div} ledger"]
    for claim, row in claims().items():
        e = evidence.get(claim)
        verdict = VERDICTS[e["verdict"]] if e else "pending"
        part = parts.get(row["chapter"], "Not written")
        text = [f"*{row['place']}.* {row['context']}"]
        text.append(f"**{'True' if e else 'Expected'}.** {row['right']}")
        if "slip" in row:
            text.append(f"**Slip of the pen.** {row['slip']}")
        if e:
            name = title(Path(folder) / f"{row['chapter']}.ipynb")
            text += [f"**Evidence.** {checked(e)}", f"Decided in {{ref}}`{name} <{label(claim)}>`."]
        lines += [
            f":::::{{dropdown}} [{claim}]{{.claim}} [{verdict}]{{.verdict}} "
            + " ".join(row["notes"].split()),
            f":name: row-{claim.lower()}",
            f":class-container: verdict-{e['verdict'] if e else 'pending'} part-{_slug(part)}",
            "",
            "\n\n".join(" ".join(each.split()) for each in text),
            ":::::",
        ]
    return "\n".join([*lines, "::::::"])


def _parts(folder):
    """The part of the book that each chapter is in, by the chapter's name."""
    toc = yaml.safe_load((Path(folder).parent / "_toc.yml").read_text(encoding="utf-8"))
    return {
        Path(chapter["file"]).name: part["caption"]
        for part in toc["parts"]
        for chapter in part["chapters"]
    }


def _slug(text):
    return text.lower().replace(" ", "-")


def checked(evidence):
    """What a decision checked and what it refused, in two sentences."""
    e = evidence
    refused = f"on {e['rejected']} of {e['controls']}"
    if not math.isclose(e["missed_by"] * e["bound"], 1):  # else it is no error, but a yes or no
        refused += f", at worst by more than {_more_than(e['missed_by'])} times what was allowed"
    instances = "one instance" if e["instances"] == 1 else f"{e['instances']} instances"
    return (
        f"Checked on {instances}: {e['on']}. The {e['what']} is nowhere above "
        f"{_rounded_up(e['bound'])}, which was allowed. A version that is wrong, {e['control']}, "
        f"is refused {refused}."
    )


def card(evidence):
    """A decision as the pages show it: the claim, the verdict, what was checked and refused."""
    claim, verdict = evidence["claim"], evidence["verdict"]
    return "\n".join(
        [
            f"::::{{div}} decision verdict-{verdict}",
            f"[{claim}](#row-{claim.lower()}) [{VERDICTS[verdict]}]{{.verdict}}",
            "",
            checked(evidence),
            "::::",
        ]
    )


def _ratios(claim, errors, bound):
    errors = np.atleast_1d(np.asarray(errors, dtype=float))
    if errors.ndim != 1 or errors.size == 0 or not np.isfinite(errors).all() or (errors < 0).any():
        raise NotDecided(
            f"{claim}: errors must be finite, at least 0, one an instance; got {errors}"
        )
    bound = np.asarray(bound, dtype=float)
    if bound.ndim and bound.shape != errors.shape:
        raise ValueError(
            f"{claim}: there must be one bound, or one for each of the {errors.size} errors; "
            f"got {bound.size}"
        )
    return errors / bound


def _require_carried(claim, holds, fails, bound, control, margin):
    """That every instance is within its bound, and a control beyond it."""
    worst = int(np.argmax(holds))
    if not holds[worst] <= 1:
        raise NotDecided(
            f"{claim}: instance {worst} of {holds.size} has an error {holds[worst]:.2e} times "
            f"its bound ({np.broadcast_to(bound, holds.shape)[worst]:.1e})"
        )
    if not fails.max() > margin:
        raise NotDecided(
            f"{claim}: the control ({control}) must miss the bound by more than {margin:g}; "
            f"it misses by {fails.max():.2e}"
        )


def _decision(evidence):
    """The row that a decision leaves in the notebook, its bound rounded up to a power of ten."""
    e = evidence
    return (
        "| claim | verdict | instances | allowed | control |\n|--|--|--|--|--|\n"
        f"| {e['claim']} | {VERDICTS[e['verdict']]} | {e['instances']} × {e['on']} "
        f"| {_at_most(e['bound'])} "
        f"| {e['control']}: rejected on {e['rejected']} of {e['controls']} |"
    )


def _at_most(bound):
    """The least 10ᵏ that is not below a bound: a number that rounding does not change."""
    return f"$10^{{{math.ceil(math.log10(bound) - 1e-9)}}}$"


def _rounded_up(bound):
    """A bound in TeX, rounded up to two digits."""
    digits = Context(prec=2, rounding=ROUND_CEILING).create_decimal(f"{bound:.9e}")
    factor, power = f"{digits:.1e}".split("e")
    factor, power = factor.removesuffix(".0"), int(power)
    if power == 0:
        return f"${factor}$"
    return f"$10^{{{power}}}$" if factor == "1" else f"${factor} \\times 10^{{{power}}}$"


def _more_than(factor):
    """The largest 10ᵏ that is not above a factor."""
    return f"$10^{{{math.floor(math.log10(factor) + 1e-9)}}}$"


def _parameters():
    """The parameters of the notebook that runs, and those that papermill gave it, as code by name.

    Raises NameError for one that the notebook does not have: papermill only logs it, and a
    misspelt one would change nothing.
    """
    shell = get_ipython()
    cells = [c for c in (shell.user_ns.get("In", []) if shell else []) if c.strip()]
    injected = [c for c in cells if c.startswith("# Parameters")]
    if not injected:
        return {}, {}
    known, given = (assigned(c) for c in (cells[0], injected[-1]))
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        raise NameError(
            f"unknown parameter {', '.join(unknown)}; this chapter has {', '.join(sorted(known))}"
        )
    return known, given


def assigned(source):
    """What code assigns to names: {name: the code of its value}, in the code's order."""
    found = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign))
    return {ast.unparse(name): ast.unparse(node.value) for node in found for name in node.targets}
