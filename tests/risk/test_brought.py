"""Models, losses and data as a reader has them: right, against plain torch, or refused by name."""

import warnings

import numpy as np
import pandas
import pytest
import torch
from networks import Unmapped
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.data import DataLoader, TensorDataset

from ifcore import influence, response, risk
from ifcore.network import Network, perceptron
from ifcore.risk import NotDifferentiable, NotFinite, Risk

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((6, 5, 4)), RNG.standard_normal(6)


class Last(nn.Module):
    """The last output of a recurrent layer, or the mean of attention's, behind a linear layer."""

    def __init__(self, layer, width):
        super().__init__()
        self.layer, self.head = layer, nn.Linear(width, 1)

    def forward(self, x):
        if isinstance(self.layer, nn.MultiheadAttention):
            return self.head(self.layer(x, x, x, need_weights=False)[0].mean(1))
        out = self.layer(x)
        return self.head((out[0] if isinstance(out, tuple) else out)[:, -1])


class Features(nn.Module):
    """A head on features that are computed without a gradient."""

    def __init__(self):
        super().__init__()
        self.features, self.head = nn.Conv1d(5, 3, 2), nn.Linear(9, 1)

    def forward(self, x):
        with torch.no_grad():
            features = torch.tanh(self.features(x)).flatten(1)
        return torch.tanh(self.head(features))


def modules():
    torch.manual_seed(0)
    return {
        "GRU": Last(nn.GRU(4, 3, batch_first=True), 3),
        "LSTM": Last(nn.LSTM(4, 3, batch_first=True), 3),
        "attention": Last(nn.MultiheadAttention(4, 2, batch_first=True), 4),
        "encoder": Last(nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), 4),
        "no gradient": Features(),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", modules())
def test_the_derivatives_of_any_module_are_those_of_a_loop_by_autograd(kind):
    module = modules()[kind].double().eval()
    problem = Risk(Network(module), risk.squared, X, Y, lam=0.3)
    theta, w = problem.model.theta, RNG.uniform(0.5, 2, 6)
    parameters, x, y = list(module.parameters()), torch.from_numpy(X), torch.from_numpy(Y)

    def flat(of, **more):
        found = torch.autograd.grad(of, parameters, allow_unused=True, **more)
        parts = (torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters))
        return torch.cat([part.reshape(-1) for part in parts])

    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        f = module(x)[:, 0]
        J = torch.stack([flat(f[i], retain_graph=True) for i in range(6)]).numpy()
        total = (torch.from_numpy(w) * (f - y) ** 2 / 2).sum()
        slope = flat(total, create_graph=True)
        v = torch.from_numpy(RNG.standard_normal(problem.d))
        Hv = flat((slope * v).sum()).numpy() + 0.3 * v.numpy()
    G = (J.T * w) @ J + 0.3 * np.eye(problem.d)
    for found, expected in (
        (problem.jacobian(theta), J),
        (problem.gradients(theta), (f.detach() - y).numpy()[:, None] * J),
        (problem.gradient(theta, w), slope.detach().numpy() + 0.3 * theta),
        (problem.hessian_product(theta, v, w), Hv),
        (problem.hessian(theta, w) @ v.numpy(), Hv),
        (problem.gauss_newton(theta, w), G),
        (problem.gauss_newton_product(theta, v, w), G @ v.numpy()),
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_a_second_derivative_that_is_wrong_is_not_used():
    """torch's own, of weight_norm, fails gradgradcheck: it disagrees with differences."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), weight_norm(nn.Linear(20, 2)), nn.Linear(2, 1))
    with pytest.warns(UserWarning, match="it disagrees with differences of the gradient"):
        problem = Risk(Network(module), risk.squared, X, Y)
    theta, v = problem.model.theta, RNG.standard_normal(problem.d)
    with pytest.raises(NotDifferentiable, match="the model has none"):
        problem.hessian(theta)
    step = 1e-6 * v
    J = problem.jacobian(theta)
    slope = (problem.outputs(theta + step) - problem.outputs(theta - step)) / 2e-6
    np.testing.assert_allclose(J @ v, slope, rtol=0, atol=1e-8 * np.abs(slope).max())
    product = problem.gauss_newton_product(theta, v)
    np.testing.assert_allclose(product, J.T @ (J @ v), rtol=0, atol=1e-13 * np.abs(product).max())


class Words(nn.Module):
    """A bag of word vectors, which takes integers only, and a number beside."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(7, 3), nn.Linear(4, 3)

    def forward(self, tokens, size):
        return self.head(torch.cat([self.words(tokens).mean(1), size[:, None]], 1))


def test_tokens_parts_and_torchs_own_losses():
    torch.manual_seed(0)
    tokens, size, classes = (
        RNG.integers(0, 7, (6, 4)),
        RNG.standard_normal(6),
        RNG.integers(0, 3, 6),
    )
    model = Network(Words())
    own = Risk(model, risk.cross_entropy, (tokens, size), classes)
    theta, w = model.theta, RNG.uniform(0, 2, 6)
    for brought in (
        Risk(model, nn.CrossEntropyLoss(), (tokens, size), classes),
        Risk(model, nn.CrossEntropyLoss(), (tokens, size), classes.astype(float)),
        Risk(model, nn.functional.cross_entropy, {"size": size, "tokens": tokens}, classes),
        Risk(model, nn.CrossEntropyLoss(reduction="sum"), (tokens, size), np.eye(3)[classes]),
    ):
        for name in ("gradient", "hessian", "gauss_newton"):
            expected = getattr(own, name)(theta, w)
            found = getattr(brought, name)(theta, w)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)
    whole = Risk(model, nn.CrossEntropyLoss(), (tokens, size), classes).gradients(theta)
    heavy = torch.tensor([1.0, 2.0, 3.0])  # in float32
    weighted = nn.CrossEntropyLoss(heavy, reduction="sum")
    found = Risk(model, weighted, (tokens, size), classes).gradients(theta)
    np.testing.assert_allclose(found, heavy[classes][:, None] * whole, rtol=0, atol=1e-14)
    but_one = nn.CrossEntropyLoss(ignore_index=1, reduction="sum")
    found = Risk(model, but_one, (tokens, size), classes).gradients(theta)
    np.testing.assert_allclose(found, (classes != 1)[:, None] * whole, rtol=0, atol=1e-14)
    half = Risk(risk.linear, nn.MSELoss(), X[:, 0], Y)
    double = Risk(risk.linear, risk.squared, X[:, 0], Y)
    np.testing.assert_allclose(half.hessian(np.ones(4)), 2 * double.hessian(np.ones(4)), rtol=1e-14)


def test_outputs_that_add_up_to_a_constant_are_no_constants():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)).double()
    found = Risk(Network(module), risk.squared, X[:, 0], np.eye(3)[THREE])
    total = ((module(torch.from_numpy(X[:, 0])) - torch.eye(3)[THREE]) ** 2 / 2).sum()
    slope = torch.autograd.grad(total, list(module.parameters()))
    expected = torch.cat([part.reshape(-1) for part in slope]).numpy()
    np.testing.assert_allclose(found.gradient(found.model.theta), expected, rtol=1e-12)


@pytest.mark.parametrize("loss", [nn.L1Loss(), lambda f, y: y * f])
def test_a_loss_that_is_linear_in_the_output_has_the_penalty_for_its_hessian(loss):
    problem, V = Risk(risk.linear, loss, X[:, 0], Y, lam=0.3), RNG.standard_normal((4, 2))
    for product in (problem.hessian_product, problem.gauss_newton_product):
        np.testing.assert_array_equal(product(np.ones(4), V), 0.3 * V)


def test_a_frame_of_tokens_is_its_array():
    model, frame = Network(Bag()), pandas.DataFrame(TOKENS).astype({0: "int32"})
    one, two = (Risk(model, risk.squared, tokens, Y) for tokens in (TOKENS, frame))
    np.testing.assert_array_equal(one.losses(model.theta), two.losses(model.theta))


def test_a_dataset_and_a_loader_are_their_data_in_its_own_order():
    x, y = torch.from_numpy(X[:, 0]).float(), torch.from_numpy(Y).float()
    arrays = Risk(risk.linear, risk.squared, x, y)
    dataset = TensorDataset(x, y)
    loader = DataLoader(dataset, 4, shuffle=True, drop_last=True)
    stream = DataLoader(Stream(dataset), 4, drop_last=True)
    batches = DataLoader(pairs_of([(x[:4], y[:4]), (x[4:], y[4:])]), None)
    for source in (dataset, loader, stream, batches):
        brought = Risk(risk.linear, risk.squared, source)
        np.testing.assert_array_equal(brought.X, arrays.X)
        np.testing.assert_array_equal(brought.y, arrays.y)
    pairs = [((torch.tensor(i), {"a": torch.ones(2) * i}), torch.tensor(2.0 * i)) for i in range(3)]
    (first, second), y = (
        Risk(lambda t, x: t @ x[1]["a"], risk.squared, pairs_of(pairs), d=2).X,
        None,
    )
    np.testing.assert_array_equal(first, [0, 1, 2])
    np.testing.assert_array_equal(second["a"], np.outer([0, 1, 2], [1, 1]))


def test_a_loader_that_chooses_examples_is_refused():
    dataset = TensorDataset(torch.from_numpy(X[:, 0]), torch.from_numpy(Y))
    chosen = torch.utils.data.SubsetRandomSampler([0, 2])
    weighted = torch.utils.data.WeightedRandomSampler(torch.ones(6), 6)
    some = torch.utils.data.RandomSampler(dataset, num_samples=3)
    batches = torch.utils.data.BatchSampler(chosen, 1, False)
    for options in (
        {"sampler": chosen},
        {"sampler": weighted},
        {"sampler": some},
        {"batch_sampler": batches},
    ):
        with pytest.raises(ValueError, match="sampler chooses among them.*Subset"):
            Risk(risk.linear, risk.squared, DataLoader(dataset, **options))
    subset = torch.utils.data.Subset(dataset, [0, 2])
    assert Risk(risk.linear, risk.squared, DataLoader(subset, 2, shuffle=True)).n == 2


class Stream(torch.utils.data.IterableDataset):
    def __init__(self, items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


def pairs_of(items):
    class Pairs(torch.utils.data.Dataset):
        def __len__(self):
            return len(items)

        def __getitem__(self, i):
            return items[i]

    return Pairs()


class Dropping(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, x):
        return nn.functional.dropout(self.layer(x))


class Bare(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.layer, self.function = nn.Linear(4, 3), function

    def forward(self, x):
        return self.function(self.layer(x))


class Bag(nn.Module):
    def __init__(self, words=7, **more):
        super().__init__()
        self.words, self.head = nn.Embedding(words, 3, **more), nn.Linear(3, 1)

    def forward(self, tokens):
        return self.head(self.words(tokens).mean(1))


class Frequent(Bag):
    """A bag whose gradient depends on how often a word stands in the batch."""

    def __init__(self, words=7):
        super().__init__(words, scale_grad_by_freq=True)


TOKENS, THREE = np.arange(24).reshape(6, 4) % 7, np.arange(6) % 3


def refused():
    rows, one, three_outputs = X[:, 0], nn.Linear(4, 1), nn.Linear(4, 3)

    def of(module, loss=risk.squared, y=Y):
        return Risk(Network(module), loss, rows, y)

    three = np.zeros((6, 3))
    return [
        (lambda: Risk(one, risk.squared, rows, Y), TypeError, "the module Linear. Network"),
        (lambda: of(Bare(lambda f: (f, f)), y=three), TypeError, "must give a tensor; got tuple"),
        (lambda: of(Bare(lambda f: {"f": f}), y=three), TypeError, "must give a tensor; got dict"),
        (lambda: of(Bare(lambda f: f.float()), y=three), TypeError, "float64.* got torch.float32"),
        (lambda: of(Bare(lambda f: f.detach()), y=three), NotDifferentiable, "its gradient is 0"),
        (lambda: of(Dropping()), ValueError, "random, as with dropout"),
        (
            lambda: of(nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), one)),
            ValueError,
            "the model must take",
        ),
        (lambda: Risk(Network(nn.GRU(4, 3)), risk.squared, X, Y), TypeError, "tensor; got tuple"),
        (
            lambda: Risk(lambda t, x: t.numpy() @ x.numpy(), risk.squared, rows, Y),
            ValueError | TypeError,
            "the model must",
        ),
        (
            lambda: Risk(risk.linear, nn.MSELoss(reduction="none"), X, Y),
            ValueError,
            "d, the number",
        ),
        (lambda: of(Bare(lambda f: f), nn.MSELoss(), Y), ValueError, r"\(6, 3\); got \(6,\)"),
        (lambda: of(Bare(lambda f: f), nn.PoissonNLLLoss(), Y), ValueError, r"\(6, 3\); got"),
        (
            lambda: of(Bare(lambda f: f), nn.functional.mse_loss, Y),
            ValueError,
            r"\(6, 3\); got \(6,\)",
        ),
        (
            lambda: of(Bare(lambda f: f), nn.CrossEntropyLoss(reduction="none"), Y),
            ValueError,
            "classes 0, …, 2",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, (rows, rows[:3]), Y, d=4),
            ValueError,
            "each part",
        ),
        (lambda: Risk(risk.linear, risk.squared, TensorDataset(one.weight)), TypeError, "1 parts"),
        (
            lambda: Risk(risk.linear, risk.squared, TensorDataset(torch.ones(2, 1)), Y),
            ValueError,
            "y must be None",
        ),
        (lambda: Risk(risk.linear, risk.squared, rows, Y, lam=[1, 2]), ValueError, "each of 4"),
        (lambda: Risk(risk.linear, risk.squared, rows, Y, lam=[1, 0, 0, -1]), ValueError, "got -1"),
        (lambda: Risk(risk.linear, risk.squared, rows, Y, b=np.ones(3)), ValueError, "b must have"),
        (lambda: Network(nn.Linear(4, 1, device="meta")), TypeError, "not materialised"),
        (lambda: Network(nn.LazyLinear(1)), TypeError, "not materialised"),
        (
            lambda: Network(torch.jit.trace(one, torch.ones(2, 4))),
            TypeError,
            "got a TopLevelTraced",
        ),
        (lambda: Network(nn.DataParallel(one)), TypeError, "spread over devices; got a DataPar"),
        (lambda: Network(nn.Linear(4, 1, dtype=torch.complex64)), TypeError, "real; weight is"),
        (lambda: perceptron(1.5, 4, 1), TypeError, "seed must be an integer at least 0; got 1.5"),
        (lambda: perceptron(0, 4, 2.5, 1), ValueError, "a width must be an integer at least 1"),
        (lambda: Network(one).initial(2**70), ValueError, "seed must be below 2⁶³"),
        (
            lambda: of(nn.Sequential(nn.ReLU(inplace=True), one)),
            ValueError,
            "changes them in place",
        ),
        (lambda: Risk(lambda t, x: t.mul_(2) @ x, risk.squared, rows, Y), ValueError, "in place"),
        (lambda: of(one, lambda f, y: y.sub_(f) ** 2), ValueError, "the loss must leave output"),
        (lambda: of(one, lambda f, y: (f - y) ** 2 + torch.rand_like(f)), ValueError, "is random"),
        (
            lambda: of(one, lambda f, y: (f.detach() - y) ** 2),
            NotDifferentiable,
            "the loss changes with the output, but its gradient is 0",
        ),
        (
            lambda: of(one, torch.no_grad()(lambda f, y: (f - y) ** 2)),
            NotDifferentiable,
            "the loss changes with the output, but its gradient is 0",
        ),
        (
            lambda: Risk(Network(Frequent()), risk.squared, TOKENS, Y),
            NotDifferentiable,
            "the gradient of two examples must be the sum of theirs",
        ),
        (
            lambda: Risk(Network(Frequent(5)), risk.squared, np.sort(TOKENS % 5) + 1, Y),
            ValueError,
            "the model must take example 1; IndexError: index out of range",
        ),
        (
            lambda: Risk(Network(Bag()), risk.squared, np.vstack([TOKENS, [7] * 4]), [*Y, 0]),
            ValueError,
            "the model must take example 6; IndexError: index out of range",
        ),
        (
            lambda: of(three_outputs, nn.CrossEntropyLoss(), THREE + 1),
            ValueError,
            "classes 0, …, 2",
        ),
        (
            lambda: of(three_outputs, nn.functional.cross_entropy, THREE + 1),
            ValueError,
            "the loss must take the target 3; IndexError",
        ),
        (
            lambda: of(three_outputs, nn.CrossEntropyLoss(), THREE[:, None]),
            ValueError,
            r"classes \(6,\), or probabilities \(6, 3\), for CrossEntropyLoss; got shape \(6, 1\)",
        ),
        (lambda: of(one, nn.CrossEntropyLoss(), 0 * THREE), ValueError, r"an output \(K,\)"),
        (
            lambda: of(three_outputs, nn.CrossEntropyLoss(torch.ones(3)), THREE),
            ValueError,
            "with weights must have reduction='sum'",
        ),
        (
            lambda: of(three_outputs, nn.CrossEntropyLoss(ignore_index=2), THREE),
            ValueError,
            "ignore_index = 2 among y must have reduction='sum'",
        ),
        (
            lambda: of(three_outputs, nn.CrossEntropyLoss(), -np.eye(3)[THREE]),
            ValueError,
            "must hold probabilities",
        ),
        (
            lambda: of(one, nn.BCEWithLogitsLoss(), np.sign(Y)),
            ValueError,
            r"y must lie in \[0, 1\]",
        ),
        (lambda: of(one, nn.SoftMarginLoss(), Y > 0), ValueError, "labels -1 and 1"),
        (
            lambda: Risk(risk.linear, risk.squared, DataLoader(pairs_of([(one.bias, 1.0)]), None)),
            TypeError,
            "a loader's come in batches",
        ),
        (
            lambda: Risk(risk.linear, risk.squared, pairs_of([(one.bias, "a")] * 2)),
            TypeError,
            r"y must be numbers.* got \('a', 'a'\)",
        ),
        (
            lambda: Risk(
                risk.linear, risk.squared, pairs_of([(torch.ones(k), 1.0) for k in (1, 2)])
            ),
            TypeError,
            "items must go together in batches",
        ),
        (
            lambda: Network(one).initial(1.5),
            TypeError,
            "seed must be an integer at least 0; got 1.5",
        ),
        (lambda: Network(one).module([1.0]), ValueError, "length d = 5; got 1"),
        (
            lambda: of(
                three_outputs,
                lambda f, y: nn.functional.cross_entropy(f, y, weight=torch.ones(3)),
                THREE,
            ),
            ValueError,
            r"Double but found Float. Tensors in it.* float64.*\.double\(\) makes them so",
        ),
        (
            lambda: of(
                one,
                lambda f, y: nn.functional.binary_cross_entropy_with_logits(
                    f, y, pos_weight=torch.ones(1).double()
                ),
                Y > 0,
            ),
            ValueError,
            r"a weight of shape \(1,\) must be a number",
        ),
        (
            lambda: of(three_outputs, risk.cross_entropy, np.array(["a", "b", "c"])[THREE]),
            TypeError,
            "of strings. Encode them as numbers, classes as 0, …, K − 1",
        ),
        (
            lambda: of(three_outputs, risk.cross_entropy, pandas.Series(["a", "b", "c"] * 2)),
            TypeError,
            "got Series of strings. Encode them",
        ),
    ]


@pytest.mark.parametrize("number", range(len(refused())))
def test_what_cannot_work_is_refused_by_name(number):
    call, error, words = refused()[number]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(error.__args__ if hasattr(error, "__args__") else error, match=words):
            call()


def test_without_a_second_derivative_a_warning_says_what_works_and_it_does():
    def model(theta, x):
        return Unmapped.apply(theta @ x)

    def square(theta, x):
        return (theta @ x) ** 2

    with pytest.warns(UserWarning, match="the model has no second derivative .* Gauss–Newton work"):
        once = Risk(model, risk.squared, X[:, 0], Y, d=4)
    twice = Risk(square, risk.squared, X[:, 0], Y, d=4)
    theta, v = RNG.standard_normal(4), RNG.standard_normal(4)
    for name, more in (
        ("gradients", ()),
        ("output_hessians", ()),
        ("gauss_newton", ()),
        ("gauss_newton_product", (v,)),
    ):
        expected = getattr(twice, name)(theta, *more)
        np.testing.assert_allclose(getattr(once, name)(theta, *more), expected, rtol=1e-12)
    for call in (
        lambda: once.hessian(theta),
        lambda: once.hessian_product(theta, v),
        lambda: response.minimise(once),
        lambda: influence.influence(once, theta),
    ):
        with pytest.raises(NotDifferentiable, match="needs second derivatives, and the model"):
            call()


def test_a_loss_without_a_second_derivative_is_not_taken_for_one_that_is_0():
    def loss(f, y):
        return Unmapped.apply(f - y)

    with pytest.warns(UserWarning, match="the loss has no second derivative") as told:
        once = Risk(risk.linear, loss, X[:, 0], Y)
    assert "Gauss–Newton" not in str(told[0].message) and told[0].filename == __file__
    twice = Risk(risk.linear, lambda f, y: (f - y) ** 2, X[:, 0], Y)
    theta = RNG.standard_normal(4)
    np.testing.assert_allclose(once.gradients(theta), twice.gradients(theta), rtol=1e-12)
    for call in (
        once.hessian,
        once.output_hessians,
        once.gauss_newton,
        lambda theta: once.hessian_product(theta, theta),
        lambda theta: once.gauss_newton_product(theta, theta),
    ):
        with pytest.raises(NotDifferentiable, match="needs second derivatives, and the loss"):
            call(theta)


def test_an_example_that_is_not_finite_is_named_and_weight_0_takes_it_out():
    rows = np.abs(X[:, 0]) + 0.1
    rows[3] = -1.0
    problem = Risk(lambda t, x: torch.log(x @ t.exp()), risk.squared, rows, Y, lam=0.1, d=4)
    others = problem.subset([0, 1, 2, 4, 5])
    theta, w = 0.1 * RNG.standard_normal(4), np.ones(6)
    w[3] = 0
    v = RNG.standard_normal(4)
    for name, more in (
        ("value", ()),
        ("gradient", ()),
        ("hessian", ()),
        ("gauss_newton", ()),
        ("hessian_product", (v,)),
        ("gauss_newton_product", (v,)),
    ):
        call = getattr(problem, name)
        np.testing.assert_allclose(
            call(theta, *more, w), getattr(others, name)(theta, *more), rtol=1e-12
        )
        with pytest.raises(NotFinite, match="example 3 is not") as caught:
            call(theta, *more)
        assert list(caught.value.examples) == [3]


def root(f, y):
    """A loss whose value at f = y is 0, and whose gradient there is NaN."""
    return torch.sqrt((f - y) ** 2) + (f - y) ** 2


def test_weight_0_takes_out_an_example_whose_gradient_alone_is_not_finite():
    y = Y.copy()
    y[3] = 0
    problem, theta, w = Risk(risk.linear, root, X[:, 0], y, lam=0.1), np.zeros(4), np.ones(6)
    others, v = problem.subset(np.arange(6) != 3), RNG.standard_normal(4)
    w[3] = 0
    for name, more in (
        ("gradient", ()),
        ("hessian", ()),
        ("gauss_newton", ()),
        ("hessian_product", (v,)),
        ("gauss_newton_product", (v,)),
    ):
        call, expected = getattr(problem, name), getattr(others, name)(theta, *more)
        np.testing.assert_allclose(call(theta, *more, w), expected, rtol=1e-12)
        with pytest.raises(NotFinite, match="example 3 is not"):
            call(theta, *more)


def test_second_derivatives_that_are_not_finite_are_not_returned():
    distance = Risk(
        Network(nn.Linear(4, 3)), lambda f, y: (f - y).norm(), X[:, 0], np.zeros((6, 3))
    )
    theta, v = np.zeros(15), np.ones(15)
    for call in (
        lambda: distance.hessian(theta),
        lambda: distance.gauss_newton(theta),
        lambda: distance.hessian_product(theta, v),
        lambda: distance.gauss_newton_product(theta, v),
    ):
        with pytest.raises(NotFinite, match="derivative"):
            call()


@pytest.mark.parametrize(
    "rows, error, words",
    [
        (True, TypeError, "rows must be a slice, a mask"),
        (None, TypeError, "got None"),
        ([[1, 2]], TypeError, "got"),
        ([], TypeError, "got"),
        ([1.5], TypeError, "got"),
        ([6], IndexError, "rows must lie in 0, …, 5; got 6"),
        ([-1], IndexError, "got -1"),
    ],
)
def test_rows_of_a_subset_are_rows(rows, error, words):
    problem = Risk(risk.linear, risk.squared, X[:, 0], Y)
    with pytest.raises(error, match=words):
        problem.subset(rows)
    assert problem.subset(np.array([1, 1], np.uint8)).n == 2  # no mask


def test_a_penalty_for_each_parameter_and_a_linear_term():
    lam, b = np.array([0, 0.5, 2, 0.1]), RNG.standard_normal(4)
    classes = RNG.integers(0, 2, 6)
    plain = Risk(risk.linear, risk.logistic, X[:, 0], classes)
    whole = Risk(risk.linear, risk.logistic, X[:, 0], classes, lam=lam, b=b)
    theta, w, V = RNG.standard_normal(4), RNG.uniform(0, 2, 6), RNG.standard_normal((4, 3))
    value = plain.value(theta, w) + lam @ theta**2 / 2 + b @ theta
    assert whole.value(theta, w) == pytest.approx(value, rel=1e-14)
    for name, more in (("gradient", lam * theta + b), ("hessian", np.diag(lam))):
        expected = getattr(plain, name)(theta, w) + more
        np.testing.assert_allclose(getattr(whole, name)(theta, w), expected, rtol=1e-13)
    for product in ("gauss_newton_product", "hessian_product"):
        expected = getattr(plain, product)(theta, V, w) + lam[:, None] * V
        np.testing.assert_allclose(getattr(whole, product)(theta, V, w), expected, rtol=1e-12)
    same = Risk(risk.linear, risk.logistic, X[:, 0], classes, lam=np.full(4, 0.3))
    assert same.lam == 0.3


def equal(one, two, theta):
    """That two risks give the same bits."""
    assert one.y.shape == two.y.shape
    w, V = RNG.uniform(0, 2, one.n), RNG.standard_normal((one.d, 2))
    for name, more in (("losses", ()), ("output_hessians", ()), ("gradients", ())):
        np.testing.assert_array_equal(getattr(one, name)(theta), getattr(two, name)(theta, *more))
    for name, more in (("hessian", ()), ("gauss_newton", ()), ("gauss_newton_product", (V,))):
        found, expected = (getattr(problem, name)(theta, *more, w) for problem in (one, two))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "loss",
    [
        risk.squared,
        risk.logistic,
        nn.MSELoss(),
        nn.BCEWithLogitsLoss(),
        nn.functional.mse_loss,
        lambda f, y: ((f - y) ** 2).mean(),
    ],
)
def test_targets_of_one_column_are_those_without_it(loss):
    rows, y = X[:, 0], (Y > 0).astype(float)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
    model = Network(module)
    plain, theta = Risk(model, loss, rows, y), model.theta
    dataset = TensorDataset(torch.from_numpy(rows), torch.from_numpy(y[:, None]))
    for data in (
        (rows, y[:, None]),
        (rows, torch.from_numpy(y[:, None])),
        (rows, pandas.DataFrame({"y": y})),
        (rows, y[:, None].astype(int)),
        (dataset,),
        (DataLoader(dataset, 4, shuffle=True),),
    ):
        equal(Risk(model, loss, *data), plain, theta)
    bare = Risk(risk.linear, loss, rows, y), Risk(risk.linear, loss, rows, y[:, None])
    equal(*bare, np.ones(4))
    assert Risk(model, loss, rows, y[:, None]).chain() == plain.chain()


def test_a_loss_that_wants_the_column_of_its_targets_keeps_it():
    found = Risk(risk.linear, lambda f, y: (f - y[0]) ** 2 / 2, X[:, 0], Y[:, None])
    plain = Risk(risk.linear, risk.squared, X[:, 0], Y)
    assert found.y.shape == (6, 1)
    np.testing.assert_array_equal(found.gradient(np.ones(4)), plain.gradient(np.ones(4)))
    both = np.stack([Y, Y], 1)
    with pytest.raises(ValueError, match=r"\(6,\); got \(6, 2\)"):
        Risk(risk.linear, risk.squared, X[:, 0], both)


def test_a_single_weight_of_torchs_losses_is_a_number():
    y, three = (Y > 0).astype(float), torch.tensor([3.0])
    model = Network(nn.Linear(4, 1))
    f = torch.from_numpy(X[:, 0] @ model.theta[:4] + model.theta[4])
    logits = torch.nn.functional.binary_cross_entropy_with_logits
    for name in ("weight", "pos_weight"):
        found = Risk(model, nn.BCEWithLogitsLoss(**{name: three}), X[:, 0], y[:, None])
        expected = logits(f, torch.from_numpy(y), **{name: three}, reduction="none")
        np.testing.assert_allclose(found.losses(model.theta), expected, rtol=1e-14)


def warnings_of(model, loss, x, y):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Risk(model, loss, x, y)
    return [str(warning.message) for warning in caught]


class Tags(nn.Module):
    """Three classes for each of four tokens."""

    def __init__(self):
        super().__init__()
        self.words, self.head = nn.Embedding(7, 3), nn.Linear(3, 3)

    def forward(self, tokens):
        return self.head(self.words(tokens))


HEAVY = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
SOME = np.where(np.arange(24).reshape(6, 4) % 5 == 0, -100, np.arange(24).reshape(6, 4) % 3)
cross_entropy = nn.functional.cross_entropy


def flat_cross_entropy(f, y, **more):
    return cross_entropy(f.reshape(-1, 3), y.reshape(-1), **more)


def own_mean(f, y):
    """The mean by weights, written out."""
    own = f.logsumexp(-1) - (f * (torch.arange(3) == y[..., None])).sum(-1)
    return (HEAVY[y] * own).sum() / HEAVY[y].sum()


def test_weights_that_cancel_for_one_example_are_told():
    torch.manual_seed(0)
    three, tags = Network(nn.Linear(4, 3)), Network(Tags())
    rows, rare = X[:, 0], np.r_[np.zeros(3000, int), 1]
    many = np.tile(rows, (501, 1))[:3001]
    for model, loss, x, y in (
        (three, lambda f, y: cross_entropy(f, y, weight=HEAVY), rows, THREE),
        (three, lambda f, y: cross_entropy(f, y, weight=HEAVY), many, rare),
        (three, own_mean, rows, THREE),
        (tags, cross_entropy, TOKENS, SOME),
        (tags, flat_cross_entropy, TOKENS, SOME),
        (tags, lambda f, y: cross_entropy(f, y, weight=HEAVY), TOKENS, TOKENS % 3),
    ):
        (told,) = warnings_of(model, loss, x, y)
        assert "mean of theirs by unequal weights" in told and "w[y] * risk.cross_entropy" in told
    right = Risk(three, lambda f, y: HEAVY[y] * risk.cross_entropy(f, y), rows, THREE)
    f, theta = rows @ three.theta[:12].reshape(3, 4).T + three.theta[12:], three.theta
    total = cross_entropy(*map(torch.from_numpy, (f, THREE)), weight=HEAVY, reduction="sum")
    assert right.value(theta) == pytest.approx(float(total), rel=1e-14)


def test_an_output_or_a_target_that_is_repeated_is_told():
    one, three = Network(nn.Linear(4, 1)), Network(nn.Linear(4, 3))
    for model, loss, y, words in (
        (three, lambda f, y: ((f - y) ** 2).mean(), Y, r"shape (3,) with a target of shape ()"),
        (three, lambda f, y: (f - y).abs().sum(), Y[:, None], "(3,) with a target of shape (1,)"),
        (one, lambda f, y: ((f - y) ** 2).mean(), X[:, 0, :3], "() with a target of shape (3,)"),
    ):
        (told,) = warnings_of(model, loss, X[:, 0], y)
        assert words in told


QUANTILES = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
FINE = {
    "classes": (3, cross_entropy, THREE),
    "classes as floats": (3, lambda f, y: cross_entropy(f, y.long()), THREE.astype(float)),
    "probabilities": (3, cross_entropy, np.eye(3)[THREE]),
    "a sum": (3, lambda f, y: cross_entropy(f, y, weight=HEAVY, reduction="sum"), THREE),
    "weighted": (3, lambda f, y: (HEAVY[y] * cross_entropy(f, y)).sum(), THREE),
    "one example alone": (3, lambda f, y: (f.logsumexp(0) - f[y]).sum(), THREE),
    "a distance": (3, lambda f, y: (f - y).norm(), np.eye(3)[THREE]),
    "a distance of numbers": (1, lambda f, y: (f - y).norm() + f**2, THREE),
    "the largest error": (1, lambda f, y: (f - y).abs().max(), THREE),
    "one against all": (
        3,
        lambda f, y: nn.functional.binary_cross_entropy_with_logits(
            f, (y == torch.arange(3)).double()
        ),
        THREE.astype(float),
    ),
    "ordinal": (
        2,
        lambda f, y: nn.functional.binary_cross_entropy_with_logits(
            f, (y > torch.arange(2)).double()
        ),
        THREE.astype(float),
    ),
    "mean and spread": (2, lambda f, y: (f[1] + ((y - f[0]) * (-f[1]).exp()) ** 2).mean(), Y),
    "quantiles": (
        3,
        lambda f, y: torch.maximum(QUANTILES * (y - f), (QUANTILES - 1) * (y - f)).mean(),
        Y,
    ),
    "a mixture": (3, lambda f, y: -(-((f - y) ** 2)).logsumexp(0), Y),
    "a weight in the target": (1, lambda f, y: (y[1] * (f - y[0]) ** 2).mean(), X[:, 0, :2]),
    "a column": (1, lambda f, y: ((f - y) ** 2).mean(), Y[:, None]),
    "integers that are compared": (3, lambda f, y: ((f - y) ** 2).mean(), THREE),
}


@pytest.mark.parametrize("kind", FINE)
def test_a_loss_that_means_what_it_does_is_taken_without_a_word(kind):
    outputs, loss, y = FINE[kind]
    torch.manual_seed(0)
    told = warnings_of(Network(nn.Linear(4, outputs)), loss, X[:, 0], y)
    assert not [word for word in told if "second derivative" not in word]


def test_what_is_told_of_a_risk_is_told_where_it_is_made():
    def square(theta, x):
        return Unmapped.apply(theta @ x)

    three = Network(nn.Linear(4, 3))
    for model, loss, y, d in (
        (square, risk.squared, Y, 4),
        (three, lambda f, y: ((f - y) ** 2).mean(), Y, None),
    ):
        with pytest.warns(UserWarning, match="second derivative|repeats what is missing") as told:
            Risk(model, loss, X[:, 0], y, d=d)
        assert [warning.filename for warning in told] == [__file__] * len(told)


def test_labels_of_a_subset_go_with_its_rows():
    y = pandas.Series(Y, index=list("abcdef"))
    found = Risk(risk.linear, risk.squared, pandas.DataFrame(X[:, 0], index=y.index), y)
    part, w = found.subset(slice(1, 4)), pandas.Series([1.0, 2, 3], index=list("bcd"))
    assert part.n == 3 and list(part.labels) == ["b", "c", "d"]
    assert part.value(np.ones(4), w) == part.value(np.ones(4), [1.0, 2, 3])
    with pytest.raises(ValueError, match="the data and weights must have the same labels"):
        part.value(np.ones(4), w[::-1])
    assert found.labels is not None and found.subset(np.arange(6) == 2).labels.tolist() == ["c"]


def test_the_size_of_a_penalty_is_that_of_its_two_parts():
    lam, b, theta = np.array([0, 0.5, 2, 0.1]), RNG.standard_normal(4), RNG.standard_normal(4)
    rows = X[:, 0], Y
    for one, size, slope, bend in (
        (Risk(risk.linear, risk.squared, *rows), 0.0, np.zeros(4), np.zeros(4)),
        (
            Risk(risk.linear, risk.squared, *rows, lam=0.3),
            0.3 * np.linalg.norm(theta),
            0.3 * theta,
            np.full(4, 0.3),
        ),
        (
            Risk(risk.linear, risk.squared, *rows, lam=lam, b=b),
            np.linalg.norm(lam * theta) + np.linalg.norm(b),
            lam * theta + b,
            lam,
        ),
    ):
        assert one.penalty_size(theta) == pytest.approx(size, rel=1e-14)
        np.testing.assert_allclose(one.penalty_gradient(theta), slope, rtol=1e-14)
        np.testing.assert_array_equal(one.penalty_curvature(), bend)


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_roots_of_the_output_hessians_are_those_of_the_weighted(outputs):
    torch.manual_seed(0)
    loss, y = (risk.logistic, THREE % 2) if outputs == 1 else (risk.cross_entropy, THREE % outputs)
    found = Risk(Network(nn.Linear(4, outputs)), loss, X[:, 0], y)
    theta, w = found.model.theta, np.linspace(0, 2, 6)
    S, H = found.output_roots(theta, w), found.output_hessians(theta)
    np.testing.assert_allclose(S @ S, w[:, None, None] * H, rtol=0, atol=1e-15)
    values, vectors = found.convex_hessians(theta)
    assert (values >= 0).all()
    again = (vectors * values[:, None]) @ vectors.transpose(0, 2, 1)
    np.testing.assert_allclose(again, H, rtol=0, atol=1e-15)
