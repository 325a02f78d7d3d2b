"""What a run keeps on disk, how it goes on, and what it refuses."""

import abc
import collections
import functools
import importlib
import inspect
import io
import json
import os
import pickle
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import types

import joblib
import numpy as np
import pandas
import pytest
import refits
import threadpoolctl
import torch
from refits import W, regression
from torch import nn

import ifcore
from ifcore import identity, risk
from ifcore import training as training_room
from ifcore.network import Network
from ifcore.risk import Risk
from ifcore.runs import ALONE, BadCache, Fit, NotConverged, Run
from ifcore.training import Training, retrain


def test_an_interrupted_run_says_so_and_goes_on(tmp_path, interrupted):
    problem, training = regression(), Training(20, 0.05)
    options = {
        "start": problem.model.theta,
        "weights": W,
        "block": 2,
        "run": Run(folder=tmp_path, jobs=1),
    }
    calls = interrupted(training_room, "_train", at=3)
    with pytest.raises(KeyboardInterrupt) as caught:
        retrain(problem, training, **options)
    assert "partial: 2 of 4 blocks are done, kept in" in caught.value.__notes__[0]
    assert [part is not None for part in caught.value.partial] == [True, True, False, False]
    found = retrain(problem, training, **options).theta
    assert len(calls) == 3 + 2
    np.testing.assert_array_equal(
        found[:4], np.concatenate([part.theta for part in caught.value.partial[:2]])
    )
    np.testing.assert_array_equal(retrain(problem, training, **options).theta, found)
    assert len(calls) == 3 + 2
    np.testing.assert_array_equal(
        found, retrain(problem, training, problem.model.theta, W, run=Run(jobs=1)).theta
    )


KILLED = """
import sys, numpy as np
sys.path.insert(0, sys.argv[2])
import refits
from ifcore.runs import Run
from ifcore.training import Training, retrain
problem = refits.regression()
print("ready", flush=True)
retrain(problem, Training(20_000, 1e-4), problem.model.theta, refits.W, block=1,
        run=Run(folder=sys.argv[1], jobs=1))
"""


def test_a_killed_run_leaves_whole_blocks_only(tmp_path):
    here = os.path.dirname(refits.__file__)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), here], stdout=subprocess.PIPE
    )
    try:
        process.stdout.readline()
        while not (tmp_path / "block-00000.npz").exists() and process.poll() is None:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    blocks = list(tmp_path.glob("block-*.npz"))
    assert blocks and process.returncode == -signal.SIGKILL
    for path in blocks:
        with np.load(path) as stored:
            assert stored["theta"].shape == (1, 26)


def test_a_corrupt_cache_and_one_of_another_configuration_are_refused(tmp_path):
    problem, training = regression(), Training(20, 0.05)
    options = {"block": 2, "run": Run(folder=tmp_path, jobs=1)}
    retrain(problem, training, problem.model.theta, W, **options)
    with pytest.raises(
        BadCache, match="another configuration: rate was .*, now .*; steps was 20, now 21"
    ):
        retrain(problem, Training(21, 0.06), problem.model.theta, W, **options)
    with pytest.raises(BadCache, match="fits was"):
        retrain(problem, training, problem.model.theta, W[:5], **options)
    path = tmp_path / "block-00001.npz"
    content = path.read_bytes()
    for broken in (content[:-200], content[:400] + bytes([content[400] ^ 1]) + content[401:], b""):
        path.write_bytes(broken)
        with pytest.raises(BadCache, match="block-00001.npz is corrupt .* delete it") as caught:
            retrain(problem, training, problem.model.theta, W, **options)
        assert caught.value.path == path
    path.unlink()
    retrain(problem, training, problem.model.theta, W, **options)
    assert path.read_bytes() == content
    with np.load(path) as stored:
        np.savez(path, **{**stored, "key": "another"})
    with pytest.raises(BadCache, match="is of another configuration or block, another"):
        retrain(problem, training, problem.model.theta, W, **options)
    (tmp_path / "configuration.json").write_text("{")
    with pytest.raises(BadCache, match="configuration.json is corrupt"):
        retrain(problem, training, problem.model.theta, W, **options)


def test_the_configuration_can_be_read(tmp_path):
    problem = regression()
    retrain(problem, Training(5, 0.05), problem.model.theta, run=Run(folder=tmp_path))
    there = json.loads((tmp_path / "configuration.json").read_text())
    assert there["steps"] == "5" and there["n"] == "20" and there["optimiser"] == "sgd"


def fit(folder, loss=risk.squared, weights=None, **options):
    """Two refits of a linear model, in two blocks."""
    X = np.random.default_rng(0).standard_normal((12, 3))
    problem, W = Risk(risk.linear, loss, X, X[:, 0]), 1 - np.eye(12)[:2]
    run = Run(folder=folder, jobs=1, progress=False, **options)
    W = W if weights is None else weights
    return retrain(problem, Training(3, 0.05), np.zeros(3), W, block=1, run=run).theta


def huber(delta):
    def loss(f, y):
        return torch.where((f - y).abs() < delta, (f - y) ** 2 / 2, delta * (f - y).abs())

    return loss


def test_a_loss_with_another_constant_is_another_configuration(tmp_path):
    """Both losses are the same wherever the fits go."""
    found = fit(tmp_path, huber(100.0))
    np.testing.assert_array_equal(fit(tmp_path, huber(100.0)), found)
    with pytest.raises(BadCache, match="another configuration: code was .*, now"):
        fit(tmp_path, huber(200.0))
    with pytest.raises(BadCache, match="fits was"):
        fit(tmp_path, huber(100.0), 1 - np.eye(12)[2:4])


SCALE = 2.0


class Scaled:
    def __init__(self, scale):
        self.scale = scale

    def __call__(self, f, y):
        return self.scale * f

    def twice(self, f, y):
        return 2 * self(f, y)


class Doubled(Scaled):
    def __call__(self, f, y):
        return 2 * super().__call__(f, y)


class Shifted(nn.Module):
    def __init__(self, shift):
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.register_buffer("shift", torch.tensor(shift))

    def forward(self, x):
        return self.linear(x + self.shift)


def by_global(f, y):
    return SCALE * f


def by_default(scale):
    return lambda f, y, scale=scale: scale * f


def nested(scale):
    return lambda f, y: (lambda: by_default(scale)(f, y))()


def brought(scale):
    def loss(f, y):
        return f

    loss.slope = by_default(scale)
    return loss


def by_module(f, y):
    return refits.W[0] * Scaled(SCALE)(f, y) + by_default(2.0)(f, y)


def frozen(shift):
    module = Shifted(0.0)
    module.linear.bias = nn.Parameter(torch.tensor([shift]), requires_grad=False)
    return Network(module)


MAKERS = {
    "closure": huber,
    "default": by_default,
    "nested": nested,
    "attribute": brought,
    "partial": lambda scale: functools.partial(by_global, y=scale),
    "cached": lambda scale: functools.lru_cache(by_default(scale)),
    "object": Scaled,
    "method": lambda scale: Scaled(scale).twice,
    "method of an array": lambda scale: np.full(3, scale).dot,
    "loss of torch": lambda scale: nn.HuberLoss(delta=scale),
    "mapped": lambda scale: torch.func.vmap(by_default(scale)),
    "vectorised": lambda scale: np.vectorize(by_default(scale)),
    "buffer": lambda scale: Network(Shifted(scale)),
    "frozen parameter": frozen,
    "masked": lambda scale: np.ma.array([scale, 1.0], mask=[False, scale > 2]),
    "objects": lambda scale: np.array([scale, None, "a"], dtype=object),
    "losses of a risk": lambda scale: Risk(risk.linear, huber(scale), [[1.0]], [0.0]).losses,
    "losses of data": lambda scale: Risk(risk.linear, risk.squared, [[scale]], [0.0]).losses,
    "generator": lambda scale: np.random.default_rng(int(scale)),
    "globals": lambda scale: functools.partial(by_module, y=scale),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_code_is_told_apart_by_the_values_that_it_uses(kind):
    """What is made again has the same key; so has a network of other θ, which is given beside."""
    make = MAKERS[kind]
    keys = [identity.code(make(scale)) for scale in (2.0, 2.0, 3.0)]
    assert keys[0] == keys[1] != keys[2]


def test_code_is_told_apart_by_what_it_does(monkeypatch):
    functions = [
        lambda t: t.exp(),
        lambda t: t.sin(),
        lambda t: torch.exp(t),
        lambda t: torch.sin(t),
        lambda t: np.exp(t),
        torch.exp,
        torch.sin,
        np.exp,
        np.sin,
        lambda t: t in {"a", "b", "c"},
        lambda t: t in {"a", "b", "d"},
        Scaled(2.0),
        Doubled(2.0),
        risk.linear,
        risk.squared,
        Network(nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 1))),
        Network(nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))),
        by_global,
    ]
    keys = [identity.code(function) for function in functions]
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    keys.append(identity.code(by_global))
    assert len(set(keys)) == len(keys)


def test_tensors_are_told_by_their_numbers_and_not_by_what_else_is_in_memory():
    T = torch.arange(6.0).reshape(2, 3)
    for same in (torch.arange(7.0)[:6].view(2, 3), T.T.contiguous().T, T.clone().requires_grad_()):
        assert identity.code(same) == identity.code(T)
    for other in (T.T, T.double(), T + 1, T.numpy()):
        assert identity.code(other) != identity.code(T)


def test_numbers_are_the_same_code_in_whatever_layout_they_stand():
    A = np.random.default_rng(0).standard_normal((4, 3))
    for same in (np.asfortranarray(A), np.repeat(A, 2, axis=1)[:, ::2], A[::-1].copy()[::-1]):
        assert identity.code(same) == identity.code(A)
    assert identity.code(A[0, 0]) == identity.code(np.array(A[0, 0]))  # of no axes
    for other in (A.T, A.reshape(3, 4), A.astype(np.float32), A + 1e-15):
        assert identity.code(other) != identity.code(A)


def test_of_many_differences_three_are_named_and_of_a_dictionary_what_differs_in_it():
    was = {"plan": {"chunk": "8", "steps": "20"}, "rate": 0.1}
    assert identity.differences(was, was | {"rate": 0.1}) == ""
    now = {"plan": {"chunk": "7", "steps": "20"}, "rate": 0.1}
    assert identity.differences(was, now) == "plan, chunk was 8, now 7"


def test_a_configuration_tells_large_arrays_apart_by_every_entry(tmp_path):
    one, other = np.zeros((2, 5000))
    other[2500] = 1e-9
    for array in (one, one.copy()):
        Run(tmp_path, 1, False).each(dict, [()], lambda array=array: {"rates": array})
    with pytest.raises(BadCache, match="another configuration: rates was"):
        Run(tmp_path, 1, False).each(dict, [()], lambda: {"rates": other})


def test_measures_are_told_apart_by_what_they_give_where_a_network_begins():
    """Of 400 parameters too, whose size there is 1/20: at the size of 1/8000 sin θ is θ."""
    found = [lambda t: t, np.sin, np.tanh, lambda t: t * (1 + 1e-4), lambda t: t.sum()]
    found += [lambda t: t + t**3 / 100, lambda t: np.tanh(t @ t), lambda t: np.tanh(2 * t @ t)]
    for d in (2, 400):
        keys = {identity.told_apart(function, d) for function in found}
        assert len(keys) == len(found)
        assert identity.told_apart(lambda t: t * (1 + 1e-12), d) in keys  # but for rounding


ELSEWHERE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location(sys.argv[2], sys.argv[1])
module = importlib.util.module_from_spec(spec)
sys.modules[sys.argv[2]] = module
spec.loader.exec_module(module)
print(*(module.identity.code(make(2.0)) for make in module.MAKERS.values()))
"""


def test_code_has_the_same_key_in_another_process():
    here = [identity.code(make(2.0)) for make in MAKERS.values()]
    path = os.pathsep.join([os.path.dirname(refits.__file__), *sys.path])
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": path}
        call = [sys.executable, "-c", ELSEWHERE, __file__, __name__]
        out = subprocess.run(call, env=environment, capture_output=True, text=True, check=True)
        assert out.stdout.split() == here


def test_code_that_cannot_be_told_needs_a_name(tmp_path):
    lock = threading.Lock()

    def opaque(f, y):
        with lock:
            return (f - y) ** 2

    with pytest.raises(BadCache, match=r"cannot be told from another.* Run\(…, name=…\)") as caught:
        fit(tmp_path, opaque)
    assert caught.value.path == tmp_path and not list(tmp_path.iterdir())
    found = fit(tmp_path, opaque, name="one")
    np.testing.assert_array_equal(fit(tmp_path, opaque, name="one"), found)
    with pytest.raises(BadCache, match="code was as 'one', now as 'two'"):
        fit(tmp_path, opaque, name="two")


def saved(path, **arrays):
    with open(path, "wb") as file:
        np.savez(file, **arrays)


class Runs:
    """Writes a file where it is read from a pickle."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_block_that_is_not_what_was_kept_is_refused(tmp_path):
    folder, trap = tmp_path / "folder", tmp_path / "ran"
    fit(folder)
    first, second = folder / "block-00000.npz", folder / "block-00001.npz"
    kept = second.read_bytes()
    with np.load(second) as stored:
        arrays = dict(stored)
    trapped = np.array([Runs(trap)], dtype=object)

    def refused(words):
        with pytest.raises(BadCache, match=f"block-00001.npz is {words}.* delete it") as caught:
            fit(folder)
        assert caught.value.path == second and not trap.exists()

    second.write_bytes(first.read_bytes())
    refused("of another configuration or block")
    for change in (
        {"theta": arrays["theta"][:0]},
        {"theta": arrays["theta"] + 1},
        {"theta": arrays["theta"].astype(np.float32)},
        {"more": np.ones(1)},
        {"theta": trapped},
        {"key": trapped},
    ):
        saved(second, **arrays | change)
        refused("corrupt")
    saved(second, **{name: part for name, part in arrays.items() if name != "theta"})
    refused("corrupt")
    with open(second, "wb") as file:
        np.save(file, arrays["theta"])
    refused("corrupt .it is no .npz file")
    second.write_bytes(pickle.dumps(Runs(trap)))
    refused("corrupt")
    second.write_bytes(kept)
    fit(folder)


@pytest.mark.parametrize("content", ["[1]", "null", "3", '"a"', "[[1, 2]]", "", "[" * 10**5])
def test_a_configuration_that_is_none_is_refused(tmp_path, content):
    fit(tmp_path)
    path = tmp_path / "configuration.json"
    path.write_text(content)
    with pytest.raises(
        BadCache, match="configuration.json is corrupt .* delete the folder"
    ) as caught:
        fit(tmp_path)
    assert caught.value.path == path


@pytest.mark.parametrize("jobs", [0, 1.5, "2", None])
def test_jobs_are_checked(jobs):
    with pytest.raises(ValueError, match="jobs must be an integer other than 0; got"):
        Run(jobs=jobs, progress=False).each(dict, [(), ()], dict)


@pytest.mark.parametrize("progress, shown", [(True, True), (False, False), (None, False)])
def test_the_bar_is_shown_where_it_is_asked_for(progress, shown, capsys, tmp_path):
    """None: on a terminal, which this is not. A run that goes on begins with what is there."""
    for blocks, begun in (([(), ()], "0/2"), ([(), (), ()], "2/3")):
        run = Run(folder=tmp_path, jobs=1, progress=progress)
        assert run.each(dict, blocks, dict) == [{}] * len(blocks)
        said = capsys.readouterr().err
        assert (begun in said and f"{len(blocks)}/{len(blocks)}" in said) == shown
        assert bool(said) == shown


def test_each_block_runs_on_one_thread_and_leaves_the_others_as_they_were():
    def threads():
        pools = [pool["num_threads"] for pool in threadpoolctl.threadpool_info()]
        return {"pools": np.array([*pools, torch.get_num_threads()])}

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with threadpoolctl.threadpool_limits(2):
            outside = threads()["pools"]
            (inside,) = Run(jobs=1, progress=False).each(threads, [()], dict)
            np.testing.assert_array_equal(threads()["pools"], outside)
    finally:
        torch.set_num_threads(before)
    assert (outside > 1).any() and (inside["pools"] == 1).all()


def test_the_first_of_many_fits_is_the_first_in_all_its_parts():
    problem, training = regression(), Training(6, 0.05)
    call, options = (problem, training, problem.model.theta), {"keep": (0, 4), "run": Run(jobs=1)}
    first, alone = retrain(*call, W, **options).first(), retrain(*call, W[0], **options)
    for one, other in zip((*first[:4], *first.states), (*alone[:4], *alone.states)):
        for part, same in zip(one, other) if isinstance(one, tuple) else [(one, other)]:
            np.testing.assert_array_equal(part, same)


def test_of_many_fits_the_first_that_did_not_end_well_is_named():
    fit = Fit(np.zeros((3, 1)), np.zeros(3), np.arange(3), np.array(["converged", "a", "b"]))
    with pytest.raises(NotConverged, match="2 of 3 fits .* the first, row 1, is 'a' after 1 steps"):
        fit.require(True, "row")
    assert fit.require(False, "row") is fit


class Named:
    """What pickle would keep by its name in this module."""

    def __reduce__(self):
        return "NAMED"


NAMED = Named()


def test_what_is_kept_by_a_name_of_the_readers_own_cannot_be_told_apart():
    with pytest.raises(identity.Opaque):
        identity.code(NAMED)


def test_lists_of_a_kind_of_ones_own_are_told_apart_by_what_they_hold():
    class Kept(list):
        pass

    class Named(dict):
        pass

    keys = {identity.code(part) for part in (Kept([1.0]), Kept([2.0]), Named(a=1), Named(a=2))}
    assert len(keys) == 4 and identity.code(Kept([1.0])) in keys


def test_a_set_is_told_by_what_it_holds_in_whatever_order():
    one, other = frozenset([0, 8]), frozenset([8, 0])
    assert list(one) != list(other)  # the two share a place in the table
    assert identity.code(one) == identity.code(other) != identity.code(frozenset([0, 9]))


@pytest.mark.parametrize(
    "library, values",
    [
        (torch, [nn.functional.mse_loss, nn.MSELoss, nn.functional, nn.MSELoss()]),
        (np, [np.mean, np.exp, np.linalg, np.ma.MaskedArray]),
    ],
)
def test_what_a_library_brings_is_another_code_in_another_version(library, values, monkeypatch):
    before = [identity.code(value) for value in values]
    assert before == [identity.code(value) for value in values]
    assert len(set(before)) == len(before)
    monkeypatch.setattr(library, "__version__", "0.0.1")
    assert not set(before) & {identity.code(value) for value in values}


def test_results_of_another_library_or_another_code_are_refused(tmp_path, monkeypatch):
    fit(tmp_path / "kept")
    for library in (np, torch):
        with monkeypatch.context() as other:
            other.setattr(library, "__version__", "0.0.1")
            with pytest.raises(BadCache, match="source was .*, now"):
                fit(tmp_path / "kept")
    package = tmp_path / "ifcore"
    shutil.copytree(os.path.dirname(identity.__file__), package)
    here = identity.source()
    monkeypatch.setattr(identity, "__file__", str(package / "identity.py"))
    assert identity.source() == here
    for path in (package / "runs.py", package / "risk" / "losses.py"):
        path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
        assert identity.source() != here
        here = identity.source()


def test_digests_tell_kinds_shapes_and_places_apart():
    values = [
        [np.zeros(2)],
        [np.zeros((1, 2))],
        [np.zeros(2, np.float32)],
        [np.zeros(2, int)],
        [0.0, 0.0],
        ["a", "b"],
        ["b", "a"],
        ["ab"],
        ["a"],
        [],
    ]
    keys = [identity.digest(*value) for value in values]
    assert len(set(keys)) == len(keys) and {len(key) for key in keys} == {16}
    assert identity.digest(np.zeros((2, 2)).T, "a") == identity.digest(np.zeros((2, 2)), "a")


def test_a_name_stands_for_the_code_alone_wherever_it_is():
    inner = {"loss": identity.Code(huber(1.0)), "rate": 0.5}
    assert identity.text(inner, "mine") == "{'loss': \"as 'mine'\", 'rate': '0.5'}"
    assert identity.text(inner, None) == identity.text(inner | {"loss": huber(1.0)}, None)
    assert identity.text(inner, None) != identity.text(inner | {"loss": huber(2.0)}, None)
    assert identity.text(3, "mine") == "3" and identity.text(None, None) == "None"


def test_differences_are_told_by_name_with_what_is_missing():
    assert identity.differences({"a": 1, "b": 2}, {"b": 2, "a": 1}) == ""
    found = identity.differences({"b": 2, "a": 1}, {"a": 3, "c": 4})
    assert found == "a was 1, now 3; b was 2, now None; c was None, now 4"


def test_an_error_in_a_block_carries_what_is_done_and_where(tmp_path):
    def block(i):
        if i == 2:
            raise ZeroDivisionError("so")
        return {"i": np.array(i)}

    for run, kept in (
        (Run(None, 1, False), ""),
        (Run(tmp_path, 1, False), f", kept in {tmp_path}"),
    ):
        with pytest.raises(ZeroDivisionError, match="so") as caught:
            run.each(block, [(0,), (1,), (2,), (3,)], dict)
        assert [part and int(part["i"]) for part in caught.value.partial] == [0, 1, None, None]
        (note,) = caught.value.__notes__
        assert note.startswith(f"The result is partial: 2 of 4 blocks are done{kept}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "block-00000.npz",
        "block-00001.npz",
        "configuration.json",
    ]


def test_a_fit_that_did_not_end_well_says_how_far_it_came():
    single = Fit(np.zeros(2), np.array(0.25), np.array(7), np.array("lost"))
    with pytest.raises(
        NotConverged, match="first, fit 0, is 'lost' after 7 steps, .* 2.5e-01, so$"
    ):
        single.require(True, why=", so")
    many = Fit(np.zeros((3, 1)), np.ones(3), np.arange(3), np.array(["trained", "converged", "a"]))
    with pytest.raises(
        NotConverged, match="1 of 3 fits .*fit 2, is 'a' after 2 .*: number 2$"
    ) as e:
        many.require(True, why=lambda i: f": number {i}")
    assert e.value.reached is many
    good = many._replace(status=np.array(["trained", "converged", "trained"]))
    assert good.require(True) is good
    both = Fit.joined([many, good])
    assert both.theta.shape == (6, 1) and list(both.status[2:4]) == ["a", "trained"]
    assert both.curvature is None and both.states == ()
    one = both._replace(curvature=np.arange(6.0)).first()
    assert one.curvature == 0 and one.status == "trained" and one.theta.shape == (1,)


def test_a_folder_is_made_with_those_above_it(tmp_path):
    fit(tmp_path / "not" / "there" / "yet")
    assert (tmp_path / "not" / "there" / "yet" / "configuration.json").exists()


def test_the_package_is_a_library_of_its_own_wherever_it_is_installed():
    assert identity._library("ifcore.risk.losses") == identity._library("ifcore") == "ifcore"
    assert identity._library("json.decoder") == "json" and identity._library("no.such") == ""


def test_a_run_is_by_default_strict_on_all_cores_and_keeps_nothing():
    assert Run() == Run(folder=None, jobs=-1, progress=None, strict=True, name=None)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("progress, shown", [(True, True), (False, False), (None, True)])
def test_on_a_terminal_the_bar_is_shown_unless_it_is_not_wanted(progress, shown, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    Run(jobs=1, progress=progress).each(dict, [(), ()], dict)
    assert ("block" in sys.stderr.getvalue()) == bool(sys.stderr.getvalue()) == shown


def test_inside_a_block_of_another_run_there_is_no_bar_and_nothing_strict(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    problem = regression()
    with pytest.raises(NotConverged):
        retrain(problem, Training(30, 1e6), problem.model.theta, run=Run(jobs=1, progress=False))
    found = retrain(problem, Training(30, 1e6), problem.model.theta, run=ALONE)
    assert found.status not in ("converged", "trained") and not sys.stderr.getvalue()


@pytest.mark.parametrize("jobs, blocks, here", [(1, 2, True), (2, 1, True), (2, 2, False)])
def test_where_there_is_more_than_one_block_the_jobs_share_them(jobs, blocks, here):
    def where():
        return {"thread": np.array(threading.get_ident())}

    with joblib.parallel_config(backend="threading"):
        found = Run(jobs=jobs, progress=False).each(where, [()] * blocks, dict)
    assert len(found) == blocks
    assert {part["thread"] == threading.get_ident() for part in found} == {here}


def test_a_block_is_kept_while_another_still_runs(tmp_path):
    first = tmp_path / "block-00000.npz"

    def block(i):
        deadline = time.monotonic() + 10
        while i and not first.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return {"kept": np.array(first.exists())}

    with joblib.parallel_config(backend="threading"):
        found = Run(tmp_path, 2, False).each(block, [(0,), (1,)], dict)
    assert [bool(part["kept"]) for part in found] == [False, True]


def with_property(scale):
    class Rated:
        @property
        def _rate(self):
            return scale

    return Rated()


def with_methods(kind):
    def made(scale):
        class Rated:
            @kind
            def rate(*_):
                return scale

        return Rated()

    return made


def with_attribute(name):
    return lambda scale: type("Rated", (), {name: scale, "__call__": by_global})()


class Iterated:
    """What pickle would keep as the items of a sequence or of a mapping."""

    def __init__(self, *more):
        self.more = more

    def __reduce__(self):
        return Iterated, (), *self.more


class Array(np.ndarray):
    pass


def test_an_object_is_told_apart_by_all_that_its_class_holds_and_pickle_would_keep():
    makers = [
        with_property,
        with_methods(staticmethod),
        with_methods(classmethod),
        with_methods(lambda method: method),
        *(with_attribute(name) for name in ("rate", "_rate", "_Rated__rate")),
        lambda scale: types.MethodType(huber(scale), Scaled(1.0)),
        lambda scale: collections.deque([scale]),
        lambda scale: Iterated(None, None, iter({"a": scale}.items())),
        lambda scale: Iterated(scale, None, None, by_global),
        lambda scale: np.full(2, scale).view(Array),
        lambda scale: re.compile(f"{scale}"),
        lambda scale: {scale, "a", None},
        lambda scale: torch.float64 if scale > 2 else torch.float32,
        lambda scale: torch.full((2,), scale, requires_grad=True),
        lambda scale: {"a": [scale], "b": (scale,)},
    ]
    for make in makers:
        keys = [identity.code(make(scale)) for scale in (2.0, 2.0, 3.0)]
        assert keys[0] == keys[1] != keys[2]


def test_an_abstract_class_and_a_function_of_torch_can_be_told():
    def abstract(scale):
        class Base(abc.ABC):
            @abc.abstractmethod
            def rate(self): ...

        class Rated(Base):
            def rate(self):
                return scale

        return Rated()

    def function(scale):
        class Times(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return scale * x

            @staticmethod
            def backward(ctx, g):
                return scale * g

        return Times.apply

    for make in (abstract, function):
        keys = [identity.code(make(scale)) for scale in (2.0, 2.0, 3.0)]
        assert keys[0] == keys[1] != keys[2]


def by_stream(f, y):
    print(f, file=sys.stderr)
    return f


def test_of_a_module_of_the_readers_own_what_is_named_counts(monkeypatch):
    before = identity.code(by_module)
    monkeypatch.setattr(refits, "data", None)
    assert identity.code(by_module) == before
    monkeypatch.setattr(refits, "W", refits.W + 1)
    assert identity.code(by_module) != before
    identity.code(by_stream)  # whose module is a library, and not what it holds
    for opaque in (refits, NotImplemented):
        with pytest.raises(identity.Opaque):
            identity.code(opaque)


def test_a_fingerprint_is_another_for_other_data_model_loss_or_penalty():
    X, y = np.random.default_rng(0).standard_normal((5, 2)), np.arange(5.0)
    call = {"model": risk.linear, "loss": risk.squared, "X": X, "y": y}

    def key(**change):
        return identity.code(Risk(**call | change))

    keys = [key(), key(lam=0.5), key(lam=[0.5, 1]), key(b=[0, 1]), key(b=[1, 0]), key(y=y + 1)]
    keys += [key(X=X + 1), key(X=X[:4], y=y[:4]), key(loss=huber(9.0)), key(loss=huber(8.0))]
    keys += [key(model=lambda t, x: t @ x + 0), key(X=(X, X), model=lambda t, x: t @ x[0], d=2)]
    assert len(set(keys)) == len(keys) and key() == keys[0]


def test_the_order_of_a_folder_is_not_the_code_s(monkeypatch):
    here, honest = identity.source(), identity.Path.rglob
    turned = lambda folder, pattern: sorted(honest(folder, pattern), reverse=True)  # noqa: E731
    monkeypatch.setattr(identity.Path, "rglob", turned)
    assert identity.source() == here


def test_differences_come_in_the_order_of_their_names():
    names = [f"{i:02d}" for i in range(40)]
    told = identity.differences(dict.fromkeys(names[::-1], 0), {}).split("; ")
    assert told == [*(f"{name} was 0, now None" for name in names[:3]), "and 37 more"]


def test_what_a_class_says_of_itself_is_no_code():
    def documented(words):
        return type("Rated", (), {"__doc__": words, "__call__": by_global})

    assert identity.code(documented("One.")) == identity.code(documented("Another."))


def errors():
    """All kinds that the package defines."""
    for part in pkgutil.walk_packages(ifcore.__path__, "ifcore."):
        for found in vars(importlib.import_module(part.name)).values():
            if isinstance(found, type) and issubclass(found, Exception):
                if found.__module__ == part.name:
                    yield found


@pytest.mark.parametrize("kind", [*errors()])
def test_an_error_comes_whole_from_another_process(kind):
    _, *names = inspect.signature(kind).parameters if vars(kind).get("__init__") else ("message",)
    error = kind("so", *(np.arange(3.0) for _ in names))
    error.add_note("partial")
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is kind and str(found) == str(error) == "so"
    assert found.__notes__ == ["partial"] and set(vars(found)) == {*names, "__notes__"}
    for name in names:
        np.testing.assert_array_equal(getattr(found, name), [0, 1, 2])


def test_a_risk_is_told_by_its_numbers_and_not_by_the_labels_of_its_rows():
    def labelled(labels, numbers=(1.0, 2.0)):
        frame = pandas.DataFrame({"x": numbers}, index=[*labels])
        return Risk(risk.linear, risk.squared, frame, frame["x"])

    key = identity.code(labelled("ab"))
    assert key == identity.code(labelled("cd")) != identity.code(labelled("ab", (1.0, 3.0)))
