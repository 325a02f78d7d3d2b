"""A model and a loss tried once, on an example or two: what does not work is said, by name."""

import warnings
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.func import grad, jacrev, vjp, vmap

from ifcore.network import Network
from ifcore.risk import losses
from ifcore.risk.tensors import Tensors, one_by_one, rows_of


class NotDifferentiable(TypeError):
    """A model or a loss without the derivatives that a computation needs."""


class Abilities(NamedTuple):
    """What the estimators can have of a model and a loss."""

    K: int  #: outputs an example
    each: object  #: torch.func.vmap, or a loop where the model cannot be mapped
    model_twice: str  #: why the model has no second derivative; "" where it has
    loss_twice: str  #: the same of the loss


def tried(model, loss, X, y, d, whole):
    """The Abilities, and X and y as the model and the loss take them.

    X, y : tensors in float64. whole : the same with what came as integers kept so, which is what a
    model of tokens or a loss of classes takes. Raises TypeError, ValueError, NotDifferentiable.
    """
    if isinstance(model, nn.Module):
        raise TypeError(
            f"the model must be a function f(theta, x) or a Network; got the module "
            f"{type(model).__name__}. Network(module) makes it one"
        )
    theta = torch.from_numpy(model.theta if isinstance(model, Network) else _point(d))
    X = _taken(lambda X: model(theta, rows_of(X, 0)), X, whole[0])
    output = _output(model, theta, X, d)
    y = _targets(loss, output, y, whole[1])
    some = Tensors(model, loss, rows_of(X, slice(2)), y[:2])
    _require_gradient(some, theta)
    each = vmap if _maps(some, theta) else one_by_one
    some = Tensors(model, loss, some.X, some.y, each=each)
    model_twice, loss_twice = _second_derivatives(some, theta, output)
    if model_twice or loss_twice:
        _warn(model_twice, loss_twice)
    return Abilities(output.numel(), each, model_twice, loss_twice), X, y


def _point(d):
    return np.random.default_rng(0).standard_normal(d) / d**0.5


def _taken(call, floats, whole):
    """What came as floats, or as it came where only that is taken."""
    try:
        call(floats)
    except Exception:  # what is wrong is told later, of the floats
        try:
            call(whole)
        except Exception:
            return floats
        return whole
    return floats


def _output(model, theta, X, d):
    """The output of the first example, checked."""
    x = rows_of(X, 0)
    try:
        output, again = model(theta, x), model(theta, x)
    except Exception as error:
        raise ValueError(
            f"the model must take theta ({d},) and {_described(x)}; {_first_line(error)}"
        ) from error
    if not isinstance(output, torch.Tensor):
        raise TypeError(
            f"the model must give a tensor; got {type(output).__name__}. A module around it can "
            "pick the part that the loss takes"
        )
    if output.dtype != torch.float64:
        raise TypeError(f"the model's output must be float64, as theta is; got {output.dtype}")
    if not torch.equal(output.nan_to_num(), again.nan_to_num()):
        raise ValueError(
            "the model must give the same output for the same input; it is random, as with "
            "dropout that does not listen to evaluation mode"
        )
    if isinstance(model, Network):
        model.require_one_by_one(rows_of(X, slice(2)))
    return output.detach()


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
    y = _taken(lambda y: _number(loss(output, y[0])), y, whole)
    try:
        value = loss(output, y[0])
    except Exception as error:
        raise ValueError(
            f"the loss must take an output of shape {tuple(output.shape)} and a target of shape "
            f"{tuple(y.shape[1:])}; {_first_line(error)}"
        ) from error
    _number(value)
    if value.dtype != torch.float64:
        raise TypeError(f"the loss must be float64, as the output is; got {value.dtype}")
    return y


def _number(value):
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"the loss must give a tensor; got {type(value).__name__}")
    if value.ndim:
        raise ValueError(f"the loss must be one number an example; got shape {tuple(value.shape)}")


def _require_gradient(some, theta):
    """That the output is differentiable in θ, and does not pretend to be constant."""
    x = rows_of(some.X, 0)
    try:
        output, back = vjp(lambda t: some.model(t, x), theta)
        gradient = back(torch.ones_like(output))[0]
        grad(some.loss)(output.detach(), some.y[0])
    except Exception as error:
        raise NotDifferentiable(
            f"model and loss must be differentiable by torch.func; {_first_line(error)}"
        ) from error
    if not gradient.any() and not torch.equal(some.model(1.1 * theta + 0.1, x), output):
        raise NotDifferentiable(
            "the model's output changes with theta, but its gradient is 0: it is computed outside "
            "of torch, detached, or under torch.no_grad()"
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
    return torch.allclose(one, other, rtol=1e-8, atol=1e-8, equal_nan=True)


def _second_derivatives(some, theta, output):
    """Why model and loss have no second derivatives, "" each where they have."""
    loss = _reason(lambda: jacrev(grad(some.loss))(output, some.y[0]))
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
    v = torch.from_numpy(np.random.default_rng(1).standard_normal(len(theta)))
    v = torch.where(gradient != 0, v, 0.0)
    product = some.each(lambda u: back(u)[0])(torch.stack([v, v]))[0]
    tolerance = 1e-4 * (product.norm() + gradient.norm())
    if not torch.isfinite(tolerance):
        return
    for h in (1e-5, 1e-7):  # a kink may lie within the first
        difference = (slope(theta + h * v) - slope(theta - h * v)) / (2 * h)
        if (difference - product).norm() <= tolerance:
            return
    raise ArithmeticError("it disagrees with differences of the gradient")


def _warn(model, loss):
    who, why = ("loss", loss) if loss else ("model", model)
    work = "gradients and training" + ("" if loss else ", and what takes Gauss–Newton")
    warnings.warn(
        f"the {who} has no second derivative ({why}): what needs it will refuse; {work} work",
        stacklevel=4,
    )
