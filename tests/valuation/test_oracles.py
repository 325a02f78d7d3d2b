"""Valuation against enumeration, quadrature, closed forms, fits one by one, and differences."""

import math
from itertools import combinations, permutations
from types import SimpleNamespace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from risks import network, softmax

from ifcore import data, influence, response, risk, valuation
from ifcore.network import perceptron
from ifcore.risk import Risk
from ifcore.runs import Run
from ifcore.training import Training, retrain
from ifcore.valuation import neighbour_game, permutation_shapley, semivalues, shapley
from ifcore.valuation.paths import training_influence

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(1, 8)
runs = settings(max_examples=40, deadline=None, database=None)
ALONE = Run(jobs=1, progress=False)


def table(v):
    """The game of a table v (2ⁿ,), point j being bit j of its row."""
    n = int(np.log2(len(v)))
    return lambda W: v[(W @ 2 ** np.arange(n)).astype(int)]


def drawn(seed, n):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(2**n) * 10.0 ** rng.uniform(-3, 3), rng


def near(found, truth, v, tol=1e-12):
    np.testing.assert_allclose(found, truth, rtol=0, atol=tol * np.abs(v).max())


# semivalues -----------------------------------------------------------------------------------


def one(value, points, n):
    w = np.zeros((1, n))
    w[0, list(points)] = 1
    return value(w)[0]


def enumerated(value, n, sizes):
    """The definition, coalition by coalition."""
    out = np.zeros(n)
    for j in range(n):
        others = [i for i in range(n) if i != j]
        for s in range(n):
            added = [one(value, (*S, j), n) - one(value, S, n) for S in combinations(others, s)]
            out[j] += sizes[s] * math.fsum(added) / len(added)
    return out


@runs
@given(seeds, st.integers(1, 7))
def test_semivalues_are_their_definition(seed, n):
    v, rng = drawn(seed, n)
    share = rng.dirichlet(np.ones(n))
    near(semivalues(table(v), n, share), enumerated(table(v), n, share), v)


@runs
@given(seeds, st.integers(1, 6))
def test_shapley_values_are_means_over_all_orders(seed, n):
    v, _ = drawn(seed, n)
    truth = np.zeros(n)
    for order in permutations(range(n)):
        for k, j in enumerate(order):
            truth[j] += one(table(v), order[: k + 1], n) - one(table(v), order[:k], n)
    near(shapley(table(v), n), truth / math.factorial(n), v)


@runs
@given(seeds, sizes)
def test_leave_one_out_and_banzhaf_are_semivalues(seed, n):
    v, _ = drawn(seed, n)
    value, full = table(v), one(table(v), range(n), n)
    left = [full - one(value, set(range(n)) - {j}, n) for j in range(n)]
    near(semivalues(value, n, np.eye(n)[-1]), left, v)
    alone = [one(value, [j], n) - one(value, [], n) for j in range(n)]
    near(semivalues(value, n, np.eye(n)[0]), alone, v)
    binomial = np.array([math.comb(n - 1, s) for s in range(n)]) / 2 ** (n - 1)
    joined = np.array([[(k >> j) & 1 for k in range(2**n)] for j in range(n)])
    near(semivalues(value, n, binomial), (2 * joined - 1) @ v / 2 ** (n - 1), v)


@runs
@given(seeds, sizes)
def test_efficiency(seed, n):
    v, _ = drawn(seed, n)
    near(shapley(table(v), n).sum(), v[-1] - v[0], v)


@runs
@given(seeds, st.integers(2, 8))
def test_twins_are_worth_the_same_and_a_null_player_nothing(seed, n):
    v, rng = drawn(seed, n)
    i, j = rng.choice(n, 2, replace=False)
    k, bits = np.arange(2**n), np.array([2**i, 2**j])
    swapped = np.where((k & bits[0] > 0) != (k & bits[1] > 0), k ^ bits.sum(), k)
    share = rng.dirichlet(np.ones(n))
    for worth in (lambda v: shapley(table(v), n), lambda v: semivalues(table(v), n, share)):
        found = worth(v + v[swapped])
        near(found[i], found[j], v)
        assert worth(v[k & ~bits[0]])[i] == 0


@runs
@given(seeds, sizes, st.floats(-3, 3))
def test_linearity(seed, n, c):
    v, rng = drawn(seed, n)
    u = rng.standard_normal(2**n)
    truth = shapley(table(v), n) + c * shapley(table(u), n)
    near(shapley(table(v + c * u), n), truth, np.append(v, 3 * u))


@runs
@given(seeds, sizes)
def test_a_renumbering_renumbers_the_values(seed, n):
    v, rng = drawn(seed, n)
    order = rng.permutation(n)
    moved = shapley(lambda W: table(v)(W[:, order]), n)
    near(moved[order], shapley(table(v), n), v)


def test_pairwise_games():
    """v(S) = Σ a_i + Σ_{i<j} b_ij: Shapley a + ½Σ_j b_ij, leave-one-out a + Σ_j b_ij, alone a."""
    rng, n = np.random.default_rng(0), 12
    a, B = rng.standard_normal(n), np.triu(rng.standard_normal((n, n)), 1)
    B = B + B.T

    def value(W):
        return W @ a + ((W @ B) * W).sum(1) / 2

    for share, by in ((np.full(n, 1 / n), 0.5), (np.eye(n)[-1], 1.0), (np.eye(n)[0], 0.0)):
        np.testing.assert_allclose(
            semivalues(value, n, share), a + by * B.sum(1), rtol=0, atol=1e-13
        )
    np.testing.assert_allclose(shapley(lambda W: W @ a, n), a, rtol=0, atol=1e-14)


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_the_multilinear_extension_by_quadrature(n):
    """φ_j = ∫ E[v(S + j) − v(S)] dq, each point in S with probability q, of degree n − 1 in q."""
    rng = np.random.default_rng(n)
    v, truth = rng.standard_normal(2**n), np.zeros(n)
    nodes, weights = np.polynomial.legendre.leggauss(n)
    inside = ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(bool)
    for q, weight in zip((nodes + 1) / 2, weights / 2):
        each = np.where(inside, q, 1 - q)
        for j in range(n):
            others = np.prod(np.delete(each, j, axis=1), axis=1)
            truth[j] += weight * np.where(inside[:, j], 1, -1) @ (others * v)
    np.testing.assert_allclose(shapley(table(v), n), truth, rtol=0, atol=2e-14)


def test_twenty_points():
    a = np.random.default_rng(0).standard_normal(20)
    found = shapley(lambda W: W @ a + (W.sum(1) == 20), 20)
    np.testing.assert_allclose(found, a + 1 / 20, rtol=0, atol=1e-12)


# random orders --------------------------------------------------------------------------------


def test_estimates_are_within_four_of_their_errors():
    """1,600 entries of 200 games, one in a thousand may not be."""
    n, beyond, scores = 8, 0, []
    for seed in range(200):
        v = np.random.default_rng(seed).standard_normal(2**n)
        found = permutation_shapley(table(v), n, 200, seed=seed, run=ALONE)
        score = (found.values - shapley(table(v), n)) / found.errors
        beyond += (np.abs(score) > 4).sum()
        scores.append(score)
        assert abs(found.values.sum() - (v[-1] - v[0])) < 1e-13 * np.abs(v).max()
        assert found.evaluations == 2 + 200 * (n - 1) and found.truncated == 0
    assert beyond <= 1
    assert 0.95 < np.std(scores) < 1.05  # and the errors are no larger than they need be


def test_two_orders_by_hand():
    v = np.random.default_rng(0).standard_normal(8)
    found = permutation_shapley(table(v), 3, 2, seed=7, run=ALONE)
    each = np.zeros((2, 3))
    for k in range(2):
        order = np.random.default_rng([7, k]).permutation(3)
        for s, j in enumerate(order):
            each[k, j] = one(table(v), order[: s + 1], 3) - one(table(v), order[:s], 3)
    np.testing.assert_allclose(found.values, each.mean(0), rtol=0, atol=1e-15)
    np.testing.assert_allclose(found.errors, np.abs(each[0] - each[1]) / 2, rtol=0, atol=1e-15)


def of_size(values):
    return lambda W: np.array(values)[W.sum(1).astype(int)]


@pytest.mark.parametrize(
    "values, tol, kept",
    [
        ([0, 0, 0.5] + [1] * 10, 0.0, 8),  # full from 3 on: 3, …, 8
        ([0, 1, 0.5] + [1] * 10, 0.0, 8),  # one that does not count in a row
        ([0] + [0.75] * 11 + [1], 0.25, 6),  # as near as tol allows
        ([0] + [0.75] * 11 + [1], 0.2, 12),
        ([0] + [3] * 11 + [1], 0.25, 12),  # as far above it as one likes is not near
        ([1] + [0.25] * 11 + [0], 0.25, 6),  # a loss is a gain
        ([3] + [0.25] * 11 + [0], 0.05, 12),  # three quarters of what tol allows are not all
        ([1] + [1.25, 1.75] * 5 + [1.75, 2], 0.25, 12),  # beside the gain, never six in a row
        ([2] + [2] * 12, 0.0, 6),  # nothing to gain
        ([0] + [0] * 6 + [1] * 6, 0.0, 12),  # the sixth is the whole
    ],
)
def test_truncation_leaves_an_order_at_the_sixth_in_a_row(values, tol, kept):
    count, game = [], of_size(values)

    def counted(W):
        assert len(W)
        count.append(len(W))
        return game(W)

    found = permutation_shapley(counted, 12, 30, tol=tol, block=11, run=ALONE)
    assert found.evaluations == 2 + 30 * min(kept, 11) == sum(count) - 2  # the ends twice
    assert found.truncated == pytest.approx(1 - kept / 12, abs=1e-15)
    orders = np.array([np.random.default_rng([0, k]).permutation(12) for k in range(30)])
    added = np.where(np.arange(12) < kept, np.diff(values), 0)
    truth = [added[np.argsort(order)] for order in orders]
    np.testing.assert_allclose(found.values, np.mean(truth, axis=0), rtol=0, atol=1e-15)


def test_truncation_of_each_order_by_itself():
    """The full value is there with point 0: orders stop five behind it, if there are so many."""
    found = permutation_shapley(lambda W: W[:, 0], 15, 50, tol=0.1, block=50, run=ALONE)
    places = [list(np.random.default_rng([0, k]).permutation(15)).index(0) for k in range(50)]
    kept = [place + 6 if place + 6 < 15 else 15 for place in places]
    assert found.evaluations == 2 + sum(min(k, 14) for k in kept)
    assert found.truncated == pytest.approx(1 - sum(kept) / (50 * 15), abs=1e-14)
    np.testing.assert_array_equal(found.values, np.eye(15)[0])


# games of data --------------------------------------------------------------------------------


@runs
@given(seeds, st.integers(1, 8), st.integers(1, 12), st.booleans())
def test_nearest_neighbours_are_shapley_values_of_their_game(seed, n, K, ties):
    rng = np.random.default_rng(seed)
    X, test_X = rng.standard_normal((n, 2)), rng.standard_normal((5, 2))
    if ties:
        X, test_X = np.round(X), np.round(test_X)
    y, test_y = rng.integers(0, 3, n), rng.integers(0, 3, 5)
    found = valuation.nearest_neighbours(X, y, test_X, test_y, K)
    truth = shapley(neighbour_game(X, y, test_X, test_y, K), n)
    np.testing.assert_allclose(found, truth, rtol=0, atol=1e-14)


def test_the_game_of_neighbours_by_hand():
    """Points at 0, 1, 1, 3, classes 0, 1, 0, 1; of the two at 1 the first counts as nearer."""
    game = neighbour_game([[0.0], [1], [1], [3]], [0, 1, 0, 1], [[0.1]], [1], 2)
    W = [[0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 1], [0, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]
    np.testing.assert_array_equal(game(np.array(W, float)), [0, 0.5, 0.5, 0.5, 1, 0.5])
    first = neighbour_game([[0.0], [1], [1], [3]], [0, 1, 0, 1], [[1.0]], [1], 1)
    np.testing.assert_array_equal(first(np.array(W, float)), [0, 1, 1, 0, 1, 1])


def test_of_many_points_as_far_away_the_one_of_the_lowest_index_is_nearest():
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 2, (200, 1)).astype(float), rng.integers(0, 2, 200)
    W = (rng.random((40, 200)) < 0.1).astype(float)
    found = neighbour_game(X, y, [[0.0]], [1], 1)(W)
    nearest = [min(np.flatnonzero(w), key=lambda i: (X[i, 0], i)) for w in W]
    np.testing.assert_array_equal(found, y[nearest])


@pytest.mark.parametrize("n, sizes", [(2**10, [2**10, 5]), (2**20 + 1, [1, 1])])
def test_distances_to_neighbours_are_held_a_million_at_a_time(n, sizes, monkeypatch):
    ranked = []

    def recorded(X, y, test_X, test_y):
        ranked.append(len(test_X))
        return np.zeros((len(test_X), n), int), np.zeros((len(test_X), n))

    monkeypatch.setattr(valuation.games, "_ranked", recorded)
    test = np.zeros((sum(sizes), 1)), np.zeros(sum(sizes))
    valuation.nearest_neighbours(np.zeros((n, 1)), np.zeros(n), *test, 3)
    assert ranked == sizes


def test_nearest_neighbours_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    parts = rng.standard_normal((9, 2)), rng.integers(0, 2, 9)
    tests = rng.standard_normal((7, 2)), rng.integers(0, 2, 7)
    whole = valuation.nearest_neighbours(*parts, *tests, 3)
    monkeypatch.setattr(valuation.games, "BLOCK", 20)
    np.testing.assert_allclose(
        valuation.nearest_neighbours(*parts, *tests, 3), whole, rtol=0, atol=1e-16
    )


def classes(lam=0.5, n=8):
    X, y = data.classification(1, n + 6, 3)
    whole = Risk(risk.linear, risk.logistic, X, y, lam=lam, b=[0.1, -0.3, 0.2])
    return whole.subset(slice(n)), whole.subset(slice(n, None))


def test_refits_are_fits_one_by_one():
    found, test = classes()
    W = np.random.default_rng(0).integers(0, 2, (9, 8)).astype(float)
    W[4] = 0
    truth, first = [], []
    for w in W:
        theta = np.array([-0.2, 0.6, -0.4])
        if w.any():
            part = found.subset(np.flatnonzero(w))
            theta = response.minimise(part).theta
        truth.append(-np.mean([np.log1p(np.exp(-(2 * y - 1) * x @ theta)) for x, y in rows(test)]))
        first.append(theta[0])
    np.testing.assert_allclose(valuation.refits(found, test)(W), truth, rtol=0, atol=1e-13)
    by_measure = valuation.refits(found, None, measure=lambda theta: theta[0])
    np.testing.assert_allclose(by_measure(W), first, rtol=0, atol=1e-12)
    near_start = valuation.refits(found, test, start=np.ones(3), method="newton-cg", tol=1e-12)
    np.testing.assert_allclose(near_start(W), truth, rtol=0, atol=1e-11)


def test_test_losses_in_blocks(monkeypatch):
    found, test = classes()
    W = np.random.default_rng(0).integers(0, 2, (9, 8)).astype(float)
    whole = valuation.refits(found, test)(W)
    monkeypatch.setattr(valuation.games, "LOSSES", 4 * test.n)
    np.testing.assert_allclose(valuation.refits(found, test)(W), whole, rtol=0, atol=1e-15)


@pytest.mark.parametrize("n, K, sizes", [(2**9, 2, [2**8, 2**8, 3]), (2**17, 3, [1, 1])])
def test_outputs_on_test_data_are_held_a_quarter_of_a_million_at_a_time(n, K, sizes):
    seen = []

    class Tensors:
        def each(self, function):
            return lambda theta: seen.append(len(theta)) or theta[:, 0]

    test, theta = SimpleNamespace(n=n, K=K, tensors=Tensors()), np.arange(sum(sizes) * 2.0)
    found = valuation.games._mean_losses(test, theta.reshape(-1, 2))
    assert seen == sizes
    np.testing.assert_array_equal(found, theta[::2])


def test_refits_without_a_penalty_where_no_coalition_is_empty():
    X, y = data.regression(1, 8, 2)
    found, W = Risk(risk.linear, risk.squared, X, y), np.ones((3, 8))
    W[1, :4], W[2, 5:] = 0, 0
    worth = valuation.refits(found, None, measure=lambda theta: theta[1])(W)
    truth = [np.linalg.lstsq(X[w > 0], y[w > 0])[0][1] for w in W]
    np.testing.assert_allclose(worth, truth, rtol=1e-11)


def test_refits_of_a_network():
    """Every coalition from the same start; without data its θ is the penalty's minimiser, 0."""
    X, y = data.regression(1, 9, 3, condition=2)
    whole = Risk(perceptron(0, 3, 2, 1), risk.squared, X, y / y.std(), lam=0.5)
    found, test, start = whole.subset(slice(5)), whole.subset(slice(5, 9)), whole.model.initial(1)
    game = valuation.refits(found, test, start, method="newton-cg", tol=1e-9)
    W = np.array([[1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 0, 1, 0, 1.0]])
    fits = [response.minimise(found, start, w, method="newton-cg", tol=1e-9) for w in W[[0, 2]]]
    thetas = fits[0].theta, np.zeros(found.d), fits[1].theta
    truth = [-test.losses(theta).mean() for theta in thetas]
    np.testing.assert_allclose(game(W), truth, rtol=0, atol=1e-9)


def rows(test):
    return zip(test.X.numpy(), test.y.numpy())


def test_shapley_values_of_refits():
    found, test = classes()
    game = valuation.refits(found, test)
    worth = shapley(game, 8)
    assert abs(worth.sum() - (game(np.ones((1, 8))) - game(np.zeros((1, 8))))[0]) < 1e-13
    guess = permutation_shapley(game, 8, 100, run=ALONE)
    assert (np.abs(guess.values - worth) < 4 * guess.errors).all()


# paths ----------------------------------------------------------------------------------------


def problems():
    X, y = data.regression(1, 20, 3, condition=2)
    y = y / y.std()
    yield Risk(risk.linear, risk.squared, X, y), np.array([0.3, -0.2, 0.1])
    yield Risk(risk.linear, risk.logistic, X, y > 0, lam=[0.3, 0.0, 2.0], b=[0.1, 0, 1]), np.ones(3)
    layered = Risk(perceptron(0, 3, 4, 1), risk.squared, X, y, lam=0.2)
    yield layered, layered.model.initial(3)
    rng = np.random.default_rng(0)
    yield Risk(network, risk.squared, X, rng.standard_normal((20, 2)), d=12), rng.normal(size=12)
    yield Risk(softmax, risk.cross_entropy, X, rng.integers(0, 3, 20), lam=1.0, d=9), np.zeros(9)


PLAIN = Training(25, 0.1, momentum=0.0, nesterov=False)
TRAININGS = {
    "plain": PLAIN,
    "momentum": PLAIN._replace(momentum=0.8),
    "nesterov": Training(25, 0.1),
    "batches": Training(25, 0.05, batch=6, order=3),
    "rates": Training(25, np.linspace(0.2, 0.01, 25), batch=7, nesterov=False),
}


def differences(found, training, start, weights, direction, h=1e-3):
    """By the weights w ± h and w ± 2h, to the fourth order: (m, d)."""
    shifts = np.array([1, -1, 2, -2])[:, None, None] * h * np.atleast_2d(direction)
    ends = [retrain(found, training, start, weights + s, run=ALONE).theta for s in shifts]
    return (8 * (ends[0] - ends[1]) - (ends[2] - ends[3])) / (12 * h)


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("which", range(5))
def test_the_derivative_of_a_path_is_that_of_retraining(which, name):
    found, start = list(problems())[which]
    training = TRAININGS[name]
    w = np.random.default_rng(1).uniform(0.5, 1.5, 20)
    direction = np.vstack([np.eye(20)[4], np.random.default_rng(2).standard_normal(20) / 5])
    path = training_influence(found, training, start, direction, w, keep=[25, 10, 0])
    np.testing.assert_array_equal(path.steps, [25, 10, 0])
    whole = retrain(found, training, start, w, keep=[25, 10, 0], run=ALONE)
    np.testing.assert_array_equal(path.theta, [state.theta for state in whole.states])
    truth = differences(found, training, start, w, direction)
    np.testing.assert_allclose(path.derivative[0], truth, rtol=0, atol=1e-9 * np.abs(truth).max())
    shorter = training._replace(steps=10, rate=np.broadcast_to(training.rate, 25)[:10])
    truth = differences(found, shorter, start, w, direction)
    np.testing.assert_allclose(path.derivative[1], truth, rtol=0, atol=1e-9 * np.abs(truth).max())
    np.testing.assert_array_equal(path.derivative[2], np.zeros((2, found.d)))
    single = training_influence(found, training, start, direction[0], w)
    assert single.theta.shape == single.derivative.shape == (1, found.d)
    np.testing.assert_allclose(single.derivative[0], path.derivative[0, 0], rtol=1e-12, atol=1e-15)


def test_one_step_is_closed():
    """−rate/|B| ∇ℓ_j where j is in the batch, 1 + β times it by Nesterov, and 0 elsewhere."""
    for found, start in problems():
        slopes = found.gradients(start)
        for training, by in (
            (Training(1, 0.1, nesterov=False), 1 / 20),
            (Training(1, 0.1, momentum=0.7), 1.7 / 20),
            (Training(1, 0.1, 0.0, False, batch=6), 1 / 6),
        ):
            path = training_influence(found, training, start, np.eye(20))
            inside = np.ones(20) if training.batch is None else np.zeros(20)
            inside[training.rows(20, 0)] = 1
            truth = -0.1 * by * slopes * inside[:, None]
            np.testing.assert_allclose(path.derivative[0], truth, rtol=0, atol=1e-15)


def test_the_last_batch_of_an_epoch_is_smaller():
    found, start = next(problems())
    training = Training(4, 0.1, 0.0, False, batch=6)
    j = training.rows(20, 3)[0]
    assert len(training.rows(20, 3)) == 2
    path = training_influence(found, training, start, np.eye(20)[j], keep=[3, 4])
    np.testing.assert_array_equal(path.derivative[0], np.zeros(3))
    truth = -0.1 / 2 * found.gradients(path.theta[0])[j]
    np.testing.assert_allclose(path.derivative[1], truth, rtol=0, atol=1e-15)


def test_at_the_end_it_is_influence():
    X, y = data.regression(1, 20, 3, condition=2)
    found = Risk(risk.linear, risk.squared, X, y / y.std(), lam=0.5)
    path = training_influence(found, Training(600, 0.5), np.zeros(3), np.eye(20))
    truth = influence.influence(found, path.theta[0])
    np.testing.assert_allclose(path.derivative[0], truth, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["nesterov", "batches"])
def test_a_window_and_weights_that_change(name):
    found, start = list(problems())[2]
    training, e = TRAININGS[name], np.eye(20)[4]

    def plan(k, h=0.0):
        w = np.ones(20)
        w[7] = 1 if k < 12 else 0.2
        return w + (h * e if 5 <= k < 15 else 0)

    def window(k, inside=True):
        return e if (5 <= k < 15) == inside else np.zeros(20)

    path = training_influence(found, training, start, window, plan, keep=range(26))
    h = 1e-3
    ends = [
        retrain(found, training, start, lambda k, s=s: plan(k, s * h), run=ALONE).theta
        for s in (1, -1, 2, -2)
    ]
    truth = (8 * (ends[0] - ends[1]) - (ends[2] - ends[3])) / (12 * h)
    np.testing.assert_allclose(path.derivative[-1], truth, rtol=0, atol=1e-9 * abs(truth).max())
    assert not path.derivative[:6].any()
    others = training_influence(found, training, start, lambda k: window(k, False), plan)
    whole = training_influence(found, training, start, e, plan)
    np.testing.assert_allclose(
        whole.derivative[-1], path.derivative[-1] + others.derivative[-1], rtol=0, atol=1e-14
    )


def test_directions_that_cancel_over_the_steps_and_weights_that_are_all_0():
    found, start = list(problems())[2]
    training, e = TRAININGS["plain"], np.eye(20)[4]

    def plan(k, h=0.0):
        return (np.ones(20) if k != 3 else np.zeros(20)) + (h * e if k in (1, 2) else 0)

    def direction(k):
        return {1: e, 2: -e}.get(k, np.zeros(20))

    path = training_influence(found, training, start, direction, plan)
    signs, ends = {1: 1, 2: -1}, []
    for h in (1e-3, -1e-3, 2e-3, -2e-3):
        shifted = lambda k, h=h: plan(k, h * signs.get(k, 0))  # noqa: E731
        ends.append(retrain(found, training, start, shifted, run=ALONE).theta)
    truth = (8 * (ends[0] - ends[1]) - (ends[2] - ends[3])) / 12e-3
    np.testing.assert_allclose(path.derivative[0], truth, rtol=0, atol=2e-12)


@pytest.mark.parametrize("which", [2, 3])
def test_a_path_does_not_depend_on_the_states_held(which, monkeypatch):
    found, start = list(problems())[which]
    training = TRAININGS["rates"]
    whole = training_influence(found, training, start, np.eye(20)[:2], keep=range(26))
    for numbers in (1, 4 * 7 * found.d):  # one step, and seven
        monkeypatch.setattr(valuation.paths, "CHUNK", numbers)
        again = training_influence(found, training, start, np.eye(20)[:2], keep=range(26))
        for part, other in zip(whole, again):
            np.testing.assert_array_equal(part, other)


def test_an_example_that_is_not_finite_and_does_not_count():
    X, y = data.regression(1, 6, 3)
    X[2] = 1e200
    weights, e = np.array([1, 1, 0, 1, 1, 1.0]), np.eye(6)[3]
    found, kept = Risk(risk.linear, risk.squared, X, y), [0, 1, 3, 4, 5]
    fewer = PLAIN._replace(rate=PLAIN.rate * 5 / 6)
    other = training_influence(found.subset(kept), fewer, np.ones(3), e[kept])
    for direction in (e, lambda k: e):
        path = training_influence(found, PLAIN, np.ones(3), direction, weights)
        np.testing.assert_allclose(path.derivative, other.derivative, rtol=1e-12)
