"""What a reader's own loss does and probably does not mean: found by trying it, and told.

A loss is a function of one example. What it gives for several, or for a target of another shape
than the output's, shows two things that it would otherwise do without a word.
"""

import warnings

import numpy as np
import torch

PAIRS = 16  # of targets, that a loss is tried on together


def found(tensors, theta, output, classes, labels):
    """What is to be told of the loss of `Tensors` at θ, as sentences.

    output : of the first example. classes : whether its targets are whole numbers. labels : whether
    they came as integers, so that none of them is an output's own value.
    """
    told, y = [], tensors.y
    if classes and _is_weighted_mean(tensors, theta):
        told.append(
            "the loss of two examples together is a mean of theirs by unequal weights, as class "
            "weights or ignored entries give them; a Risk takes the loss of one example at a time, "
            "in which such weights cancel. To count, they must multiply it, as in "
            "w[y] * risk.cross_entropy(f, y), or be its weights in R_w"
        )
    if not labels and _is_broadcast(tensors.loss, output, y):
        told.append(
            f"the loss compares an output of shape {tuple(output.shape)} with a target of shape "
            f"{tuple(y.shape[1:])} entry by entry, and repeats what is missing. If that is not "
            "meant, y must have one entry for each output"
        )
    return told


def _is_weighted_mean(tensors, theta):
    """Whether two examples' loss together is a mean of theirs, by weights that the targets give.

    On outputs that the model gives at four points, for examples whose targets differ, stacked
    or one behind the other. What a loss gives for several is its own affair, an error or a norm;
    but such a mean, at all of them, says that it divides by weights.
    """
    some, rng = tensors.subset(_different(tensors.y)), np.random.default_rng(3)
    pairs = [[i, i + 1] for i in range(some.n - 1)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            outputs = [
                some.outputs(theta + torch.from_numpy(0.3 * rng.standard_normal(len(theta))))
                for _ in range(4)
            ]
            each = [[float(some.loss(*pair)) for pair in zip(f, some.y)] for f in outputs]
        except Exception:  # of a model or a loss that such a point does not suit
            return False
        each = np.array(each)
        joined = (_stacked, _one_behind_the_other) if some.y.ndim > 1 else (_stacked,)
        return any(
            _is_mean(each[:, pair], [_number(some.loss, join(f[pair]), join(y)) for f in outputs])
            for join in joined
            for pair, y in ((pair, some.y[pair]) for pair in pairs)
        )


def _different(y):
    """Rows of a few examples whose targets differ, that of the smallest entry and the largest.

    Out of at most 256 that are drawn, of 2¹⁶ numbers in all, but at least 16.
    """
    count = min(256, max(PAIRS, 2**16 // y[0].numel()))
    rows = [int(end) // y[0].numel() for end in (y.argmin(), y.argmax())]
    rows += np.random.default_rng(2).integers(len(y), size=count).tolist()
    _, first = np.unique(y[rows].numpy(), axis=0, return_index=True)
    return [rows[i] for i in sorted(first)][: PAIRS + 1]


def _stacked(pair):
    return pair


def _one_behind_the_other(pair):
    return pair.flatten(0, 1) if pair.ndim > 1 else pair


def _number(loss, f, y):
    """The loss as a number, NaN where it is none."""
    try:
        found = loss(f, y)
        return np.nan if found.ndim else float(found)
    except Exception:  # a loss of one example alone
        return np.nan


def _is_mean(each, both):
    """Whether the numbers `both` (k,) are a mean of each (k, 2) by two weights that differ."""
    if not np.isfinite(np.c_[each, both]).all():
        return False
    share, _, rank, _ = np.linalg.lstsq(each, both, rcond=1e-6)
    if rank < 2 or np.abs(each @ share - both).max() > 1e-9 * np.abs(both).max():
        return False
    return bool(abs(share.sum() - 1) < 1e-6 and 1e-6 < share.min() < 0.5 - 1e-6)


def _is_broadcast(loss, output, y):
    """Whether a loss that compares entry by entry repeats an output or a target to do so.

    It gives the same once they are repeated; each target then belongs to its own output, their
    order does not matter, and each pair adds its own part. What means to take them so, as a
    likelihood with mean and spread for outputs, several quantiles or a mixture, is none of these.
    """
    shape, target = output.shape, y.shape[1:]
    try:
        full = torch.broadcast_shapes(shape, target)
    except RuntimeError:
        return False
    if shape == target or full.numel() == 1:
        return False

    def at(f, t):
        return _number(loss, f.reshape(full), t.reshape(full))

    repeated = at(output.expand(full), y[0].expand(full))
    if not np.isclose(_number(loss, output, y[0]), repeated, rtol=1e-10, atol=0):
        return False
    rng, paired = np.random.default_rng(4), False
    for draw in range(8):
        places = rng.integers(y.numel(), size=full.numel())
        if draw == 0:
            places[:2] = int(y.argmin()), int(y.argmax())
        t, factor = y.reshape(-1)[places], torch.from_numpy(rng.uniform(0.5, 1, full.numel()))
        f = output.expand(full).reshape(-1)
        f = torch.where(f == 0, factor, f * factor)
        half, turned = torch.arange(len(f)) < len(f) // 2, (f.roll(1), t.roll(1))
        own = at(f, t)
        parts = own + at(*turned) - at(*(torch.where(half, *two) for two in zip((f, t), turned)))
        parts -= at(*(torch.where(half, *two) for two in zip(turned, (f, t))))
        if not (np.isclose(own, at(*turned), rtol=1e-10, atol=0) and abs(parts) < 1e-10 * abs(own)):
            return False
        paired |= not np.isclose(own, at(f, turned[1]), rtol=1e-6, atol=0)
    return paired
