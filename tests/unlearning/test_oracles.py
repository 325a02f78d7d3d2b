"""Unlearning against retraining, quadrature, mpmath, SLSQP and closed forms."""

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import integrate, optimize, stats

from ifcore import data, response, risk, unlearning
from ifcore.network import perceptron
from ifcore.risk import Risk
from ifcore.runs import Run
from ifcore.training import Training, retrain
from ifcore.unlearning import Certified, Shards, soft_weights
from ifcore.weights import without

seeds = st.integers(0, 2**32 - 1)
runs = settings(max_examples=40, deadline=None, database=None)
ALONE = Run(jobs=1, progress=False)


def logistic(seed, n=40, d=4, lam=1.0, size=1.0, sigma=0.3):
    """A risk with noise b, its minimiser, and the generator."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    X *= size * rng.uniform(0.2, 1, (n, 1)) / np.linalg.norm(X, axis=1, keepdims=True)
    y = rng.random(n) < 1 / (1 + np.exp(-3 * X[:, 0]))
    found = Risk(risk.linear, risk.logistic, X, y, lam=lam, b=sigma * rng.standard_normal(d))
    return found, response.minimise(found).theta, rng


@runs
@given(seeds, st.floats(-2, 2), st.floats(-2, 1))
def test_a_step_leaves_no_more_of_the_gradient_than_the_bound(seed, size, lam):
    """Of any inputs; with a step that is not small too."""
    found, theta, rng = logistic(seed, lam=10.0**lam, size=10.0**size)
    move = rng.standard_normal(found.d) * 10.0 ** rng.uniform(-2, 1)
    gradient = found.gradient(theta + move) - found.gradient(theta)
    left = np.linalg.norm(gradient - found.hessian(theta) @ move)
    bound = unlearning.residual_bound(found.X.numpy(), move)
    assert left <= bound * (1 + 1e-9) + 1e-12 * np.linalg.norm(found.gradients(theta))


def test_the_bound_is_attained_for_small_moves_where_the_third_derivative_is_largest():
    """One example, at the output where |ℓ‴| is 1/(6√3): the ratio tends to 1."""
    at = np.log(2 + 3**0.5)  # σ = (3 + √3)/6
    found = Risk(risk.linear, risk.logistic, np.array([[2.0]]), [1], lam=1.0)
    theta, move = np.array([at / 2]), np.array([1e-3])
    left = found.gradient(theta + move) - found.gradient(theta) - found.hessian(theta) @ move
    assert 0.999 < abs(left[0]) / unlearning.residual_bound([[2.0]], move) <= 1
    assert unlearning.residual_bound([[2.0]], move, third=0.0) == 0


@runs
@given(seeds, st.sampled_from(unlearning.certified.STEPS))
def test_a_sequence_of_removals_stays_below_its_bound(seed, step):
    found, theta, rng = logistic(seed)
    model = Certified(found, theta)
    for j in rng.permutation(40)[:6]:
        model = model.remove(int(j), step)
        w = model.weights
        assert w[list(model.removed)].sum() == 0 and w.sum() == 40 - len(model.removed)
        np.testing.assert_allclose(
            model.residual, np.linalg.norm(found.gradient(model.theta, w)), rtol=1e-12
        )
        assert model.residual <= model.bound * (1 + 1e-9) + 1e-13
    again = response.minimise(found, weights=w).theta
    assert np.linalg.norm(model.theta - again) <= model.bound  # λ = 1 bounds the curvature below


@pytest.mark.parametrize("step", unlearning.certified.STEPS)
def test_of_squared_loss_one_step_is_retraining(step):
    X, y = data.regression(0, 30, 4)
    found = Risk(risk.linear, risk.squared, X, y, lam=0.5, b=[0.1, 0.0, -0.2, 0.3])
    model = Certified(found, response.minimise(found).theta).remove([3, 8], step).remove(5, step)
    truth = response.minimise(found, weights=without(30, [3, 5, 8])).theta
    np.testing.assert_allclose(model.theta, truth, rtol=0, atol=1e-13)
    assert model.bound < 1e-12


def test_a_full_step_takes_the_residual_away_and_the_published_one_does_not():
    found, theta, rng = logistic(3, n=60)
    full = published = Certified(found, theta)
    for j in rng.permutation(60)[:20]:
        full, published = full.remove(int(j)), published.remove(int(j), "influence")
    assert full.residual < published.residual / 3 and full.bound < published.bound / 5


@pytest.mark.parametrize("shift", [0.1, 1.0, 3.0, 9.0])
@pytest.mark.parametrize("epsilon", [0.0, 0.5, 2.0, 8.0, 40.0])
def test_delta_against_quadrature_and_mpmath(shift, epsilon):
    sigma, found = 1.5, unlearning.gaussian_delta(shift, 1.5, epsilon)
    with mpmath.workdps(60):
        r, e = mpmath.mpf(shift) / sigma, mpmath.mpf(epsilon)
        cdf = mpmath.ncdf
        exact = cdf(r / 2 - e / r) - mpmath.exp(e) * cdf(-r / 2 - e / r)
    np.testing.assert_allclose(found, float(exact), rtol=1e-11, atol=1e-300)

    def over(x):
        return max(
            stats.norm.pdf(x, shift, sigma) - np.exp(epsilon) * stats.norm.pdf(x, 0, sigma), 0
        )

    begin = shift / 2 + epsilon * sigma**2 / shift  # where the two densities are e^ε apart
    whole = integrate.quad(over, begin, begin + 40, epsabs=1e-13, limit=200)[0]
    assert abs(found - whole) < 1e-10


@pytest.mark.parametrize("delta", [1e-10, 1e-6, 1e-3, 0.1, 0.5, 0.9, 0.999])
def test_the_budget_without_epsilon_is_closed(delta):
    """2Φ(r/2) − 1 = δ, the distance in total variation."""
    with mpmath.workdps(30):
        r = float(2 * mpmath.sqrt(2) * mpmath.erfinv(mpmath.mpf(delta)))
    assert abs(unlearning.budget(3.0, 0.0, delta) / (3 * r) - 1) < 2e-14 * (1 + 1 / r)
    assert abs(unlearning.gaussian_delta(3 * r, 3.0, 0.0) / delta - 1) < 1e-14 * (1 + 1 / r)


@pytest.mark.parametrize("epsilon, log_delta", [(1000, -690), (60, -700), (1000, -0.01), (5e4, -3)])
def test_the_budget_where_delta_is_the_least_number_on_the_way(epsilon, log_delta):
    found = unlearning.budget(1.0, epsilon, np.exp(log_delta))
    with mpmath.workdps(60):
        r = mpmath.mpf(found)
        a, b = r / 2 - epsilon / r, -r / 2 - epsilon / r
        delta = mpmath.ncdf(a) - mpmath.exp(epsilon) * mpmath.ncdf(b)
        assert abs(mpmath.log(delta) - log_delta) < 1e-10


@runs
@given(st.floats(-3, 3), st.floats(0, 20), st.floats(-12, -0.1))
def test_the_budget_is_the_shift_of_its_delta(sigma, epsilon, delta):
    sigma, delta = 10.0**sigma, 10.0**delta
    found = unlearning.budget(sigma, epsilon, delta)
    again = unlearning.gaussian_delta(found, sigma, epsilon)
    np.testing.assert_allclose(again, delta, rtol=1e-9 + 1e-14 * sigma / found)


def test_the_published_constant_fails_for_a_large_epsilon():
    """residual ≤ σε/c, δ = 1.5 e^{−c²/2}: right up to ε = 1, and exceeded from about 5."""
    for c, fails in ((1.0, 5.2), (2.0, 6.0), (3.7, 7.8)):
        delta = 1.5 * np.exp(-(c**2) / 2)
        assert unlearning.gaussian_delta(1.0 / c, 1.0, 1.0) < delta
        assert unlearning.gaussian_delta(fails / c, 1.0, fails) > delta


def test_the_membership_ratio_is_that_of_the_densities():
    """In one dimension the density of θ(w) is the derivative of its distribution function."""
    rng, sigma = np.random.default_rng(0), 0.4
    X, y = rng.standard_normal((6, 1)), np.array([0, 1, 1, 0, 1, 0])
    plain = Risk(risk.linear, risk.logistic, X, y, lam=0.7)

    def density(theta, w):
        """θ(w) ≤ t where −b ≤ ∇R_w(t): by differences of Φ(∇R_w(t)/σ)."""
        h = 1e-4
        ends = [stats.norm.cdf(plain.gradient([theta + s], w)[0] / sigma) for s in (-h, h)]
        return (ends[1] - ends[0]) / (2 * h)

    models = np.array([[-0.4], [0.1], [0.5]])
    found = unlearning.membership_ratio(plain, models, 2, sigma)
    truth = [np.log(density(t, np.ones(6)) / density(t, without(6, 2))) for (t,) in models]
    np.testing.assert_allclose(found, truth, rtol=0, atol=1e-6)
    assert unlearning.membership_ratio(plain, models[1], 2, sigma) == found[1]
    w = np.array([1.0, 0.5, 1, 1, 0, 1])
    heavy = unlearning.membership_ratio(plain, models[0], [2], sigma, w)
    truth = np.log(density(-0.4, w) / density(-0.4, w * without(6, 2)))
    np.testing.assert_allclose(heavy, truth, rtol=0, atol=1e-6)


def test_the_ratio_of_many_models_has_the_mean_that_probability_asks_for():
    """E[p₋ⱼ/p] = 1 under p, the law of the models with j."""
    found, _, rng = logistic(5, n=15, d=2, sigma=0.0)
    drawn = 0.5 * rng.standard_normal((400, 2))
    models = [
        response.minimise(Risk(risk.linear, risk.logistic, found.X, found.y, found.lam, b)).theta
        for b in drawn
    ]
    ratio = np.exp(-unlearning.membership_ratio(found, models, 4, 0.5))
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / len(ratio) ** 0.5


# training on ----------------------------------------------------------------------------------


def small_network():
    X, y = data.regression(1, 20, 3, condition=2)
    return Risk(perceptron(0, 3, 4, 1), risk.squared, X, y / y.std(), lam=0.2)


@pytest.mark.parametrize("batch", [None, 6])
def test_a_rewind_is_training_with_weights_that_switch(batch):
    found, training = small_network(), Training(30, 0.1, batch=batch)
    start, w = found.model.initial(3), without(20, [4, 7])
    states = retrain(found, training, start, keep=(0, 12, 30), run=ALONE).states
    for switch, steps in ((0, 30), (12, 30), (30, 45)):
        longer = training._replace(steps=steps)
        plan = lambda k, s=switch: np.ones(20) if k < s else w  # noqa: E731
        truth = retrain(found, longer, start, plan, run=ALONE).theta
        back = unlearning.rewind(found, longer, states, w, switch, run=ALONE).theta
        np.testing.assert_array_equal(back, truth)
    whole = retrain(found, training, start, w, run=ALONE).theta
    np.testing.assert_array_equal(
        unlearning.rewind(found, training, states, w, 0, run=ALONE).theta, whole
    )


@runs
@given(seeds, st.integers(0, 30))
def test_the_sensitivity_bounds_gradient_descent_of_least_squares(seed, switch):
    """With the exact constants of a quadratic."""
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 12, 3, condition=5)
    found, rate = Risk(risk.linear, risk.squared, X, y), rng.uniform(0.1, 1.9)
    w, start = without(12, 5), rng.standard_normal(3)
    rate /= np.linalg.eigvalsh(found.hessian(start))[-1] / 12  # training with it converges too
    values = np.linalg.eigvalsh(found.hessian(start, w)) / 12
    training = Training(30, rate, momentum=0.0, nesterov=False)
    states = retrain(found, training, start, keep=range(31), run=ALONE).states
    push = max(np.linalg.norm(found.gradients(s.theta)[5]) / 12 for s in states[: switch + 1])
    end = unlearning.rewind(found, training, states, w, switch, run=ALONE).theta
    again = unlearning.rewind(found, training, states, w, 0, run=ALONE).theta
    bound = unlearning.sensitivity(rate, values[-1], values[0], push, 30, switch)
    assert np.linalg.norm(end - again) <= bound * (1 + 1e-9) + 1e-12


def test_the_sensitivity_is_attained_and_its_sum_is_closed():
    """In one dimension a constant push: 0 at s = 0, q^{T−s} rate p (1 + … + q^{s−1})."""
    for rate, mu, L in ((0.5, 1, 1), (0.1, -3, 2), (1, 1, 1), (0.5, 0, 2), (1, 0.5, 1.9)):
        q = max(abs(1 - rate * mu), abs(1 - rate * L))
        for switch in range(6):
            found = unlearning.sensitivity(rate, L, mu, 0.7, 5, switch)
            sizes = sum(q**k for k in range(switch))
            np.testing.assert_allclose(found, q ** (5 - switch) * rate * 0.7 * sizes, rtol=1e-13)
    assert unlearning.sensitivity(1.0, 10.0, -10.0, 1.0, 400, 200) > 1e300
    assert unlearning.sensitivity(1.0, 10.0, -10.0, 1.0, 400, 0) == 0
    assert unlearning.sensitivity(1.0, 10.0, -10.0, 0.0, 400, 200) == 0


def test_the_sensitivity_to_a_push_of_each_step_is_where_they_lead():
    """In one dimension: x ← q x + rate p_k for the steps with a push, x ← q x after them."""
    rng, rate, L = np.random.default_rng(3), 0.4, 0.9
    for mu in (0.9, 0.1, -2.0):
        q, pushes, x = 1 - rate * mu, rng.uniform(0, 1, 7), 0.0
        pushes[2] = 0
        for k in range(12):
            x = q * x + (rate * pushes[k] if k < 7 else 0)
        found = unlearning.sensitivity(rate, L, mu, pushes, 12, 7)
        np.testing.assert_allclose(found, x, rtol=1e-13)
    assert unlearning.sensitivity(1.0, 10.0, -10.0, [0.0, 0.0], 900, 2) == 0


@runs
@given(seeds, st.integers(0, 24))
def test_the_sensitivity_bounds_descent_by_batches_that_are_coupled(seed, switch):
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 15, 3, condition=5)
    found, w = Risk(risk.linear, risk.squared, X, y, lam=1.5), without(15, [2, 5])
    training = Training(24, rng.uniform(0.1, 0.5), 0.0, False, batch=4, order=seed)
    states = retrain(found, training, np.zeros(3), keep=range(25), run=ALONE).states
    L, pushes = 0.1 + (X**2).sum(1).max(), np.zeros(switch)
    for k in range(switch):
        gone = [i for i in (2, 5) if i in training.rows(15, k)]
        of_batch = len(training.rows(15, k))
        pushes[k] = np.linalg.norm(found.gradients(states[k].theta)[gone].sum(0)) / of_batch
    end = unlearning.rewind(found, training, states, w, switch, run=ALONE).theta
    again = retrain(found, training, np.zeros(3), w, run=ALONE).theta
    bound = unlearning.sensitivity(training.rate, L, 0.1, pushes, 24, switch)
    assert np.linalg.norm(end - again) <= bound * (1 + 1e-9) + 1e-12


@runs
@given(seeds, st.integers(1, 12), st.lists(st.integers(0, 29), min_size=1, max_size=8, unique=True))
def test_shards_partition_what_is_left(seed, S, deleted):
    shards, there = Shards.split(30, S, seed), set(range(30))
    sizes = [len(part) for part in shards.shards]
    assert max(sizes) - min(sizes) <= 1
    for j in deleted:
        holder = next(k for k, part in enumerate(shards.shards) if j in part)
        if len(shards.shards[holder]) == 1:
            with pytest.raises(ValueError, match=f"{j} is the last one of {holder}"):
                shards.delete(j)
            continue
        before = shards
        shards, which, retrained = shards.delete(j)
        there.remove(j)
        assert which == holder and retrained == len(before.shards[which]) - 1
        same = [k for k in range(S) if shards.shards[k] == before.shards[k]]
        assert same == [k for k in range(S) if k != which]
    np.testing.assert_array_equal(shards.weights.sum(0), [float(i in there) for i in range(30)])


def test_a_shard_that_a_deletion_does_not_touch_is_the_model_that_it_was():
    found, training = small_network(), Training(20, 0.1)
    start, shards = found.model.initial(0), Shards.split(20, 4)
    first = retrain(found, training, start, shards.weights, run=ALONE).theta
    fewer, which, _ = shards.delete(11)
    again = retrain(found, training, start, fewer.weights, run=ALONE).theta
    for k in range(4):
        assert np.array_equal(first[k], again[k]) == (k != which)


# soft weights ---------------------------------------------------------------------------------


@runs
@given(seeds, st.floats(0.02, 0.98), st.booleans())
def test_soft_weights_are_the_optimum_by_their_conditions(seed, share, bounded):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 60))
    a, u = rng.standard_normal(n), rng.standard_normal(n) + 0.3 if bounded else None
    t = float(rng.uniform(0, 0.3)) if bounded else 0.0
    low, high = _ends(a, u, t)
    c = low + share * (high - low)
    found = soft_weights(a, c, u, t)
    np.testing.assert_allclose(found.range, (low, high), rtol=1e-7, atol=1e-9)
    _require_optimal(found, a, c, u, t)


def _require_optimal(found, a, c, u, t):
    """The conditions of Karush, Kuhn and Tucker, which are enough."""
    w = found.weights
    assert w.min() >= 0 and w.max() <= 1
    assert abs(a @ (w - 1) - c) <= 1e-11 * np.abs(a).sum()
    own = np.zeros_like(a) if u is None else u
    assert own @ (w - 1) <= t + 1e-11 * (1 + np.abs(own).sum()) and found.beta >= 0
    assert found.beta * (own @ (w - 1) - t) > -1e-9 * (1 + found.beta)
    size = 1 + abs(found.alpha) * np.abs(a).max() + found.beta * np.abs(own).max()
    clipped = np.clip(1 - found.alpha * a - found.beta * own, 0, 1)
    np.testing.assert_allclose(w, clipped, rtol=0, atol=1e-11 * size)


def _ends(a, u, t):
    if u is None:
        return -a[a > 0].sum(), -a[a < 0].sum()
    ends = (optimize.linprog(s * a, u[None], [t], bounds=[(-1, 0)]).fun * s for s in (1, -1))
    return tuple(ends)


@runs
@given(seeds, st.integers(-900, 900), st.integers(-900, 900))
def test_soft_weights_in_units_of_powers_of_two_are_the_same_bits(seed, unit, own):
    """The multipliers are in the inverses of the units."""
    rng = np.random.default_rng(seed)
    a, u, z = rng.standard_normal(20), rng.standard_normal(20), -rng.random(20)
    c, t = 0.3 * a @ z, max(0.3 * u @ z, 0.0)
    found = soft_weights(a, c, u, t)
    again = soft_weights(
        np.ldexp(a, unit), np.ldexp(c, unit), np.ldexp(u, own), float(np.ldexp(t, own))
    )
    np.testing.assert_array_equal(again.weights, found.weights)
    assert again.range == tuple(np.ldexp(found.range, unit))
    assert again.alpha == np.ldexp(found.alpha, -unit)
    assert again.beta == np.ldexp(found.beta, -own)


def test_soft_weights_with_a_multiplier_near_nothing():
    """The loss would rise by 10⁻³⁰, for which no weight next to 1 is near enough."""
    a, u = np.array([1.0, 0.0]), np.array([-2e-30, 1.0])
    found = soft_weights(a, -0.5, u, 0.0)
    _require_optimal(found, a, -0.5, u, 0.0)
    assert 0 < found.beta < 1e-15


@runs
@given(seeds, st.booleans())
def test_the_range_is_that_of_a_linear_programme(seed, common):
    """With entries that are 0 but for rounding too, beside which the sums do not change."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal(8) * 10.0 ** rng.choice([0, -16, -17], 8)
    u = np.full(8, -1.0) if common else rng.standard_normal(8)
    t = float(rng.choice([0, 0.1, 2]))
    np.testing.assert_allclose(_range(a, u, t), _ends(a, u, t), rtol=0, atol=1e-9)


def test_a_change_that_the_other_constraint_forbids_is_refused_beside_entries_of_rounding():
    """Σ(1 − w) may be 0.1, so that a·(w − 1) is −0.1 at the least."""
    with pytest.raises(unlearning.Infeasible) as refusal:
        soft_weights([1.0, 1e-17, 2e-17], -0.5, [-1.0, -1.0, -1.0], 0.1)
    np.testing.assert_allclose(refusal.value.range, (-0.1, 0), rtol=1e-15, atol=1e-16)


@pytest.mark.parametrize(
    "a, c", [([-1e-10, 1e300], 1e-12), ([1e300, 1e-10], -1e300), ([-1e-310, 1.0], 1e-312)]
)
def test_entries_that_differ_by_all_powers_of_ten(a, c):
    w = soft_weights(a, c).weights
    assert abs(a @ (w - 1) - c) <= 1e-12 * np.abs(a).sum() and w.min() >= 0 and w.max() <= 1


@pytest.mark.parametrize("seed", range(4))
def test_soft_weights_against_a_general_solver(seed):
    rng = np.random.default_rng(seed)
    a, u = rng.standard_normal(25), rng.standard_normal(25)
    low, high = _ends(a, u, 0.05)
    c = low + rng.uniform(0.2, 0.8) * (high - low)
    found = soft_weights(a, c, u, 0.05).weights
    peer = optimize.minimize(
        lambda w: 0.5 * (w - 1) @ (w - 1),
        np.full(25, 0.5),
        jac=lambda w: w - 1,
        bounds=[(0, 1)] * 25,
        constraints=[
            {"type": "eq", "fun": lambda w: a @ (w - 1) - c, "jac": lambda w: a},
            {"type": "ineq", "fun": lambda w: 0.05 - u @ (w - 1), "jac": lambda w: -u},
        ],
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    np.testing.assert_allclose(found, peer.x, rtol=0, atol=1e-6)
    assert 0.5 * (found - 1) @ (found - 1) <= peer.fun + 1e-9


def test_soft_weights_by_hand():
    """a = (1, −1), c = −½: w₀ = ½, w₁ = 1. Nothing asked for: w = 1. The ends of the range."""
    found = soft_weights([1.0, -1.0], -0.5)
    np.testing.assert_allclose(found.weights, [0.5, 1.0], rtol=0, atol=1e-15)
    assert abs(found.alpha - 0.5) < 1e-15 and found.beta == 0 and found.range == (-1.0, 1.0)
    np.testing.assert_array_equal(soft_weights([1.0, -1.0], 0.0).weights, [1.0, 1.0])
    np.testing.assert_allclose(soft_weights([1.0, -1.0], -1.0).weights, [0.0, 1.0], atol=1e-15)
    np.testing.assert_allclose(soft_weights([0.0, 2.0], 0.0).weights, [1.0, 1.0])
    with pytest.raises(unlearning.Infeasible, match="between -1 and 1, .* got -1.5") as refusal:
        soft_weights([1.0, -1.0], -1.5)
    assert refusal.value.range == (-1.0, 1.0) and len(refusal.value.args) == 1


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_soft_weights_of_whole_numbers_with_ties_and_zeros(share):
    """Of one point to six; at the ends of the range too, where most weights are 0 or 1."""
    rng = np.random.default_rng(int(10 * share))
    for _ in range(60):
        n = int(rng.integers(1, 7))
        a, u = rng.integers(-3, 4, n).astype(float), rng.integers(-2, 3, n).astype(float)
        t = float(rng.choice([0, 0.25, 1, 3]))
        low, high = _ends(a, u, t)
        found = soft_weights(a, low + share * (high - low), u, t)
        np.testing.assert_allclose(found.range, (low, high), rtol=0, atol=1e-13)
        _require_optimal(found, a, low + share * (high - low), u, t)


@runs
@given(seeds, st.sampled_from([0, 1]))
def test_soft_weights_at_the_ends_of_their_range(seed, end):
    """Numbers of one decimal, with ties and zeros, of which rounding makes nearly zeros."""
    rng = np.random.default_rng(seed)
    for _ in range(20):
        n = int(rng.integers(1, 6))
        a, u = (np.round(rng.uniform(-2, 2, n), 1) for _ in "au")
        t = float(rng.choice([0, 0.3, 1]))
        c = _range(a, u, t)[end]
        _require_optimal(soft_weights(a, c, u, t), a, c, u, t)


def _range(a, u, t):
    try:
        return soft_weights(a, 0.0, u, t).range
    except unlearning.Infeasible as refusal:
        return refusal.range


@pytest.mark.parametrize(
    "a, c, weights, alpha",
    [
        ([-1.0, -1e-17], 1.0, [0, 1], -1.0),
        ([1.0, 1e-17], -1.0, [0, 1], 1.0),
        ([0.9, 0.1, 1e-17], -1.0, [0, 0, 1], 10.0),
    ],
)
def test_a_weight_that_answers_by_rounding_alone_stays_as_it_is(a, c, weights, alpha):
    found = soft_weights(a, c)
    np.testing.assert_allclose(found.weights, weights, rtol=0, atol=1.2e-16)
    assert found.alpha == pytest.approx(alpha, rel=1e-14)


def test_a_change_that_is_out_of_reach_by_rounding_is_made_as_well_as_it_can_be():
    """By up to 1e-12 of Σ|a|."""
    a = np.r_[np.full(60, -1.0), np.full(40, 0.5)]  # from −20 to 60, Σ|a| = 80
    for end, sign in ((-20.0, -1), (60.0, 1)):
        full = soft_weights(a, end).weights
        np.testing.assert_array_equal(full, np.where(sign * a < 0, 0.0, 1.0))
        np.testing.assert_array_equal(soft_weights(a, end + sign * 6e-11).weights, full)
        for beyond in (1e-10, 1e-3, 100.0):
            with pytest.raises(unlearning.Infeasible):
                soft_weights(a, end + sign * beyond)


def test_where_nothing_answers_nothing_is_changed():
    for u, t in ((None, 0.0), ([1.0, -2.0], 0.0), ([-1.0, -1.0], 0.5)):
        found = soft_weights([0.0, 0.0], 0.0, u, t)
        np.testing.assert_array_equal(found.weights, [1, 1])
        assert found.alpha == found.beta == 0 and found.range == (0, 0)


def test_no_increase_is_allowed_by_default():
    a, u = [1.0, 1.0], [-1.0, 2.0]
    strict, loose = soft_weights(a, -0.9, u), soft_weights(a, -0.9, u, 1.0)
    np.testing.assert_array_equal(strict.weights, soft_weights(a, -0.9, u, 0.0).weights)
    np.testing.assert_array_equal(loose.weights, soft_weights(a, -0.9).weights)
    np.testing.assert_allclose(loose.weights, [0.55, 0.55], rtol=0, atol=1e-15)
    strict = soft_weights(a, -0.9, [-2.0, 1.0])
    np.testing.assert_allclose(strict.weights, [0.7, 0.4], rtol=0, atol=1e-15)


@pytest.mark.parametrize("of_a, of_u", [(1e8, 1.0), (1.0, 1e8), (1e-8, 1.0), (1e-8, 1e8)])
def test_soft_weights_do_not_depend_on_the_units(of_a, of_u):
    rng = np.random.default_rng(8)
    for _ in range(10):
        a, u = rng.standard_normal((2, 30))
        low, high = _ends(a, u, 0.1)
        c = low + rng.uniform(0.1, 0.9) * (high - low)
        plain, scaled = (
            soft_weights(a, c, u, 0.1),
            soft_weights(of_a * a, of_a * c, of_u * u, of_u * 0.1),
        )
        np.testing.assert_allclose(scaled.weights, plain.weights, rtol=0, atol=1e-12)
        np.testing.assert_allclose(of_a * scaled.alpha, plain.alpha, rtol=1e-11)
        np.testing.assert_allclose(of_u * scaled.beta, plain.beta, rtol=1e-11, atol=1e-14)


def optimum(alpha, beta):
    """A problem whose solution is known: of its six weights one is 0 and one is 1."""
    a, u = np.array([1.0, 0.5, 2, 1.5, 9, -8]), np.array([0.5, 1, -0.5, -1, 1, 0])
    w = np.clip(1 - alpha * a - beta * u, 0, 1)
    return w, alpha, beta, a, a @ (w - 1), u, u @ (w - 1)


@pytest.mark.parametrize("alpha, beta", [(0.25, 0.125), (0.25, 0.0), (0.125, 0.25)])
def test_the_last_step_finds_both_multipliers_from_the_weights_that_are_free(alpha, beta):
    w, alpha, beta, *problem = optimum(alpha, beta)
    free = (w > 0) & (w < 1)
    assert free.sum() >= 3 and (w == 0).any() and (w == 1).any()
    near = np.where(free, 0.999 * w, w)
    found = unlearning.soft._polished(near, 1.1 * alpha, 0.9 * beta, *problem)
    np.testing.assert_allclose(found[0], w, rtol=0, atol=1e-15)
    np.testing.assert_allclose(found[1:], (alpha, beta), rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "beta, a, c, u, t",
    [
        (0.0, [1, 3], -3.6, [0, 0], 0.0),  # by it (0.64, −0.08)
        (0.0, [-3, 1], -0.5, [0, 0], 0.0),  # (1.15 …): above 1
        (0.1, [1, 0], -0.5, [0, -1], 0.5),  # β = −0.5
        (0.1, [1, 1], -1.0, [2, 2], 0.0),  # no two multipliers
    ],
)
def test_the_last_step_is_not_taken_where_it_would_lead_out(beta, a, c, u, t):
    w, a, u = np.array([0.5, 0.625]), np.array(a, float), np.array(u, float)
    found = unlearning.soft._polished(w, 0.3, beta, a, c, u, t)
    np.testing.assert_array_equal(found[0], [0.5, 0.625])
    assert found[1:] == (0.3, beta)
