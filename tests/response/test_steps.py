"""Step by step: blocks, the line search, the trust region, and where a fit ends."""

import networks
import numpy as np
import pandas as pd
import pytest
import torch

from ifcore import data, response, risk, solvers
from ifcore.response import leave_one_out, minimise
from ifcore.risk import NotDifferentiable, NotFinite, Risk
from ifcore.runs import BadCache, NotConverged, Run
from ifcore.solvers import NotPositiveDefinite

METHODS = ["newton", "newton-cg"]


def logistic(seed=0, n=25, lam=0.5):
    return Risk(risk.linear, risk.logistic, *data.classification(seed, n, 3), lam)


def level(f, y):
    """A loss whose terms are the same everywhere: y + f, with slope 1."""
    return y + f


def one_sided():
    """The last four are of one class: along the second column the risk falls for ever."""
    X = np.column_stack([np.ones(10), np.repeat([0.0, 1.0], [6, 4])])
    return Risk(risk.linear, risk.logistic, X, [0, 1, 0, 1, 1, 0, 1, 1, 1, 1])


# what comes in --------------------------------------------------------------------------------


def test_what_cannot_be_minimised_is_refused():
    with pytest.raises(TypeError, match="risk must be a Risk"):
        minimise(3)
    with pytest.warns(UserWarning, match="no second derivative"):
        once = Risk(risk.linear, lambda f, y: networks.Once.apply(f - y), [[1.0]], [2.0])
    with pytest.raises(NotDifferentiable):
        minimise(once)
    for wrong in ({"tol": -1.0}, {"max_steps": 0}, {"block": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
            minimise(logistic(), method="newton-cg", **wrong)


@pytest.mark.parametrize("method", METHODS)
def test_weights_and_starts_come_as_series_and_lists(method):
    X, y = data.classification(0, 6, 2)
    rows = pd.DataFrame(X, index=list("abcdef"))
    problem = Risk(risk.linear, risk.logistic, rows, y, 0.5)
    w = pd.Series(np.arange(6.0), index=list("abcdef"))
    one = minimise(problem, [1, 0], w, method=method)
    two = minimise(problem, np.array([1.0, 0.0]), np.arange(6.0), method=method)
    np.testing.assert_array_equal(one.theta, two.theta)
    assert one.steps.dtype.kind == "i"
    with pytest.raises(ValueError, match="the same labels in the same order"):
        minimise(problem, weights=w[::-1], method=method)


# fits with examples that are not finite -------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_one_example_that_is_not_finite_is_enough_where_it_counts(method):
    problem, W = networks.logarithms(8, [3, 5], 0.5), np.ones((4, 8))
    W[0, 3], W[1, 5], W[2, [3, 5]], W[3, [3, 5]] = 0, 0, 0, 0
    W[3, 0] = 0.5
    starts = np.array([[0.1, 0.0], [0.0, 0.1], [0.2, 0.0], [0.0, 0.0]])
    others = problem.subset([0, 1, 2, 4, 6, 7])
    for start in (np.zeros(2), starts):
        found = minimise(problem, start, W, method=method, strict=False)
        assert list(found.status) == ["not finite", "not finite", "converged", "converged"]
        assert np.isnan(found.theta[:2]).all() and np.isnan(found.gradient_norm[:2]).all()
        assert list(found.steps[:2]) == [0, 0] and found.steps.dtype.kind == "i"
        kept = start if start.ndim == 1 else start[2:]
        alone = minimise(others, kept, W[2:][:, [0, 1, 2, 4, 6, 7]], method=method)
        np.testing.assert_allclose(found.theta[2:], alone.theta, rtol=1e-8)
        if method == "newton-cg":
            assert (found.curvature[2:] > 0).all() and np.isnan(found.curvature[:2]).all()


@pytest.mark.parametrize("method", METHODS)
def test_each_start_says_which_examples_are_not_finite(method):
    def loss(output, y):  # convex where f > 0, and NaN elsewhere
        return output - torch.log(output)

    problem = Risk(risk.linear, loss, [[1.0, 0], [0, 1], [1, 1]], np.zeros(3), lam=0.1)
    W = np.array([[1.0, 1, 1], [1, 1, 1], [1, 0, 1], [1, 1, 0]])
    starts = np.array([[1.0, 0.5], [1.0, -0.5], [1.0, -0.5], [0.5, 1.0]])
    with pytest.raises(NotFinite, match="example 1 .* in weight vector 1") as error:
        minimise(problem, starts, W, method=method)
    assert list(error.value.examples) == [1]
    with pytest.raises(NotFinite):
        minimise(problem, starts[1:2], W[:1], method=method)
    found = minimise(problem, starts, W, method=method, strict=False)
    assert list(found.status) == ["converged", "not finite", "converged", "converged"]
    for i in (0, 2, 3):
        alone = minimise(problem, starts[i], W[i], method=method)
        np.testing.assert_allclose(found.theta[i], alone.theta, rtol=1e-8)


def test_sums_that_overflow_are_not_finite_and_take_no_other_fit_away():
    problem = logistic(lam=0.0)
    W = np.ones((4, 25)) * np.array([1.0, 1e308, 2.0, 1e308])[:, None]
    found = minimise(problem, weights=W, strict=False)
    assert list(found.status) == ["converged", "not finite", "converged", "not finite"]
    assert list(found.steps[[1, 3]]) == [0, 0]
    np.testing.assert_allclose(found.theta[0], found.theta[2], rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_gradient_that_is_lost_on_the_way_is_a_divergence(method):
    """(u − 2)²/2 with a gradient that is NaN above 1, where its first step leads."""

    def trap(u, y):
        return (u - y) ** 2 / 2 + 0 * torch.where(u < 1, torch.sqrt(1 - u), 0.0)

    problem = Risk(risk.linear, trap, [[1.0]], [2.0])
    found = minimise(problem, method=method, strict=False)
    assert found.status == "diverged" and found.steps == 1


# blocks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n, d, fits", [(2**15, 3, 10), (3, 2**8, 16), (2, 2**9, 4), (2, 2**11, 1)])
def test_a_block_holds_as_many_fits_as_is_said(n, d, fits, monkeypatch):
    """b = max(1, min(m, 2²⁰/(d max(n, d)))), whose fits nobody has to make here."""
    problem, met = Risk(risk.linear, risk.squared, np.ones((n, d)), np.ones(n), 1.0), []

    def nothing(risk, theta, W, *rest):
        met.append(len(W))
        answers = theta.numpy(), np.zeros(len(W)), np.zeros(len(W), int)
        return response.Fit(*answers, np.full(len(W), "converged")), {}

    monkeypatch.setattr(response, "_newton", nothing)
    m = min(n, fits + 1)
    W = np.ones((fits + 1, n)) if n < 100 else np.broadcast_to(np.ones(n), (fits + 1, n))
    minimise(problem, weights=W)
    assert met == [fits, 1]
    met.clear()
    leave_one_out(problem, remove=np.arange(m))
    assert met == ([fits, 1] if m > fits else [m])


def test_what_is_singular_is_named_in_any_block(monkeypatch):
    """Without the first, or the second, of three examples nothing is left in its direction."""
    monkeypatch.setattr(response, "BLOCK", 3 * 2 * 4)  # three fits
    problem = Risk(risk.linear, risk.squared, [[1, 0], [0, 1], [0, 1], [0, 1.0]], np.ones(4))
    W = np.ones((7, 4))
    W[4, 0], W[5, 1:] = 0, 0
    with pytest.raises(NotPositiveDefinite, match="for weight vector 4 ") as error:
        minimise(problem, weights=W)
    assert error.value.smallest == 0
    assert list(error.value.reached.status) == ["converged"] * 4 + ["singular"] * 2 + ["converged"]


# leave-one-out --------------------------------------------------------------------------------


def test_a_folder_knows_a_call_by_its_options_in_any_order_and_by_its_start(tmp_path):
    def model(theta, x):
        return theta[0] * x[0]

    model.theta = np.array([2.0])
    problem, run = Risk(model, risk.squared, [[1.0], [2], [3]], [1, 2, 4.0], d=1), Run(tmp_path, 1)
    one = leave_one_out(problem, run=run, tol=1e-11, max_steps=50)
    two = leave_one_out(problem, run=run, max_steps=50, tol=1e-11)
    np.testing.assert_array_equal(one.theta, two.theta)
    with pytest.raises(BadCache, match="fits was"):
        leave_one_out(problem, start=np.zeros(1), run=run, tol=1e-11, max_steps=50)


def test_the_first_row_without_an_answer_says_why():
    """θ²x at θ = 1: not convex for y = 100, without which one step is too few."""
    X, y = [[1.0], [1.0], [1.0]], [100.0, 0.5, 0.5]
    problem = Risk(lambda t, x: t[0] ** 2 * x[0], risk.squared, X, y, d=1)
    for remove, status, told in (([1, 0], "singular", True), ([0, 1], "max_steps", False)):
        with pytest.warns(UserWarning, match=f"status '{status}'") as caught:
            leave_one_out(problem, np.ones(1), remove, max_steps=1)
        assert ("newton-cg" in str(caught[0].message)) == told


# where a fit ends -----------------------------------------------------------------------------


def norms_by_step(problem, W, steps, **options):
    fits = (minimise(problem, None, W, max_steps=k, strict=False, **options) for k in steps)
    return [(fit.gradient_norm, fit.theta) for fit in fits]


def test_newton_ends_with_the_first_step_that_no_longer_halves_the_gradient():
    problem = logistic()
    W = np.random.default_rng(0).uniform(0, 2, (30, 25))
    found = minimise(problem, weights=W)
    np.testing.assert_array_equal(minimise(problem, weights=W, tol=1e-2).theta, found.theta)
    norms = [norm for norm, _ in norms_by_step(problem, W, range(1, found.steps.max() + 1))]
    for i, steps in enumerate(found.steps):
        halved = [norms[k][i] < norms[k - 1][i] / 2 for k in range(1, steps)]
        met = [norms[k][i] <= 1e-12 for k in range(1, steps)]
        ends = [m and not h for m, h in zip(met, halved)]
        assert ends[-1] and not any(ends[:-1])
        assert found.gradient_norm[i] == norms[steps - 1][i]


def test_by_conjugate_gradients_a_fit_stalls_where_rounding_leaves_nothing_to_gain():
    problem = logistic()
    W = np.random.default_rng(0).uniform(0, 2, (30, 25))
    options = {"method": "newton-cg", "tol": 1e-30}
    found = minimise(problem, weights=W, strict=False, **options)
    assert (found.status == "stalled").all() and found.gradient_norm.max() < 1e-14
    past = norms_by_step(problem, W, range(1, found.steps.max() + 1), **options)
    reset = 0
    for i, steps in enumerate(found.steps):
        norms = [norm[i] for norm, _ in past[:steps]]
        small = [k for k in range(1, steps) if norms[k - 1] < 1e-9]
        assert all(norms[k] <= norms[k - 1] / 2 for k in small[:-1])
        assert norms[-1] > norms[-2] / 2
        same = np.array_equal(past[steps - 1][1][i], past[steps - 2][1][i])
        assert same == (norms[-1] == norms[-2])  # of the last two points the better one
        reset += same
    assert 0 < reset < 30


@pytest.mark.parametrize("method", METHODS)
def test_a_gradient_of_the_tolerance_itself_is_small_enough(method):
    problem = logistic(1)
    found = minimise(problem, method=method)
    tol, steps = float(found.gradient_norm), int(found.steps)
    again = minimise(problem, method=method, tol=tol, max_steps=steps)
    assert tol > 0 and again.steps == steps


@pytest.mark.parametrize("method", METHODS)
def test_units_of_the_weights_do_not_matter(method):
    """Whether the gradient is small or large: it is measured beside its terms."""
    problem = logistic(2, lam=0.0)
    w = np.random.default_rng(0).uniform(1, 2, 25)
    options = {"method": method, "max_steps": 3, "strict": False}
    truth, end = minimise(problem, None, w, **options), minimise(problem, None, w, method=method)
    for power in (-60, -9, 9, 60):
        found = minimise(problem, None, 2.0**power * w, **options)
        np.testing.assert_allclose(found.theta, truth.theta, rtol=1e-13)
        assert found.gradient_norm == pytest.approx(truth.gradient_norm, rel=1e-9)
        found = minimise(problem, None, 2.0**power * w, method=method)
        np.testing.assert_allclose(found.theta, end.theta, rtol=1e-8)


def test_units_of_the_columns_do_not_matter_to_newton():
    X, y = data.regression(0, 20, 3, condition=3)
    for units in ([1.0, 2.0**30, 2.0**-30], [2.0**-40, 2.0**-41, 2.0**-42]):
        found = minimise(Risk(risk.linear, risk.squared, X * units, y))
        truth = np.linalg.lstsq(X, y, rcond=None)[0]
        np.testing.assert_allclose(found.theta * units, truth, rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_a_fit_is_endless_where_it_meets_its_tolerance_and_can_be_told(method, monkeypatch):
    found = minimise(one_sided(), method=method, max_steps=100, strict=False)
    assert found.status == "endless" and found.gradient_norm <= 1e-10
    assert method == "newton-cg" or found.gradient_norm <= 1e-12
    loose = minimise(one_sided(), method=method, max_steps=100, strict=False, tol=1e-3)
    assert loose.status == ("endless" if method == "newton" else "converged")
    monkeypatch.setattr(response, "SMALL", float(found.gradient_norm))
    again = minimise(one_sided(), method=method, max_steps=100, strict=False)
    assert again.status == "endless" and again.steps == found.steps
    monkeypatch.setattr(response, "SMALL", float(found.gradient_norm) / 8)
    later = minimise(one_sided(), method=method, max_steps=found.steps, strict=False)
    assert later.status != "endless"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rows", [None, 1])
def test_what_counts_along_a_direction_is_weighted_and_penalised(method, rows, monkeypatch):
    """The example of the other class has no weight, or a linear term alone holds what is free."""
    if rows:
        monkeypatch.setattr(risk.tensors, "BLOCK", 2 * rows)
    X, y = np.array([[1.0, 0.2], [-1.0, 0.1], [2.0, -0.3], [1.5, 0.4]]), [1, 0, 1, 0]
    options = {"method": method, "strict": False, "max_steps": 100}
    half = Risk(risk.linear, risk.logistic, X, y, lam=[0.0, 1.0])
    for w, status in (([2, 1, 3, 0], "endless"), ([2, 1, 3, 0.5], "converged")):
        assert minimise(half, weights=w, **options).status == status
    held = Risk(risk.linear, risk.logistic, X, y, lam=[0.0, 1.0], b=[1e-7, 0.0])
    found = minimise(held, weights=[2, 1, 3, 0], **options | {"method": "newton"})
    assert found.status == "converged"


@pytest.mark.parametrize("blocks", [1, 2, 3])
@pytest.mark.parametrize("w", [np.ones(3), np.array([0.5, 2.0, 0.25])])
def test_terms_cancel_up_to_a_thousandth_of_their_size(blocks, w, monkeypatch):
    """Terms w y of a step along the first parameter and its linear term, by hand."""
    monkeypatch.setattr(risk.tensors, "BLOCK", 2 * -(-3 // blocks))
    theta, step = torch.tensor([[3.0, 0.4]]).double(), torch.tensor([[0.1, 0.0]]).double()

    def asked(terms, b):
        y = np.array(terms) / w
        X = np.column_stack([y, np.zeros(3)])
        problem = Risk(risk.linear, level, X, np.zeros(3), lam=[0, 1.0], b=[b, 5.0])
        return response.endless(problem, theta, torch.from_numpy(w)[None], step)[0]

    for terms, b in (([1.0, 2.0, -0.5], -2.5), ([-1.0, 2.0, 0.5], -1.5), ([1.0, -1.0, 0.5], -0.5)):
        size = np.abs(terms).sum() + abs(b)
        for sign in (-1, 1):
            assert not asked(terms, b + sign * 0.9e-3 * size)
            assert asked(terms, b + sign * 1.1e-3 * size)


def test_a_step_is_small_below_a_thousandth_of_theta():
    problem = Risk(risk.linear, level, [[3.0, 4.0]], [0.0])
    theta = torch.tensor([[300.0, 400.0], [300.0, 400.0], [0.3, 0.4]]).double()
    step = torch.tensor([[0.29, 0.4], [0.31, 0.4], [0.29, 0.4]]).double()
    found = response.endless(problem, theta, torch.ones(3, 1).double(), step)
    assert list(found) == [False, True, True] and found.dtype == bool


def test_newtons_step_by_conjugate_gradients_is_newtons_to_a_hundredth():
    problem, theta = logistic(), np.array([0.3, -0.2, 0.5])
    w = np.random.default_rng(0).uniform(0.5, 2, 25)
    step = response._newton_step(problem, torch.from_numpy(theta), torch.from_numpy(w))
    left = problem.hessian(theta, w) @ step + problem.gradient(theta, w)
    assert np.linalg.norm(left) <= 0.01 * np.linalg.norm(problem.gradient(theta, w))


# the Hessian and the line search --------------------------------------------------------------


def test_a_hessian_is_singular_where_its_condition_is_beyond_rounding():
    """Beside the largest eigenvalue, not the next one, nor the size of the columns."""
    rng = np.random.default_rng(0)
    Q = np.array([[1, 1, 1], [-1, 1, 1], [0, -2, 1]]) / np.sqrt([2, 6, 3])
    H = torch.tensor(np.array([(Q * [s, 1e-4, 1]) @ Q.T for s in (3e-16, 1e-13, 1e-2)]))
    H = (H + H.mT) / 2
    gradient = torch.tensor(rng.standard_normal((3, 3)))
    direction, bad = response._direction(3, gradient, H, response._norms(H))
    assert list(bad) == [True, False, False]
    truth = -np.linalg.solve(H[2].numpy(), gradient[2].numpy())
    np.testing.assert_allclose(direction[2], truth, rtol=1e-12)
    _, faded = response._direction(3, gradient, H, 1e17 * response._norms(H))
    assert faded.all()  # beside its size at the start


def test_what_is_told_of_a_singular_hessian_is_its_spectrum():
    problem = Risk(risk.linear, risk.squared, np.diag([3.0, 2.0, 1e-9]), np.ones(3))
    H = torch.diag(torch.tensor([4.0, -0.5, 9.0, 2.0]).double())
    told, smallest = response._told(problem, torch.ones(3).double(), H, torch.tensor(1.0))
    assert smallest == -0.5 and "is -5.00e-01 and its largest 9.00e+00" in told


def test_a_line_search_halves_until_the_risk_falls_by_a_share_of_its_slope():
    """½‖θ − y‖² along c (y − θ): ct (2 − ct) ≥ 2·10⁻⁴ ct, so that ct ≤ 2 − 2·10⁻⁴."""
    y = torch.tensor([3.0, 4.0]).double()
    problem, zero = Risk(risk.linear, risk.squared, np.eye(2), y), torch.zeros(5, 2).double()
    c = torch.tensor([1.0, 1.9997, 1.99985, 3.9997, 7.999]).double()
    direction = c[:, None] * y
    found = response._searched(problem, zero, torch.ones(5, 2).double(), -y.repeat(5, 1), direction)
    lengths = torch.tensor([1, 1, 1 / 2, 1 / 4, 1 / 4]).double()
    np.testing.assert_array_equal(found, lengths[:, None] * direction)


@pytest.mark.parametrize("level_at", [1.0, -1.0, 0.0])
def test_a_line_search_allows_for_the_rounding_of_its_terms(level_at):
    """Each of four terms grows by some units in its last place, their sum by four times that."""
    eps = np.finfo(float).eps
    y = np.full(4, level_at)
    for units, length in ((1, 1), (5, 1 / 2)) if level_at else ((0, 1),):
        problem = Risk(risk.linear, level, np.full((4, 1), units * eps), y)
        one = torch.ones(1, 1).double()
        found = response._searched(problem, 0 * one, torch.ones(1, 4).double(), 0 * one, one)
        assert found.item() == length


# the trust region -----------------------------------------------------------------------------


def wave(u, y):
    """Bowls beside each other, one deeper than the next, with crests between them."""
    return torch.sin(2 * u) + 0.1 * u**2


def slopes(u):
    return np.sin(2 * u) + 0.1 * u**2, 2 * np.cos(2 * u) + 0.2 * u, -4 * np.sin(2 * u) + 0.2


def by_hand(values, t, steps):
    """Newton's method for one number in a trust region, at first ten gradients wide."""
    path, radius = [t], None
    for _ in range(steps):
        value, g, h = values(t)
        radius = 10 * abs(g) if radius is None else radius
        step = -g / h if h > 0 and abs(g / h) < radius else -np.sign(g) * radius
        ratio = (value - values(t + step)[0]) / -(g * step + h * step**2 / 2)
        if ratio > 0.75 and abs(step) > 0.99 * radius:
            radius = 2 * abs(step)
        elif ratio <= 0.25:
            radius = abs(step) / 4
        t = t + step if ratio > 1e-4 else t
        path.append(t)
    return path


@pytest.mark.parametrize("x", [[0.6, 0.8], [3.0, 0.0, -4.0]])
def test_the_trust_region_of_a_single_number_is_newtons_by_hand(x):
    """uᵀx along x: the starts differ in how far from a bowl they are, and on which side."""
    x = np.array(x)
    problem, size = Risk(risk.linear, wave, x[None], [0.0]), x @ x
    at = np.linspace(-5, 5, 23)
    starts = np.outer(at, x) / size

    def scaled(s):  # s along x/‖x‖
        value, g, h = slopes(np.sqrt(size) * s)
        return value, np.sqrt(size) * g, size * h

    paths = np.array([by_hand(scaled, t / np.sqrt(size), 7) for t in at])
    for steps in (1, 2, 4, 7):
        found = minimise(
            problem,
            starts,
            np.ones((len(at), 1)),
            method="newton-cg",
            preconditioner=False,
            max_steps=steps,
            tol=1e-30,
            strict=False,
        )
        moving = np.abs(scaled(paths[:, steps - 1])[1]) > 1e-4
        got = found.theta @ x / np.sqrt(size)
        np.testing.assert_allclose(got[moving], paths[moving, steps], rtol=1e-6, atol=1e-6)
        assert moving.sum() > (8 if steps < 5 else 0)


@pytest.mark.parametrize(
    "slope, start, steps",
    [(0.1, [0.0, 0.0], 21), (0.1, [0.6, 0.8], 22), (1.0, [0.0, 0.0], 21), (1.0, [-3, 4], 21)],
)
def test_what_falls_for_ever_has_diverged_at_a_million_times_its_first_step(slope, start, steps):
    """Steps 10g, 20g, …: after k of them 10g (2ᵏ − 1), beside 10⁶ (1 + ‖start‖ + 10g)."""
    allowed = 1e6 * (1 + np.linalg.norm(start) + 10 * slope)
    assert 10 * slope * (2.0 ** (steps - 1) - 1) < allowed < 10 * slope * (2.0**steps - 1)
    problem = Risk(risk.linear, level, [[0.6 * slope, 0.8 * slope]], [0.0])
    options = {"method": "newton-cg", "max_steps": 100, "strict": False}
    found = minimise(problem, start, **options)
    assert found.status == "diverged" and found.steps == steps and found.curvature == 0
    moved = np.linalg.norm(found.theta - start)
    assert moved == pytest.approx(10 * slope * (2.0**steps - 1), rel=1e-12)
    other = np.array([start, [100.0, 100.0]])  # with a bound of its own
    found = minimise(problem, other, np.ones((2, 1)), **options)
    assert found.steps[0] == steps
    alone = minimise(problem, other[1], **options)
    assert found.steps[1] == alone.steps and alone.steps > steps


def test_a_preconditioner_measures_the_first_radius():
    """Where the loss is flat, far away: its metric is that of the start, m = ℓ″ + λ."""

    def bowl(u, y):
        return torch.sqrt(1 + u**2)

    x, lam = np.array([0.6, 0.8]), 0.01
    problem, t = Risk(risk.linear, bowl, x[None], [0.0], lam), 2.0
    root = np.sqrt(1 + t**2)
    slope, metric = t / root + lam * t, root**-3 + lam
    assert slope / (root**-3 + lam) < 10 * slope / metric
    found = minimise(problem, t * x, method="newton-cg", max_steps=1, strict=False)
    step = slope / metric  # Newton's own, which overshoots: rejected, and a quarter is the radius
    values = [np.sqrt(1 + s**2) + lam * s**2 / 2 for s in (t, t - step)]
    ratio = (values[0] - values[1]) / (slope * step / 2)
    assert ratio < 1e-4
    np.testing.assert_array_equal(found.theta, t * x)
    found = minimise(problem, t * x, method="newton-cg", max_steps=2, strict=False)
    np.testing.assert_allclose(found.theta, (t - step / 4) * x, rtol=1e-12)


def test_at_first_a_step_is_ten_of_the_preconditioners_at_most():
    """It has one weight for all, 1/2 here: the second fit, of weight 1/1000, is too far away."""
    x, y = np.array([1.0, 2.0, 2.0]), 5.0
    problem = Risk(risk.linear, risk.squared, x[None], [y], lam=1e-3)
    W = np.array([[1.0], [1e-3]])
    found = minimise(problem, None, W, method="newton-cg", max_steps=1, strict=False)
    whole, held = y / (9 + 1e-3), 1e-3 * y / (9 / 2 + 1e-3)
    np.testing.assert_allclose(found.theta, [whole * x, 10 * held * x], rtol=1e-11)


def test_conjugate_gradients_end_the_closer_the_smaller_the_gradient_is():
    """So that a fit ends faster than at a tenth a step."""
    X, y = data.classification(0, 200, 12)
    problem = Risk(risk.linear, risk.logistic, X, y, 0.1)
    found = minimise(problem, method="newton-cg", preconditioner=False, tol=1e-12)
    assert found.steps <= 9
    best = minimise(problem, found.theta, method="newton-cg").theta
    assert np.linalg.norm(found.theta - best) < 1e-9


def test_a_fit_depends_on_none_beside_it_and_has_a_scale_of_its_own_start():
    problem, rng = logistic(), np.random.default_rng(0)
    a, b, c = rng.standard_normal((3, 3))
    W = np.ones((2, 25))
    options = {"method": "newton-cg", "max_steps": 2, "strict": False}
    one, two = (minimise(problem, np.array([a, other]), W, **options) for other in (b, c))
    np.testing.assert_array_equal(one.theta[0], two.theta[0])
    for found, start in ((one, b), (two, c)):
        size = np.linalg.norm(problem.gradients(start), axis=1).sum()
        size += np.linalg.norm(problem.lam * start)
        slope = np.linalg.norm(problem.gradient(found.theta[1]))
        assert found.gradient_norm[1] == pytest.approx(slope / size, rel=1e-7)


def test_descend_raises_and_makes_its_preconditioner_at_the_start(monkeypatch):
    problem, made = logistic(), []
    start = torch.tensor([0.1, 0.2, 0.3]).double()
    objective, W = response.Objective(problem, start), np.full((2, 25), 2.0)
    scale = objective.scale(W)
    with pytest.raises(NotConverged):
        response.descend(objective, W, scale, 0.0, max_steps=1)

    def told(risk, start, w, damping, memory):
        made.append((start, w, damping, memory))

    monkeypatch.setattr(response, "_preconditioner", told)
    base = np.arange(25.0)
    response.descend(objective, W, scale, 0.3, memory=7)
    response.descend(objective, W, scale, 0.3, base)
    response.descend(objective, W, scale, 0.3, preconditioner=False)
    (one, w, damping, memory), (_, own, _, default) = made
    assert one is start and damping == 0.3 and memory == 7 and default == solvers.MEMORY
    np.testing.assert_array_equal(w, np.full(25, 2.0))
    np.testing.assert_array_equal(own, base)


def test_a_preconditioner_is_left_out_where_it_does_not_fit_or_is_not_finite(monkeypatch):
    problem, w, start = logistic(), np.ones(25), torch.ones(3).double()
    made = response._preconditioner(problem, start, w, 0.2, solvers.MEMORY)
    v = np.random.default_rng(0).standard_normal((3, 2))
    G = problem.gauss_newton(np.ones(3)) + 0.2 * np.eye(3)
    np.testing.assert_allclose(made(v), np.linalg.solve(G, v), rtol=1e-12)
    assert response._preconditioner(problem, start, w, 0.2, 8) is None

    def curved(f, y):  # its gradient is 0 at f = 0, its second derivative infinite
        return torch.abs(f - y) ** 1.5

    X = np.random.default_rng(0).standard_normal((4, 2))
    for loss, y in ((curved, [0.0, 1, 1, 1]), (risk.poisson, [1.0, 2, 3, 4])):
        at = torch.zeros(2).double() if loss is curved else torch.full((2,), 1e3).double()
        some = Risk(risk.linear, loss, X if loss is curved else np.abs(X), y, lam=0.1)
        assert response._preconditioner(some, at, np.ones(4), 0.2, solvers.MEMORY) is None
    met = []
    monkeypatch.setattr(solvers, "factor", lambda *_, memory, **__: met.append(memory) or problem)
    monkeypatch.setattr(Risk, "solve", None, raising=False)
    response._preconditioner(problem, start, w, 0.2, 12345678)
    assert met == [12345678]


@pytest.mark.parametrize("slopes", [None, [[1.0, -2.0], [0.5, 0.3]]])
def test_the_size_of_an_objective_is_that_of_its_terms(slopes):
    rng = np.random.default_rng(0)
    net = networks.problem(n=2, outputs=2)
    problem = Risk(
        net.model,
        lambda f, y: f[0] - f[1] ** 2 / 8 - 9,
        net.X,
        rng.standard_normal(2),
        0.1,
        np.full(net.d, -3.0),
    )
    start, W = problem.model.theta, rng.uniform(0, 2, (3, 2))
    given = None if slopes is None else torch.tensor(slopes, dtype=torch.float64)
    objective = response.Objective(problem, torch.from_numpy(start), slopes=given)
    f = problem.outputs(start)
    truth = W @ np.abs(f[:, 0] - f[:, 1] ** 2 / 8 - 9)
    penalty = 0.05 * start @ start - 3 * start.sum()
    truth += abs(penalty) if slopes is None else np.abs(np.array(slopes) * f).sum()
    np.testing.assert_allclose(objective.size(torch.from_numpy(W)), truth, rtol=1e-13)


def test_the_norm_of_a_matrix_counts_every_entry_whatever_its_sign():
    H = torch.tensor([[[-3.0, 0.0], [0.0, -4.0]], [[0.0, 0.0], [0.0, 2.0]]]).double()
    for unit in (1e-300, 1.0, 1e300):
        np.testing.assert_allclose(response._norms(unit * H), [5 * unit, 2 * unit], rtol=1e-14)
