"""Invariances, blocks, and what is refused or reported."""

import ast
import inspect
import re

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from ifcore import data, leastsquares, proximal, response, risk
from ifcore.network import perceptron
from ifcore.response import minimise
from ifcore.risk import NotFinite, Risk
from ifcore.runs import BadCache, NotConverged, Run
from ifcore.solvers import NotPositiveDefinite
from ifcore.weights import without

seeds = st.integers(0, 2**32 - 1)
runs = settings(max_examples=30, deadline=None, database=None)


def logistic(seed, lam=0.5):
    return Risk(risk.linear, risk.logistic, *data.classification(seed, 25, 3), lam)


@runs
@given(seeds)
def test_squared_loss_has_the_closed_form(seed):
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 20, 4)
    W = rng.uniform(0.05, 2, (5, 20))
    found = minimise(Risk(risk.linear, risk.squared, X, y), weights=W)
    np.testing.assert_allclose(
        found.theta, leastsquares.fit(X, y, W), rtol=0, atol=1e-12 * np.abs(found.theta).max()
    )
    everyone = response.leave_one_out(Risk(risk.linear, risk.squared, X, y)).theta
    np.testing.assert_allclose(
        everyone,
        leastsquares.leave_one_out(X, y).theta,
        rtol=0,
        atol=1e-12 * np.abs(everyone).max(),
    )


@runs
@given(seeds)
def test_the_start_does_not_matter(seed):
    problem = logistic(seed)
    start = 5 * np.random.default_rng(seed).standard_normal(3)
    one, two = minimise(problem).theta, minimise(problem, start).theta
    assert np.linalg.norm(one - two) <= 1e-12 * max(1, np.linalg.norm(one))


@runs
@given(seeds)
def test_weights_and_penalty_scale_together(seed):
    X, y = data.classification(seed, 25, 3)
    w = np.random.default_rng(seed).uniform(0.1, 2, 25)
    one = minimise(Risk(risk.linear, risk.logistic, X, y, 0.5), weights=w).theta
    two = minimise(Risk(risk.linear, risk.logistic, X, y, 3.5), weights=7 * w).theta
    assert np.linalg.norm(one - two) <= 1e-12 * max(1, np.linalg.norm(one))


@runs
@given(seeds)
def test_rotating_the_features_rotates_the_response(seed):
    X, y = data.classification(seed, 25, 3)
    V = data.design(seed, 3, 3, condition=1) / np.sqrt(3)
    one = minimise(Risk(risk.linear, risk.logistic, X, y, 0.5)).theta
    two = minimise(Risk(risk.linear, risk.logistic, X @ V, y, 0.5)).theta
    assert np.linalg.norm(two - V.T @ one) <= 1e-12 * max(1, np.linalg.norm(one))


@runs
@given(seeds)
def test_the_own_loss_never_falls_on_removal(seed):
    problem = logistic(seed)
    before = problem.losses(minimise(problem).theta)
    for j, theta in enumerate(response.leave_one_out(problem).theta):
        assert problem.losses(theta)[j] >= before[j] - 1e-14


def test_blocks_do_not_change_the_fits(monkeypatch):
    problem = logistic(1)
    whole = response.leave_one_out(problem)
    monkeypatch.setattr(response, "BLOCK", 3 * problem.d * problem.n)
    np.testing.assert_allclose(response.leave_one_out(problem).theta, whole.theta, rtol=1e-13)
    single = [minimise(problem, weights=w).theta for w in 1 - np.eye(25)]
    np.testing.assert_allclose(single, whole.theta, rtol=1e-13)


def test_twice_the_same_is_the_same_bytes():
    one, two = (response.leave_one_out(logistic(2)).theta for _ in range(2))
    assert one.tobytes() == two.tobytes()


def test_a_single_weight_vector_loses_the_first_axis():
    found = minimise(logistic(0), weights=np.ones(25))
    assert found.theta.shape == (3,)
    assert found.gradient_norm.shape == ()
    assert found.gradient_norm <= 1e-14


def separable():
    return np.column_stack([np.ones(6), np.arange(6.0)]), np.array([0, 0, 0, 1, 1, 1])


def suggested(error):
    return float(str(error.value).split("λ = ")[2].split(" ")[0])


def test_a_separable_problem_names_the_eigenvalue_and_the_mending_penalty():
    with pytest.raises(NotPositiveDefinite, match="smallest eigenvalue is") as error:
        minimise(Risk(risk.linear, risk.logistic, *separable()))
    mended = minimise(Risk(risk.linear, risk.logistic, *separable(), suggested(error)))
    assert mended.gradient_norm <= 1e-12


def test_a_singular_problem_names_its_weight_vector_and_the_mending_penalty():
    X, y = np.eye(2), np.ones(2)
    with pytest.raises(
        NotPositiveDefinite, match="for weight vector 1 its smallest eigenvalue is 0"
    ) as error:
        rows = Risk(risk.linear, risk.squared, np.vstack([X, X[0]]), np.ones(3))
        minimise(rows, weights=1 - np.eye(3))
    assert "eigenvalue is 0.00e+00 and its largest 2.00e+00, at λ = 0.0 and" in str(error.value)
    minimise(Risk(risk.linear, risk.squared, X, y, suggested(error)), weights=[1, 0])


def test_the_weight_vector_that_fails_is_named_among_those_that_have_finished():
    X, y = separable()
    X, y = np.vstack([X, [1, 5]]), np.append(y, 0)  # without this example the classes are separable
    with pytest.raises(NotPositiveDefinite, match="for weight vector 2 its smallest"):
        minimise(
            Risk(risk.linear, risk.logistic, X, y),
            weights=[np.ones(7), np.full(7, 2.0), without(7, 6)],
        )


def test_an_option_that_there_is_not_is_told_with_those_that_there_are():
    for call, known in (
        (lambda: minimise(logistic(0), steps=3), "tol, max_steps; got 'steps'"),
        (lambda: minimise(logistic(0), method="newton-cg", rate=3), "memory; got 'rate'"),
        (lambda: response.leave_one_out(logistic(0), block=2), "tol, max_steps; got 'block'"),
    ):
        with pytest.raises(TypeError, match=f"options must be among .*{known}"):
            call()


def test_a_good_start_saves_steps():
    found = minimise(logistic(0))
    assert minimise(logistic(0), found.theta).steps <= 2 < found.steps


def test_an_indefinite_problem_names_the_eigenvalue_and_the_mending_penalty():
    def saddle(theta, x):
        return theta[0] * theta[1] * x[0]

    with pytest.raises(NotPositiveDefinite, match=r"smallest eigenvalue is -2\.00e\+00") as error:
        minimise(Risk(saddle, risk.squared, [[1.0]], [2.0], d=2))
    curved = Risk(lambda t, x: t[0] ** 2 * x[0], risk.squared, [[1.0]], [1.0], d=1)
    with pytest.raises(NotPositiveDefinite, match=r"smallest eigenvalue is -2\.00e\+00") as again:
        minimise(curved)
    for lam in (suggested(error), suggested(again)):
        assert lam > 2
    minimise(Risk(curved.model, risk.squared, [[1.0]], [1.0], suggested(again), d=1))


def test_too_few_steps_are_reported_with_the_gradient_and_the_point():
    with pytest.raises(
        NotConverged, match="2 of 2 fits did not end well; .* after 1 steps, .* gradient norm .*e-"
    ) as error:
        minimise(logistic(0), weights=np.ones((2, 25)), max_steps=1)
    assert error.value.reached.theta.shape == (2, 3)
    assert (error.value.reached.gradient_norm > 1e-12).all()


def test_a_risk_that_turns_nan_is_reported():
    def broken(output, y):
        return (output - y) ** 2 / 0 * 0

    problem = Risk(risk.linear, broken, np.eye(2), [1.0, 2.0])
    with pytest.raises(NotFinite, match="example 0 must have a finite loss"):
        minimise(problem)
    assert minimise(problem, strict=False).status == "not finite"
    huge = Risk(risk.linear, risk.poisson, np.array([[1.0, 0], [0, 1], [1, 1]]), np.ones(3), 0.1)
    lost = minimise(huge, np.full(2, 1e3), method="newton-cg", strict=False)
    assert lost.status == "not finite" and np.isnan(lost.theta).all()


def test_a_hessian_that_overflows_is_not_finite_rather_than_singular():
    """The gradients are finite at 0; the square of 1e200 is not."""
    large = Risk(risk.linear, risk.squared, np.array([[1e200], [1.0]]), np.ones(2), lam=1.0)
    with pytest.raises(NotConverged, match="weight vector 0, is 'not finite' after 0 steps"):
        minimise(large)
    assert minimise(large, strict=False).status == "not finite"


@pytest.mark.parametrize(
    "options, words",
    [
        ({"weights": np.zeros(25)}, "must not all be 0"),
        ({"weights": np.ones(24)}, r"shape \(25,\)"),
        ({"start": np.ones(4)}, r"start must be \(3,\), or \(1, 3\) for one a fit; got \(4,\)"),
        ({"tol": 0}, "tol must be positive; got 0"),
        ({"tol": np.nan}, "tol must be finite"),
        ({"max_steps": 0}, "max_steps must be an integer at least 1; got 0"),
    ],
)
def test_bad_input_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        minimise(logistic(0), **options)


def test_fits_start_from_points_of_their_own():
    problem, W = logistic(0), 1 - np.eye(25)[:4]
    starts = np.random.default_rng(0).standard_normal((4, 3))
    for method in ("newton", "newton-cg"):
        found = minimise(problem, starts, W, method=method)
        truth = minimise(problem, weights=W)
        np.testing.assert_allclose(found.theta, truth.theta, rtol=0, atol=1e-8)
        still = minimise(problem, truth.theta, W, method=method)
        assert still.steps.max() <= 2 and (still.status == "converged").all()
    with pytest.raises(ValueError, match=r"start must be \(3,\), or \(4, 3\) for one a fit; got"):
        minimise(problem, starts[:2], W)


def test_the_two_methods_agree_and_others_are_refused():
    problem, W = logistic(1), np.random.default_rng(0).uniform(0, 2, (5, 25))
    one, two = (minimise(problem, weights=W, method=name) for name in ("newton", "newton-cg"))
    np.testing.assert_allclose(one.theta, two.theta, rtol=0, atol=1e-8)
    assert one.curvature is None and two.curvature.shape == (5,)
    with pytest.raises(ValueError, match="method must be 'newton' or 'newton-cg'; got 'bfgs'"):
        minimise(problem, method="bfgs")


def test_a_fit_without_an_answer_does_not_take_the_others_away():
    X, y = separable()
    X, y = np.vstack([X, [1, 5]]), np.append(y, 0)  # without this example the classes are separable
    problem = Risk(risk.linear, risk.logistic, X, y)
    W = [np.ones(7), without(7, 6), np.full(7, 2.0)]
    found = minimise(problem, weights=W, strict=False)
    assert list(found.status) == ["converged", "singular", "converged"]
    np.testing.assert_allclose(found.theta[0], found.theta[2], rtol=1e-10)
    with pytest.raises(NotPositiveDefinite, match="for weight vector 1") as error:
        minimise(problem, weights=W)
    np.testing.assert_array_equal(error.value.reached.theta, found.theta)
    short = minimise(problem, weights=W[:1], max_steps=1, strict=False)
    assert list(short.status) == ["max_steps"]


def test_by_conjugate_gradients_any_risk_has_a_local_minimiser():
    """Without λ, and more parameters than outputs: the preconditioner is singular, and left out."""
    X, y = data.regression(0, 12, 3, condition=2)
    problem = Risk(perceptron(0, 3, 5, 1), risk.squared, X, y / y.std())
    starts = np.array([problem.model.initial(seed) for seed in (0, 1)])
    for start in (starts[0], starts):
        weights = np.ones((2, 12))
        options = {"method": "newton-cg", "max_steps": 400, "strict": False}
        found = minimise(problem, start, weights, **options)
        assert set(found.status) <= {"converged", "stalled"}  # where 12 points are met, all is flat
        assert max(problem.value(theta) for theta in found.theta) < 1e-8

    def wave(output, y):
        return 1 - torch.cos(output - y)

    bent = Risk(risk.linear, wave, X, y / y.std(), lam=0.5)
    found = minimise(bent, np.zeros(3), method="newton-cg", max_steps=200)
    assert np.linalg.norm(bent.gradient(found.theta)) < 1e-8
    with pytest.raises(NotConverged, match="where tol = 1e-10 was asked for, and smallest curv"):
        minimise(problem, starts, np.ones((2, 12)), method="newton-cg", max_steps=1)


@pytest.mark.parametrize(
    "function, takes, names",
    [
        (minimise, response._by_newton, ["tol", "max_steps"]),
        (proximal.damped, response.descend, ["tol", "max_steps", "block", "preconditioner"]),
    ],
)
def test_options_are_by_default_what_the_docstring_says(function, takes, names):
    said = dict(re.findall(r"\b(\w+) = ([\w.-]+)", inspect.getdoc(function).split("Memory")[0]))
    for name in names:
        default = inspect.signature(takes).parameters[name].default
        assert default == ast.literal_eval(said[name].rstrip(".,")), name


def test_the_norm_of_a_matrix_does_not_depend_on_its_units():
    H = np.random.default_rng(0).standard_normal((3, 3))
    units = [0.0, 1e-300, 1.0, 1e300]
    found = response._norms(torch.from_numpy(np.multiply.outer(units, H)))
    np.testing.assert_allclose(found, np.multiply(units, np.linalg.norm(H)), rtol=1e-14, atol=0)


@pytest.mark.parametrize("method", ["newton", "newton-cg"])
def test_a_fit_that_is_asked_for_little_is_not_taken_for_endless(method):
    """Only near a minimum does a step of the size of θ tell that there is none."""
    for seed in (7, 9, 17, 18):
        problem = Risk(risk.linear, risk.squared, *data.regression(seed, 12, 3))
        found = minimise(problem, method=method, tol=0.5, strict=False)
        assert found.status == "converged" and found.gradient_norm <= 0.5


@pytest.mark.parametrize("seed", range(12))
def test_a_minimum_whose_factors_can_be_rotated_is_reached_too(seed):
    """f = tanh(xᵀAB): A and B may be turned, so the minima lie on circles and H has a 0."""
    rng, rows, columns, inner = np.random.default_rng(seed), 6, 3, 2
    d, cut = inner * (rows + columns), rows * inner

    def product(theta, x):
        return torch.tanh(x @ theta[:cut].reshape(rows, inner) @ theta[cut:].reshape(inner, -1))

    X = rng.standard_normal((30, rows))
    Y = X @ rng.standard_normal((rows, columns)) + rng.standard_normal((30, columns))
    one = Risk(product, risk.squared, X, Y, lam=3.0, d=d)
    found = minimise(one, rng.standard_normal(d), method="newton-cg", tol=1e-12)
    lowest = np.linalg.eigvalsh(one.hessian(found.theta))
    assert abs(lowest[0]) < 1e-8 * lowest[-1] < 1e-4 * lowest[1]
    assert found.status == "converged" and found.gradient_norm <= 1e-12


def test_where_values_are_level_but_for_rounding_the_gradient_decides():
    """Counts whose losses at 0 are far smaller than at the minimiser, where they cancel."""
    for seed in (6, 8, 9, 11, 13):
        rng = np.random.default_rng(seed)
        X = np.column_stack([np.ones(30), rng.standard_normal((30, 3))])
        y = rng.poisson(10 * np.exp(X[:, 1:] @ rng.standard_normal(3) / 2))
        problem = Risk(risk.linear, risk.poisson, X, y, lam=0.1)
        found = minimise(problem, method="newton-cg", tol=1e-12, strict=False)
        assert found.status == "converged" and found.gradient_norm <= 1e-12


@pytest.mark.parametrize("rows", [None, 4])
def test_the_gradient_norm_is_beside_the_size_of_its_terms(rows, monkeypatch):
    """Of the losses and of ‖H_w‖‖θ‖ for Newton's method; at the start for conjugate gradients."""
    X, y = data.classification(1, 12, 3)
    lam, b = np.array([0.5, 0.2, 1.0]), np.array([1.0, -0.5, 0.0])
    problem, start = Risk(risk.linear, risk.logistic, X, y, lam, b), np.array([0.3, -0.2, 0.5])
    if rows:
        monkeypatch.setattr(risk.tensors, "BLOCK", rows * problem.d)
    W = np.random.default_rng(0).uniform(0.5, 2, (3, 12))
    one, two = (
        minimise(problem, start, W, method=method, max_steps=1, strict=False)
        for method in ("newton", "newton-cg")
    )
    for i, w in enumerate(W):
        for found, at in ((one, one.theta[i]), (two, start)):
            slope = np.linalg.norm(problem.gradient(found.theta[i], w))
            size = w @ np.linalg.norm(problem.gradients(at), axis=1)
            if found is one:
                size += np.linalg.norm(problem.hessian(at, w)) * np.linalg.norm(at)
            else:
                size += np.linalg.norm(lam * at) + np.linalg.norm(b)
            assert found.gradient_norm[i] == pytest.approx(slope / size, rel=1e-10)
    assert list(one.steps) == list(two.steps) == [1, 1, 1]


def test_leave_one_out_keeps_what_is_of_the_same_call(tmp_path):
    problem, run = logistic(0), Run(tmp_path, 1, False, False)
    call = {"remove": [3, 4], "start": np.zeros(3), "tol": 1e-10, "run": run}
    whole = response.leave_one_out(problem, **call)
    for change, words in (
        ({"remove": [3, 5]}, "fits was"),
        ({"start": np.full(3, 1e-9)}, "fits was"),
        ({"start": None}, "fits was"),
        ({"tol": 1e-9}, "options was .*1e-10.*, now .*1e-09"),
        ({"max_steps": 99}, "options was"),
    ):
        with pytest.raises(BadCache, match=words):
            response.leave_one_out(problem, **call | change)
    again = response.leave_one_out(problem, **call)
    for one, other in zip(whole[:4], again[:4]):
        np.testing.assert_array_equal(one, other)
    single = Risk(risk.linear, risk.squared, [[1.0]], [1.0])
    with pytest.raises(ValueError, match="two examples at least to leave one out; it has 1"):
        response.leave_one_out(single)
    for name in ("risk", "run"):
        with pytest.raises(TypeError, match=f"{name} must be a R.*; got int"):
            response.leave_one_out(**{"risk": problem, "run": run} | {name: 3})


def test_without_a_start_a_network_begins_at_its_own_theta_and_others_at_0():
    X, y = data.regression(0, 12, 3, condition=2)
    net = Risk(perceptron(0, 3, 2, 1), risk.squared, X, y, lam=0.1)
    options = {"method": "newton-cg", "max_steps": 2, "strict": False}
    np.testing.assert_array_equal(
        minimise(net, **options).theta, minimise(net, net.model.theta, **options).theta
    )
    problem = logistic(0)
    np.testing.assert_array_equal(minimise(problem).theta, minimise(problem, np.zeros(3)).theta)


def test_one_weight_for_all_is_the_power_of_two_nearest_to_the_mean():
    for mean, even in ((1.0, 1.0), (1.4, 1.0), (1.5, 2.0), (0.7, 0.5), (0.72, 1.0), (0.0, 1.0)):
        W = np.full((2, 3), mean) * [[0.5], [1.5]]
        np.testing.assert_array_equal(response._even(W), np.full(3, even))


def test_a_risk_falls_for_ever_where_its_terms_do_not_cancel_along_a_long_step():
    rows = np.array([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])
    apart = Risk(risk.linear, risk.logistic, rows, [1, 1, 0])
    held = Risk(risk.linear, risk.logistic, rows, [1, 1, 1])
    cases = [(np.array([20.0, 0.0]), np.array([1.0, 0.0])), (np.array([0.0, 1.0]), [1e-2, 0.0])]
    for theta, step in cases:
        far, near = (
            response.endless(apart, *(torch.tensor(np.array(part))[None] for part in parts))[0]
            for parts in ((theta, np.ones(3), step), (theta, np.ones(3), 1e-2 * np.array(step)))
        )
        assert far and not near
    at = minimise(held, method="newton-cg").theta
    parts = (torch.tensor(part)[None] for part in (at, np.ones(3), np.array([1.0, 0.0])))
    assert not response.endless(held, *parts)[0]  # along it the terms cancel
    penalised = Risk(risk.linear, risk.logistic, rows, [1, 1, 0], lam=1e-9)
    theta, step = torch.tensor([[20.0, 0.0]]).double(), torch.tensor([[1.0, 0.0]]).double()
    assert not response.endless(penalised, theta, torch.ones(1, 3).double(), step)[0]
