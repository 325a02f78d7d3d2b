"""`Risk`: the weighted empirical risk of a model and a loss on a reader's data, as arrays."""

import copy

import numpy as np
import torch
from torch.func import grad, grad_and_value, vjp, vmap
from torch.utils.data import DataLoader, Dataset

from ifcore import inputs, jacobian
from ifcore.data.datasets import gathered
from ifcore.network import Layer, Network, SideBySide
from ifcore.risk import losses
from ifcore.risk.tensors import Tensors, one_by_one
from ifcore.risk.trial import Abilities, NotDifferentiable, numbers, point, tried

JACOBIAN = 2**24  # numbers of a dense Jacobian held at a time when G is summed up
COLUMNS = 16  # right-hand sides that a product takes at a time


class NotConvex(ValueError):
    """A loss that is not convex in the output, where it must be.

    example : where; smallest : of its Hessian's eigenvalues.
    """

    def __init__(self, message, example=None, smallest=None):
        super().__init__(message)
        self.example, self.smallest = example, smallest


class NotFinite(ValueError):
    """A risk that is NaN or infinite at θ; `examples` are those whose terms are."""

    def __init__(self, message, examples=None):
        super().__init__(message)
        self.examples = examples


class Risk:
    """The risk of a model and a loss on the examples (x_i, y_i), for any weights w.

    model : f(θ, x), a flat θ (d,) and one example of X to an output of any shape; or a `Network`.
    loss : ℓ(f, y), an output and one row of y to a number; one of torch's own too. It sees one
    example at a time: weights that a mean divides by, as F.cross_entropy's, cancel there; write
    w[y] * cross_entropy(f, y). A mean over tokens is one over the example's own.
    X : (n, …), or a tuple or dict of such, whose parts an example then has; y : (n,) or (n, …);
    (n, 1) is (n,) where an output is a number.
    Finite; integers are converted, unless the model or the loss takes them as integers only. Or X
    is a torch Dataset or DataLoader of pairs (x, y), and y is None. From another device it is
    copied to the CPU, with a warning. Labels of series and frames must agree; they are not kept.
    lam : λ ≥ 0, which no weight touches; or one for each parameter, (d,): 0 for a free intercept.
    b : (d,), a linear term bᵀθ of the risk, which no weight touches.
    d : the number of parameters; by default the model's own d, or the number of columns of X, right
    for `linear`.

    R_w(θ) = Σ_i w_i ℓ_i(θ) + ½ Σ_k λ_kθ_k² + bᵀθ. n, d, K : how many examples, parameters, outputs
    an example. layered : whether the Jacobian goes by linear layers. tensors : the same as
    functions of tensors. θ and w are array-likes, results NumPy arrays; weights=None is the whole
    data, w = 1. What the model gives for one example is returned as it is; a sum over examples is
    finite, or raises NotFinite with their numbers. An example of weight 0 does not count in it,
    whatever the model gives for it.

    What the estimators need of model and loss is tried here, on two examples: what cannot work is
    refused, and without a second derivative a warning says what still does. A warning, too, says
    where a loss of the reader's own divides by weights, or repeats an output or a target to compare
    them. Raises TypeError, ValueError, NotDifferentiable for inputs that do not fit.
    Source: the notes' (0.1), Definition 4, at λ = 0, and with w their L − εℓ_z and R_j + εℓ_j; the
    chapter *Setting and leave-one-out* translates.

    What each call takes beyond what it is given is stated with n, d, K and, of one example: p, the
    numbers of its x; a, those that the model makes of it, 1 for `linear`, 2h + K for a perceptron
    with h hidden units; f, those of them held at a time, 1 and the larger of 2h and h + K.
    Memory: 8 n (p + 2 K) bytes; 8 n (2.5 p + 2 K) bytes from a dataset.
    """

    def __init__(self, model, loss, X, y=None, lam=0.0, b=None, d=None):
        if isinstance(X, (Dataset, DataLoader)):
            if y is not None:
                raise ValueError("y must be None where X is a dataset of pairs (x, y)")
            X, y = gathered(X)
        self.labels = inputs.labels(X)
        inputs.same_labels(self.labels, inputs.labels(y), ("X", "y"))
        targets = inputs.real(y, "y")
        given = inputs.nested(lambda part: inputs.array(part, "X"), X), inputs.array(targets, "y")
        self.n = _examples(*given)
        self.d = _parameters(model, given[0], d)
        self.lam, self.b = _penalty(lam, self.d), b if b is None else _one_each(b, "b", self.d)
        self.model, self.loss = model, losses.in_double(loss)
        tensors = inputs.nested(torch.tensor, given[0]), torch.tensor(given[1])
        kept = _whole(X, tensors[0]), targets.dtype.kind in "iu"
        able, self.X, self.y = self._tried(*tensors, *kept)
        self.K, self._able = able.K, able
        self.tensors = Tensors(model, self.loss, self.X, self.y, *self._own(), able.each)
        self.layered, self._chain = self._is_layered(), self._found_chain()

    def _own(self):
        """λ and b for `Tensors`."""
        lam = self.lam if isinstance(self.lam, float) else torch.from_numpy(self.lam)
        return lam, None if self.b is None else torch.from_numpy(self.b)

    def _tried(self, X, y, whole, labels):
        if self.model is losses.linear and isinstance(X, torch.Tensor) and X.ndim == 2:
            if self.loss in losses.OWN and X.shape[1] == self.d:
                output = X.new_empty(())  # of which only the shape counts
                y = numbers(self.loss, output, y)
                losses.require(self.loss, output, y)
                return Abilities(1, vmap, "", ""), X, y
        classes = y.long() if torch.equal(y, y.round()) else y
        return tried(self.model, self.loss, X, y, self.d, (whole, classes), labels)

    def _few(self):
        """Two examples, and a point, to try what goes by layers against torch."""
        return self.tensors.subset(slice(2)), torch.from_numpy(point(self.d))

    def _is_layered(self):
        """Whether the Jacobian goes by layers: on two examples, against torch's."""
        if not isinstance(self.model, Network):
            return False
        few, theta = self._few()
        layers = self.model.jacobian(theta, few.X)
        if layers is None:
            return False
        J = few.jacobian(theta).numpy()
        return bool(np.allclose(layers.dense(), J, rtol=0, atol=1e-10 * np.abs(J).max()))

    def _found_chain(self):
        """The chain of layers of the model: on two examples, against torch's gradient.

        What is attached to a module, as a hook, does not show in its layers.
        """
        if not hasattr(self.loss, "slope") or not isinstance(self.X, torch.Tensor):
            return None
        if self.model is losses.linear and self.X.ndim == 2:
            return (Layer("", 1, self.d, 0, None),)
        chain = self.model.chain(self.X.ndim - 1) if isinstance(self.model, Network) else None
        if chain is None:
            return None
        few, theta = self._few()
        engine = self.subset(slice(2)).side_by_side(chain, np.ones((1, few.n)), few.n)
        found = few.n * engine.unpack(engine.gradient(engine.pack(theta.numpy()[None])))[0]
        expected = few.gradients(theta).sum(0).numpy()
        near = np.allclose(found, expected, rtol=0, atol=1e-8 * np.abs(expected).max())
        return chain if near else None

    def side_by_side(self, chain, W, size):
        """Many fits of a chain with weights W (m, n), which train side by side; size : of a batch.

        See `network.SideBySide`.
        """
        X, y = self.X.reshape(self.n, -1).numpy(), self.y.numpy()
        targets = self.loss.targets(y, chain[-1].outputs)
        return SideBySide(chain, X, targets, self.loss.slope, W, size)

    def outputs(self, theta):
        """f(θ; x_i) of every example: (n,) or (n, …).

        Memory: 8 n f bytes.
        """
        return self.tensors.outputs(self.parameters(theta)).numpy()

    def jacobian(self, theta):
        """J_i = ∂f(θ; x_i)/∂θ of every example: (n, d) or (n, …, d).

        Memory: 8 n K (d + a) bytes.
        """
        shape = self.outputs(theta).shape
        return self.jacobian_map(theta).dense().reshape(*shape, self.d)

    def output_gradients(self, theta):
        """g_i = ∇ℓ(·, y_i) in the output, at f(θ; x_i): (n,) or (n, …).

        Memory: 8 n max(f, 9 K) bytes.
        """
        return self.tensors.output_gradients(self.parameters(theta)).numpy()

    def output_hessians(self, theta):
        """H_i = ∇²ℓ(·, y_i) in the output, at f(θ; x_i): (n, K, K), K outputs an example, flat.

        Raises NotDifferentiable. Memory: 8 n max(f, 9 K + 3 K²) bytes.
        """
        self.require_second_derivatives(of_model=False)
        return self.tensors.output_hessians(self.parameters(theta)).numpy()

    def bregman(self, theta, reference):
        """D_i(f(θ; x_i), f(θ′; x_i)) of every example, θ′ = reference: (n,). See `bregman`.

        Memory: 8 n max(f, 10 K) bytes.
        """
        f, other = (self.tensors.outputs(self.parameters(t)) for t in (theta, reference))
        one = self.tensors.each(lambda *pair: losses.bregman(self.loss, *pair))
        return one(f, other, self.y).numpy()

    def losses(self, theta):
        """ℓ_i(θ) of every example: (n,). At θ*₋ⱼ entry j is the notes' Q(z), (0.7).

        Memory: 8 n max(f, 3 K) bytes.
        """
        return self.tensors.losses(self.parameters(theta)).numpy()

    def gradients(self, theta):
        """∇ℓ_i(θ) of every example, without λ: (n, d).

        Memory: 8 n d bytes; 16 n d bytes for a Network.
        """
        return self.tensors.gradients(self.parameters(theta)).numpy()

    def value(self, theta, weights=None):
        """R_w(θ).

        Memory: 8 n max(f, 4 K) bytes.
        """
        return self._summed(theta, weights, Tensors.value).item()

    def gradient(self, theta, weights=None):
        """∇R_w(θ) = Σ_i w_i ∇ℓ_i(θ) + λθ + b: (d,).

        Memory: 8 n (1.5 a + 5 K) bytes.
        """
        return self._summed(theta, weights, lambda t, *at: grad(t.value)(*at)).numpy()

    def hessian(self, theta, weights=None):
        """H_w = ∇²R_w(θ) = Σ_i w_i ∇²ℓ_i(θ) + diag(λ): (d, d).

        Memory: 8 (b (2 a + 6 K) + 3.5 d²) bytes, with b = min(n, 2²⁴/d) + min(n d, 2¹⁸).
        """
        self.require_second_derivatives()
        return self._summed(theta, weights, Tensors.hessian).numpy()

    def gauss_newton(self, theta, weights=None):
        """G_w = Σ_i w_i J_iᵀ H_i J_i + diag(λ): (d, d), the Hessian of R_w where f is linear in θ.

        J_i = ∂f(θ; x_i)/∂θ, and H_i is the Hessian of ℓ(·, y_i) in the output. Source: Schraudolph
        (2002).

        Memory: 8 (max(2 min(n K d, 2²⁴), n f, 12 n K²) + 2 d²) bytes.
        """
        self.require_second_derivatives(of_model=False)
        theta, w = self.parameters(theta), self.weights(weights)
        risk, G = self.sound(theta, w), torch.diag(torch.from_numpy(self.penalty_curvature()))
        H = _counted(w, risk.tensors.output_hessians(theta))
        size = max(1, JACOBIAN // (self.K * self.d))
        for first in range(0, self.n, size):
            rows = slice(first, first + size)
            G += _gauss_newton(risk.jacobian_map(theta, rows).dense(), w[rows], H[rows])
        return _finite(G.numpy())

    def gauss_newton_product(self, theta, V, weights=None):
        """G_w V for V (d,) or (d, r), without the matrix.

        Memory: 8 (n (1.5 a + 2 K) (min(r, 16) + 2) + 3 d r) bytes; 8 n ((K + 2) a + 2 K r) bytes by
        layers.
        """
        return self._columns(self.gauss_newton_map(theta, self.weights(weights)), V)

    def hessian_product(self, theta, V, weights=None):
        """H_w V for V (d,) or (d, r), without the matrix (Pearlmutter, 1994).

        Memory: 8 (n (1.5 a + K) (min(r, 16) + 2) + 3 d r) bytes.
        """
        return self._columns(self.hessian_map(theta, self.weights(weights)), V)

    def gauss_newton_map(self, theta, weights=None):
        """V (d, r) ↦ G_w V, of NumPy arrays: by layers, or by reverse differentiation, twice.

        What depends on θ alone is computed once. All weights may be 0. (Forward differentiation
        would not see what a model computes under torch.no_grad.)

        Memory: as for `gauss_newton_product`.
        """
        self.require_second_derivatives(of_model=False)
        theta, w = self.parameters(theta), self.weights(weights, zero=True)
        risk = self.sound(theta, w)
        H = w[:, None, None] * _counted(w, risk.tensors.output_hessians(theta))
        if self.layered or self._able.model_twice:
            J, H = risk.jacobian_map(theta), H.numpy()
            return lambda V: J.transposed(jacobian.scale(H, J.product(V))) + self._ridge(V)

        def flat(t):
            return risk.tensors.outputs(t).reshape(self.n, -1)

        def one(v):
            moved = forward(v)[0]
            return back((H @ moved[:, :, None])[:, :, 0])[0]

        outputs, back = vjp(flat, theta)
        # u ↦ Jᵀu is linear, and its own adjoint is v ↦ Jv
        _, forward = vjp(lambda u: back(u)[0], torch.zeros_like(outputs))
        return self._by_columns(one)

    def hessian_map(self, theta, weights=None):
        """V (d, r) ↦ H_w V, of NumPy arrays. All weights may be 0.

        Memory: as for `hessian_product`.
        """
        self.require_second_derivatives()
        theta, w = self.parameters(theta), self.weights(weights, zero=True)
        tensors = self.sound(theta, w).tensors
        _, back = vjp(grad(lambda t: w @ tensors.losses(t)), theta)
        return self._by_columns(lambda v: back(v)[0])

    def jacobian_map(self, theta, rows=slice(None)):
        """J of the examples `rows`, as a linear map of NumPy arrays (room `jacobian`).

        Layer by layer where it can be.

        Memory: 8 n K d bytes; 8 n (K + 2) a bytes by layers.
        """
        theta = self.parameters(theta)
        some = self.tensors.subset(rows)
        if self.layered:
            return self.model.jacobian(theta, some.X)
        return jacobian.Dense(some.jacobian(theta).numpy())

    def convex_hessians(self, theta):
        """Eigenvalues (n, K), at least 0, and eigenvectors (n, K, K) of the output Hessians.

        Raises NotConvex where one has an eigenvalue below 0.

        Memory: 8 n max(f, 9 K + 3 K²) bytes.
        """
        H = self.output_hessians(theta)
        values, vectors = (H[:, 0], np.ones_like(H)) if self.K == 1 else np.linalg.eigh(H)
        lowest = values.min(axis=1)
        i = int(lowest.argmin())
        if lowest[i] < -1e-12 * values.max():
            raise NotConvex(
                f"the loss must be convex in the output; at example {i} its Hessian has the "
                f"eigenvalue {lowest[i]:.2e}",
                i,
                float(lowest[i]),
            )
        return values.clip(min=0), vectors

    def output_roots(self, theta, weights=None):
        """S with S_iS_i = w_iH_i, H_i the output Hessians: (n, K, K). Raises NotConvex.

        Memory: 8 n max(f, 9 K + 3 K²) bytes.
        """
        values, vectors = self.convex_hessians(theta)
        roots = np.sqrt(self.weights(weights).numpy()[:, None] * values)
        return (vectors * roots[:, None, :]) @ vectors.transpose(0, 2, 1)

    def subset(self, rows):
        """The risk of the examples `rows` alone, with the same λ.

        rows : a slice, a mask (n,), or indices, which may repeat.

        Memory: 8 n p bytes for n rows, none for a slice.
        """
        out, rows = copy.copy(self), inputs.rows(rows, self.n)
        out.tensors = self.tensors.subset(rows)
        out.X, out.y, out.n = out.tensors.X, out.tensors.y, out.tensors.n
        out.labels = None if self.labels is None else self.labels[rows]
        return out

    def blocks(self):
        """The examples as slices of bounded memory."""
        return self.tensors.blocks(self.d)

    def penalty_curvature(self):
        """λ of every parameter: (d,)."""
        return np.broadcast_to(self.lam, self.d).copy()

    def penalty_gradient(self, theta):
        """λθ + b: (d,)."""
        return self.tensors.penalty_gradient(self.parameters(theta)).numpy()

    def penalty_size(self, theta):
        """‖λθ‖ + ‖b‖, the size of the penalty's part in ∇R_w."""
        size = np.linalg.norm(self.lam * np.asarray(theta))
        return size if self.b is None else size + np.linalg.norm(self.b)

    def is_finite(self, theta):
        """Whether every example has a finite loss and gradient at θ."""
        total = grad_and_value(lambda t: self.tensors.losses(t).sum())
        return all(torch.isfinite(part).all().item() for part in total(self.parameters(theta)))

    def unsound(self, theta):
        """The examples whose output, loss or gradient is not finite at θ, as indices.

        Memory: 20 min(n d, 2²⁴) bytes.
        """
        theta, bad = self.parameters(theta), []
        for rows in self.blocks():
            some = self.tensors.subset(rows)
            parts = some.outputs(theta), some.losses(theta), some.gradients(theta)
            fine = [torch.isfinite(part.reshape(some.n, -1)).all(1) for part in parts]
            bad.append(~torch.stack(fine).all(0))
        return np.flatnonzero(torch.cat(bad).numpy())

    def sound(self, theta, weights=None):
        """This risk, with a sound example in the place of each that is not, if its weight is 0.

        So that 0 times NaN is 0. Raises NotFinite where one of a positive weight is not finite.
        """
        if self.is_finite(theta):
            return self
        return self._mended(theta, self.weights(weights, zero=True))

    def _mended(self, theta, w):
        bad = self.unsound(theta)
        counted = bad[w.numpy()[bad] > 0]
        if counted.size or not bad.size:
            sums = "its sum over the examples, or a second derivative,"
            which = f"example {counted[0]}" if counted.size else sums
            raise NotFinite(
                f"the risk must be finite; at this theta {which} is not"
                f"{f', nor are {counted.size - 1} others' if counted.size > 1 else ''}. Weight 0 "
                "takes an example out",
                counted,
            )
        good = np.setdiff1d(np.arange(self.n), bad)
        rows = np.arange(self.n)
        rows[bad] = good[0]
        return self.subset(rows)

    def _summed(self, theta, weights, compute):
        """compute(tensors, θ, w), finite."""
        theta, w = self.parameters(theta), self.weights(weights)
        found = compute(self.tensors, theta, w)
        if torch.isfinite(found).all():
            return found
        found = compute(self._mended(theta, w).tensors, theta, w)
        if not torch.isfinite(found).all():
            raise NotFinite("the risk must have finite derivatives; at this theta it has not", [])
        return found

    def require_second_derivatives(self, of_model=True):
        """That the loss has them and, unless not asked for, the model. Raises NotDifferentiable."""
        for who, why in (("loss", self._able.loss_twice), ("model", self._able.model_twice)):
            if why and (of_model or who == "loss"):
                raise NotDifferentiable(
                    f"this needs second derivatives, and the {who} has none: {why}"
                )

    def chain(self):
        """The chain of linear layers that the model is, for training side by side.

        None where it is no chain, or the loss brings no slope of its own.
        """
        return self._chain

    def parameters(self, theta, name="theta"):
        """θ, checked, as a tensor (d,)."""
        theta = inputs.array(theta, name, 1)
        if len(theta) != self.d:
            raise ValueError(f"{name} must have length d = {self.d}; got {len(theta)}")
        return torch.from_numpy(theta)

    def weights(self, weights, zero=False):
        """One weight vector, checked, as a tensor (n,); None is w = 1. zero : whether 0 will do."""
        rows, single = inputs.weights(weights, self.n, zero, self.labels)
        if not single:
            raise ValueError(f"weights must be one vector of length {self.n}; got {rows.shape}")
        return torch.from_numpy(rows[0])

    def _columns(self, product, V):
        V = inputs.array(V, "V")
        if V.ndim not in (1, 2) or len(V) != self.d or not V.size:
            raise ValueError(f"V must be ({self.d},) or ({self.d}, r); got {V.shape}")
        return _finite(product(V.reshape(self.d, -1)).reshape(V.shape))

    def _by_columns(self, product):
        """V (d, r) ↦ product of each column, and the penalty's part."""
        if self._able.each is one_by_one:
            each = one_by_one(product)
            return lambda V: each(torch.from_numpy(V).T).T.numpy() + self._ridge(V)
        each = vmap(product, 1, chunk_size=COLUMNS)
        return lambda V: each(torch.from_numpy(V)).T.numpy() + self._ridge(V)

    def _ridge(self, V):
        """diag(λ)V."""
        return self.lam * V if isinstance(self.lam, float) else self.lam[:, None] * V


def _gauss_newton(J, w, H):
    """Σ_i w_i J_iᵀ H_i J_i for J (n·K, d), an array, w (n,) and H (n, K, K), tensors."""
    J = torch.from_numpy(J)
    weighted = H @ J.reshape(len(w), -1, J.shape[1])
    weighted *= w[:, None, None]
    return J.T @ weighted.reshape(J.shape)


def _examples(X, y):
    """How many examples X and y hold. Raises ValueError."""
    parts = inputs.leaves(X)
    sizes = {len(part) if part.ndim else 0 for part in parts}
    if len(sizes) != 1 or 0 in sizes:
        shapes = ", ".join(str(part.shape) for part in parts)
        raise ValueError(
            f"X must hold at least one example along its first axis, and as many in each part; got "
            f"shape {shapes}"
        )
    n = sizes.pop()
    if y.ndim == 0 or len(y) != n:
        raise ValueError(
            f"y must have one entry for each of the {n} examples of X; got shape {y.shape}"
        )
    return n


def _parameters(model, X, d):
    d = getattr(model, "d", None) if d is None else d
    if d is None and getattr(X, "ndim", None) != 2:
        raise ValueError(
            "d, the number of parameters, must be given where X is not (n, d); X has shape "
            f"{', '.join(str(part.shape) for part in inputs.leaves(X))}"
        )
    return inputs.count(X.shape[1] if d is None else d, "d")


def _counted(w, H):
    """H (n, …) without what examples of weight 0 have in it, which may be NaN."""
    return torch.where(w[:, None, None] > 0, H, 0.0)


def _finite(found):
    if not np.isfinite(found).all():
        raise NotFinite("the risk must have finite derivatives; at this theta it has not", [])
    return found


def _penalty(lam, d):
    """λ as a number, or as (d,)."""
    if inputs.array(lam, "lam").ndim == 0:
        return inputs.nonnegative(lam, "lam")
    lam = _one_each(lam, "lam", d)
    if (lam < 0).any():
        raise ValueError(f"lam must be at least 0; got {lam.min():g} for parameter {lam.argmin()}")
    levels = np.unique(lam)
    return levels.item() if len(levels) == 1 else lam


def _one_each(value, name, d):
    value = inputs.array(value, name, 1).copy()
    if len(value) != d:
        raise ValueError(f"{name} must have one entry for each of {d} parameters; got {len(value)}")
    return value


def _whole(X, floats):
    """X with the parts that came as integers kept so, for a model that takes only them."""
    if isinstance(floats, dict):
        return {key: _whole(X[key], part) for key, part in floats.items()}
    if isinstance(floats, tuple):
        return tuple(_whole(*pair) for pair in zip(X, floats))
    return floats.long() if inputs.whole(X) else floats
