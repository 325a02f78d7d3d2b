"""Every type and layout of the same numbers is the same; what carries more is refused."""

import _thread
import datetime
import decimal
import time
import warnings

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
        ([0, 2**53 + 1], ValueError, "integers up to 2⁵³"),
        ([-(2**53) - 1, 0], ValueError, "integers up to 2⁵³"),
        ([2**70], TypeError, "real numbers"),
    ],
)
def test_what_is_more_or_less_than_numbers_is_refused(value, error, words):
    with pytest.raises(error, match=words):
        array(value, "X")


def test_integers_up_to_2_53_are_kept_and_an_array_that_will_do_is_not_copied():
    np.testing.assert_array_equal(array([2**53, -(2**53)], "X"), [2.0**53, -(2.0**53)])
    given = np.arange(6.0).reshape(2, 3)
    assert np.shares_memory(array(given, "X", 2), given)
    assert inputs.whole(given.astype(int)) and not inputs.whole(given)


def test_infinity_will_do_where_it_is_allowed_and_nan_never():
    np.testing.assert_array_equal(array([1, np.inf], "t", infinite=True), [1, np.inf])
    for bad in ([1, np.nan], [np.inf, np.nan], [np.inf, -np.inf, np.nan]):
        with pytest.raises(ValueError, match=f"got 1 NaN .* the first at .{len(bad) - 1},"):
            array(bad, "t", infinite=True)
    big = np.full(4, 1e308)  # whose sum overflows
    np.testing.assert_array_equal(array(big, "X"), big)


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
    with pytest.warns(UserWarning, match="X is on cuda:0; a copy is moved to the CPU") as told:
        np.testing.assert_array_equal(array(Elsewhere(), "X"), [0, 1, 2])
    assert told[0].filename == __file__


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


@pytest.mark.parametrize("value", [0, -1, -np.inf, np.nan])
def test_memory_is_above_0(value):
    with pytest.raises(ValueError, match="memory must be a number of bytes above 0; got"):
        inputs.memory(value)
    for enough in (1, 0.5, np.float32(0.25)):
        assert inputs.memory(enough) == enough


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: inputs.nonnegative(-1e-300, "lam"), ValueError, "lam must be a number at least 0"),
        (lambda: inputs.nonnegative([1.0], "lam"), ValueError, "lam must be a number at least 0"),
        (lambda: inputs.positive(0, "tol"), ValueError, "tol must be positive; got 0"),
        (lambda: inputs.positive(np.inf, "tol"), ValueError, "tol must be finite"),
        (lambda: inputs.count(True, "m"), TypeError, "m must be an integer at least 1; got True"),
        (lambda: inputs.count("2", "m"), TypeError, "m must be an integer at least 1; got '2'"),
        (lambda: inputs.count(0, "m"), ValueError, "m must be an integer at least 1; got 0"),
        (lambda: inputs.count(0.5, "m"), ValueError, "m must be an integer at least 1; got 0.5"),
        (lambda: inputs.count(1.5, "m"), ValueError, "m must be an integer at least 1; got 1.5"),
        (lambda: inputs.count(np.inf, "m"), ValueError, "m must be an integer at least 1; got inf"),
        (lambda: inputs.count(np.nan, "m"), ValueError, "m must be an integer at least 1; got nan"),
        (lambda: inputs.kind(3, str, "name"), TypeError, "name must be a str; got int"),
        (lambda: inputs.index([1], 3), TypeError, r"j must be one index; got \[1\]"),
        (lambda: inputs.index(3, 3), IndexError, "j must lie in 0, …, 2; got 3"),
        (lambda: inputs.indices([[1]], 3), TypeError, "j must be an index or a list of indices"),
        (lambda: inputs.indices("1", 3), TypeError, "j must be an index or a list of indices"),
        (lambda: inputs.rows([], 3), TypeError, "rows must be a slice, a mask"),
        (lambda: inputs.rows([[1]], 3), TypeError, "rows must be a slice, a mask"),
        (lambda: inputs.rows([1.0], 3), TypeError, "rows must be a slice, a mask"),
        (lambda: inputs.rows("1", 3), TypeError, "rows must be a slice, a mask"),
        (lambda: inputs.rows([True, False], 3), TypeError, "rows must be a slice, a mask"),
        (lambda: inputs.generator(-1), TypeError, "seed must be an integer at least 0, or a"),
        (lambda: inputs.generator(1.0), TypeError, "seed must be an integer at least 0, or a"),
        (lambda: inputs.generator(True), TypeError, "seed must be an integer at least 0, or a"),
        (lambda: inputs.right_sides(np.ones(4), 3), ValueError, r"v must be \(3,\) or"),
        (lambda: inputs.right_sides(np.ones((2, 3)), 3), ValueError, r"got \(2, 3\)"),
        (lambda: inputs.right_sides(np.ones((3, 0)), 3), ValueError, r"got \(3, 0\)"),
        (lambda: inputs.right_sides(np.ones((3, 1, 1)), 3), ValueError, r"got \(3, 1, 1\)"),
        (lambda: inputs.epsilon([0.5, np.nan]), ValueError, r"lie in \[0, 1\]; got nan"),
        (lambda: inputs.epsilon([0.5, -1e-11]), ValueError, r"lie in \[0, 1\]; got -1e-11"),
        (lambda: inputs.epsilon([1 + 1e-11]), ValueError, r"lie in \[0, 1\]; got 1"),
        (lambda: inputs.epsilon([0, 2, 3], [4, 5, 6]), ValueError, "got 2 at t = 5"),
        (lambda: inputs.epsilon([[0.5], [9]], 7.0), ValueError, "got 9 at t = 7"),
        (lambda: array(np.ones(2), "X", 2), ValueError, r"matrix \(n, d\); got shape \(2,\)"),
        (lambda: array(np.ones((1, 2)), "y", 1), ValueError, r"vector \(n,\); got shape \(1, 2\)"),
    ],
)
def test_a_number_an_index_or_a_vector_of_another_kind_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_numbers_indices_and_vectors_come_as_their_plain_kind():
    assert inputs.nonnegative(0, "lam") == 0 and inputs.positive(1e-300, "tol") == 1e-300
    for one in (1, 1.0, np.int8(1), np.float32(1)):
        found = inputs.count(one, "m")
        assert found == 1 and type(found) is int
    assert inputs.integer(0, "seed") == 0 and type(inputs.index(np.int8(2), 3)) is int
    assert inputs.index(0, 1) == 0
    draws = [inputs.generator(seed).standard_normal() for seed in (0, np.int64(0), 1)]
    assert draws[0] == draws[1] == np.random.default_rng(0).standard_normal() != draws[2]
    rng = np.random.default_rng(3)
    assert inputs.generator(rng) is rng
    assert inputs.right_sides([1, 2], 2).shape == (2,)
    assert inputs.right_sides([[1], [2]], 2).shape == (2, 1)
    np.testing.assert_array_equal(inputs.epsilon([-1e-13, 0.3, 1 + 1e-13]), [0, 0.3, 1])
    assert inputs.epsilon(np.array([0, 1])).dtype == float
    found = inputs.rows(np.array([2, 2], np.uint8), 3)
    assert found.dtype == np.int64 and inputs.rows(slice(1), 3) == slice(1)
    np.testing.assert_array_equal(found, [2, 2])
    np.testing.assert_array_equal(inputs.rows(0, 1), [0])


def test_a_function_of_a_nested_value_keeps_its_structure():
    value = {"a": (np.ones(2), {"b": np.zeros(3)}), "c": np.ones((2, 2))}
    found = inputs.nested(lambda part: 2 * part, value)
    assert list(found) == ["a", "c"] and type(found["a"]) is tuple
    np.testing.assert_array_equal(found["a"][0], [2, 2])
    assert [part.shape for part in inputs.leaves(value)] == [(2,), (3,), (2, 2)]
    assert inputs.leaves((1.0, 2.0)) == [(1.0, 2.0)]  # numbers are one array


def test_labels_are_those_of_a_series_and_of_nothing_else():
    series = pd.Series([1.0, 2.0], index=["a", "b"])
    assert list(inputs.labels(series)) == ["a", "b"]
    assert inputs.labels([1.0, 2.0]) is inputs.labels(np.ones(2)) is inputs.labels("ab") is None
    inputs.same_labels(None, series.index, ("X", "y"))
    inputs.same_labels(series.index, None, ("X", "y"))
    for other, words in (
        (["a", "c"], "at row 1 they have b and c"),
        (["a"], "at row 1 they have b and nothing"),
        (["a", "b", "c"], "at row 2 they have nothing and c"),
    ):
        with pytest.raises(ValueError, match=f"X and y must have the same labels .* {words}"):
            inputs.same_labels(series.index, pd.Index(other), ("X", "y"))


def test_rows_without_an_answer_are_told_where_they_were_asked_for():
    def room(rows):
        inputs.warn_of_rows(rows, ["singular", "lost", "lost"][: len(rows)], "fit", ". Why")

    for rows, words in (
        ([3], "example 3 have no fit"),
        ([3, 5], "example 3, and 1 others have"),
        ([3, 5, 7], "example 3, and 2 others have"),
    ):
        with pytest.warns(UserWarning, match=f"{words}.*: NaN, .*'singular'. Why$") as told:
            room(rows)
        assert told[0].filename == __file__


def test_an_option_that_a_function_has_not_is_named_with_those_it_has():
    def function(x, *, tol=1e-3, strict=True):
        return x

    inputs.options({"tol": 1.0, "strict": False}, function)
    with pytest.raises(TypeError, match="options must be among tol; got 'steps'"):
        inputs.options({"tol": 1.0, "steps": 3}, function)


def test_a_warning_reaches_code_that_has_no_name():
    """As that which `exec` runs with names of its own."""
    with pytest.warns(UserWarning, match="example 3 have no fit"):
        exec("warn_of_rows([3], ['endless'], 'fit')", {"warn_of_rows": inputs.warn_of_rows})


def test_the_rows_of_a_table_of_weights_are_fits_and_need_no_label_of_an_example():
    table = pd.DataFrame(np.ones((2, 3)), index=["first", "second"])
    found, single = inputs.weights(
        table, 3, rows=inputs.labels(pd.Series([0.0, 1, 2], index=[*"abc"]))
    )
    assert found.shape == (2, 3) and not single
    with pytest.raises(ValueError, match="the data"):
        inputs.weights(pd.Series([1.0, 1, 1], index=[*"abd"]), 3, rows=pd.Index([*"abc"]))


@pytest.mark.filterwarnings("error")
def test_sums_that_overflow_or_have_no_value_and_empty_arrays_pass_without_a_word():
    for value in ([np.inf, -np.inf], np.full(4, 1e308), [], np.empty((0, 3)), np.empty(0, int)):
        np.testing.assert_array_equal(array(value, "t", infinite=True), value)
    with pytest.raises(ValueError, match="must be finite"):
        array(np.longdouble("1e4000"), "t")


def test_one_number_is_not_copied_and_what_is_turned_is():
    given = np.array(1.0)
    assert np.shares_memory(array(given, "t"), given)
    for turned in (np.ones((1, 2))[::-1], np.ones((2, 1))[:, ::-1], np.ones(1)[::-1]):
        found = array(turned, "t")
        assert min(found.strides) > 0 and not np.shares_memory(found, turned)


class Holds:
    """An array beside which something else stands."""

    def __init__(self, name):
        setattr(self, name, None)

    def __array__(self, dtype=None, copy=None):
        return np.arange(3.0)


@pytest.mark.parametrize("name", ["toarray", "nnz"])
def test_dense_is_what_only_has_a_part_of_the_sparse(name):
    np.testing.assert_array_equal(array(Holds(name), "X"), [0, 1, 2])


def test_a_frame_of_every_kind_of_number_is_its_values_and_of_large_integers_refused():
    kinds = {"a": [True, False], "b": [1, -2], "c": np.array([1, 2], "u1"), "d": [0.5, 1.5]}
    frame = pd.DataFrame(kinds)
    np.testing.assert_array_equal(array(frame, "X"), [[1, 1, 1, 0.5], [0, -2, 2, 1.5]])
    for large in (pd.DataFrame({"a": [2**53 + 1]}), torch.tensor([2**53 + 1])):
        with pytest.raises(ValueError, match="integers up to 2⁵³"):
            array(large, "X")
    assert inputs.whole(torch.tensor([1, 2])) and not inputs.whole(torch.tensor([1.0, 2]))


class Quantised(Elsewhere):
    is_quantized, type = True, lambda _: "QUInt8Tensor"


def test_a_tensor_of_steps_is_refused():
    with pytest.raises(TypeError, match="X must be dense, of real numbers; got a QUInt8Tensor"):
        array(Quantised(), "X")


def test_a_tuple_is_one_array_where_all_of_it_are_numbers():
    found = inputs.leaves((1.0, np.ones(2)))
    assert found[0] == 1.0 and found[1].shape == (2,) and len(found) == 2


def test_no_rows_and_no_indices_are_refused_whatever_their_type():
    for call in (lambda: inputs.indices(np.empty(0, int), 3), lambda: inputs.rows([False] * 3, 3)):
        with pytest.raises(TypeError, match="must be"):
            call()
    with pytest.raises(TypeError, match="rows must be"):
        inputs.rows(np.empty(0, int), 3)
    np.testing.assert_array_equal(inputs.rows([1, 2, 2], 3), [1, 2, 2])


def test_a_warning_is_given_in_a_thread_that_begins_in_the_package():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        _thread.start_new_thread(inputs.warn, ("so",))
        for _ in range(500):
            if told:
                break
            time.sleep(0.01)
    assert [str(warning.message) for warning in told] == ["so"]


@pytest.mark.parametrize("zero", [True, False])
def test_weights_of_zeros_will_do_where_they_are_allowed(zero):
    W = np.array([[1.0, 0, 0], [0, 0, 0]])
    if zero:
        found, single = inputs.weights(W, 3, zero=True)
        np.testing.assert_array_equal(found, W)
        assert not single and inputs.weights(W[1], 3, True)[1]
    else:
        with pytest.raises(ValueError, match="must not all be 0; they are in row 1 of 2"):
            inputs.weights(W, 3)
    found, single = inputs.weights(None, 3)
    assert single and (found == np.ones((1, 3))).all()
    np.testing.assert_array_equal(inputs.weights(W[:1], 3)[0], W[:1])
    for wrong in (np.array(1.0), np.ones((1, 1, 3)), np.ones((0, 3)), np.ones((3, 2))):
        with pytest.raises(ValueError, match=r"weights must have shape \(3,\) or \(m, 3\)"):
            inputs.weights(wrong, 3)


@pytest.mark.parametrize(
    "X, y, words",
    [
        (np.empty((0, 2)), np.empty(0), r"at least one row and one column; got shape \(0, 2\)"),
        (np.empty((2, 0)), np.ones(2), r"at least one row and one column; got shape \(2, 0\)"),
        (np.ones((2, 3)), np.ones(3), "one entry for each of the 2 rows of X; got 3"),
        (np.ones((2, 3)), np.ones((2, 1)), r"y must be a vector \(n,\); got shape \(2, 1\)"),
        (np.ones(2), np.ones(2), r"X must be a matrix \(n, d\); got shape \(2,\)"),
    ],
)
def test_examples_are_a_matrix_and_a_target_for_each_of_its_rows(X, y, words):
    with pytest.raises(ValueError, match=words):
        inputs.examples(X, y)
    X, y = inputs.examples([[1]], [2])
    assert X.shape == (1, 1) and y.shape == (1,)
