"""Every type and layout of the same numbers is the same; what carries more is refused."""

import datetime
import decimal

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
from hypothesis import example, given, settings
from hypothesis.extra import numpy as hnp

from ifcore import inputs, leastsquares, risk, training
from ifcore.inputs import array
from ifcore.risk import Risk

runs = settings(max_examples=200, deadline=None, database=None)
KINDS = ["?", "i1", "u2", "<i4", ">i8", "<f2", "<f4", ">f4", "<f8", ">f8", "g"]


@st.composite
def layouts(draw):
    """An array of any dtype, byte order and shape, whole numbers in it, in any layout."""
    kind = np.dtype(draw(st.sampled_from(KINDS)))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, max_side=5))
    numbers = draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 100)))
    given = numbers.astype(kind)
    for layout in draw(st.lists(st.sampled_from(["turned", "F", "every second", "frozen", "one"]))):
        if layout == "turned" and given.ndim:
            given = given[::-1]
        if layout == "F":
            given = np.asfortranarray(given)
        if layout == "every second" and given.ndim:
            given = np.repeat(given, 2, axis=-1)[..., ::2]
        if layout == "one" and given.ndim:
            given = np.broadcast_to(given[:1], given.shape)
        if layout == "frozen":
            given = given.copy()
            given.flags.writeable = False
    return given


@runs
@given(layouts())
@example(np.ones(1)[::-1])
def test_every_layout_gives_its_numbers_as_one_kind_of_array(given):
    found = array(given, "X")
    assert found.dtype == np.float64 and found.dtype.isnative and found.shape == given.shape
    assert found.flags.c_contiguous and found.flags.writeable and found.flags.aligned
    np.testing.assert_array_equal(found, given.astype(float))
    torch.from_numpy(found)  # without a warning
    np.testing.assert_array_equal(array(given.tolist(), "X"), found)


@runs
@given(layouts(), st.sampled_from(["float32", "float64", "int64", "bool", "bfloat16"]))
def test_every_tensor_gives_its_numbers_whatever_its_graph(given, kind):
    tensor = torch.tensor(given.astype(float)).to(getattr(torch, kind))
    if tensor.is_floating_point():
        tensor.requires_grad_()
        tensor = 1 * tensor
    turned = tensor.T if tensor.ndim == 2 else tensor
    np.testing.assert_array_equal(array(turned, "X"), turned.detach().double().numpy())


def test_frames_of_any_numbers_are_their_values():
    frame = pd.DataFrame({"a": [1, 2], "b": [True, False], "c": [0.5, 1.5]})
    np.testing.assert_array_equal(array(frame, "X"), [[1, 1, 0.5], [2, 0, 1.5]])
    np.testing.assert_array_equal(array(pd.Series([1, 2], dtype="Int64"), "y"), [1, 2])
    np.testing.assert_array_equal(array(np.ma.array([1.0, 2]), "y"), [1, 2])  # nothing masked


@pytest.mark.parametrize(
    "value, error, words",
    [
        (np.ma.array([0, -999.0], mask=[0, 1]), TypeError, "X must not be masked; got 1 masked"),
        (scipy.sparse.eye(3, format="csr"), TypeError, "X must be dense; got a csr_matrix"),
        (scipy.sparse.coo_array(np.eye(3)), TypeError, "X must be dense; got a coo_array"),
        (torch.eye(2).to_sparse(), TypeError, "X must be dense"),
        (torch.ones(2, device="meta"), TypeError, "a tensor on the device meta, which has none"),
        (torch.ones(2) + 1j, TypeError, "real numbers; got complex64"),
        (np.array([1 + 0j]), TypeError, "real numbers; got complex128"),
        ("1", TypeError, "real numbers; got <U1"),
        (["1", "2"], TypeError, "real numbers; got <U1"),
        (b"1", TypeError, "real numbers"),
        (None, TypeError, "real numbers; got NoneType"),
        ([decimal.Decimal(1)], TypeError, "real numbers; got list"),
        ([[1], [2, 3]], TypeError, "real numbers; got list"),
        ({"a": 1}, TypeError, "real numbers; got dict"),
        ({1, 2}, TypeError, "real numbers; got set"),
        (datetime.date(2000, 1, 1), TypeError, "real numbers; got date"),
        (np.array(["2000-01-01"], "M8[D]"), TypeError, r"real numbers; got datetime64\[D\]"),
        (pd.DataFrame({"a": [1], "b": ["x"]}), TypeError, "real numbers; got DataFrame"),
        (pd.Series(["1"]), TypeError, "real numbers"),
        (pd.Series(["a", "b"], dtype="category"), TypeError, "real numbers; got Series"),
        (pd.Series([1, None], dtype="Int64"), ValueError, r"X must be finite; got 1 .* at \(1,\)"),
        ([1, np.nan], ValueError, r"X must be finite; got 1 NaN .* at \(1,\)"),
        (torch.tensor([torch.inf]), ValueError, "X must be finite"),
        (np.longdouble("1e4000"), ValueError, "X must be finite"),
        (2**60, ValueError, "integers up to 2⁵³"),
        ([-(2**60)], ValueError, "integers up to 2⁵³"),
        ([2**70], TypeError, "real numbers"),
    ],
)
def test_what_is_more_or_less_than_numbers_is_refused(value, error, words):
    with pytest.raises(error, match=words):
        array(value, "X")


def test_labels_must_agree_wherever_two_of_them_meet():
    X = pd.DataFrame({"one": 1.0, "x": [1.0, 2, 4]}, index=["a", "b", "c"])
    y = pd.Series([1.0, 3, 2], index=["a", "b", "c"])
    right = leastsquares.fit(X, y)
    np.testing.assert_array_equal(right, leastsquares.fit(X.to_numpy(), y.to_numpy()))
    problem = Risk(risk.linear, risk.squared, X, y)
    shuffled = y.loc[["b", "a", "c"]]
    for call, names in (
        (lambda: leastsquares.fit(X, shuffled), "X and y"),
        (lambda: leastsquares.fit(X, y, shuffled), "the data and weights"),
        (lambda: Risk(risk.linear, risk.squared, X, shuffled), "X and y"),
        (lambda: problem.value(right, shuffled), "the data and weights"),
        (lambda: training.retrain(problem, training.Training(2, 0.1), right, shuffled), "weights"),
        (lambda: leastsquares.fit(X, y.reset_index(drop=True)), "X and y"),
    ):
        with pytest.raises(ValueError, match=f"{names} must have the same labels .* at row 0"):
            call()
    assert problem.value(right, y) == problem.value(right, y.to_numpy())
    last = problem.subset([2, 0])
    assert last.value(right, y.loc[["c", "a"]]) == last.value(right, [2.0, 1.0])


class Elsewhere:
    """A tensor on another device, as far as the door looks."""

    is_sparse = is_quantized = False
    device = torch.device("cuda:0")

    def detach(self):
        return self

    def cpu(self):
        return torch.arange(3.0)


def test_what_is_on_another_device_is_moved_and_said():
    with pytest.warns(UserWarning, match="X is on cuda:0; a copy is moved to the CPU"):
        np.testing.assert_array_equal(array(Elsewhere(), "X"), [0, 1, 2])


@pytest.mark.parametrize("value", [1.5, -1, True, "1", None, np.float64(2)])
def test_a_seed_is_an_integer(value):
    with pytest.raises(TypeError, match="seed must be an integer at least 0"):
        inputs.integer(value, "seed")
    assert inputs.integer(np.int64(3), "seed") == 3


@pytest.mark.parametrize(
    "j, error, words",
    [
        ([-1, 2], IndexError, "j must lie in 0, …, 2; got -1"),
        ([0, 3], IndexError, "j must lie in 0, …, 2; got 3"),
        ([2, 0, 2], ValueError, r"j must not repeat an index; got \[2, 0, 2\]"),
        ([True, False], TypeError, "j must be an index or a list of indices"),
        (1.0, TypeError, "j must be an index or a list of indices; got 1.0"),
        ([], TypeError, "j must be an index or a list of indices"),
    ],
)
def test_indices_are_distinct_and_in_range(j, error, words):
    with pytest.raises(error, match=words):
        inputs.indices(j, 3)
    np.testing.assert_array_equal(inputs.indices([2, 0], 3), [2, 0])
    np.testing.assert_array_equal(inputs.indices(np.int8(1), 3), [1])


def test_orders_are_seeds_from_0_on():
    np.testing.assert_array_equal(inputs.orders([0, 3], 7, 2), [0, 3])
    np.testing.assert_array_equal(inputs.orders(0, 7, 3), [0, 0, 0])
    np.testing.assert_array_equal(inputs.orders(None, 7, 2), [7, 7])
    for bad in ([-1, 0], [0.0, 1.0], [1, 2, 3]):
        with pytest.raises(ValueError, match="order must be 2 integers at least 0; got"):
            inputs.orders(bad, 7, 2)


def test_rows_may_repeat_and_stay_in_range():
    np.testing.assert_array_equal(inputs.rows([2, 0, 2], 3), [2, 0, 2])
    np.testing.assert_array_equal(inputs.rows([True, False, True], 3), [0, 2])
    for bad in (-1, 3):
        with pytest.raises(IndexError, match=f"rows must lie in 0, …, 2; got {bad}"):
            inputs.rows([0, bad], 3)


@pytest.mark.parametrize("value", [True, "1e9", None])
def test_memory_is_a_number_of_bytes(value):
    with pytest.raises(TypeError, match="memory must be a number of bytes above 0; got"):
        inputs.memory(value)
    assert inputs.memory(np.inf) == np.inf


def test_an_option_that_a_function_has_not_is_named_with_those_it_has():
    def function(x, *, tol=1e-3, strict=True):
        return x

    inputs.options({"tol": 1.0, "strict": False}, function)
    with pytest.raises(TypeError, match="options must be among tol; got 'steps'"):
        inputs.options({"tol": 1.0, "steps": 3}, function)
