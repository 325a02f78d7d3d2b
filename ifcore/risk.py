"""The weighted empirical risk R_w(θ) = Σ_i w_i ℓ_i(θ) + (λ/2)‖θ‖², with ℓ_i(θ) = ℓ(f(θ; x_i), y_i).

A model is any function f(θ, x) of a flat parameter vector and one example's input, written in
torch, or a `Network`; a loss is any function ℓ(f, y) of the model's output and one target.
Everything is float64. `Risk` takes and gives arrays; its `tensors` are the same as functions of
tensors, to be mapped and differentiated.
"""

import copy
import operator

import numpy as np
import torch
from torch.func import grad, jacrev, jvp, vjp, vmap

from ifcore import inputs, jacobian
from ifcore.network import Layer, Network, exponential, sigmoid

JACOBIAN = 2**24  # numbers of a dense Jacobian held at a time when G is summed up
COLUMNS = 16  # right-hand sides that a product takes at a time


class NotConvex(ValueError):
    """A loss that is not convex in the output, where it must be.

    example : where; smallest : of its Hessian's eigenvalues.
    """

    def __init__(self, message, example, smallest):
        super().__init__(message)
        self.example, self.smallest = example, smallest


def linear(theta, x):
    """f(θ; x) = xᵀθ: linear regression with `squared`, logistic regression with `logistic`."""
    return x @ theta


# What a loss brings of its own, as attributes of the function; one that brings none works as well,
# by automatic differentiation, but its fits are not trained side by side.
#   slope : (f, targets, out), which writes ∇ℓ in the outputs f (m, n, K) into out, NumPy
#   targets : (y, K) ↦ what the slope needs, (n, K)
#   require : (output of one example, y), which raises ValueError for targets that do not fit


def _brings(**parts):
    def attach(loss):
        for name, part in parts.items():
            setattr(loss, name, part)
        return loss

    return attach


def _rows(y, K):
    return y.reshape(len(y), -1)


def _one_hot(y, K):
    return (np.arange(K) == y.reshape(-1, 1)).astype(float)


def _require_outputs(output, y):
    if output.shape != y.shape[1:]:
        raise ValueError(
            f"y must have the shape (n, …) of the model's outputs, (n, …) = "
            f"{(len(y), *output.shape)}; got {y.shape}"
        )


def _require_labels(output, y):
    _require_outputs(output, y)
    if not np.isin(y, (0, 1)).all():
        raise ValueError(
            f"y must hold labels 0 and 1 for the logistic loss; got {np.unique(y)[:5]}"
        )


def _require_classes(output, y):
    if output.ndim != 1:
        raise ValueError(
            f"cross_entropy needs a model with an output (K,) an example; this one's is "
            f"{tuple(output.shape)}"
        )
    if y.ndim != 1:
        raise ValueError(f"y must hold one class an example, (n,); got shape {y.shape}")
    if not np.isin(y, np.arange(len(output))).all():
        raise ValueError(
            f"y must hold classes 0, …, {len(output) - 1} for this model; got {np.unique(y)[:5]}"
        )


def _squared_slope(f, targets, out):
    np.copyto(out, f)
    out -= targets


def _logistic_slope(f, targets, out):
    sigmoid(f, out)
    out -= targets


def _poisson_slope(f, targets, out):
    np.copyto(out, f)
    exponential(out)
    out -= targets


def _softmax_slope(f, targets, out):
    exponential(np.subtract(f, f.max(axis=2, keepdims=True), out=out))
    out /= out.sum(axis=2, keepdims=True)
    out -= targets


@_brings(slope=_squared_slope, targets=_rows, require=_require_outputs)
def squared(output, y):
    """ℓ(f, y) = ½‖f − y‖²."""
    return 0.5 * ((output - y) ** 2).sum()


@_brings(slope=_logistic_slope, targets=_rows, require=_require_labels)
def logistic(output, y):
    """ℓ(f, y) = log(1 + eᶠ) − yf for a label y in {0, 1}.

    Minus the log-likelihood of P(y = 1) = 1/(1 + e⁻ᶠ).
    """
    return _log_one_plus_exp((1 - 2 * y) * output)


@_brings(slope=_poisson_slope, targets=_rows, require=_require_outputs)
def poisson(output, y):
    """ℓ(f, y) = eᶠ − yf for a count y, or any y; minus a log-likelihood of the mean eᶠ."""
    return (torch.exp(output) - y * output).sum()


@_brings(slope=_softmax_slope, targets=_one_hot, require=_require_classes)
def cross_entropy(output, y):
    """ℓ(f, y) = log Σ_k e^{f_k} − f_y for a class y in 0, …, K − 1 and f of length K."""
    own = torch.arange(len(output)) == y
    others = (output - torch.where(own, output, 0).sum()).masked_fill(own, -torch.inf)
    return _log_one_plus_exp(torch.logsumexp(others, 0))


def _log_one_plus_exp(x):
    """log(1 + eˣ) with all its digits, which log(1 + eᶠ) − f has not where f is large."""
    # Below −700, eˣ < 1e-304 counts for nothing, and logaddexp's second derivative is NaN.
    return torch.logaddexp(torch.zeros_like(x), x.clamp(min=-700))


def bregman(loss, output, reference, y):
    """D(f, f′) = ℓ(f, y) − ℓ(f′, y) − ⟨∇ℓ(f′, y), f − f′⟩, the Bregman divergence of ℓ(·, y).

    loss : ℓ(f, y). output, reference : two outputs f, f′ of one shape. y : the target. Returns a
    tensor of no axes. At least 0 for every pair exactly where ℓ(·, y) is convex.
    Source: the notes' D; Bregman (1967).
    """
    f, reference, y = (torch.as_tensor(v, dtype=torch.float64) for v in (output, reference, y))
    if f.shape != reference.shape:
        raise ValueError(
            f"output and reference must have one shape; got {tuple(f.shape)} and "
            f"{tuple(reference.shape)}"
        )
    return loss(f, y) - loss(reference, y) - (grad(loss)(reference, y) * (f - reference)).sum()


class Tensors:
    """The risk as functions of tensors, without checks: θ (d,) and w (n,) in float64.

    They can be mapped over many θ and w by torch.func.vmap, and differentiated.
    """

    def __init__(self, model, loss, X, y, lam):
        self.model, self.loss, self.X, self.y, self.lam = model, loss, X, y, lam

    def outputs(self, theta):
        """f(θ; x_i): (n,) or (n, …)."""
        if isinstance(self.model, Network):
            return self.model.batch(theta, self.X)
        return vmap(self.model, (None, 0))(theta, self.X)

    def losses(self, theta):
        """ℓ_i(θ): (n,)."""
        return vmap(self.loss)(self.outputs(theta), self.y)

    def gradients(self, theta):
        """∇ℓ_i(θ): (n, d)."""
        one = grad(lambda t, x, y: self.loss(self.model(t, x), y))
        return vmap(one, (None, 0, 0))(theta, self.X, self.y)

    def value(self, theta, w):
        """R_w(θ)."""
        return w @ self.losses(theta) + self.lam / 2 * (theta @ theta)

    def hessian(self, theta, w):
        """H_w(θ): (d, d)."""
        return jacrev(grad(self.value))(theta, w)

    def output_gradients(self, theta):
        """g_i = ∇ℓ(·, y_i) in the output: (n,) or (n, …)."""
        return vmap(grad(self.loss))(self.outputs(theta), self.y)

    def output_hessians(self, theta):
        """H_i = ∇²ℓ(·, y_i) in the output: (n, K, K)."""
        output = self.outputs(theta)
        size = output[0].numel()
        return vmap(jacrev(grad(self.loss)))(output, self.y).reshape(len(self.X), size, size)

    def subset(self, rows):
        """The same of the examples `rows` alone."""
        return Tensors(self.model, self.loss, self.X[rows], self.y[rows], self.lam)


class Risk:
    """The risk of a model and a loss on the examples (x_i, y_i), for any weights w.

    model : f(θ, x), a flat θ (d,) and one row of X to an output of any shape; or a `Network`.
    loss : ℓ(f, y), an output and one row of y to a number.
    X : (n, …), y : (n,) or (n, …), finite; integers are converted.
    lam : λ ≥ 0, which no weight touches.
    d : the number of parameters; by default the model's own d, or the number of columns of X, right
    for `linear`.

    n, d, K : how many examples, parameters, outputs an example. layered : whether the Jacobian goes
    by linear layers. tensors : the same as functions of tensors. θ and w are array-likes, results
    NumPy arrays; weights=None is the whole data, w = 1.
    Raises TypeError, ValueError for inputs that do not fit. Source: the notes' (0.1), Definition 4,
    at λ = 0, and with w their L − εℓ_z and R_j + εℓ_j; the chapter *Setting and leave-one-out*
    translates.
    """

    def __init__(self, model, loss, X, y, lam=0.0, d=None):
        X, y = inputs.array(X, "X"), inputs.array(y, "y")
        if X.ndim == 0 or X.shape[0] == 0:
            raise ValueError(
                f"X must hold at least one example along its first axis; got shape {X.shape}"
            )
        if y.ndim == 0 or len(y) != len(X):
            raise ValueError(
                f"y must have one entry for each of the {len(X)} examples of X; got shape {y.shape}"
            )
        d = getattr(model, "d", None) if d is None else d
        if d is None and X.ndim != 2:
            raise ValueError(
                f"d, the number of parameters, must be given where X is not (n, d); X has shape "
                f"{X.shape}"
            )
        self.d = X.shape[1] if d is None else operator.index(d)
        if self.d < 1:
            raise ValueError(f"d must be at least 1; got {self.d}")
        self.lam = inputs.nonnegative(lam, "lam")
        self.model, self.loss = model, loss
        self.X, self.y = torch.tensor(X), torch.tensor(y)
        self.n = len(X)
        self.tensors = Tensors(model, loss, self.X, self.y, self.lam)
        self.K = self._tried()
        self.layered = self._is_layered()

    def _tried(self):
        """The model and the loss tried on one example, y against the output; how many outputs."""
        theta, shape = torch.zeros(self.d, dtype=torch.float64), tuple(self.X.shape[1:])
        try:
            output = self.model(theta, self.X[0])
        except (RuntimeError, IndexError) as error:
            raise ValueError(
                f"the model must take theta ({self.d},) and an example of shape {shape}; {error}"
            ) from error
        if not isinstance(output, torch.Tensor):
            raise TypeError(f"the model must give a tensor; got {type(output).__name__}")
        if isinstance(self.model, Network):
            self.model.require_one_by_one(self.X[:2])
        if hasattr(self.loss, "require"):
            self.loss.require(output, self.y.numpy())
        value = self.loss(output, self.y[0])
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"the loss must give a tensor; got {type(value).__name__}")
        if value.ndim:
            raise ValueError(
                f"the loss must be one number an example; got shape {tuple(value.shape)}"
            )
        return output.numel()

    def _is_layered(self):
        """Whether the Jacobian goes by layers: on two examples, against torch's."""
        if not isinstance(self.model, Network):
            return False
        rng, X = np.random.default_rng(0), self.X[:2]
        theta = torch.from_numpy(rng.standard_normal(self.d)) / self.d**0.5
        layers = self.model.jacobian(theta, X)
        if layers is None:
            return False
        J = vmap(jacrev(self.model), (None, 0))(theta, X).reshape(layers.shape).numpy()
        return bool(np.allclose(layers.dense(), J, rtol=0, atol=1e-10 * np.abs(J).max()))

    def outputs(self, theta):
        """f(θ; x_i) of every example: (n,) or (n, …)."""
        return self.tensors.outputs(self.parameters(theta)).numpy()

    def jacobian(self, theta):
        """J_i = ∂f(θ; x_i)/∂θ of every example: (n, d) or (n, …, d)."""
        shape = self.outputs(theta).shape
        return self.jacobian_map(theta).dense().reshape(*shape, self.d)

    def output_gradients(self, theta):
        """g_i = ∇ℓ(·, y_i) in the output, at f(θ; x_i): (n,) or (n, …)."""
        return self.tensors.output_gradients(self.parameters(theta)).numpy()

    def output_hessians(self, theta):
        """H_i = ∇²ℓ(·, y_i) in the output, at f(θ; x_i): (n, K, K), K outputs an example, flat."""
        return self.tensors.output_hessians(self.parameters(theta)).numpy()

    def bregman(self, theta, reference):
        """D_i(f(θ; x_i), f(θ′; x_i)) of every example, θ′ = reference: (n,). See `bregman`."""
        f, other = (self.tensors.outputs(self.parameters(t)) for t in (theta, reference))
        return vmap(lambda *pair: bregman(self.loss, *pair))(f, other, self.y).numpy()

    def losses(self, theta):
        """ℓ_i(θ) of every example: (n,). At θ*₋ⱼ entry j is the notes' Q(z), (0.7)."""
        return self.tensors.losses(self.parameters(theta)).numpy()

    def gradients(self, theta):
        """∇ℓ_i(θ) of every example, without λ: (n, d)."""
        return self.tensors.gradients(self.parameters(theta)).numpy()

    def value(self, theta, weights=None):
        """R_w(θ)."""
        return self.tensors.value(self.parameters(theta), self.weights(weights)).item()

    def gradient(self, theta, weights=None):
        """∇R_w(θ) = Σ_i w_i ∇ℓ_i(θ) + λθ: (d,)."""
        return grad(self.tensors.value)(self.parameters(theta), self.weights(weights)).numpy()

    def hessian(self, theta, weights=None):
        """H_w = ∇²R_w(θ) = Σ_i w_i ∇²ℓ_i(θ) + λI: (d, d)."""
        return self.tensors.hessian(self.parameters(theta), self.weights(weights)).numpy()

    def gauss_newton(self, theta, weights=None):
        """G_w = Σ_i w_i J_iᵀ H_i J_i + λI: (d, d), the Hessian of R_w where f is linear in θ.

        J_i = ∂f(θ; x_i)/∂θ, and H_i is the Hessian of ℓ(·, y_i) in the output. Source: Schraudolph
        (2002).
        """
        theta, w = self.parameters(theta), self.weights(weights)
        H, G = self.tensors.output_hessians(theta), self.lam * torch.eye(self.d, dtype=theta.dtype)
        size = max(1, JACOBIAN // (self.K * self.d))
        for first in range(0, self.n, size):
            rows = slice(first, first + size)
            J = torch.from_numpy(self.jacobian_map(theta, rows).dense())
            J = J.reshape(-1, self.K, self.d)
            weighted = w[rows, None, None] * (H[rows] @ J)
            G += J.reshape(-1, self.d).T @ weighted.reshape(-1, self.d)
        return G.numpy()

    def gauss_newton_product(self, theta, V, weights=None):
        """G_w V for V (d,) or (d, r), without the matrix."""
        return self._columns(self.gauss_newton_map(theta, self.weights(weights)), V)

    def hessian_product(self, theta, V, weights=None):
        """H_w V for V (d,) or (d, r), without the matrix (Pearlmutter, 1994)."""
        return self._columns(self.hessian_map(theta, self.weights(weights)), V)

    def gauss_newton_map(self, theta, weights=None):
        """V (d, r) ↦ G_w V, of NumPy arrays: by layers, or by forward and reverse differentiation.

        What depends on θ alone is computed once. All weights may be 0.
        """
        theta = self.parameters(theta)
        w = self.weights(weights, zero=True)
        H = w[:, None, None] * self.tensors.output_hessians(theta)
        if self.layered:
            J, H = self.jacobian_map(theta), H.numpy()
            return lambda V: J.transposed(jacobian.scale(H, J.product(V))) + self.lam * V

        def flat(t):
            return self.tensors.outputs(t).reshape(self.n, -1)

        def one(v):
            _, moved = jvp(flat, (theta,), (v,))
            return back((H @ moved[:, :, None])[:, :, 0])[0] + self.lam * v

        _, back = vjp(flat, theta)
        return _by_columns(one)

    def hessian_map(self, theta, weights=None):
        """V (d, r) ↦ H_w V, of NumPy arrays. All weights may be 0."""
        theta, w = self.parameters(theta), self.weights(weights, zero=True)

        def one(v):
            return jvp(grad(lambda t: self.tensors.value(t, w)), (theta,), (v,))[1]

        return _by_columns(one)

    def jacobian_map(self, theta, rows=slice(None)):
        """J of the examples `rows`, as a linear map of NumPy arrays (room `jacobian`).

        Layer by layer where it can be.
        """
        theta = self.parameters(theta)
        if self.layered:
            return self.model.jacobian(theta, self.X[rows])
        J = vmap(jacrev(self.model), (None, 0))(theta, self.X[rows])
        return jacobian.Dense(J.reshape(-1, self.d).numpy())

    def convex_hessians(self, theta):
        """Eigenvalues (n, K), at least 0, and eigenvectors (n, K, K) of the output Hessians.

        Raises NotConvex where one has an eigenvalue below 0.
        """
        H = self.output_hessians(theta)
        values, vectors = (H[:, 0], np.ones_like(H)) if self.K == 1 else np.linalg.eigh(H)
        lowest = values.min(axis=1)
        i = int(lowest.argmin())
        if lowest[i] < -1e-12 * np.abs(values).max():
            raise NotConvex(
                f"the loss must be convex in the output; at example {i} its Hessian has the "
                f"eigenvalue {lowest[i]:.2e}",
                i,
                float(lowest[i]),
            )
        return values.clip(min=0), vectors

    def output_roots(self, theta, weights=None):
        """S with S_iS_i = w_iH_i, H_i the output Hessians: (n, K, K). Raises NotConvex."""
        values, vectors = self.convex_hessians(theta)
        roots = np.sqrt(self.weights(weights).numpy()[:, None] * values)
        return (vectors * roots[:, None, :]) @ vectors.transpose(0, 2, 1)

    def subset(self, rows):
        """The risk of the examples `rows` alone, with the same λ."""
        out = copy.copy(self)
        out.tensors = self.tensors.subset(rows)
        out.X, out.y, out.n = out.tensors.X, out.tensors.y, len(out.tensors.X)
        return out

    def chain(self):
        """The chain of linear layers that the model is, for training side by side.

        None where it is no chain, or the loss brings no slope of its own.
        """
        if not hasattr(self.loss, "slope"):
            return None
        if self.model is linear and self.X.ndim == 2:
            return (Layer("", 1, self.d, 0, None),)
        return self.model.chain(self.X.ndim - 1) if isinstance(self.model, Network) else None

    def parameters(self, theta):
        """θ, checked, as a tensor (d,)."""
        theta = inputs.array(theta, "theta", 1)
        if len(theta) != self.d:
            raise ValueError(f"theta must have length d = {self.d}; got {len(theta)}")
        return torch.from_numpy(theta)

    def weights(self, weights, zero=False):
        """One weight vector, checked, as a tensor (n,); None is w = 1. zero : whether 0 will do."""
        rows, single = inputs.weights(weights, self.n, zero)
        if not single:
            raise ValueError(f"weights must be one vector of length {self.n}; got {rows.shape}")
        return torch.from_numpy(rows[0])

    def _columns(self, product, V):
        V = inputs.array(V, "V")
        if V.ndim not in (1, 2) or len(V) != self.d:
            raise ValueError(f"V must be ({self.d},) or ({self.d}, r); got {V.shape}")
        return product(V.reshape(self.d, -1)).reshape(V.shape)


def _by_columns(product):
    return lambda V: vmap(product, 1, 1, chunk_size=COLUMNS)(torch.from_numpy(V)).numpy()
