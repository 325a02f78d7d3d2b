"""The local posterior: draws around θˢ, and Bayesian influence, which is a covariance.

At the inverse temperature β its density is ∝ e^{−U(θ)}, U(θ) = βR_w(θ) + (γ/2)‖θ − θˢ‖², with the
λ and the b of R_w. γ is `damping`, and stands outside β (Kreer et al., 2025, have β = 1, λ = 0).
For any φ(θ), exactly,

    ∂E[φ]/∂w_i = −β Cov(ℓ_i, φ).

Where R_w is quadratic it is N(μ, P⁻¹), with P = βH_w + γI and μ = θˢ − βP⁻¹∇R_w(θˢ). There
−β Cov(ℓ_i, θ) = −βP⁻¹∇ℓ_i(μ) is damped influence at μ, not at θˢ, with the damping γ/β. Of two
losses the covariance is ∇ℓ_iᵀP⁻¹∇ℓ_k + ½ tr(∇²ℓ_i P⁻¹∇²ℓ_k P⁻¹). Influence has not the second
term, which beside the first falls as 1/β at a fixed γ/β.
"""

from typing import NamedTuple

import numpy as np
import torch
from arviz_stats.base import array_stats
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from torch.func import grad

from ifcore import inputs, solvers
from ifcore.identity import Code, digest, fingerprint
from ifcore.risk import NotFinite, Risk
from ifcore.runs import NotConverged, Run

MIXED = 1.01, 100  # the largest R̂, that of Vehtari et al. (2021); the least effective sample size
FAR = 1e6  # from θˢ, over 1 + ‖θˢ‖ + the posterior's width: a chain that comes there has diverged
EVERY = 100  # steps between two looks at that
DENSE = 1000  # parameters up to which the Hessian's eigenvalues are computed
TOLD = 1e-8  # of the largest eigenvalue: what Lanczos' method tells from 0


class StepTooLarge(ValueError):
    """A step at which Langevin's chain grows without bound; `step` is one that would do."""

    def __init__(self, message, step=None):
        super().__init__(message)
        self.step = step


class Gaussian(NamedTuple):
    """N(μ, P⁻¹), and the influence that its covariances are, as for `gaussian`."""

    risk: Risk
    mean: np.ndarray  #: (d,), μ
    beta: float
    factor: object  #: of P/β = H_w + (γ/β)I, or with G_w: a `solvers.Primal` or `Dual`

    def solve(self, v):
        """P⁻¹v, the covariance times v (d,) or (d, r)."""
        return self.factor.solve(v) / self.beta

    def draw(self, seed, m):
        """m draws, (m, d). seed : or a NumPy Generator."""
        return self.mean + self.factor.draw(seed, m) / np.sqrt(self.beta)

    def influence_on_parameters(self):
        """−β Cov(ℓ_i, θ) = −βP⁻¹∇ℓ_i(μ), (n, d): exact for quadratic losses."""
        return -self.factor.answer(_gradients(self.risk, self.mean).T).x.T

    def influence_on_outputs(self, test=None):
        """−β Cov(ℓ_i, f(x_t)), (n, t, …): exact for quadratic losses and outputs linear in θ.

        test : a `Risk` of the same model; None for the training examples.
        Memory, for t test examples: 8 (t K d + 3 n d + n t K) bytes.
        """
        J = _same(self.risk, test).jacobian(self.mean)
        found = self.influence_on_parameters() @ J.reshape(-1, self.risk.d).T
        return found.reshape(self.risk.n, *J.shape[:-1])

    def influence_on_losses(self, test=None):
        """−β Cov(ℓ_i, ℓ_t), (n, t): exact for a linear model with squared loss.

        Of others with ∇²ℓ_i = J_iᵀH_iJ_i at μ, H_i the Hessian in the output. test : as above.
        Raises NotConvex for an H_i that is not positive semidefinite.

        Memory, for t test examples: 8 (3 (n + t) K d + (1 + K²) n t) bytes.
        """
        own, other = (self._halves(some) for some in (self.risk, _same(self.risk, test)))
        first, curved = (a.T @ b for a, b in zip(own, other))
        curved *= curved
        n, K = self.risk.n, self.risk.K
        squares = curved.reshape(n, K, -1, K).sum((1, 3)) if K > 1 else curved
        squares /= -2 * self.beta
        squares -= first
        return squares

    def _halves(self, risk):
        """W∇ℓ_i (d, n) and WJ_iᵀ√H_i (d, n K), with WᵀW = (P/β)⁻¹."""
        J = risk.jacobian(self.mean).reshape(risk.n, risk.K, risk.d)
        rows = (risk.output_roots(self.mean) @ J).reshape(-1, risk.d)
        return [self.factor.whiten(V.T) for V in (_gradients(risk, self.mean), rows)]


def gaussian(risk, theta, damping, beta=1.0, weights=None, *, matrix="hessian", **options):
    """The posterior with R_w to second order at θˢ, as a Gaussian: exact where R_w is quadratic.

    risk : a `Risk`. theta : (d,), θˢ, any point. damping : γ ≥ 0. beta : β > 0. weights : (n,).
    matrix : "hessian", or "gauss_newton" for G_w in the place of H_w. options : form and memory, as
    for `solvers.factor`.

    Raises NotPositiveDefinite where P is not: there is no such Gaussian (its smallest eigenvalue,
    and a damping that would mend it); as for `solvers.factor`.
    Memory: as for `solvers.factor`.
    """
    inputs.kind(risk, Risk, "risk")
    damping, beta = inputs.nonnegative(damping, "damping"), inputs.positive(beta, "beta")
    theta, w = risk.parameters(theta).numpy(), risk.weights(weights).numpy()

    def remedy(smallest, largest):
        mend = solvers.mending(damping, beta * smallest, beta * largest, "damping")
        least = f"the least eigenvalue of P = βH_w + γI is {beta * smallest:.2e}, γ = {damping:g}"
        return f"Those are with γ/β added: {least}. {mend}"

    factor = solvers.factor(risk, theta, w, damping / beta, matrix=matrix, remedy=remedy, **options)
    return Gaussian(risk, theta - factor.solve(risk.gradient(theta, w)), beta, factor)


class Draws(NamedTuple):
    """What `langevin` drew, and how far it is to be trusted; NaN where a chain diverged."""

    losses: np.ndarray  #: (chains, draws, n), ℓ_i
    observables: np.ndarray  #: (chains, draws, k), φ, or θ
    energy: np.ndarray  #: (chains, draws), U
    r_hat: np.ndarray  #: (n + k,), of each loss, then of each observable
    effective: np.ndarray  #: (n + k,), the effective sample size of their means
    status: np.ndarray  #: (chains,), "mixed", "not mixed" or "diverged"


def langevin(
    risk,
    theta,
    damping,
    beta,
    step,
    draws,
    *,
    weights=None,
    chains=4,
    burn=1000,
    thin=10,
    batch=None,
    seed=0,
    observables=None,
    run=Run(),
):
    """Draws of the posterior by Langevin's steps θ ← θ − (ε/2)∇U(θ) + √ε ξ, ξ ~ N(0, I).

    risk, theta, damping, beta, weights : as for `gaussian`; losses bounded below. step : ε. draws :
    of each chain, at least 8, one every `thin` steps after the first `burn`. chains : at least 2,
    all from θˢ: R̂ does not see what none of them has reached. batch : examples a step, drawn anew
    for each chain; None for all. observables : a torch function of θ (d,), a number or (k,), such
    as `test.tensors.losses`; None for θ itself. run : a `Run`.

    No draw is refused, so the draws have a bias. For a quadratic U their covariance is exactly
    (P − εP²/4)⁻¹ without batches, whose noise adds to it; it needs ε < 4/p, p the largest
    eigenvalue of P. This is looked at beforehand, at θˢ.

    Returns Draws. With run.strict raises StepTooLarge, and NotConverged where a chain diverged or
    R̂ and the effective sample size are not as MIXED wants them; else these are warnings. Raises
    NotPositiveDefinite where γ + βλ = 0 and H_w(θˢ) has an eigenvalue ≤ 0: the density may not be
    integrable then; else it is, for convex losses.
    Source: Roberts and Tweedie (1996); with batches Welling and Teh (2011).

    Memory: 8 (5 c (n + k) + c d) bytes for c draws in all.
    """
    inputs.kind(risk, Risk, "risk")
    inputs.kind(run, Run, "run")
    if observables is not None:
        inputs.function(observables, "observables")
    damping, beta = inputs.nonnegative(damping, "damping"), inputs.positive(beta, "beta")
    theta, w = risk.parameters(theta).numpy(), risk.weights(weights).numpy()
    step, (draws, chains) = inputs.positive(step, "step"), _enough(draws, chains)
    plan = draws, chains, inputs.integer(burn, "burn"), inputs.count(thin, "thin")
    batch = None if batch is None else inputs.count(batch, "batch")
    if batch is not None and batch > risk.n:
        raise ValueError(f"batch must be at most n = {risk.n}; got {batch}")
    if not risk.is_finite(theta):
        bad = risk.unsound(theta)
        raise NotFinite(f"every loss must be finite at theta; that of {bad[0]} is not", bad)
    width, do = _checked(risk, theta, w, damping, beta, step, run.strict)
    far = FAR * (1 + np.linalg.norm(theta) + width)
    block = risk, theta, w, damping, beta, step, plan, batch, inputs.integer(seed, "seed"), far

    def configuration():
        at = {"at": digest(theta, w), "seed": seed, "observables": Code(observables)}
        options = {"damping": damping, "beta": beta, "step": step, "plan": plan, "batch": batch}
        return fingerprint(risk) | at | options

    (found,) = run.each(_sample, [(*block, observables)], configuration)
    return _judged(found, do, run.strict)


class Estimate(NamedTuple):
    """Bayesian influence from draws."""

    influence: np.ndarray  #: (n, k), −β Cov(ℓ_i, φ)
    errors: np.ndarray  #: (n, k), standard errors, by the effective sample size


def bayesian_influence(losses, observables, beta=1.0):
    """−β Cov(ℓ_i, φ) over all draws of all chains, with Monte Carlo standard errors.

    losses : (chains, draws, n). observables : (chains, draws, k). As in Draws; of at least 2 chains
    of 8 draws. The error is that of the mean of (ℓ_i − ℓ̄_i)(φ − φ̄), the bias of the draws apart;
    for 2,000 draws it takes about 1 ms an entry. Returns an Estimate. Source: Kreer et al. (2025).

    Memory: 8 (2 n k + 4 c k + c n) bytes for c draws in all.
    """
    beta = inputs.positive(beta, "beta")
    losses, observables = (
        inputs.array(v, name) for v, name in ((losses, "losses"), (observables, "observables"))
    )
    if losses.ndim != 3 or observables.ndim != 3 or losses.shape[:2] != observables.shape[:2]:
        raise ValueError(
            "losses and observables must be (chains, draws, n) and (chains, draws, k); got "
            f"{losses.shape} and {observables.shape}"
        )
    draws, chains = _enough(*losses.shape[1::-1])
    losses, observables = (v - v.mean((0, 1)) for v in (losses, observables))
    found, errors = np.empty((2, losses.shape[2], observables.shape[2]))
    for i in range(len(found)):
        products = losses[:, :, i : i + 1] * observables
        found[i] = products.sum((0, 1)) / (chains * draws - 1)
        errors[i] = np.sqrt(products.var((0, 1)) / mixing(products)[1])
    return Estimate(-beta * found, beta * errors)


def mixing(values):
    """R̂ and the effective sample size of the mean, of each column: (k,) and (k,).

    values : (chains, draws, k), of at least 2 chains of 8 draws. Each chain counts as two, its
    halves, so that R̂ sees a trend; nothing is normalised by ranks. A column that is constant has
    R̂ = 1 and the size of all draws, one that is not finite NaN. ArviZ computes both. Source: Geyer
    (1992); Vehtari et al. (2021).

    Memory: 16 c k bytes for c draws in all.
    """
    values = inputs.real(values, "values").astype(float)
    if values.ndim != 3:
        raise ValueError(f"values must be (chains, draws, k); got {values.shape}")
    _enough(*values.shape[1::-1])
    constant = np.ptp(values, axis=(0, 1)) == 0
    values = values - values.mean((0, 1))
    with np.errstate(divide="ignore", invalid="ignore"):  # of columns that are 0, or not finite
        values /= np.abs(values).max((0, 1))  # to ArviZ a range of 1e-15 is constant
        r_hat = array_stats.rhat(values, chain_axis=0, draw_axis=1, method="split")
        effective = array_stats.ess(values, chain_axis=0, draw_axis=1, method="mean")
    size = values.shape[0] * values.shape[1]
    return np.where(constant, 1, r_hat), np.where(constant, size, effective)


def _enough(draws, chains):
    """Draws and chains, as many as R̂ needs. Raises TypeError, ValueError."""
    draws, chains = inputs.count(draws, "draws"), inputs.count(chains, "chains")
    if chains < 2:
        raise ValueError(f"chains must be at least 2, which R̂ compares; got {chains}")
    if draws < 8:
        raise ValueError(f"draws must be at least 8 of each chain, for R̂; got {draws}")
    return draws, chains


def _same(risk, test):
    """The test risk, of the same model. Raises TypeError, ValueError."""
    test = risk if test is None else test
    inputs.kind(test, Risk, "test")
    if test.model is not risk.model or test.d != risk.d:
        raise ValueError(f"test must have the model of the risk, with d = {risk.d}; got {test.d}")
    return test


def _gradients(risk, theta):
    return inputs.array(risk.gradients(theta), "∇ℓ_i at the posterior's mean")


def _checked(risk, theta, w, damping, beta, step, strict):
    """The posterior's width and a step that would do, if it is integrable and `step` below 4/p."""
    low = damping + beta * risk.penalty_curvature().min()
    high = damping + beta * _edge(risk, theta, w, "LA")
    if not low > 0:
        low = beta * _edge(risk, theta, w, "SA")
        least = risk.d * solvers.EPS if risk.d <= DENSE else TOLD
        if not low > least * high:
            raise solvers.NotPositiveDefinite(
                "the posterior must be known to be integrable; γ + βλ is 0, and βH_w has the "
                f"eigenvalue {low:.2e} at theta. {solvers.mending(damping, low, high, 'damping')}",
                low,
            )
    do = 0.4 / high if high > 0 else step
    if step * high >= 4:
        message = (
            f"step must be below 4/p = {4 / high:.2e}, p = {high:.2e} the largest eigenvalue of "
            f"βH_w + γI at theta; got {step:g}. step = {do:.1e} would do, with variances at most "
            "a ninth too large"
        )
        if strict:
            raise StepTooLarge(message, do)
        inputs.warn(message)
    return np.sqrt(risk.d / low), do


def _edge(risk, theta, w, which):
    """The smallest eigenvalue of H_w(θ), "SA", or the largest, "LA".

    Without the matrix, the largest to a thousandth of itself. The smallest may be 0, which has no
    thousandth: it is found to 10⁻⁹ of the largest, and is 0 where Lanczos' method does not get
    there.
    """
    if risk.d <= DENSE:
        return float(np.linalg.eigvalsh(risk.hessian(theta, w))[0 if which == "SA" else -1])
    product = risk.hessian_map(theta, w)
    shift, tol = 0.0, 1e-3
    if which == "SA":
        shift, tol = 1e-3 * abs(_edge(risk, theta, w, "LA")), 1e-6
    shape = risk.d, risk.d
    H = LinearOperator(shape, lambda v: product(v.reshape(-1, 1))[:, 0] + shift * v.ravel())
    options = {"v0": np.random.default_rng(0).standard_normal(risk.d), "tol": tol}
    try:
        found = eigsh(H, 1, which=which, maxiter=1000, return_eigenvectors=False, **options)
    except ArpackNoConvergence:
        if which == "LA":
            raise
        return 0.0
    return float(found[0]) - shift


@np.errstate(all="ignore")  # what overflows is found and reported
def _sample(risk, theta, w, damping, beta, step, plan, batch, seed, far, observables):
    """The draws of all chains, as arrays; NaN for a chain that is no more."""
    (draws, chains, burn, thin), rng = plan, np.random.default_rng(seed)
    pull, tensors = _pull(risk, w, chains, batch, rng), risk.tensors
    at, kept = np.tile(theta, (chains, 1)), np.full((chains, draws, risk.d), np.nan)
    for t in range(1, burn + draws * thin + 1):
        ridge = tensors.penalty_gradient(torch.from_numpy(at)).numpy()
        slope = beta * (pull(at) + ridge) + damping * (at - theta)
        at = at - step / 2 * slope + np.sqrt(step) * rng.standard_normal(at.shape)
        if t > burn and (t - burn) % thin == 0:
            kept[:, (t - burn) // thin - 1] = at
        if t % EVERY == 0 and not (np.linalg.norm(at - theta, axis=1) <= far).any():
            break
    away = np.linalg.norm(kept - theta, axis=2)
    kept[~(away <= far).all(1)] = np.nan
    points = torch.from_numpy(kept.reshape(-1, risk.d))

    def mapped(function):
        size = max(1, 2**20 // (risk.n * risk.K))
        found = tensors.each(function, chunk_size=size)(points).double().numpy()
        return found.reshape(chains, draws, -1)

    losses = mapped(tensors.losses)
    penalty = mapped(lambda t: tensors.penalty(t).reshape(1))[:, :, 0]
    energy = beta * (losses @ w + penalty) + damping / 2 * away**2
    seen = kept if observables is None else mapped(lambda t: _tensor(observables(t)))
    return {"losses": losses, "observables": seen, "energy": energy}


def _tensor(value):
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"observables must give a tensor; got {type(value).__name__}")
    return value.reshape(-1)


def _pull(risk, w, chains, batch, rng):
    """θ (chains, d) ↦ Σ_i w_i∇ℓ_i(θ) of each chain, or n/batch times that of a batch of its own."""
    tensors, weights, n = risk.tensors, torch.from_numpy(w), risk.n
    chain, size = risk.chain(), n if batch is None else batch

    def rows():
        return rng.random((chains, n)).argpartition(size - 1)[:, :size]

    if chain is not None:
        fits = w[None] if batch else np.tile(w, (chains, 1))
        engine = risk.side_by_side(chain, fits, size)

        def pulled(at, rows=None):
            return n * engine.unpack(engine.gradient(engine.pack(at), rows))

        if batch is None:
            return pulled
        return lambda at: np.concatenate([pulled(*each) for each in zip(at[:, None], rows())])
    if batch is None:
        whole = tensors.each(grad(lambda t: weights @ tensors.losses(t)))
        return lambda at: whole(torch.from_numpy(at)).numpy()
    some = tensors.each(grad(lambda t, rows: weights[rows] @ tensors.subset(rows).losses(t)))
    return lambda at: some(*map(torch.from_numpy, (at, rows()))).numpy() * (n / size)


def _judged(found, do, strict):
    """The Draws, with a status for each chain; what is not well is raised or said."""
    columns = np.concatenate([found["losses"], found["observables"]], axis=2)
    gone = ~np.isfinite(found["energy"] + columns.sum(2)).all(1)
    r_hat, effective = mixing(columns)
    most, least = MIXED
    mixed = (r_hat <= most).all() and (effective >= least).all()
    status = np.where(gone, "diverged", "mixed" if mixed else "not mixed")
    out = Draws(*found.values(), r_hat, effective, status)
    if mixed and not gone.any():
        return out
    message = f"{gone.sum()} of {len(gone)} chains diverged; step = {do:.1e} may mend it"
    if not gone.any():
        message = (
            f"the chains have not mixed: R̂ is up to {r_hat.max():.3f}, where {most} was asked for, "
            f"and the effective sample size down to {effective.min():.0f}, where {least} was; more "
            f"draws, a larger thin or damping, or a step up to {do:.1e} may mend it"
        )
    if strict:
        raise NotConverged(message, out)
    inputs.warn(message)
    return out
