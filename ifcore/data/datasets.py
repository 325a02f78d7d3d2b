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

    source : its items, or batches, are pairs; x a tensor, or a tuple, list or dict of tensors. A
    loader's own order and its dropping of a last batch do not count, its `collate_fn` does. Memory:
    the data, twice. Raises TypeError for items that are no pairs, ValueError for no items.
    """
    if not isinstance(source, DataLoader):
        source = DataLoader(source, BATCH)
    elif not isinstance(source.dataset, IterableDataset):
        _require_all(source)
        unbatched = source.batch_sampler is None  # then an item is a batch already
        size = None if unbatched else source.batch_size or 1
        source = DataLoader(source.dataset, size, collate_fn=source.collate_fn)
    xs, ys = [], []
    for batch in source:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            what = (
                f"{len(batch)} parts" if isinstance(batch, (tuple, list)) else type(batch).__name__
            )
            raise TypeError(
                f"a dataset's items must be pairs (x, y); got {what}. Several inputs go together "
                "as x, in a tuple or a dict"
            )
        xs.append(_tuples(batch[0]))
        ys.append(batch[1])
    if not xs:
        raise ValueError("a dataset must hold at least one pair (x, y); got none")
    return _joined(xs), torch.cat(ys)


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
    if isinstance(first, dict):
        return {key: _joined([batch[key] for batch in batches]) for key in first}
    if isinstance(first, tuple):
        return tuple(map(_joined, zip(*batches)))
    return torch.cat(batches)
