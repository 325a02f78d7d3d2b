"""The faults that are planted: each is another program, none is another message."""

import ast
import importlib.util
import random
from pathlib import Path

import pytest

SPEC = importlib.util.spec_from_file_location("faults", Path(__file__).with_name("faults.py"))
faults = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(faults)

SPOKEN = b'''"""About 3 things."""
def root(x: "a number" = None):
    """Not above 1."""
    least = 2 * 0
    if x:
        raise ValueError(f"x must be at least {least + 1}; got {x - 1}", 4)
'''


def planted(source):
    found = faults.faults("a.py", "room", source)
    return {fault.planted(source).decode() for fault in found}


@pytest.mark.parametrize(
    "line, others",
    [
        ("a < b", ["a <= b", "a >= b"]),
        ("a is not b", ["a is b"]),
        ("a + (b)", ["a - (b)"]),
        ("a and b", ["a or b", "True and b", "a and True"]),
        ("-a", ["a"]),
        ("f(a, k=b, l=c)", ["pass", "f(a, l=c)", "f(a, k=b)"]),
        ("np.max(x, axis=1)", ["pass"] + [f"np.{t}" for t in (
            "min(x, axis=1)", "max(x)", "max(x, axis=2)", "max(x, axis=0)"
        )]),
        ("x[a:]", ["x[:]"]),
        ("(a @ b).T", ["(a * b).T", "(a @ b)"]),
        ("x = x", ["pass"]),
        ("x[i] = y", ["pass"]),
        ("x = y", []),
        ("b if a else c", ["b if True else c", "b if False else c"]),
        ("0.5", ["1.5"]),
        ("'ε' + ε", ["'ε' - ε"]),
    ],
)  # fmt: skip
def test_each_slip_of_a_line(line, others):
    assert planted(f"{line}\n".encode()) == {f"{other}\n" for other in others}


def test_messages_stay_as_they_are():
    """All that is left is the test, and the refusal itself."""
    lines = SPOKEN.decode().splitlines(keepends=True)
    kept = "".join(lines[:4])
    assert planted(SPOKEN) == {
        kept + "    if not x:\n" + lines[5],
        kept + "    if x:\n        pass\n",
    }


def test_a_draw_is_spread_over_the_lines_and_compiles(root):
    path = "ifcore/weights.py"
    source = (root / path).read_bytes()
    found = faults.faults(path, "weights", source)
    lines = {fault.line for fault in found}
    for seed in range(3):
        drawn = faults.draw(found, {path: source}, len(lines), random.Random(seed))
        assert len({fault.line for fault in drawn}) >= 0.9 * len(lines)
        assert all(ast.parse(fault.planted(source)) for fault in drawn)
        again = faults.draw(found, {path: source}, len(lines), random.Random(seed))
        assert drawn == again


def test_a_fault_is_known_again_where_lines_are_moved():
    source = b"def f(x):\n    return x + 1\n"
    moved = b"import a\n\n\n" + source
    before, after = (
        {fault.name for fault in faults.faults("a.py", "room", text)} for text in (source, moved)
    )
    assert before == after and ("room.f", "return x + 1", "return x - 1") in before
