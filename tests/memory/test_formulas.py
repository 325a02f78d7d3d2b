"""The memory that the docstrings state is that which the calls take, within a factor of 1.5."""

import importlib
import inspect
import pkgutil

import numpy as np
import pytest
from memory import cases, peaks, stated
from memory.cases import linear, network

import ifcore
from ifcore import influence, solvers
from ifcore.solvers import OutOfMemory

MARGIN = 1.5
EACH = [(name, sizes) for name, case in cases.CASES.items() for sizes in case.sizes]


@pytest.fixture(scope="module")
def peak():
    if not peaks.counted():
        pytest.skip("the kernel must count the peak of a process, as Linux does, under glibc")
    with peaks.server() as measured:
        yield measured


@pytest.mark.parametrize(
    "name, sizes", EACH, ids=[f"{name}-{i}" for i, (name, _) in enumerate(EACH)]
)
def test_a_call_takes_what_its_docstring_says(name, sizes, peak):
    case = cases.CASES[name]
    formula, taken = stated.stated(case.function, case.words, sizes), peak(name, sizes)
    assert taken >= 0, "the call failed: its error is on stderr"
    assert formula / MARGIN <= taken <= MARGIN * formula


def documented():
    """Every function, class and method of ifcore whose docstring states a formula."""
    for found in pkgutil.walk_packages(ifcore.__path__, "ifcore."):
        module = importlib.import_module(found.name)
        own = [part for part in vars(module).values() if inspect.getmodule(part) is module]
        methods = [m for part in own if inspect.isclass(part) for m in vars(part).values()]
        for part in (*own, *methods):
            if callable(part) and any(" bytes" in clause for clause in stated.clauses(part)):
                yield part


def test_every_formula_is_held_to_two_sizes():
    measured = {}
    for case in cases.CASES.values():
        clause = stated.clause(case.function, case.words)
        measured[case.function, clause] = measured.get((case.function, clause), 0) + len(case.sizes)
    for function in documented():
        for clause in stated.clauses(function):
            assert measured.get((function, clause), 0) >= 2, f"{function.__qualname__}: {clause}"


@pytest.mark.parametrize(
    "text, names, expected",
    [
        ("8 (3 n d + d²) bytes", {"n": 5, "d": 2}, 8 * 34),
        ("16 max(n/2, 2¹⁰) + 1.5 n bytes", {"n": 4}, 16 * 1024 + 6),
        ("min(n d, 2²⁴) - n (2 a + K)/2 fits in a block", {"n": 2, "d": 3, "a": 1, "K": 2}, 2),
    ],
)
def test_a_formula_is_read_as_it_is_written(text, names, expected):
    assert stated.value(text, names) == expected


FACTORS = [
    ("primal", "for G_w, primal", linear(1_000, 2_500)),
    ("primal", "for G_w, primal", linear(300_000, 60)),
    ("primal", "for G_w, primal", network(3_000, 20, 30, 4)),
    ("dual", "dual", linear(2_500, 4_000)),
    ("dual", "by layers", network(600, 20, 200, 4)),
    ("hessian", "for H_w", linear(1_000, 1_800)),
    ("hessian", "for H_w", network(3_000, 20, 30, 4)),
]


@pytest.mark.parametrize("form, words, sizes", FACTORS)
def test_a_factor_that_does_not_fit_is_refused_for_what_it_takes(form, words, sizes):
    problem, theta = cases.problem(**sizes)
    options = {"matrix": "hessian", "form": "primal"} if form == "hessian" else {"form": form}
    with pytest.raises(OutOfMemory) as refusal:
        solvers.factor(problem, theta, damping=1.0, memory=1, **options)
    formula = stated.stated(solvers.factor, words, sizes)
    assert formula / MARGIN <= refusal.value.needed <= MARGIN * formula


def test_an_influence_that_does_not_fit_is_refused_for_what_it_takes():
    sizes = linear(2_000, 600)
    problem, theta = cases.problem(**sizes)
    for function in (influence.loss_influence, influence.damped_influence):
        with pytest.raises(OutOfMemory) as refusal:
            function(problem, theta, memory=1)
        formula = stated.stated(function, "", sizes)
        assert formula / MARGIN <= refusal.value.needed <= MARGIN * formula
    for form, sizes, words in (
        ("primal", linear(3_000, 100, t=3_000), "primal"),
        ("dual", linear(1_000, 1_200, t=3_000), "dual"),
        ("dual", network(300, 20, 100, 4, t=300), "by layers"),
    ):
        problem, theta = cases.problem(**sizes)
        test = problem.subset(np.arange(sizes["t"]) % sizes["n"])
        memory = solvers._needed(problem)[form]
        with pytest.raises(OutOfMemory, match="fewer test examples avoid it") as refusal:
            influence.damped_effects(
                problem, theta, damping=1.0, test=test, solver=form, memory=memory
            )
        formula = stated.stated(influence.damped_effects, words, sizes)
        assert formula / MARGIN <= refusal.value.needed <= MARGIN * formula
