"""The linear model, and losses ℓ(f, y) of an output f and a target y, written in torch."""

import copy
import warnings
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.func import grad

from ifcore.network import exponential, sigmoid

# torch's losses of classes, and those that compare output and target entry by entry
OF_CLASSES = (nn.CrossEntropyLoss, nn.NLLLoss)
ENTRYWISE = (
    nn.BCELoss,
    nn.BCEWithLogitsLoss,
    nn.HuberLoss,
    nn.KLDivLoss,
    nn.L1Loss,
    nn.MSELoss,
    nn.PoissonNLLLoss,
    nn.SmoothL1Loss,
    nn.SoftMarginLoss,
)


def linear(theta, x):
    """f(θ; x) = xᵀθ: linear regression with `squared`, logistic regression with `logistic`."""
    return x @ theta


# What a loss brings of its own, as attributes of the function; one that brings none works as well,
# by automatic differentiation, but its fits are not trained side by side.
#   slope : (f, targets, out), which writes ∇ℓ in the outputs f (m, n, K) into out, NumPy
#   targets : (y, K) ↦ what the slope needs, (n, K)
#   require : (output of one example, y), which raises ValueError for targets that do not fit
# torch's own losses see one example at a time, so that "mean" is that over its outputs.


def _brings(**parts):
    def attach(loss):
        for name, part in parts.items():
            setattr(loss, name, part)
        return loss

    return attach


def _rows(y, K):
    return y.reshape(len(y), -1)


def _one_hot(y, K):
    return (np.arange(K) == y.reshape(-1, 1)).astype(float)


def _require_outputs(output, y):
    if output.shape != y.shape[1:]:
        raise ValueError(
            f"y must have the shape (n, …) of the model's outputs, (n, …) = "
            f"{(len(y), *output.shape)}; got {y.shape}"
        )


def _require_labels(output, y):
    _require_outputs(output, y)
    if not np.isin(y, (0, 1)).all():
        raise ValueError(
            f"y must hold labels 0 and 1 for the logistic loss; got {np.unique(y)[:5]}"
        )


def _require_classes(output, y):
    if output.ndim != 1:
        raise ValueError(
            f"cross_entropy needs a model with an output (K,) an example; this one's is "
            f"{tuple(output.shape)}"
        )
    if y.ndim != 1:
        raise ValueError(f"y must hold one class an example, (n,); got shape {y.shape}")
    if not np.isin(y, np.arange(len(output))).all():
        raise ValueError(
            f"y must hold classes 0, …, {len(output) - 1} for this model; got {np.unique(y)[:5]}"
        )


def _require_torch_classes(loss, output, y):
    """That targets fit, and that "mean", which is that over one example, loses nothing."""
    name, shape = type(loss).__name__, tuple(output.shape)
    if not shape:
        raise ValueError(f"{name} needs a model with an output (K,) an example; this one's is ()")
    if y.shape[1:] == shape and isinstance(loss, nn.CrossEntropyLoss):
        if (y < 0).any():
            raise ValueError(f"y must hold probabilities for {name}; got {y.min():g}")
        return
    if y.shape[1:] != shape[1:]:
        raise ValueError(
            f"y must hold classes {(len(y), *shape[1:])}, or probabilities {(len(y), *shape)}, for "
            f"{name}; got shape {y.shape}"
        )
    mean, ignored = loss.reduction == "mean", y == loss.ignore_index
    if mean and loss.weight is not None and len(shape) == 1:
        raise ValueError(
            f"{name} with weights must have reduction='sum': 'mean' divides by the sum of the "
            "weights, which for one example is its own"
        )
    if mean and ignored.reshape(len(y), -1).all(1).any():
        raise ValueError(
            f"{name} with ignore_index = {loss.ignore_index} among y must have reduction='sum': "
            "the 'mean' over an example that is left out is NaN"
        )
    if not np.isin(y[~ignored], np.arange(shape[0])).all():
        raise ValueError(
            f"y must hold classes 0, …, {shape[0] - 1} for this model; got "
            f"{np.unique(y[~ignored])[:5]}"
        )


def _require_values(loss, y):
    """That targets have the values for which torch's loss is one."""
    name = type(loss).__name__
    if isinstance(loss, (nn.BCELoss, nn.BCEWithLogitsLoss)) and ((y < 0) | (y > 1)).any():
        raise ValueError(f"y must lie in [0, 1] for {name}; got {np.unique(y)[:5]}")
    if isinstance(loss, nn.SoftMarginLoss) and not np.isin(y, (-1, 1)).all():
        raise ValueError(f"y must hold labels -1 and 1 for {name}; got {np.unique(y)[:5]}")


def _squared_slope(f, targets, out):
    np.copyto(out, f)
    out -= targets


def _logistic_slope(f, targets, out):
    sigmoid(f, out)
    out -= targets


def _poisson_slope(f, targets, out):
    np.copyto(out, f)
    exponential(out)
    out -= targets


def _softmax_slope(f, targets, out):
    exponential(np.subtract(f, f.max(axis=2, keepdims=True), out=out))
    out /= out.sum(axis=2, keepdims=True)
    out -= targets


@_brings(slope=_squared_slope, targets=_rows, require=_require_outputs)
def squared(output, y):
    """ℓ(f, y) = ½‖f − y‖²."""
    return 0.5 * ((output - y) ** 2).sum()


@_brings(slope=_logistic_slope, targets=_rows, require=_require_labels)
def logistic(output, y):
    """ℓ(f, y) = log(1 + eᶠ) − yf for a label y in {0, 1}.

    Minus the log-likelihood of P(y = 1) = 1/(1 + e⁻ᶠ).
    """
    return _log_one_plus_exp((1 - 2 * y) * output)


@_brings(slope=_poisson_slope, targets=_rows, require=_require_outputs)
def poisson(output, y):
    """ℓ(f, y) = eᶠ − yf for a count y, or any y; minus a log-likelihood of the mean eᶠ."""
    return (torch.exp(output) - y * output).sum()


@_brings(slope=_softmax_slope, targets=_one_hot, require=_require_classes)
def cross_entropy(output, y):
    """ℓ(f, y) = log Σ_k e^{f_k} − f_y for a class y in 0, …, K − 1 and f of length K."""
    own = torch.arange(len(output)) == y
    others = (output - torch.where(own, output, 0).sum()).masked_fill(own, -torch.inf)
    return _log_one_plus_exp(torch.logsumexp(others, 0))


def _log_one_plus_exp(x):
    """log(1 + eˣ) with all its digits, which log(1 + eᶠ) − f has not where f is large."""
    # Below −700, eˣ < 1e-304 counts for nothing, and logaddexp's second derivative is NaN.
    return torch.logaddexp(torch.zeros_like(x), x.clamp(min=-700))


def bregman(loss, output, reference, y):
    """D(f, f′) = ℓ(f, y) − ℓ(f′, y) − ⟨∇ℓ(f′, y), f − f′⟩, the Bregman divergence of ℓ(·, y).

    loss : ℓ(f, y). output, reference : two outputs f, f′ of one shape. y : the target. Returns a
    tensor of no axes. At least 0 for every pair exactly where ℓ(·, y) is convex.
    Source: the notes' D; Bregman (1967).
    """
    f, reference, y = (torch.as_tensor(v, dtype=torch.float64) for v in (output, reference, y))
    if f.shape != reference.shape:
        raise ValueError(
            f"output and reference must have one shape; got {tuple(f.shape)} and "
            f"{tuple(reference.shape)}"
        )
    return loss(f, y) - loss(reference, y) - (grad(loss)(reference, y) * (f - reference)).sum()


def require(loss, output, y):
    """That targets y (n, …) fit a loss and the output of one example. Raises ValueError.

    A loss that compares entry by entry would repeat a target of another shape.
    """
    if hasattr(loss, "require"):
        loss.require(output, y.numpy())
    elif isinstance(loss, OF_CLASSES):
        _require_torch_classes(loss, output, y.numpy())
    elif isinstance(loss, ENTRYWISE):
        _require_outputs(output, y.numpy())
        _require_values(loss, y.numpy())
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Using a (target|input) size", UserWarning)
            try:
                loss(output, y[0])
            except UserWarning:
                _require_outputs(output, y.numpy())
            except Exception:  # the trial tells it
                return


def is_known(loss):
    """Whether a loss is this package's or torch's, whose targets `require` checks."""
    return hasattr(loss, "require") or isinstance(loss, OF_CLASSES + ENTRYWISE)


def in_double(loss):
    """The loss; one of torch's as a copy in float64, with the weights that it holds.

    A loss of classes takes outputs (K, …) of one example with its classes (…), as torch does only
    in a batch. A single weight beside outputs that are compared entry by entry is a number: for
    outputs (n, 1) torch has it as (1,), where the output of one example has no axis.
    """
    if not isinstance(loss, nn.Module):
        return loss
    loss = copy.deepcopy(loss).double()
    if isinstance(loss, OF_CLASSES):
        loss.forward = partial(_of_places, loss)
    if isinstance(loss, ENTRYWISE):
        for name, buffer in loss.named_buffers():
            setattr(loss, name, buffer.reshape(()) if buffer.shape == (1,) else buffer)
    return loss


def _of_places(loss, output, y):
    plain = type(loss).forward
    return plain(loss, output[None], y[None]) if output.ndim > 1 else plain(loss, output, y)


OWN = (squared, logistic, poisson, cross_entropy)
