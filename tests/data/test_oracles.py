"""The bundled sets against scikit-learn's."""

import numpy as np
import sklearn.datasets

from ifcore import data


def test_diabetes_is_the_published_set():
    bundled, published = data.diabetes(), sklearn.datasets.load_diabetes(scaled=False)
    np.testing.assert_array_equal(bundled.X, published.data)
    np.testing.assert_array_equal(bundled.y, published.target)
    assert len(bundled.columns) == 10 and bundled.target == "progression"
    assert bundled.X.flags.owndata and bundled.y.flags.owndata


def test_breast_cancer_is_the_published_set():
    bundled, published = data.breast_cancer(), sklearn.datasets.load_breast_cancer()
    np.testing.assert_array_equal(bundled.X, published.data)
    np.testing.assert_array_equal(bundled.y, published.target)
    assert bundled.columns == tuple(published.feature_names) and bundled.target == "benign"


def test_digits_are_the_published_set():
    bundled, published = data.digits(), sklearn.datasets.load_digits()
    np.testing.assert_array_equal(bundled.X, published.data)
    np.testing.assert_array_equal(bundled.y, published.target)
    assert bundled.target == "digit"
