"""The Jacobian J (m, d) of all m = n·K outputs as a linear map: its products, and the kernel JJᵀ.

`Dense` holds the matrix. `Layers` holds, for each linear layer of a network, its inputs a_i and the
derivatives δ_ik of output k by what the layer puts out: row (i, k) of J is δ_ik a_iᵀ there (and
δ_ik for the bias), so that JJᵀ = Σ_layers (δδᵀ)∘(aaᵀ + 1), and J is never formed. `Scaled` is SJ
with S block-diagonal.
"""

import numpy as np

COLUMNS = 2**22  # numbers in a temporary of `Layers`


class Dense:
    def __init__(self, J):
        self.J, self.shape = J, J.shape

    def product(self, V):
        return self.J @ V

    def transposed(self, U):
        return self.J.T @ U

    def kernel(self, other=None):
        """JJᵀ, or J J'ᵀ with another Jacobian."""
        return self.J @ (self.J if other is None else other.dense()).T

    def dense(self):
        return self.J


class Layers:
    """A Jacobian by linear layers, of d parameters.

    layers : of (start in θ, inputs (n, p), derivatives (n, K, q), whether a bias follows the
    weights (q, p)).
    """

    def __init__(self, layers, d):
        self.layers = layers
        self.n, self.K = layers[0][2].shape[:2]
        self.shape = self.n * self.K, d

    def product(self, V):
        out = np.empty((self.n, self.K, V.shape[1]))
        for columns, split in self._blocks(V.shape[1]):
            block = 0.0
            for start, a, delta, bias in self.layers:
                q, p, r = delta.shape[2], a.shape[1], split
                W = (
                    V[start : start + q * p, columns]
                    .reshape(q, p, r)
                    .transpose(1, 0, 2)
                    .reshape(p, q * r)
                )
                moved = (a @ W).reshape(self.n, q, r)
                if bias:
                    moved += V[start + q * p : start + q * p + q, columns]
                block = block + delta @ moved
            out[:, :, columns] = block
        return out.reshape(-1, V.shape[1])

    def transposed(self, U):
        out = np.zeros((self.shape[1], U.shape[1]))
        U = U.reshape(self.n, self.K, -1)
        for columns, r in self._blocks(U.shape[2]):
            for start, a, delta, bias in self.layers:
                q, p = delta.shape[2], a.shape[1]
                moved = delta.transpose(0, 2, 1) @ U[:, :, columns]
                W = (a.T @ moved.reshape(self.n, q * r)).reshape(p, q, r)
                out[start : start + q * p, columns] = W.transpose(1, 0, 2).reshape(q * p, r)
                if bias:
                    out[start + q * p : start + q * p + q, columns] = moved.sum(0)
        return out

    def kernel(self, other=None):
        """JJᵀ, or J J'ᵀ with the Jacobian of other examples; in blocks that stay in the cache."""
        if isinstance(other, Dense):
            return other.kernel(self).T
        with_itself, other = other is None, other or self
        out = np.zeros((self.n, self.K, other.n, other.K))
        size = max(1, 2**17 // (self.K * other.shape[0]))
        for first in range(0, self.n, size):
            rows = slice(first, first + size)
            columns = slice(0, first + size) if with_itself else slice(None)
            block = out[rows, :, columns]
            for (_, a, delta, bias), (_, b, gamma, _) in zip(self.layers, other.layers):
                q = delta.shape[2]
                inner = a[rows] @ b[columns].T
                if bias:
                    inner += 1
                outer = (delta[rows].reshape(-1, q) @ gamma[columns].reshape(-1, q).T).reshape(
                    block.shape
                )
                outer *= inner[:, None, :, None]
                block += outer
            if with_itself:
                out[columns, :, rows] = block.transpose(2, 3, 0, 1)
        return out.reshape(self.shape[0], -1)

    def dense(self):
        J = np.zeros((self.n, self.K, self.shape[1]))
        for start, a, delta, bias in self.layers:
            q, p = delta.shape[2], a.shape[1]
            weights = J[:, :, start : start + q * p].reshape(self.n, self.K, q, p)  # a view
            np.multiply(delta[..., None], a[:, None, None, :], out=weights)
            if bias:
                J[:, :, start + q * p : start + q * p + q] = delta
        return J.reshape(self.shape)

    def _blocks(self, r):
        """Columns in blocks, for temporaries (n, q, columns) of bounded size."""
        size = max(1, COLUMNS // (self.n * max(delta.shape[2] for _, _, delta, _ in self.layers)))
        for first in range(0, r, size):
            yield slice(first, min(first + size, r)), min(size, r - first)


class Scaled:
    """SJ for symmetric blocks S (n, K, K)."""

    def __init__(self, jacobian, S):
        self.jacobian, self.S, self.shape = jacobian, S, jacobian.shape

    def scale(self, U):
        return scale(self.S, U)

    def product(self, V):
        return self.scale(self.jacobian.product(V))

    def transposed(self, U):
        return self.jacobian.transposed(self.scale(U))

    def kernel(self, inner=None):
        """SJJᵀS, from JJᵀ where that is at hand."""
        return self.scale(self.scale(self.jacobian.kernel() if inner is None else inner).T)


def scale(S, U):
    """Block-diagonal S (n, K, K) times U (n·K, r)."""
    if S.shape[1] == 1:
        return S.reshape(-1, 1) * U
    return (S @ U.reshape(len(S), S.shape[1], -1)).reshape(U.shape)
