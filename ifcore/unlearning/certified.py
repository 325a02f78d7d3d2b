"""Certified removal: what a removal leaves in the gradient is bounded, and noise of b hides it.

The model is the minimiser of R(θ) + bᵀθ, with b drawn from N(0, σ² Id). A model θ that is not quite
the minimiser without the removed points has a gradient left, its residual, as if it were the
minimiser for b less the residual.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import erfcx, ndtr

from ifcore import inputs
from ifcore.risk import Risk, linear, logistic, squared
from ifcore.solvers import Primal
from ifcore.weights import without

THIRD = {squared: 0.0, logistic: 3**-0.5 / 6}  # the largest |ℓ‴| in the output
STEPS = ("newton", "influence")


class Exhausted(RuntimeError):
    """A removal whose bound would exceed the budget; `model` is the one before it, and holds.

    bound : that with the removal. left : of the budget before it.
    """

    def __init__(self, message, model=None, bound=None):
        super().__init__(message)
        self.model, self.bound = model, bound

    @property
    def left(self):
        return self.model.left


def residual_bound(X, move, third=THIRD[logistic]):
    """‖X‖₂ ‖(X move)²‖₂ third/2: what a Newton step `move` leaves of the gradient, at most.

    X : (n, d), of the examples that count. move : (d,). third : a bound of abs ℓ‴ in the output, by
    default that of the logistic loss, 1/(6√3). For a model xᵀθ, by Taylor's formula for every ℓ′;
    Guo et al. (2020) have ‖X‖₂‖move‖‖X move‖/4 in its place, for ‖x‖ ≤ 1.

    Memory: 8 (n d + n) bytes.
    """
    X, move = inputs.array(X, "X", 2), inputs.array(move, "move", 1)
    if len(move) != X.shape[1]:
        raise ValueError(f"move must have length d = {X.shape[1]}; got {len(move)}")
    third = inputs.nonnegative(third, "third")
    return float(np.linalg.norm(X, 2) * np.linalg.norm((X @ move) ** 2) * third / 2)


def gaussian_delta(shift, sigma, epsilon):
    """The least δ for which N(0, σ²) and N(shift, σ²) are (ε, δ)-indistinguishable.

    shift : at least 0, the norm of the difference of two means. sigma > 0, epsilon ≥ 0.
    Φ(r/2 − ε/r) − e^ε Φ(−r/2 − ε/r), r = shift/σ, to a relative error of 1e-14/r.
    Source: Balle and Wang (2018), Theorem 8.
    """
    shift = inputs.nonnegative(shift, "shift")
    sigma, epsilon = inputs.positive(sigma, "sigma"), inputs.nonnegative(epsilon, "epsilon")
    r = shift / sigma
    if r == 0 or epsilon / r > 1e150:  # beyond it δ is below the least number there is
        return 0.0
    a, b = r / 2 - epsilon / r, -r / 2 - epsilon / r
    # e^ε φ(b) = φ(a): both terms over φ(a), lest small ones cancel, or e^ε overflow
    root, half = 2**0.5, np.exp(-(a**2) / 2) / 2
    if a > 1:
        return float(ndtr(a) - half * erfcx(-b / root))
    return float(half * (erfcx(-a / root) - erfcx(-b / root)))


def budget(sigma, epsilon, delta):
    """The largest residual that b ~ N(0, σ² Id) hides: the shift whose `gaussian_delta` is δ.

    sigma > 0, epsilon ≥ 0, 0 < delta < 1. The noise must not depend on the residual.
    """
    sigma, epsilon = inputs.positive(sigma, "sigma"), inputs.nonnegative(epsilon, "epsilon")
    if not inputs.positive(delta, "delta") < 1:
        raise ValueError(f"delta must lie between 0 and 1; got {delta}")
    low = high = 1.0
    while gaussian_delta(high, 1.0, epsilon) < delta:
        low, high = high, 2 * high
    while gaussian_delta(low, 1.0, epsilon) > delta:
        low /= 2
    log = np.log(delta)

    def missing(r):
        found = gaussian_delta(r, 1.0, epsilon)
        return (np.log(found) if found else -1e4) - log

    return sigma * brentq(missing, low, high, xtol=1e-300, rtol=1e-14)


@dataclass(frozen=True)
class Certified:
    """A convex model, what was removed from it, and how large a gradient that can have left.

    risk : a `Risk` of the model xᵀθ, whose b is the noise. theta : (d,), its minimiser. budget : of
    the residual, by default without end (function `budget`). third : as for `residual_bound`; by
    default that of the squared or the logistic loss. removed : examples that are gone. bound : of
    the residual ‖∇R_w(θ)‖, by default the residual itself. It does not change: `remove` returns
    another. Raises TypeError, ValueError.
    Source: Guo et al. (2020).
    Memory: as for `Risk.gradient`.
    """

    risk: Risk
    theta: np.ndarray
    budget: float = np.inf
    third: float | None = None
    removed: tuple = ()
    bound: float | None = None

    def __post_init__(self):
        inputs.kind(self.risk, Risk, "risk")
        if self.risk.model is not linear:
            raise ValueError(
                "risk must be of ifcore.risk.linear, f = xᵀθ: for other models no bound is known"
            )
        third = THIRD.get(self.risk.loss) if self.third is None else self.third
        if third is None:
            raise ValueError(
                "third, a bound of the loss's third derivative in the output, must be given for a "
                "loss other than squared and logistic"
            )
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731
        put("third", inputs.nonnegative(third, "third"))
        put("theta", self.risk.parameters(self.theta).numpy().copy())
        budget = inputs.real(self.budget, "budget")
        if budget.ndim or not budget > 0:
            raise ValueError(f"budget must be positive, or infinite; got {self.budget}")
        none = isinstance(self.removed, (tuple, list)) and not self.removed
        gone = [] if none else inputs.indices(self.removed, self.risk.n, "removed").tolist()
        put("removed", tuple(gone))
        bound = self.residual if self.bound is None else self.bound
        put("bound", inputs.nonnegative(bound, "bound"))

    @property
    def weights(self):
        """(n,), 0 for the removed."""
        return without(self.risk.n, list(self.removed)) if self.removed else np.ones(self.risk.n)

    @property
    def residual(self):
        """‖∇R_w(θ)‖, b included: what is left in truth."""
        return float(np.linalg.norm(self.risk.gradient(self.theta, self.weights)))

    @property
    def left(self):
        """Of the budget."""
        return self.budget - self.bound

    def remove(self, j, step="newton"):
        """The model without example j, or a list of them, by one step; this one stays as it is.

        step : "newton", −H_w⁻¹∇R_w(θ), which removes the present residual too: its bound is that
        of one step. Or "influence", H_w⁻¹Σ_j∇ℓ_j(θ), as published, whose bounds add up.

        Raises Exhausted where the bound would exceed the budget, NotPositiveDefinite where H_w has
        no inverse, IndexError, ValueError for one that is gone already.
        Memory: 8 (3 n d + 4 d²) bytes.
        """
        inputs.choice(step, STEPS, "step")
        gone = inputs.indices(j, self.risk.n, "j").tolist()
        if twice := sorted(set(gone) & set(self.removed)):
            raise ValueError(f"j must be an example that is there; {twice[0]} was removed before")
        removed = (*self.removed, *gone)
        w, X = without(self.risk.n, list(removed)), self.risk.X.numpy()
        H = self.risk.hessian(self.theta, w)
        gradient = self.risk.gradient(self.theta, w)
        pull = gradient if step == "newton" else -self.risk.gradients(self.theta)[gone].sum(0)
        move = -Primal(H, name="H_w").solve(pull)
        carried = np.linalg.norm(gradient + H @ move) if step == "newton" else self.bound
        bound = float(carried + residual_bound(X[w > 0], move, self.third))
        if bound > self.budget:
            raise Exhausted(
                f"removal {len(removed)}, of example {gone[0]}, would have a residual of up "
                f"to {bound:.3g}, over the budget of {self.budget:.3g}, of which {self.left:.3g} "
                "is left; the model before it is kept, and has to be retrained",
                self,
                bound,
            )
        return replace(self, theta=self.theta + move, removed=removed, bound=bound)


def membership_ratio(risk, theta, j, sigma, weights=None):
    """log p(θ) with example j minus that without it: exact, for θ = θ(w) under b ~ N(0, σ² Id).

    risk : a `Risk`, convex, without the noise b. theta : (d,), or (m, d) for m models. j : an
    index, or a list, of weight above 0. sigma > 0. weights : (n,), those with j.
    Returns a number, or (m,). The density at θ is that of b = −∇R_w(θ) times det H_w(θ). By Neyman
    and Pearson no attack that knows all but whether j was there is better.

    Raises ValueError for an H that is not positive definite.
    Memory: 8 (1.5 n d + 4 d²) bytes.
    """
    inputs.kind(risk, Risk, "risk")
    sigma, w = inputs.positive(sigma, "sigma"), risk.weights(weights).numpy()
    fewer = w * without(risk.n, inputs.indices(j, risk.n))
    models = inputs.array(theta, "theta")
    if models.ndim not in (1, 2) or models.shape[-1] != risk.d:
        raise ValueError(f"theta must be ({risk.d},) or (m, {risk.d}); got {models.shape}")
    found = np.array(
        [
            _log_density(risk, one, w, sigma) - _log_density(risk, one, fewer, sigma)
            for one in np.atleast_2d(models)
        ]
    )
    return found if models.ndim == 2 else float(found[0])


def _log_density(risk, theta, w, sigma):
    """Up to a constant, log of the density of θ(w) under b ~ N(0, σ² Id)."""
    try:
        root = np.linalg.cholesky(risk.hessian(theta, w))
    except np.linalg.LinAlgError as error:
        raise ValueError(
            "the Hessian of R_w must be positive definite at theta, as lam > 0 makes it"
        ) from error
    size = 2 * np.log(np.diag(root)).sum()
    return size - np.sum(risk.gradient(theta, w) ** 2) / (2 * sigma**2)
