"""(C + λI)⁻¹v for a symmetric positive definite C + λI: each solver returns its residual, or says why it failed."""

from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from ifcore import _inputs


class NotPositiveDefinite(np.linalg.LinAlgError):
    """A matrix that is not positive definite to working precision; `smallest` is its smallest eigenvalue."""

    def __init__(self, message, smallest):
        super().__init__(message)
        self.smallest = smallest


class Solution(NamedTuple):
    """x with (C + λI)x = v, its relative residual, and the iterations it took (0 for a direct solver)."""

    x: np.ndarray
    residual: float
    steps: int


def direct(C, v, lam=0.0, name="C"):
    """(C + λI)⁻¹v by Cholesky factorisation, scaled to a unit diagonal, so that no unit matters.

    C : (d, d), symmetric. v : (d,) or (d, m) for m right-hand sides. lam : λ ≥ 0.
    Returns a Solution, with residual ‖(C + λI)x − v‖ / (‖C + λI‖‖x‖ + ‖v‖) in the Frobenius norm.
    Raises NotPositiveDefinite with the smallest eigenvalue and a λ that would mend it; in the
    message the matrix is called `name`.
    """
    C, v, lam = _inputs.array(C, name, 2), _inputs.array(v, "v"), _inputs.nonnegative(lam, "lam")
    d = len(C)
    if C.shape != (d, d) or v.ndim not in (1, 2) or len(v) != d:
        raise ValueError(f"{name} must be (d, d) and v (d,) or (d, m); got {C.shape} and {v.shape}")
    if not np.abs(C - C.T).max() <= 1e-8 * np.abs(C).max():
        raise ValueError(f"{name} must be symmetric; {name} − {name}ᵀ has an entry of {np.abs(C - C.T).max():.1e}")
    damped = C + lam * np.eye(d)
    diagonal = np.diag(damped)
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1))
    scaled = scale[:, None] * damped * scale
    values = np.linalg.eigvalsh(scaled)
    if not values[0] > d * np.finfo(float).eps * values[-1]:
        smallest, *_, largest = np.linalg.eigvalsh(damped) if d > 1 else (damped[0, 0],) * 2
        mend = lam + 1.1 * max(-smallest, 0) + np.sqrt(np.finfo(float).eps) * max(largest, 1e-300)
        raise NotPositiveDefinite(
            f"{name} must be positive definite; its smallest eigenvalue is {smallest:.2e} and its largest "
            f"{largest:.2e}, at λ = {lam:g}. λ = {mend:.1e} would mend it",
            smallest,
        )
    column = scale if v.ndim == 1 else scale[:, None]
    x = column * cho_solve(cho_factor(scaled), column * v)
    size = np.linalg.norm(damped) * np.linalg.norm(x) + np.linalg.norm(v)
    return Solution(x, np.linalg.norm(damped @ x - v) / size if size > 0 else 0.0, 0)
