"""Sums, blocks and permutations, and what is refused."""

import re

import hypothesis.strategies as st
import networks
import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from networks import module
from risks import network, problems

from ifcore import data, jacobian, risk
from ifcore.network import Network
from ifcore.risk import Risk, doubts, tensors
from ifcore.risk.tensors import Tensors

seeds = st.integers(0, 2**32 - 1)
runs = settings(max_examples=60, deadline=None, database=None)


@runs
@given(seeds)
def test_the_weighted_risk_is_the_weighted_sum(seed):
    for problem, theta, w in problems(seed):
        penalty = problem.lam / 2 * theta @ theta
        assert problem.value(theta, w) == pytest.approx(
            w @ problem.losses(theta) + penalty, rel=1e-13
        )
        expected = w @ problem.gradients(theta) + problem.lam * theta
        scale = w @ np.linalg.norm(problem.gradients(theta), axis=1)
        np.testing.assert_allclose(problem.gradient(theta, w), expected, rtol=0, atol=1e-13 * scale)
        assert problem.value(theta) == problem.value(theta, np.ones(12))


@runs
@given(seeds)
def test_gauss_newton_is_the_hessian_of_a_linear_model_and_of_no_other(seed):
    *linear, smooth, _ = problems(seed)
    for problem, theta, w in linear:
        H = problem.hessian(theta, w)
        np.testing.assert_allclose(
            problem.gauss_newton(theta, w), H, rtol=0, atol=1e-13 * np.abs(H).max()
        )
    problem, theta, w = smooth
    H, G = problem.hessian(theta, w), problem.gauss_newton(theta, w)
    assert np.abs(H - G).max() > 1e-6 * np.abs(G).max()
    assert np.linalg.eigvalsh(G).min() >= problem.lam * (1 - 1e-9)


def test_gauss_newton_is_summed_up_in_blocks(monkeypatch):
    for problem, theta, w in problems(0):
        whole = problem.gauss_newton(theta, w)
        # five examples at a time, of twelve
        monkeypatch.setattr(risk.empirical, "JACOBIAN", 5 * problem.K * problem.d)
        np.testing.assert_allclose(
            problem.gauss_newton(theta, w), whole, rtol=0, atol=1e-14 * np.abs(whole).max()
        )
        monkeypatch.undo()


@runs
@given(seeds)
def test_permuting_the_examples_permutes_the_losses(seed):
    rng = np.random.default_rng(seed)
    X, y = data.regression(rng, 12, 3)
    order, theta = rng.permutation(12), rng.standard_normal(3)
    one = Risk(risk.linear, risk.squared, X, y)
    two = Risk(risk.linear, risk.squared, X[order], y[order])
    np.testing.assert_allclose(one.losses(theta)[order], two.losses(theta), rtol=1e-13)


def test_later_changes_of_the_arrays_do_not_reach_the_risk():
    X, y = data.regression(0, 5, 2)
    lam, b = np.array([0.1, 0.2]), np.ones(2)
    problem = Risk(risk.linear, risk.squared, X, y, lam, b)
    before = problem.value(np.ones(2))
    X[:] = y[:] = lam[:] = b[:] = 0
    problem.penalty_curvature()[:] = 0
    assert problem.value(np.ones(2)) == before


def classes(theta, x):
    return theta.reshape(3, 2) @ x


X, Y = np.eye(3)[:, :2], np.arange(3.0)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (
            lambda: Risk(risk.linear, risk.squared, X * np.nan, Y),
            ValueError,
            "X must be finite; got 6",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, X, [1, 2, np.inf]),
            ValueError,
            "y must be finite",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, X, Y[:2]),
            ValueError,
            r"one entry for each of the 3 .* \(2,\)",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, X[:0], Y[:0]),
            ValueError,
            r"at least one example .* \(0, 2\)",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, X, Y, lam=-1),
            ValueError,
            "lam must be a number at least 0; got -1",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, X, Y, lam=np.nan),
            ValueError,
            "lam must be finite",
        ),
        (
            lambda: Risk(network, risk.squared, X[:, None], Y),
            ValueError,
            "d, the number of parameters, must be given",
        ),
        (
            lambda: Risk(risk.linear, risk.logistic, X, [1, -1, 1]),
            ValueError,
            "labels 0 and 1 for the logistic loss",
        ),
        (
            lambda: Risk(classes, risk.cross_entropy, X, [0, 0.5, 1], d=6),
            ValueError,
            "classes 0, …, 2 for this model",
        ),
        (
            lambda: Risk(classes, risk.cross_entropy, X, [0, 1, 3], d=6),
            ValueError,
            r"classes 0, …, 2 .* got \[0. 1. 3.\]",
        ),
        (lambda: Risk(classes, risk.squared, X, Y, d=6), ValueError, r"= \(3, 3\); got \(3,\)"),
        (
            lambda: Risk(risk.linear, risk.squared, X, np.ones((3, 2))),
            ValueError,
            r"= \(3,\); got \(3, 2\)",
        ),
        (
            lambda: Risk(risk.linear, risk.logistic, X, np.ones((3, 2))),
            ValueError,
            r"= \(3,\); got \(3, 2\)",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, X, Y, d=3),
            ValueError,
            r"theta \(3,\) and an example of shape \(2,\)",
        ),
        (lambda: Risk(risk.linear, risk.squared, X, Y, d=2.5), ValueError, "integer at least 1"),
        (
            lambda: Risk(risk.linear, lambda f, y: torch.stack([f, y]), X, Y),
            ValueError,
            r"one number .* shape \(2,\)",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, X, Y).value([1, 2, 3]),
            ValueError,
            "length d = 2; got 3",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, X, Y).losses([np.nan, 0]),
            ValueError,
            "theta must be finite",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, X, Y).hessian([0, 0], -Y),
            ValueError,
            "weights must be at least 0",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, X, Y).hessian([0, 0], np.ones((2, 3))),
            ValueError,
            "one vector of length 3",
        ),
        (
            lambda: Risk(Network(module()), risk.cross_entropy, np.eye(3), [0, 1, 0]),
            ValueError,
            r"cross_entropy needs .* \(K,\)",
        ),
        (
            lambda: Risk(Network(module(2)), risk.cross_entropy, np.eye(3), [0, 1, 2]),
            ValueError,
            "2",
        ),
        (
            lambda: Risk(Network(module(2)), risk.squared, np.eye(3), np.zeros(3)),
            ValueError,
            r"\(3, 2\); got \(3,\)",
        ),
        (
            lambda: Risk(Network(module()), risk.squared, np.ones((3, 4)), np.zeros(3)),
            ValueError,
            "the model must take",
        ),
        (
            lambda: risk.bregman(risk.squared, [1.0, 2], [1.0], 0.0),
            ValueError,
            r"one shape; got \(2,\) and \(1,\)",
        ),
        *(
            (
                lambda shape=shape: networks.problem().hessian_product(
                    np.zeros(21), np.ones(shape)
                ),
                ValueError,
                rf"V must be \(21,\) or \(21, r\); got {re.escape(str(shape))}",
            )
            for shape in ((20,), (21, 0), (21, 1, 1), ())
        ),
        (lambda: Risk(risk.linear, risk.squared, 3.0, [1.0]), ValueError, "at least one example"),
        (lambda: Risk(risk.linear, risk.squared, X, 1.0), ValueError, r"each of the 3 .* \(\)"),
        (lambda: Risk(risk.linear, risk.squared, X, Y, lam=[0, -0.5]), ValueError, "got -0.5"),
        (
            lambda: Risk(
                risk.linear, risk.squared, pandas.DataFrame(X), pandas.Series(Y, [1, 2, 0])
            ),
            ValueError,
            "X and y must have the same labels",
        ),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_tensors_are_checked_like_arrays(kind):
    problem = Risk(risk.linear, risk.squared, X, Y, lam=0.1)
    good = torch.tensor([0.5, 1.0], dtype=kind)
    np.testing.assert_array_equal(problem.gradient(good), problem.gradient([0.5, 1.0]))
    with pytest.raises(ValueError, match="theta must be finite"):
        problem.gradient(torch.full((2,), torch.nan, dtype=kind))
    with pytest.raises(ValueError, match="weights must be at least 0"):
        problem.hessian(good, -torch.ones(3, dtype=kind))
    with pytest.raises(ValueError, match="weights must not all be 0"):
        problem.gauss_newton(good, torch.zeros(3, dtype=kind))
    for product in (problem.gauss_newton_product, problem.hessian_product):
        with pytest.raises(ValueError, match="weights must not all be 0"):
            product(good, np.ones(2), np.zeros(3))


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: Risk(lambda t, x: 3.0, risk.squared, X, Y), TypeError, "model must give a tensor"),
        (lambda: Risk(risk.linear, lambda f, y: 3.0, X, Y), TypeError, "loss must give a tensor"),
        (
            lambda: Risk(classes, risk.cross_entropy, X, np.eye(3), d=6),
            ValueError,
            r"one class an example, \(n,\); got shape \(3, 3\)",
        ),
    ],
)
def test_what_gives_no_tensor_and_one_hot_classes_are_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_loss_that_is_not_convex_in_the_output_is_named_with_its_example():
    found = Risk(risk.linear, lambda f, y: torch.cos(f - y), np.eye(3), np.array([0.0, 0.0, 3.0]))
    with pytest.raises(
        risk.NotConvex, match="^the loss .* 0 its Hessian has the eigenvalue -1.00e"
    ):
        found.convex_hessians([0.0, 1.0, 0.5])


@pytest.mark.parametrize("scale", [1e-9, 1.0])
@pytest.mark.parametrize("largest", [2.0, -0.25])
def test_what_is_not_convex_is_the_smallest_eigenvalue_of_all(scale, largest):
    """That of the second example; the first is the only one that is convex."""
    bend = torch.tensor([[1.0, 2.0], [largest, -0.5], [1.0, -0.25]])

    def loss(f, y):
        return scale * (bend[y.long()] * f**2).sum() / 2

    found = Risk(lambda t, x: t * x, loss, np.ones((3, 2)), np.arange(3), d=2)
    for call in (found.convex_hessians, found.output_roots):
        with pytest.raises(risk.NotConvex) as caught:
            call([1.0, 2.0])
        assert caught.value.example == 1
        assert caught.value.smallest == pytest.approx(-0.5 * scale, rel=1e-12)
    values, _ = found.subset([0]).convex_hessians([1.0, 2.0])
    np.testing.assert_allclose(values, [[scale, 2 * scale]], rtol=1e-12)


def test_a_loss_that_is_linear_in_the_output_is_convex():
    found = Risk(risk.linear, lambda f, y: y * f, X, Y)
    np.testing.assert_array_equal(found.output_roots([1.0, 2.0]), np.zeros((3, 1, 1)))


def test_a_linear_model_trains_side_by_side():
    (layer,) = Risk(risk.linear, risk.squared, np.eye(3), np.zeros(3)).chain()
    assert layer[1:] == (1, 3, 0, None, None)


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_perceptron_trains_side_by_side_unless_more_is_attached_to_it(outputs):
    """A hook does not show in its layers, but in what it gives."""
    found = networks.problem(outputs=outputs)
    first, second = found.chain()
    assert first[1:] == (4, 3, 0, 12, torch.nn.Tanh)
    assert second[1:] == (outputs, 4, 16, 16 + 4 * outputs, None)
    hooked = module(outputs)
    hooked[0].register_forward_hook(lambda _, x, out: 2 * out)
    assert Risk(Network(hooked), found.loss, found.X, found.y).chain() is None


def test_a_loss_of_a_batch_is_a_mean_where_its_shares_add_up_to_one():
    """And not where they add up to less, or more, or are equal, or one of them is nothing."""
    each = np.random.default_rng(0).standard_normal((6, 2))
    for shares in ([0.3, 0.7], [0.2, 0.8]):
        assert doubts._is_mean(each, each @ shares)
    for shares in ([0.2, 0.3], [0.3, 0.9], [0.5, 0.5], [0.0, 1.0], [-0.2, 1.2]):
        assert not doubts._is_mean(each, each @ shares)


@pytest.mark.parametrize("lam", [0.3, [0.0, 0.5, 2.0]])
def test_products_are_those_of_the_matrices(lam):
    for problem, theta, w in problems(1):
        each = np.resize(lam, problem.d) if isinstance(lam, list) else lam
        problem = Risk(problem.model, problem.loss, problem.X, problem.y, each, d=problem.d)
        V = np.random.default_rng(0).standard_normal((problem.d, 2))
        for name in ("hessian", "gauss_newton"):
            H = getattr(problem, name)(theta, w)
            product = getattr(problem, f"{name}_product")
            for one in (V, V[:, 0], V[:, 0].tolist()):
                found = product(theta, one, w)
                np.testing.assert_allclose(
                    found, H @ one, rtol=0, atol=1e-13 * np.abs(H @ one).max()
                )
            ridge = np.broadcast_to(each, problem.d)[:, None] * V
            of_nothing = getattr(problem, f"{name}_map")(theta, np.zeros(problem.n))
            np.testing.assert_allclose(of_nothing(V), ridge, rtol=1e-15)


def test_a_network_is_taken_in_batches_and_by_its_layers(monkeypatch):
    problem, sizes = networks.problem(outputs=3, lam=0.3), []
    theta, V = problem.model.theta, np.random.default_rng(0).standard_normal((problem.d, 2))
    G = problem.gauss_newton(theta)
    hook = torch.nn.Module.__call__
    monkeypatch.setattr(
        torch.nn.Linear, "__call__", lambda self, x: (sizes.append(len(x)), hook(self, x))[1]
    )
    problem.outputs(theta)
    assert sizes == [12, 12]
    monkeypatch.setattr(risk.empirical, "vjp", None)
    assert problem.layered and not isinstance(problem.jacobian_map(theta), jacobian.Dense)
    product = problem.gauss_newton_product(theta, V)
    np.testing.assert_allclose(product, G @ V, rtol=0, atol=1e-13 * np.abs(product).max())


@pytest.mark.parametrize("rows, count", [(1, 1), (16, 1), (17, 2), (32, 2), (33, 3)])
def test_sixteen_columns_are_taken_together(rows, count):
    def product(v):
        calls.append(v)
        return 2 * v

    calls, problem = [], Risk(risk.linear, risk.squared, X, Y, lam=0.5)
    V = np.arange(2.0 * rows).reshape(2, rows)
    np.testing.assert_array_equal(problem._by_columns(product)(V), 2.5 * V)
    assert len(calls) == count


@pytest.mark.parametrize("power, size", [(22, 2), (23, 1), (25, 1), (21, 4)])
def test_so_many_examples_are_taken_together_as_a_jacobian_may_hold(power, size, monkeypatch):
    """2²⁴ numbers: of parameters times outputs, of which there are as many as this one says."""
    problem, taken = Risk(risk.linear, risk.squared, np.ones((5, 2)), np.zeros(5)), []
    whole, of_rows = problem.gauss_newton(np.ones(2)), problem.jacobian_map

    def jacobian_map(theta, rows):
        taken.append((rows.start, rows.stop))
        return of_rows(theta, rows)

    problem.K, problem.jacobian_map = 2**power, jacobian_map
    np.testing.assert_allclose(problem.gauss_newton(np.ones(2)), whole, rtol=1e-15)
    assert taken == [(first, first + size) for first in range(0, 5, size)]
    blocks = problem.tensors.blocks(2 ** (power + 1))
    assert blocks == [slice(i, min(i + size, 5)) for i in range(0, 5, size)]


@pytest.mark.parametrize("n, size", [(2**16, 4), (2**17, 2), (2**17 + 1, 1), (2**18 + 1, 1)])
def test_so_many_rows_of_a_hessian_are_computed_together_as_the_examples_allow(n, size):
    """2¹⁸ examples times rows; the loss of all is that of one."""
    sizes = []

    def each(function, in_dims=0, chunk_size=None):
        sizes.append(chunk_size)
        return torch.func.vmap(function, in_dims, chunk_size=chunk_size)

    zeros = torch.zeros(n, 3, dtype=torch.float64)
    some = Tensors(risk.linear, risk.squared, zeros + 1, zeros[:, 0], each=each)
    H = some.hessian(torch.ones(3, dtype=torch.float64), zeros[:, 0] + 1)
    np.testing.assert_allclose(H, np.full((3, 3), n), rtol=1e-12)
    assert [k for k in sizes if k is not None] == [size] and type(sizes[-1]) is not float


def test_a_hessian_and_what_is_not_finite_are_found_in_blocks(monkeypatch):
    for problem, theta, w in problems(0):
        whole = problem.hessian(theta, w)
        monkeypatch.setattr(tensors, "BLOCK", 5 * problem.d)  # five examples at a time, of twelve
        H = problem.hessian(theta, w)
        np.testing.assert_allclose(H, whole, rtol=0, atol=1e-14 * np.abs(whole).max())
        monkeypatch.undo()
    x = np.ones((12, 1))
    x[[2, 7, 11]] = 0
    problem = Risk(lambda t, x: torch.sqrt((t * x).sum() ** 2), risk.squared, x, np.ones(12), d=1)
    monkeypatch.setattr(tensors, "BLOCK", 5)
    assert problem.unsound([1.0]).tolist() == [2, 7, 11]


def test_a_part_that_is_not_finite_is_enough():
    """A gradient or a Hessian that is NaN in one entry alone."""

    def loss(f, y):
        root, power = torch.sqrt(f[0] ** 2), torch.abs(f[0] - 1) ** 1.5
        return root + power + f[0] ** 2 + f[1] ** 2

    x = np.array([[0.0, 1], [1, 2], [3, 4]])
    problem = Risk(lambda t, x: t + x, loss, x, np.zeros((3, 2)), d=2)
    theta, w, v = np.zeros(2), np.array([0.0, 1, 1]), np.ones(2)
    assert not problem.is_finite(theta) and problem.subset([1, 2]).is_finite(theta)
    assert problem.unsound(theta).tolist() == [0]
    with pytest.raises(risk.NotFinite, match="^the risk .* example 0 is not"):
        problem.gradient(theta)
    expected = problem.subset([1, 2]).gradient(theta)
    np.testing.assert_array_equal(problem.gradient(theta, w), expected)
    for call, more in (
        (problem.hessian, ()),
        (problem.gauss_newton, ()),
        (problem.hessian_product, (v,)),
        (problem.gauss_newton_product, (v,)),
    ):
        with pytest.raises(
            risk.NotFinite, match="^the risk must have finite derivatives"
        ) as caught:
            call(theta, *more, w)
        assert len(caught.value.examples) == 0
    w[1] = 0  # then its second derivative does not count
    G = problem.subset([2]).gauss_newton(theta)
    np.testing.assert_array_equal(problem.gauss_newton(theta, w), G)
    np.testing.assert_array_equal(problem.gauss_newton_product(theta, v, w), G @ v)
    of_nothing = problem.subset([0, 2]).hessian_map(theta, [0, 0])
    np.testing.assert_array_equal(of_nothing(np.eye(2)), np.zeros((2, 2)))


def test_of_two_examples_one_may_be_without_a_number():
    problem = Risk(lambda t, x: torch.log(t @ x), risk.squared, [[-1.0], [1.0]], [1.0, 1.0], d=1)
    np.testing.assert_allclose(problem.hessian([1.0], [0, 2]), [[4.0]], rtol=1e-14)
    np.testing.assert_array_equal(problem.hessian_map([1.0], [0, 0])(np.ones((1, 1))), [[0.0]])


def test_a_sum_that_overflows_is_refused_though_no_term_does():
    problem = Risk(risk.linear, risk.squared, np.eye(3), np.full(3, 1.3e154))
    assert np.isfinite(problem.losses(np.zeros(3))).all()
    for call in (problem.value, lambda theta: problem.hessian_product(theta, np.ones(3))):
        with pytest.raises(risk.NotFinite, match="its sum over the examples") as caught:
            call(np.zeros(3))
        assert len(caught.value.examples) == 0


@pytest.mark.parametrize("factor", [2.0, 1 + 1e-7])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_layers_that_are_not_the_whole_model_are_known_at_every_size(factor, scale):
    """By their Jacobian, and the chain by its gradient: where a hook changes them a little."""
    rows, y = scale * networks.problem().X.numpy(), np.arange(12.0)
    rows[0], rows[1, 0] = 0, 0
    plain = Risk(Network(module()), risk.squared, rows, y)
    assert plain.layered and plain.chain() is not None
    below = torch.nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        below.weight.zero_()
    negative = Risk(Network(below), risk.squared, -np.abs(rows) - scale, -y - 1)
    assert negative.layered and negative.chain() is not None
    positive = Risk(Network(below), risk.squared, np.abs(rows) + scale, y + 1e9)
    assert positive.layered and positive.chain() is not None
    hooked = torch.nn.Linear(3, 1, bias=False)
    hooked.register_forward_hook(lambda _, x, out: factor * out)
    found = Risk(Network(hooked), risk.squared, rows[2:], y[2:] * scale)
    assert not found.layered and found.chain() is None
    np.testing.assert_allclose(found.jacobian(found.model.theta), factor * rows[2:], rtol=1e-14)


def test_a_linear_model_of_matrices_is_no_chain():
    x, y = np.random.default_rng(0).standard_normal((2, 5, 4, 4))
    problem = Risk(risk.linear, risk.squared, x, y[:, 0], d=4)
    theta = np.arange(4.0)
    assert problem.chain() is None and problem.K == 4
    expected = np.einsum("nkd,nk->d", x, x @ theta - y[:, 0])
    np.testing.assert_allclose(problem.gradient(theta), expected, rtol=1e-13)


def test_without_a_penalty_there_is_none():
    """Neither of a Risk nor of its Tensors; and the only λ of one parameter is a number."""
    problem = Risk(risk.linear, risk.squared, X, Y)
    theta, w = torch.tensor([2.0, 3.0]).double(), torch.ones(3, dtype=torch.float64)
    plain = Tensors(risk.linear, risk.squared, problem.X, problem.y)
    assert plain.value(theta, w) == problem.value(theta) == problem.losses(theta).sum()
    assert plain.penalty(theta) == 0 and problem.penalty_size(theta) == 0
    one = Risk(risk.linear, risk.squared, X[:, :1], Y, lam=[0.3])
    assert one.lam == 0.3 and isinstance(one.lam, float)
