"""Stored tables: they belong to this code, hold what was computed, and some fits come out again."""

import gzip
import json
import os

import distributed
import numpy as np
import pytest

from ifbook import decomposition, tables
from ifcore.runs import Run

EXPERIMENT = {"task": "small", "n": 3}
PARTS = [
    part
    for part in decomposition.parts()
    if decomposition.path(*part).with_suffix(".json").exists()
]


def small(folder):
    columns = {"name": ["a", "b"], "value": [0.123456, np.nan], "count": [3, 4]}
    tables.write(folder / "small", columns, EXPERIMENT, 2.4)
    return folder / "small"


def test_a_table_is_read_as_it_was_written(tmp_path):
    path = small(tmp_path)
    columns, about = tables.read(path, EXPERIMENT)
    assert columns["name"].tolist() == ["a", "b"]
    np.testing.assert_array_equal(columns["value"], [0.1235, np.nan])
    np.testing.assert_array_equal(columns["count"], [3, 4])
    assert about["experiment"] == EXPERIMENT and about["seconds"] == 2
    assert {"commit", "python", "libraries", "processor", "finished"} <= about.keys()
    before = path.with_suffix(".csv.gz").read_bytes()
    small(tmp_path)
    assert path.with_suffix(".csv.gz").read_bytes() == before


def test_columns_of_unequal_length_are_refused(tmp_path):
    with pytest.raises(ValueError, match="of one length; got {'a': 1, 'b': 2}"):
        tables.write(tmp_path / "t", {"a": [1], "b": [1, 2]}, EXPERIMENT, 0.0)
    assert not list(tmp_path.iterdir())


def _edit(path):
    packed = path.with_suffix(".csv.gz")
    packed.write_bytes(gzip.compress(gzip.decompress(packed.read_bytes()).replace(b"3", b"4")))


def _cut(path):
    packed = path.with_suffix(".csv.gz")
    packed.write_bytes(packed.read_bytes()[:-20])


def _unprovenanced(path):
    path.with_suffix(".json").write_text("{}")


def _unreadable(path):
    path.with_suffix(".json").write_text("{")


@pytest.mark.parametrize(
    "damage, match",
    [
        (_edit, "small.csv.gz is not what was computed"),
        (_cut, "small.csv.gz is damaged"),
        (_unprovenanced, "the provenance of small is damaged: KeyError"),
        (_unreadable, "the provenance of small is damaged: JSONDecodeError"),
    ],
)
def test_a_damaged_table_is_refused_by_name(tmp_path, damage, match):
    path = small(tmp_path)
    damage(path)
    with pytest.raises(tables.Foreign, match=match):
        tables.read(path, EXPERIMENT)


def test_a_table_of_another_experiment_is_refused_by_what_differs(tmp_path):
    path = small(tmp_path)
    with pytest.raises(tables.Foreign, match="another experiment: n was 3, now 4; seeds was None"):
        tables.read(path, {"task": "small", "n": 4, "seeds": 1})
    path.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError):
        tables.read(path, EXPERIMENT)


# the decomposition -------------------------------------------------------------------------


@pytest.mark.parametrize("name, n", PARTS)
def test_a_stored_part_belongs_to_this_code_and_is_whole(name, n):
    columns, about = decomposition.read(name, n)
    task = decomposition.TASKS[name]
    plans = sum(len(decomposition.protocols(task, n, steps)) for steps in task.steps)
    assert tuple(columns) == decomposition.COLUMNS
    assert len(columns["seed"]) == plans * decomposition.SEEDS * (task.sizes[n] + 1)
    assert about["commit"] and not about["commit"].endswith("+")
    assert decomposition.path(name, n).with_suffix(".csv.gz").stat().st_size < 2**20
    held = np.isin(columns["ended"], ["well", "stalled"])
    assert held.mean() > 0.99
    sizes = np.array([columns[gap] for gap in decomposition.gaps.NAMES])
    removed = columns["removed"] != "none"
    assert np.isfinite(sizes[:, held]).all()
    assert (columns["direct"] <= sizes.sum(0) * 1.01)[removed & held].all()


@pytest.mark.parametrize("k", range(4))
def test_fits_drawn_afresh_come_out_as_they_are_stored(k):
    """Another choice at every run: a size up to 300, a training, a seed and two removals.

    Outputs are of the size 1; what is below 1e-8 is Newton's method's or rounding.
    """
    rng = np.random.default_rng(entropy := int.from_bytes(os.urandom(4)))
    small = [(name, n) for name, n in PARTS if n <= 300]
    name, n = small[rng.integers(len(small))]
    task = decomposition.TASKS[name]
    steps = task.steps[rng.integers(min(3, len(task.steps)))]
    seed, removed = int(rng.integers(decomposition.SEEDS)), rng.choice(task.sizes[n], 2, False)
    fresh, stored = decomposition.again(name, n, steps, seed, removed.tolist())
    assert len(fresh) == 3 * len(decomposition.protocols(task, n, steps))
    np.testing.assert_allclose(
        fresh, stored, rtol=2e-3, atol=1e-8, err_msg=f"{entropy}: {name}, {n}, {steps}"
    )


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """One task of two sizes, its tables and parts in a folder of their own."""
    task = decomposition.TASKS["linear, Concrete"]._replace(sizes={30: 2, 40: 2}, steps=(10,))
    monkeypatch.setattr(decomposition, "TASKS", {"linear, Concrete": task})
    monkeypatch.setattr(decomposition, "FOLDER", tmp_path / "tables")
    monkeypatch.setattr(decomposition, "SEEDS", 2)
    monkeypatch.setattr("sys.argv", ["", "--jobs", "1", "--folder", str(tmp_path / "parts")])
    return tmp_path


def test_what_is_missing_is_computed_and_what_is_there_is_left(tiny, capsys):
    decomposition.main()
    assert "2 parts are to be computed" in capsys.readouterr().out
    first = sorted((tiny / "tables").iterdir())
    assert [p.name for p in first][:2] == ["linear-concrete-30.csv.gz", "linear-concrete-30.json"]
    before = {p: p.stat().st_mtime_ns for p in first}
    decomposition.main()
    assert "0 parts are to be computed" in capsys.readouterr().out
    assert before == {p: p.stat().st_mtime_ns for p in first}
    first[0].unlink()
    decomposition.main()
    assert "1 parts" in capsys.readouterr().out and first[0].exists()


def test_a_table_that_does_not_belong_is_named_kept_and_the_others_computed(tiny):
    decomposition.main()
    path = tiny / "tables" / "linear-concrete-30.json"
    about = json.loads(path.read_text())
    about["experiment"]["d"] = 3
    path.write_text(json.dumps(about))
    (tiny / "tables" / "linear-concrete-40.csv.gz").unlink()
    with pytest.raises(SystemExit, match="linear-concrete-30 is of another .* d was 3, now 9"):
        decomposition.main()
    assert json.loads(path.read_text()) == about
    assert (tiny / "tables" / "linear-concrete-40.csv.gz").exists()


def test_a_run_that_is_stopped_goes_on(tiny, monkeypatch):
    task, done = decomposition.gaps._task, []

    def stopped(*block):
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(block)
        return task(*block)

    monkeypatch.setattr(decomposition.gaps, "_task", stopped)
    with pytest.raises(KeyboardInterrupt):
        decomposition.main()
    assert len(list((tiny / "tables").glob("*.json"))) == 1
    monkeypatch.setattr(decomposition.gaps, "_task", task)
    count = []
    monkeypatch.setattr(
        decomposition.gaps, "_task", lambda *block: count.append(block) or task(*block)
    )
    decomposition.main()
    assert len(count) == 1 and len(list((tiny / "tables").glob("*.json"))) == 2


def test_a_damaged_or_foreign_part_is_named_and_kept(tiny, monkeypatch):
    decomposition.main()
    for table in (tiny / "tables").iterdir():
        table.unlink()
    part = tiny / "parts" / "linear-concrete-30" / "block-00000.npz"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(ValueError, match="block-00000.npz is corrupt"):
        decomposition.main()
    assert part.exists()
    part.unlink()
    monkeypatch.setattr("ifcore.runs.source", lambda: "another commit")
    with pytest.raises(ValueError, match="another configuration: source was"):
        decomposition.main()


def test_the_parts_are_computed_on_a_cluster_too(tiny, monkeypatch):
    decomposition.main()
    alone = {path.name: path.read_bytes() for path in (tiny / "tables").glob("*.gz")}
    for path in (tiny / "tables").iterdir():
        path.unlink()
    folder = ["--folder", str(tiny / "others")]
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as there:
        monkeypatch.setattr("sys.argv", ["", *folder, "--dask", there.scheduler_address])
        decomposition.main()
    assert alone == {path.name: path.read_bytes() for path in (tiny / "tables").glob("*.gz")}


def test_an_unknown_task_is_refused(tiny, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["", "quadratic"])
    with pytest.raises(SystemExit):
        decomposition.main()
    assert "no such task: quadratic; there are linear, Concrete" in capsys.readouterr().err


def test_mnist_is_decomposed_where_a_reader_has_it(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8)
    labels = rng.integers(0, 10, 40, dtype=np.uint8)
    for name, values in (("images-idx3", images), ("labels-idx1", labels)):
        shape = b"".join(size.to_bytes(4, "big") for size in values.shape)
        head = bytes([0, 0, 8, values.ndim]) + shape
        (tmp_path / f"train-{name}-ubyte").write_bytes(head + values.tobytes())
    task = decomposition.of_mnist(tmp_path)._replace(
        module=lambda: decomposition.dense(784, 4, 10), sizes={30: 2}, steps=(10,), batch=10
    )
    monkeypatch.setattr(decomposition, "TASKS", {"MLP 128-128, MNIST": task})
    run = Run(jobs=1, strict=False, progress=False)
    one, found = decomposition.decomposed("MLP 128-128, MNIST", 30, [0], run=run)
    assert one.n == 30 and float(one.X.max()) <= 1
    assert {variant for _, variant in found} == {"base", "short", "trained", "reordered"}
    columns = decomposition.rows(one, found, [0], range(2))
    assert np.isfinite([columns[gap] for gap in decomposition.gaps.NAMES]).all()
