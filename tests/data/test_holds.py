"""Files, standardised columns, and the promises of the synthetic data."""

import gzip

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
)

from ifcore import data, response, risk
from ifcore.data.datasets import gathered
from ifcore.risk import Risk


def test_every_data_file_has_its_provenance(root):
    text = (root / "ifcore" / "data" / "README.md").read_text(encoding="utf-8")
    for path in (root / "ifcore" / "data").iterdir():
        assert path.suffix not in (".csv", ".txt") or f"`{path.name}`" in text


def test_standardise():
    X = data.standardise(data.diabetes().X)
    np.testing.assert_array_equal(X[:, 0], 1)
    np.testing.assert_allclose(X[:, 1:].mean(0), 0, atol=1e-14)
    np.testing.assert_allclose(X[:, 1:].std(0), 1, rtol=1e-14)
    np.testing.assert_array_equal(data.standardise(data.diabetes().X, intercept=False), X[:, 1:])
    np.testing.assert_array_equal(data.standardise([[0.0], [1.0]]), [[1, -1], [1, 1]])
    for unit in (1e200, 1e-200):
        np.testing.assert_allclose(data.standardise(X[:, 1:] * unit)[:, 1:], X[:, 1:], atol=1e-13)
    units = [-1e200, 1e-200, 1.0]  # each by itself
    np.testing.assert_allclose(
        data.standardise(X[:, 1:4] * units, False), X[:, 1:4] * [-1, 1, 1], atol=1e-13
    )
    assert np.isfinite(data.standardise([[1e-300, -1e200], [1.0, -1e200], [2.0, -3e200]])).all()
    with pytest.raises(ValueError, match="column 1 is constant"):
        data.standardise([[1, 0], [2, 0], [3, 0]])
    with pytest.raises(ValueError, match="at least two rows to be standardised; got 1"):
        data.standardise(X[:1])
    with pytest.raises(ValueError, match="column 1 is constant"):
        data.standardise([[1, 0.1], [2, 0.1], [3, 0.1]])
    with pytest.raises(ValueError, match="column 1 is constant"):  # but for rounding
        data.standardise([[1, 0.3], [2, 0.1 * 3], [3, 0.3]])


@pytest.mark.parametrize("condition", [1, 10, 1e8])
def test_a_design_has_its_singular_values(condition):
    values = np.linalg.svd(data.design(4, 30, 5, condition), compute_uv=False)
    np.testing.assert_allclose(
        values, np.sqrt(30) * np.geomspace(1, 1 / condition, 5), rtol=1e-14 * condition + 1e-13
    )


def test_a_design_has_the_condition_10_where_none_is_said():
    for found in (
        data.design(0, 9, 3),
        data.regression(0, 9, 3)[0],
        data.classification(0, 9, 3)[0],
    ):
        assert np.linalg.cond(found) == pytest.approx(10, rel=1e-13)


def test_a_seed_gives_the_same_data_and_another_others():
    for make in (
        data.design,
        lambda *a: data.regression(*a)[1],
        lambda *a: data.classification(*a)[1],
    ):
        np.testing.assert_array_equal(make(7, 30, 3), make(7, 30, 3))
        assert (make(7, 30, 3) != make(8, 30, 3)).any()
    assert set(data.classification(0, 50, 2)[1]) == {0.0, 1.0}


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: data.regression(0, 5, 2, noise=-1), ValueError, "noise must be a number at least"),
        (lambda: data.regression(0, 5, 2, noise=np.nan), ValueError, "noise must be finite"),
        (lambda: data.regression(0, 5, 2, noise="1"), TypeError, "noise must be an array of real"),
        (lambda: data.regression("0", 5, 2), TypeError, "seed must be an integer.*; got '0'"),
        (lambda: data.regression(None, 5, 2), TypeError, "seed must be an integer.*; got None"),
        (lambda: data.classification(0.5, 5, 2), TypeError, "seed must be an integer.*; got 0.5"),
        (lambda: data.design(-1, 5, 2), TypeError, "seed must be an integer at least 0.*; got -1"),
        (lambda: data.orthonormal([0], 5, 2), TypeError, r"seed must be an integer.*; got \[0\]"),
        (lambda: data.low_rank(np.nan, 5, 3, 2), TypeError, "seed must be an integer.*; got nan"),
        (lambda: data.design(0, 5.5, 2), TypeError, "n must be an integer; got 5.5"),
        (lambda: data.design(0, 5, "2"), TypeError, "d must be an integer; got '2'"),
        (lambda: data.design(0, np.inf, 2), TypeError, "n must be an integer; got inf"),
        (lambda: data.design(0, 5, 2, "10"), TypeError, "condition must be a number; got '10'"),
        (lambda: data.orthonormal(0, 5, 1.5), TypeError, "d must be an integer; got 1.5"),
        (lambda: data.low_rank(0, 5, 3, 1.5), TypeError, "rank must be an integer; got 1.5"),
        (lambda: data.low_rank(0, 5, None, 1), TypeError, "d must be an integer; got None"),
        (lambda: data.classification(0, np.nan, 2), TypeError, "n must be an integer; got nan"),
        (lambda: data.contexts(b"abcdef", 2), TypeError, "text must be a string; got bytes"),
        (lambda: data.contexts(5, 2), TypeError, "text must be a string; got int"),
        (lambda: data.contexts("abcdef", 1.5), TypeError, "length must be an integer; got 1.5"),
        (lambda: data.contexts("abcdef", 0), ValueError, "length must lie in 1, …, 5 .*; got 0"),
        (lambda: data.contexts("", 1), ValueError, "for a text of 0 characters; got 1"),
        (lambda: data.standardise([["1"], ["2"]]), TypeError, "X must be an array of real numbers"),
        (lambda: data.standardise([1.0, 2.0]), ValueError, "X must be a matrix"),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(
    "n, d, condition",
    [(3, 4, 1), (3, 0, 1), (3, 2, 0.5), (3, 1, 2), (3, 2, np.nan), (3, 2, np.inf)],
)
def test_an_impossible_design_is_refused(n, d, condition):
    with pytest.raises(ValueError, match=f"got n = {n}, d = {d}, condition = {condition}"):
        data.design(0, n, d, condition)


def test_concrete():
    mixtures = data.concrete()
    assert mixtures.X.shape == (1030, 8)
    assert mixtures.columns[-1] == "age"
    assert mixtures.target == "compressive_strength"
    assert (mixtures.y.min(), mixtures.y.max()) == (2.33, 82.6)
    assert (mixtures.X[:, 0].min(), mixtures.X[:, 0].max()) == (102, 540)


def test_adult():
    people = data.adult()
    assert people.X.shape == (3000, 12)
    assert (people.columns[0], people.columns[-1], people.target) == ("age", "female", "over_50k")
    assert people.X[0].tolist() == [39, 13, 40, 2174, 0, 0, 1, 1, 0, 0, 0, 0]
    assert set(people.X[:, 5:].ravel()) == set(people.y) == {0.0, 1.0}
    assert not (people.X[:, 5] * people.X[:, 6]).any() and not (people.X[:, 7:9] == 1).all(1).any()
    assert (people.X[:, 0].min(), people.X[:, 0].max()) == (17, 90)


def test_contexts_of_the_sonnets():
    text = data.sonnets()
    assert text.startswith("Shall I compare thee")
    assert text.count("\n\n") == 4
    assert text.count("\n") == 5 * 14 + 4
    X, y, alphabet = data.contexts(text.lower(), 6)
    assert X.shape == (len(text) - 6, 6) and len(alphabet) == len(set(text.lower()))
    assert "".join(alphabet[int(c)] for c in [*X[0], y[0]]) == "shall i"
    X, y, alphabet = data.contexts("bab", 1)
    assert (X.tolist(), y.tolist(), alphabet) == ([[1], [0]], [0, 1], "ab")
    with pytest.raises(ValueError, match="for a text of 3 characters; got 3"):
        data.contexts("abc", 3)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_is_read_from_the_readers_own_copy(tmp_path, suffix):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (5, 2, 3), np.uint8), np.arange(5, dtype=np.uint8)
    for name, values in (("train-images-idx3-ubyte", images), ("train-labels-idx1-ubyte", labels)):
        content = (
            bytes([0, 0, 8, values.ndim])
            + np.array(values.shape, ">i4").tobytes()
            + values.tobytes()
        )
        (tmp_path / (name + suffix)).write_bytes(gzip.compress(content) if suffix else content)
    found = data.mnist(tmp_path)
    np.testing.assert_array_equal(found.X, images.reshape(5, -1))
    np.testing.assert_array_equal(found.y, labels)
    assert found.columns == tuple(f"pixel_{i}_{j}" for i in (0, 1) for j in (0, 1, 2))
    path = tmp_path / ("train-labels-idx1-ubyte" + suffix)
    path.write_bytes(gzip.compress(content[:-1]) if suffix else content[:-1])
    with pytest.raises(ValueError, match="must be an IDX file"):
        data.mnist(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="must hold train-labels-idx1-ubyte or"):
        data.mnist(tmp_path)


def idx(*shape, values=b"", kind=8):
    return bytes([0, 0, kind, len(shape)]) + np.array(shape, ">i4").tobytes() + bytes(values)


IMAGES, LABELS = idx(2, 2, 2, values=range(8)), idx(2, values=[3, 9])


@pytest.mark.parametrize(
    "images, labels, words",
    [
        (b"", LABELS, "train-images.* must be an IDX file .* has 0 bytes"),
        (IMAGES[:7], LABELS, "must be an IDX file .* has 7 bytes"),
        (IMAGES[:-1], LABELS, "must be an IDX file"),
        (IMAGES + b"0", LABELS, "must be an IDX file"),
        (b"1" + IMAGES[1:], LABELS, "must be an IDX file"),
        (LABELS, LABELS, "with 3 axes; it .* starts with '00000801'"),
        (idx(2, 2, 2, values=range(8), kind=9), LABELS, "must be an IDX file of unsigned bytes"),
        (idx(-2, -2, 2, values=range(8)), LABELS, "must be an IDX file"),
        (idx(-1, -1, 8, values=range(8)), LABELS, "must be an IDX file"),
        (idx(2**31 - 1, 2**31 - 1, 4), LABELS, "must be an IDX file"),
        (idx(0, 2, 2), idx(0), "one at least; got 0 and"),
        (idx(2, 0, 2), LABELS, "one at least"),
        (IMAGES, idx(3, values=range(3)), "as many labels as images.* got 3 and"),
        (IMAGES, idx(2, values=[3, 10]), "must be digits from 0 to 9; got 10"),
    ],
)
def test_a_damaged_mnist_is_refused(tmp_path, images, labels, words):
    images_, labels_ = (tmp_path / f"train-{n}-ubyte" for n in ("images-idx3", "labels-idx1"))
    images_.write_bytes(images)
    labels_.write_bytes(labels)
    with pytest.raises(ValueError, match=words):
        data.mnist(tmp_path)


def test_labels_of_mnist_go_up_to_9(tmp_path):
    (tmp_path / "train-images-idx3-ubyte").write_bytes(IMAGES)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(LABELS)
    np.testing.assert_array_equal(data.mnist(tmp_path).y, [3, 9])


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-9], lambda c: c[:20] + b"!" + c[21:], bytes.upper]
)
def test_a_damaged_gzip_is_refused(tmp_path, damage):
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(LABELS)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(gzip.compress(b"abc" + IMAGES)))
    with pytest.raises(ValueError, match="train-images.* must be a"):
        data.mnist(tmp_path)


def test_designs_favour_no_direction():
    """Haar: the first entry of a column is as often positive as negative."""
    entries = np.array([data.design(seed, 4, 1, condition=1)[0, 0] for seed in range(400)])
    assert 160 < (entries > 0).sum() < 240
    assert np.mean(entries**2) == pytest.approx(1, abs=0.15)


def test_noise_is_a_standard_deviation():
    exact = data.regression(3, 4000, 2, noise=0)[1]
    noisy = data.regression(3, 4000, 2, noise=0.1)[1]
    assert np.std(noisy - exact) == pytest.approx(0.1, rel=0.05)
    unit = data.regression(3, 4000, 2)[1]
    np.testing.assert_allclose(unit - exact, 10 * (noisy - exact), rtol=0, atol=1e-13)


def test_labels_follow_a_standard_normal_theta():
    """Fitted to many labels, θ has the squared length d on average, as a normal one has."""
    lengths, shares = [], []
    for seed in range(60):
        X, y = data.classification(seed, 1000, 2, condition=1)
        assert set(y) <= {0, 1}
        theta = response.minimise(Risk(risk.linear, risk.logistic, X, y)).theta
        lengths.append((theta**2).sum())
        shares.append(y.mean())
    assert 1.4 < np.mean(lengths) < 2.6
    assert 0.45 < np.mean(shares) < 0.55


@pytest.mark.parametrize("n, d", [(1, 1), (7, 1), (7, 3), (5, 5)])
def test_orthonormal_columns(n, d):
    Q = data.orthonormal(3, n, d)
    assert Q.shape == (n, d)
    np.testing.assert_allclose(Q.T @ Q, np.eye(d), atol=1e-14)
    np.testing.assert_array_equal(Q, data.orthonormal(np.random.default_rng(3), n, d))


def test_orthonormal_columns_are_uniform():
    """The first entry of the first column is as that of a normal vector over its norm."""
    rng = np.random.default_rng(0)
    first = np.array([data.orthonormal(rng, 3, 2)[0, 0] for _ in range(4000)])
    assert abs(first.mean()) < 4 / np.sqrt(3 * 4000)
    assert abs((first**2).mean() - 1 / 3) < 4 * np.sqrt(4 / 45 / 4000)


@pytest.mark.parametrize("n, d, rank", [(6, 4, 1), (6, 4, 2), (4, 6, 3), (5, 5, 5)])
def test_designs_of_low_rank(n, d, rank):
    sigma = np.linalg.svd(data.low_rank(1, n, d, rank), compute_uv=False)
    expected = [2.0] if rank == 1 else np.geomspace(2, 0.5, rank)
    np.testing.assert_allclose(sigma[:rank], expected, rtol=1e-13)
    assert (sigma[rank:] < 1e-14).all()


def test_designs_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="need 1 ≤ d ≤ n; got n = 2, d = 3"):
        data.orthonormal(0, 2, 3)
    with pytest.raises(ValueError, match="need 1 ≤ d ≤ n; got n = 2, d = 0"):
        data.orthonormal(0, 2, 0)
    with pytest.raises(ValueError, match="rank must lie in 1, …, 3; got 4"):
        data.low_rank(0, 5, 3, 4)


class Pairs(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


class Stream(IterableDataset):
    def __init__(self, items):
        super().__init__()
        self.items = items

    def __iter__(self):
        return iter(self.items)


NUMBERS = torch.arange(2500.0)
ITEMS = [(x, -x) for x in NUMBERS]


def doubled(items):
    return 2 * torch.stack([x for x, _ in items]), torch.stack([y for _, y in items])


@pytest.mark.parametrize(
    "source, factor",
    [
        (TensorDataset(NUMBERS, -NUMBERS), 1),
        (Pairs(ITEMS), 1),
        (DataLoader(Pairs(ITEMS), 7, shuffle=True, drop_last=True), 1),
        (DataLoader(Pairs(ITEMS), 7, collate_fn=doubled), 2),
        (
            DataLoader(Pairs(ITEMS), batch_sampler=BatchSampler(SequentialSampler(ITEMS), 7, True)),
            1,
        ),
        (DataLoader(Stream(ITEMS), 7), 1),
        (DataLoader(Stream(ITEMS), 7, collate_fn=doubled), 2),
        (DataLoader(Pairs([(x[None], -x[None]) for x in NUMBERS]), None), 1),
        (DataLoader(Pairs([ITEMS[:9], ITEMS[9:]]), None, collate_fn=doubled), 2),
        (DataLoader(Stream([ITEMS[:9], ITEMS[9:]]), None, collate_fn=doubled), 2),
    ],
)
def test_every_pair_is_gathered_once_in_order(source, factor):
    X, y = gathered(source)
    torch.testing.assert_close(X.flatten(), factor * NUMBERS, rtol=0, atol=0)
    torch.testing.assert_close(y.flatten(), -NUMBERS, rtol=0, atol=0)


def test_a_loader_keeps_the_size_of_its_batches():
    sizes = []

    def noted(items):
        sizes.append(len(items))
        return doubled(items)

    gathered(DataLoader(Pairs(ITEMS[:10]), 4, collate_fn=noted))
    assert sizes == [4, 4, 2]


def test_inputs_of_several_parts_are_gathered_part_by_part():
    items = [((x, {"a": [x + 1, x + 2]}), x) for x in NUMBERS[:5]]
    (first, named), y = gathered(DataLoader(Pairs(items), 2))
    for found, more in ((first, 0), (named["a"][0], 1), (named["a"][1], 2), (y, 0)):
        torch.testing.assert_close(found, NUMBERS[:5] + more, rtol=0, atol=0)
    assert isinstance(named["a"], tuple)


@pytest.mark.parametrize(
    "source, error, words",
    [
        (TensorDataset(NUMBERS), TypeError, r"must be pairs \(x, y\); got 1 parts"),
        (TensorDataset(NUMBERS, NUMBERS, NUMBERS), TypeError, "got 3 parts"),
        (Pairs([{"x": 1.0, "y": 2.0}]), TypeError, "got dict"),
        (DataLoader(Stream([])), ValueError, "at least one pair .* got none"),
    ],
)
def test_what_is_no_data_set_of_pairs_is_refused(source, error, words):
    with pytest.raises(error, match=words):
        gathered(source)


def test_items_that_do_not_go_together_in_batches_are_refused_as_such():
    class Ragged(Dataset):
        def __len__(self):
            return 3

        def __getitem__(self, i):
            return torch.zeros(i + 1), 0.0

    with pytest.raises(TypeError, match="a dataset's items must go together in batches; "):
        gathered(Ragged())


class Chosen(BatchSampler):
    """Some of the batches."""


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": RandomSampler(range(4), replacement=True)},
        {"sampler": RandomSampler(range(4), num_samples=3)},
        {"sampler": RandomSampler(range(4), num_samples=5)},
        {"sampler": [0, 1, 2]},
        {"sampler": [0, 1, 2], "batch_size": None},
        {"batch_sampler": [[0, 1], [2]]},
        {"batch_sampler": Chosen(SequentialSampler(range(4)), 2, False)},
    ],
)
def test_a_loader_that_chooses_among_the_examples_is_refused(options):
    items = Pairs([(x[None], x[None]) for x in NUMBERS[:4]])
    with pytest.raises(ValueError, match="must go over all examples of its dataset"):
        gathered(DataLoader(items, **options))


@pytest.mark.parametrize("size", [2, None])
def test_a_loader_in_any_order_gives_all_in_that_of_the_dataset(size):
    items = Pairs([(x[None], x[None]) for x in NUMBERS[:4]])
    for sampler in (RandomSampler(items), SequentialSampler(items)):
        X, y = gathered(DataLoader(items, size, sampler=sampler))
        torch.testing.assert_close(X.flatten(), NUMBERS[:4], rtol=0, atol=0)
        torch.testing.assert_close(y.flatten(), NUMBERS[:4], rtol=0, atol=0)


@pytest.mark.parametrize(
    "source", [Pairs([(NUMBERS, "a")]), DataLoader(Pairs([(NUMBERS, NUMBERS[0])]), None)]
)
def test_targets_are_numbers_and_come_in_batches(source):
    with pytest.raises(TypeError, match="y must be numbers, and a loader's come in batches"):
        gathered(source)


@pytest.mark.parametrize(
    "one, other",
    [
        (torch.zeros(2, 3), torch.zeros(2, 4)),
        (torch.zeros(2), (torch.zeros(2),)),
        ({"a": torch.zeros(2)}, {"a": torch.zeros(2), "b": torch.zeros(2)}),
        ({"a": torch.zeros(2)}, torch.zeros(2)),
        ((torch.zeros(2),), (torch.zeros(2), torch.zeros(2))),
    ],
)
def test_batches_of_two_forms_are_refused(one, other):
    """Whichever is first: nothing of either is left away."""
    for batches in ([one, other], [other, one]):
        with pytest.raises(TypeError, match="items must have one shape and one form"):
            gathered(DataLoader(Stream([(x, NUMBERS[:2]) for x in batches]), None))


def test_a_data_set_is_read_1024_at_a_time():
    taken = []

    class Several(Pairs):
        def __getitems__(self, rows):
            taken.append(len(rows))
            return [self.items[i] for i in rows]

    gathered(Several(ITEMS))
    assert taken == [1024, 1024, 452]


def test_whole_numbers_may_come_as_floats():
    np.testing.assert_array_equal(data.design(0, 5.0, 2.0), data.design(0, 5, 2))
    np.testing.assert_array_equal(data.orthonormal(0, 5.0, 2.0), data.orthonormal(0, 5, 2))
    np.testing.assert_array_equal(data.low_rank(0, 5.0, 3.0, 2.0), data.low_rank(0, 5, 3, 2))
    np.testing.assert_array_equal(data.contexts("abcd", 2.0)[0], data.contexts("abcd", 2)[0])


def test_what_is_drawn_from_a_generator_comes_in_the_order_of_the_formula():
    """X = √n U diag(σ) Vᵀ, y = Xθ + noise·ξ; a label is 1 where a uniform number is below P."""
    X, y = data.regression(5, 20, 3, condition=4, noise=0.5)
    rng = np.random.default_rng(5)
    U, V = data.orthonormal(rng, 20, 3), data.orthonormal(rng, 3, 3)
    np.testing.assert_allclose(X, np.sqrt(20) * U @ np.diag([1, 0.5, 0.25]) @ V.T, atol=1e-14)
    np.testing.assert_allclose(
        y, X @ rng.standard_normal(3) + 0.5 * rng.standard_normal(20), atol=1e-13
    )
    X, y = data.classification(5, 200, 3)
    rng = np.random.default_rng(5)
    np.testing.assert_array_equal(X, data.design(rng, 200, 3))
    below = rng.random(200)
    np.testing.assert_array_equal(y, below < expit(X @ rng.standard_normal(3)))
