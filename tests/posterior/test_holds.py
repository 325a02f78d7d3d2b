"""What the posterior refuses, by name, and what it says of draws that are not to be trusted."""

import warnings

import numpy as np
import pytest

from ifcore import data, posterior, risk
from ifcore.posterior import StepTooLarge
from ifcore.risk import NotFinite, Risk
from ifcore.runs import BadCache, NotConverged, Run
from ifcore.solvers import NotPositiveDefinite

LOOSE = Run(strict=False, progress=False)
ZERO = np.zeros(2)


def squares(**options):
    X, y = data.regression(0, 8, 2)
    return Risk(risk.linear, risk.squared, X, y / y.std(), **options)


def saddle(lam=0.0):
    """f = ab x: at (0, 0) with target 1 its Hessian has the eigenvalues ∓Σ x y = ∓3."""
    X = np.array([[1.0], [2.0]])
    return Risk(lambda t, x: t[0] * t[1] * x[0], risk.squared, X, np.ones(2), lam, d=2)


def sampled(found=None, theta=ZERO, damping=1.0, beta=1.0, step=0.05, draws=300, **options):
    return posterior.langevin(found or squares(), theta, damping, beta, step, draws, **options)


def test_a_gaussian_that_is_none_names_the_eigenvalue_and_a_damping():
    words = "least eigenvalue of P = βH_w \\+ γI is -5.60e\\+00, γ = 0.4. damping = "
    with pytest.raises(NotPositiveDefinite, match=words) as e:
        posterior.gaussian(saddle(), ZERO, 0.4, 2.0)
    mend = float(str(e.value).split("damping = ")[1].split()[0])
    assert 6 < mend < 7
    posterior.gaussian(saddle(), ZERO, mend, 2.0)
    with pytest.raises(NotPositiveDefinite):
        posterior.gaussian(saddle(), ZERO, 2.9, 1.0)
    posterior.gaussian(saddle(), ZERO, 2.9, 0.9)  # γ stands outside β


def test_a_density_that_is_not_integrable_is_refused():
    with pytest.raises(
        NotPositiveDefinite, match="must be known to be integrable; .* -6.00e\\+00 at theta"
    ):
        sampled(saddle(), damping=0.0, beta=2.0, run=LOOSE)
    singular = Risk(risk.linear, risk.squared, [[1.0, 0.0]], [0.0])
    with pytest.raises(NotPositiveDefinite, match="would mend it"):
        sampled(singular, damping=0.0, run=LOOSE)
    nearly = Risk(risk.linear, risk.squared, np.diag([1e3, 1e-6]), ZERO)  # 0 up to rounding
    for found in (nearly, saddle(np.array([0.0, 1.0]))):
        with pytest.raises(NotPositiveDefinite):
            sampled(found, damping=0.0, run=LOOSE)
    with pytest.warns(UserWarning, match="have not mixed"):
        for found, damping in ((saddle(), 1.0), (saddle(1.0), 0.0)):
            few = sampled(found, damping=damping, draws=8, burn=0, thin=1, run=LOOSE)
            assert np.isfinite(few.losses).all()


def test_a_step_beyond_stability_is_refused_with_one_that_would_do():
    """4/p, p the largest eigenvalue of βH_w + γI."""
    found = Risk(risk.linear, risk.squared, np.diag([1.0, 3.0]), ZERO)  # p = 2·9 + 1
    with pytest.raises(StepTooLarge, match="below 4/p = 2.11e-01, p = 1.90e\\+01") as e:
        sampled(found, beta=2.0, step=0.22)
    assert e.value.step == pytest.approx(0.4 / 19) and len(e.value.args) == 1
    assert (sampled(found, beta=2.0, step=e.value.step, thin=30).status == "mixed").all()


def checked(h, damping, beta, step, lam=0.0):
    """The width and the step that would do, for H_w = h + lam at θˢ, d = 1."""
    found = Risk(lambda t, x: t[0] ** 2 / 2 * x[0], risk.squared, [[1.0]], [-h], lam, d=1)
    return posterior._checked(found, [0.0], [1.0], damping, beta, step, True)


def test_the_width_and_the_step_that_would_do_by_their_definition():
    """√(d/(γ + βλ)), and 0.4/p, or the step itself where p ≤ 0; a step is refused from 4/p on."""
    for lam, damping, beta, low in ((0.5, 2.0, 3.0, 3.5), (0.0, 0.25, 3.0, 0.25)):
        assert checked(1.0, damping, beta, 1e-3, lam)[0] == pytest.approx(low**-0.5, rel=1e-14)
    for h, p in ((0.0, 0.5), (-0.25, 0.0), (-0.5, -0.5)):
        do = 0.4 / p if p > 0 else 0.3
        assert checked(h, 0.5, 2.0, 0.3)[1] == pytest.approx(do, rel=1e-12), p
    with pytest.raises(StepTooLarge):
        checked(1.0, 2.0, 2.0, 1.0)
    assert checked(1.0, 2.0, 2.0, np.nextafter(1.0, 0))[1] == 0.1


def drawn_within(far, monkeypatch):
    """150 draws each of 3 chains of a standard normal density, and how many steps they took."""
    found = Risk(risk.linear, risk.squared, [[1.0]], [0.0])
    calls, honest = [], posterior._pull

    def counted(*given):
        pull = honest(*given)
        return lambda at: calls.append(at) or pull(at)

    monkeypatch.setattr(posterior, "_pull", counted)
    block = found, np.zeros(1), np.ones(1), 1.0, 1.0, 0.5, (150, 3, 0, 1), None, 0, far, None
    drawn = posterior._sample(*block)
    monkeypatch.undo()
    return drawn, len(calls)


def test_a_chain_is_gone_once_a_draw_of_it_is_beyond_the_bound_and_all_gone_end_it(monkeypatch):
    """They are looked at every hundred steps."""
    whole, count = drawn_within(np.inf, monkeypatch)
    assert count == 150 and np.isfinite(whole["energy"]).all()
    away = np.abs(whole["observables"][:, :, 0])
    far = np.sort(away.max(1))[1]  # itself within
    found, count = drawn_within(far, monkeypatch)
    assert count == (150 if (away[:, 99] <= far).any() else 100)
    np.testing.assert_array_equal(np.isfinite(found["energy"]).all(1), away.max(1) <= far)
    np.testing.assert_array_equal(np.isnan(found["losses"]).all((1, 2)), away.max(1) > far)
    at = np.sort(away[:, 99])
    for far, steps in ((at[0], 150), (np.nextafter(at[0], 0), 100), (0.0, 100)):
        assert drawn_within(far, monkeypatch)[1] == steps


def test_how_far_a_chain_may_come_is_told_from_theta_and_the_width(monkeypatch):
    found = squares(lam=np.array([0.5, 2.0]))
    blocks = []

    def sample(*block):
        blocks.append(block)
        raise KeyboardInterrupt

    monkeypatch.setattr(posterior, "_sample", sample)
    with pytest.raises(KeyboardInterrupt):
        sampled(found, [3.0, 4.0], damping=1.0, beta=2.0, run=Run(jobs=1))
    assert blocks[0][9] == pytest.approx(1e6 * (1 + 5 + np.sqrt(2 / (1 + 2 * 0.5))), rel=1e-14)


def test_the_defaults_of_langevin():
    given = {"chains": 4, "burn": 1000, "thin": 10, "seed": 0, "batch": None, "weights": np.ones(8)}
    one, other = (sampled(draws=150, run=LOOSE, step=0.3, **o) for o in ({}, given))
    for a, b in zip(one, other):
        np.testing.assert_array_equal(a, b)


def test_a_batch_may_be_all_examples():
    with pytest.warns(UserWarning, match="have not mixed"):
        assert sampled(batch=8, draws=8, burn=0, run=LOOSE).losses.shape == (4, 8, 8)


@pytest.fixture
def judged(monkeypatch):
    """_judged of draws whose R̂ and effective sizes are given."""

    def call(r_hat, effective, losses, energy, strict=False):
        monkeypatch.setattr(posterior, "mixing", lambda columns: (r_hat, effective))
        found = {"losses": losses, "observables": losses[:, :, :1], "energy": energy}
        return posterior._judged(found, 0.1, strict)

    return call


@pytest.mark.parametrize(
    "r_hat, effective, well",
    [
        ([1.01, 1.0, 0.99], [100, 1e3, 1e3], True),
        ([1.0101, 1.0, 0.99], [1e3, 1e3, 1e3], False),
        ([1.0, 1.0, 1.0], [1e3, 99.9, 1e3], False),
        ([2.0, 2.0, 2.0], [1e3, 1e3, 1e3], False),
        ([1.0, 1.0, 1.0], [9, 9, 9], False),
    ],
)
def test_chains_have_mixed_where_every_r_hat_and_every_effective_size_is_as_asked_for(
    r_hat, effective, well, judged
):
    losses, energy = np.ones((3, 8, 2)), np.ones((3, 8))
    call = np.array(r_hat), np.array(effective), losses, energy
    if well:
        assert judged(*call, strict=True).status.tolist() == ["mixed"] * 3
        return
    with pytest.raises(NotConverged, match="have not mixed") as e:
        judged(*call, strict=True)
    assert e.value.reached.status.tolist() == ["not mixed"] * 3


@pytest.mark.parametrize("part", ["losses", "energy"])
def test_a_chain_with_one_draw_that_is_not_finite_has_diverged_and_the_others_not(part, judged):
    losses, energy = np.ones((3, 8, 2)), np.ones((3, 8))
    {"losses": losses[:, :, 1], "energy": energy}[part][1, 5] = np.inf
    with pytest.warns(UserWarning, match="^1 of 3 chains diverged; step = 1.0e-01 may mend it"):
        found = judged(np.ones(3), np.full(3, 1e3), losses, energy)
    assert found.status.tolist() == ["mixed", "diverged", "mixed"]


@pytest.mark.parametrize("ratio", [4.3, 40.0])
def test_chains_that_diverge_are_reported_with_their_values(ratio):
    found = Risk(risk.linear, risk.squared, np.eye(2), ZERO)
    with pytest.warns(UserWarning) as said:
        drawn = sampled(found, step=ratio / 2, run=LOOSE)
    assert [w.message.args[0].split()[0] for w in said] == ["step", "4"]
    assert "4 of 4 chains diverged; step = 2.0e-01 may mend it" in str(said[1].message)
    assert (drawn.status == "diverged").all()
    assert all(np.isnan(part).all() for part in drawn[:5])
    with pytest.raises(ValueError, match="losses must be finite"):
        posterior.bayesian_influence(drawn.losses, drawn.observables)


def test_a_chain_that_leaves_by_a_steeper_slope_raises_with_what_was_reached():
    """Curvature 0 at θˢ, and a quartic around: no look at θˢ foresees it."""
    found = Risk(lambda t, x: t[0] ** 2 * x[0], risk.squared, [[30.0]], [0.0], d=1)
    with pytest.raises(NotConverged, match="chains diverged; step = ") as e:
        sampled(found, [0.0], step=0.5)
    gone = e.value.reached.status == "diverged"
    assert gone.any() and np.isnan(e.value.reached.losses[gone]).all()


def test_chains_that_have_not_mixed_say_so():
    with pytest.raises(NotConverged, match="R̂ is up to .*, where 1.01 was asked for") as e:
        sampled(step=1e-5, thin=1)
    assert (e.value.reached.status == "not mixed").all()
    assert e.value.reached.r_hat.max() > 1.01
    with pytest.warns(UserWarning, match="effective sample size down to"):
        found = sampled(draws=8, run=LOOSE)
    assert found.effective.min() < 100 and found.effective.shape == (10,)


def test_the_same_seed_gives_the_same_bits(tmp_path):
    kept = Run(tmp_path, progress=False)
    one, again, other = (
        sampled(thin=50, seed=seed, run=kept._replace(folder=f))
        for seed, f in ((3, tmp_path), (3, None), (4, None))
    )
    for a, b in zip(one, again):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one.losses, other.losses)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(sampled(thin=50, seed=3, run=kept).losses, one.losses)
    for changed in ({"seed": 4}, {"beta": 2.0}, {"observables": squares().tensors.losses}):
        with pytest.raises(BadCache, match=f"{next(iter(changed))} was .*, now "):
            sampled(**{"thin": 50, "seed": 3, "run": kept} | changed)


X = np.zeros((2, 9, 3))
BAD = [
    (lambda: posterior.gaussian("risk", ZERO, 1.0), TypeError, "risk must be a Risk"),
    (lambda: posterior.gaussian(squares(), np.zeros(3), 1.0), ValueError, "length d = 2; got 3"),
    (
        lambda: posterior.gaussian(squares(), ZERO, -1.0),
        ValueError,
        "damping must be .* at least 0",
    ),
    (lambda: posterior.gaussian(squares(), ZERO, 1.0, 0.0), ValueError, "beta must be positive"),
    (lambda: posterior.gaussian(squares(), ZERO, 1.0, weights=[1.0]), ValueError, "weights"),
    (lambda: posterior.gaussian(squares(), ZERO, 1.0, matrix="gn"), ValueError, "matrix must be"),
    (
        lambda: posterior.gaussian(squares(), ZERO, 1.0).influence_on_losses(saddle()),
        ValueError,
        "test must have the model of the risk",
    ),
    (
        lambda: posterior.gaussian(squares(), ZERO, 1.0).influence_on_outputs(
            Risk(risk.linear, risk.squared, np.ones((1, 3)), [0.0])
        ),
        ValueError,
        "with d = 2; got 3",
    ),
    (lambda: posterior.gaussian(squares(), ZERO, 1.0).influence_on_outputs(3), TypeError, "test"),
    (lambda: sampled(step=0.0), ValueError, "step must be positive; got 0.0"),
    (lambda: sampled(damping=-1.0), ValueError, "damping must be a number at least 0; got -1.0"),
    (lambda: sampled(beta=np.nan), ValueError, "beta"),
    (lambda: sampled(chains=1), ValueError, "chains must be at least 2, which R̂ compares; got 1"),
    (lambda: sampled(draws=7), ValueError, "draws must be at least 8 of each chain, for R̂; got 7"),
    (lambda: sampled(draws=8.5), ValueError, "draws must be an integer"),
    (lambda: sampled(burn=-1), TypeError, "burn must be an integer at least 0; got -1"),
    (lambda: sampled(thin=0), ValueError, "thin must be an integer at least 1; got 0"),
    (lambda: sampled(batch=9), ValueError, "batch must be at most n = 8; got 9"),
    (lambda: sampled(batch=0), ValueError, "batch must be an integer at least 1; got 0"),
    (lambda: sampled(seed=0.5), TypeError, "seed must be an integer at least 0; got 0.5"),
    (lambda: sampled(run=None), TypeError, "run must be a Run"),
    (lambda: sampled(observables=lambda t: 1.0), TypeError, "observables must give a tensor"),
    (lambda: sampled("risk"), TypeError, "risk must be a Risk"),
    (
        lambda: posterior.bayesian_influence(X, X[:, :8]),
        ValueError,
        "losses and observables must be .* got \\(2, 9, 3\\) and \\(2, 8, 3\\)",
    ),
    (lambda: posterior.bayesian_influence(X[0], X[0]), ValueError, "got \\(9, 3\\)"),
    (lambda: posterior.bayesian_influence(X[:, :, 0], X), ValueError, "got \\(2, 9\\) and"),
    (lambda: posterior.bayesian_influence(X, X[:, :, 0]), ValueError, "and \\(2, 9\\)"),
    (lambda: posterior.bayesian_influence(X[:1], X[:1]), ValueError, "chains must be at least 2"),
    (lambda: posterior.bayesian_influence(X, X, -1.0), ValueError, "beta"),
    (lambda: posterior.mixing(X[:, :7]), ValueError, "draws must be at least 8"),
    (lambda: posterior.mixing(X[0]), ValueError, "values must be \\(chains, draws, k\\); got"),
]


@pytest.mark.parametrize("call, error, words", BAD)
def test_bad_input_is_refused_by_name(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_losses_that_are_not_finite_at_theta_are_named():
    found = Risk(lambda t, x: t[0] / x[0], risk.squared, [[1.0], [0.0], [2.0]], np.ones(3), d=1)
    with pytest.raises(NotFinite, match="every loss must be finite at theta; that of 1 is not"):
        sampled(found, [1.0], weights=[1.0, 0.0, 1.0])
