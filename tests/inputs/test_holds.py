"""The door: what it refuses, seen through `leastsquares`."""

import numpy as np
import pytest

from ifcore.leastsquares import fit, leave_one_out

X, Y = np.eye(3)[:, :2] + 1, np.arange(3.0)
NAN, INF = X.copy(), Y.copy()
NAN[1, 0], INF[2] = np.nan, np.inf


@pytest.mark.parametrize("function", [fit, leave_one_out])
@pytest.mark.parametrize(
    "X, y, error, words",
    [
        (NAN, Y, ValueError, r"X must be finite; got 1 .* the first at \(1, 0\)"),
        (X, INF, ValueError, r"y must be finite; got 1 .* the first at \(2,\)"),
        (X, Y[:2], ValueError, "y must have one entry for each of the 3 rows of X; got 2"),
        (Y, Y, ValueError, r"X must be a matrix \(n, d\); got shape \(3,\)"),
        (X, X, ValueError, r"y must be a vector \(n,\); got shape \(3, 2\)"),
        (X[:0], Y[:0], ValueError, r"X must have at least one row .* got shape \(0, 2\)"),
        (
            X[:, :0],
            Y,
            ValueError,
            r"X must have at least one row and one column; got shape \(3, 0\)",
        ),
        ([["a", "b"]], [1], TypeError, "X must be an array of real numbers"),
        (X + 1j, Y, TypeError, "X must be an array of real numbers; got complex128"),
        ([[1, 2], [3]], [1, 2], TypeError, "X must be an array of real numbers; got list"),
    ],
)
def test_bad_examples_are_refused(function, X, y, error, words):
    with pytest.raises(error, match=words):
        function(X, y)


@pytest.mark.parametrize(
    "weights, words",
    [
        ([1, -1, 1], r"weights must be at least 0; got -1 at \(1,\)"),
        ([1, np.nan, 1], "weights must be finite"),
        ([1, 1, np.inf], "weights must be finite"),
        ([0, 0, 0], "weights must not all be 0; they are in row 0 of 1"),
        ([[1, 1, 1], [0, 0, 0]], "weights must not all be 0; they are in row 1 of 2"),
        ([1, 1], r"weights must have shape \(3,\) or \(m, 3\) .* got \(2,\)"),
        (np.ones((0, 3)), r"got \(0, 3\)"),
        (np.ones((1, 1, 3)), r"got \(1, 1, 3\)"),
    ],
)
def test_bad_weights_are_refused(weights, words):
    with pytest.raises(ValueError, match=words):
        fit(X, Y, weights)
