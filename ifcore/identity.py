"""What a result depends on, in short: digests of data, of models, and of the code that they run.

They are the same in every process, and another for another value, so that results which are kept
are never taken for those of another computation.
"""

import copyreg
import dis
import hashlib
import sys
import types
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ifcore import inputs
from ifcore.network import Network
from ifcore.risk import Risk

# what Python and torch set in a class of the reader's, another in each process
MACHINERY = ("_abc_impl", "_autograd_function_id")


def digest(*values):
    """A short hash of arrays, numbers and strings."""
    found = hashlib.sha256()
    for value in values:
        value = np.ascontiguousarray(value)
        found.update(f"{value.dtype}{value.shape}".encode() + value.tobytes())
    return found.hexdigest()[:16]


def fingerprint(risk):
    """What a risk is, for a configuration: its data, its losses at a fixed θ, and its code."""
    some = risk.subset(np.arange(min(risk.n, 64)))
    model = told_apart(some.losses, risk.d)
    data = digest(*(part.numpy() for part in inputs.leaves(risk.X)), risk.y.numpy())
    penalty = digest(risk.lam, 0 if risk.b is None else risk.b)
    own = {"n": risk.n, "d": risk.d, "penalty": penalty, "data": data, "model": model}
    return own | {"code": Code((risk.model, risk.loss))}


def told_apart(function, d):
    """A hash of what a function of θ (d,) gives at a fixed random θ, to six digits."""
    theta = np.random.default_rng(0).standard_normal(d) / d**0.5
    return digest([f"{value:.5e}" for value in np.ravel(function(theta)).tolist()])


class Code(NamedTuple):
    """What in a configuration is code, or holds some: its digest stands for it, or a run's name."""

    value: object


class Opaque(TypeError):
    """What does not show what it computes."""


def code(value, seen=None):
    """A hash of a value and of all that it would run, the same in every process.

    Of a function: its bytecode, constants, defaults, what it closes over, and the globals that it
    names. Of an object: its class, and its state as for pickling. Of what a library brings: its
    name and the library's version. Raises Opaque for what shows none of these.
    """
    if type(value) is np.ndarray and value.dtype != object or isinstance(value, np.generic):
        return digest(value)
    if type(value) in (type(None), type(...), bool, int, float, complex, str, bytes):
        return digest(type(value).__name__, repr(value))
    seen = {} if seen is None else seen
    if not isinstance(value, tuple):
        if id(value) in seen:
            return f"seen {seen[id(value)][0]}"
        seen[id(value)] = len(seen), value  # held, lest another takes its id
    return digest(type(value).__name__, *(code(part, seen) for part in _parts(value)))


def _parts(value):
    """What a value consists of, for `code`."""
    if isinstance(value, (tuple, list)):
        return value
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, torch.Tensor):
        return str(value.dtype), value.numpy(force=True)
    if isinstance(value, Risk):
        return fingerprint(value).values()
    if isinstance(value, Network):  # θ comes from elsewhere
        return [value.module(np.zeros(value.d))]
    if isinstance(value, types.CodeType):
        return value.co_code, value.co_consts, value.co_names, value.co_exceptiontable
    if isinstance(value, types.FunctionType):
        return _of_function(value)
    if isinstance(value, type):
        return _of_class(value)
    if isinstance(value, types.ModuleType):
        return [_library(value.__name__) or _opaque(value), value.__name__]
    if isinstance(value, types.MethodType):
        return value.__func__, value.__self__
    if isinstance(value, types.BuiltinFunctionType):
        held = None if isinstance(value.__self__, types.ModuleType) else value.__self__
        return value.__module__, value.__qualname__, held
    if isinstance(value, property):
        return value.fget, value.fset, value.fdel
    return [value.__wrapped__] if hasattr(value, "__wrapped__") else _reduced(value)


def _of_function(function):
    library = _library(function.__globals__.get("__name__", ""))
    own = function.__defaults__, function.__kwdefaults__, list(_closed_over(function))
    if library:
        return library, function.__qualname__, *own
    names, named = _names(function.__code__)
    used = _used(named, function.__globals__, names)
    return function.__code__, *own, used, vars(function)


def _of_class(cls):
    library = _library(cls.__module__)
    if library:
        return library, cls.__qualname__
    parts = {
        name: part
        for name, part in vars(cls).items()
        if callable(part) or not (name.startswith("__") or name in MACHINERY)
    }
    return cls.__bases__, parts


def _closed_over(function):
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not filled yet
            yield None


def _names(code):
    """The names in a code and those within it, attributes too, and those of globals."""
    codes = [code]
    for part in codes:
        codes += [inner for inner in part.co_consts if isinstance(inner, types.CodeType)]
    loads = (load for part in codes for load in dis.get_instructions(part))
    named = {load.argval for load in loads if load.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return {name for part in codes for name in part.co_names}, named


def _used(named, namespace, names):
    """What is named of a namespace; of a module of the reader's, what is named of that."""
    used = {name: namespace[name] for name in sorted(named) if name in namespace}
    for name, part in used.items():
        if isinstance(part, types.ModuleType) and not _library(part.__name__):
            used[name] = _used(names - {name}, vars(part), names - {name})
    return used


def _reduced(value):
    """An object by what pickle would keep of it."""
    reduce = copyreg.dispatch_table.get(type(value))
    try:
        reduced = value.__reduce_ex__(4) if reduce is None else reduce(value)
    except Exception as error:
        raise Opaque(f"{value!r}") from error
    if isinstance(reduced, str):
        home = _library(getattr(value, "__module__", None) or "")
        numpy = np.__version__ if getattr(np, reduced, None) is value else ""
        return home or numpy or _opaque(value), reduced
    function, arguments, state, *items = (*reduced, None, None, None)[:5]
    return function, arguments, state, *(part and list(part) for part in items)


def _opaque(value):
    raise Opaque(f"{value!r}")


def _library(name):
    """The library and its version where a module is of one, and not the reader's own; or ""."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top == __name__.partition(".")[0]:
        return top
    module = sys.modules.get(top)
    folders = Path(getattr(module, "__file__", None) or "").parts
    installed = {"site-packages", "dist-packages"} & set(folders)
    return f"{top} {getattr(module, '__version__', '')}" if installed else ""


def differences(was, now):
    """What two configurations {name: value} do not have in common, in words; "" for nothing.

    The first three, and how many more; of values that are dictionaries what differs in them.
    """
    apart = list(_apart(was, now))
    told = [f"{name} was {before}, now {after}" for name, before, after in apart[:3]]
    return "; ".join([*told, f"and {len(apart) - 3} more"] if len(apart) > 3 else told)


def _apart(was, now, within=""):
    """The names in which two dictionaries differ, with both values."""
    for name in sorted(was.keys() | now.keys()):
        before, after = was.get(name), now.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _apart(before, after, f"{within}{name}, ")
        elif before != after:
            yield f"{within}{name}", before, after


def text(value, name):
    """A value of a configuration as a string: code as its digest, or as the `name` for it."""
    if isinstance(value, Code):
        return code(value.value) if name is None else f"as {name!r}"
    if isinstance(value, dict):
        return str({key: text(part, name) for key, part in value.items()})
    if isinstance(value, np.ndarray) or callable(value):
        return text(Code(value), name)
    return str(value)


def source():
    """A hash of this package's code and of the libraries it computes with."""
    files = sorted(Path(__file__).parent.rglob("*.py"))
    texts = (path.read_text(encoding="utf-8") for path in files)
    return digest(np.__version__, torch.__version__, *texts)
