"""The faults that a slip could plant in a Python source; none of them touches only a message.

A message is a string, what an f-string or a `raise` or a warning says, and a name that nothing
else reads. Annotations and decorators are left alone too.
"""

import ast
from collections import Counter
from dataclasses import dataclass
from itertools import islice

SWAPS = {
    ast.Lt: ("<", "<=", ">="),
    ast.LtE: ("<=", "<", ">"),
    ast.Gt: (">", ">=", "<="),
    ast.GtE: (">=", ">", "<"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "/"),
    ast.Mod: ("%", "*"),
    ast.Pow: ("**", "*"),
    ast.MatMult: ("@", "*"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
    ast.USub: ("-", ""),
    ast.Not: ("not", ""),
    ast.Invert: ("~", ""),
}
PAIRS = [
    ("max", "min"),
    ("maximum", "minimum"),
    ("amax", "amin"),
    ("argmax", "argmin"),
    ("any", "all"),
    ("sum", "mean"),
    ("ones", "zeros"),
    ("ones_like", "zeros_like"),
    ("floor", "ceil"),
    ("exp", "expm1"),
    ("log", "log1p"),
    ("sin", "cos"),
    ("cumsum", "cumprod"),
    ("triu", "tril"),
    ("hstack", "vstack"),
]
TWIN = dict(PAIRS) | {b: a for a, b in PAIRS}
UNWRAPPED = {"abs", "sorted", "reversed", "sqrt", "copy", "clone", "conj", "ravel"}


@dataclass(frozen=True)
class Fault:
    """In `path`, at `line` of `function`, the bytes from start to end become `text`."""

    path: str
    function: str
    line: int
    start: int
    end: int
    text: str
    was: str
    now: str

    def planted(self, source):
        return source[: self.start] + self.text.encode() + source[self.end :]

    @property
    def name(self):
        """What stays the same where lines are moved."""
        return self.function, self.was, self.now


def faults(path, room, source):
    """Every fault of a source, as `Fault`s; a few of them do not compile."""
    begins = [0]
    for line in source.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    found = []
    for node, function in _walk(ast.parse(source), room):
        for start, end, text in _slips(node, _Text(source, begins)):
            first = source.rfind(b"\n", 0, start) + 1
            last = source.find(b"\n", end)
            was = source[first:last]
            now = source[first:start] + text.encode() + source[end:last]
            line = source.count(b"\n", 0, start) + 1
            found.append(Fault(path, function, line, start, end, text, _one(was), _one(now)))
    return found


def draw(found, sources, count, rng):
    """`count` faults that compile, by chance: each line gives one before one gives two."""
    turns = Counter()

    def turn(fault):
        turns[fault.path, fault.line] += 1
        return turns[fault.path, fault.line]

    mixed = sorted(rng.sample(found, len(found)), key=turn)
    sound = (fault for fault in mixed if _compiles(fault.planted(sources[fault.path])))
    return list(islice(sound, count))


class _Text:
    """Places of nodes in a source, in bytes."""

    def __init__(self, source, begins):
        self.source, self.begins = source, begins

    def start(self, node):
        return self.begins[node.lineno - 1] + node.col_offset

    def end(self, node):
        return self.begins[node.end_lineno - 1] + node.end_col_offset

    def of(self, node):
        return self.source[self.start(node) : self.end(node)].decode()

    def swap(self, start, end, old, new):
        """The first `old` between two places becomes `new`."""
        at = self.source.index(old.encode(), start, end)
        return at, at + len(old.encode()), new

    def replace(self, node, text):
        return self.start(node), self.end(node), text


def _slips(node, text):
    """(start, end, what stands there instead) for each slip at one node."""
    match node:
        case ast.Compare(left=left, ops=ops, comparators=others):
            yield from _swapped(text, ops, [left, *others])
        case ast.BinOp(left=left, op=op, right=right):
            yield from _swapped(text, [op], [left, right])
        case ast.AugAssign(target=target, op=op, value=value):
            yield from _swapped(text, [op], [target, value])
        case ast.BoolOp(op=op, values=values):
            yield from _swapped(text, [op] * (len(values) - 1), values)
            for value in values:
                yield text.replace(value, str(isinstance(op, ast.And)))
        case ast.UnaryOp(op=op, operand=operand) if type(op) in SWAPS:
            yield text.swap(text.start(node), text.start(operand), *SWAPS[type(op)])
        case ast.IfExp(test=test):
            yield text.replace(test, "True")
            yield text.replace(test, "False")
        case ast.If(test=ast.Name() | ast.Attribute() | ast.Call() | ast.Subscript() as test):
            yield text.start(test), text.start(test), "not "
        case ast.comprehension(ifs=ifs):
            for test in ifs:
                yield text.replace(test, "True")
        case ast.Constant(value=bool(value)):
            yield text.replace(node, str(not value))
        case ast.Constant(value=int(value)):
            yield text.replace(node, str(value + 1))
            yield text.replace(node, str(value - 1))
        case ast.Constant(value=float(value)):
            yield text.replace(node, repr(value + 1))
        case ast.Attribute(value=value, attr="T" | "mT"):
            yield text.swap(text.end(value), text.end(node), f".{node.attr}", "")
        case ast.Slice(lower=lower, upper=upper, step=step):
            for part in (lower, upper, step):
                if part is not None:
                    yield text.replace(part, "")
        case ast.Call():
            yield from _calls(node, text)
    if _removable(node):
        yield text.replace(node, "pass")


def _swapped(text, ops, operands):
    for op, left, right in zip(ops, operands, operands[1:]):
        old, *others = SWAPS.get(type(op), (None,))
        for new in others:
            yield text.swap(text.end(left), text.start(right), old, new)


def _calls(node, text):
    """A keyword dropped, a function taken for its twin, a wrapper left away."""
    arguments = sorted([*node.args, *node.keywords], key=text.start)
    for keyword in node.keywords:
        at = arguments.index(keyword)
        if at:
            yield text.end(arguments[at - 1]), text.end(keyword), ""
        else:
            after = arguments[1] if len(arguments) > 1 else None
            end = text.start(after) if after else text.end(keyword)
            yield text.start(keyword), end, ""
    name = getattr(node.func, "attr", getattr(node.func, "id", None))
    if name in TWIN:
        yield text.end(node.func) - len(name), text.end(node.func), TWIN[name]
    if name in UNWRAPPED:
        inner = node.args[0] if node.args else getattr(node.func, "value", None)
        if inner is not None:
            yield text.replace(node, f"({text.of(inner)})")


def _removable(node):
    """Whether a program may still run without this statement."""
    match node:
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Break():
            return True
        case ast.Continue() | ast.Delete():
            return True
        case ast.Assign(targets=targets, value=value):
            bound = {name for target in targets for name in _names(target, ast.Store)}
            return bound <= _names(value, ast.Load)  # none where an element or a field is set
        case ast.If(body=[*_, ast.Return()], orelse=[]):
            return True
    return False


def _names(tree, context):
    return {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, context)
    }


def _walk(tree, function, silent=frozenset()):
    """(node, the function it stands in) for every node that is more than a message."""
    for child in _children(tree):
        if child in silent:
            continue
        yield child, function
        if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
            quiet = silent | _only_said(child) if isinstance(child, ast.FunctionDef) else silent
            yield from _walk(child, f"{function}.{child.name}", quiet)
        else:
            yield from _walk(child, function, silent)


def _children(node):
    if isinstance(node, (ast.Raise, ast.JoinedStr)) or _speaks(node):
        return
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "decorator_list"):
            parts = value if isinstance(value, list) else [value]
            yield from (part for part in parts if isinstance(part, ast.AST))


def _speaks(node):
    match node:
        case ast.Call(func=ast.Attribute(attr="warn")) | ast.FunctionDef(name="__repr__"):
            return True
    return False


def _only_said(function):
    """The assignments to names that only messages read, or names of that kind."""
    said = frozenset()
    while True:
        nodes = [node for node, _ in _walk(function, "", said)]
        read = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        more = {
            node
            for node in nodes
            if isinstance(node, ast.Assign)
            and all(isinstance(target, ast.Name) for target in node.targets)
            and not {target.id for target in node.targets} & read
        }
        if not more:
            return said
        said |= more


def _one(lines):
    return " ".join(lines.decode().split())


def _compiles(source):
    try:
        compile(source, "a fault", "exec")
    except SyntaxError:
        return False
    return True
