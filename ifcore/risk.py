"""The weighted empirical risk R_w(θ) = Σ_i w_i ℓ_i(θ) + (λ/2)‖θ‖², with ℓ_i(θ) = ℓ(f(θ; x_i), y_i).

A model is any function f(θ, x) of a flat parameter vector and one example's input, written in torch, or
a torch.nn.Module brought in by `Network`; a loss is any function ℓ(f, y) of the model's output and one
target. Everything is float64.
"""

import copy
import operator

import numpy as np
import torch
from torch.func import functional_call, grad, jacrev, jvp, vjp, vmap

from ifcore import _inputs, _jacobian

JACOBIAN = 2**24  # numbers of a dense Jacobian held at a time when G is summed up
COLUMNS = 16  # right-hand sides that a product takes at a time


class NotConvex(ValueError):
    """A loss that is not convex in the output, where it must be; `example`, and `smallest` of its Hessian's eigenvalues."""

    def __init__(self, message, example, smallest):
        super().__init__(message)
        self.example, self.smallest = example, smallest


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


def bregman(loss, output, reference, y):
    """D(f, f′) = ℓ(f, y) − ℓ(f′, y) − ⟨∇ℓ(f′, y), f − f′⟩, the Bregman divergence of ℓ(·, y): a tensor of no axes.

    loss : ℓ(f, y). output, reference : two outputs of one shape. y : the target.
    At least 0 for every pair exactly where ℓ(·, y) is convex. Source: the notes' D; Bregman (1967).
    """
    f, reference, y = (
        torch.as_tensor(value, dtype=torch.float64) for value in (output, reference, y)
    )
    if f.shape != reference.shape:
        raise ValueError(
            f"output and reference must have one shape; got {tuple(f.shape)} and {tuple(reference.shape)}"
        )
    return loss(f, y) - loss(reference, y) - (grad(loss)(reference, y) * (f - reference)).sum()


class Network:
    """A torch.nn.Module as a model f(θ; x) of a flat θ: net(theta, x), with x one example and θ a tensor (d,).

    module : takes a batch (n, …) and treats its examples one by one. It is copied, in float64 and in evaluation
    mode (no dropout; batch norm by its running statistics). θ holds the parameters that require a gradient, in the
    order of `named_parameters`; the others stay as they are. An output of shape (1,) counts as a number.

    d : how many parameters; theta : their values when the module came, (d,), NumPy.
    Raises TypeError for what is no module, ValueError where no parameter requires a gradient.
    """

    def __init__(self, module):
        if not isinstance(module, torch.nn.Module):
            raise TypeError(f"module must be a torch.nn.Module; got {type(module).__name__}")
        self._module = copy.deepcopy(module).double().eval()
        parameters = {name: p for name, p in self._module.named_parameters() if p.requires_grad}
        if not parameters:
            raise ValueError("module must have a parameter that requires a gradient; got none")
        self._module.requires_grad_(False)
        self._shapes = {name: p.shape for name, p in parameters.items()}
        self._sizes = [p.numel() for p in parameters.values()]
        self.theta = torch.cat([p.reshape(-1) for p in parameters.values()]).numpy()
        self.d = len(self.theta)

    def __call__(self, theta, x):
        return self._outputs(theta, x[None])[0]

    def width(self, outputs):
        """Numbers that `_layers` keeps for one example of `outputs` outputs."""
        names = self._linear_layers()
        layers = [layer for name, layer in self._module.named_modules() if name in names]
        return sum(layer.in_features + outputs * layer.out_features for layer in layers)

    def module(self, theta):
        """A copy of the module, in float64, with the parameters θ (d,)."""
        out = copy.deepcopy(self._module)
        out.load_state_dict(self._parameters(torch.as_tensor(theta)), strict=False)
        return out

    def _parameters(self, theta):
        parts = theta.split(self._sizes)
        return {name: part.view(shape) for (name, shape), part in zip(self._shapes.items(), parts)}

    def _outputs(self, theta, X):
        out = functional_call(self._module, self._parameters(theta), (X,))
        return out.squeeze(1) if out.shape[1:] == (1,) else out

    def _require_one_by_one(self, X):
        """That a batch gives what its examples give one by one, tried on X."""
        theta = torch.from_numpy(self.theta)
        batch, single = self._outputs(theta, X), torch.stack([self(theta, x) for x in X])
        if batch.shape != single.shape or not torch.allclose(
            batch, single, rtol=1e-8, atol=1e-8, equal_nan=True
        ):
            raise ValueError(
                "module must take a batch (n, …) and treat its examples one by one; an example's output changes with the others"
            )

    def _linear_layers(self):
        """{name: where in θ it starts} of the linear layers that own every entry of θ, or None."""
        starts = dict(zip(self._shapes, np.cumsum([0, *self._sizes]).tolist()))
        layers = {
            name: starts[prefix + "weight"]
            for name, layer in self._module.named_modules()
            if type(layer) is torch.nn.Linear
            and (prefix := f"{name}." if name else "") + "weight" in starts
        }
        own = {f"{name}.{part}" if name else part for name in layers for part in ("weight", "bias")}
        return layers if set(starts) <= own else None

    def _layers(self, theta, X):
        """J at the examples X layer by layer (`_jacobian.Layers`), or None where a layer is not used once on a vector."""
        starts = self._linear_layers()
        if starts is None:
            return None
        inputs, sums, once = {}, {}, True

        def keep(name):
            def hook(layer, arguments, out):
                nonlocal once
                once &= name not in inputs and out.ndim == 2
                inputs[name], sums[name] = (
                    arguments[0].detach(),
                    out if out.requires_grad else out.requires_grad_(),
                )
                return out.clone()  # what follows may work in place

            return hook

        modules = dict(self._module.named_modules())
        handles = [modules[name].register_forward_hook(keep(name)) for name in starts]
        try:
            with torch.enable_grad():
                out = self._outputs(theta, X).reshape(len(X), -1)
                if not once or len(inputs) < len(starts):
                    return None
                deltas = [
                    torch.autograd.grad(
                        out[:, k].sum(),
                        list(sums.values()),
                        retain_graph=True,
                        materialize_grads=True,
                    )
                    for k in range(out.shape[1])
                ]
        finally:
            for handle in handles:
                handle.remove()
        layers = [
            (
                starts[name],
                inputs[name].numpy(),
                torch.stack(delta, 1).numpy(),
                f"{name}.bias".lstrip(".") in self._shapes,
            )
            for name, delta in zip(sums, zip(*deltas))
        ]
        return _jacobian.Layers(layers, self.d)


class Risk:
    """The risk of a model and a loss on the examples (x_i, y_i), for any weights w.

    model : f(θ, x), a flat θ (d,) and one row of X to an output of any shape; or a `Network`.
    loss : ℓ(f, y), an output and one row of y to a number.
    X : (n, …), y : (n,) or (n, …), finite; integers are converted.
    lam : λ ≥ 0, which no weight touches.
    d : the number of parameters; by default the model's own d, or the number of columns of X, right for `linear`.

    θ and w are array-likes, results NumPy arrays; weights=None is the whole data, w = 1.
    Raises TypeError, ValueError for inputs that do not fit. Source: the notes' (0.1) at λ = 0,
    and with w their L − εℓ_z and R_j + εℓ_j; the chapter *Setting and leave-one-out* translates.
    """

    def __init__(self, model, loss, X, y, lam=0.0, d=None):
        X, y = _inputs.array(X, "X"), _inputs.array(y, "y")
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
                f"d, the number of parameters, must be given where X is not (n, d); X has shape {X.shape}"
            )
        self.d = X.shape[1] if d is None else operator.index(d)
        if self.d < 1:
            raise ValueError(f"d must be at least 1; got {self.d}")
        self.lam = _inputs.nonnegative(lam, "lam")
        self.model, self.loss = model, loss
        self.X, self.y = torch.tensor(X), torch.tensor(y)
        self.n = len(X)
        self._check()
        self.layered = self._is_layered()

    def _check(self):
        """The model and the loss tried on one example, and the labels against the model's output."""
        theta, shape = torch.zeros(self.d, dtype=torch.float64), tuple(self.X.shape[1:])
        try:
            output = self.model(theta, self.X[0])
        except (RuntimeError, IndexError) as error:
            raise ValueError(
                f"the model must take theta ({self.d},) and an example of shape {shape}; {error}"
            ) from error
        y = self.y.numpy()
        self.K = output.numel()
        if isinstance(self.model, Network):
            self.model._require_one_by_one(self.X[:2])
        if self.loss is cross_entropy and output.ndim != 1:
            raise ValueError(
                f"cross_entropy needs a model with an output (K,) an example; this one's is {tuple(output.shape)}"
            )
        if self.loss in (squared, logistic) and output.shape != self.y.shape[1:]:
            raise ValueError(
                f"y must have the shape (n, …) of the model's outputs, (n, …) = {(self.n, *output.shape)}; got {y.shape}"
            )
        if self.loss is logistic and not np.isin(y, (0, 1)).all():
            raise ValueError(
                f"y must hold labels 0 and 1 for the logistic loss; got {np.unique(y)[:5]}"
            )
        if self.loss is cross_entropy and not np.isin(y, np.arange(len(output))).all():
            raise ValueError(
                f"y must hold classes 0, …, {len(output) - 1} for this model; got {np.unique(y)[:5]}"
            )
        value = self.loss(output, self.y[0])
        if value.ndim:
            raise ValueError(
                f"the loss must be one number an example; got shape {tuple(value.shape)}"
            )

    def _is_layered(self):
        """Whether the Jacobian goes by linear layers: tried on two examples, against automatic differentiation."""
        if not isinstance(self.model, Network):
            return False
        theta, X = (
            torch.from_numpy(np.random.default_rng(0).standard_normal(self.d)) / self.d**0.5,
            self.X[:2],
        )
        layers = self.model._layers(theta, X)
        if layers is None:
            return False
        J = vmap(jacrev(self.model), (None, 0))(theta, X).reshape(layers.shape).numpy()
        return bool(np.allclose(layers.dense(), J, rtol=0, atol=1e-10 * np.abs(J).max()))

    def outputs(self, theta):
        """f(θ; x_i) of every example: (n,) or (n, …)."""
        return self._outputs(self._theta(theta)).numpy()

    def jacobian(self, theta):
        """J_i = ∂f(θ; x_i)/∂θ of every example: (n, d) or (n, …, d)."""
        theta = self._theta(theta)
        return self._jacobian(theta).dense().reshape(*self._outputs(theta).shape, self.d)

    def output_gradients(self, theta):
        """g_i = ∇ℓ(·, y_i) in the output, at f(θ; x_i): (n,) or (n, …)."""
        return vmap(grad(self.loss))(self._outputs(self._theta(theta)), self.y).numpy()

    def output_hessians(self, theta):
        """H_i = ∇²ℓ(·, y_i) in the output, at f(θ; x_i): (n, K, K) for K outputs an example, flattened."""
        return self._output_hessians(self._theta(theta)).numpy()

    def bregman(self, theta, reference):
        """D_i(f(θ; x_i), f(θ′; x_i)) of every example, θ′ = reference: (n,). See the function `bregman`."""
        f, other = self._outputs(self._theta(theta)), self._outputs(self._theta(reference))
        return vmap(lambda *pair: bregman(self.loss, *pair))(f, other, self.y).numpy()

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
        H, G = self._output_hessians(theta), self.lam * torch.eye(self.d, dtype=theta.dtype)
        size = max(1, JACOBIAN // (H.shape[1] * self.d))
        for first in range(0, self.n, size):
            rows = slice(first, first + size)
            J = torch.from_numpy(self._jacobian(theta, rows).dense()).reshape(
                -1, H.shape[1], self.d
            )
            weighted = w[rows, None, None] * (H[rows] @ J)
            G += J.reshape(-1, self.d).T @ weighted.reshape(-1, self.d)
        return G.numpy()

    def gauss_newton_product(self, theta, V, weights=None):
        """G_w V for V (d,) or (d, r), without the matrix."""
        product = self._gauss_newton_map(self._theta(theta), self._weights(weights))
        return _columns(product, V, self.d)

    def hessian_product(self, theta, V, weights=None):
        """H_w V for V (d,) or (d, r), without the matrix (Pearlmutter, 1994)."""
        product = self._hessian_map(self._theta(theta), self._weights(weights))
        return _columns(product, V, self.d)

    # The same as functions of tensors, which `response` maps over many θ and w at once.

    def _outputs(self, theta):
        if isinstance(self.model, Network):
            return self.model._outputs(theta, self.X)
        return vmap(self.model, (None, 0))(theta, self.X)

    def _some(self, rows):
        """The risk of the examples `rows` alone."""
        out = copy.copy(self)
        out.X, out.y, out.n = self.X[rows], self.y[rows], len(rows)
        return out

    def _output_hessians(self, theta):
        output = self._outputs(theta)
        size = output[0].numel()
        return vmap(jacrev(grad(self.loss)))(output, self.y).reshape(self.n, size, size)

    def _jacobian(self, theta, rows=slice(None)):
        """J of the examples `rows` as a linear map of NumPy arrays, layer by layer where it can be."""
        if self.layered:
            return self.model._layers(theta, self.X[rows])
        J = vmap(jacrev(self.model), (None, 0))(theta, self.X[rows])
        return _jacobian.Dense(J.reshape(-1, self.d).numpy())

    def _convex_hessians(self, theta):
        """Eigenvalues (n, K), at least 0, and eigenvectors (n, K, K) of the output Hessians. Raises NotConvex."""
        H = self._output_hessians(theta).numpy()
        values, vectors = (H[:, 0], np.ones_like(H)) if H.shape[1] == 1 else np.linalg.eigh(H)
        lowest = values.min(axis=1)
        i = int(lowest.argmin())
        if lowest[i] < -1e-12 * np.abs(values).max():
            raise NotConvex(
                f"the loss must be convex in the output; at example {i} its Hessian has the eigenvalue {lowest[i]:.2e}",
                i,
                float(lowest[i]),
            )
        return values.clip(min=0), vectors

    def _root(self, theta, w):
        """S with S_iS_i = w_iH_i, H_i the output Hessians: (n, K, K)."""
        values, vectors = self._convex_hessians(theta)
        return (vectors * np.sqrt(w.numpy()[:, None] * values)[:, None, :]) @ vectors.transpose(
            0, 2, 1
        )

    def _gauss_newton_map(self, theta, w):
        """V (d, r) ↦ G_w V, of NumPy arrays: by layers, or by forward and reverse differentiation."""
        H = w[:, None, None] * self._output_hessians(theta)
        if self.layered:
            J, H = self._jacobian(theta), H.numpy()
            return lambda V: J.transposed(_jacobian.scale(H, J.product(V))) + self.lam * V

        def flat(t):
            return self._outputs(t).reshape(self.n, -1)

        def one(v):
            _, moved = jvp(flat, (theta,), (v,))
            return back((H @ moved[:, :, None])[:, :, 0])[0] + self.lam * v

        _, back = vjp(flat, theta)
        return lambda V: vmap(one, 1, 1, chunk_size=COLUMNS)(torch.from_numpy(V)).numpy()

    def _hessian_map(self, theta, w):
        """V (d, r) ↦ H_w V, of NumPy arrays."""

        def one(v):
            return jvp(grad(lambda t: self._value(t, w)), (theta,), (v,))[1]

        return lambda V: vmap(one, 1, 1, chunk_size=COLUMNS)(torch.from_numpy(V)).numpy()

    def _losses(self, theta):
        return vmap(self.loss)(self._outputs(theta), self.y)

    def _gradients(self, theta):
        one = grad(lambda t, x, y: self.loss(self.model(t, x), y))
        return vmap(one, (None, 0, 0))(theta, self.X, self.y)

    def _value(self, theta, w):
        return w @ self._losses(theta) + self.lam / 2 * (theta @ theta)

    def _hessian(self, theta, w):
        return jacrev(grad(self._value))(theta, w)

    def _theta(self, theta):
        theta = _inputs.array(theta, "theta", 1)
        if len(theta) != self.d:
            raise ValueError(f"theta must have length d = {self.d}; got {len(theta)}")
        return torch.from_numpy(theta)

    def _weights(self, weights):
        rows, single = _inputs.weights(weights, self.n)
        if not single:
            raise ValueError(
                f"weights must be one vector of length {self.n}; got shape {rows.shape}"
            )
        return torch.from_numpy(rows[0])


def _columns(product, V, d):
    V = _inputs.array(V, "V")
    if V.ndim not in (1, 2) or len(V) != d:
        raise ValueError(f"V must be ({d},) or ({d}, r); got {V.shape}")
    return product(V.reshape(d, -1)).reshape(V.shape)


def without(n, j):
    """Weights (n,) that leave out example j, or a group of examples: 0 there, 1 elsewhere.

    Raises IndexError for an index outside 0, …, n − 1, ValueError for one that comes twice.
    """
    w = np.ones(n)
    w[_inputs.indices(j, n)] = 0
    return w
