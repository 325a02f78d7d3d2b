"""Self-influence, the largest effects, and diagnostics of generalised fits."""

import networks
import numpy as np
import pytest
import statsmodels.api as sm
import torch
from memory import stated

from ifcore import data, influence, response, risk, solvers
from ifcore.influence import diagnostics, self_influence, top
from ifcore.network import perceptron
from ifcore.risk import Risk
from ifcore.runs import BadCache, Run
from ifcore.solvers import OutOfMemory


def cancer(seed=0, n=60, d=4):
    problem = Risk(risk.linear, risk.logistic, *data.classification(seed, n, d), lam=0.1)
    return problem, response.minimise(problem).theta


def network(seed=0):
    X, y = data.regression(seed, 30, 3)
    problem = Risk(perceptron(seed, 3, 4, 1), risk.squared, X, y)
    return problem, problem.model.theta


@pytest.mark.parametrize("block", [None, 7])
@pytest.mark.parametrize("make, damping", [(cancer, 0.0), (cancer, 2.0), (network, 60.0)])
def test_self_influence_and_top_are_read_off_the_explicit_matrix(
    make, damping, block, monkeypatch, tmp_path
):
    problem, theta = make()
    if block:
        monkeypatch.setattr(risk.tensors, "BLOCK", block * problem.d)
    w, g = np.random.default_rng(1).uniform(0.5, 2, problem.n), problem.gradients(theta)
    test = problem.subset(np.arange(5, 12))
    for matrix, C in (
        ("gauss_newton", problem.gauss_newton(theta, w)),
        ("hessian", problem.hessian(theta, w)),
    ):
        C = C + damping * np.eye(problem.d)
        assert np.linalg.eigvalsh(C)[0] > 0
        effects = -g @ np.linalg.solve(C, g.T)
        run = Run(tmp_path / matrix, jobs=1, progress=False)
        for _ in range(2):  # computed, and read back
            own = self_influence(problem, theta, w, damping, matrix=matrix, run=run)
            np.testing.assert_allclose(own, np.diag(effects), rtol=1e-10)
        found = top(problem, theta, test, 4, w, damping, matrix=matrix)
        expected = effects[5:12]
        order = np.argsort(-np.abs(expected), axis=1)[:, :4]
        np.testing.assert_array_equal(found.examples, order)
        np.testing.assert_allclose(found.effects, np.take_along_axis(expected, order, 1), rtol=1e-9)


def test_no_array_of_all_pairs_is_needed_or_made():
    problem, theta = cancer()
    with pytest.raises(OutOfMemory, match="self_influence has the diagonal"):
        influence.loss_influence(problem, theta, memory=2**14)
    with pytest.raises(OutOfMemory, match="self_influence and top need no such array"):
        influence.damped_effects(problem, theta, damping=1.0, memory=2**15)
    for bad, words in ((0, "k must be"), (61, "k must be at most n = 60; got 61")):
        with pytest.raises(ValueError, match=words):
            top(problem, theta, problem, bad)


def unlayered(n, K):
    """A linear softmax of 3 features, and a point."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((n, 3)), rng.integers(0, K, n)
    problem = Risk(lambda t, x: t.reshape(K, 3) @ x, risk.cross_entropy, X, y, d=3 * K)
    return problem, rng.standard_normal(3 * K)


@pytest.mark.parametrize(
    "make, form, words",
    [
        (cancer, "primal", "primal"),
        (network, "primal", "primal"),
        (lambda: unlayered(30, 4), "dual", "dual"),
        (network, "dual", "by layers"),
    ],
)
def test_effects_are_refused_one_byte_below_what_is_stated(make, form, words):
    problem, theta = make()
    test = problem.subset(np.arange(200) % problem.n)
    sizes = {"n": problem.n, "K": problem.K, "d": problem.d, "t": test.n}
    needed = stated.stated(influence.damped_effects, words, sizes | {"m": problem.n * problem.K})
    options = {"damping": 1.0, "test": test, "solver": form}
    with pytest.raises(OutOfMemory, match="fewer test examples avoid it") as refusal:
        influence.damped_effects(problem, theta, memory=needed - 1, **options)
    assert refusal.value.needed == needed
    found = influence.damped_effects(problem, theta, memory=needed, **options)
    assert found.solver == form and found.losses.shape == (200, problem.n)


def test_effects_go_by_the_solver_that_their_memory_allows():
    problem = networks.problem(n=8, outputs=4)
    call = problem, problem.model.theta, np.linspace(0.5, 2, 8), 1.0
    small, large = (influence.damped_effects(*call, memory=bytes) for bytes in (14_000, 2**20))
    assert (small.solver, large.solver) == ("cg", "dual")
    for one, other in zip(small[:3], large[:3]):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9 * np.abs(other).max())


@pytest.mark.parametrize("solver", ["primal", "dual", "cg"])
def test_without_a_test_risk_the_effects_are_on_the_training_examples(solver):
    problem, theta = network()
    call = (problem, theta, None, 2.0)
    every, same = (
        influence.damped_effects(*call, test=test, solver=solver) for test in (None, problem)
    )
    for one, other in zip(every[:3], same[:3]):
        np.testing.assert_array_equal(one, other)


def test_a_test_risk_of_another_model_of_the_same_size_is_refused():
    problem, theta = network()
    other = perceptron(0, 3, 4, 1)
    again = Risk(other, risk.squared, problem.X.numpy(), problem.y.numpy())
    influence.damped_effects(problem, theta, damping=1.0, test=again)  # the same function

    def cubic(theta, x):
        return other(theta, x) ** 3

    wrong = Risk(cubic, risk.squared, problem.X.numpy(), problem.y.numpy(), d=problem.d)
    for call in (
        lambda: influence.damped_effects(problem, theta, damping=1.0, test=wrong),
        lambda: top(problem, theta, wrong, 3, damping=1.0),
    ):
        with pytest.raises(ValueError, match="must have the model of the risk"):
            call()
    with pytest.raises(TypeError, match="test must be a Risk; got list"):
        top(problem, theta, [1], 3)


FAMILIES = {
    "logistic": (risk.logistic, sm.families.Binomial()),
    "poisson": (risk.poisson, sm.families.Poisson()),
    "squared": (risk.squared, sm.families.Gaussian()),
}


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", FAMILIES)
def test_glm_diagnostics_are_those_of_statsmodels(name, seed):
    rng = np.random.default_rng(seed)
    X, f = data.regression(rng, 40, 3, condition=3, noise=0.1)
    f = f / np.abs(f).max()
    y = {"logistic": rng.random(40) < 1 / (1 + np.exp(-f)), "poisson": rng.poisson(np.exp(f))}
    y = np.asarray(y.get(name, f + rng.standard_normal(40)), dtype=float)
    loss, family = FAMILIES[name]
    problem = Risk(risk.linear, loss, X, y)
    theta = response.minimise(problem).theta
    theirs = sm.GLM(y, X, family=family).fit(tol=1e-14, maxiter=200).get_influence()
    found = diagnostics(problem, theta)
    np.testing.assert_allclose(found.leverage, theirs.hat_matrix_diag, rtol=1e-9)
    np.testing.assert_allclose(found.pearson, theirs.results.resid_pearson, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found.studentised, theirs.resid_studentized, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(found.cooks_distance, theirs.cooks_distance[0], rtol=1e-7)
    assert found.leverage.sum() == pytest.approx(3, rel=1e-12)
    doubled = diagnostics(problem, theta, np.full(40, 2.0))
    np.testing.assert_allclose(doubled.leverage, found.leverage, rtol=1e-12)
    np.testing.assert_allclose(doubled.pearson, np.sqrt(2) * found.pearson, rtol=1e-12)


def test_the_dispersion_is_that_of_any_quadratic_loss_and_needs_a_minimiser():
    X, y = data.regression(0, 30, 3)
    half = Risk(risk.linear, risk.squared, X, y)
    theta = response.minimise(half).theta
    expected = diagnostics(half, theta)
    for loss in (torch.nn.MSELoss(), torch.nn.functional.mse_loss):  # twice the squared loss
        found = diagnostics(Risk(risk.linear, loss, X, y), theta)
        np.testing.assert_allclose(found.cooks_distance, expected.cooks_distance, rtol=1e-12)
        np.testing.assert_allclose(found.studentised, expected.studentised, rtol=1e-12)
    with pytest.raises(influence.NotStationary, match="theta must be stationary"):
        diagnostics(half, theta + 0.1)


def test_glm_diagnostics_need_one_output_and_tell_a_leverage_of_1():
    X = np.vstack([np.eye(2)[[0] * 6], [[0, 1]]])
    problem = Risk(risk.linear, risk.squared, X, np.arange(7.0))
    with pytest.warns(UserWarning, match="example 6 have no Cook's distance"):
        found = diagnostics(problem, response.minimise(problem).theta)
    assert np.isnan(found.cooks_distance[6]) and np.isfinite(found.cooks_distance[:6]).all()
    three = Risk(lambda t, x: t.reshape(3, 2) @ x, risk.cross_entropy, X, np.arange(7) % 3, d=6)
    with pytest.raises(ValueError, match="one output an example; this model has 3"):
        diagnostics(three, np.zeros(6))


def test_a_warning_points_at_the_line_that_asked():
    X, y = np.vstack([np.eye(2)[[0] * 6], [[0, 1]]]), np.arange(7.0)
    problem = Risk(risk.linear, risk.squared, X, y)
    with pytest.warns(UserWarning, match="Cook's distance") as told:
        diagnostics(problem, response.minimise(problem).theta)
    assert told[0].filename == __file__
    rows = np.array([[1.0], [2.0], [-1.0]])
    odd = Risk(lambda t, x: torch.log(x @ t.exp()), risk.squared, rows, y[:3], d=1)
    with pytest.warns(UserWarning, match="have no influence") as told:
        influence.influence(odd, [0.5], [1.0, 1.0, 0.0], tol=1e3)
    assert told[0].filename == __file__


def test_the_effects_of_an_example_that_is_not_finite_are_told():
    X, y = data.regression(0, 12, 3)
    X = np.abs(X)
    X[4] = -1

    def model(theta, x):
        return torch.log(x.sum()) + x @ theta

    problem = Risk(model, risk.squared, X, y, d=3)
    w, theta = np.ones(12), np.ones(3)
    w[4] = 0
    others = problem.subset(np.flatnonzero(w))
    for call in (
        lambda p, w: influence.damped_influence(p, theta, w, 1.0),
        lambda p, w: self_influence(p, theta, w, 1.0, run=Run(jobs=1, progress=False)),
        lambda p, w: influence.damped_effects(p, theta, w, 1.0).own,
        lambda p, w: influence.damped_effects(p, theta, w, 1.0, solver="dual").losses[0],
    ):
        with pytest.warns(UserWarning, match="example 4 have no influence"):
            found = call(problem, w)
        assert np.isnan(found[4]).all()
        np.testing.assert_allclose(np.delete(found, 4, 0), call(others, None), rtol=1e-9)
    first = problem.subset([4, 0, 1, 2])  # whose outputs are told from no other's
    with pytest.warns(UserWarning, match="example 0 have no influence"):
        found = influence.damped_effects(first, theta, [0, 1, 1, 1], 1.0)
    assert np.isnan(found.losses[0]).all() and np.isfinite(found.losses[1:, 1:]).all()
    with pytest.raises(risk.NotFinite, match="example 4 is not"):
        influence.damped_influence(problem, theta, damping=1.0)


def test_the_influences_on_all_losses_are_refused_one_byte_below_what_is_stated():
    found = Risk(risk.linear, risk.squared, *data.regression(0, 30, 4), lam=1.0)
    theta = response.minimise(found).theta
    needed = 8 * (30**2 + 3 * 30 * 4 + 4 * 4**2)
    assert influence.loss_influence(found, theta, memory=needed).shape == (30, 30)
    with pytest.raises(solvers.OutOfMemory) as refusal:
        influence.loss_influence(found, theta, memory=needed - 1)
    assert refusal.value.needed == needed


def test_of_equal_effects_the_first_examples_are_named():
    X = np.zeros((60, 2))
    X[::7] = np.random.default_rng(0).standard_normal((9, 2))
    found = Risk(risk.linear, risk.squared, X, np.ones(60), lam=1.0)
    most = top(found, [0.1, 0.2], Risk(risk.linear, risk.squared, [[1.0, 1.0]], [0.0]), 60)
    assert sorted(most.examples[0][:9]) == list(range(0, 60, 7))
    assert most.examples[0][9:].tolist() == [i for i in range(60) if i % 7]


def test_what_is_no_risk_is_named():
    for call in (
        influence.damped_influence,
        influence.damped_effects,
        influence.loss_influence,
        influence.influence,
        influence.diagnostics,
        influence.self_influence,
        lambda *given: influence.newton_step(*given, 0),
        lambda *given: top(*given, 0, 1),
    ):
        with pytest.raises(TypeError, match="risk must be a Risk; got int"):
            call(3, [0.0])
    problem, theta = cancer()
    for call in (
        lambda: self_influence(problem, theta, run=None),
        lambda: top(problem, theta, problem, 1, run=None),
    ):
        with pytest.raises(TypeError, match="run must be a Run; got NoneType"):
            call()


@pytest.mark.parametrize("block", [1, 3, 2**24])
@pytest.mark.parametrize("odd", [-1.0, 0.0])  # its gradient NaN, infinite
def test_an_effect_that_is_not_finite_is_behind_all_others(odd, block, monkeypatch):
    X = np.array([[odd], [1.5], [2.0], [3.0]])
    found = Risk(lambda t, x: torch.log(x[0]) * t[0], risk.squared, X, np.ones(4), lam=1.0)
    test, w = Risk(found.model, risk.squared, X[2:], np.zeros(2)), np.array([0.0, 1, 1, 1])
    expected = top(found.subset([1, 2, 3]), [0.3], test, 3, damping=1.0)
    monkeypatch.setattr(risk.tensors, "BLOCK", block)
    for k in (2, 3, 4):
        most = top(found, [0.3], test, k, weights=w, damping=1.0)
        np.testing.assert_array_equal(most.examples[:, :3], 1 + expected.examples[:, :k])
        np.testing.assert_allclose(most.effects[:, :3], expected.effects[:, :k], rtol=1e-12)
        assert np.isnan(most.effects[:, 3:]).all()


def weighted(seed=0):
    """A logistic fit in which an example has the weight 0, and its θ."""
    X, y = data.classification(seed, 30, 3)
    w = np.random.default_rng(seed).uniform(0.5, 2, 30)
    w[4] = 0
    problem = Risk(risk.linear, risk.logistic, X, y)
    return problem, response.minimise(problem, weights=w).theta, w


def test_diagnostics_of_weighted_examples_by_their_definition():
    problem, theta, w = weighted()
    X, f = problem.X.numpy(), problem.X.numpy() @ theta
    mean = 1 / (1 + np.exp(-f))
    spread = mean * (1 - mean)
    G = (X.T * (w * spread)) @ X
    h = w * spread * np.einsum("ij,ij->i", X, np.linalg.solve(G, X.T).T)
    some = w > 0
    pearson = np.sqrt(w) * (problem.y.numpy() - mean) / np.sqrt(spread)
    for phi in (None, 2.0):
        found = diagnostics(problem, theta, w, dispersion=phi)
        np.testing.assert_allclose(found.leverage, h, rtol=1e-10, atol=1e-15)
        np.testing.assert_allclose(found.pearson[some], pearson[some], rtol=1e-10)
        studentised = (pearson / np.sqrt((phi or 1.0) * (1 - h)))[some]
        np.testing.assert_allclose(found.studentised[some], studentised, rtol=1e-10)
        cooks = studentised**2 * (h / (1 - h))[some] / 3
        np.testing.assert_allclose(found.cooks_distance[some], cooks, rtol=1e-10)
    for bad in (0.0, -1.0):
        with pytest.raises(ValueError, match="dispersion must be"):
            diagnostics(problem, theta, w, dispersion=bad)


@pytest.mark.parametrize("loss", [risk.squared, risk.logistic])
def test_diagnostics_with_a_weight_of_0_are_those_without_the_example(loss):
    X, y = data.regression(1, 20, 3)
    y = y if loss is risk.squared else np.random.default_rng(1).random(20) < 0.5
    w = np.ones(20)
    w[4] = 0
    whole = Risk(risk.linear, loss, X, y)
    theta, rest = response.minimise(whole, weights=w).theta, np.flatnonzero(w)
    found, less = diagnostics(whole, theta, w), diagnostics(whole.subset(rest), theta)
    for name in found._fields:
        np.testing.assert_allclose(getattr(found, name)[rest], getattr(less, name), rtol=1e-10)
        assert getattr(found, name)[4] == 0, name


def test_the_dispersion_of_weighted_examples_by_its_definition():
    X, y = data.regression(0, 20, 3)
    w = np.linspace(0.5, 3, 20)
    problem = Risk(risk.linear, risk.squared, X, y)
    theta = response.minimise(problem, weights=w).theta
    found = diagnostics(problem, theta, w)
    left = np.sqrt(w) * (y - X @ theta)
    expected = left / np.sqrt(left @ left / (20 - 3) * (1 - found.leverage))
    np.testing.assert_allclose(found.studentised, expected, rtol=1e-10)


def test_results_that_are_kept_are_those_of_the_same_call(tmp_path):
    problem, theta = cancer()
    test, run = problem.subset([1, 2]), Run(tmp_path / "top", 1, False)
    call = {"test": test, "k": 2, "damping": 1.0, "matrix": "hessian", "run": run}
    whole = top(problem, theta, **call)
    for change, words in (
        ({"k": 3}, "k was 2, now 3"),
        ({"test": problem.subset([1, 3])}, "test was"),
        ({"damping": 2.0}, "damping was"),
        ({"matrix": "gauss_newton"}, "matrix was"),
        ({"weights": np.full(60, 2.0)}, "at was"),
    ):
        with pytest.raises(BadCache, match=words):
            top(problem, theta, **call | change)
    with pytest.raises(BadCache, match="at was"):
        top(problem, theta + 1e-9, **call)
    for one, other in zip(top(problem, theta, **call), whole):
        np.testing.assert_array_equal(one, other)
    own = Run(tmp_path / "own", 1, False)
    self_influence(problem, theta, damping=1.0, run=own)
    for options in ({"damping": 2.0}, {"damping": 1.0, "matrix": "gauss_newton"}):
        with pytest.raises(BadCache, match="damping was|matrix was"):
            self_influence(problem, theta, **options, run=own)


def test_an_example_of_a_later_block_is_named_by_its_own_number(monkeypatch):
    X = np.abs(data.regression(0, 12, 3)[0])
    X[[8, 10]] = -1

    def model(theta, x):
        return torch.log(x.sum()) + x @ theta

    problem, w = Risk(model, risk.squared, X, np.ones(12), d=3), np.ones(12)
    w[[8, 10]] = 0
    monkeypatch.setattr(risk.tensors, "BLOCK", 7 * 3)
    with pytest.warns(UserWarning, match="example 8, and 1 others have no influence"):
        found = self_influence(problem, np.ones(3), w, 1.0, run=Run(jobs=1, progress=False))
    assert list(np.flatnonzero(np.isnan(found))) == [8, 10]
    with pytest.raises(risk.NotFinite, match="test must have finite gradients; example 8 has none"):
        top(problem, np.ones(3), problem, 1, w, 1.0)


def test_on_the_way_to_no_minimum_there_is_no_influence():
    """Classes that x = 1 separates and x = 0 does not: the risk falls for ever along x."""
    X = np.column_stack([np.ones(10), np.arange(10) > 5]).astype(float)
    y = np.array([0, 1, 0, 1, 1, 0, 1, 1, 1, 1.0])
    theta = np.array([0.0, 25.0])
    with pytest.raises(influence.NotStationary, match="falls for ever, as where classes are sep"):
        influence.influence(Risk(risk.linear, risk.logistic, X, y), theta)
    mended = Risk(risk.linear, risk.logistic, X, y, lam=1e-3)
    assert np.isfinite(influence.influence(mended, response.minimise(mended).theta)).all()


def test_how_stationary_a_point_must_be_is_asked_of_the_size_of_the_terms():
    X, y = data.regression(0, 30, 3)
    b = np.array([3.0, -2.0, 1.0])
    problem = Risk(risk.linear, risk.squared, X, y, lam=0.5, b=b)
    there = response.minimise(problem).theta
    w = np.linspace(0.5, 2, 30)
    for weights in (None, w):
        start = there if weights is None else response.minimise(problem, weights=w).theta
        theta = start + 1e-4
        slope = np.linalg.norm(problem.gradient(theta, weights))
        each = np.linalg.norm(problem.gradients(theta), axis=1)
        size = (w if weights is not None else np.ones(30)) @ each
        relative = slope / (size + np.linalg.norm(0.5 * theta) + np.linalg.norm(b))
        assert influence.influence(problem, theta, weights, tol=1.001 * relative).shape == (30, 3)
        with pytest.raises(influence.NotStationary) as error:
            influence.influence(problem, theta, weights, tol=0.999 * relative)
        assert error.value.gradient_norm == pytest.approx(relative, rel=1e-12)
        with pytest.raises(influence.NotStationary, match="tol = 1e-06"):
            influence.influence(problem, theta, weights)
        loose = start + 1e-7
        influence.influence(problem, loose, weights)
    nothing = Risk(risk.linear, risk.squared, X, np.zeros(30))
    np.testing.assert_array_equal(influence.influence(nothing, np.zeros(3)), np.zeros((30, 3)))


def test_without_a_damping_it_is_0():
    problem, theta = cancer()
    for call in (
        lambda *damping: self_influence(problem, theta, None, *damping),
        lambda *damping: top(problem, theta, problem, 2, None, *damping).effects,
        lambda *damping: influence.damped_influence(problem, theta, None, *damping),
        lambda *damping: influence.damped_effects(problem, theta, None, *damping).losses,
    ):
        np.testing.assert_array_equal(call(), call(0.0))


def test_how_stationary_a_point_must_be_goes_through_to_the_influence_on_losses():
    problem, theta = cancer()
    with pytest.raises(influence.NotStationary) as error:
        influence.loss_influence(problem, theta + 0.01)
    assert len(error.value.args) == 1
    tol = error.value.gradient_norm  # itself will do
    found = influence.loss_influence(problem, theta + 0.01, tol=tol)
    moves = influence.influence(problem, theta + 0.01, tol=tol)
    np.testing.assert_array_equal(found, problem.gradients(theta + 0.01) @ moves.T)


def test_whether_the_risk_falls_for_ever_is_asked_where_the_gradient_is_small_alone():
    X, y = data.regression(0, 30, 3)
    problem = Risk(risk.linear, risk.squared, X, y)
    theta = response.minimise(problem).theta + 0.1
    moves = -np.linalg.solve(X.T @ X, (X * (X @ theta - y)[:, None]).T).T
    np.testing.assert_allclose(influence.influence(problem, theta, tol=1.0), moves, rtol=1e-9)


def test_a_point_is_no_more_stationary_where_the_terms_are_small():
    X, y = data.regression(0, 30, 3)
    problem = Risk(risk.linear, risk.squared, 1e-3 * X, 1e-3 * y)
    with pytest.raises(influence.NotStationary) as error:
        influence.influence(problem, np.ones(3))
    assert error.value.gradient_norm > 0.01


def test_one_process_does_it_unless_more_are_asked_for(monkeypatch):
    problem, theta = cancer()
    whole = self_influence(problem, theta), top(problem, theta, problem, 3)

    def parallel(**options):
        raise AssertionError(options)

    monkeypatch.setattr("ifcore.runs.joblib.Parallel", parallel)
    monkeypatch.setattr(risk.tensors, "BLOCK", 40)
    np.testing.assert_allclose(self_influence(problem, theta), whole[0], rtol=1e-12)
    np.testing.assert_array_equal(top(problem, theta, problem, 3).examples, whole[1].examples)


@pytest.mark.parametrize("t", [2, 20])
def test_a_block_holds_so_many_numbers_whichever_is_more_parameters_or_test_examples(
    t, monkeypatch, tmp_path
):
    problem, theta = cancer()  # n = 60, d = 4
    monkeypatch.setattr(risk.tensors, "BLOCK", 80)
    run = Run(tmp_path, 1, False)
    top(problem, theta, problem.subset(range(t)), 3, run=run)
    assert len(list(tmp_path.glob("block-*.npz"))) == 60 * max(4, t) / 80


def test_memory_goes_through_to_the_factor():
    problem, theta = cancer()
    for call in (
        lambda **options: self_influence(problem, theta, **options),
        lambda **options: top(problem, theta, problem, 2, **options),
    ):
        with pytest.raises(OutOfMemory, match="the smallest factor needs"):
            call(memory=100)


def test_the_influence_on_parameters_is_refused_where_it_does_not_fit_itself():
    """5.5 n d numbers; in damped_effects too, by a solver without a matrix."""
    problem, theta = cancer()
    needed = 44 * 60 * 4
    found = influence.damped_influence(problem, theta, damping=1.0, memory=needed)
    assert found.shape == (60, 4)
    one = {"test": problem.subset([0]), "solver": "cg"}
    influence.damped_effects(problem, theta, damping=1.0, memory=needed, **one)
    for call in (
        lambda: influence.damped_influence(problem, theta, damping=1.0, memory=needed - 1),
        lambda: influence.damped_effects(problem, theta, damping=1.0, memory=needed - 1, **one),
    ):
        with pytest.raises(OutOfMemory, match="the influences on θ of n = 60") as refusal:
            call()
        assert refusal.value.needed == needed


def test_effects_by_conjugate_gradients_need_no_matrix_and_are_by_them():
    problem, theta = cancer()
    test, needed = problem.subset(np.arange(200) % 60), 8 * (60 * 200 * 2 + 4 * 60 * 4)
    options = {"damping": 1.0, "solver": "cg"}
    found = influence.damped_effects(problem, theta, test=test, memory=needed, **options)
    with pytest.raises(OutOfMemory) as refusal:
        influence.damped_effects(problem, theta, test=test, memory=needed - 1, **options)
    assert refusal.value.needed == needed
    moves = influence.damped_influence(problem, theta, **options)
    np.testing.assert_array_equal(found.own, (problem.gradients(theta) * moves).sum(1))


@pytest.mark.parametrize("solver", ["primal", "dual", "cg"])
@pytest.mark.parametrize("make, outputs", [(cancer, ()), (lambda: unlayered(30, 4), (4,))])
def test_effects_have_the_shape_of_the_outputs(make, outputs, solver):
    problem, theta = make()
    test = problem.subset(range(5))
    found = influence.damped_effects(problem, theta, damping=1.0, test=test, solver=solver)
    assert found.outputs.shape == (5, *outputs, problem.n)
    assert found.losses.shape == (5, problem.n) and found.own.shape == (problem.n,)


def test_a_test_risk_is_told_by_its_parameters_and_the_shape_of_its_inputs():
    problem, theta = cancer()
    X = problem.X.numpy()
    for model, inputs, d in (
        (lambda t, x: x @ t[:4], X, 5),  # the same outputs
        (lambda t, x: t[:3] @ x + t[3], X[:, :3], 4),
    ):
        wrong = Risk(model, risk.logistic, inputs, problem.y.numpy(), d=d)
        with pytest.raises(ValueError, match=f"d = 4 parameters; got {d}"):
            influence.damped_effects(problem, theta, damping=1.0, test=wrong)
    one = Risk(lambda t, x: x @ t, risk.logistic, X[:1], [1], d=4)
    same = influence.damped_effects(problem, theta, damping=1.0, test=problem.subset([0]))
    found = influence.damped_effects(problem, theta, damping=1.0, test=one)
    np.testing.assert_allclose(found.outputs, same.outputs, rtol=1e-12)


def rooted():
    """f = √(x₀θ₀) + x₁θ₁, with an example of weight 0 whose gradient is NaN in one entry alone."""
    X = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [3.0, -1.0]])
    problem = Risk(lambda t, x: torch.sqrt(x[0] * t[0]) + x[1] * t[1], risk.squared, X, np.ones(5))
    return problem, np.array([1.0, 0.5]), np.array([0.0, 1, 1, 1, 1])


def test_a_gradient_that_is_finite_but_for_one_entry_is_none():
    """It is the first example, by which the model of a test risk would be told."""
    problem, theta, w = rooted()
    gradients = problem.gradients(theta)
    assert np.isnan(gradients[0]).tolist() == [True, False]
    moves = -np.linalg.solve(problem.subset(range(1, 5)).gauss_newton(theta), gradients[1:].T).T
    with pytest.warns(UserWarning, match="example 0 have no influence"):
        found = influence.damped_influence(problem, theta, w)
    assert np.isnan(found[0]).all()
    np.testing.assert_allclose(found[1:], moves, rtol=1e-12)
    with pytest.warns(UserWarning, match="example 0 have no influence"):
        effects = influence.damped_effects(problem, theta, w, test=problem.subset(range(5)))
    np.testing.assert_allclose(effects.own[1:], (gradients[1:] * moves).sum(1), rtol=1e-12)
    with pytest.raises(risk.NotFinite, match="example 0 has none"):
        top(problem, theta, problem, 1, w, 1.0)
    none = "some example must have a finite gradient"
    with pytest.warns(UserWarning), pytest.raises(risk.NotFinite, match=none) as error:
        influence._by_rows(problem.subset([0, 0]), theta, None)
    assert error.value.examples.tolist() == [0, 1]


def test_a_loss_without_a_second_derivative_is_named_before_any_point():
    with pytest.warns(UserWarning, match="second derivative"):
        found = Risk(
            risk.linear, lambda f, y: networks.Once.apply(f - y), np.eye(3), np.zeros(3), lam=1.0
        )
    with pytest.raises(risk.NotDifferentiable):
        influence.influence(found, np.ones(3))


@pytest.mark.parametrize("seed", range(6))
def test_a_leverage_that_is_1_up_to_rounding_is_1(seed):
    """An example alone in its direction, in a basis that hides it."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([rng.standard_normal((400, 3)), np.eye(400)[7]])
    X = X @ np.linalg.qr(rng.standard_normal((4, 4)))[0]
    problem = Risk(risk.linear, risk.squared, X, rng.standard_normal(400))
    with pytest.warns(UserWarning, match="example 7 have no Cook's distance"):
        found = diagnostics(problem, response.minimise(problem).theta)
    assert np.flatnonzero(np.isnan(found.cooks_distance)).tolist() == [7]
    assert found.leverage[7] == pytest.approx(1, abs=1e-11)


def test_a_loss_is_quadratic_only_where_its_second_derivative_is_one_number():
    """Whatever its unit; and by ever so little it is not."""
    X, y = data.regression(0, 30, 3)

    def nearly(u, v):
        return (u - v) ** 2 / 2 + 1e-9 * (u - v) ** 4

    def slight(u, v):
        return 1e-12 * risk.logistic(u, v)

    for loss, targets in ((nearly, y), (slight, (y > 0).astype(float))):
        problem = Risk(risk.linear, loss, X, targets)
        theta = response.minimise(problem).theta
        found, given = (diagnostics(problem, theta, dispersion=phi) for phi in (None, 1.0))
        np.testing.assert_array_equal(found.studentised, given.studentised)


@pytest.mark.filterwarnings("error")
def test_an_example_whose_loss_is_flat_has_no_pearson_residual_and_says_nothing():
    X, y = data.classification(0, 30, 2)
    X = np.vstack([X, [2000.0, 0.0]])
    y = np.append(y, 1.0)
    problem = Risk(risk.linear, risk.logistic, X, y)
    w = np.append(np.ones(30), 0.0)
    theta = response.minimise(problem, weights=w).theta
    X[30] *= np.sign(theta[0])
    problem = Risk(risk.linear, risk.logistic, X, y)
    found, less = diagnostics(problem, theta), diagnostics(problem.subset(range(30)), theta)
    assert np.isnan(found.pearson[30]) and found.leverage[30] == 0
    np.testing.assert_allclose(found.cooks_distance[:30], less.cooks_distance, rtol=1e-9)


def test_a_newton_step_is_an_array_whatever_theta_came_as():
    problem, theta = cancer()
    expected = influence.newton_step(problem, theta, 3)
    for given in (torch.from_numpy(theta), theta.tolist()):
        found = influence.newton_step(problem, given, 3)
        assert type(found) is np.ndarray
        np.testing.assert_array_equal(found, expected)
