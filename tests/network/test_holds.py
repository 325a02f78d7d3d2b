"""A module as a function of θ: copies, frozen and reused layers, and what is refused."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import module
from refits import regression
from torch import nn

from ifcore import risk
from ifcore.network import Network, SideBySide, perceptron
from ifcore.risk import Risk


def test_a_network_is_a_copy_in_double_precision_whose_module_comes_back():
    torch_module = module()
    net = Network(torch_module)
    before = net.theta.copy()
    with torch.no_grad():
        next(torch_module.parameters()).add_(1)
    moved = net.flat(torch_module)  # in float32
    assert moved.dtype == np.float64
    np.testing.assert_allclose(moved - before, [1.0] * 12 + [0.0] * 9, atol=1e-6)
    x = torch.randn(5, 3, dtype=torch.float64)
    back = net.module(net.theta + 1)
    np.testing.assert_array_equal(net.theta, before)
    expected = torch.stack([net(torch.from_numpy(net.theta + 1), row) for row in x])
    np.testing.assert_allclose(back(x)[:, 0].detach(), expected, rtol=1e-14)
    assert net.d == 21 and net.theta.dtype == np.float64


def test_frozen_parameters_and_reused_layers():
    frozen = module()
    frozen[0].requires_grad_(False)
    assert Network(frozen).d == 5

    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 3)

        def forward(self, x):
            return self.layer(torch.tanh(self.layer(x)))[:, :1]

    torch.manual_seed(0)
    X = np.random.default_rng(0).standard_normal((6, 3))
    twice = Risk(Network(Twice()), risk.squared, X, np.zeros(6))
    assert not twice.layered  # each layer once is what the kernel by layers needs
    J = twice.jacobian(twice.model.theta)
    step, v = 1e-6, np.random.default_rng(1).standard_normal(twice.d)
    ends = twice.model.theta + step * v, twice.model.theta - step * v
    slope = (twice.outputs(ends[0]) - twice.outputs(ends[1])) / (2 * step)
    np.testing.assert_allclose(J @ v, slope, rtol=1e-7, atol=1e-8)


def test_an_initial_theta_is_the_layers_own_and_changes_with_the_seed():
    network = regression().model
    one, two, other = (network.initial(s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one != other).all() and np.abs(one[:15]).max() <= 1 / np.sqrt(3)
    torch.manual_seed(1)
    np.testing.assert_array_equal(
        one[:15], nn.Linear(3, 5, dtype=torch.float64).weight.detach().numpy().reshape(-1)
    )


class Neighbours(torch.nn.Module):
    """Its outputs depend on the other examples of the batch."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 1)

    def forward(self, x):
        return self.layer(x - x.mean(0))


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: Network(lambda x: x), TypeError, "module must be a torch.nn.Module; got function"),
        (
            lambda: Network(torch.nn.Tanh()),
            ValueError,
            "a parameter that requires a gradient; got none",
        ),
        (
            lambda: Risk(Network(Neighbours()), risk.squared, np.eye(3), np.zeros(3)),
            ValueError,
            "one by one",
        ),
    ],
)
def test_bad_input_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_perceptron_is_the_sequential_that_torch_draws():
    found, state = perceptron(5, 3, 4, 4, 2), torch.random.get_rng_state()
    torch.manual_seed(5)
    layers = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 2)
    first, second, third = layers
    expected = Network(nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), third))
    np.testing.assert_array_equal(found.theta, expected.theta)
    x = torch.randn(3, dtype=torch.float64)
    theta = torch.from_numpy(found.theta)
    assert torch.equal(found(theta, x), expected(theta, x))
    torch.random.set_rng_state(state)
    again = torch.random.get_rng_state()
    perceptron(6, 2, 1)
    assert torch.equal(again, torch.random.get_rng_state())  # the caller's draws are its own
    with pytest.raises(ValueError, match=r"at least two widths; got \(3,\)"):
        perceptron(0, 3)


def test_a_module_that_comes_back_can_be_brought_again():
    frozen = module()
    frozen[0].requires_grad_(False)
    net = Network(frozen)
    again = Network(net.module(net.theta + 1))
    np.testing.assert_array_equal(again.theta, net.theta + 1)
    assert again.d == net.d == 5


def test_a_linear_model_of_matrices_is_no_chain():
    X = np.random.default_rng(0).standard_normal((5, 4, 3))
    problem = Risk(risk.linear, risk.squared, X, np.zeros((5, 4)), d=3)
    assert problem.chain() is None


@pytest.mark.parametrize("K", [1, 2])
@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("bias", [True, False])
def test_fits_side_by_side_have_the_gradients_of_autograd(n, K, bias):
    """Of a chain with another activation behind each layer."""
    torch.manual_seed(0)
    sizes = [(3, 4), (4, 1), (1, 5), (5, K)]
    layers = [nn.Linear(*size, bias=bias) for size in sizes]
    between = nn.ReLU(), nn.Tanh(), nn.Sigmoid()
    parts = [part for pair in zip(layers, between) for part in pair]
    rng = np.random.default_rng(1)
    X, Y, W = rng.standard_normal((n, 3)), rng.standard_normal((n, K)), rng.uniform(0, 2, (6, n))
    net = Network(nn.Sequential(*parts, layers[-1]))
    chain = Risk(net, risk.squared, X, Y).chain()
    theta = net.theta + 0.5 * rng.standard_normal((6, net.d))
    found = SideBySide(chain, X, Y, lambda f, y, out: np.subtract(f, y, out=out), W, n)
    gradient = found.unpack(found.gradient(found.pack(theta)))
    for t, w, mine in zip(theta, W, gradient):
        module = net.module(t)
        errors = ((module(torch.from_numpy(X)) - torch.from_numpy(Y)) ** 2).sum(1) / 2
        (torch.from_numpy(w) @ errors / n).backward()
        theirs = torch.cat([p.grad.reshape(-1) for p in module.parameters()]).numpy()
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-14 * np.abs(theirs).max())


def test_an_axis_of_one_is_taken_off_only_where_it_is_the_output():
    net = Network(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Unflatten(1, (1, 3))))
    X = torch.zeros(5, 2, dtype=torch.float64)
    assert net.batch(torch.from_numpy(net.theta), X).shape == (5, 1, 3)
    one = Network(torch.nn.Linear(2, 1))
    assert one.batch(torch.from_numpy(one.theta), X).shape == (5,)


def test_an_activation_that_is_used_twice_stands_twice_in_the_chain():
    tanh, linear = torch.nn.Tanh(), torch.nn.Linear
    net = Network(torch.nn.Sequential(linear(2, 3), tanh, linear(3, 3), tanh, linear(3, 1)))
    assert [layer.activation for layer in net.chain(1)] == [torch.nn.Tanh, torch.nn.Tanh, None]


def test_the_width_counts_the_inputs_and_for_each_output_the_outputs_of_every_layer():
    net = Network(
        torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    )
    assert net.width(2) == (4 + 2 * 3) + (3 + 2 * 2)


def test_the_gradient_of_a_batch_is_the_mean_of_its_own_examples():
    """Of SideBySide, against the Risk's gradients."""
    rng, net = np.random.default_rng(0), perceptron(0, 3, 4, 2)
    X, y, W = rng.standard_normal((7, 3)), rng.standard_normal((7, 2)), rng.uniform(0, 2, (2, 7))
    found, thetas = Risk(net, risk.squared, X, y), rng.standard_normal((2, net.d))
    engine = found.side_by_side(found.chain(), W, 3)
    rows = np.array([5, 0, 2])
    got = engine.unpack(engine.gradient(engine.pack(thetas), rows))
    for theta, w, g in zip(thetas, W, got):
        expected = w[rows] @ found.gradients(theta)[rows] / 3
        np.testing.assert_allclose(g, expected, rtol=0, atol=1e-14 * np.abs(expected).max() * 10)


def test_a_layer_that_no_output_depends_on_has_a_jacobian_of_zeros():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(3, 2), nn.Linear(3, 4)

        def forward(self, x):
            self.idle(x)
            return self.used(x)

    X = np.random.default_rng(0).standard_normal((5, 3))
    found = Risk(Network(Idle()), risk.squared, X, np.zeros((5, 2)))
    assert found.layered
    J = found.jacobian(found.model.theta)
    expected = [np.kron(np.eye(2), x) for x in X]
    np.testing.assert_array_equal(J[:, :, :6], expected)
    np.testing.assert_array_equal(J[:, :, 6:8], np.tile(np.eye(2), (5, 1, 1)))
    np.testing.assert_array_equal(J[:, :, 8:], 0)


def module_of(*parts):
    torch.manual_seed(0)
    return nn.Sequential(*parts)


def frozen(part):
    found = module_of(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    getattr(found[0], part).requires_grad_(False)
    return found


def reused():
    layer = nn.Linear(3, 3)
    return module_of(layer, nn.Tanh(), layer)


@pytest.mark.parametrize(
    "module, axes, activations",
    [
        (module_of(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), 1, [nn.Tanh, None]),
        (module_of(nn.Linear(3, 4), nn.Linear(4, 1), nn.Sigmoid()), 1, [None, nn.Sigmoid]),
        (module_of(module_of(nn.Linear(3, 4), nn.ReLU()), nn.Linear(4, 1)), 1, [nn.ReLU, None]),
        (module_of(nn.Flatten(), nn.Linear(6, 2), nn.Identity(), nn.Tanh()), 2, [nn.Tanh]),
        (module_of(nn.Flatten(), nn.Linear(6, 2)), 1, [None]),
        (nn.Linear(3, 2), 1, [None]),
        (nn.Linear(3, 2), 2, None),  # of matrices, row by row
        (module_of(nn.Flatten(0), nn.Linear(6, 2)), 2, None),
        (module_of(nn.Flatten(1, 2), nn.Linear(6, 2)), 2, None),
        (module_of(nn.Linear(3, 4), nn.Flatten(), nn.Linear(4, 1)), 1, None),
        (module_of(nn.Tanh(), nn.Linear(3, 4)), 1, None),
        (module_of(nn.Linear(3, 4), nn.Tanh(), nn.Tanh()), 1, None),
        (module_of(nn.Linear(3, 4), nn.Softplus(), nn.Linear(4, 1)), 1, None),
        (module_of(nn.Linear(3, 4), nn.LayerNorm(4)), 1, None),
        (reused(), 1, None),
        (frozen("bias"), 1, None),
        (frozen("weight"), 1, None),
    ],
)
def test_a_chain_is_linear_layers_with_an_activation_each_and_nothing_else(
    module, axes, activations
):
    chain = Network(module).chain(axes)
    assert (
        chain is None if activations is None else [one.activation for one in chain] == activations
    )


def test_parameters_that_no_layer_draws_are_named_and_seeds_end_at_2_63():
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.gain = nn.Linear(3, 1), nn.Parameter(torch.ones(2))
            self.kept = nn.Parameter(torch.ones(1), requires_grad=False)

        def forward(self, x):
            return self.gain.sum() * self.kept * self.layer(x)

    with pytest.raises(ValueError, match="the parameters gain belong to no layer with a method"):
        Network(Own()).initial(0)
    net, state = Network(module()), torch.random.get_rng_state()
    assert np.isfinite(net.initial(2**63 - 1)).all()
    assert torch.equal(state, torch.random.get_rng_state())
    with pytest.raises(ValueError, match="seed must be below 2⁶³; got"):
        net.initial(2**63)


def test_the_parts_of_a_module_are_drawn_before_itself():
    class Doubled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def reset_parameters(self):
            with torch.no_grad():
                self.layer.weight.mul_(2)

        def forward(self, x):
            return self.layer(x)

    found = Network(Doubled()).initial(4)
    torch.manual_seed(4)
    plain = nn.Linear(3, 1, dtype=torch.float64)
    np.testing.assert_array_equal(found[:3], 2 * plain.weight.detach().numpy()[0])
    np.testing.assert_array_equal(found[3:], plain.bias.detach())


def test_a_module_comes_back_with_the_gradients_it_came_with():
    own = frozen("weight").train()
    net = Network(own)
    back = net.module(net.theta)
    asked = {name: p.requires_grad for name, p in back.named_parameters()}
    assert asked == {name: p.requires_grad for name, p in own.named_parameters()}
    assert own.training and not back.training
    assert all(p.dtype == torch.float64 for p in back.parameters())
    np.testing.assert_array_equal(back[0].weight, own[0].weight.double())
    own[0].bias.data[1] = torch.inf
    with pytest.raises(ValueError, match="parameters must be finite; 0.bias is not"):
        Network(own)


def test_a_batch_of_several_parts_comes_by_place_or_by_name():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, left, right):
            return self.layer(torch.stack([left, 3 * right], 1))

    net = Network(Two())
    theta, (left, right) = torch.from_numpy(net.theta), torch.randn(2, 5, dtype=torch.float64)
    expected = theta[0] * left + 3 * theta[1] * right + theta[2]
    for parts in ((left, right), {"right": right, "left": left}):
        torch.testing.assert_close(net.batch(theta, parts), expected)
        one = (
            {k: v[2] for k, v in parts.items()} if isinstance(parts, dict) else (left[2], right[2])
        )
        torch.testing.assert_close(net(theta, one), expected[2])


def test_a_theta_of_another_length_is_refused():
    net = perceptron(0, 2, 1)
    for theta in (net.theta[:2], np.r_[net.theta, 0]):
        with pytest.raises(ValueError, match=f"length d = 3; got {len(theta)}"):
            net.module(theta)


class Partly(nn.Module):
    """Draws anew what it says of its gain; beside it stands what is frozen."""

    def __init__(self, drawn, frozen=0.0):
        super().__init__()
        self.gain, self.drawn = nn.Parameter(torch.ones(2)), drawn
        self.frozen = nn.Parameter(torch.tensor(frozen), requires_grad=False)

    def reset_parameters(self):
        with torch.no_grad():
            self.gain[self.drawn] = 3.0

    def forward(self, x):
        return x @ self.gain


def test_a_parameter_has_to_be_drawn_as_a_whole_and_one_that_is_frozen_not_at_all():
    found = Network(Partly(slice(None), frozen=np.nan)).initial(0)
    np.testing.assert_array_equal(found, [3, 3])
    with pytest.raises(ValueError, match="the parameters gain belong"):
        Network(Partly(0)).initial(0)


class Leaking(nn.Module):
    """Of each output, the share `leak` comes from the mean of the others."""

    def __init__(self, leak=0.0, size=1.0):
        super().__init__()
        self.layer, self.leak, self.size = nn.Linear(3, 2), leak, size

    def forward(self, x):
        return self.size * (self.layer(x) + self.leak * x.mean())


def test_examples_are_one_by_one_but_for_rounding():
    X = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 3)))
    for fine in (Leaking(), Leaking(1e-10), Leaking(1.0, 1e-9), Leaking(0.0, torch.nan)):
        Network(fine).require_one_by_one(X)
    for leak in (1e-6, 1e-3):
        for size in (1.0, 1e8):
            with pytest.raises(ValueError, match="treat its examples one by one"):
                Network(Leaking(leak, size)).require_one_by_one(X)

    class Together(Leaking):
        def forward(self, x):
            return self.layer(x).reshape(1, -1)

    with pytest.raises(ValueError, match="treat its examples one by one"):
        Network(Together()).require_one_by_one(X)


def test_a_jacobian_by_layers_needs_each_of_them_once_on_vectors():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(3, 1), nn.Linear(3, 4)

        def forward(self, x):
            return self.used(x)

    class Rows(Idle):
        def forward(self, x):
            return self.used(torch.tanh(self.idle(x)[..., :3])).sum(1)

    X = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 2, 3)))
    for made, x in ((Idle(), X[:, 0]), (Rows(), X), (reused(), X[:, 0])):
        net = Network(made)
        assert net.layers is not None
        assert net.jacobian(torch.from_numpy(net.theta), x) is None
    assert perceptron(0, 3, 2).jacobian(torch.zeros(8, dtype=torch.float64), X[:, 0]).shape[1] == 8


def test_an_activation_in_place_leaves_the_jacobian_as_it_is():
    nets = [
        Network(module_of(nn.Linear(3, 6), nn.ReLU(inplace), nn.Linear(6, 2)))
        for inplace in (True, False)
    ]
    theta = torch.from_numpy(nets[0].theta)
    X = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 3)))
    one, other = (net.jacobian(theta, X).dense() for net in nets)
    np.testing.assert_array_equal(one, other)
    assert (one[:, :18] == 0).any() and (one[:, :18] != 0).any()


@pytest.mark.parametrize("fast", [True, False])
def test_attention_is_plain_within_a_call_and_afterwards_as_it_was(fast):
    seen, before = [], torch.backends.mha.get_fastpath_enabled()

    class Looking(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 1)

        def forward(self, x):
            seen.append(torch.backends.mha.get_fastpath_enabled())
            return self.layer(x)

    net = Network(Looking())
    torch.backends.mha.set_fastpath_enabled(fast)
    try:
        net.batch(torch.from_numpy(net.theta), torch.zeros(1, 2, dtype=torch.float64))
        assert seen == [False] and torch.backends.mha.get_fastpath_enabled() == fast
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def test_one_lazy_layer_is_enough_to_be_refused():
    with pytest.raises(TypeError, match="not materialised"):
        Network(nn.Sequential(nn.Linear(3, 2), nn.LazyLinear(1)))


def test_a_module_from_another_device_is_moved_and_said():
    class Elsewhere(nn.Linear):
        def buffers(self, recurse=True):
            yield SimpleNamespace(device=torch.device("cuda:0"))

    with pytest.warns(UserWarning, match="module is on cuda:0; a copy is moved to the CPU") as told:
        net = Network(Elsewhere(2, 1))
    assert net.d == 3 and told[0].filename == __file__


@pytest.mark.parametrize("biases", [(True, False, False), (False, True, True)])
def test_of_fits_side_by_side_each_layer_has_a_bias_or_none(biases):
    torch.manual_seed(1)
    first, second, third = (
        nn.Linear(*size, bias=bias) for size, bias in zip([(3, 2), (2, 4), (4, 2)], biases)
    )
    net = Network(nn.Sequential(first, nn.Sigmoid(), second, nn.ReLU(), third))
    rng = np.random.default_rng(0)
    X, Y, W = rng.standard_normal((6, 3)), rng.standard_normal((6, 2)), rng.uniform(0, 2, (2, 6))
    found = Risk(net, risk.squared, X, Y)
    thetas, engine = rng.standard_normal((2, net.d)), found.side_by_side(found.chain(), W, 6)
    np.testing.assert_array_equal(engine.unpack(engine.pack(thetas)), thetas)
    got = engine.unpack(engine.gradient(engine.pack(thetas)))
    for theta, w, g in zip(thetas, W, got):
        expected = w @ found.gradients(theta) / 6
        np.testing.assert_allclose(g, expected, rtol=0, atol=1e-13 * np.abs(expected).max())
