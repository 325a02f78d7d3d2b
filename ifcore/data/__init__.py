"""The data sets that the book carries, with their provenance in README.md, and synthetic ones from a seed."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ifcore import _inputs

FOLDER = Path(__file__).parent


class Dataset(NamedTuple):
    """Examples (x_i, y_i) as they were recorded: X (n, d), y (n,), the columns' names and the target's."""

    X: np.ndarray
    y: np.ndarray
    columns: tuple
    target: str


def diabetes():
    """442 diabetes patients: ten measurements at baseline, and the disease's progression a year later.

    Columns: age (years), sex (coded 1, 2), body mass index (kg/m²), mean arterial pressure (mm Hg), six
    blood serum measurements. Target: a score from 25 to 346. Source: Efron, Hastie, Johnstone and
    Tibshirani (2004), "Least angle regression".
    """
    return _read("diabetes.csv")


def breast_cancer():
    """569 breast masses: 30 measures of the cell nuclei in an image, and whether the mass is benign (1) or not (0).

    Ten measures (lengths in image pixels), each as mean, standard error and worst of the image's nuclei.
    Source: Wolberg, Mangasarian, Street and Street (1993), "Breast Cancer Wisconsin (Diagnostic)", UCI.
    """
    return _read("breast_cancer.csv")


def standardise(X, intercept=True):
    """X with every column shifted to mean 0 and scaled to standard deviation 1, behind a column of ones.

    X : (n, d). Returns (n, d + 1), or (n, d) with intercept=False. Raises ValueError for a constant column.
    """
    X = _inputs.array(X, "X", 2)
    if len(X) < 2:
        raise ValueError(f"X must have at least two rows to be standardised; got {len(X)}")
    scale = np.abs(X).max(axis=0)
    centred = X / np.where(scale > 0, scale, 1)  # lest a square over- or underflow
    centred -= centred.mean(axis=0)
    spread = centred.std(axis=0)
    constant = spread <= 1e-14
    if constant.any():
        raise ValueError(f"X must have no constant column; column {int(np.argmax(constant))} is constant")
    return np.column_stack([np.ones(len(X)), centred / spread] if intercept else [centred / spread])


def design(seed, n, d, condition=10.0):
    """A random X (n, d), n ≥ d, with singular values in geometric progression from √n down to √n/condition.

    The singular vectors are uniform (Haar). seed : an integer, or a NumPy Generator to draw from.
    Raises ValueError where no such X exists.
    """
    if not 1 <= d <= n or not condition >= 1 or (d == 1 and condition != 1):
        raise ValueError(
            f"a design needs 1 ≤ d ≤ n, condition ≥ 1, and condition = 1 where d = 1; "
            f"got n = {n}, d = {d}, condition = {condition}"
        )
    rng = np.random.default_rng(seed)
    U, V = (_haar(rng, m, d) for m in (n, d))
    return np.sqrt(n) * (U * np.geomspace(1, 1 / condition, d)) @ V.T


def regression(seed, n, d, condition=10.0, noise=1.0):
    """X from `design` and y = Xθ + noise·ξ, with θ and ξ standard normal: (X, y)."""
    noise = _inputs.nonnegative(noise, "noise")
    rng = np.random.default_rng(seed)
    X = design(rng, n, d, condition)
    return X, X @ rng.standard_normal(d) + noise * rng.standard_normal(n)


def classification(seed, n, d, condition=10.0):
    """X from `design` and labels y in {0, 1} with P(y = 1) = 1/(1 + e^{−xᵀθ}), θ standard normal: (X, y)."""
    rng = np.random.default_rng(seed)
    X = design(rng, n, d, condition)
    return X, (rng.random(n) < 1 / (1 + np.exp(-X @ rng.standard_normal(d)))).astype(float)


def _haar(rng, n, d):
    Q, R = np.linalg.qr(rng.standard_normal((n, d)))
    return Q * np.sign(np.diag(R))


def _read(name):
    with open(FOLDER / name, encoding="utf-8") as lines:
        *columns, target = lines.readline().strip().split(",")
        table = np.loadtxt(lines, delimiter=",")
    return Dataset(table[:, :-1].copy(), table[:, -1].copy(), tuple(columns), target)
