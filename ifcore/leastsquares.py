"""Linear regression, where the response map has a closed form.

The risk is R_w(θ) = Σ_i w_i ½(y_i − x_iᵀθ)², with θ(w) = (XᵀWX)⁻¹XᵀWy and, at w = 1, θ*.
"""

import numpy as np
from scipy.linalg import lapack, solve_triangular

from ifcore import _inputs

UNIT = np.finfo(float).eps / 2  # u, the unit roundoff
BLOCK = 2**24  # numbers in one block of stacked factorisations: 128 MiB
ROWS = 1024  # rows of X worked on together: they stay in the cache from the product to the sum


class RankDeficient(np.linalg.LinAlgError):
    """A least-squares problem without a unique minimiser. `row` is the offending weight vector."""

    def __init__(self, message, row):
        super().__init__(message)
        self.row = row


def fit(X, y, weights=None):
    """θ(w), the minimiser of Σ_i w_i ½(y_i − x_iᵀθ)²; many weight vectors at once.

    X : (n, d), y : (n,). weights : (n,), or (m, n) for m fits, each weight at least 0; None is w = 1.
    Returns θ, (d,) or (m, d).

    By Householder QR of [√W X, √W y], hence backward stable in the columns of √W X, whatever their
    units. Raises RankDeficient (naming the rank) where √W X has rank below d.
    Source: the notes' θ̂ = (XᵀX)⁻¹Xᵀy, "Influence functions vs leverage", with weights.
    """
    X, y = _inputs.examples(X, y)
    W, single = _inputs.weights(weights, len(y))
    n, d = X.shape
    table = np.column_stack([X, y])
    theta = np.empty((len(W), d))
    step = max(1, BLOCK // table.size)
    for start in range(0, len(W), step):
        block = W[start : start + step]
        scale = block.max(axis=1, keepdims=True)  # θ(cw) = θ(w): no under- or overflow in √w
        R = np.linalg.qr(np.sqrt(block / scale)[:, :, None] * table, mode="r")
        _require_full_rank(R[:, :, :d], n, start)
        theta[start : start + step] = np.linalg.solve(R[:, :d, :d], R[:, :d, d:])[..., 0]
    return theta[0] if single else theta


def leave_one_out(X, y):
    """θ*₋ⱼ for every j: the minimisers of Σ_{i≠j} ½(y_i − x_iᵀθ)², all at once.

    X : (n, d), y : (n,). Returns (n, d), row j the parameters fitted without example j.

    With G = XᵀX, the leverage h_j = x_jᵀG⁻¹x_j and the residual ê_j = y_j − x_jᵀθ*,

        θ*₋ⱼ = θ* − G⁻¹x_j ê_j / (1 − h_j).

    G is factorised by Cholesky where its condition number leaves the answer as accurate as a
    backward-stable solver's, u·κ(1 + κ‖ê‖/(‖X‖‖θ*‖)), and X by Householder QR otherwise.
    Raises RankDeficient where X has rank below d, and where some h_j = 1: without that example the
    minimiser is not unique. Source: Hayashi (2000), the notes' "Influence functions vs leverage".
    """
    X, y = _inputs.examples(X, y)
    theta = _leave_one_out_cholesky(X, y)
    return _leave_one_out_qr(X, y) if theta is None else theta


def _leave_one_out_cholesky(X, y):
    """One GEMM with G⁻¹; None where the result could be less accurate than by QR."""
    with np.errstate(over="ignore", invalid="ignore"):
        R, failed = lapack.dpotrf(X.T @ X)
    if failed or not np.isfinite(R).all():
        return None
    inverse, failed = lapack.dtrtri(R)
    kappa = _norm_bound(R) * _norm_bound(inverse)
    if failed or not kappa < 1e4:  # one step of refinement leaves θ* an error of (κ²u)²
        return None
    G_inverse = inverse @ inverse.T
    blocks = [slice(start, start + ROWS) for start in range(0, len(X), ROWS)]
    theta = G_inverse @ (y @ X)
    theta += G_inverse @ sum((y[rows] - X[rows] @ theta) @ X[rows] for rows in blocks)
    out, residual, shift = np.empty_like(X), np.empty_like(y), 0.0
    for rows in blocks:
        Z = np.matmul(X[rows], G_inverse, out=out[rows])
        residual[rows] = y[rows] - X[rows] @ theta
        h = np.einsum("ij,ij->i", X[rows], Z)
        with np.errstate(divide="ignore", invalid="ignore"):
            removed = residual[rows] / (1 - h)  # y_j − x_jᵀθ*₋ⱼ
            # κ²u/(1 − h) is the relative error of a shift of at most ‖R⁻¹‖√h|removed|
            shift = np.maximum(shift, np.max(np.sqrt(h) * np.abs(removed / (1 - h))))
        Z *= -removed[:, None]
        Z += theta
    columns = np.linalg.norm(inverse, axis=0).max()  # at most ‖X⁺‖ = κ/‖X‖
    allowed = np.linalg.norm(theta) + columns * np.linalg.norm(residual)  # both sides over uκ
    return out if kappa * _norm_bound(inverse) * shift <= allowed else None


def _norm_bound(A):
    """An upper bound of ‖A‖₂, at most √d above it."""
    return np.sqrt(np.linalg.norm(A, 1)) * np.sqrt(np.linalg.norm(A, np.inf))


def _leave_one_out_qr(X, y):
    n, d = X.shape
    Q, R = np.linalg.qr(X)
    _require_full_rank(R[None], n)
    if n <= d:
        raise RankDeficient(
            f"leave-one-out needs n − 1 ≥ d; got n = {n} and d = {d}, so no point can be left out", 0
        )
    h = np.einsum("ij,ij->i", Q, Q)
    c = Q.T @ y
    residual = y - Q @ c
    residual -= Q @ (Q.T @ residual)
    near_one = np.flatnonzero(1 - h < 0.05)  # at most d/0.95 of them; there 1 − h_j has lost its digits
    h[near_one] = 0
    shift = solve_triangular(R, (Q * (residual / (1 - h))[:, None]).T).T
    theta = solve_triangular(R, c) - shift
    if near_one.size:
        without = np.ones((near_one.size, n))
        without[np.arange(near_one.size), near_one] = 0
        try:
            theta[near_one] = fit(X, y, without)
        except RankDeficient as error:
            j = int(near_one[error.row])
            raise RankDeficient(
                f"the leave-one-out fit of example j = {j} does not exist: its leverage is 1, "
                f"and the other rows of X have rank {d - 1} < d = {d}", j
            ) from None
    return theta


def _require_full_rank(R, n, first=0):
    """R : (m, r, d) triangular factors; the rank is that of R with the units of its columns taken out."""
    d = R.shape[-1]
    units = np.abs(R).max(axis=1, keepdims=True)
    values = np.linalg.svd(R / np.where(units > 0, units, 1), compute_uv=False)
    rank = (values > 2 * UNIT * max(n, d) * values[:, :1]).sum(axis=1)
    if (rank < d).any():
        row = int(np.argmax(rank < d))
        raise RankDeficient(
            f"X, its rows weighted, must have full column rank d = {d} for a unique minimiser; "
            f"got rank {rank[row]} from {n} rows, for weight vector {first + row}",
            first + row,
        )
