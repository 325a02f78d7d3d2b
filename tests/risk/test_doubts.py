"""What a loss is doubted for: where it is told, where not, and how often a loss is asked."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from ifcore import risk
from ifcore.network import Network
from ifcore.risk import Risk, doubts
from ifcore.risk.tensors import Tensors

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((6, 4)), RNG.standard_normal(6)
HEAVY = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)


def told(model, loss, y, x=X, d=None):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Risk(model, loss, x, y, d=d)
    return [str(warning.message) for warning in caught]


def outputs(count):
    torch.manual_seed(0)
    return Network(nn.Linear(4, count))


def weighted(f, y):
    return nn.functional.cross_entropy(f, y, weight=HEAVY)


def square(f, y):
    return ((f - y) ** 2).sum()


def rare(value):
    """Targets of which one alone is not 0."""
    return np.r_[np.zeros(1500), value, np.zeros(1500)]


MANY = np.tile(X, (501, 1))[:3001]
REPEATED = {
    "two outputs": (outputs(2), square, Y),
    "below 0": (outputs(3), lambda f, y: square(f, y) - 100, Y),
    "large": (outputs(3), lambda f, y: 1e6 * square(f, y), Y),
    "beside much": (outputs(3), lambda f, y: square(f, y) + 1e6, Y),
    "small": (outputs(3), lambda f, y: 1e-12 * square(f, y), Y),
    "one large target": (outputs(3), square, rare(1.5), MANY),
    "one small target": (outputs(3), square, rare(-1.5), MANY),
    "an output of 0": (lambda theta, x: 0 * (theta @ x), square, X[:, :3], X, 4),
}


@pytest.mark.parametrize("kind", REPEATED)
def test_what_is_repeated_is_told_at_every_size(kind):
    (word,) = told(*REPEATED[kind])
    assert "entry by entry, and repeats what is missing" in word


PLACES = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
FINE = {
    "as many as there are": (outputs(3), lambda f, y: ((f - y) ** 2).mean(), X[:, :3]),
    "others than there are": (outputs(3), lambda f, y: square(f[:2], y) + f[2] ** 2, X[:, :2]),
    "an axis that it asks for": (outputs(1), lambda f, y: square(f, y[0]), Y[:, None]),
    "not repeated": (
        outputs(3),
        lambda f, y: square(f, y) if f.shape == y.shape else square(f.mean(), y),
        Y,
    ),
    "nearly repeated": (
        outputs(3),
        lambda f, y: square(f, y) * (1e-9 if f.shape == y.shape else 1e-9 + 1e-16),
        Y,
    ),
    "not compared": (outputs(3), lambda f, y: (f**2 + y).sum(), Y),
    "the square of a sum": (outputs(2), lambda f, y: square(f, y) ** 2, Y),
    "a mixture of two": (outputs(2), lambda f, y: -(-((f - y) ** 2)).logsumexp(0), Y),
    "a little more than a sum": (outputs(3), lambda f, y: 1 + 0.01 * square(f, y) ** 2, Y),
    "unlike places": (outputs(3), lambda f, y: 1e-12 * (PLACES * (f - y) ** 2).sum(), Y),
    "nearly alike places": (
        outputs(3),
        lambda f, y: 1e-4 * ((1 + 1e-7 * PLACES) * (f - y) ** 2).sum(),
        Y,
    ),
    "places alike but for little": (outputs(3), lambda f, y: 5 + square(f * PLACES / 2, y) / 99, Y),
}


@pytest.mark.parametrize("kind", FINE)
def test_what_is_not_repeated_is_not_told(kind):
    assert not told(*FINE[kind])


def test_a_weighted_mean_is_told_of_whole_targets():
    """That of others may have its weights from elsewhere."""

    def mean(f, y):
        return (y[..., 1] * (f - y[..., 0]) ** 2).sum() / y[..., 1].sum()

    y, theta = torch.from_numpy(np.c_[Y, np.arange(6) + 1]), torch.ones(4, dtype=torch.float64)
    tensors = Tensors(risk.linear, mean, torch.from_numpy(X), y)
    output = tensors.outputs(theta)[0]
    (word,) = doubts.found(tensors, theta, output, True, True)
    assert "unequal weights" in word
    assert not doubts.found(tensors, theta, output, False, True)


def branching(theta, x):
    """A model that torch.func.vmap cannot map."""
    return theta.reshape(3, 4) @ (x if x[0] > 0 else 2 * x)


def test_a_weighted_mean_is_told_of_a_model_that_cannot_be_mapped():
    (word,) = told(branching, weighted, np.arange(6) % 3, d=12)
    assert "unequal weights" in word


class Scaled(nn.Module):
    """Five scales around 1.5, that have to be positive."""

    def __init__(self):
        super().__init__()
        self.head, self.scales = nn.Linear(4, 3), nn.Parameter(torch.full((5,), 1.5))

    def forward(self, x):
        if not (self.scales > 0).all():
            raise ValueError("a scale must be positive")
        return self.head(x) * self.scales.log().exp().prod()


def test_the_points_at_which_a_loss_is_tried_are_near_the_models_own():
    torch.manual_seed(0)
    (word,) = told(Network(Scaled()), weighted, np.arange(6) % 3)
    assert "unequal weights" in word


def test_a_loss_that_does_not_take_every_example_is_not_doubted():
    def loss(f, y):
        if y.ndim == 0 and y == 3:
            raise ValueError("not that one")
        return (f - y) ** 2

    assert not told(outputs(1), loss, np.arange(6))


def test_what_a_loss_says_of_several_examples_is_not_passed_on():
    def loss(f, y):
        if y.ndim:
            warnings.warn("a batch", stacklevel=1)
        return risk.cross_entropy(f, y)

    assert not told(outputs(3), loss, np.arange(6) % 3)


def test_a_loss_is_asked_for_sixteen_pairs_at_four_points():
    """Of neighbours among targets that differ, beginning with the smallest and the largest."""
    asked, alone = [], []

    def loss(f, y):
        (asked if y.ndim else alone).append(y.tolist())
        return ((f - y) ** 2).sum()

    y = torch.arange(100)[torch.from_numpy(RNG.permutation(100))]
    x, theta = torch.from_numpy(RNG.standard_normal((100, 4))), torch.ones(4, dtype=torch.float64)
    assert not doubts._is_weighted_mean(Tensors(risk.linear, loss, x, y), theta)
    assert len(asked) == 4 * 16 and len(alone) == 4 * 17
    pairs = asked[::4]
    assert pairs[0] == [0, 99] and asked == [pair for pair in pairs for _ in range(4)]
    assert [pair[1] for pair in pairs[:-1]] == [pair[0] for pair in pairs[1:]]
    assert len({pair[0] for pair in pairs}) == 16


@pytest.mark.parametrize("shape", [(), (2,)])
def test_targets_that_differ_are_found_once_each(shape):
    few = torch.from_numpy(RNG.integers(0, 3, (200, *shape)))
    rows = doubts._different(few)
    found = few[rows].reshape(len(rows), -1).tolist()
    assert sorted(found) == np.unique(few.reshape(200, -1), axis=0).tolist()
    ends = torch.zeros(3000, *shape)
    ends[1000], ends[2000] = -1, 1
    assert doubts._different(ends)[:2] == [1000, 2000]
    many = torch.from_numpy(RNG.permutation(1000))
    rows = doubts._different(many)
    assert len(rows) == 17 and many[rows[:2]].tolist() == [0, 999]


@pytest.mark.parametrize("size, count", [(1, 256), (256, 256), (512, 128), (2**12, 16), (8192, 16)])
def test_so_many_targets_are_drawn_as_their_size_allows(size, count, monkeypatch):
    class Drawn:
        def integers(self, n, size):
            assert n == 2
            sizes.append(size)
            return np.zeros(size, int)

    sizes = []
    monkeypatch.setattr(doubts.np.random, "default_rng", lambda seed: Drawn())
    doubts._different(torch.zeros(2, size))
    assert sizes == [count] and isinstance(sizes[0], int)


def test_pairs_are_joined_one_behind_the_other_where_they_have_an_axis():
    for shape, joined in (((2,), (2,)), ((2, 3), (6,)), ((2, 4, 3), (8, 3))):
        assert doubts._one_behind_the_other(torch.zeros(shape)).shape == joined
    assert np.isnan(doubts._number(lambda f, y: f, torch.ones(1), None))


MEAN = RNG.standard_normal((6, 2))
CORNER = np.r_[np.eye(2), np.zeros((1, 2))]


@pytest.mark.parametrize(
    "each, both, is_mean",
    [
        (MEAN, MEAN @ [0.3, 0.7], True),
        (1e9 * MEAN, 1e9 * MEAN @ [0.3, 0.7], True),
        (-np.abs(MEAN), -np.abs(MEAN) @ [0.3, 0.7], True),
        (np.r_[MEAN, np.zeros((1, 2))], np.r_[MEAN @ [0.3, 0.7], 0], True),
        (MEAN[:, :1] * [1, 2], MEAN[:, 0] * 5 / 3, False),  # of rank one
        (MEAN[:, :1] + 1e-9 * MEAN, (MEAN[:, :1] + 1e-9 * MEAN) @ [0.3, 0.7], False),
        (CORNER, [0.3, 0.7, 5], False),
        (CORNER, [0.3, 0.7, -5], False),
        (np.r_[MEAN, [[np.nan, 0]]], np.r_[MEAN @ [0.3, 0.7], 0], False),
        (MEAN, np.r_[MEAN[:5] @ [0.3, 0.7], np.nan], False),
    ],
)
def test_a_mean_by_two_weights_is_known_by_its_digits(each, both, is_mean):
    assert doubts._is_mean(each, list(both)) == is_mean
