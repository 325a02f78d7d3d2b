"""The posterior against grids of its own density, closed forms, and influence."""

from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
from risks import network

from ifcore import data, posterior, response, risk
from ifcore.influence import damped_influence, loss_influence
from ifcore.network import perceptron
from ifcore.risk import Risk
from ifcore.runs import Run
from ifcore.solvers import NotPositiveDefinite, Primal

LOOSE = Run(strict=False, progress=False)
BETA, GAMMA = 1.7, 0.6


def squares(d, n=7, seed=0, **options):
    X, y = data.regression(seed, n, d, condition=1 + 2 * (d > 1))
    return Risk(risk.linear, risk.squared, X, y / y.std(), **options)


def over_grid(found, at, w, beta, gamma, reach=9.0, points=241):
    """ℓ (N, n), θ (N, d) and the density's weights (N,) on a grid, by NumPy alone.

    The trapezoidal rule converges geometrically for such densities.
    """
    X, y, d = found.X.numpy(), found.y.numpy(), found.d
    sd = 1 / np.sqrt(gamma)  # at most
    axis = np.linspace(-reach * sd, reach * sd, points)
    theta = at + np.stack(np.meshgrid(*[axis] * d), -1).reshape(-1, d)
    f = theta @ X.T
    losses = (f - y) ** 2 / 2 if found.loss is risk.squared else np.logaddexp(0, f) - y * f
    b = 0 if found.b is None else theta @ found.b
    U = beta * (losses @ w + found.lam * (theta**2).sum(1) / 2 + b)
    U += gamma / 2 * ((theta - at) ** 2).sum(1)
    p = np.exp(U.min() - U)
    return losses, theta, p / p.sum()


def covariance(p, a, b):
    return ((a - p @ a) * p[:, None]).T @ (b - p @ b)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("stationary", [True, False])
def test_the_gaussian_of_least_squares_against_a_grid(d, stationary):
    """Mean and −β Cov with θ, outputs and losses, off a minimum too, with weights, λ and b."""
    found, w = squares(d, lam=0.2, b=0.3 * np.ones(d)), np.linspace(0, 2, 7)
    at = response.minimise(found, weights=w).theta + (0 if stationary else 0.4)
    losses, theta, p = over_grid(found, at, w, BETA, GAMMA, points=1201 if d == 1 else 241)
    local = posterior.gaussian(found, at, GAMMA, BETA, w)
    np.testing.assert_allclose(local.mean, p @ theta, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        local.solve(np.eye(d)), covariance(p, theta, theta), rtol=0, atol=1e-12
    )
    outputs = theta @ found.X.numpy().T
    for claimed, truth in (
        (local.influence_on_parameters(), theta),
        (local.influence_on_outputs(), outputs),
        (local.influence_on_losses(), losses),
        (local.influence_on_losses(found.subset([4, 1])), losses[:, [4, 1]]),
    ):
        truth = -BETA * covariance(p, losses, truth)
        np.testing.assert_allclose(claimed, truth, rtol=0, atol=1e-12 * np.abs(truth).max())


@pytest.mark.parametrize("K", [2, 3])
def test_of_several_outputs_the_second_term_is_the_trace(K):
    """Cross-entropy's Hessians: ½ tr(A_iP⁻¹A_kP⁻¹), A_i of one example's risk."""
    X, d = np.random.default_rng(0).standard_normal((5, 2)), 2 * K
    model = lambda t, x: t.reshape(K, 2) @ x  # noqa: E731
    found = Risk(model, risk.cross_entropy, X, np.array([0, 2, 1, 0, 1]) % K, lam=0.4, d=d)
    local = posterior.gaussian(found, np.zeros(d), GAMMA, BETA)
    A = [found.subset([i]).hessian(local.mean) - 0.4 * np.eye(d) for i in range(5)]
    S = np.linalg.inv(BETA * found.hessian(np.zeros(d)) + GAMMA * np.eye(d))  # of this posterior
    g = found.gradients(local.mean)
    truth = g @ S @ g.T + [[np.trace(a @ S @ b @ S) / 2 for b in A] for a in A]
    np.testing.assert_allclose(local.influence_on_losses(), -BETA * truth, rtol=0, atol=1e-13)
    outputs = -BETA * np.einsum("id,de,tke->itk", g, S, found.jacobian(local.mean))
    np.testing.assert_allclose(local.influence_on_outputs(), outputs, rtol=0, atol=1e-13)


def test_at_a_minimum_it_is_damped_influence_on_parameters_and_outputs_not_on_losses():
    found = squares(4, 30, lam=0.3)
    at = response.minimise(found).theta
    for beta in (1.0, BETA):
        local = posterior.gaussian(found, at, GAMMA, beta)
        J = damped_influence(found, at, damping=GAMMA / beta)
        X = found.X.numpy()
        size = np.abs(J).max()
        np.testing.assert_allclose(local.influence_on_parameters(), J, rtol=0, atol=1e-12 * size)
        np.testing.assert_allclose(local.influence_on_outputs(), J @ X.T, rtol=0, atol=1e-12)
        extra = local.influence_on_losses() - J @ found.gradients(at).T
        own = (X @ local.solve(X.T)) ** 2
        np.testing.assert_allclose(extra, -beta * own / 2, rtol=0, atol=1e-13)


def test_off_a_minimum_it_is_damped_influence_at_the_mean():
    found, at = squares(3, 20), np.array([0.5, -1.0, 2.0])
    local = posterior.gaussian(found, at, GAMMA, BETA)
    H = found.hessian(at)
    P = BETA * H + GAMMA * np.eye(3)
    mean = at - np.linalg.solve(P, BETA * found.gradient(at))
    np.testing.assert_allclose(local.mean, mean, rtol=0, atol=1e-13)
    there, here = (damped_influence(found, t, damping=GAMMA / BETA) for t in (local.mean, at))
    found = local.influence_on_parameters()
    np.testing.assert_allclose(found, there, rtol=0, atol=1e-13)
    assert np.linalg.norm(found - here) > 0.05 * np.linalg.norm(there)


def test_of_a_network_and_in_the_dual_form():
    """The factor's forms agree, and the linearised covariances are damped influence at the mean."""
    X, y = data.regression(0, 6, 3)
    found = Risk(perceptron(0, 3, 5, 1), risk.squared, X, (y / y.std())[:, None])
    at = found.model.theta
    options = {"matrix": "gauss_newton"}
    dual, primal = (
        posterior.gaussian(found, at, 0.5, 2.0, form=form, **options) for form in ("dual", "primal")
    )
    assert (dual.factor.form, primal.factor.form) == ("dual", "primal")
    for name in ("parameters", "outputs", "losses"):
        one, other = (getattr(local, f"influence_on_{name}")() for local in (dual, primal))
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-11 * np.abs(other).max())
    assert dual.influence_on_outputs().shape == (6, *found.jacobian(at).shape[:-1])


def test_one_example_one_parameter():
    """ℓ = θ²/2: influence on the loss is 0, −Cov(ℓ, ℓ) = −1/2 at P = 1, and −1/8 at P = 2."""
    found = Risk(risk.linear, risk.squared, [[1.0]], [0.0])
    assert loss_influence(found, [0.0])[0, 0] == 0
    for damping, value in ((0.0, -1 / 2), (1.0, -1 / 8)):
        local = posterior.gaussian(found, [0.0], damping)
        np.testing.assert_allclose(local.influence_on_losses(), value, rtol=1e-15)
        with mpmath.workdps(30):
            P = mpmath.mpf(1 + damping)
            moment = lambda k: mpmath.quad(  # noqa: E731
                lambda t: t**k * mpmath.exp(-P * t * t / 2), [-mpmath.inf, 0, mpmath.inf]
            )
            exact = -(moment(4) / moment(0) - (moment(2) / moment(0)) ** 2) / 4
        np.testing.assert_allclose(float(exact), value, rtol=1e-15)


def test_the_derivative_of_the_posterior_mean_is_the_covariance():
    """Of a logistic risk in d = 1, by differences of means with other weights: no Gaussian."""
    X, y = np.array([[1.0], [-2.0], [0.5], [1.5]]), [1, 0, 0, 1]
    found, w, h = Risk(risk.linear, risk.logistic, X, y, lam=0.1), np.ones(4), 1e-3
    at = np.array([0.7])

    def mean(w):
        losses, theta, p = over_grid(found, at, w, BETA, GAMMA, 16.0, 4001)
        return p @ np.column_stack([theta, losses])

    losses, theta, p = over_grid(found, at, w, BETA, GAMMA, 16.0, 4001)
    exact = -BETA * covariance(p, losses, np.column_stack([theta, losses]))
    for i, e in enumerate(np.eye(4)):
        steps = [mean(w + k * h * e) - mean(w - k * h * e) for k in (1, 2)]
        slope = (8 * steps[0] - steps[1]) / (12 * h)
        np.testing.assert_allclose(slope, exact[i], rtol=0, atol=1e-9 * np.abs(exact).max())


def test_draws_of_the_gaussian_have_its_moments():
    found = squares(3, 20)
    local = posterior.gaussian(found, np.zeros(3), GAMMA, BETA)
    draws, S = local.draw(0, 40_000), local.solve(np.eye(3))
    same = local.mean + Primal(np.linalg.inv(S)).draw(0, 40_000)
    np.testing.assert_allclose(draws, same, rtol=0, atol=1e-12)
    error = np.sqrt(np.diag(S) / 40_000)
    assert (np.abs(draws.mean(0) - local.mean) < 4 * error).all()
    of_products = np.sqrt((np.outer(np.diag(S), np.diag(S)) + S**2) / 40_000)
    assert (np.abs(np.cov(draws.T) - S) < 4 * of_products).all()


def test_langevin_has_the_covariance_with_the_bias_of_its_step():
    """(P − εP²/4)⁻¹ for εp = 0.3, 1 and 3 at once; the errors are those of independent chains."""
    U, _ = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))
    step, p = 0.1, np.array([3.0, 10.0, 30.0])
    found = Risk(risk.linear, risk.squared, np.sqrt((p - GAMMA) / BETA)[:, None] * U.T, np.ones(3))
    at = np.array([0.4, 0.1, -0.3])
    many = {"chains": 400, "burn": 100, "thin": 1, "run": LOOSE}
    with pytest.warns(UserWarning, match="have not mixed"):  # which so short a chain cannot show
        drawn = posterior.langevin(found, at, GAMMA, BETA, step, 100, **many)
    local = posterior.gaussian(found, at, GAMMA, BETA)
    assert np.isfinite(drawn.energy).all()
    moved = (drawn.observables - local.mean) @ U
    products = (moved[..., :, None] * moved[..., None, :]).mean(1)
    error = products.std(0) / np.sqrt(400)
    assert (np.abs(products.mean(0) - np.diag(1 / (p - step * p**2 / 4))) < 4 * error).all()
    assert np.abs(products.mean(0) - np.diag(1 / p))[2, 2] > 4 * error[2, 2]
    assert (np.abs(moved.mean((0, 1))) < 4 * moved.mean(1).std(0) / np.sqrt(400)).all()


def test_what_langevin_returns_is_of_its_draws():
    """Losses, energy and observables at each θ, by the Risk's own arrays."""
    found, w = squares(2, 6, lam=0.5, b=[0.2, -0.1]), np.linspace(0.5, 1.5, 6)
    given = {"chains": 2, "burn": 5, "thin": 2, "run": LOOSE, "weights": w}
    with pytest.warns(UserWarning, match="have not mixed"):
        drawn = posterior.langevin(found, [1.0, 2.0], 0.7, 3.0, 0.01, 9, **given)
        seen = posterior.langevin(
            found, [1.0, 2.0], 0.7, 3.0, 0.01, 9, observables=lambda t: t @ t, **given
        )
    assert drawn.losses.shape == (2, 9, 6) and seen.observables.shape == (2, 9, 1)
    for c, i in ((0, 0), (1, 8)):
        theta = drawn.observables[c, i]
        U = 3 * found.value(theta, w) + 0.35 * np.sum((theta - [1, 2]) ** 2)
        np.testing.assert_allclose(drawn.losses[c, i], found.losses(theta), rtol=1e-14)
        np.testing.assert_allclose(drawn.energy[c, i], U, rtol=1e-13)
        np.testing.assert_allclose(seen.observables[c, i], theta @ theta, rtol=1e-14)


@pytest.mark.parametrize("model", ["linear", "plain"])
@pytest.mark.parametrize("batch", [None, 3])
def test_the_first_step_is_that_of_the_gradient(model, batch):
    """θ₁ = θˢ − (ε/2)∇U + √ε ξ from a seed whose numbers are known; a batch's mean is the whole."""
    X, y = data.regression(0, 6, 3)
    plain, targets = model == "plain", np.column_stack([y, y])
    found = (
        Risk(network, risk.squared, X, targets / y.std(), lam=0.2, d=12)
        if plain
        else Risk(risk.linear, risk.squared, X, y / y.std(), lam=np.array([0.1, 0.2, 0.0]))
    )
    at, w = np.linspace(-1, 1, found.d), np.linspace(0, 2, 6)
    chains = 2 if batch is None else 1000
    given = {"chains": chains, "burn": 0, "thin": 1, "run": LOOSE, "weights": w, "batch": batch}
    with pytest.warns(UserWarning):
        drawn = posterior.langevin(found, at, 0.5, 2.0, 1e-4, 8, seed=4, **given)
    rng = np.random.default_rng(4)
    if batch:
        rng.random((chains, 6))
    noise = 1e-2 * rng.standard_normal((chains, found.d))
    slope = (at - drawn.observables[:, 0] + noise) / 5e-5
    exact = 2 * found.gradient(at, w)  # θˢ is where the damping pulls to
    error = 4 * slope.std(0) / np.sqrt(chains) if batch else 1e-9
    assert (np.abs(slope.mean(0) - exact) <= error).all()
    assert batch is None or (slope.std(0) > 0.05).all()


def test_langevin_against_the_density_of_a_logistic_risk():
    X, y = np.array([[1.0], [-2.0], [0.5], [1.5]]), [1, 0, 0, 1]
    found, at = Risk(risk.linear, risk.logistic, X, y, lam=0.1), np.array([0.7])
    losses, theta, p = over_grid(found, at, np.ones(4), BETA, GAMMA, 16.0, 4001)
    exact = -BETA * covariance(p, losses, theta)
    drawn = posterior.langevin(found, at, GAMMA, BETA, 0.05, 800, chains=8, thin=20)
    assert (drawn.status == "mixed").all()
    estimate = posterior.bayesian_influence(drawn.losses, drawn.observables, BETA)
    assert (np.abs(estimate.influence - exact) < 4 * estimate.errors + 0.03 * np.abs(exact)).all()
    assert estimate.errors.max() < 0.1 * np.abs(exact).max()


def test_a_singular_minimum_where_the_hessian_says_nothing():
    """f = abx at (0, 0): H = 0, and yet the posterior moves, as by its density."""
    X, y = np.array([[1.0], [-1.5], [0.5]]), np.array([0.3, 0.3, 1.2])
    found = Risk(lambda t, x: t[0] * t[1] * x[0], risk.squared, X, y, d=2)
    gradient = found.gradients([0.0, 0.0])
    assert not gradient.any()
    axis = np.linspace(-9, 9, 401)
    a, b = (part.ravel() for part in np.meshgrid(axis, axis))
    losses = (a[:, None] * b[:, None] * X[:, 0] - y) ** 2 / 2
    p = np.exp(-losses.sum(1) - (a**2 + b**2) / 2)
    exact = -covariance(p / p.sum(), losses, (a * b)[:, None])
    drawn = posterior.langevin(
        found,
        [0.0, 0.0],
        1.0,
        1.0,
        0.05,
        30,
        chains=200,
        burn=100,
        thin=15,
        observables=lambda t: t[0] * t[1],
    )
    estimate = posterior.bayesian_influence(drawn.losses, drawn.observables)
    assert (np.abs(estimate.influence - exact) < 4 * estimate.errors + 0.02).all()
    assert estimate.errors.max() < 0.1 * np.abs(exact).max()


def test_bayesian_influence_of_independent_draws():
    """Within four standard errors, which are those that repetition shows."""
    found, n = squares(2, 5), 500
    at = response.minimise(found).theta
    local, z = posterior.gaussian(found, at, GAMMA, BETA), []
    exact = np.hstack([local.influence_on_parameters(), local.influence_on_losses()])
    rng = np.random.default_rng(0)
    for _ in range(30):
        theta = local.draw(rng, 4 * n).reshape(4, n, 2)
        losses = (theta @ found.X.numpy().T - found.y.numpy()) ** 2 / 2
        seen = np.concatenate([theta, losses], axis=2)
        estimate = posterior.bayesian_influence(losses, seen, BETA)
        z.append((estimate.influence - exact) / estimate.errors)
    assert np.abs(z).max() < 4.5  # of 1,050
    assert 0.85 < np.std(z) < 1.15


def test_bayesian_influence_is_the_covariance_of_all_draws():
    rng = np.random.default_rng(0)
    losses, seen = rng.standard_normal((3, 8, 2)), rng.standard_normal((3, 8, 4))
    found = posterior.bayesian_influence(losses, seen, BETA).influence
    every = np.cov(losses.reshape(24, 2).T, seen.reshape(24, 4).T)
    np.testing.assert_allclose(found, -BETA * every[:2, 2:], rtol=1e-13)


def autoregressive(rho, chains, draws, seed=0):
    x = np.random.default_rng(seed).standard_normal((chains, draws))
    for t in range(1, draws):
        x[:, t] = rho * x[:, t - 1] + np.sqrt(1 - rho**2) * x[:, t]
    return x


@pytest.mark.parametrize("rho", [-0.4, 0.0, 0.5, 0.9])
def test_the_effective_size_of_an_autoregression(rho):
    """N(1 − ρ)/(1 + ρ), the mean of 20 columns; and the errors of bayesian_influence go by it."""
    x = autoregressive(rho, 80, 5_000).reshape(4, 20, 5_000).transpose(0, 2, 1)
    r_hat, effective = posterior.mixing(x)
    np.testing.assert_allclose(effective.mean() / 20_000, (1 - rho) / (1 + rho), rtol=0.04)
    assert (np.abs(r_hat - 1) < 0.01).all()
    errors = posterior.bayesian_influence(x[:, :, :10], x[:, :, 10:]).errors
    expected = np.sqrt((1 + rho**2) / (1 - rho**2) / 20_000)  # of products, whose ρ is ρ²
    np.testing.assert_allclose(errors.mean(), expected, rtol=0.04)


def by_the_letter(x):
    """Split R̂ of (chains, draws)."""
    n = x.shape[1] // 2
    x = np.vstack([x[:, :n], x[:, -n:]])
    W = x.var(1, ddof=1).mean()
    return np.sqrt(((n - 1) / n * W + x.mean(1).var(ddof=1)) / W)


@pytest.mark.parametrize("draws", [8, 9, 50, 301])
def test_r_hat_by_the_letter_whatever_the_scale(draws):
    rng = np.random.default_rng(draws)
    columns = [autoregressive(rho, 3, draws, 1) for rho in (-0.9, 0.0, 0.6, 0.97)]
    x = np.stack([*columns, columns[1] + 2 * rng.standard_normal((3, 1))], axis=2)
    found = posterior.mixing(x)
    np.testing.assert_allclose(found[0], [by_the_letter(x[:, :, k]) for k in range(5)], rtol=1e-12)
    for scale in (1e-20, 1e20):
        np.testing.assert_allclose(posterior.mixing(scale * x + scale), found, rtol=1e-8)


@pytest.mark.filterwarnings("error")
def test_mixing_of_constants_and_of_what_is_not_finite():
    x = np.random.default_rng(0).standard_normal((2, 20, 3))
    x[:, :, 0], x[1, 3, 1] = 5.3, np.nan
    r_hat, effective = posterior.mixing(x)
    assert (r_hat[0], effective[0]) == (1, 40)
    assert np.isnan([r_hat[1], effective[1]]).all() and np.isfinite([r_hat[2], effective[2]]).all()
    apart = np.ones((2, 20, 1)) * [[[1]], [[2]]]  # chains that are constant, each by itself
    assert posterior.mixing(apart)[0][0] > 1.01


def test_observables_may_be_test_losses():
    found = squares(2, 6)
    test = found.subset([0, 3])
    drawn = posterior.langevin(
        found, [0.0, 0.0], 1.0, 1.0, 0.05, 400, thin=20, observables=test.tensors.losses
    )
    np.testing.assert_allclose(drawn.observables, drawn.losses[:, :, [0, 3]], rtol=1e-12)


def test_the_curvature_of_many_parameters_is_found_without_a_matrix(monkeypatch):
    """The same bound of the step, and the same least eigenvalue, as by the matrix."""
    found, said = squares(5, 20), []
    for dense in (1000, 1):
        monkeypatch.setattr(posterior, "DENSE", dense)
        with pytest.raises(posterior.StepTooLarge) as e:
            posterior.langevin(found, np.zeros(5), 0.0, BETA, 50.0, 8)
        said.append((e.value.step, posterior._edge(found, np.zeros(5), np.ones(20), "SA")))
    values = np.linalg.eigvalsh(found.X.numpy().T @ found.X.numpy())
    np.testing.assert_allclose(said, [[0.4 / BETA / values[-1], values[0]]] * 2, rtol=1e-3)


@pytest.mark.parametrize("lowest", [(0.0, 0.0, 0.0, 1e-3), (1e-10, 1e-3), (1e-4, 1e-3)])
def test_a_direction_of_no_curvature_is_seen_without_a_matrix_too(monkeypatch, lowest):
    """Lanczos' method has no thousandth of 0 to reach, and passes over eigenvalues that are 0."""
    values = np.concatenate([lowest, np.geomspace(2e-3, 10, 60)])
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((len(values),) * 2))[0]
    found = Risk(risk.linear, risk.squared, np.sqrt(values)[:, None] * basis, np.zeros(len(values)))
    for dense in (1000, 1):
        monkeypatch.setattr(posterior, "DENSE", dense)
        call = found, np.zeros(len(values)), 0.0, BETA, 1e-6, 8
        if lowest[0] > 1e-8 or (dense == 1000 and lowest[0]):
            with pytest.warns(UserWarning):
                posterior.langevin(*call, run=LOOSE)
        else:
            with pytest.raises(NotPositiveDefinite, match="integrable"):
                posterior.langevin(*call, run=LOOSE)


@pytest.mark.parametrize("batch", [None, 3, 7])
@pytest.mark.parametrize("model", [risk.linear, lambda t, x: t @ x])
def test_every_draw_by_the_steps_and_noise_of_its_seed(model, batch):
    """Langevin's steps in NumPy; of a batch, the examples with the smallest random numbers."""
    X, y = data.regression(3, 7, 3)
    y, w, at, step = y / y.std(), np.linspace(0.5, 2, 7), np.array([0.3, -0.2, 0.5]), 0.02
    lam, b = np.array([0.1, 0.2, 0.0]), np.array([0.5, 0.0, -0.4])
    found = Risk(model, risk.squared, X, y, lam=lam, b=b, d=3)
    options = {"chains": 3, "burn": 25, "thin": 2, "seed": 5, "weights": w, "batch": batch}
    with pytest.warns(UserWarning, match="have not mixed"):
        drawn = posterior.langevin(found, at, 0.7, BETA, step, 8, run=LOOSE, **options)
    rng, theta, kept = np.random.default_rng(5), np.tile(at, (3, 1)), []
    for t in range(1, 25 + 8 * 2 + 1):
        taken = np.ones((3, 7), bool)
        if batch:
            taken = rng.random((3, 7)).argsort().argsort() < batch
        pull = (taken * w * (theta @ X.T - y)) @ X * (7 / (batch or 7))
        slope = BETA * (pull + lam * theta + b) + 0.7 * (theta - at)
        theta = theta - step / 2 * slope + np.sqrt(step) * rng.standard_normal((3, 3))
        if t > 25 and (t - 25) % 2 == 0:
            kept.append(theta)
    np.testing.assert_allclose(drawn.observables, np.stack(kept, 1), rtol=0, atol=1e-12)


def test_the_effective_size_is_of_the_mean_not_of_ranks():
    """Of e^x, x autoregressive: the autocorrelations are (e^{ρᵏ} − 1)/(e − 1)."""
    rho, lags = 0.9, np.arange(1, 400)
    x = np.exp(autoregressive(rho, 160, 5_000)).reshape(8, 20, 5_000).transpose(0, 2, 1)
    expected = 1 / (1 + 2 * np.sum(np.expm1(rho**lags)) / np.expm1(1))
    np.testing.assert_allclose(posterior.mixing(x)[1].mean() / 40_000, expected, rtol=0.06)


def test_mixing_of_a_narrow_range_around_a_large_mean_and_of_whole_numbers():
    rng = np.random.default_rng(0)
    x = rng.integers(-1, 2, (3, 30, 1)).astype(float)
    x[0, :2, 0] = 0, -x.sum() + x[0, :2, 0].sum()  # so that the mean is 0, and a value is
    given = 2.0**50 + x
    found = posterior.mixing(given)
    np.testing.assert_array_equal(given, 2.0**50 + x)  # left as it came
    np.testing.assert_allclose(found[0], by_the_letter(x[:, :, 0]), rtol=1e-12)
    np.testing.assert_allclose(posterior.mixing(x), found, rtol=1e-12)
    np.testing.assert_allclose(posterior.mixing(x.astype(int).tolist()), found, rtol=1e-12)
    single = rng.standard_normal((3, 30, 2)).astype(np.float32)
    for one, other in zip(posterior.mixing(single), posterior.mixing(single.astype(float))):
        np.testing.assert_array_equal(one, other)


def test_the_largest_eigenvalue_without_a_matrix_is_found_to_a_thousandth_each_time_alike(
    monkeypatch,
):
    monkeypatch.setattr(posterior, "DENSE", 1)
    values = np.linspace(1, 2, 400)
    found = Risk(risk.linear, risk.squared, np.diag(np.sqrt(values)), np.zeros(400))
    for which, exact in (("LA", 2), ("SA", 1)):
        one, other = (posterior._edge(found, np.zeros(400), np.ones(400), which) for _ in range(2))
        assert one == other == pytest.approx(exact, rel=1e-3)


def test_the_matrix_is_taken_up_to_a_thousand_parameters():
    def product(theta, w):
        return lambda V: np.arange(1, len(V) + 1)[:, None] * V

    for d, has in (
        (1000, {"hessian": lambda t, w: np.eye(1000)}),
        (1001, {"hessian_map": product}),
    ):
        largest = posterior._edge(SimpleNamespace(d=d, **has), np.zeros(d), None, "LA")
        assert largest == pytest.approx(1 if d == 1000 else 1001, rel=1e-3)
