"""The data sets that the book carries, and synthetic ones from a seed.

The provenance of the data sets is in README.md.
"""

import gzip
import math
import numbers
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ifcore import inputs

FOLDER = Path(__file__).parent


class Dataset(NamedTuple):
    """Examples (x_i, y_i) as they were recorded.

    X (n, d), y (n,), the columns' names and the target's.
    """

    X: np.ndarray
    y: np.ndarray
    columns: tuple
    target: str


def diabetes():
    """442 diabetes patients: ten baseline measurements, and the disease's progression a year later.

    Columns: age (years), sex (coded 1, 2), body mass index (kg/m²), mean arterial pressure (mm Hg),
    six blood serum measurements. Target: a score from 25 to 346. Source: Efron, Hastie, Johnstone
    and Tibshirani (2004), "Least angle regression".
    """
    return _read("diabetes.csv")


def breast_cancer():
    """569 breast masses: 30 measures of the cell nuclei in an image, and a diagnosis.

    Columns: ten measures (lengths in image pixels), each as mean, standard error and worst of the
    image's nuclei. Target: whether the mass is benign (1) or not (0). Source: Wolberg, Mangasarian,
    Street and Street (1993), "Breast Cancer Wisconsin (Diagnostic)", UCI.
    """
    return _read("breast_cancer.csv")


def concrete():
    """1,030 mixtures of concrete: the components and the age, and the compressive strength.

    Columns: the amounts of seven components (kg/m³) and the age (days). Target: the compressive
    strength (MPa). Source: Yeh (1998), "Concrete Compressive Strength", UCI.
    """
    return _read("concrete.csv")


def adult():
    """3,000 people of the census of 1994: age, schooling, work, and whether they earn over $50,000.

    Columns: age and schooling (years), working hours a week, capital gain and loss (dollars), and
    as 0 or 1 whether married, never married, in government, self-employed, managerial,
    professional, female. Target: whether the yearly income is over $50,000 (1) or not (0). Source:
    Becker and Kohavi (1996), "Adult", UCI.
    """
    return _read("adult.csv")


def digits():
    """1,797 handwritten digits: images of 8 × 8 pixels, each from 0 to 16, by rows, and the digit.

    Source: Alpaydin and Kaynak (1998), "Optical Recognition of Handwritten Digits", UCI, its test
    part.
    """
    return _read("digits.csv")


def sonnets():
    """Five of Shakespeare's sonnets (18, 29, 30, 73, 116), in one string.

    It has about 3,000 characters, and blank lines between the sonnets.
    """
    return (FOLDER / "sonnets.txt").read_text(encoding="utf-8")


def contexts(text, length):
    """A text as examples for a model of the next character: (X, y, alphabet).

    X (n, length) holds the characters before, y (n,) the one that follows, as indices into the
    sorted `alphabet`; n is the number of characters that have so many before them. Raises
    ValueError for a text that is too short, TypeError for what is none.
    Memory: 8 n (length + 3) bytes.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a string; got {type(text).__name__}")
    length = _whole(length, "length")
    if not 1 <= length < len(text):
        raise ValueError(
            f"length must lie in 1, …, {len(text) - 1} for a text of {len(text)} characters; "
            f"got {length}"
        )
    alphabet, codes = np.unique(list(text), return_inverse=True)
    windows = np.lib.stride_tricks.sliding_window_view(codes, length + 1)
    return windows[:, :-1].astype(float), windows[:, -1].astype(float), "".join(alphabet)


def mnist(folder):
    """60,000 handwritten digits of 28 × 28 pixels from the reader's own copy of MNIST.

    The book does not carry it.

    folder : holds train-images-idx3-ubyte and train-labels-idx1-ubyte, with .gz or without.
    X (60,000, 784), from 0 to 255. Raises FileNotFoundError, ValueError for a file that is not of
    this form. Source: LeCun, Cortes and Burges.
    """
    if not isinstance(folder, (str, Path)):
        raise TypeError(f"folder must be a path; got {folder!r}")
    images, labels = (
        _idx(Path(folder), f"train-{name}-ubyte", axes)
        for name, axes in (("images-idx3", 3), ("labels-idx1", 1))
    )
    if len(images) != len(labels) or not images.size:
        raise ValueError(
            f"{folder} must hold as many labels as images, one at least; got {len(labels)} and "
            f"images of shape {images.shape}"
        )
    if labels.max() > 9:
        raise ValueError(f"labels in {folder} must be digits from 0 to 9; got {labels.max()}")
    names = tuple(f"pixel_{i}_{j}" for i in range(images.shape[1]) for j in range(images.shape[2]))
    return Dataset(
        images.reshape(len(images), -1).astype(float), labels.astype(float), names, "digit"
    )


def standardise(X, intercept=True):
    """X with every column shifted to mean 0 and scaled to standard deviation 1.

    X : (n, d). Returns (n, d + 1), the columns behind a column of ones, or (n, d) with
    intercept=False. Raises ValueError for a constant column.
    Memory: 24 n d bytes.
    """
    X, intercept = inputs.array(X, "X", 2), inputs.flag(intercept, "intercept")
    if len(X) < 2:
        raise ValueError(f"X must have at least two rows to be standardised; got {len(X)}")
    scale = np.abs(X).max(axis=0)
    centred = X / np.where(scale > 0, scale, 1)  # lest a square over- or underflow
    centred -= centred.mean(axis=0)
    spread = centred.std(axis=0)
    constant = spread <= 1e-14
    if constant.any():
        raise ValueError(
            f"X must have no constant column; column {int(np.argmax(constant))} is constant"
        )
    return np.column_stack([np.ones(len(X)), centred / spread] if intercept else [centred / spread])


def design(seed, n, d, condition=10.0):
    """A random X (n, d), n ≥ d, with singular values in geometric progression.

    They go from √n down to √n/condition, and the singular vectors are uniform (Haar). seed : an
    integer at least 0, or a NumPy Generator to draw from. Raises ValueError where no such X exists,
    TypeError for what is no number.
    """
    n, d = _whole(n, "n"), _whole(d, "d")
    if not isinstance(condition, numbers.Real):
        raise TypeError(f"condition must be a number; got {condition!r}")
    if not 1 <= d <= n or not 1 <= condition < np.inf or (d == 1 and condition != 1):
        raise ValueError(
            f"a design needs 1 ≤ d ≤ n, condition ≥ 1, and condition = 1 where d = 1; "
            f"got n = {n}, d = {d}, condition = {condition}"
        )
    rng = inputs.generator(seed)
    U, V = (orthonormal(rng, m, d) for m in (n, d))
    return np.sqrt(n) * (U * np.geomspace(1, 1 / condition, d)) @ V.T


def orthonormal(seed, n, d):
    """X (n, d) with XᵀX = Id, n ≥ d, uniform (Haar).

    seed : as for `design`. Raises ValueError where no such X exists, TypeError for no numbers.
    """
    n, d = _whole(n, "n"), _whole(d, "d")
    if not 1 <= d <= n:
        raise ValueError(f"orthonormal columns need 1 ≤ d ≤ n; got n = {n}, d = {d}")
    Q, R = np.linalg.qr(inputs.generator(seed).standard_normal((n, d)))
    return Q * np.sign(np.diag(R))


def low_rank(seed, n, d, rank):
    """X (n, d) of a rank up to min(n, d), with singular values from 2 down to 1/2, or 2 alone.

    seed : as for `design`. Raises ValueError where no such X exists, TypeError for no numbers.
    """
    n, d, rank = _whole(n, "n"), _whole(d, "d"), _whole(rank, "rank")
    if not 1 <= rank <= min(n, d):
        raise ValueError(f"rank must lie in 1, …, {min(n, d)}; got {rank}")
    rng = inputs.generator(seed)
    left = design(rng, n, rank, 4.0 if rank > 1 else 1.0) / np.sqrt(n)
    return 2 * left @ design(rng, d, rank, 1.0).T / np.sqrt(d)


def regression(seed, n, d, condition=10.0, noise=1.0):
    """X from `design` and y = Xθ + noise·ξ, with θ and ξ standard normal: (X, y)."""
    noise, rng = inputs.nonnegative(noise, "noise"), inputs.generator(seed)
    X = design(rng, n, d, condition)
    return X, X @ rng.standard_normal(d) + noise * rng.standard_normal(n)


def classification(seed, n, d, condition=10.0):
    """X from `design` and labels y in {0, 1} of a logistic model: (X, y).

    P(y = 1) = 1/(1 + e^{−xᵀθ}), θ standard normal.
    """
    rng = inputs.generator(seed)
    X = design(rng, n, d, condition)
    return X, (rng.random(n) < 1 / (1 + np.exp(-X @ rng.standard_normal(d)))).astype(float)


def _whole(value, name):
    if not isinstance(value, numbers.Real) or value != np.floor(value) or np.isinf(value):
        raise TypeError(f"{name} must be an integer; got {value!r}")
    return int(value)


def _idx(folder, name, axes):
    path = folder / name if (folder / name).exists() else folder / f"{name}.gz"
    if not path.exists():
        raise FileNotFoundError(f"the folder {folder} must hold {name} or {name}.gz")
    content, head = path.read_bytes(), 4 + 4 * axes
    try:
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} must be a gzip file; {error}") from error
    shape = np.frombuffer(content[4:head].ljust(4 * axes, b"\xff"), ">i4").tolist()
    rest = len(content) - head
    if content[:4] != bytes([0, 0, 8, axes]) or min(shape) < 0 or rest != math.prod(shape):
        raise ValueError(
            f"{path} must be an IDX file of unsigned bytes with {axes} axes; it has {len(content)} "
            f"bytes, and starts with {content[:4].hex()!r} and the sizes {shape}"
        )
    return np.frombuffer(content[head:], np.uint8).reshape(shape)


def _read(name):
    with open(FOLDER / name, encoding="utf-8") as lines:
        *columns, target = lines.readline().strip().split(",")
        table = np.loadtxt(lines, delimiter=",")
    return Dataset(table[:, :-1].copy(), table[:, -1].copy(), tuple(columns), target)
