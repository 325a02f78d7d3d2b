"""What valuation refuses, by name, and what it keeps when it is stopped."""

import io
import sys
import threading

import numpy as np
import pytest

from ifcore import data, risk, valuation
from ifcore.network import perceptron
from ifcore.risk import NotDifferentiable, NotFinite, Risk
from ifcore.runs import BadCache, NotConverged, Run
from ifcore.training import Training
from ifcore.valuation import permutation_shapley, refits, semivalues, shapley, training_influence

ALONE = Run(jobs=1, progress=False)


def first(W):
    return W[:, 0]


def uneven(W):
    """In the order of additions, so that its bits are the same for any number of coalitions."""
    return sum(W[:, j] * (j + 1) ** 0.5 for j in range(W.shape[1])) ** 2


def infinite(W):
    return np.where((W == [1, 0, 1]).all(1), np.inf, 0.0)


def changing():
    count = iter(range(10**9))
    return lambda W: np.full(len(W), float(next(count)))


def half_changing():
    count = iter(range(10**9))
    return lambda W: W.min(1) * next(count)


def sampled(value=first, n=3, permutations=5, **options):
    return permutation_shapley(value, n, permutations, **{"run": ALONE} | options)


GAMES = [
    (lambda: shapley(first, 21), ValueError, "at most 20, .* got 21, with 2,097,152 of them"),
    (lambda: shapley(first, 5_000), ValueError, r"with more than 10\^1505 of them. permutation_"),
    (lambda: semivalues(first, 25, np.eye(25)[-1]), ValueError, "33,554,432"),
    (
        lambda: shapley(first, 99),
        ValueError,
        "got 99, with 633,825,300,114,114,700,748,351,602,688",
    ),
    (lambda: shapley(first, 100), ValueError, r"got 100, with more than 10\^30 of them"),
    (lambda: semivalues(first, 0, []), ValueError, "n must be an integer at least 1"),
    (lambda: shapley(first, 0), ValueError, "n must be an integer at least 1"),
    (lambda: shapley("v", 3), TypeError, "value must be a function; got 'v'"),
    (lambda: shapley(lambda W: W, 3), ValueError, r"\(2,\) for W \(2, 3\); got shape \(2, 3\)"),
    (lambda: shapley(lambda W: 1.0, 3), ValueError, r"got shape \(\)"),
    (lambda: shapley(lambda W: ["a"] * len(W), 3), TypeError, "what value gives must be an array"),
    (lambda: shapley(lambda W: first(W) * 1j, 3), TypeError, "real numbers"),
    (lambda: shapley(infinite, 3), ValueError, "finite; got inf for the coalition of 0, 2$"),
    (lambda: shapley(lambda W: first(W) / 0, 3), ValueError, "got nan for the coalition of no poi"),
    (lambda: shapley(lambda W: np.log(2 - first(W) * 2), 3), ValueError, "-inf .* of all points"),
    (lambda: shapley(changing(), 3), ValueError, "asked twice; for the coalition of no points it "),
    (lambda: shapley(half_changing(), 3), ValueError, "twice; for the coalition of all points it"),
    (lambda: sampled(changing()), ValueError, "it gave 0, then 1"),
    (lambda: sampled(infinite, permutations=50), ValueError, "for the coalition of 0, 2\n"),
    (lambda: semivalues(first, 3, [0.5, 0.5]), ValueError, "n = 3 numbers .* got 2"),
    (lambda: semivalues(first, 3, [0.5, 0.6, 0.5]), ValueError, "with the sum 1.6"),
    (lambda: semivalues(first, 3, [0.2, 0.2, 0.2]), ValueError, "with the sum 0.6"),
    (lambda: semivalues(first, 3, [1.5, -0.5, 0]), ValueError, "the least -0.5"),
    (lambda: semivalues(first, 3, [1, np.nan, 0]), ValueError, "sizes must be finite"),
    (lambda: semivalues(first, 3, [[1, 0, 0]]), ValueError, "sizes must be a vector"),
    (lambda: sampled(n=0), ValueError, "n must be"),
    (lambda: sampled(permutations=1), ValueError, "at least 2, for an error; got 1"),
    (lambda: sampled(permutations=2.5), ValueError, "permutations must be an integer"),
    (lambda: sampled(tol=-0.1), ValueError, "tol must be a number at least 0; got -0.1"),
    (lambda: sampled(tol=np.nan), ValueError, "tol must be finite"),
    (lambda: sampled(block=0), ValueError, "block must be"),
    (lambda: sampled(seed=-1), TypeError, "seed must be an integer at least 0"),
    (lambda: sampled(run="folder"), TypeError, "run must be a Run"),
    (lambda: sampled("v"), TypeError, "value must be a function"),
]


@pytest.mark.parametrize("call, error, words", GAMES)
def test_bad_input_to_the_values_of_a_game(call, error, words):
    with np.errstate(all="ignore"), pytest.raises(error, match=words):
        call()


def test_rounding_is_no_change():
    count = iter(range(100))
    found = shapley(lambda W: first(W) + 1e-13 * next(count), 3)
    np.testing.assert_allclose(found, [1, 0, 0], rtol=0, atol=1e-11)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_change_of_a_billionth_of_the_larger_end_is_the_most_that_is_taken(which, sign):
    def game(ends, by):
        calls = iter([0.0, sign * by * 4e-9])
        return lambda W: np.array(ends) + next(calls) * (np.arange(2) == which)

    for ends in ([4.0, 1.0], [1.0, 4.0], [-4.0, -1.0], [0.0, -4.0]):
        np.testing.assert_array_equal(valuation.values.ends(game(ends, 0.99), 3), ends)
        with pytest.raises(ValueError, match="asked twice"):
            valuation.values.ends(game(ends, 1.01), 3)


def test_a_game_of_nothing_has_no_values_to_share():
    np.testing.assert_array_equal(shapley(lambda W: np.zeros(len(W)), 3), np.zeros(3))


def test_coalitions_are_asked_for_in_blocks():
    """All of them 4096 at a time, those of the orders 64 at a time, where nothing is said."""
    asked = []

    def value(W):
        asked.append(len(W))
        return W.sum(1)

    np.testing.assert_allclose(shapley(value, 13), np.ones(13), rtol=0, atol=1e-12)
    assert asked == [2, 2, 4096, 4096]
    asked.clear()
    sampled(value, 3, 130)
    assert asked == [2, 2, 64, 64, 64, 64, 2, 2]
    np.testing.assert_array_equal(sampled(uneven).values, sampled(uneven, seed=0).values)


def test_a_game_that_writes_into_its_coalitions_harms_nothing():
    def rude(W):
        out = W[:, 1].copy()
        W[:] = 0
        return out

    np.testing.assert_array_equal(shapley(rude, 3), [0, 1, 0])
    np.testing.assert_array_equal(sampled(rude).values, [0, 1, 0])


def test_integers_and_lists_are_numbers():
    np.testing.assert_array_equal(shapley(lambda W: W[:, 2].astype(int).tolist(), 3), [0, 0, 1])
    np.testing.assert_array_equal(shapley(lambda W: W[:, 0] > 0, 1), [1])
    assert sampled(n=1).evaluations == 2 and sampled(n=1, tol=0.0).truncated == 0


def test_a_long_coalition_is_cut_short():
    bad = np.arange(30) < 12
    with pytest.raises(ValueError, match=r"of 0, 1, 2, 3, 4, 5, 6, 7, … \(12 of 30\)$"):
        valuation.values.asked(lambda W: np.full(len(W), np.nan), bad[None].astype(float))


def test_the_orders_depend_neither_on_blocks_nor_on_jobs():
    whole = sampled(uneven, 9, 40, tol=0.9)
    again = sampled(uneven, 9, 40, tol=0.9, block=7)
    there = sampled(uneven, 9, 40, tol=0.9, block=7, run=Run(jobs=2, progress=False))
    for other in (again, there):
        np.testing.assert_array_equal(whole.values, other.values)
        np.testing.assert_array_equal(whole.errors, other.errors)
        assert whole[2:] == other[2:]
    assert 0 < whole.truncated < 1
    assert (sampled(uneven, 9, 40, seed=1).values != sampled(uneven, 9, 40).values).any()


def test_a_run_that_was_stopped_goes_on(interrupted, tmp_path, monkeypatch):
    options = {"block": 10, "run": ALONE._replace(folder=tmp_path / "kept")}
    truth = sampled(uneven, 6, 40, block=10)
    with monkeypatch.context():
        calls = interrupted(valuation.values, "_contributions", 3)
        with pytest.raises(KeyboardInterrupt) as stop:
            sampled(uneven, 6, 40, **options)
        assert [part is not None for part in stop.value.partial] == [True, True, False, False]
        found = sampled(uneven, 6, 40, **options)
        assert len(calls) == 3 + 2
    for part, other in zip(truth, found):
        np.testing.assert_array_equal(part, other)
    for other in ({"seed": 1}, {"tol": 0.1}, {"block": 20}):
        with pytest.raises(BadCache, match="of another configuration"):
            sampled(uneven, 6, 40, **options | other)
    with pytest.raises(BadCache, match="permutations was 40, now 41"):
        sampled(uneven, 6, 41, **options)
    with pytest.raises(BadCache, match="value was"):
        sampled(lambda W: uneven(W) + 0.0, 6, 40, **options)


def test_a_game_that_does_not_show_its_code_needs_a_name(tmp_path):
    lock = threading.Lock()

    def locked(W):
        with lock:
            return uneven(W)

    kept = ALONE._replace(folder=tmp_path)
    with pytest.raises(BadCache, match="give the run a name"):
        sampled(locked, run=kept)
    named = kept._replace(name="uneven")
    np.testing.assert_array_equal(sampled(locked, run=named).values, sampled(uneven).values)
    with pytest.raises(BadCache, match="ends was"):
        sampled(lambda W: 2 * uneven(W), run=named)


def test_a_game_of_models_is_known_by_its_data(tmp_path):
    kept = ALONE._replace(folder=tmp_path)
    game = refits(model(), model(1))
    found = sampled(game, 8, 4, run=kept)
    np.testing.assert_array_equal(sampled(game, 8, 4, run=kept).values, found.values)
    with pytest.raises(BadCache, match="value was"):
        sampled(refits(model(lam=0.6), model(1)), 8, 4, run=kept)


# games of data --------------------------------------------------------------------------------


def model(seed=0, lam=0.5):
    X, y = data.classification(seed, 8, 3)
    return Risk(risk.linear, risk.logistic, X, y, lam=lam)


def neighbours(X=((0.0,), (1.0,)), y=(0, 1), test_X=((0.2,),), test_y=(1,), K=1):
    return valuation.nearest_neighbours(X, y, test_X, test_y, K)


def wider(which):
    return Risk(risk.linear, risk.squared, np.ones((3, which)), np.ones(3))


DATA = [
    (lambda: neighbours(K=0), ValueError, "K must be an integer at least 1; got 0"),
    (lambda: neighbours(K=1.5), ValueError, "K must be"),
    (lambda: neighbours(y=(0,)), ValueError, "y must have one entry for each of the 2 rows"),
    (lambda: neighbours(y=("a", "b")), TypeError, "of strings. Encode them"),
    (lambda: neighbours(X=((np.nan,), (1.0,))), ValueError, "X must be finite"),
    (lambda: neighbours(test_X=((0.2, 1.0),)), ValueError, "test_X must have the 1 columns of X"),
    (lambda: refits("risk", model()), TypeError, "risk must be a Risk"),
    (lambda: refits("risk", None, measure=len), TypeError, "risk must be a Risk"),
    (lambda: refits(model(), None), TypeError, "test must be a Risk"),
    (lambda: refits(model(), wider(2)), ValueError, "of the same model, of d = 3; got 2"),
    (lambda: refits(model(), None, measure=3), TypeError, "measure must be a function"),
    (lambda: refits(model(lam=0.0), model())(np.zeros((1, 8))), ValueError, "lam > 0 .* empty"),
    (lambda: refits(model(lam=[1, 0, 1]), model())(np.eye(8)[:1] * 0), ValueError, "parameter 1"),
    (lambda: refits(model(), model())(np.ones((1, 7))), ValueError, r"\(8,\) or \(m, 8\)"),
    (lambda: refits(model(), model(), steps=3)(np.ones((1, 8))), TypeError, "options must be amo"),
    (lambda: shapley(refits(model(lam=0.0), model()), 8), ValueError, "lam > 0"),
]


@pytest.mark.parametrize("call, error, words", DATA)
def test_bad_input_to_games_of_data(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_bad_test_data_are_told_from_the_training_data():
    with pytest.raises(ValueError, match="test_y must have one entry for .* rows of test_X"):
        neighbours(test_y=(0, 1))


def test_a_coalition_whose_fit_does_not_end_is_named_with_what_was_reached():
    W = np.vstack([np.ones(8), np.zeros(8), np.eye(8)[3], np.eye(8)[2] + np.eye(8)[5]])
    with pytest.raises(NotConverged, match="coalition 2, is .* It is that of 3$") as error:
        game = refits(model(lam=1e-30), model(1))
        game(W)
    assert error.value.reached.theta.shape == (4, 3)
    assert list(error.value.reached.status[:2]) == ["converged", "converged"]
    assert error.value.reached.gradient_norm[1] == error.value.reached.steps[1] == 0
    assert error.value.reached.steps.dtype == int
    few = refits(model(), model(1), max_steps=1)
    with pytest.raises(NotConverged, match="coalition 0, is 'max_steps'.* of all points"):
        few(W)


def test_a_coalition_with_an_example_that_is_not_finite_is_named():
    X, y = data.regression(1, 6, 3)
    X[2] = 1e200
    game = refits(Risk(risk.linear, risk.squared, X, y, lam=0.5), wider(3), np.ones(3))
    with pytest.raises(NotConverged, match="coalition 1, is 'not finite'.* It is that of 0, 2$"):
        game(np.array([[1, 1, 0, 0, 0, 0], [1, 0, 1, 0, 0, 0.0]]))


# paths ----------------------------------------------------------------------------------------


SGD, ZERO, E = Training(10, 0.1), np.zeros(3), np.eye(8)[0]


def path(training=SGD, start=ZERO, direction=E, *more, **options):
    return training_influence(model(), training, start, direction, *more, **options)


def grows(k):
    return np.ones((1 + k, 8))


def late(k):
    return np.vstack([E, E * (k >= 10)])


PATHS = [
    (lambda: path(SGD._replace(optimiser="adam")), ValueError, "by 'sgd', .* got 'adam', for"),
    (lambda: path(SGD._replace(tol=1e-3)), ValueError, "tol = None"),
    (lambda: path(Training(10, -0.1)), ValueError, "rate must be positive"),
    (lambda: path("training"), TypeError, "training must be a Training"),
    (lambda: path(start=np.zeros(2)), ValueError, "start must have length d = 3; got 2"),
    (lambda: path(direction=np.ones(7)), ValueError, r"direction must be \(8,\) or .* got \(7,\)"),
    (lambda: path(direction=np.ones((0, 8))), ValueError, r"got \(0, 8\)"),
    (lambda: path(direction=np.ones((1, 2, 8))), ValueError, r"got \(1, 2, 8\)"),
    (lambda: path(direction=1.0), ValueError, r"direction must be \(8,\) or .* got \(\)"),
    (lambda: training_influence("risk", SGD, ZERO, E), TypeError, "risk must be a Risk"),
    (lambda: path(direction=np.full(8, np.nan)), ValueError, "direction must be finite"),
    (lambda: path(direction=grows), ValueError, r"got \(1, 8\) at step 0, and \(2, 8\) at step 1"),
    (lambda: path(direction=late), ValueError, r"0, …, 9; of 2 directions, 1 is 0 at all of them"),
    (lambda: path(direction=lambda k: None), (TypeError, ValueError), "direction must be"),
    (lambda: path(SGD, ZERO, np.ones(8), np.ones((2, 8))), ValueError, "one vector"),
    (lambda: path(SGD, ZERO, np.ones(8), -np.ones(8)), ValueError, "at least 0"),
    (lambda: path(keep=[11]), IndexError, "keep must lie in 0, …, 10; got 11"),
    (lambda: path(keep=[1, 1]), ValueError, "keep must not repeat"),
    (lambda: path(keep=[0.5]), TypeError, "keep must be"),
]


@pytest.mark.parametrize("call, error, words", PATHS)
def test_bad_input_to_a_path(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_path_of_a_loss_without_a_second_derivative_is_refused():
    X, y = data.regression(1, 6, 3)
    with pytest.warns(UserWarning, match="the loss has no second derivative"):
        once = Risk(risk.linear, lambda f, y: f * (f - y).detach(), X, y)
    with pytest.raises(NotDifferentiable, match="the loss has none"):
        training_influence(once, SGD, ZERO, np.eye(6)[0])


def test_a_path_draws_no_bar_on_a_terminal_either(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    path()
    assert terminal.getvalue() == ""


def steps_of_a_path(monkeypatch, d, training):
    """The steps that each call of `retrain` keeps."""
    kept, honest = [], valuation.paths.retrain

    def recorded(*arguments, keep, **options):
        kept.append(list(keep))
        return honest(*arguments, keep=keep, **options)

    monkeypatch.setattr(valuation.paths, "retrain", recorded)
    found = Risk(risk.linear, risk.squared, np.full((1, d), d**-0.5), np.ones(1))
    training_influence(found, training, np.zeros(d), np.ones(1))
    return kept


def test_the_states_of_a_path_are_held_some_at_a_time(monkeypatch):
    """2¹⁶ numbers of θ at a time, and one state where it alone has more."""
    kept = steps_of_a_path(monkeypatch, 2**13, Training(10, 0.1))
    assert kept == [list(range(9)), [8, 9, 10]]
    assert steps_of_a_path(monkeypatch, 2**16 + 1, Training(2, 0.1))[-2:] == [[0, 1], [1, 2]]


@pytest.mark.parametrize("m, times", [(16, 1), (17, 2)])
def test_the_directions_of_a_path_go_sixteen_at_a_time(m, times, monkeypatch):
    calls, honest = [], valuation.paths.vjp

    def counted(*arguments):
        value, back = honest(*arguments)
        return value, lambda v: calls.append(1) or back(v)

    monkeypatch.setattr(valuation.paths, "vjp", counted)
    path(Training(1, 0.1), ZERO, np.ones((m, 8)))
    assert len(calls) == 2 * times


def test_a_path_that_diverges_says_so():
    found = Risk(perceptron(0, 2, 3, 1), risk.squared, np.ones((4, 2)), np.arange(4.0))
    with pytest.raises(NotConverged, match="diverged"):
        training_influence(found, Training(300, 1e3), found.model.theta, np.eye(4)[0])


def test_an_example_that_counts_must_be_finite():
    X, y = data.regression(1, 6, 3)
    X[2] = 1e200
    found, w = Risk(risk.linear, risk.squared, X, y), np.array([1, 1, 0, 1, 1, 1.0])
    for direction in (np.eye(6)[2], lambda k: np.eye(6)[2 if k == 2 else 1]):
        with pytest.raises(NotFinite, match="example 2"):
            training_influence(found, Training(3, 0.1), np.ones(3), direction, w)
    with pytest.raises(NotFinite, match="example 2"):
        training_influence(found, Training(3, 0.1), np.ones(3), np.eye(6)[1], lambda k: w)
