"""By default, at the edges: what comes in, what a block holds, where a fit ends."""

import networks
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from ifcore import data, network, risk, training, weights
from ifcore.network import Network, perceptron
from ifcore.risk import Risk
from ifcore.runs import BadCache, Fit, Run
from ifcore.training import State, Training, retrain

ONE, LOOSE = Run(jobs=1), Run(jobs=1, strict=False)
PLAIN = {"momentum": 0.0, "nesterov": False}


def squares(n=8, lam=0.5):
    X, y = data.regression(0, n, 3, condition=2)
    return Risk(risk.linear, risk.squared, X, y, lam)


def chain(n=8):
    X, y = data.regression(0, n, 3, condition=2)
    return Risk(perceptron(0, 3, 4, 1), risk.squared, X, y / y.std(), 0.2)


def mapped(n=8):
    """Without a chain of layers."""
    X, y = data.regression(0, n, 3, condition=2)
    return Risk(lambda t, x: torch.tanh(x @ t), risk.squared, X, y / y.std(), 0.2, d=3)


def halves():
    """θ²/2: at a rate of 1/2 a step halves θ, and the gradient is θ beside θ₀."""
    return Risk(risk.linear, risk.squared, [[1.0]], [0.0])


# what comes in --------------------------------------------------------------------------------


def test_by_default_a_training_is_nesterovs_on_the_whole_data():
    problem, start = chain(), chain().model.theta
    said = Training(
        7, 0.1, momentum=0.9, nesterov=True, optimiser="sgd", batch=None, order=0, tol=None
    )
    assert Training(7, 0.1) == said
    found = retrain(problem, Training(7, 0.1), start)
    np.testing.assert_array_equal(found.theta, retrain(problem, said, start, damping=0.0).theta)
    t = torch.tensor(start, requires_grad=True)
    steps = torch.optim.SGD([t], lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(7):
        steps.zero_grad()
        (problem.tensors.value(t, torch.ones(8).double()) / 8).backward()
        steps.step()
    np.testing.assert_allclose(found.theta, t.detach(), rtol=1e-13)
    batches = Training(7, 0.1, batch=3)
    one, two = (retrain(problem, each, start) for each in (batches, batches._replace(order=0)))
    np.testing.assert_array_equal(one.theta, two.theta)


def test_every_rate_is_positive_and_a_batch_is_an_integer():
    for rate in ([0.1, 0.1, 0.0], [0.1, -0.1, 0.1]):
        with pytest.raises(ValueError, match="rate must be positive"):
            retrain(squares(), Training(3, rate), np.zeros(3))
    assert type(Training(3, 0.1, batch=4.0).checked(8).batch) is int


def test_what_is_no_risk_or_start_is_refused():
    problem, plain = squares(), Training(3, 0.1)
    for call in (lambda: retrain(3, plain, [0.0]), lambda: retrain(problem, plain, [0.0], run=3)):
        with pytest.raises(TypeError, match="must be a R"):
            call()
    for start in (np.zeros((1, 2, 3)), np.zeros((0, 3)), 0.5, np.zeros((3, 2))):
        with pytest.raises(ValueError, match="start must be"):
            retrain(problem, plain, start)
    with pytest.raises(ValueError, match="from 0 to 3; got 4"):
        retrain(problem, plain, np.zeros(3), keep=(1, 4))
    (state,) = retrain(problem, plain, np.zeros(3), keep=2).states
    assert state.step == 2


def test_weights_may_be_a_series_in_the_order_of_the_data():
    X, y = data.regression(0, 6, 2)
    problem = Risk(risk.linear, risk.squared, pd.DataFrame(X, index=list("abcdef")), y)
    w, plain = pd.Series(np.arange(6.0), index=list("abcdef")), Training(3, 0.1)
    one, two = (retrain(problem, plain, np.zeros(2), each) for each in (w, np.arange(6.0)))
    np.testing.assert_array_equal(one.theta, two.theta)
    with pytest.raises(ValueError, match="the same labels in the same order"):
        retrain(problem, plain, np.zeros(2), w[::-1])


def test_many_starts_with_one_weight_vector_are_many_fits():
    problem, starts = squares(), np.random.default_rng(0).standard_normal((3, 3))
    found = retrain(problem, Training(3, 0.1), starts, run=ONE)
    for start, theta in zip(starts, found.theta):
        np.testing.assert_array_equal(theta, retrain(problem, Training(3, 0.1), start).theta)
    one = retrain(problem, Training(3, 0.1), starts[:1], run=ONE)
    assert one.theta.shape == (1, 3) and one.steps.dtype.kind == "i"
    assert retrain(problem, Training(3, 0.1), starts[0], np.ones((1, 8))).theta.shape == (1, 3)


def test_a_state_may_have_been_stored_in_fewer_digits():
    problem, plain = chain(), Training(9, 0.1)
    (state,) = retrain(problem, plain, problem.model.theta, keep=4).states
    less = {name: getattr(state, name).astype(np.float32) for name in ("theta", "start", "moments")}
    rounded = {name: part.astype(float) for name, part in less.items()}
    one = retrain(problem, plain, state._replace(**less))
    two = retrain(problem, plain, state._replace(**rounded))
    np.testing.assert_array_equal(one.theta, two.theta)
    np.testing.assert_array_equal(one.gradient_norm, two.gradient_norm)


@pytest.mark.parametrize("make", [chain, mapped])
@pytest.mark.parametrize("steps", [1, 4])
def test_weights_are_asked_for_at_the_steps_there_are_and_may_all_be_0(make, steps):
    problem = make()
    start = np.full(problem.d, 0.3)
    table = {k: np.full(8, float(k)) for k in range(steps)}  # 0 at first
    found = retrain(problem, Training(steps, 0.1, **PLAIN), start, lambda k: table[k])
    truth = start.copy()
    for k in range(steps):
        truth = truth - 0.1 / 8 * problem.gradient(truth, table[k] if k else np.full(8, 1e-300))
    np.testing.assert_allclose(found.theta, truth, rtol=1e-12)
    size = np.linalg.norm(problem.lam * start)
    slope = np.linalg.norm(problem.gradient(found.theta, np.maximum(table[steps - 1], 1e-300)))
    assert found.gradient_norm == pytest.approx(slope / size, rel=1e-10)


def test_a_gradient_without_a_scale_is_told_as_it_is():
    """Its weights are all 0 at first; and where it starts at a minimum, it stays."""
    problem, later = squares(lam=0.0), np.ones(8)
    found = retrain(problem, Training(3, 0.1), np.ones(3), lambda k: later * (k > 0))
    slope = np.linalg.norm(problem.gradient(found.theta))
    assert found.gradient_norm == pytest.approx(slope, rel=1e-12)
    X = data.regression(0, 8, 3)[0]
    met = Risk(risk.linear, risk.squared, X, np.zeros(8))
    found = retrain(met, Training(3, 0.1), np.zeros(3))
    assert found.status == "trained" and found.gradient_norm == 0


@pytest.mark.parametrize("power", [-40, -8, 8])
def test_units_of_the_loss_do_not_matter_to_the_gradient_norm(power):
    problem, plain = squares(lam=0.0), Training(12, 0.1)
    one = retrain(problem, plain, np.ones(3))
    two = retrain(
        problem, plain._replace(rate=0.1 / 2.0**power), np.ones(3), np.full(8, 2.0**power)
    )
    np.testing.assert_allclose(two.theta, one.theta, rtol=1e-13)
    assert two.gradient_norm == pytest.approx(one.gradient_norm, rel=1e-12)


def test_the_norms_of_rows_do_not_depend_on_their_units():
    G = np.array([[-3.0, -4.0, -12.0], [0.0, -6.0, 8.0], [0.0, 0.0, 0.0]])
    for unit in (1e-300, 1.0, 1e300):
        np.testing.assert_allclose(training._norms(unit * G), unit * np.array([13.0, 10, 0]))


def test_rates_that_differ_at_one_of_many_steps_are_told_apart(tmp_path):
    problem, rates = squares(), np.full(3000, 1e-3)
    other = rates.copy()
    other[1500] = 2e-3  # where NumPy writes …
    run = Run(tmp_path, jobs=1, progress=False)
    retrain(problem, Training(3000, rates, **PLAIN), np.zeros(3), run=run)
    with pytest.raises(BadCache, match="rate was"):
        retrain(problem, Training(3000, other, **PLAIN), np.zeros(3), run=run)
    one, same, another = (Training(3000, r).checked(8).plain() for r in (rates, 1 * rates, other))
    assert one == same != another and hash(one) == hash(same)


# examples that are not finite -----------------------------------------------------------------


def test_one_example_that_is_not_finite_is_enough_where_it_counts():
    problem = networks.logarithms(7, [2, 4], 0.1)
    W = np.ones((4, 7))
    W[0, 2], W[1, 4], W[2, [2, 4]], W[3, [2, 4]] = 0, 0, 0, 0
    W[2, 0] = 0.5
    plain, given = Training(5, 0.3, **PLAIN), W.copy()
    starts = np.array([[0.1, 0.0], [0.0, 0.1], [0.2, 0.0], [0.0, 2.0]])  # the last: all finite
    others = problem.subset([0, 1, 3, 5, 6])
    for start in (np.zeros(2), starts):
        found = retrain(problem, plain, start, W, run=LOOSE)
        assert list(found.status) == ["diverged", "diverged", "trained", "trained"]
        assert list(found.steps) == [0, 0, 5, 5] and found.steps.dtype.kind == "i"
        assert np.isnan(found.theta[:2]).all()
        for i in (2, 3):
            truth = (start if start.ndim == 1 else start[i]).copy()
            for _ in range(5):
                truth = truth - 0.3 / 7 * others.gradient(truth, W[i, [0, 1, 3, 5, 6]])
            np.testing.assert_allclose(found.theta[i], truth, rtol=1e-12)
    np.testing.assert_array_equal(W, given)
    lost = retrain(problem.subset([2, 4]), plain, np.zeros(2), run=LOOSE)
    assert lost.status == "diverged" and lost.steps == 0


def test_each_start_says_which_examples_are_not_finite():
    problem = risk.Risk(
        lambda t, x: torch.log(x @ t), risk.squared, [[1.0, 0], [0, 1.0], [1, 1]], np.zeros(3), d=2
    )
    plain, W = Training(4, 0.1, **PLAIN), np.array([[1.0, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 0]])
    starts = np.array([[2.0, 1.0], [2.0, -1.0], [3.0, -1.0], [1.0, 2.0]])
    found = retrain(problem, plain, starts, W, run=LOOSE)
    # the second does not use its bad example, but the others do; to the third it counts
    assert list(found.status) == ["trained", "diverged", "diverged", "trained"]
    for i in (0, 3):
        alone = retrain(problem, plain, starts[i], W[i], run=LOOSE)
        np.testing.assert_allclose(found.theta[i], alone.theta, rtol=1e-13)
    alone = retrain(problem, plain, starts[1:2], W[1:2], run=LOOSE)
    assert list(alone.status) == ["trained"]
    both = retrain(problem, plain, starts[1:3], W[1:3], run=LOOSE)
    np.testing.assert_array_equal(both.theta[0], alone.theta[0])
    assert list(both.status) == ["trained", "diverged"]


@pytest.mark.parametrize("model", [risk.linear, lambda t, x: x @ t])
def test_a_gradient_lost_in_one_entry_is_lost(model):
    """λθ of the second parameter overflows at a step of its own, the loss sees the first alone."""
    problem = Risk(model, risk.squared, np.array([[1.0, 0.0]]), [1.0], [0.0, 1e200])
    starts = np.array([[0.5, 0.0], [0.5, 1e107], [0.5, 0.0]])
    found = retrain(problem, Training(6, 0.1, **PLAIN), starts, run=LOOSE)
    assert list(found.status) == ["trained", "diverged", "trained"]
    assert list(found.steps) == [6, 1, 6] and np.isnan(found.theta[1]).all()


# where a fit ends -----------------------------------------------------------------------------


def test_a_gradient_of_the_tolerance_itself_is_small_enough():
    """θ = 2⁻ᵏ after k steps: it meets 2⁻¹⁰ at the tenth, when it is looked at, or at the end."""
    problem = halves()
    fit = Training(40, 0.5, tol=2.0**-10, **PLAIN)
    found = retrain(problem, fit, [1.0], keep=15)
    assert (found.status, found.steps, found.theta) == ("converged", 10, 2.0**-10)
    ended = retrain(problem, fit._replace(steps=10), [1.0])
    assert (ended.status, ended.steps, ended.gradient_norm) == ("converged", 10, 2.0**-10)
    again = retrain(problem, fit, found.states[0])
    assert (again.status, again.steps, again.theta) == ("converged", 10, 2.0**-10)
    tight = fit._replace(tol=2.0**-11)
    further = retrain(problem, tight, found.states[0], keep=17)
    assert (further.status, further.steps) == ("converged", 20)  # looked at after five more
    (state,) = further.states
    assert (state.status, state.steps, state.theta) == ("running", 0, 2.0**-12)


def test_of_fits_that_are_continued_those_that_met_another_tolerance_go_on():
    problem = squares()
    W = np.array([1.0, 100.0])[:, None] * np.ones(8)
    loose = Training(1000, 0.01, tol=1e-2)
    (state,) = retrain(problem, loose, np.zeros(3), W, keep=30, run=ONE).states
    assert sorted(state.status) == ["converged", "running"]
    met = state.status == "converged"
    assert (state.moments[met] == 0).all() and (state.moments[~met] != 0).any()
    assert (state.steps[~met] == 0).all() and (state.steps[met] > 0).all()
    found = retrain(problem, loose._replace(tol=1e-6), state, W, run=ONE)
    assert (found.gradient_norm <= 1e-6).all()


def test_the_gradient_norm_is_at_the_theta_that_is_given():
    """Of fits that ended at different steps, and of one that had its steps."""
    problem = squares()
    W = np.array([1.0, 30.0, 0.01])[:, None] * np.linspace(1, 2, 8)
    found = retrain(problem, Training(60, 0.02, tol=1e-2), np.full(3, 2.0), W, run=LOOSE)
    assert len(set(found.steps)) == 3 or len(set(found.status)) == 2
    for theta, norm, w in zip(found.theta, found.gradient_norm, W):
        size = w @ np.linalg.norm(problem.gradients(np.full(3, 2.0)), axis=1)
        size += np.linalg.norm(problem.lam * np.full(3, 2.0))
        assert norm == pytest.approx(np.linalg.norm(problem.gradient(theta, w)) / size, rel=1e-10)


def test_how_far_a_fit_may_go_is_counted_from_its_own_start_and_its_first_step():
    """(1 + a) − 1 = a grows by −2 a step; allowed are 10⁶ (1 + (1 + a) + 3 a), at any a."""
    problem = Risk(risk.linear, risk.squared, np.ones((2, 1)), np.ones(2))
    starts = np.array([[7.0], [13.0], [7.0], [1e5]])
    for rates in (np.full(22, 3.0), np.append(np.full(22, 3.0), 1e-12)):
        steps = len(rates)
        found = retrain(problem, Training(steps, rates, **PLAIN), starts, run=LOOSE)
        assert list(found.status) == ["trained", "diverged", "trained", "diverged"]
        assert list(found.steps) == [steps] * 4
        moved = np.abs(found.theta - starts)[:, 0]
        bound = 1e6 * (1 + starts + 3 * (starts - 1))[:, 0]
        assert list(moved <= bound) == [True, False, True, False]


# blocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [None, 50])
def test_a_block_of_a_chain_is_what_the_caches_hold(batch):
    """The activations, their gradients and slopes; with one fit more they are too large."""
    problem = Risk(perceptron(0, 3, 40, 1), risk.squared, *data.regression(0, 120, 3))
    size = training._block(problem, Training(3, 0.1, batch=batch))

    def held(m):
        engine = problem.side_by_side(problem.chain(), np.ones((m, 120)), batch or 120)
        parts = engine.values, engine.deltas, engine.slopes
        return sum(array.nbytes for part in parts for array in part)

    assert size > 5 and held(size) <= training.CACHE < held(size + 1)
    large = Risk(risk.linear, risk.squared, np.ones((2**17, 1)), np.ones(2**17))
    assert training._block(large, Training(3, 0.1)) == 1
    assert isinstance(training._engine(problem, np.ones((2, 120)), 120), network.SideBySide)


@pytest.mark.parametrize("make, widths", [(chain, [3, 2]), (mapped, [3, 3])])
def test_blocks_are_of_one_size_where_bits_depend_on_it_and_of_one_order(make, widths, monkeypatch):
    problem, met = make(), []
    starts = np.random.default_rng(0).standard_normal((5, problem.d)) / 3
    train, plain = training._train, Training(4, 0.1)

    def told(*block):
        met.append(len(block[3]))
        return train(*block)

    monkeypatch.setattr(training, "_train", told)
    call = {"block": 3, "run": ONE, "keep": (2,)}
    whole = retrain(problem, plain, starts, **call)
    assert met == widths and whole.theta.shape == (5, problem.d)
    assert whole.states[0].theta.shape == (5, problem.d)
    met.clear()
    orders = retrain(problem, plain, starts, order=[1, 1, 2, 2, 3], **call)
    assert met == widths  # nothing is drawn
    np.testing.assert_array_equal(orders.theta, whole.theta)
    for i, start in enumerate(starts):
        single = retrain(problem, plain, start, block=3)
        np.testing.assert_allclose(whole.theta[i], single.theta, rtol=1e-12)
    met.clear()
    retrain(problem, plain._replace(batch=4), starts, order=[1, 1, 2, 2, 3], **call)
    assert met == ([2, 2, 1] if make is chain else [3, 3, 3])


@pytest.mark.parametrize("make", [chain, mapped])
def test_a_block_leaves_what_it_was_given(make):
    """Another process may have it, or another block."""
    problem = make()
    theta = np.random.default_rng(0).standard_normal((2, problem.d)) / 3
    status = np.full(2, "running", "U10")
    parts = theta, np.ones((2, 1, problem.d)), theta.copy(), np.zeros(2, int), status
    W = np.array([np.ones(8), np.full(8, 1e200)])
    state, given = State(0, *parts), [part.copy() for part in (*parts, W)]
    found = training._train(problem, Training(20, 0.1), state, W, 0.1, (3,))
    assert list(found["status"]) == ["trained", "diverged"]
    for part, before in zip((*parts, W), given):
        np.testing.assert_array_equal(part, before)


def test_what_interrupts_a_training_carries_the_blocks_that_are_done(interrupted):
    problem, starts = chain(), np.array([chain().model.initial(seed) for seed in range(5)])
    whole = retrain(problem, Training(4, 0.1), starts, run=ONE)
    interrupted(training, "_train", 3)
    with pytest.raises(KeyboardInterrupt) as caught:
        retrain(problem, Training(4, 0.1), starts, block=2, run=ONE)
    first, second, third = caught.value.partial
    assert isinstance(first, Fit) and third is None
    for part, rows in ((first, slice(0, 2)), (second, slice(2, 4))):
        np.testing.assert_array_equal(part.theta, whole.theta[rows])
        assert part.status.shape == (2,)
    with pytest.raises(ValueError, match="steps must"):
        retrain(problem, Training(0, 0.1), starts)


def test_a_folder_knows_the_rate_of_every_step(tmp_path):
    problem, rates = squares(), np.full(3000, 1e-3)
    run = Run(tmp_path, 1, progress=False)
    one = retrain(problem, Training(3000, rates), np.zeros(3), run=run)
    np.testing.assert_array_equal(
        retrain(problem, Training(3000, list(rates)), np.zeros(3), run=run).theta, one.theta
    )
    rates[1500] = 1.1e-3
    with pytest.raises(BadCache, match="rate was"):
        retrain(problem, Training(3000, rates), np.zeros(3), run=run)


def test_a_convolution_and_a_chain_are_told_apart():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv1d(1, 2, 2), nn.Flatten(), nn.Linear(4, 1))
    X, y = data.regression(0, 8, 3)
    problem = Risk(Network(module), risk.squared, X[:, None], y)
    assert training._block(problem, Training(3, 0.1)) == 8
    moved = weights.stepwise(8, 1, weights.step(0.15), 0.1)
    found = retrain(problem, Training(3, 0.01, batch=3, **PLAIN), problem.model.theta, moved)
    truth = problem.model.theta
    for k in range(3):
        rows = Training(3, 0.01, batch=3).rows(8, k)
        slope = problem.subset(rows).gradient(truth, moved(k)[rows])
        truth = truth - 0.01 * slope / len(rows)
    np.testing.assert_allclose(found.theta, truth, rtol=1e-12)
