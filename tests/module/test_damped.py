"""Networks, the four solvers, damped influence and the proximal responses: what they report, how they choose, and what they refuse."""

import numpy as np
import pytest
import torch

from ifcore import data, influence, proximal, risk, solvers
from ifcore.network import Network
from ifcore.risk import NotConvex, Risk
from ifcore.runs import NotConverged
from ifcore.solvers import Diverged, NotPositiveDefinite, OutOfMemory
from ifcore.weights import without


def module(outputs=1):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, outputs))


def problem(n=12, outputs=1, lam=0.0):
    rng = np.random.default_rng(0)
    y = rng.integers(0, outputs, n) if outputs > 1 else rng.standard_normal(n)
    return Risk(
        Network(module(outputs)),
        risk.cross_entropy if outputs > 1 else risk.squared,
        rng.standard_normal((n, 3)),
        y,
        lam,
    )


def welsch(u, y):
    return 1 - torch.exp(-((u - y) ** 2) / 2)


def test_a_network_is_a_copy_in_double_precision_whose_module_comes_back():
    torch_module = module()
    net = Network(torch_module)
    before = net.theta.copy()
    with torch.no_grad():
        next(torch_module.parameters()).add_(1)
    x = torch.randn(5, 3, dtype=torch.float64)
    back = net.module(net.theta + 1)
    np.testing.assert_array_equal(net.theta, before)
    expected = torch.stack([net(torch.from_numpy(net.theta + 1), row) for row in x])
    np.testing.assert_allclose(back(x)[:, 0].detach(), expected, rtol=1e-14)
    assert net.d == 21 and net.theta.dtype == np.float64


def test_frozen_parameters_and_reused_layers():
    frozen = module()
    frozen[0].requires_grad_(False)
    assert Network(frozen).d == 5

    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(torch.tanh(self.layer(x)))[:, :1]

    torch.manual_seed(0)
    X = np.random.default_rng(0).standard_normal((6, 3))
    twice = Risk(Network(Twice()), risk.squared, X, np.zeros(6))
    assert not twice.layered  # each layer once is what the kernel by layers needs
    J = twice.jacobian(twice.model.theta)
    step, v = 1e-6, np.random.default_rng(1).standard_normal(twice.d)
    slope = (
        twice.outputs(twice.model.theta + step * v) - twice.outputs(twice.model.theta - step * v)
    ) / (2 * step)
    np.testing.assert_allclose(J @ v, slope, rtol=1e-7, atol=1e-8)


class Neighbours(torch.nn.Module):
    """Its outputs depend on the other examples of the batch."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, x):
        return self.layer(x - x.mean(0))


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: Network(lambda x: x), TypeError, "module must be a torch.nn.Module; got function"),
        (
            lambda: Network(torch.nn.Tanh()),
            ValueError,
            "a parameter that requires a gradient; got none",
        ),
        (
            lambda: Risk(Network(Neighbours()), risk.squared, np.eye(3), np.zeros(3)),
            ValueError,
            "one by one",
        ),
        (
            lambda: Risk(Network(module()), risk.cross_entropy, np.eye(3), [0, 1, 0]),
            ValueError,
            r"cross_entropy needs .* \(K,\)",
        ),
        (
            lambda: Risk(Network(module(2)), risk.cross_entropy, np.eye(3), [0, 1, 2]),
            ValueError,
            "2",
        ),
        (
            lambda: Risk(Network(module(2)), risk.squared, np.eye(3), np.zeros(3)),
            ValueError,
            r"\(3, 2\); got \(3,\)",
        ),
        (
            lambda: Risk(Network(module()), risk.squared, np.ones((3, 4)), np.zeros(3)),
            ValueError,
            "the model must take",
        ),
        (
            lambda: risk.bregman(risk.squared, [1.0, 2], [1.0], 0.0),
            ValueError,
            r"one shape; got \(2,\) and \(1,\)",
        ),
        (
            lambda: problem().gauss_newton_product(np.zeros(21), np.ones(20)),
            ValueError,
            r"V must be \(21,\) or \(21, r\); got \(20,\)",
        ),
        (
            lambda: solvers.solve(problem(), np.zeros(21), np.ones(20), damping=1.0),
            ValueError,
            r"v must be \(21,\) .* got \(20,\)",
        ),
        (
            lambda: solvers.solve(problem(), np.zeros(21), np.ones(21), damping=-1.0),
            ValueError,
            "damping must be a number at least 0; got -1",
        ),
        (
            lambda: solvers.solve(
                problem(), np.zeros(21), np.ones(21), damping=1.0, matrix="fisher"
            ),
            ValueError,
            "matrix must be .* got 'fisher'",
        ),
        (
            lambda: solvers.solve(problem(), np.zeros(21), np.ones(21), damping=1.0, solver="lu"),
            ValueError,
            "solver must be .* got 'lu'",
        ),
        (
            lambda: solvers.solve(
                problem(), np.zeros(21), np.ones(21), damping=1.0, solver="dual", tol=1e-3
            ),
            TypeError,
            "tol; the solver is 'dual'",
        ),
        (
            lambda: solvers.solve(
                problem(), np.zeros(21), np.ones(21), damping=1.0, matrix="hessian", solver="dual"
            ),
            ValueError,
            "got 'dual'",
        ),
        (lambda: solvers.cg(np.eye(2), np.ones(3)), ValueError, r"got \(2, 2\) and \(3,\)"),
        (
            lambda: solvers.cg(np.eye(2), np.ones(2), tol=0),
            ValueError,
            "tol must be positive; got 0",
        ),
        (
            lambda: solvers.cg(np.eye(2), np.ones(2), max_steps=0),
            ValueError,
            "max_steps must be an integer at least 1; got 0",
        ),
        (
            lambda: solvers.lissa(np.eye(2), np.ones(2), scale=-1),
            ValueError,
            "scale must be a number at least 0; got -1",
        ),
        (lambda: solvers.dual(np.eye(2), np.ones(3), 1.0), ValueError, r"got \(3,\) and \(2, 2\)"),
        (
            lambda: solvers.solve(
                problem(), np.zeros(21), np.ones(21), damping=1.0, solver="lissa", batch=13
            ),
            ValueError,
            "at most n = 12; got 13",
        ),
        (
            lambda: influence.damped_effects(
                problem(), np.zeros(21), damping=1.0, test=problem(outputs=2)
            ),
            ValueError,
            "d = 21 parameters; got 26",
        ),
        (
            lambda: proximal.pbrf(problem(), np.zeros(21), np.ones(11), 1.0),
            ValueError,
            r"weights must have shape \(12,\)",
        ),
        (
            lambda: proximal.pbrf(problem(), np.zeros(20), np.ones(12), 1.0),
            ValueError,
            "theta must have length d = 21; got 20",
        ),
        (
            lambda: proximal.pbrf(problem(), np.zeros(21), np.ones(12), -1.0),
            ValueError,
            "damping must be a number at least 0; got -1",
        ),
        (
            lambda: proximal.damped(problem(), np.zeros(21), np.ones(12), 1.0, tol=0),
            ValueError,
            "tol must be positive; got 0",
        ),
        (
            lambda: proximal.damped(problem(), np.zeros(21), np.ones(12), 1.0, block=0),
            ValueError,
            "block must be an integer at least 1",
        ),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_the_solver_is_chosen_by_size_and_memory():
    few, many = problem(12), problem(40)
    v = np.ones(21)
    assert (
        solvers.solve(few, np.zeros(21), v, damping=1.0).solver == "dual"
    )  # 12 outputs, 21 parameters
    assert solvers.solve(many, np.zeros(21), v, damping=1.0).solver == "primal"
    assert solvers.solve(few, np.zeros(21), v, damping=1.0, memory=100).solver == "cg"
    assert solvers.solve(few, np.zeros(21), v, damping=100.0, matrix="hessian").solver == "primal"
    assert influence.damped_effects(few, np.zeros(21), damping=1.0).solver == "dual"


def test_memory_is_bounded_by_the_caller_and_the_refusal_says_how_much():
    found, v = problem(), np.ones(21)
    for name in ("dual", "primal"):
        with pytest.raises(
            OutOfMemory,
            match=f"the {name} form needs .* memory allows 0 MiB. .*solver='cg' avoids it",
        ) as refusal:
            solvers.solve(found, np.zeros(21), v, damping=1.0, solver=name, memory=1000)
        needed = refusal.value.needed
        assert (
            solvers.solve(found, np.zeros(21), v, damping=1.0, solver=name, memory=needed).solver
            == name
        )
    with pytest.raises(
        OutOfMemory, match="n = 12 examples need .* damped_effects in the dual form avoids it"
    ):
        influence.damped_influence(found, np.zeros(21), damping=1.0, memory=1000)


def test_no_damping_where_it_is_needed():
    found = problem()
    with pytest.raises(
        NotPositiveDefinite, match="its smallest eigenvalue is .* would mend it"
    ) as refusal:
        solvers.solve(found, found.model.theta, np.ones(21), damping=0.0, solver="primal")
    assert abs(refusal.value.smallest) < 1e-12  # 12 outputs cannot span 21 parameters
    with pytest.raises(NotPositiveDefinite, match="the dual form needs λ > .* got λ = 0"):
        solvers.solve(found, found.model.theta, np.ones(21), damping=0.0, solver="dual")
    with pytest.raises(NotPositiveDefinite):
        influence.damped_influence(found, found.model.theta, damping=0.0, solver="primal")


def test_a_loss_that_is_not_convex_is_named_with_the_example():
    rng = np.random.default_rng(0)
    found = Risk(Network(module()), welsch, rng.standard_normal((12, 3)), np.r_[np.zeros(11), 3.0])
    for call in (
        lambda: solvers.solve(found, found.model.theta, np.ones(21), damping=1.0, solver="dual"),
        lambda: proximal.pbrf(found, found.model.theta, np.ones(12), 1.0),
    ):
        with pytest.raises(
            NotConvex, match="at example 11 its Hessian has the eigenvalue"
        ) as refusal:
            call()
        assert refusal.value.example == 11 and refusal.value.smallest < 0
    G = found.gauss_newton(found.model.theta)
    short = max(0.0, -np.linalg.eigvalsh(G)[0])
    assert short > 0
    with pytest.raises(NotPositiveDefinite, match="G_w must be positive definite"):
        solvers.solve(found, found.model.theta, np.ones(21), damping=short / 2, solver="primal")
    damped = G + 2 * short * np.eye(21)
    assert solvers.solve(
        found, found.model.theta, np.ones(21), damping=2 * short, solver="primal"
    ).residual < 1e-15 * np.linalg.cond(damped)


def test_an_indefinite_matrix_stops_the_iterations():
    C = np.diag([3.0, 1.0, -1.0])
    with pytest.raises(
        NotPositiveDefinite, match="conjugate gradients met the curvature .* λ = 0.5"
    ) as refusal:
        solvers.cg(C, np.ones(3), 0.5)
    assert refusal.value.smallest <= 0
    with pytest.raises(
        NotPositiveDefinite, match="LiSSA grows along a direction of curvature -5.00e-01"
    ) as refusal:
        solvers.lissa(C, np.ones(3), 0.5)
    assert refusal.value.smallest == pytest.approx(-0.5, rel=1e-2)


def test_a_diverging_lissa_names_a_scale_that_converges():
    C = np.diag([10.0, 1.0])
    with pytest.raises(
        Diverged,
        match="after .* steps at scale = 4, which must exceed λ_max/2; .* try scale = 10.5",
    ) as failure:
        solvers.lissa(C, np.ones(2), scale=4.0)
    assert failure.value.steps > 1
    again = solvers.lissa(C, np.ones(2), scale=failure.value.scale)
    assert again.converged and np.allclose(again.x, [0.1, 1.0], rtol=1e-8)


def test_lissa_follows_its_error_formula():
    C, v, sigma = np.diag([4.0, 1.0, 0.5]), np.array([1.0, -2.0, 3.0]), 5.0
    x = v / np.diag(C)
    for steps in (1, 7, 40):
        found = solvers.lissa(C, v, scale=sigma, tol=1e-16, max_steps=steps)
        np.testing.assert_allclose(
            found.x - x, -((1 - np.diag(C) / sigma) ** (steps + 1)) * x, rtol=1e-10, atol=1e-15
        )
        assert found.steps == steps and not found.converged
        assert found.residual == pytest.approx(
            np.linalg.norm(C @ found.x - v) / np.linalg.norm(v), rel=1e-10
        )


def test_minibatches_of_lissa_depend_on_the_seed_and_average_to_the_answer():
    found = problem(40)
    theta, v = found.model.theta, np.ones(21)
    exact = solvers.solve(found, theta, v, damping=20.0).x
    one, two, same = (
        solvers.solve(
            found,
            theta,
            v,
            damping=20.0,
            solver="lissa",
            batch=10,
            seed=s,
            max_steps=300,
            scale=300.0,
        ).x
        for s in (0, 1, 0)
    )
    np.testing.assert_array_equal(one, same)
    assert 0 < np.linalg.norm(one - two) < 0.5 * np.linalg.norm(exact)
    many = np.mean(
        [
            solvers.solve(
                found,
                theta,
                v,
                damping=20.0,
                solver="lissa",
                batch=10,
                seed=s,
                max_steps=300,
                scale=300.0,
            ).x
            for s in range(30)
        ],
        axis=0,
    )
    assert np.linalg.norm(many - exact) < np.linalg.norm(one - exact)


def test_conjugate_gradients_report_what_is_left():
    C = np.diag(np.geomspace(1, 1e6, 30))
    found = solvers.cg(C, np.ones(30), max_steps=3)
    assert not found.converged and found.steps == 3
    assert found.residual == pytest.approx(np.linalg.norm(C @ found.x - 1) / np.sqrt(30), rel=1e-10)
    full = solvers.cg(
        C, np.eye(30)[:, :5], tol=1e-12, preconditioner=lambda V: V / np.diag(C)[:, None]
    )
    assert full.converged and full.steps <= 2
    nothing = solvers.cg(C, np.zeros(30))
    assert nothing.converged and nothing.residual == 0 and nothing.steps == 0


def test_nothing_removed_is_nothing_moved():
    found = problem(lam=0.1)
    theta = found.model.theta
    still = proximal.pbrf(found, theta, np.ones(12), 1.0)
    np.testing.assert_array_equal(still.theta, theta)
    assert still.gradient_norm == 0 and still.steps == 0 and still.status == "converged"


@pytest.mark.parametrize("respond", [proximal.pbrf, proximal.damped])
def test_many_responses_at_once_are_each_alone_in_any_blocks(respond):
    found = problem(lam=0.1)
    theta, W = found.model.theta, 1 - np.eye(12)[:5]
    together = respond(found, theta, W, 2.0, tol=1e-9)
    assert (
        together.theta.shape == (5, 21)
        and (together.gradient_norm <= 1e-9).all()
        and (together.status == "converged").all()
    )
    others = respond(found, theta, W, 2.0, tol=1e-9, block=2, preconditioner=False)
    np.testing.assert_allclose(
        others.theta, together.theta, rtol=0, atol=1e-7 * np.linalg.norm(together.theta - theta)
    )
    alone = respond(found, theta, W[3], 2.0, tol=1e-9)
    assert alone.theta.shape == (21,)
    np.testing.assert_allclose(
        alone.theta, together.theta[3], rtol=0, atol=1e-7 * np.linalg.norm(alone.theta - theta)
    )


def test_an_unfinished_response_is_reported_and_kept():
    found = problem(lam=0.1)
    with pytest.raises(
        NotConverged,
        match="2 of 2 fits did not end well; the first, weight vector 0, is 'max_steps'",
    ) as failure:
        proximal.pbrf(found, found.model.theta, 1 - np.eye(12)[:2], 0.05, max_steps=1, tol=1e-12)
    kept = failure.value.reached
    assert (
        kept.theta.shape == (2, 21)
        and (kept.gradient_norm > 1e-12).all()
        and list(kept.status) == ["max_steps"] * 2
    )
    same = proximal.pbrf(
        found, found.model.theta, 1 - np.eye(12)[:2], 0.05, max_steps=1, tol=1e-12, strict=False
    )
    np.testing.assert_array_equal(same.theta, kept.theta)


def test_a_response_that_does_not_exist_diverges_and_says_so():
    """n = 1, f = θ₁θ₂, y = −3: the objective is −3θ₁θ₂ + (λ/2)‖θ‖², unbounded below for λ < 3."""
    product = Risk(
        lambda theta, x: x[0] * theta[0] * theta[1], risk.squared, [[1.0], [0.0]], [-3.0, 0.0], d=2
    )  # the second says nothing
    w = without(2, 0)
    lost = proximal.pbrf(product, [0.1, 0.0], w, 1.0, strict=False)
    assert lost.status in ("diverged", "max_steps") and lost.curvature < 0
    with pytest.raises(NotConverged, match="damping must grow by more than"):
        proximal.pbrf(product, [0.1, 0.0], w, 1.0)
    held = proximal.pbrf(product, [0.1, 0.0], w, 5.0)
    assert held.status == "converged" and held.curvature > 0


def test_the_penalty_of_the_risk_and_the_damping_add_up():
    rng = np.random.default_rng(3)
    X, y = data.regression(rng, 15, 3)
    theta = rng.standard_normal(3)
    one, two = (Risk(risk.linear, risk.squared, X, y, lam) for lam in (0.0, 2.0))
    np.testing.assert_allclose(
        influence.damped_influence(one, theta, damping=3.0),
        influence.damped_influence(two, theta, damping=1.0),
        rtol=1e-12,
    )
    for w in (without(15, 2), rng.uniform(0, 2, 15)):
        np.testing.assert_allclose(
            proximal.pbrf(one, theta, w, 3.0).theta,
            proximal.pbrf(two, theta, w, 1.0).theta,
            rtol=1e-8,
        )


def test_the_form_is_chosen_by_the_outputs_not_the_examples_and_by_all_the_damping():
    d = problem(outputs=3).d  # 31
    v = np.ones(d)
    assert (
        solvers.solve(problem(15, outputs=3), np.zeros(d), v, damping=1.0).solver == "primal"
    )  # 45 outputs
    assert solvers.solve(problem(10, outputs=3), np.zeros(d), v, damping=1.0).solver == "dual"
    assert (
        solvers.solve(problem(12, lam=1.0), np.zeros(21), np.ones(21), damping=0.0).solver == "dual"
    )
    assert (
        influence.damped_effects(problem(60), np.zeros(21), damping=1.0, memory=35_000).solver
        == "cg"
    )
    with pytest.raises(OutOfMemory) as refusal:
        solvers.solve(
            problem(12), np.zeros(21), np.ones(21), damping=1.0, solver="primal", memory=1000
        )
    short = refusal.value.needed - 1
    with pytest.raises(OutOfMemory, match="solver='dual' or solver='cg' avoids it"):
        solvers.solve(
            problem(12), np.zeros(21), np.ones(21), damping=1.0, solver="primal", memory=short
        )


def test_effects_on_other_examples_of_the_same_number():
    train, rng = problem(12), np.random.default_rng(3)
    test = Risk(train.model, risk.squared, rng.standard_normal((12, 3)), rng.standard_normal(12))
    theta = train.model.theta
    found = influence.damped_effects(train, theta, damping=1.0, test=test)
    moves = np.linalg.solve(train.gauss_newton(theta) + np.eye(21), train.gradients(theta).T)
    np.testing.assert_allclose(
        found.outputs.reshape(12, 12), -test.jacobian(theta) @ moves, rtol=1e-10, atol=1e-12
    )


def test_an_influence_that_its_solver_has_not_reached_is_refused():
    found = problem()
    with pytest.raises(NotConverged, match="lissa has the residual .* after .* steps") as refusal:
        influence.damped_influence(found, found.model.theta, damping=1e-8, solver="lissa")
    assert refusal.value.reached.residual > 1e-6


@pytest.mark.parametrize("how", ["pbrf", "damped"])
def test_an_unfinished_response_reports_its_gradient_in_the_units_it_documents(how):
    """Against the objective as the docstring writes it, by autograd."""
    found = problem(lam=0.5)
    start, w = found.model.theta, np.linspace(0, 1.5, 12)
    got = getattr(proximal, how)(found, start, w, 0.1, max_steps=1, strict=False)
    assert got.steps == 1 and got.status == "max_steps"
    theta = torch.tensor(got.theta, requires_grad=True)
    move, weights = theta - torch.from_numpy(start), torch.from_numpy(w)
    losses = found.tensors.losses(theta)
    sizes = np.linalg.norm(found.gradients(start), axis=1)
    if how == "damped":
        value = weights @ losses + 0.25 * theta @ theta + 0.05 * move @ move
        scale = w @ sizes + 0.5 * np.linalg.norm(start)
    else:
        bregman = torch.func.vmap(
            lambda u, v, y: risk.squared(u, y) - risk.squared(v, y) - ((v - y) * (u - v)).sum()
        )
        outputs = [found.tensors.outputs(t) for t in (theta, torch.from_numpy(start))]
        value = bregman(*outputs, found.y).sum() + (weights - 1) @ losses + 0.3 * move @ move
        scale = np.abs(w - 1) @ sizes
    (gradient,) = torch.autograd.grad(value, theta)
    np.testing.assert_allclose(got.gradient_norm, gradient.norm().item() / scale, rtol=1e-9)


def test_fits_that_end_at_different_steps_do_not_disturb_each_other():
    found = problem()
    W = np.ones((4, 12))
    W[1, 3], W[2] = 0.999, without(12, 5)
    W[3] = without(12, 0)
    got = proximal.pbrf(found, found.model.theta, W, 0.5)
    assert got.steps[0] == 0 and len(set(got.steps)) > 2
    for w, theta, steps in zip(W, got.theta, got.steps):
        alone = proximal.pbrf(found, found.model.theta, w, 0.5)
        np.testing.assert_allclose(theta, alone.theta, rtol=1e-8, atol=1e-10)
        assert steps == alone.steps


def test_a_tolerance_below_rounding_stalls_at_the_best_point():
    found = problem()
    got = proximal.pbrf(found, found.model.theta, without(12, 5), 0.5, tol=1e-30, strict=False)
    assert got.status == "stalled" and got.gradient_norm < 1e-13
    good = proximal.pbrf(found, found.model.theta, without(12, 5), 0.5)
    np.testing.assert_allclose(got.theta, good.theta, rtol=1e-8)


def test_a_sampled_lissa_damps_too_and_does_not_stop_at_a_batch_that_happens_to_fit():
    C, v = np.diag([4.0, 1.0, 0.5]), np.array([1.0, -2.0, 3.0])
    found = solvers.lissa(C, v, 1.0, scale=6.0, max_steps=300, sample=lambda V: C @ V)
    np.testing.assert_allclose(found.x, v / (np.diag(C) + 1), rtol=1e-10)
    lucky = solvers.lissa(
        C, v, scale=6.0, max_steps=7, sample=lambda V: 6.0 * V
    )  # the first change is 0
    assert lucky.steps == 7 and not lucky.converged


def test_of_many_right_hand_sides_the_one_that_diverges_is_diagnosed():
    with pytest.raises(Diverged, match="try scale = 10.5"):
        solvers.lissa(np.diag([10.0, 1.0]), np.array([[0.0, 1.0], [0.0, 1.0]]), scale=4.0)


def test_the_dual_form_refuses_a_damping_below_rounding_and_names_the_smallest_eigenvalue():
    B = np.random.default_rng(0).standard_normal((5, 3))
    with pytest.raises(
        NotPositiveDefinite, match="the dual form needs λ > .*, the rounding of BBᵀ; got λ = 1e-30"
    ) as refusal:
        solvers.dual(B, np.ones(3), 1e-30)
    assert refusal.value.smallest == pytest.approx(np.linalg.svd(B)[1][-1] ** 2, rel=1e-10)


def test_a_response_refuses_a_loss_that_is_not_convex_without_a_preconditioner_too():
    rng = np.random.default_rng(0)
    found = Risk(Network(module()), welsch, rng.standard_normal((12, 3)), np.r_[np.zeros(11), 3.0])
    with pytest.raises(NotConvex, match="at example 11"):
        proximal.pbrf(found, found.model.theta, np.ones(12), 1.0, preconditioner=False)


def test_a_preconditioner_that_does_not_fit_the_memory_is_not_formed(monkeypatch):
    found, w = problem(), without(12, 5)
    full = proximal.pbrf(found, found.model.theta, w, 0.5)
    monkeypatch.setattr(
        solvers, "factor", lambda *_, **__: pytest.fail("a factor in spite of the memory")
    )
    lean = proximal.pbrf(found, found.model.theta, w, 0.5, memory=1000)
    np.testing.assert_allclose(lean.theta, full.theta, rtol=1e-8, atol=1e-10)


def test_a_response_without_bound_ends_as_diverged():
    product = Risk(
        lambda theta, x: x[0] * theta[0] * theta[1], risk.squared, [[1.0], [0.0]], [-3.0, 0.0], d=2
    )
    lost = proximal.pbrf(product, [0.1, 0.0], without(2, 0), 1.0, max_steps=200, strict=False)
    assert lost.status == "diverged" and lost.steps < 200
