"""The risk as functions of tensors, to be mapped over many θ and w, and differentiated."""

import torch
from torch.func import grad, jacrev, vjp, vmap

from ifcore import inputs
from ifcore.network import Network

BLOCK = 2**24  # numbers of a derivative, examples × d, in one block of examples
TOGETHER = 2**18  # examples times rows of the Hessian that are computed together


def one_by_one(function, in_dims=0, chunk_size=None):
    """`function` of each row by a loop, as torch.func.vmap has it, for what that cannot map.

    chunk_size : rows that vmap takes together; a loop takes one.
    """

    def mapped(*arguments):
        dims = [in_dims] * len(arguments) if isinstance(in_dims, int) else in_dims
        n = next(len(inputs.leaves(part)[0]) for part, dim in zip(arguments, dims) if dim == 0)

        def row(i):
            parts = zip(arguments, dims)
            return [part if dim is None else rows_of(part, i) for part, dim in parts]

        return torch.stack([function(*row(i)) for i in range(n)])

    return mapped


def rows_of(value, rows):
    """Rows of a tensor, or of each tensor in a nested value."""
    return inputs.nested(lambda part: part[rows], value)


class Tensors:
    """The risk as functions of tensors, without checks: θ (d,) and w (n,) in float64.

    They can be mapped over many θ and w by `each`, which is torch.func.vmap where the model can be
    mapped, and a loop where it cannot; and differentiated.
    """

    def __init__(self, model, loss, X, y, lam=0.0, b=None, each=vmap):
        self.model, self.loss, self.X, self.y = model, loss, X, y
        self.lam, self.b, self.each, self.n = lam, b, each, len(y)

    def outputs(self, theta):
        """f(θ; x_i): (n,) or (n, …)."""
        if isinstance(self.model, Network):
            return self.model.batch(theta, self.X)
        return self.each(self.model, (None, 0))(theta, self.X)

    def losses(self, theta):
        """ℓ_i(θ): (n,)."""
        return self.each(self.loss)(self.outputs(theta), self.y)

    def gradients(self, theta):
        """∇ℓ_i(θ): (n, d)."""
        one = grad(lambda t, x, y: self.loss(self.model(t, x), y))
        return self.each(one, (None, 0, 0))(theta, self.X, self.y)

    def jacobian(self, theta):
        """∂f(θ; x_i)/∂θ, flat in the outputs: (n·K, d)."""
        J = self.each(lambda t, x: self._rows(lambda u: self.model(u, x), t), (None, 0))
        return J(theta, self.X).reshape(-1, len(theta))

    def _rows(self, function, theta, size=None):
        """The derivative (…, d) of a function of θ of any shape, `size` rows of it at a time."""
        value, back = vjp(function, theta)
        one_each = torch.eye(value.numel(), dtype=value.dtype).reshape(-1, *value.shape)
        return self.each(lambda u: back(u)[0], chunk_size=size)(one_each)

    def penalty(self, theta):
        """½ Σ_k λ_kθ_k² + bᵀθ."""
        value = half_square(self.lam, theta)
        return value if self.b is None else value + self.b @ theta

    def penalty_gradient(self, theta):
        """λθ + b, for θ (d,) or (m, d)."""
        slope = self.lam * theta
        return slope if self.b is None else slope + self.b

    def value(self, theta, w):
        """R_w(θ)."""
        return w @ self.losses(theta) + self.penalty(theta)

    def hessian(self, theta, w):
        """H_w(θ): (d, d)."""
        first, *others = self.blocks(len(theta))
        some, size = self.subset(first), max(1, TOGETHER // first.stop)
        H = self._rows(grad(lambda t: some.value(t, w[first])), theta, size)
        for rows in others:  # the penalty is in the first
            some = self.subset(rows)
            H = H + self._rows(grad(lambda t: w[rows] @ some.losses(t)), theta, size)
        return H

    def output_gradients(self, theta):
        """g_i = ∇ℓ(·, y_i) in the output: (n,) or (n, …)."""
        return self.each(grad(self.loss))(self.outputs(theta), self.y)

    def output_hessians(self, theta):
        """H_i = ∇²ℓ(·, y_i) in the output: (n, K, K)."""
        output = self.outputs(theta)
        size = output[0].numel()
        return self.each(jacrev(grad(self.loss)))(output, self.y).reshape(self.n, size, size)

    def subset(self, rows):
        """The same of the examples `rows` alone."""
        X, y = rows_of(self.X, rows), self.y[rows]
        return Tensors(self.model, self.loss, X, y, self.lam, self.b, self.each)

    def blocks(self, d):
        """The examples as slices, of at most BLOCK numbers where each has d."""
        size = max(1, BLOCK // d)
        return [slice(first, min(first + size, self.n)) for first in range(0, self.n, size)]


def half_square(lam, theta):
    """½ Σ_k λ_kθ_k² for a number λ, or one for each parameter (d,)."""
    if isinstance(lam, float):
        return lam / 2 * (theta @ theta)
    return (lam * theta) @ theta / 2
