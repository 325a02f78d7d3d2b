"""`response.retrain`: what its bits do not depend on, what it keeps on disk, and what it refuses or reports."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from torch import nn

from ifcore import data, risk
from ifcore import training as training_room
from ifcore.network import Network
from ifcore.risk import Risk
from ifcore.runs import BadCache, NotConverged, Run
from ifcore.training import Training, retrain


def regression(n=20, kind=nn.Tanh):
    torch.manual_seed(0)
    X, y = data.regression(0, n, 3, condition=2)
    return Risk(
        Network(nn.Sequential(nn.Linear(3, 5), kind(), nn.Linear(5, 1))),
        risk.squared,
        X,
        y / y.std(),
    )


def convolution():
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(48, 3))
    return Risk(
        Network(module),
        risk.cross_entropy,
        rng.standard_normal((20, 1, 4, 4)),
        rng.integers(0, 3, 20),
    )


W = np.vstack([np.ones(20), 1 - np.eye(20)[:6]])


@pytest.mark.parametrize("kind", [nn.Tanh, nn.ReLU, nn.Sigmoid])
@pytest.mark.parametrize("batch", [None, 7])
def test_the_bits_do_not_depend_on_the_block(kind, batch):
    problem, training = regression(kind=kind), Training(60, 0.05, batch=batch)
    whole = retrain(problem, training, problem.model.theta, W, run=Run(jobs=1)).theta
    for block in (1, 2, 3, 5):
        np.testing.assert_array_equal(
            retrain(problem, training, problem.model.theta, W, block=block, run=Run(jobs=1)).theta,
            whole,
        )


@pytest.mark.parametrize("make", [regression, convolution])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_a_cold_start_with_nothing_removed_is_the_trained_theta_bit_for_bit(make, optimiser):
    problem, training = make(), Training(30, 0.01, optimiser=optimiser)
    start = problem.model.initial(3)
    theta = retrain(problem, training, start).theta
    np.testing.assert_array_equal(
        retrain(problem, training, start, W, run=Run(jobs=1)).theta[0], theta
    )


def test_starts_weights_and_orders_side_by_side_are_single_fits():
    problem, training = regression(), Training(30, 0.05, batch=6)
    starts = np.array([problem.model.initial(s) for s in (0, 0, 1, 1)])
    weights, orders = W[[0, 2, 0, 3]], [5, 5, 5, 8]
    found = retrain(problem, training, starts, weights, order=orders, run=Run(jobs=1))
    for i in range(4):
        single = retrain(problem, training._replace(order=orders[i]), starts[i], weights[i])
        np.testing.assert_array_equal(found.theta[i], single.theta)
        assert (
            single.theta.shape == (problem.d,) and single.status == "trained" and single.steps == 30
        )


def test_an_initial_theta_is_the_layers_own_and_changes_with_the_seed():
    network = regression().model
    one, two, other = (network.initial(s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one != other).all() and np.abs(one[:15]).max() <= 1 / np.sqrt(3)
    torch.manual_seed(1)
    np.testing.assert_array_equal(
        one[:15], nn.Linear(3, 5, dtype=torch.float64).weight.detach().numpy().reshape(-1)
    )


def test_a_criterion_stops_each_fit_by_itself():
    X, y = data.regression(0, 20, 3, condition=2)
    problem = Risk(risk.linear, risk.squared, X, y, lam=0.5)
    found = retrain(problem, Training(2000, 0.1, tol=1e-8), np.zeros(3), W, run=Run(jobs=1))
    assert (
        (found.status == "converged").all()
        and (found.gradient_norm <= 1e-8).all()
        and (found.steps < 2000).all()
    )
    with pytest.raises(
        NotConverged,
        match=r"7 of 7 fits .* fit 0, is 'unfinished' after 20 steps, .* of 20, where tol = 1e-08",
    ) as caught:
        retrain(problem, Training(20, 0.1, tol=1e-8), np.zeros(3), W, run=Run(jobs=1))
    assert (
        caught.value.reached.theta.shape == (7, 3)
        and (caught.value.reached.gradient_norm > 1e-8).all()
    )


def test_divergence_names_the_fit_and_the_step_and_keeps_the_others():
    problem = regression(kind=nn.ReLU)
    weights = np.vstack([np.ones(20), 1e150 * np.ones(20), W[1]])
    with pytest.raises(
        NotConverged,
        match=r"1 of 3 fits .* fit 1, is 'diverged' after \d+ steps, .* of 50. A smaller rate than 0.01",
    ) as caught:
        retrain(problem, Training(50, 0.01), problem.model.theta, weights, run=Run(jobs=1))
    found = caught.value.reached
    assert list(found.status) == ["trained", "diverged", "trained"] and 0 < found.steps[1] < 10
    alone = retrain(
        problem, Training(50, 0.01), problem.model.theta, weights[[0, 2]], run=Run(jobs=1)
    )
    np.testing.assert_array_equal(found.theta[[0, 2]], alone.theta)
    assert np.isnan(found.theta[1]).all()
    X, y = data.regression(0, 20, 3, condition=2)
    linear = Risk(risk.linear, risk.squared, X, y)
    assert (
        retrain(linear, Training(60, 3.0), np.zeros(3), run=Run(strict=False)).status == "diverged"
    )  # grows, and is finite yet


def test_an_interrupted_run_says_so_and_goes_on(tmp_path, monkeypatch):
    problem, training = regression(), Training(20, 0.05)
    options = {
        "start": problem.model.theta,
        "weights": W,
        "block": 2,
        "run": Run(folder=tmp_path, jobs=1),
    }
    calls, honest = [], training_room._train

    def counted(*block):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return honest(*block)

    monkeypatch.setattr(training_room, "_train", counted)
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
import test_retraining as t
from ifcore.runs import Run
from ifcore.training import Training, retrain
problem = t.regression()
print("ready", flush=True)
retrain(problem, Training(20_000, 1e-4), problem.model.theta, t.W, block=1,
        run=Run(folder=sys.argv[1], jobs=1))
"""


def test_a_killed_run_leaves_whole_blocks_only(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), os.path.dirname(__file__)],
        stdout=subprocess.PIPE,
    )
    try:
        process.stdout.readline()
        while not (tmp_path / "block-00000.npz").exists() and process.poll() is None:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    for path in tmp_path.glob("block-*.npz"):
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
    with pytest.raises(BadCache, match="is of another configuration, another"):
        retrain(problem, training, problem.model.theta, W, **options)
    (tmp_path / "configuration.json").write_text("{")
    with pytest.raises(BadCache, match="configuration.json is corrupt"):
        retrain(problem, training, problem.model.theta, W, **options)


def test_the_configuration_can_be_read(tmp_path):
    problem = regression()
    retrain(problem, Training(5, 0.05), problem.model.theta, run=Run(folder=tmp_path))
    there = json.loads((tmp_path / "configuration.json").read_text())
    assert there["steps"] == "5" and there["n"] == "20" and there["optimiser"] == "sgd"


@pytest.mark.parametrize(
    "training, error, match",
    [
        (Training(0, 0.1), ValueError, "steps must be"),
        (Training(5, -0.1), ValueError, "rate must be positive"),
        (Training(5, [0.1, 0.2]), ValueError, "one for each of 5 steps"),
        (Training(5, 0.1, momentum=1.0), ValueError, r"momentum must lie in \[0, 1\)"),
        (Training(5, 0.1, optimiser="lbfgs"), ValueError, "got 'lbfgs'"),
        (Training(5, 0.1, batch=21), ValueError, "batch must be at most n = 20; got 21"),
        (Training(5, 0.1, batch=5, tol=1e-3), ValueError, "tol is for training on the whole data"),
        ((5, 0.1), TypeError, "must be a Training; got tuple"),
    ],
)
def test_a_training_that_cannot_be_is_refused(training, error, match):
    problem = regression()
    with pytest.raises(error, match=match):
        retrain(problem, training, problem.model.theta)


def test_fits_that_do_not_fit_are_refused():
    problem, training = regression(), Training(5, 0.1)
    with pytest.raises(ValueError, match=r"start must be \(26,\) or \(m, 26\); got \(5,\)"):
        retrain(problem, training, np.zeros(5))
    with pytest.raises(ValueError, match="got 2 and 7"):
        retrain(problem, training, np.zeros((2, 26)), W)
    with pytest.raises(ValueError, match="order must be 7 integers"):
        retrain(problem, training, problem.model.theta, W, order=[1, 2])
    with pytest.raises(ValueError, match="start must be finite"):
        retrain(problem, training, np.full(26, np.nan))
