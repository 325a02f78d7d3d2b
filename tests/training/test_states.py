"""A training that goes on from a state is the one that did not stop, bit for bit; w(t)."""

import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

from ifcore import data, flow, risk, weights
from ifcore.network import Network, perceptron
from ifcore.response import minimise
from ifcore.risk import Risk
from ifcore.runs import BadCache, NotConverged, Run
from ifcore.training import State, Training, retrain

ONE = Run(jobs=1, progress=False)


def chain(n=20):
    X, y = data.regression(0, n, 3, condition=2)
    return Risk(perceptron(0, 3, 5, 1), risk.squared, X, y / y.std(), lam=0.2)


def convolution(n=20):
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))
    images, classes = rng.standard_normal((n, 1, 4, 4)), rng.integers(0, 3, n)
    return Risk(Network(module), risk.cross_entropy, images, classes, lam=0.1)


TRAININGS = {
    "plain": Training(14, 0.1, momentum=0.0, nesterov=False),
    "heavy ball": Training(14, 0.1, nesterov=False),
    "nesterov": Training(14, 0.1),
    "rates": Training(14, np.linspace(0.2, 0.01, 14)),
    "adam": Training(14, 0.01, optimiser="adam"),
    "batches": Training(14, 0.05, batch=6, order=3),
    "adam in batches": Training(14, 0.01, optimiser="adam", batch=7, order=1),
}
W = np.vstack([np.ones(20), 1 - np.eye(20)[:2], np.linspace(0, 1, 20)])


@pytest.mark.parametrize("make", [chain, convolution])
@pytest.mark.parametrize("training", TRAININGS.values(), ids=TRAININGS)
def test_from_every_step_a_training_goes_on_bit_for_bit(make, training):
    problem = make()
    start, steps = problem.model.initial(2), range(training.steps + 1)
    whole = retrain(problem, training, start, W, damping=0.3, keep=steps, run=ONE)
    assert [state.step for state in whole.states] == list(steps)
    np.testing.assert_array_equal(whole.states[0].theta, np.tile(start, (4, 1)))
    np.testing.assert_array_equal(whole.states[-1].theta, whole.theta)
    for state in whole.states:
        again = retrain(problem, training, state, W, damping=0.3, run=ONE)
        for name in ("theta", "gradient_norm", "steps", "status"):
            np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))


def test_small_fits_are_trained_in_one_block_unless_told_otherwise(tmp_path):
    problem, training = chain(), Training(3, 0.1)
    for block, count in ((None, 1), (3, 2)):
        folder = tmp_path / f"{block}"
        retrain(problem, training, problem.model.theta, W, block=block, run=Run(folder, 1))
        assert len(list(folder.glob("block-*.npz"))) == count


def test_a_single_fit_has_states_of_its_own_which_go_on_too():
    problem, training = chain(), Training(30, 0.05, batch=7)
    whole = retrain(problem, training, problem.model.theta, keep=(11,), run=ONE)
    (state,) = whole.states
    assert state.theta.shape == (problem.d,) and state.moments.shape == (1, problem.d)
    np.testing.assert_array_equal(retrain(problem, training, state).theta, whole.theta)
    shorter = retrain(problem, training._replace(steps=11), problem.model.theta).theta
    np.testing.assert_array_equal(state.theta, shorter)


def test_a_state_can_be_trained_further_than_its_own_training_went():
    problem, long = chain(), Training(40, 0.05, optimiser="adam")
    short = retrain(problem, long._replace(steps=15), problem.model.theta, keep=(15,), run=ONE)
    further = retrain(problem, long, short.states[0], run=ONE)
    np.testing.assert_array_equal(further.theta, retrain(problem, long, problem.model.theta).theta)
    assert further.steps == 40


@pytest.mark.parametrize("step", [0, 1, 20, 33, 90, 200])
def test_fits_that_have_met_their_tolerance_stay_where_they_are(step):
    X, y = data.regression(0, 20, 3, condition=2)
    problem, training = Risk(risk.linear, risk.squared, X, y, 0.5), Training(200, 0.1, tol=1e-6)
    rows = np.vstack([np.ones(20), 3 * np.ones(20), 1 - np.eye(20)[0]])
    whole = retrain(problem, training, np.zeros(3), rows, keep=(step,), run=ONE)
    assert len(set(whole.steps)) > 1 and (whole.status == "converged").all()
    again = retrain(problem, training, whole.states[0], rows, keep=(200,), run=ONE)
    for name in ("theta", "gradient_norm", "steps", "status"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
    longer = retrain(problem, training, np.zeros(3), rows, keep=(200,), run=ONE)
    for one, two in zip(again.states[0], longer.states[0]):
        np.testing.assert_array_equal(one, two)


def test_blocks_and_a_folder_keep_the_states_too(tmp_path):
    problem, training = chain(), Training(20, 0.05, batch=6)
    call = (problem, training, problem.model.theta, W)
    whole = retrain(*call, keep=(3, 20), run=ONE)
    parts = retrain(*call, keep=(3, 20), block=1, run=Run(tmp_path, jobs=2, progress=False))
    read = retrain(*call, keep=(3, 20), block=1, run=Run(tmp_path, jobs=1, progress=False))
    for other in (parts, read):
        for one, two in zip(whole.states, other.states):
            for a, b in zip(one, two):
                np.testing.assert_array_equal(a, b)


def test_a_fit_that_has_diverged_before_the_state_does_not_come_back():
    problem, training = chain(), Training(30, 0.05)
    rows = np.vstack([np.ones(20), 1e200 * np.ones(20)])
    loose = ONE._replace(strict=False)
    whole = retrain(problem, training, problem.model.theta, rows, keep=(20,), run=loose)
    assert list(whole.status) == ["trained", "diverged"] and whole.steps[1] < 20
    again = retrain(problem, training, whole.states[0], rows, run=loose)
    np.testing.assert_array_equal(again.theta, whole.theta)
    np.testing.assert_array_equal(again.steps, whole.steps)
    with pytest.raises(NotConverged, match="fit 1, is 'diverged'") as caught:
        retrain(problem, training, whole.states[0], rows, run=ONE)
    np.testing.assert_array_equal(caught.value.reached.theta[0], whole.theta[0])


@pytest.mark.parametrize("make", [chain, convolution])
@pytest.mark.parametrize("batch", [None, 6])
def test_weights_that_change_are_trainings_one_after_the_other(make, batch):
    """w(t) with a jump at step 9: from the state there, the training with the later weights."""
    problem, training = make(), Training(20, 0.05, batch=batch)
    start, later = problem.model.initial(1), W[[1, 2, 3, 0]]
    found = retrain(problem, training, start, lambda k: W if k < 9 else later, run=ONE)
    first = retrain(problem, training._replace(steps=9), start, W, keep=(9,), run=ONE)
    second = retrain(problem, training, first.states[0], later, run=ONE)
    np.testing.assert_array_equal(found.theta, second.theta)
    same = retrain(problem, training, start, lambda _: W, run=ONE)
    np.testing.assert_array_equal(same.theta, retrain(problem, training, start, W, run=ONE).theta)


def test_small_steps_under_a_schedule_come_near_its_flow():
    """Gradient descent with ε(t), against the exact flow: the error falls with the step."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((6, 2)), rng.standard_normal(6)
    problem, theta0, T = Risk(risk.linear, risk.squared, X, y), rng.standard_normal(2), 0.8
    plans = [weights.step(0.3), weights.linear(0.2, 0.7)]
    truth = flow.scheduled(X, y, 1, plans, T)(theta0)
    errors = []
    for steps in (400, 800, 1600):
        dt = T / steps
        plain = Training(steps, 6 * dt, momentum=0.0, nesterov=False)
        moving = weights.stepwise(6, 1, plans, dt)
        found = retrain(problem, plain, theta0, moving, run=ONE).theta
        errors.append(np.abs(found - truth).max())
    ratios = np.divide(errors[:-1], errors[1:])
    assert (ratios > 1.9).all() and (ratios < 2.1).all() and errors[-1] < 1e-3


def test_a_switch_between_two_steps_is_between_them():
    w = weights.stepwise(4, 2, weights.step(3 * 0.1), 0.1)
    assert [w(k)[2] for k in range(5)] == [1, 1, 1, 0, 0] and w(0).shape == (4,)
    many = weights.stepwise(4, 2, [weights.step(0.1), weights.step(0.2)], 0.1)
    np.testing.assert_array_equal(many(1), [[1, 1, 0, 1], [1, 1, 1, 1]])


def test_what_met_another_tolerance_or_had_other_weights_goes_on():
    X, y = data.regression(0, 20, 3, condition=2)
    problem = Risk(risk.linear, risk.squared, X, y, 0.5)
    loose = Training(500, 0.1, tol=1e-2)
    (met,) = retrain(problem, loose, np.zeros(3), keep=(500,), run=ONE).states
    assert met.status == "converged"
    same = retrain(problem, loose, met, run=ONE)
    np.testing.assert_array_equal(same.theta, met.theta)
    table = [np.ones(20)] * 500
    at_the_end = loose._replace(tol=None)
    kept = retrain(problem, at_the_end, met, lambda k: table[k], run=ONE).theta
    np.testing.assert_array_equal(kept, met.theta)  # no step is left, and none is asked for
    for weights_, tight in ((None, 1e-8), (weights.without(20, 3), 1e-2), (None, None)):
        training = loose._replace(steps=3000, tol=tight)
        found = retrain(problem, training, met, weights_, run=ONE)
        truth = minimise(problem, weights=weights_).theta
        scale = np.linalg.norm(truth) * (1e-6 if tight == 1e-8 else 1e-2)
        assert np.linalg.norm(found.theta - truth) < scale
        assert tight is None or found.gradient_norm <= tight


def test_weights_of_more_fits_at_a_later_step_are_refused():
    problem, training = chain(), Training(10, 0.05)
    with pytest.raises(ValueError, match="got 1 at step 0, and 4 at step 3"):
        retrain(problem, training, problem.model.theta, lambda k: W if k == 3 else W[0], run=ONE)


def test_the_weights_of_all_steps_are_never_held_at_once(tmp_path):
    X, y = data.regression(0, 300, 3)
    problem, steps = Risk(risk.linear, risk.squared, X, y), 200
    rows = np.ones((50, 300))
    tracemalloc.start()
    training = Training(steps, 1e-3, momentum=0.0, nesterov=False)
    retrain(problem, training, np.zeros(3), lambda k: rows + k, run=Run(tmp_path, 1, False))
    assert tracemalloc.get_traced_memory()[1] < 0.2 * steps * rows.nbytes
    tracemalloc.stop()


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda p, t, s: retrain(p, t, s, keep=(11,)), ValueError, "steps from 0 to 10; got 11"),
        (lambda p, t, s: retrain(p, t, s, keep=(2.5,)), ValueError, "from 0 to 10; got 2.5"),
        (
            lambda p, t, s: retrain(p, t._replace(optimiser="adam"), state(p, t, s)),
            ValueError,
            r"moments \(1, 2, 26\) after at most 10 steps; got \(1, 1, 26\) after 4",
        ),
        (
            lambda p, t, s: retrain(p, t._replace(steps=3), state(p, t, s)),
            ValueError,
            "after at most 3 steps; got .* after 4",
        ),
        (lambda p, t, s: retrain(p, t, state(p, t, s), keep=(3,)), ValueError, "from 4 to 10"),
        (lambda p, t, s: retrain(p, t, s, lambda k: -W), ValueError, "weights must be at least 0"),
        (lambda p, t, s: retrain(p, t, s, lambda k: W[:, :3]), ValueError, "must have shape"),
        (
            lambda p, t, s: retrain(p, t._replace(tol=1e-3), s, lambda k: W),
            ValueError,
            "tol needs weights that stay",
        ),
        (
            lambda p, t, s: weights.stepwise(4, 2, weights.step(1.0), 0.0),
            ValueError,
            "dt must be positive; got 0.0",
        ),
    ],
)
def test_bad_input_is_refused(call, error, words):
    problem, training = chain(), Training(10, 0.05)
    with pytest.raises(error, match=words):
        call(problem, training, problem.model.theta)


def state(problem, training, start):
    found = retrain(problem, training, start, keep=(4,), run=ONE)
    assert isinstance(found.states[0], State)
    return found.states[0]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"theta": np.zeros((1, 25))}, r"theta, start \(1, 26\) and steps \(1,\); got"),
        ({"start": np.zeros((2, 26))}, r"theta, start \(1, 26\) and steps \(1,\); got"),
        ({"steps": np.zeros(2, int)}, r"theta, start \(1, 26\) and steps \(1,\); got"),
        ({"steps": np.zeros(1)}, r"theta, start \(1, 26\) and steps \(1,\); got"),
        ({"status": np.array(["trained"])}, "statuses must be of .*; got {'trained'}"),
        ({"theta": np.full((1, 26), np.nan)}, "the theta of a State must be finite"),
        ({"moments": np.full((1, 1, 26), np.inf)}, "the moments of a State must be finite"),
        ({"start": np.full((1, 26), np.nan)}, "the start of a State must be finite"),
    ],
)
def test_a_state_that_is_none_is_refused(change, words):
    problem, training = chain(), Training(10, 0.05)
    kept = retrain(problem, training, problem.model.theta[None], keep=(4,), run=ONE).states[0]
    assert kept.theta.shape == (1, 26)
    with pytest.raises(ValueError, match=words):
        retrain(problem, training, kept._replace(**change))
    lost = kept._replace(theta=np.full((1, 26), np.nan), status=np.array(["diverged"]))
    again = retrain(problem, training, lost, run=ONE._replace(strict=False))
    assert list(again.status) == ["diverged"] and np.isnan(again.theta).all()


def test_states_are_joined_at_one_step_only():
    problem, training = chain(), Training(10, 0.05)
    whole = retrain(problem, training, problem.model.theta, W, keep=(4, 5), run=ONE)
    four, five = whole.states
    again = State.joined([four.fits(slice(0, 1)), four.fits([1, 2, 3])])
    for one, two in zip(again, four):
        np.testing.assert_array_equal(one, two)
    for wrong in ([four, five], []):
        with pytest.raises(ValueError, match="states must be one at least, after the same step"):
            State.joined(wrong)


@pytest.mark.parametrize("keep", [True, [[1]], np.nan, -1])
def test_what_is_no_step_is_not_kept(keep):
    problem = chain()
    with pytest.raises(ValueError, match="keep must "):
        retrain(problem, Training(10, 0.05), problem.model.theta, keep=keep)


def test_a_function_that_gives_no_weights_is_refused():
    problem = chain()
    with pytest.raises(TypeError, match="a function that returns weights; got None at 2"):
        retrain(problem, Training(3, 0.05), problem.model.theta, lambda k: None if k == 2 else W[0])


def test_what_a_folder_keeps_is_that_of_the_same_call_alone(tmp_path):
    problem, training = chain(), Training(4, 0.05, batch=6)

    def call(start=problem.model.theta, weights=W, last=1.0, **options):
        options = {"damping": 0.0, "keep": (2,), "block": 2, "order": [0, 0, 1, 1]} | options
        table = [weights, weights, weights, last * weights]
        return retrain(
            problem, training, start, lambda k: table[k], run=Run(tmp_path, 1, False), **options
        )

    whole = call().theta
    for change, name in (
        ({"start": problem.model.theta + 1e-9}, "fits"),
        ({"last": 1 + 1e-12}, "fits"),
        ({"keep": (3,)}, "fits"),
        ({"order": [0, 0, 1, 2]}, "fits"),
        ({"damping": 1e-12}, "damping"),
        ({"block": 4}, "block"),
    ):
        with pytest.raises(BadCache, match=f"another configuration: {name} was"):
            call(**change)
    np.testing.assert_array_equal(call().theta, whole)
