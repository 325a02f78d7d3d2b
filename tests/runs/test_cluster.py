"""The same call on this machine's cores and on a Dask cluster of two workers: the same bits."""

import distributed
import joblib
import numpy as np
import pytest
import torch
from torch import nn

from ifcore import data, gaps, risk
from ifcore.network import Network
from ifcore.risk import Risk
from ifcore.runs import Run
from ifcore.training import Training, retrain


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def problem():
    torch.manual_seed(0)
    X, y = data.regression(0, 24, 3, condition=2)
    network = Network(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)))
    return Risk(network, risk.squared, X, y / y.std())


def test_retraining(problem, client, tmp_path):
    training, W = Training(20, 0.1, batch=8), 1 - np.eye(24)[:8]
    alone, cores = (
        retrain(problem, training, problem.model.theta, W, block=3, run=Run(jobs=jobs)).theta
        for jobs in (1, 2)
    )
    with joblib.parallel_config(backend="dask"):
        found = retrain(
            problem, training, problem.model.theta, W, block=3, run=Run(folder=tmp_path)
        ).theta
    np.testing.assert_array_equal(cores, alone)
    np.testing.assert_array_equal(found, alone)
    assert len(list(tmp_path.glob("block-*.npz"))) == 3


def test_the_decomposition(problem, client):
    protocol = gaps.Protocol(Training(40, 0.05), 0.8, chunk=2)
    call = (problem, protocol, problem.model.initial(0), range(4))
    alone, cores = (gaps.decompose(*call, run=Run(jobs=jobs)) for jobs in (1, 2))
    with joblib.parallel_config(backend="dask"):
        far = gaps.decompose(*call)
    for other in (cores, far):
        for one, two in zip(
            (*alone.parameters, *alone.outputs, alone.measured),
            (*other.parameters, *other.outputs, other.measured),
        ):
            np.testing.assert_array_equal(one, two)


def test_a_cluster_that_cannot_be_reached_or_is_lost_leaves_what_is_done(problem, tmp_path):
    with pytest.raises(OSError, match="127.0.0.1:1"):
        distributed.Client("tcp://127.0.0.1:1", timeout=0.5)
    training, W = Training(20, 0.1), 1 - np.eye(24)[:6]

    class Lost(joblib.parallel.ParallelBackendBase):
        supports_retrieve_callback = supports_return_generator = True

        def effective_n_jobs(self, n_jobs):
            return 2

        def submit(self, function, callback=None):
            raise OSError("Timed out trying to connect to the scheduler")

    joblib.register_parallel_backend("lost", Lost)
    retrain(problem, training, problem.model.theta, W, block=2, run=Run(folder=tmp_path, jobs=1))
    (tmp_path / "block-00001.npz").unlink(), (tmp_path / "block-00002.npz").unlink()
    with (
        joblib.parallel_config(backend="lost"),
        pytest.raises(OSError, match="Timed out") as caught,
    ):
        retrain(problem, training, problem.model.theta, W, block=2, run=Run(folder=tmp_path))
    assert "partial: 1 of 3 blocks are done, kept in" in caught.value.__notes__[0]
    assert [part is not None for part in caught.value.partial] == [True, False, False]
