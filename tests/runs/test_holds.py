"""What a run keeps on disk, how it goes on, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import refits
from refits import W, regression

from ifcore import training as training_room
from ifcore.runs import BadCache, Run
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
