"""The weighted empirical risk R_w(θ) = Σ_i w_i ℓ_i(θ) + (λ/2)‖θ‖², with ℓ_i(θ) = ℓ(f(θ; x_i), y_i).

A model is any function f(θ, x) of a flat parameter vector and one example's input, written in torch;
a loss is any function ℓ(f, y) of the model's output and one target. Everything is float64.
"""

import operator

import numpy as np
import torch
from torch.func import grad, hessian, jacrev, vmap

from ifcore import _inputs


def linear(theta, x):
    """f(θ; x) = xᵀθ: linear regression with `squared`, logistic regression with `logistic`."""
    return x @ theta


def squared(output, y):
    """ℓ(f, y) = ½‖f − y‖²."""
    return 0.5 * ((output - y) ** 2).sum()


def logistic(output, y):
    """ℓ(f, y) = log(1 + eᶠ) − yf for a label y in {0, 1}: minus the log-likelihood of P(y = 1) = 1/(1 + e⁻ᶠ)."""
    return _log_one_plus_exp((1 - 2 * y) * output)


def cross_entropy(output, y):
    """ℓ(f, y) = log Σ_k e^{f_k} − f_y for a class y in 0, …, K − 1 and f of length K."""
    own = torch.arange(len(output)) == y
    others = (output - torch.where(own, output, 0).sum()).masked_fill(own, -torch.inf)
    return _log_one_plus_exp(torch.logsumexp(others, 0))


def _log_one_plus_exp(x):
    """log(1 + eˣ) with all its digits, which log(1 + eᶠ) − f has not where f is large."""
    # Below −700, eˣ < 1e-304 counts for nothing, and the second derivative of logaddexp is NaN.
    return torch.logaddexp(torch.zeros_like(x), x.clamp(min=-700))


class Risk:
    """The risk of a model and a loss on the examples (x_i, y_i), for any weights w.

    model : f(θ, x), a flat θ (d,) and one row of X to an output of any shape.
    loss : ℓ(f, y), an output and one row of y to a number.
    X : (n, …), y : (n,) or (n, …), finite; integers are converted.
    lam : λ ≥ 0, which no weight touches.
    d : the number of parameters; by default that of columns of X, right for `linear`.

    θ and w are array-likes, results NumPy arrays; weights=None is the whole data, w = 1.
    Raises TypeError, ValueError for inputs that do not fit. Source: the notes' (0.1) at λ = 0,
    and with w their L − εℓ_z and R_j + εℓ_j; the chapter *Setting and leave-one-out* translates.
    """

    def __init__(self, model, loss, X, y, lam=0.0, d=None):
        X, y = _inputs.array(X, "X"), _inputs.array(y, "y")
        if X.ndim == 0 or X.shape[0] == 0:
            raise ValueError(f"X must hold at least one example along its first axis; got shape {X.shape}")
        if y.ndim == 0 or len(y) != len(X):
            raise ValueError(f"y must have one entry for each of the {len(X)} examples of X; got shape {y.shape}")
        if d is None and X.ndim != 2:
            raise ValueError(f"d, the number of parameters, must be given where X is not (n, d); X has shape {X.shape}")
        self.d = X.shape[1] if d is None else operator.index(d)
        if self.d < 1:
            raise ValueError(f"d must be at least 1; got {self.d}")
        self.lam = _inputs.nonnegative(lam, "lam")
        self.model, self.loss = model, loss
        self.X, self.y = torch.tensor(X), torch.tensor(y)
        self.n = len(X)
        self._check()

    def _check(self):
        """The model and the loss tried on one example, and the labels against the model's output."""
        theta, shape = torch.zeros(self.d, dtype=torch.float64), tuple(self.X.shape[1:])
        try:
            output = self.model(theta, self.X[0])
        except (RuntimeError, IndexError) as error:
            raise ValueError(f"the model must take theta ({self.d},) and an example of shape {shape}; {error}") from error
        y = self.y.numpy()
        if self.loss in (squared, logistic) and output.shape != self.y.shape[1:]:
            raise ValueError(
                f"y must have the shape (n, …) of the model's outputs, (n, …) = {(self.n, *output.shape)}; got {y.shape}"
            )
        if self.loss is logistic and not np.isin(y, (0, 1)).all():
            raise ValueError(f"y must hold labels 0 and 1 for the logistic loss; got {np.unique(y)[:5]}")
        if self.loss is cross_entropy and not np.isin(y, np.arange(len(output))).all():
            raise ValueError(f"y must hold classes 0, …, {len(output) - 1} for this model; got {np.unique(y)[:5]}")
        value = self.loss(output, self.y[0])
        if value.ndim:
            raise ValueError(f"the loss must be one number an example; got shape {tuple(value.shape)}")

    def outputs(self, theta):
        """f(θ; x_i) of every example: (n,) or (n, …)."""
        return vmap(self.model, (None, 0))(self._theta(theta), self.X).numpy()

    def losses(self, theta):
        """ℓ_i(θ) of every example: (n,)."""
        return self._losses(self._theta(theta)).numpy()

    def gradients(self, theta):
        """∇ℓ_i(θ) of every example, without λ: (n, d)."""
        return self._gradients(self._theta(theta)).numpy()

    def value(self, theta, weights=None):
        """R_w(θ)."""
        return self._value(self._theta(theta), self._weights(weights)).item()

    def gradient(self, theta, weights=None):
        """∇R_w(θ) = Σ_i w_i ∇ℓ_i(θ) + λθ: (d,)."""
        return grad(self._value)(self._theta(theta), self._weights(weights)).numpy()

    def hessian(self, theta, weights=None):
        """H_w = ∇²R_w(θ) = Σ_i w_i ∇²ℓ_i(θ) + λI: (d, d)."""
        return self._hessian(self._theta(theta), self._weights(weights)).numpy()

    def gauss_newton(self, theta, weights=None):
        """G_w = Σ_i w_i J_iᵀ H_i J_i + λI: (d, d), with J_i = ∂f(θ; x_i)/∂θ and H_i the Hessian of
        ℓ(·, y_i) in the output; the Hessian of R_w where f is linear in θ (Schraudolph, 2002)."""
        theta, w = self._theta(theta), self._weights(weights)
        output = vmap(self.model, (None, 0))(theta, self.X)
        J = vmap(jacrev(self.model), (None, 0))(theta, self.X).reshape(self.n, -1, self.d)
        H = vmap(hessian(self.loss))(output, self.y).reshape(self.n, J.shape[1], J.shape[1])
        weighted = w[:, None, None] * (H @ J)
        G = J.reshape(-1, self.d).T @ weighted.reshape(-1, self.d)
        return (G + self.lam * torch.eye(self.d, dtype=G.dtype)).numpy()

    # The same as functions of tensors, which `response` maps over many θ and w at once.

    def _losses(self, theta):
        return vmap(lambda x, y: self.loss(self.model(theta, x), y))(self.X, self.y)

    def _gradients(self, theta):
        one = grad(lambda t, x, y: self.loss(self.model(t, x), y))
        return vmap(one, (None, 0, 0))(theta, self.X, self.y)

    def _value(self, theta, w):
        return w @ self._losses(theta) + self.lam / 2 * (theta @ theta)

    def _hessian(self, theta, w):
        return hessian(self._value)(theta, w)

    def _theta(self, theta):
        theta = _inputs.array(theta, "theta", 1)
        if len(theta) != self.d:
            raise ValueError(f"theta must have length d = {self.d}; got {len(theta)}")
        return torch.from_numpy(theta)

    def _weights(self, weights):
        rows, single = _inputs.weights(weights, self.n)
        if not single:
            raise ValueError(f"weights must be one vector of length {self.n}; got shape {rows.shape}")
        return torch.from_numpy(rows[0])


def without(n, j):
    """Weights (n,) that leave out example j, or a group of examples: 0 there, 1 elsewhere.

    Raises IndexError for an index outside 0, …, n − 1, ValueError for one that comes twice.
    """
    w = np.ones(n)
    w[_inputs.indices(j, n)] = 0
    return w

