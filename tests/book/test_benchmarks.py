"""The stored ratios: whole, not to be changed by hand; exponents as they are known."""

import gzip
import sys

import numpy as np
import pytest
from benchmarks import growth, run, timing

from ifbook import benchmarks, tables
from ifbook.benchmarks import OURS, SWEEPS, WORKS


@pytest.fixture(scope="module")
def methods():
    return benchmarks.read("methods")


def test_every_work_is_stored_at_its_sizes_with_its_limit_and_a_rival(methods):
    columns, about = methods
    assert about["commit"] and not about["commit"].endswith("+")
    assert about["threads"] == 1 and about["cores"] >= 1 and "statsmodels" in about["libraries"]
    assert tuple(columns) == benchmarks.COLUMNS
    pairs = set(zip(columns["work"].tolist(), columns["size"].tolist()))
    assert pairs == {(work, size) for work, sizes in WORKS.items() for size in sizes}
    for work, size in pairs:
        rows = benchmarks.chosen(columns, work=work, size=size)
        ours = benchmarks.chosen(rows, method=OURS)
        assert len(ours["round"]) >= 3
        np.testing.assert_array_equal(ours["ratio"], 1)
        others = {m for m in rows["method"] if not m.startswith((OURS, "limit"))}
        assert others, work
        errors = rows["error"][~np.char.startswith(rows["method"], "limit")]
        assert np.isfinite(errors).all()
    assert (columns["seconds"] > 0).all()
    assert columns["error"][columns["method"] == OURS].max() < 1e-10


def test_a_ratio_is_that_of_the_seconds_of_its_round(methods):
    columns, _ = methods
    for k in range(len(columns["work"])):
        same = {name: columns[name][k] for name in ("work", "size", "round")}
        base = benchmarks.chosen(columns, **same, method=OURS)["seconds"]
        assert columns["ratio"][k] == pytest.approx(columns["seconds"][k] / base[0], rel=2e-3)


def test_every_sweep_is_stored_whole():
    columns, _ = benchmarks.read("growth")
    assert set(columns["sweep"]) == set(SWEEPS) == set(growth.WORK)
    for name, sweep in SWEEPS.items():
        times = benchmarks.grown(columns, name)
        assert times.shape[0] >= 3 and times.shape[1] == len(sweep.sizes) >= 4
        assert np.isfinite(times).all() and (times > 0).all()


@pytest.mark.parametrize("name", ["methods", "growth"])
def test_a_table_that_was_changed_by_hand_is_refused(name, tmp_path):
    for kind in (".csv.gz", ".json"):
        stored = benchmarks.path(name).with_suffix(kind)
        (tmp_path / stored.name).write_bytes(stored.read_bytes())
    columns, _ = benchmarks.read(name, tmp_path)
    packed = benchmarks.path(name, tmp_path).with_suffix(".csv.gz")
    text = gzip.decompress(packed.read_bytes()).decode()
    number = f"{columns['ratio'][-1]:.4g}"
    packed.write_bytes(
        gzip.compress(text.replace(number, f"{columns['ratio'][-1] / 2:.4g}").encode())
    )
    with pytest.raises(tables.Foreign, match=f"{name}.csv.gz is not what was computed"):
        benchmarks.read(name, tmp_path)


def test_a_table_of_other_works_is_refused(monkeypatch):
    monkeypatch.setitem(WORKS, "W1", ("500 × 20",))
    with pytest.raises(tables.Foreign, match="methods is of another experiment: W1 was"):
        benchmarks.read("methods")


@pytest.mark.parametrize("power", [0, 0.5, 2, 3])
def test_the_fit_recovers_a_known_exponent(power):
    """Through noise of 5%; and the interval covers it."""
    sizes, covered = np.array([100, 200, 400, 800, 1600]), 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        noise = np.exp(rng.normal(0, 0.05, (9, 5)))
        fit = benchmarks.exponent(sizes, 1e-9 * sizes**power * noise, draws=200)
        assert fit[0] == pytest.approx(power, abs=0.1)
        covered += fit[1] <= power <= fit[2]
    assert covered >= 30
    exact = benchmarks.exponent(sizes, np.tile(3e-6 * sizes.astype(float) ** power, (4, 1)))
    np.testing.assert_allclose(exact, power, atol=1e-12)


def test_times_that_give_no_exponent_are_refused():
    with pytest.raises(ValueError, match="four sizes at least"):
        benchmarks.exponent([1, 2, 3], np.ones((5, 3)))
    with pytest.raises(ValueError, match="must be positive"):
        benchmarks.exponent([1, 2, 3, 4], np.array([[1, 2, np.nan, 4]]))


def test_the_counts_have_the_exponents_of_their_largest_terms_far_out():
    for name, sweep in SWEEPS.items():
        if sweep.operations is None or name in ("W2 d", "product d"):  # widths are whole numbers
            continue
        far = np.array(sweep.sizes, dtype=float) * 1e7
        found = benchmarks.slope(far, [sweep.operations(size) for size in far])
        assert found == pytest.approx(sweep.limit, abs=0.02), name


def test_a_width_belongs_to_a_number_of_parameters():
    assert [benchmarks.hidden(d) for d in (153, 4801, 68353)] == [8, 64, 256]
    with pytest.raises(ValueError, match="no network 8-h-h-1 has 100 parameters"):
        benchmarks.hidden(100)


def test_a_part_of_a_work_counts_for_the_whole_and_the_first_method_is_ours():
    def slow():
        total = 0
        for k in range(200_000):
            total += k
        return total

    part = timing.Method("part", slow, share=0.1)
    whole = timing.Method(OURS, slow, timing.relative(np.array([slow()])))
    rows = timing.rows("W", "s", [whole, part], 3)
    found = {name: np.array(values) for name, values in rows.items()}
    ratio = np.median(benchmarks.chosen(found, method="part")["ratio"])
    assert 3 < ratio < 30 and set(found["error"][found["method"] == OURS]) == {0}
    with pytest.raises(ValueError, match="first method must be ifcore; got part"):
        timing.rows("W", "s", [part, whole], 1)


def test_the_limit_does_as_many_operations_as_are_asked_for():
    for operations in (1e6, 3e8):
        product = timing.products(operations)
        A, B = (cell.cell_contents for cell in product.__closure__)
        assert 2 * A.size * B.shape[1] == pytest.approx(operations, rel=0.1)


def test_memory_is_that_of_the_peak():
    found = timing.memory(lambda: np.ones(8_000_000))
    if np.isnan(found):
        pytest.skip("the kernel counts no peak")
    assert found == pytest.approx(64e6, rel=0.1)


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Two works that take no time, kept and stored in a folder of their own."""
    done = []

    def parts(_):
        for k in range(3):

            def timed(k=k):
                done.append(k)
                if len(done) == 2 and stop:
                    raise KeyboardInterrupt
                if k == 2:
                    return {name: [1] for name in benchmarks.GROWN}
                return timing.rows("W", str(k), [timing.Method(OURS, lambda: 1)], 1)

            yield ("methods", "methods", "growth")[k] + f"-W-{k}", timed

    stop = [True]
    monkeypatch.setattr(run, "parts", parts)
    monkeypatch.setattr(run, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(run.peers, "ready", dict)
    monkeypatch.setattr(benchmarks, "FOLDER", tmp_path / "tables")
    monkeypatch.setattr(run.tables, "commit", lambda: "abc")
    monkeypatch.setattr(sys, "argv", ["run"])
    monkeypatch.setattr(timing, "memory", lambda _: np.nan)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "told", lambda *_: None)
    return done, stop


def test_a_run_that_is_stopped_goes_on_and_the_next_begins_anew(tiny, tmp_path):
    done, stop = tiny
    with pytest.raises(KeyboardInterrupt):
        run.main()
    assert done == [0, 1] and not (tmp_path / "tables").exists()
    stop.clear()
    run.main()
    assert done == [0, 1, 1, 2]
    assert (tmp_path / "tables" / "methods.csv.gz").exists()
    run.main()
    assert done[4:] == [0, 1, 2]
