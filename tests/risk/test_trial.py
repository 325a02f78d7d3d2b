"""What is tried of a model and a loss: what is refused, and what is not, at the edges."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import vmap

from ifcore import risk
from ifcore.network import Network
from ifcore.risk import NotDifferentiable, Risk, losses, trial
from ifcore.risk.tensors import Tensors, one_by_one

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((6, 4)), RNG.standard_normal(6)
THREE = np.arange(6) % 3


def square(f, y):
    return ((f - y) ** 2).sum()


def outputs(count):
    torch.manual_seed(0)
    return Network(nn.Linear(4, count))


def quietly(*arguments, **more):
    """A Risk, of which nothing is told."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Risk(*arguments, **more)


def first(of, wrong):
    """`of`, which raises for the first example alone."""

    def function(one, other):
        if torch.equal(other.double(), wrong):
            raise LookupError("not the first")
        return of(one, other)

    return function


class Bare(nn.Module):
    def __init__(self, function, count=1):
        super().__init__()
        self.layer, self.function = nn.Linear(4, count), function

    def forward(self, x):
        return self.function(self.layer(x))


def bare(function, count=1):
    torch.manual_seed(0)
    return Network(Bare(function, count))


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(7, 3), nn.Linear(3, 1)

    def forward(self, tokens):
        return self.head(self.words(tokens).mean(1))


class Frequent(Words):
    def __init__(self):
        super().__init__()
        self.words.scale_grad_by_freq = True


class Doubling(nn.Module):
    """A layer that doubles its own scale whenever it is called."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        with torch.no_grad():
            self.scale.mul_(2)
        return x @ self.scale


class Square(torch.autograd.Function):
    """A square whose second derivative is 0 without a word."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx, slope):
        return 2 * ctx.saved_tensors[0].detach() * slope


TOKENS = np.arange(24).reshape(6, 4) % 7
CALLS = iter(range(10**6))
REFUSED = {
    "tokens as floats": (Network(Words()), square, TOKENS + 0.0, Y, ValueError, "must take theta"),
    "a fraction for a class": (
        outputs(3),
        lambda f, y: nn.functional.cross_entropy(f, y),
        X,
        np.r_[0.5, THREE[1:]],
        ValueError,
        "the loss must take an output",
    ),
    "the first example": (
        first(risk.linear, torch.from_numpy(X[0])),
        square,
        X,
        Y,
        ValueError,
        "LookupError: not the first, and as integers|LookupError: not the first$",
    ),
    "the first target": (
        risk.linear,
        first(square, torch.tensor(Y[0])),
        X,
        Y,
        ValueError,
        "LookupError: not the first",
    ),
    "a part that is missing": (
        lambda t, x: t @ x["b"],
        square,
        {"a": X, "c": X},
        Y,
        ValueError,
        "an example of the parts 'a', 'c'",
    ),
    "a part too few": (
        lambda t, x: t @ x[2],
        square,
        (X, X),
        Y,
        ValueError,
        "an example of 2 parts",
    ),
    "parts for a linear model": (risk.linear, risk.squared, (X, X), Y, ValueError, "of 2 parts"),
    "numbers for a linear model": (
        risk.linear,
        risk.squared,
        Y,
        Y,
        ValueError,
        "an example of shape ()",
    ),
    "two reasons": (
        lambda t, x: t[x],
        square,
        np.full((6, 1), 9),
        Y,
        ValueError,
        "IndexError.*, and as integers IndexError",
    ),
    "a sum over the batch": (
        bare(lambda f: f - f.mean(0)),
        square,
        X,
        Y,
        ValueError,
        "one by one; an example's output changes with the others",
    ),
    "a count of calls": (
        lambda t, x: t @ x + next(CALLS),
        square,
        X,
        Y,
        ValueError,
        "the same output for the same input",
    ),
    "a count of calls in the loss": (
        risk.linear,
        lambda f, y: (f - y) ** 2 + next(CALLS),
        X,
        Y,
        ValueError,
        "the same number",
    ),
    "an output in place": (risk.linear, lambda f, y: f.sub_(y) ** 2, X, Y, ValueError, "in place"),
    "a digit in place": (
        risk.linear,
        lambda f, y: (f - y.mul_(1 + 1e-12)) ** 2,
        X,
        Y,
        ValueError,
        "in place",
    ),
    "a digit in place of 0": (
        risk.linear,
        lambda f, y: (f - y.add_(1e-12)) ** 2,
        X,
        0 * Y,
        ValueError,
        "in place",
    ),
    "a detached output that grows": (
        bare(lambda f: f.detach()),
        square,
        X,
        Y,
        NotDifferentiable,
        "its gradient is 0",
    ),
    "a detached output that falls": (
        bare(lambda f: -f.detach()),
        square,
        X,
        Y,
        NotDifferentiable,
        "its gradient is 0",
    ),
    "one detached output": (
        bare(lambda f: f.detach() * torch.tensor([1.0, 0, 0], dtype=f.dtype), 3),
        square,
        X,
        X[:, :3],
        NotDifferentiable,
        "its gradient is 0",
    ),
    "a small gradient that depends on the batch": (
        Network(Frequent()),
        lambda f, y: 1e-12 * (f - y) ** 2,
        TOKENS,
        Y,
        NotDifferentiable,
        "the gradient of two examples must be the sum of theirs",
    ),
    "classes beyond those of each place": (
        lambda t, x: t.reshape(3, 4) * x,
        nn.CrossEntropyLoss(),
        X,
        np.full((6, 4), 3),
        ValueError,
        "classes 0, …, 2",
    ),
    "probabilities for NLLLoss": (
        outputs(3),
        nn.NLLLoss(),
        X,
        np.eye(3)[THREE],
        ValueError,
        r"classes \(6,\), or",
    ),
    "more than a label": (
        outputs(1),
        nn.BCEWithLogitsLoss(),
        X,
        Y * 0 + 1.5,
        ValueError,
        r"in \[0, 1\]",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(kind):
    model, loss, x, y, error, words = REFUSED[kind]
    with pytest.raises(error, match=words):
        Risk(model, loss, x, y, d=getattr(model, "d", 12 if y.ndim == 2 else 4))


def test_a_model_that_changes_its_parameters_is_refused_and_has_them_still():
    model = Network(Doubling())
    with pytest.raises(ValueError, match="leave theta and its input alone"):
        Risk(model, square, X, Y)
    np.testing.assert_array_equal(model.theta, np.ones(4))


@pytest.mark.parametrize("offset", [0.0, 3.0, -3.0])
def test_an_output_that_is_constant_for_now_is_taken(offset):
    """As of a unit that is dead by little."""
    torch.manual_seed(0)
    module = Bare(lambda f: torch.relu(f) + offset)
    with torch.no_grad():
        module.layer.weight.zero_()
        module.layer.bias.fill_(-0.01)
    found = quietly(Network(module), square, X, Y)
    np.testing.assert_allclose(found.losses(found.model.theta), (offset - Y) ** 2, rtol=1e-14)


def test_a_loss_sees_the_output_and_the_target_of_one_example():
    """Which carry here a number of their own, by which it knows them."""
    number = np.arange(6) + 0.5

    def model(theta, x):
        return torch.stack([x[:4] @ theta, x[4]])

    def loss(f, y):
        if (f[1] - y[1]).abs() > 0.1:
            raise ValueError("of two examples")
        return (f[0] - y[0]) ** 2 + 0 * f[1]

    x, y = torch.from_numpy(np.c_[X, number]), torch.from_numpy(np.c_[Y, number])
    some, theta = Tensors(model, loss, x[:2], y[:2]), torch.ones(4, dtype=torch.float64)
    output = model(theta, x[0])
    assert trial._targets(loss, output, y, None) is y
    trial._require_gradient(some, theta)
    trial._require_curvature(some, output)


@pytest.mark.parametrize("n", [1, 2])
def test_one_example_is_enough(n):
    for loss, y in (
        (lambda f, y: (f - y) ** 2, Y[:n]),
        (lambda f, y: (f - y) ** 2, Y[:n, None]),
        (lambda f, y: (f - y) ** 2, THREE[:n]),
        (nn.MSELoss(), Y[:n, None]),
    ):
        found = quietly(risk.linear, loss, X[:n], y)
        H = 2 * X[:n].T @ X[:n]
        np.testing.assert_allclose(found.hessian(np.ones(4)), H, rtol=1e-13)
        np.testing.assert_allclose(found.gauss_newton(np.ones(4)), H, rtol=1e-13)
        assert found.output_hessians(np.ones(4)).shape == (n, 1, 1)
    for y in (THREE[:n], THREE[:n].astype(float)):
        three = quietly(outputs(3), lambda f, y: nn.functional.cross_entropy(f, y.long()), X[:n], y)
        own = quietly(outputs(3), risk.cross_entropy, X[:n], y)
        theta = own.model.theta
        np.testing.assert_allclose(three.losses(theta), own.losses(theta), rtol=1e-13)


@pytest.mark.parametrize("bad", [0, 1, 5])
def test_an_example_without_a_number_is_taken_wherever_it_stands(bad):
    rows = np.abs(X) + 0.1
    rows[bad] = -1.0
    found = quietly(lambda t, x: torch.log(x @ t.exp()), square, rows, Y, d=4)
    assert found.tensors.each is vmap
    assert found.unsound(np.zeros(4)).tolist() == [bad]
    w = (np.arange(6) != bad).astype(float)
    others = found.subset(w > 0)
    np.testing.assert_allclose(
        found.hessian(np.zeros(4), w), others.hessian(np.zeros(4)), rtol=1e-12
    )


class Nearly(torch.autograd.Function):
    """x, but for its seventh digit where it is mapped."""

    @staticmethod
    def forward(x):
        return x * 1.0

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, slope):
        return slope

    @staticmethod
    def vmap(info, dims, x):
        return x * (1 + 1e-6), dims[0]


def branching(theta, x):
    return theta @ (x if x[0] > 0 else 2 * x)


def turning(theta, x):
    return theta @ x if theta[0] > 0 else theta @ (1 * x)


class Choosing(torch.autograd.Function):
    """f, whose derivative looks at x; of f alone it can be mapped."""

    @staticmethod
    def forward(f, x):
        return f * 1.0

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[1])

    @staticmethod
    def backward(ctx, slope):
        return slope if ctx.saved_tensors[0].sum() > 0 else 1 * slope, None

    @staticmethod
    def vmap(info, dims, f, x):
        return f * 1.0, dims[0]


class Chosen(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1, bias=False)

    def forward(self, x):
        return Choosing.apply(self.layer(x), x)


def test_what_can_be_mapped_is_mapped_and_nothing_else():
    for model, loss in (
        (lambda t, x: t @ x, risk.squared),
        (lambda t, x: t @ x, square),
        (risk.linear, risk.squared),
        (risk.linear, square),
        (outputs(1), square),
    ):
        found = Risk(model, loss, X, Y, d=None if isinstance(model, Network) else 4)
        assert found.tensors.each is vmap
    factor = np.where(X[:, :1] > 0, 1, 2)
    for model, rows in (
        (branching, X * factor),
        (turning, X),
        (lambda t, x: Nearly.apply(t @ x), X),
        (Network(Chosen()), X),
    ):
        found, plain = (
            quietly(of, square, x, Y, lam=0.3, d=4) for of, x in ((model, X), (risk.linear, rows))
        )
        assert found.tensors.each is one_by_one
        theta, V = RNG.standard_normal(4), RNG.standard_normal((4, 3))
        for name, more in (
            ("losses", ()),
            ("gradient", ()),
            ("hessian", ()),
            ("gauss_newton", ()),
            ("hessian_product", (V,)),
            ("gauss_newton_product", (V,)),
        ):
            one, two = (getattr(problem, name)(theta, *more) for problem in (found, plain))
            np.testing.assert_allclose(one, two, rtol=0, atol=1e-13 * np.abs(two).max())


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("target", [0.0, 300.0])
def test_a_second_derivative_is_known_by_its_digits(scale, target):
    def model(theta, x):
        return torch.stack([theta @ x, torch.sin(theta @ x)])

    y = target + X[:, :2]
    quietly(model, lambda f, y: scale * square(f, y), X, y, d=4)
    with pytest.warns(UserWarning, match="the loss has no second derivative .* it disagrees"):
        Risk(model, lambda f, y: scale * Square.apply(f - y).sum(), X, y, d=4)


def test_a_kink_nearby_is_no_wrong_derivative():
    f = (X @ trial.point(4))[0]
    found = quietly(risk.linear, lambda f, y: torch.relu(f - y) ** 2, X, np.full(6, f - 2e-7))
    assert found.output_hessians(trial.point(4))[0] == 2


def test_the_examples_of_the_smallest_and_the_largest_integers_are_tried():
    whole = torch.tensor([[3, 3], [3, 9], [4, 4], [3, 3], [5, 5], [6, 6], [7, 7], [8, 8], [1, 3]])
    none = torch.zeros((9, 0), dtype=torch.int64)
    floats = torch.arange(9.0)
    assert trial._extremes((floats, whole, none)) == [1, 8]
    assert trial._extremes({"a": whole[:, 0], "b": floats.flip(0)}) == [7, 8]
    assert trial._extremes(whole[:1]) == [0] and trial._extremes(floats) == []


def test_targets_that_torchs_losses_take():
    """Against their own formulas, of one example at a time."""
    f, theta = X @ outputs(1).theta[:4] + outputs(1).theta[4], outputs(1).theta
    found = quietly(outputs(1), nn.SoftMarginLoss(), X, np.sign(Y))
    np.testing.assert_allclose(found.losses(theta), np.log1p(np.exp(-np.sign(Y) * f)), rtol=1e-13)
    three, y = outputs(3), RNG.integers(0, 2, (6, 3)).astype(float)
    heavy = torch.tensor([1.0, 2.0, 3.0])
    found = quietly(three, nn.BCEWithLogitsLoss(pos_weight=heavy), X, y)
    f = X @ three.theta[:12].reshape(3, 4).T + three.theta[12:]
    each = heavy.numpy() * y * np.log1p(np.exp(-f)) + (1 - y) * np.log1p(np.exp(f))
    np.testing.assert_allclose(found.losses(three.theta), each.mean(1), rtol=1e-13)
    assert heavy.dtype == torch.float32


@pytest.mark.parametrize("more", [{}, {"weight": torch.tensor([1.0, 2.0, 3.0]).double()}])
def test_classes_at_several_places_may_be_ignored_or_weighted(more):
    def places(theta, x):
        return theta.reshape(3, 4) * x

    y, theta = RNG.integers(0, 3, (6, 4)), RNG.standard_normal(12)
    y[:, 0] = np.where(np.arange(6) < 3, -100, y[:, 0])
    found = quietly(places, nn.CrossEntropyLoss(**more), X, y, d=12)
    found = quietly(places, pickle.loads(pickle.dumps(found.loss)), X, y, d=12)
    f = torch.from_numpy(theta.reshape(3, 4) * X[:, None])
    each = [
        nn.functional.cross_entropy(a.T, b, **more).item() for a, b in zip(f, torch.from_numpy(y))
    ]
    np.testing.assert_allclose(found.losses(theta), each, rtol=1e-13)
    y[2] = -100
    with pytest.raises(ValueError, match="ignore_index = -100 among y"):
        Risk(places, nn.CrossEntropyLoss(**more), X, y, d=12)


def test_which_losses_are_known():
    for loss in (*losses.OWN, nn.MSELoss(), nn.CrossEntropyLoss(), nn.KLDivLoss()):
        assert losses.is_known(loss)
    assert not losses.is_known(square) and not losses.is_known(nn.CosineEmbeddingLoss())


@pytest.mark.parametrize("loss", [risk.squared, risk.logistic, risk.poisson])
def test_a_linear_model_with_a_loss_of_the_package_needs_no_trial(loss, monkeypatch):
    monkeypatch.setattr(risk.empirical, "tried", None)
    found = Risk(risk.linear, loss, X, THREE % 2)
    assert found.K == 1 and found.layered is False
    with pytest.raises(TypeError):
        Risk(risk.linear, lambda f, y: (f - y) ** 2, X, Y)
