"""The memory that a docstring states: `Memory: 8 (n d + d²) bytes; 8 n d bytes by QR.`

One clause for each case, each with its formula before "bytes", and what it is of behind. Products
are written side by side; the names are those of the sizes, and of what the clause defines: "with
b = min(m, 2²⁴/d)".
"""

import inspect
import re

TOKEN = re.compile(r"\s*(\d+\.?\d*|[^\W\d⁰¹²³⁴⁵⁶⁷⁸⁹]+|[⁰¹²³⁴⁵⁶⁷⁸⁹]+|[-+/(),])")
DEFINED = re.compile(r"\bwith (\w+) = ")
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
FUNCTIONS = {"min": min, "max": max}


def clauses(function):
    """What the docstring says of its memory, clause by clause."""
    text = inspect.getdoc(function) or ""
    found = re.search(r"(?<!\w)Memory[^:]*: (.*?)(?:\n\n|\Z)", text, re.DOTALL)
    return re.split(r";\s+", " ".join(found[1].split())) if found else []


def clause(function, words):
    """The one clause whose words behind the formula begin with these; "" for one without."""
    found = clauses(function)
    if words or len(found) > 1:
        found = [part for part in found if _of(part).startswith(words or ("with", "!"))]
    (only,) = found
    return only


def stated(function, words, sizes):
    """The bytes that this clause gives for the sizes."""
    text, names = clause(function, words), dict(sizes)
    for found in DEFINED.finditer(text):
        names[found[1]] = value(text[found.end() :], names)
    return value(text, names)


def _of(clause):
    """What a clause is of, by its words behind the formula; "!" for one without."""
    return clause.partition(" bytes")[2].strip(" ,.") or "!"


def value(text, names):
    """The value of the formula with which a text begins."""
    return _sum(_Tokens(text, names))


class _Tokens:
    """What is left of a text, token by token; names that are not known end it."""

    def __init__(self, text, names):
        self.text, self.names, self.at = text, names, 0

    def next(self):
        found = TOKEN.match(self.text, self.at)
        return found[1] if found else None

    def take(self):
        found = TOKEN.match(self.text, self.at)
        self.at = found.end()
        return found[1]


def _sum(tokens):
    total = _product(tokens)
    while tokens.next() in ("+", "-"):
        sign = 1 if tokens.take() == "+" else -1
        total += sign * _product(tokens)
    return total


def _product(tokens):
    total = _power(tokens)
    while True:
        token = tokens.next()
        if token == "/":
            tokens.take()
            total /= _power(tokens)
        elif (
            token == "(" or token and (token[0].isdigit() or token in {**tokens.names, **FUNCTIONS})
        ):
            total *= _power(tokens)
        else:
            return total


def _power(tokens):
    base = _atom(tokens)
    token = tokens.next()
    return (
        base ** int(tokens.take().translate(RAISED)) if token and token[0] in "⁰¹²³⁴⁵⁶⁷⁸⁹" else base
    )


def _atom(tokens):
    token = tokens.take()
    if token == "(":
        inner = _sum(tokens)
        tokens.take()
        return inner
    if token in FUNCTIONS:
        tokens.take()
        arguments = [_sum(tokens)]
        while tokens.take() == ",":
            arguments.append(_sum(tokens))
        return FUNCTIONS[token](*arguments)
    return float(token) if token[0].isdigit() else tokens.names[token]
