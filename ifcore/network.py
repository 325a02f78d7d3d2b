"""A torch module, parsed once: as f(θ; x), by its layers, and as many fits of it side by side.

`Network` is a module as a function of a flat θ. Where linear layers own all of θ, the Jacobian goes
by them (`Network.jacobian`); where they stand in a chain, many fits train in one matrix product a
layer (`SideBySide`).
"""

import copy
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import is_lazy

from ifcore import inputs, jacobian

# whose parameters cannot be put in from outside
WRAPPED = (torch.jit.ScriptModule, nn.DataParallel, nn.parallel.DistributedDataParallel)
ACTIVATIONS = (nn.Tanh, nn.ReLU, nn.Sigmoid)  # that a chain may have behind a layer


class Layer(NamedTuple):
    """A linear layer, and where its parameters stand in θ."""

    name: str
    outputs: int
    inputs: int
    weight: int  #: where its matrix (outputs, inputs) starts in θ
    bias: int | None  #: where its bias starts
    activation: type | None = None  #: what follows it in a chain


class Network:
    """A torch.nn.Module as a model f(θ; x) of a flat θ: net(theta, x), with x one example, θ (d,).

    module : takes a batch (n, …) and treats its examples one by one; where an example has several
    parts, a tuple of batches as its arguments, a dict of them by name. It is copied to the CPU, in
    float64 and in evaluation mode (no dropout; batch norm by its running statistics). θ holds the
    parameters that require a gradient, in the order of `named_parameters`; the others stay as they
    are. An output of shape (1,) counts as a number.

    d : how many parameters; theta : their values when the module came, (d,), NumPy: training the
    module further changes neither, and `flat(module)` gives its θ as it is then. layers : its
    linear layers, where they own all of θ, else None.
    Raises TypeError for what is no module, is a ScriptModule, is complex, or cannot be copied;
    ValueError where no parameter requires a gradient, or one is not finite.
    """

    def __init__(self, module):
        self._module = _copied(module)
        parameters = {name: p for name, p in self._module.named_parameters() if p.requires_grad}
        if not parameters:
            raise ValueError("module must have a parameter that requires a gradient; got none")
        self._module.requires_grad_(False)
        self._shapes = {name: p.shape for name, p in parameters.items()}
        self._sizes = [p.numel() for p in parameters.values()]
        self.theta = torch.cat([p.reshape(-1) for p in parameters.values()]).numpy()
        for name, p in parameters.items():
            if not torch.isfinite(p).all():
                raise ValueError(f"the module's parameters must be finite; {name} is not")
        self.d = len(self.theta)
        self.layers = self._parsed()

    def __call__(self, theta, x):
        out = self.batch(theta, inputs.nested(lambda part: part[None], x))
        return out[0] if isinstance(out, torch.Tensor) else out

    def batch(self, theta, X):
        """f(θ; x) of a batch X (n, …), or a tuple or dict of such: tensors, (n,) or (n, …)."""
        named = X if isinstance(X, dict) else {}
        parts = X if isinstance(X, tuple) else () if named else (X,)
        with _plain_attention():
            out = functional_call(self._module, self._parameters(theta), parts, named)
        if not isinstance(out, torch.Tensor):  # a Risk refuses it
            return out
        return out.squeeze(1) if out.shape[1:] == (1,) else out

    def module(self, theta):
        """A copy of the module, in float64, with the parameters θ (d,); they require a gradient."""
        theta = inputs.array(theta, "theta", 1)
        if len(theta) != self.d:
            raise ValueError(f"theta must have length d = {self.d}; got {len(theta)}")
        return self._filled(torch.from_numpy(theta))

    def _filled(self, theta):
        out = copy.deepcopy(self._module)
        out.load_state_dict(self._parameters(theta), strict=False)
        for name, parameter in out.named_parameters():
            parameter.requires_grad_(name in self._shapes)
        return out

    def flat(self, module):
        """θ (d,), float64, of another module of the same parameters, or of this one, trained on."""
        parameters = dict(module.named_parameters())
        parts = [parameters[name].detach().cpu().double() for name in self._shapes]
        return torch.cat([part.reshape(-1) for part in parts]).numpy()

    def initial(self, seed):
        """θ₀ (d,): the parameters drawn anew, by `reset_parameters` of the layers that own them.

        A layer's parts come before it, as when it is made. seed : an integer. Raises ValueError,
        with their names, where some have no layer that draws them: a cold start from their trained
        values would not be cold.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_seed(seed))
            module = self._filled(torch.full((self.d,), torch.nan, dtype=torch.float64))
            _redraw(module)
        kept = [
            name
            for name, parameter in module.named_parameters()
            if name in self._shapes and not torch.isfinite(parameter).all()
        ]
        if kept:
            raise ValueError(
                f"the parameters {', '.join(kept)} belong to no layer with a method "
                "reset_parameters, which would draw them anew; give their module one"
            )
        return self.flat(module)

    def width(self, outputs):
        """Numbers that `jacobian` keeps for one example of `outputs` outputs."""
        return sum(layer.inputs + outputs * layer.outputs for layer in self.layers)

    def require_one_by_one(self, X):
        """That a batch gives what its examples give one by one, tried on X. Raises ValueError."""
        theta, n = torch.from_numpy(self.theta), len(inputs.leaves(X)[0])
        each = [inputs.nested(lambda part: part[i], X) for i in range(n)]
        batch, single = self.batch(theta, X), torch.stack([self(theta, x) for x in each])
        tolerance = {"rtol": 1e-8, "atol": 1e-8, "equal_nan": True}
        if batch.shape != single.shape or not torch.allclose(batch, single, **tolerance):
            raise ValueError(
                "module must take a batch (n, …) and treat its examples one by one; an example's "
                "output changes with the others"
            )

    def jacobian(self, theta, X):
        """J at the examples X by linear layers (`jacobian.Layers`).

        None where they do not own all of θ, or one is not used exactly once, on a vector.
        """
        if self.layers is None:
            return None
        taken, sums, once = {}, {}, True

        def keep(name):
            def hook(_, arguments, out):
                nonlocal once
                once &= name not in taken and out.ndim == 2
                taken[name] = arguments[0].detach()
                sums[name] = out if out.requires_grad else out.requires_grad_()
                return out.clone()  # what follows may work in place

            return hook

        modules = dict(self._module.named_modules())
        names = [layer.name for layer in self.layers]
        handles = [modules[name].register_forward_hook(keep(name)) for name in names]
        try:
            with torch.enable_grad():
                out = self.batch(theta, X)
                out = out.reshape(len(out), -1)
                if not once or len(taken) < len(names):
                    return None
                deltas = [_derivatives(out[:, k], list(sums.values())) for k in range(out.shape[1])]
        finally:
            for handle in handles:
                handle.remove()
        deltas = {name: torch.stack(delta, 1).numpy() for name, delta in zip(sums, zip(*deltas))}
        parts = {layer.name: layer for layer in self.layers}
        return jacobian.Layers(
            [
                (parts[name].weight, taken[name].numpy(), delta, parts[name].bias is not None)
                for name, delta in deltas.items()
            ],
            self.d,
        )

    def chain(self, axes):
        """The layers where the module is a chain of them, else None; axes : of one example.

        A chain is a Sequential of linear layers, each with Tanh, ReLU, Sigmoid or nothing behind
        it, on vectors (axes = 1), or behind a Flatten.
        """
        if self.layers is None:
            return None
        parts, chain = {layer.name: layer for layer in self.layers}, []
        vectors = axes == 1
        for name, module in self._module.named_modules(remove_duplicate=False):
            kind = type(module)
            if vectors and name in parts:
                layer = parts.pop(name)
                if (module.bias is None) != (layer.bias is None):
                    return None
                chain.append(layer)
            elif kind in ACTIVATIONS and chain and chain[-1].activation is None:
                chain[-1] = chain[-1]._replace(activation=kind)
            elif kind is nn.Flatten and not chain and (module.start_dim, module.end_dim) == (1, -1):
                vectors = True
            elif kind not in (nn.Sequential, nn.Identity):
                return None
        return tuple(chain)

    def _parsed(self):
        starts = dict(zip(self._shapes, np.cumsum([0, *self._sizes]).tolist()))
        layers = []
        for name, module in self._module.named_modules():
            weight, bias = (f"{name}.{part}".lstrip(".") for part in ("weight", "bias"))
            if type(module) is nn.Linear and weight in starts:
                shape = module.out_features, module.in_features
                layers.append(Layer(name, *shape, starts.pop(weight), starts.pop(bias, None)))
        return None if starts else tuple(layers)

    def _parameters(self, theta):
        parts = theta.split(self._sizes)
        return {n: part.view(shape) for (n, shape), part in zip(self._shapes.items(), parts)}


def perceptron(seed, *widths):
    """A `Network` of linear layers of these widths, with tanh between, as torch draws them anew.

    seed : an integer. widths : inputs, hidden units, outputs: two at least.
    """
    if len(widths) < 2:
        raise ValueError(f"a perceptron has at least two widths; got {widths}")
    widths = [inputs.count(width, "a width") for width in widths]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_seed(seed))
        layers = [nn.Linear(*pair) for pair in zip(widths, widths[1:])]
    between = [part for layer in layers[:-1] for part in (layer, nn.Tanh())]
    return Network(nn.Sequential(*between, layers[-1]))


def _seed(value):
    """A seed that torch takes."""
    value = inputs.integer(value, "seed")
    if value >= 2**63:
        raise ValueError(f"seed must be below 2⁶³; got {value}")
    return value


@contextmanager
def _plain_attention():
    """Attention by plain operations, which alone can be differentiated twice."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _copied(module):
    """The module on the CPU, in float64 and in evaluation mode."""
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module; got {type(module).__name__}")
    if isinstance(module, WRAPPED):
        raise TypeError(
            f"module must be one of Python's, as it was before it was compiled or spread over "
            f"devices; got a {type(module).__name__}"
        )
    for name, parameter in module.named_parameters():
        if parameter.is_complex():
            raise TypeError(f"the module's parameters must be real; {name} is {parameter.dtype}")
    tensors = [*module.parameters(), *module.buffers()]
    devices = {str(tensor.device) for tensor in tensors} - {"cpu"}
    if "meta" in devices or any(map(is_lazy, tensors)):
        raise TypeError("module must hold values; some of its parameters are not materialised yet")
    if devices:
        inputs.warn(f"module is on {', '.join(devices)}; a copy is moved to the CPU")
    try:
        return copy.deepcopy(module).cpu().double().eval()
    except Exception as error:
        raise TypeError(
            f"module must be one that copy.deepcopy copies; {type(error).__name__}: {error}"
        ) from error


def _redraw(module):
    """The parameters drawn anew, a module's children before itself."""
    for child in module.children():
        _redraw(child)
    for name in ("reset_parameters", "_reset_parameters"):
        if hasattr(module, name):
            getattr(module, name)()


def _derivatives(output, sums):
    """∂(Σ_i output_i)/∂ of each of `sums`."""
    return torch.autograd.grad(output.sum(), sums, retain_graph=True, materialize_grads=True)


class SideBySide:
    """The batch's mean of w_i∇ℓ_i for m fits of a chain of layers, in buffers made once.

    layers : the chain. X : (n, p); targets : (n, K), what `slope` needs. slope : (f, targets, out),
    which writes ∇ℓ in the output f (m, n, K) into out. W : weights (m, n). size : of a batch.

    P holds, layer after layer, the matrices of all fits (m, q, p + 1) with the bias as last column.
    Each layer is one call of a matrix product, in which every fit has a product of its own, so that
    its rounding does not depend on which fits stand beside it.
    """

    def __init__(self, layers, X, targets, slope, W, size):
        m = len(W)
        self.layers, self.targets, self.slope = layers, targets, slope
        self.size = size
        self.weigh(W)
        self.X = np.column_stack([X, np.ones(len(X))]) if layers[0].bias is not None else X
        self.values = [np.empty((m, size, layer.outputs)) for layer in layers]
        self.deltas, self.slopes = ([np.empty_like(H) for H in self.values] for _ in range(2))
        self.d = sum(layer.outputs * _columns(layer) for layer in layers)
        self.G = np.empty(m * self.d)
        self.ends = np.cumsum([0] + [m * layer.outputs * _columns(layer) for layer in layers])

    def gradient(self, P, rows=None):
        """The mean over the batch `rows`, (size,), None for all examples; packed like P."""
        X, targets, w = self.X, self.targets, self.W
        if rows is not None:
            X, targets, w = X[rows], targets[rows], w[:, rows]
        V, G = self._views(P), self._views(self.G)
        self._forward(X, V)
        self.slope(self.values[-1], targets, self.deltas[-1])
        self.deltas[-1] *= w
        for k in range(len(V) - 1, 0, -1):
            self._backward(k, V[k], G[k])
        _multiply_by_slope(self.layers[0], self.values[0], self.deltas[0], self.slopes[0])
        np.matmul(self.deltas[0].transpose(0, 2, 1), X, out=G[0])
        return self.G

    def weigh(self, W):
        """Other weights (m, n) from now on."""
        self.W = W[:, :, None] / self.size

    def pack(self, theta):
        """P of θ (m, d)."""
        P = np.empty(theta.size)
        for layer, v in zip(self.layers, self._views(P)):
            q, p = layer.outputs, layer.inputs
            v[:, :, :p] = theta[:, layer.weight : layer.weight + q * p].reshape(-1, q, p)
            if layer.bias is not None:
                v[:, :, p] = theta[:, layer.bias : layer.bias + q]
        return P

    def unpack(self, P):
        """θ (m, d) of P."""
        theta = np.empty((len(self.W), self.d))
        for layer, v in zip(self.layers, self._views(P)):
            q, p = layer.outputs, layer.inputs
            theta[:, layer.weight : layer.weight + q * p] = v[:, :, :p].reshape(len(v), -1)
            if layer.bias is not None:
                theta[:, layer.bias : layer.bias + q] = v[:, :, p]
        return theta

    def _views(self, P):
        m = len(self.W)
        parts = zip(self.layers, self.ends, self.ends[1:])
        return [P[a:b].reshape(m, layer.outputs, -1) for layer, a, b in parts]

    def _forward(self, X, V):
        for k, (layer, v, H) in enumerate(zip(self.layers, V, self.values)):
            p = layer.inputs
            if k == 0:
                np.matmul(X, v.transpose(0, 2, 1), out=H)
            else:
                np.matmul(self.values[k - 1], v[:, :, :p].transpose(0, 2, 1), out=H)
                if layer.bias is not None:
                    H += v[:, None, :, p]
            _activate(layer.activation, H)

    def _backward(self, k, v, g):
        layer, delta, p = self.layers[k], self.deltas[k], self.layers[k].inputs
        _multiply_by_slope(layer, self.values[k], delta, self.slopes[k])
        np.matmul(delta.transpose(0, 2, 1), self.values[k - 1], out=g[:, :, :p])
        if layer.bias is not None:
            np.sum(delta, axis=1, out=g[:, :, p])
        multiply = np.multiply if delta.shape[2] == 1 else np.matmul
        multiply(delta, v[:, :, :p], out=self.deltas[k - 1])


def _columns(layer):
    return layer.inputs + (layer.bias is not None)


def exponential(H):
    """eᴴ in place, by torch, whose exp takes half the time of NumPy's."""
    tensor = torch.from_numpy(H)
    torch.exp(tensor, out=tensor)


def sigmoid(f, out):
    """1/(1 + e⁻ᶠ) into out.

    torch's own rounds otherwise at the end of an array: a fit's bits would depend on its place.
    """
    exponential(np.negative(f, out=out))
    np.divide(1, np.add(out, 1, out=out), out=out)


def _activate(kind, H):
    """The activation of H, in place."""
    if kind is nn.ReLU:
        np.maximum(H, 0, out=H)
    elif kind is nn.Sigmoid:
        sigmoid(H, H)
    elif kind is nn.Tanh:
        exponential(np.add(H, H, out=H))  # tanh x = 1 − 2/(e²ˣ + 1), in half the time of tanh
        np.add(np.divide(-2, np.add(H, 1, out=H), out=H), 1, out=H)


def _multiply_by_slope(layer, H, delta, slope):
    """delta times the derivative of the activation, which its value H gives."""
    kind = layer.activation
    if kind is None:
        return
    if kind is nn.ReLU:
        np.greater(H, 0, out=slope)
    elif kind is nn.Tanh:
        np.subtract(1, np.multiply(H, H, out=slope), out=slope)
    else:
        np.multiply(H, np.subtract(1, H, out=slope), out=slope)
    delta *= slope
