"""A model and a loss tried once, on an example or two: what does not work is said, by name."""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.func import grad, jacrev, vjp, vmap

from ifcore import inputs
from ifcore.network import Network
from ifcore.risk import doubts, losses
from ifcore.risk.tensors import Tensors, one_by_one, rows_of


class NotDifferentiable(TypeError):
    """A model or a loss without the derivatives that a computation needs."""


class Abilities(NamedTuple):
    """What the estimators can have of a model and a loss."""

    K: int  #: outputs an example
    each: object  #: torch.func.vmap, or a loop where the model cannot be mapped
    model_twice: str  #: why the model has no second derivative; "" where it has
    loss_twice: str  #: the same of the loss


# what torch says, and what mends it
HINTS = {
    "expected scalar type Double but found Float": (
        "Tensors in it, such as weights, must be float64, as the rest is: .double() makes them so"
    ),
    "match the broadcast shape [1]": (
        "The output of one example has no axis here: a weight of shape (1,) must be a number"
    ),
}


def tried(model, loss, X, y, d, whole, labels):
    """The Abilities, and X and y as the model and the loss take them.

    X, y : tensors in float64. whole : the same with what came as integers kept so, which is what a
    model of tokens or a loss of classes takes. labels : whether y came as integers. Raises
    TypeError, ValueError, NotDifferentiable.
    """
    if isinstance(model, nn.Module):
        raise TypeError(
            f"the model must be a function f(theta, x) or a Network; got the module "
            f"{type(model).__name__}. Network(module) makes it one"
        )
    theta = torch.from_numpy(model.theta.copy() if isinstance(model, Network) else point(d))
    X, output = _outputs(model, theta, X, whole[0])
    classes = whole[1].dtype == torch.int64
    y = _targets(loss, output, *(numbers(loss, output, part) for part in (y, whole[1])))
    some = Tensors(model, loss, rows_of(X, slice(2)), y[:2])
    _require_gradient(some, theta)
    each = vmap if _maps(some, theta) else one_by_one
    some = Tensors(model, loss, some.X, some.y, each=each)
    _require_sum(some, theta)
    model_twice, loss_twice = _second_derivatives(some, theta, output)
    if model_twice or loss_twice:
        _warn(model_twice, loss_twice)
    if not losses.is_known(loss):
        whole = Tensors(model, loss, X, y, each=each)
        for doubt in doubts.found(whole, theta, output, classes, labels):
            inputs.warn(doubt)
    return Abilities(output.numel(), each, model_twice, loss_twice), X, y


def point(d):
    """Where what has no θ of its own is tried."""
    return np.random.default_rng(0).standard_normal(d) / d**0.5


def numbers(loss, output, y):
    """Targets (n, 1) beside outputs that are numbers as (n,), where the loss takes them so."""
    if output.ndim or y.shape[1:] != (1,):
        return y
    if not losses.is_known(loss):
        try:
            loss(output, y[0].squeeze())
        except Exception:  # it may want their axis
            return y
    return y.squeeze(1)


def _taken(call, floats, whole, must):
    """What came as floats, or as it came where only that is taken. Raises ValueError."""
    try:
        call(floats)
    except Exception as error:
        of_floats = error
    else:
        return floats
    try:
        call(whole)
    except Exception as error:
        reasons = dict.fromkeys([_first_line(of_floats), _first_line(error)])
        hint = next((word for sign, word in HINTS.items() if sign in str(error)), "")
        reasons = ", and as integers ".join(reasons)
        raise ValueError(f"{must}; {reasons}{hint and '. '}{hint}") from of_floats
    return whole


def _outputs(model, theta, X, whole):
    """X as the model takes it, and the output of the first example, checked."""
    must = f"the model must take theta ({len(theta)},) and {_described(rows_of(X, 0))}"
    before = [part.clone() for part in (theta, *inputs.leaves(rows_of(X, 0)))]
    X = _taken(lambda X: model(theta, rows_of(X, 0)), X, whole, must)
    x = rows_of(X, 0)
    after = [part.double() for part in (theta, *inputs.leaves(x))]
    if not all(map(torch.equal, before, after)):
        raise ValueError("the model must leave theta and its input alone; it changes them in place")
    for i in _extremes(X):
        _called(lambda i=i: model(theta, rows_of(X, i)), f"the model must take example {i}")
    output, steady = _twice(lambda: model(theta, x))
    if not isinstance(output, torch.Tensor):
        raise TypeError(
            f"the model must give a tensor; got {type(output).__name__}. A module around it can "
            "pick the part that the loss takes"
        )
    if output.dtype != torch.float64:
        raise TypeError(f"the model's output must be float64, as theta is; got {output.dtype}")
    if not steady:
        raise ValueError(
            "the model must give the same output for the same input; it is random, as with "
            "dropout that does not listen to evaluation mode, or counts its calls"
        )
    if isinstance(model, Network):
        model.require_one_by_one(rows_of(X, slice(2)))
    return X, output.detach()


def _twice(call):
    """What a call gives, and whether it gives it again and draws none of torch's random numbers."""
    state = torch.random.get_rng_state()
    first, again = call(), call()
    steady = torch.equal(state, torch.random.get_rng_state())
    if isinstance(first, torch.Tensor):
        steady &= torch.equal(first.nan_to_num(), again.nan_to_num())
    return first, steady


def _called(call, must):
    try:
        return call()
    except Exception as error:
        raise ValueError(f"{must}; {_first_line(error)}") from error


def _extremes(value):
    """The examples with the smallest and the largest of what is taken as integers."""
    whole = [part for part in inputs.leaves(value) if part.dtype == torch.int64 and part.numel()]
    ends = [int(end) // part[0].numel() for part in whole for end in (part.argmin(), part.argmax())]
    return sorted(set(ends))


def _described(x):
    if isinstance(x, dict):
        return f"an example of the parts {', '.join(map(repr, x))}"
    if isinstance(x, tuple):
        return f"an example of {len(x)} parts"
    return f"an example of shape {tuple(x.shape)}"


def _first_line(error):
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"


def _targets(loss, output, y, whole):
    """y as the loss takes it, checked against the output of one example."""
    losses.require(loss, output, y)
    before = output.clone(), y[0].clone()
    must = (
        f"the loss must take an output of shape {tuple(output.shape)} and a target of shape "
        f"{tuple(y.shape[1:])}"
    )
    y = _taken(lambda y: loss(output, y[0]), y, whole, must)
    for i in _extremes(y):
        _called(lambda i=i: loss(output, y[i]), f"the loss must take the target {y[i].tolist()}")
    if not all(map(_same, before, (output, y[0].double()))):
        raise ValueError("the loss must leave output and target alone; it changes them in place")
    value, steady = _twice(lambda: loss(output, y[0]))
    _require_number(value)
    if not steady:
        raise ValueError("the loss must give the same number for the same output; it is random")
    return y


def _same(one, other):
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _require_number(value):
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"the loss must give a tensor; got {type(value).__name__}")
    if value.ndim:
        raise ValueError(f"the loss must be one number an example; got shape {tuple(value.shape)}")
    if value.dtype != torch.float64:
        raise TypeError(f"the loss must be float64, as the output is; got {value.dtype}")


def _require_gradient(some, theta):
    """That output and loss are differentiable, and do not pretend to be constant."""
    x, y = rows_of(some.X, 0), some.y[0]
    try:
        output, back = vjp(lambda t: some.model(t, x), theta)
        gradient = back(_direction(output))[0]
        slope = grad(some.loss)(output.detach(), y)
    except Exception as error:
        raise NotDifferentiable(
            f"model and loss must be differentiable by torch.func; {_first_line(error)}"
        ) from error
    for what, by, found, function, at in (
        ("model's output", "theta", gradient, lambda t: some.model(t, x), theta),
        ("loss", "the output", slope, lambda f: some.loss(f, y), output.detach()),
    ):
        if not found.any() and _changes(function, at):
            raise NotDifferentiable(
                f"the {what} changes with {by}, but its gradient is 0: it is computed outside of "
                "torch, detached, or under torch.no_grad()"
            )


def _direction(like):
    """A random direction, of the shape of `like`."""
    return torch.from_numpy(np.random.default_rng(1).standard_normal(like.shape))


def _changes(function, at):
    """Whether a function has a slope, by central differences."""
    step = 1e-5 * _direction(at)
    ends = function(at + step), function(at - step)
    return bool(((ends[0] - ends[1]).abs() > 1e-11 * (1 + ends[0].abs())).any())


def _require_sum(some, theta):
    """That the gradient of a sum is the sum of the gradients. Raises NotDifferentiable."""
    whole = grad(lambda t: some.losses(t).sum())(theta)
    each = some.gradients(theta)
    tolerance = {
        "rtol": 1e-8,
        "atol": 1e-8 * each.abs().nan_to_num().max().item(),
        "equal_nan": True,
    }
    if not torch.allclose(whole, each.sum(0), **tolerance):
        raise NotDifferentiable(
            "the gradient of two examples must be the sum of theirs; here one changes with the "
            "other, as with scale_grad_by_freq"
        )


def _maps(some, theta):
    """Whether torch.func.vmap maps the model and its gradients over examples and over θ."""
    many, w = torch.stack([theta, theta]), torch.ones(some.n, dtype=theta.dtype)
    try:
        one = vmap(some.model, (None, 0))(theta, some.X)
        some.gradients(theta)
        vmap(grad(some.value), (0, None))(many, w)
    except Exception:
        return False
    other = one_by_one(some.model, (None, 0))(theta, some.X)
    return torch.allclose(one, other, rtol=1e-8, equal_nan=True)


def _second_derivatives(some, theta, output):
    """Why model and loss have no second derivatives, "" each where they have."""
    loss = _reason(lambda: _require_curvature(some, output))
    if loss:
        return "", loss
    return _reason(lambda: _require_second_derivative(some, theta)), ""


def _reason(call):
    """What a call raises, in a line, or ""."""
    try:
        call()
    except Exception as error:
        return _first_line(error)
    return ""


def _require_second_derivative(some, theta):
    """That a Hessian's product is what differences of the gradient say. Raises ArithmeticError.

    Not every module's second derivative is right: torch's own for weight_norm is not. Along
    parameters without a gradient nothing is asked: they may be constants, under torch.no_grad().
    """
    w = torch.ones(some.n, dtype=theta.dtype)
    slope = grad(lambda t: some.value(t, w))
    gradient, back = vjp(slope, theta)
    v = torch.where(gradient != 0, _direction(theta), 0.0)
    product = some.each(lambda u: back(u)[0])(torch.stack([v, v]))[0]
    _require_slope(slope, theta, v, gradient, product)


def _require_curvature(some, output):
    """The same of the loss in the output, whose second derivative may be 0 without a word."""
    slope = grad(lambda f: some.loss(f, some.y[0]))
    hessian, v = jacrev(slope)(output), _direction(output)
    product = hessian.reshape(output.numel(), -1) @ v.reshape(-1)
    _require_slope(slope, output, v, slope(output), product.reshape(output.shape))


def _require_slope(slope, point, v, gradient, product):
    """That differences of a gradient along v are a product with v. Raises ArithmeticError."""
    tolerance = 1e-4 * (product.norm() + gradient.norm())
    if not torch.isfinite(tolerance):
        return
    for h in (1e-5, 1e-7):  # a kink may lie within the first
        difference = (slope(point + h * v) - slope(point - h * v)) / (2 * h)
        if (difference - product).norm() <= tolerance:
            return
    raise ArithmeticError("it disagrees with differences of the gradient")


def _warn(model, loss):
    who, why = ("loss", loss) if loss else ("model", model)
    work = "gradients and training" + ("" if loss else ", and what takes Gauss–Newton")
    inputs.warn(
        f"the {who} has no second derivative ({why}): what needs it will refuse; {work} work"
    )
