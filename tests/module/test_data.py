"""`ifcore.data`: the bundled sets against scikit-learn's, the synthetic ones against their promises."""

import numpy as np
import pytest
import sklearn.datasets

from ifcore import data


def test_diabetes_is_the_published_set():
    bundled, published = data.diabetes(), sklearn.datasets.load_diabetes(scaled=False)
    np.testing.assert_array_equal(bundled.X, published.data)
    np.testing.assert_array_equal(bundled.y, published.target)
    assert len(bundled.columns) == 10 and bundled.target == "progression"


def test_breast_cancer_is_the_published_set():
    bundled, published = data.breast_cancer(), sklearn.datasets.load_breast_cancer()
    np.testing.assert_array_equal(bundled.X, published.data)
    np.testing.assert_array_equal(bundled.y, published.target)
    assert bundled.columns == tuple(published.feature_names) and bundled.target == "benign"


def test_every_data_file_has_its_provenance(root):
    text = (root / "ifcore" / "data" / "README.md").read_text(encoding="utf-8")
    for path in (root / "ifcore" / "data").glob("*.csv"):
        assert path.name in text


def test_standardise():
    X = data.standardise(data.diabetes().X)
    np.testing.assert_array_equal(X[:, 0], 1)
    np.testing.assert_allclose(X[:, 1:].mean(0), 0, atol=1e-14)
    np.testing.assert_allclose(X[:, 1:].std(0), 1, rtol=1e-14)
    assert data.standardise(X[:, 1:], intercept=False).shape == (442, 10)
    np.testing.assert_allclose(data.standardise(X[:, 1:] * 1e200)[:, 1:], X[:, 1:], atol=1e-13)
    with pytest.raises(ValueError, match="at least two rows to be standardised; got 1"):
        data.standardise(X[:1])
    with pytest.raises(ValueError, match="column 1 is constant"):
        data.standardise([[1, 0.1], [2, 0.1], [3, 0.1]])


@pytest.mark.parametrize("condition", [1, 10, 1e8])
def test_a_design_has_its_singular_values(condition):
    values = np.linalg.svd(data.design(4, 30, 5, condition), compute_uv=False)
    np.testing.assert_allclose(values, np.sqrt(30) * np.geomspace(1, 1 / condition, 5), rtol=1e-14 * condition + 1e-13)


def test_a_seed_gives_the_same_data_and_another_others():
    for make in (data.design, lambda *a: data.regression(*a)[1], lambda *a: data.classification(*a)[1]):
        np.testing.assert_array_equal(make(7, 30, 3), make(7, 30, 3))
        assert (make(7, 30, 3) != make(8, 30, 3)).any()
    assert set(data.classification(0, 50, 2)[1]) == {0.0, 1.0}


def test_noise_must_be_a_number():
    for noise in (-1, np.nan):
        with pytest.raises(ValueError, match="noise must be"):
            data.regression(0, 5, 2, noise=noise)


@pytest.mark.parametrize("n, d, condition", [(3, 4, 1), (3, 0, 1), (3, 2, 0.5), (3, 1, 2), (3, 2, np.nan)])
def test_an_impossible_design_is_refused(n, d, condition):
    with pytest.raises(ValueError, match=f"got n = {n}, d = {d}, condition = {condition}"):
        data.design(0, n, d, condition)
