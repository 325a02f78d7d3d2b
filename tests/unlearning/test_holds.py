"""What unlearning refuses, by name, and what it keeps when it does."""

import numpy as np
import pytest
import torch

from ifcore import data, response, risk, unlearning
from ifcore.network import perceptron
from ifcore.risk import Risk
from ifcore.runs import NotConverged, Run
from ifcore.solvers import NotPositiveDefinite
from ifcore.training import Training, retrain
from ifcore.unlearning import Certified, Exhausted, Shards, soft_weights


def model(lam=0.5, **options):
    X, y = data.classification(0, 20, 3)
    found = Risk(risk.linear, risk.logistic, X, y, lam=lam)
    return Certified(found, response.minimise(found).theta, **options)


def test_an_exhausted_budget_names_the_removal_and_keeps_the_model():
    free = model()
    first = free.remove(0, "influence")
    start = model(budget=1.5 * first.bound)
    kept = start.remove(0, "influence")
    with pytest.raises(
        Exhausted, match="removal 2, of example 4, would have a residual of up to"
    ) as e:
        kept.remove(4, "influence")
    assert len(e.value.args) == 1 and e.value.model is kept and kept.removed == (0,)
    assert e.value.left == kept.left == kept.budget - kept.bound
    assert e.value.bound > kept.budget
    np.testing.assert_array_equal(start.theta, free.theta)


def test_a_removal_leaves_the_model_before_it_as_it_was():
    start = model()
    theta = start.theta.copy()
    start.remove([1, 2])
    np.testing.assert_array_equal(start.theta, theta)
    assert start.removed == () and start.weights.sum() == 20


def test_a_model_is_not_changed_by_the_array_or_the_list_that_it_was_made_of():
    given = np.zeros(3)
    start, other = Certified(model().risk, given), Certified(model().risk, given.tolist())
    given[:] = 1
    np.testing.assert_array_equal(start.theta, np.zeros(3))
    assert type(other.theta) is np.ndarray and other.bound == start.bound == start.residual


def test_a_removal_without_a_minimiser_is_refused():
    X = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    found = Risk(risk.linear, risk.squared, X, np.zeros(3))
    start = Certified(found, [0.0, 0.0])
    with pytest.raises(NotPositiveDefinite, match="H_w"):
        start.remove(2)
    assert start.remove(0).removed == (0,)


CERTIFIED = [
    (lambda: model().remove(0).remove([3, 0]), ValueError, "0 was removed before"),
    (lambda: model().remove(20), IndexError, "j must lie in 0, …, 19; got 20"),
    (
        lambda: model().remove(0, "exact"),
        ValueError,
        "step must be 'newton' or 'influence'; got 'exact'",
    ),
    (lambda: model(budget=0.0), ValueError, "budget must be positive, or infinite; got 0.0"),
    (lambda: model(budget=np.nan), ValueError, "budget must be positive, or infinite; got nan"),
    (lambda: model(third=-1.0), ValueError, "third"),
    (
        lambda: Certified(model().risk, np.zeros(2)),
        ValueError,
        "theta must have length d = 3; got 2",
    ),
    (lambda: Certified("risk", np.zeros(2)), TypeError, "risk must be a Risk"),
    (lambda: Certified(poisson(), np.zeros(3)), ValueError, "third, a bound of the loss's third"),
    (
        lambda: Certified(network(), network().model.theta),
        ValueError,
        "risk must be of ifcore.risk.linear",
    ),
    (
        lambda: unlearning.residual_bound(np.ones((3, 2)), np.ones(3)),
        ValueError,
        "move must have length d = 2; got 3",
    ),
    (lambda: unlearning.residual_bound(np.ones(3), np.ones(3)), ValueError, "X"),
    (lambda: unlearning.residual_bound([[np.nan]], [1.0]), ValueError, "X must be finite"),
    (lambda: unlearning.residual_bound([[1.0]], [1.0], -1.0), ValueError, "third must be"),
    (lambda: unlearning.gaussian_delta(-1.0, 1.0, 1.0), ValueError, "shift"),
    (lambda: unlearning.gaussian_delta(1.0, 0.0, 1.0), ValueError, "sigma"),
    (lambda: unlearning.gaussian_delta(1.0, 1.0, -0.1), ValueError, "epsilon"),
    (
        lambda: unlearning.budget(1.0, 1.0, 1.0),
        ValueError,
        "delta must lie between 0 and 1; got 1.0",
    ),
    (lambda: unlearning.budget(1.0, 1.0, 0.0), ValueError, "delta"),
    (lambda: unlearning.budget(0.0, 1.0, 0.1), ValueError, "sigma must be positive"),
    (lambda: unlearning.membership_ratio("risk", np.zeros(3), 0, 1.0), TypeError, "must be a Risk"),
    (
        lambda: unlearning.membership_ratio(model().risk, np.zeros((1, 1, 3)), 0, 1.0),
        ValueError,
        r"got \(1, 1, 3\)",
    ),
    (lambda: unlearning.membership_ratio(model().risk, 0.0, 0, 1.0), ValueError, r"got \(\)"),
    (
        lambda: unlearning.membership_ratio(model().risk, np.zeros((2, 2)), 0, 1.0),
        ValueError,
        r"theta must be \(3,\) or \(m, 3\); got \(2, 2\)",
    ),
    (lambda: unlearning.membership_ratio(model().risk, np.zeros(3), 0, 0.0), ValueError, "sigma"),
    (lambda: unlearning.membership_ratio(model().risk, np.zeros(3), 20, 1.0), IndexError, "got 20"),
    (
        lambda: unlearning.membership_ratio(flat(), np.zeros(2), 0, 1.0),
        ValueError,
        "positive definite at theta",
    ),
]


def poisson():
    return Risk(risk.linear, risk.poisson, np.eye(3), np.ones(3), lam=1.0)


def network():
    return Risk(perceptron(0, 2, 3, 1), risk.squared, np.ones((4, 2)), np.zeros(4))


def flat():
    return Risk(risk.linear, risk.squared, np.array([[1.0, 0.0], [1.0, 0.0]]), np.zeros(2))


@pytest.mark.parametrize("call, error, words", CERTIFIED)
def test_bad_input_to_a_certified_removal(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_checkpoint_that_was_not_kept_is_named_with_those_there_are():
    found, training = network(), Training(10, 0.1)
    states = retrain(found, training, found.model.theta, keep=(2, 7), run=Run(jobs=1)).states
    with pytest.raises(ValueError, match=r"of \[2, 7\]; got 5"):
        unlearning.rewind(found, training, states, np.ones(4), 5)
    with pytest.raises(TypeError, match="switch must be an integer at least 0"):
        unlearning.rewind(found, training, states, np.ones(4), 2.5)
    with pytest.raises(ValueError, match="after at most 5 steps; got .* after 7"):
        unlearning.rewind(found, training._replace(steps=5), states, np.ones(4), 7)


def test_a_rewind_that_diverges_is_returned_where_that_is_asked_for():
    found, training = network(), Training(300, 1e3)
    states = retrain(found, training._replace(steps=1), found.model.theta, keep=(0,)).states
    with pytest.raises(NotConverged, match="diverged"):
        unlearning.rewind(found, training, states, np.ones(4), 0)
    lenient = Run(jobs=1, progress=False, strict=False)
    assert unlearning.rewind(found, training, states, np.ones(4), 0, run=lenient).status == (
        "diverged"
    )


SENSITIVITY = [
    ((0.0, 1.0, 0.1, 1.0, 5, 2), ValueError, "rate"),
    ((0.1, -1.0, 0.1, 1.0, 5, 2), ValueError, "L"),
    ((0.1, 1.0, 2.0, 1.0, 5, 2), ValueError, "mu must be at most L = 1; got 2"),
    ((0.1, 1.0, 0.1, -1.0, 5, 2), ValueError, "disturbance"),
    ((0.1, 1.0, 0.1, [1.0, 1.0, 1.0], 5, 2), ValueError, "one for each of 2 steps; got"),
    ((0.1, 1.0, 0.1, [1.0, -1.0], 5, 2), ValueError, "disturbance"),
    ((0.1, 1.0, 0.1, np.nan, 5, 2), ValueError, "disturbance"),
    ((0.1, 1.0, 0.1, 1.0, 0, 0), ValueError, "steps"),
    ((0.1, 1.0, 0.1, 1.0, 5, 6), ValueError, "switch must lie in 0, …, steps = 5; got 6"),
]


@pytest.mark.parametrize("values, error, words", SENSITIVITY)
def test_bad_input_to_the_sensitivity(values, error, words):
    with pytest.raises((error, TypeError), match=words):
        unlearning.sensitivity(*values)


SHARDS = [
    (lambda: Shards.split(5, 0), "S must be"),
    (lambda: Shards.split(5, 6), "S must be at most n = 5, a point for each shard; got 6"),
    (lambda: Shards.split(0, 1), "n must be"),
    (lambda: Shards.split(5, 2).delete(1)[0].delete(1), "1 was deleted before"),
    (lambda: Shards.split(3, 3).delete(1), "1 is the last one of"),
    (lambda: Shards.split(3, 3).delete(3), "j must lie in 0, …, 2; got 3"),
]


@pytest.mark.parametrize("call, words", SHARDS)
def test_bad_input_to_shards(call, words):
    with pytest.raises((ValueError, TypeError, IndexError), match=words):
        call()


SOFT = [
    (lambda: soft_weights([], 0.0), "a"),
    (lambda: soft_weights([1.0, np.nan], 0.0), "a must be finite"),
    (lambda: soft_weights([1.0, 2.0], np.nan), "c must be finite"),
    (lambda: soft_weights([1.0, 2.0], 0.0, [1.0]), r"u must be \(n,\) as a is; got \(1,\)"),
    (lambda: soft_weights([1.0, 2.0], 0.0, [1.0, 1.0], -0.1), "t must be"),
    (lambda: soft_weights([1.0, 2.0], 0.5), "c must lie between -3 and -?0, .* got 0.5"),
    (
        lambda: soft_weights([1.0, 1.0], -1.5, [-1.0, -1.0], 1.0),
        "c must lie between -1 and -?0, .* got -1.5",
    ),
    (lambda: soft_weights([0.0, 0.0], 0.1), "c must lie between -?0 and -?0, .* got 0.1"),
]


@pytest.mark.parametrize("call, words", SOFT)
def test_bad_input_to_soft_weights(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_hessian_with_two_negative_eigenvalues_is_not_taken_for_a_definite_one():
    """Its determinant is positive."""
    X = np.repeat(np.eye(2), 2, axis=0)
    found = Risk(risk.linear, lambda f, y: torch.cos(f - y), X, np.zeros(4))
    with pytest.raises(ValueError, match="positive definite at theta"):
        unlearning.membership_ratio(found, np.zeros(2), 0, 1.0)


def test_a_certified_model_begins_with_its_own_residual_and_an_endless_budget():
    start = model()
    assert start.budget == start.left == np.inf and start.removed == ()
    assert start.bound == start.residual == np.linalg.norm(start.risk.gradient(start.theta))
    assert start.third == pytest.approx(1 / (6 * np.sqrt(3)), rel=1e-15)
    X, y = data.regression(0, 12, 3)
    square = Risk(risk.linear, risk.squared, X, y, lam=0.1)
    assert Certified(square, np.zeros(3)).third == 0
    off = Certified(start.risk, start.theta + 0.1, budget=50.0)
    assert off.left == 50 - off.bound and off.bound > 0.1
    assert model(budget=0.5).left == 0.5 - start.bound
    stated = Certified(start.risk, start.theta, third=0.5, bound=2.0)
    assert (stated.third, stated.bound) == (0.5, 2.0)


def test_a_group_is_removed_in_one_step_whose_bound_is_its_own():
    start = model()
    for step in ("newton", "influence"):
        found = start.remove([4, 1], step)
        w = np.ones(20)
        w[[1, 4]] = 0
        H, slope = start.risk.hessian(start.theta, w), start.risk.gradient(start.theta, w)
        pull = slope if step == "newton" else -start.risk.gradients(start.theta)[[1, 4]].sum(0)
        move = -np.linalg.solve(H, pull)
        np.testing.assert_allclose(found.theta, start.theta + move, rtol=0, atol=1e-14)
        assert found.removed == (4, 1)
        np.testing.assert_array_equal(found.weights, w)
        rows = start.risk.X.numpy()[w > 0]
        more = np.linalg.norm(rows, 2) * np.linalg.norm((rows @ move) ** 2) / (12 * np.sqrt(3))
        before = 0.0 if step == "newton" else start.bound
        assert found.bound == pytest.approx(before + more, rel=1e-10, abs=1e-14)


def test_a_removal_that_fits_the_budget_exactly_is_made():
    bound = model().remove(3).bound
    assert model(budget=bound).remove(3).left == 0
    with pytest.raises(Exhausted, match="removal 1, of example 3, .* over the budget") as error:
        model(budget=np.nextafter(bound, 0)).remove(3)
    assert error.value.bound == bound


def test_a_residual_bound_by_hand():
    found = unlearning.residual_bound([[3, 0], [0, 4]], [1, 2], third=0.5)
    assert found == pytest.approx(4 * np.hypot(9, 64) * 0.5 / 2, rel=1e-15)
    default = unlearning.residual_bound([[3, 0], [0, 4]], [1, 2])
    assert default == pytest.approx(found / (3 * np.sqrt(3)), rel=1e-14)
    assert unlearning.residual_bound([[3, 0]], [1, 2], third=0) == 0


def test_no_shift_is_not_seen_and_a_large_epsilon_hides_it():
    assert unlearning.gaussian_delta(0.0, 1.0, 0.0) == unlearning.gaussian_delta(0.0, 1.0, 3.0) == 0
    assert unlearning.gaussian_delta(1e-200, 1.0, 1.0) == 0
    assert unlearning.gaussian_delta(1e-160, 1.0, 0.0) < 1e-16
    assert unlearning.gaussian_delta(60.0, 1.0, 0.0) == 1
    assert unlearning.gaussian_delta(2e4, 1.0, 50.0) == 1


def test_a_ratio_of_a_group_with_weights_is_that_of_the_densities():
    X, y = data.regression(0, 12, 2)
    square = Risk(risk.linear, risk.squared, X, y, lam=0.3)
    w, theta, sigma = np.linspace(0.5, 2, 12), np.array([0.3, -1.0]), 1.7
    fewer = w * (np.arange(12) % 5 != 1)

    def log_density(v):
        H, b = (X.T * v) @ X + 0.3 * np.eye(2), (X.T * v) @ (X @ theta - y) + 0.3 * theta
        return np.linalg.slogdet(H)[1] - b @ b / (2 * sigma**2)

    found = unlearning.membership_ratio(square, theta, [1, 6, 11], sigma, w)
    assert type(found) is float
    assert found == pytest.approx(log_density(w) - log_density(fewer), rel=1e-12)
    two = unlearning.membership_ratio(square, [theta, 2 * theta], [1, 6, 11], sigma, w)
    assert two.shape == (2,) and two[0] == found != two[1]


def test_shards_are_of_equal_sizes_and_by_lot():
    found = Shards.split(10, 4)
    assert sorted(map(len, found.shards)) == [2, 2, 3, 3] and found.n == 10
    assert found.shards == Shards.split(10, 4, 0).shards != Shards.split(10, 4, 1).shards
    np.testing.assert_array_equal(found.weights.sum(0), 1)
    for row, members in zip(found.weights, found.shards):
        assert members == tuple(np.flatnonzero(row)) and members == tuple(sorted(members))
    j = found.shards[2][1]
    after, which, left = found.delete(j)
    assert which == 2 and left == len(found.shards[2]) - 1 == len(after.shards[2])
    assert j not in after.shards[2] and after.n == 10
    for k in (0, 1, 3):
        assert after.shards[k] == found.shards[k]
    assert len(Shards.split(3, 3).shards) == 3
