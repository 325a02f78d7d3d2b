"""A reader's torch Dataset or DataLoader, as arrays."""

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

BATCH = 1024  # examples read at a time from a Dataset


def gathered(source):
    """All pairs (x, y) of a Dataset or a DataLoader: (X, y), in the order of the dataset.

    source : its items, or batches, are pairs; x a tensor, or a tuple, list or dict of tensors; they
    come to an end. Of a Dataset 1,024 are read at a time. A loader's own order and its dropping of
    a last batch do not count, its `collate_fn` does. Raises TypeError for items that are no pairs
    or do not go together, ValueError for no items and for a loader that chooses among them.

    Memory: 16 n p bytes, p the numbers of an item.
    """
    xs, ys = [], []
    for batch in _batches(source):
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            what = (
                f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else type(batch).__name__
            )
            raise TypeError(
                f"a dataset's items must be pairs (x, y); got {what}. Several inputs go together "
                "as x, in a tuple or a dict"
            )
        if not isinstance(batch[1], torch.Tensor) or not batch[1].ndim:
            raise TypeError(
                f"a dataset's y must be numbers, and a loader's come in batches; got {batch[1]!r}"
            )
        xs.append(_tuples(batch[0]))
        ys.append(batch[1])
    if not xs:
        raise ValueError("a dataset must hold at least one pair (x, y); got none")
    try:
        return _joined(xs), torch.cat(ys)
    except (RuntimeError, TypeError, KeyError, ValueError) as error:
        raise TypeError(f"a dataset's items must have one shape and one form; {error}") from error


def _batches(source):
    """The batches of a source, in the order of its dataset, to the last."""
    collate = getattr(source, "collate_fn", None)
    if not isinstance(source, DataLoader):
        source = DataLoader(source, BATCH)
    elif source.batch_sampler is not None:
        if not isinstance(source.dataset, IterableDataset):
            _require_all(source)
        size = source.batch_size or BATCH
        source = DataLoader(source.dataset, size, collate_fn=collate)
    elif not isinstance(source.dataset, IterableDataset):  # its items are batches
        _require_all(source)
        source = DataLoader(source.dataset, None, collate_fn=collate)
    batches = iter(source)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (RuntimeError, TypeError) as error:
            raise TypeError(f"a dataset's items must go together in batches; {error}") from error
        yield batch


def _require_all(loader):
    """That a loader goes over all examples, in whatever order, and does not choose among them."""
    batches = loader.batch_sampler
    sampler = getattr(batches, "sampler", loader.sampler)
    every = isinstance(sampler, SequentialSampler) or (
        isinstance(sampler, RandomSampler)
        and not sampler.replacement
        and sampler.num_samples == len(loader.dataset)
    )
    if not every or type(batches) not in (BatchSampler, type(None)):
        raise ValueError(
            "a loader must go over all examples of its dataset; this one's sampler chooses among "
            "them. torch.utils.data.Subset makes a dataset of those that are meant"
        )


def _tuples(x):
    """Lists, as a loader makes them of tuples, turned back."""
    if isinstance(x, dict):
        return {key: _tuples(part) for key, part in x.items()}
    return tuple(map(_tuples, x)) if isinstance(x, (list, tuple)) else x


def _joined(batches):
    first = batches[0]
    if isinstance(first, (dict, tuple)) and {type(first)} != set(map(type, batches)):
        raise TypeError("some have parts that others do not have")
    if isinstance(first, dict):
        keys = dict.fromkeys(key for batch in batches for key in batch)
        return {key: _joined([batch[key] for batch in batches]) for key in keys}
    if isinstance(first, tuple):
        return tuple(map(_joined, zip(*batches, strict=True)))
    return torch.cat(batches)
