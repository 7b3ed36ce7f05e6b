"""How many examples a batch holds, and which of them another rank has as well."""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset

from training_health.random_generators import generators_in

ExampleCounter = Callable[[Any], int | None]
_COLOURS = {1, 3, 4}  # of single pictures (C, H, W)
_LABELS = {"y", "label", "labels", "target", "targets"}


class BatchSize(NamedTuple):
    """A batch's examples, NaN where unknown; the first ``counted`` of them count, the rest is another rank's."""

    examples: float
    counted: float


def size_of(
    batch: Any,  # noqa: ANN401 - whatever the user's loader yields
    loader: Any,  # noqa: ANN401
    batch_idx: int,
    own: ExampleCounter | None = None,
    logged: float | None = None,
) -> BatchSize:
    """Count the examples of batch number ``batch_idx`` of an evaluation loader.

    The user's ``own`` count, or else what the loader drew and its collation left, the graphs that the batch names, what
    a batch sampler of the user's own draws, what the step has ``logged`` as its ``batch_size`` (NaN: several), or what
    the batch itself shows. The loader and the graphs come before the log, where many weigh a mean with tokens or nodes:
    so more than the batch shows is unknown.
    """
    shown = None
    with suppress(Exception):  # a monitor never ends a run
        shown = count_examples(batch)
    named = None if logged == 1 else logged  # many say 1 where it does not matter
    if named and shown and named > shown:
        named = math.nan
    first = (
        [lambda: own(batch)]
        if own
        else [
            lambda: _collated(batch, _drawn(loader, batch_idx)),
            lambda: _graphs(batch),
            lambda: _drawn_by_own_sampler(batch, loader, batch_idx),
        ]
    )
    examples = 0.0
    for source in (*first, lambda: named, lambda: math.nan if _may_be_time_first(batch) else shown, lambda: logged):
        try:
            examples = float(source() or 0)
        except Exception:
            examples = math.nan if own and source is first[0] else 0  # the user's own stands, also where it fails
        if examples:
            break
    if not examples or not math.isfinite(examples):
        return BatchSize(math.nan, math.nan)
    return BatchSize(int(examples), int(examples) - ends_in_a_repeat(loader, batch_idx))


def _drawn(loader: Any, batch_idx: int) -> int | None:  # noqa: ANN401
    """How many indices a loader drew for a batch; None where it, or one index, may stand for something else."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    sampler: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    if isinstance(sampler, list):
        lists = all(hasattr(some, "__len__") and getattr(some, "ndim", 1) for some in sampler)  # not single indices
        return len(sampler[batch_idx]) if lists and len(sampler[0]) > 1 else None
    if type(sampler) is not BatchSampler or sampler.batch_size == 1 or not hasattr(sampler.sampler, "__len__"):
        return None
    drawn: Any = sampler.sampler
    left = len(drawn) - batch_idx * sampler.batch_size
    return min(sampler.batch_size, left) if left > 0 else None


_own_lengths: WeakKeyDictionary[DataLoader[Any], list[int]] = WeakKeyDictionary()  # in the pass that runs


def _drawn_by_own_sampler(batch: Any, loader: Any, batch_idx: int) -> int | None:  # noqa: ANN401
    """How many indices a batch sampler of the user's own gives, where no labels say and all tensors have as many."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset) or _labels(batch) is not None:
        return None
    if batch_idx == 0 or loader not in _own_lengths:
        _own_lengths[loader] = []
        _own_lengths[loader] = _lengths_of_draws(loader)
    drawn = _own_lengths[loader][batch_idx]
    return drawn if all(drawn in tensor.shape[:2] for tensor in tensors_in(batch)) else None


def _lengths_of_draws(loader: DataLoader[Any]) -> list[int]:
    """How many indices each draw of a loader has; empty where that differs from one pass to the next, or is always 1.

    A copy of the sampler is asked, and random generators are put back: training is not touched.
    """
    sampler: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng([]))
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state())
        for get, put in generators_in(sampler, but=(loader.dataset,)):
            stack.callback(put, get())
        twin, most = copy.deepcopy(sampler, {id(loader.dataset): loader.dataset}), len(loader.dataset)  # type: ignore[arg-type]
        first, again = ([len(drawn) for drawn in itertools.islice(iter(twin), most)] for _ in range(2))
    return first if first == again and max(first) > 1 else []


def _collated(batch: Any, drawn: int | None) -> float | None:  # noqa: ANN401
    """How many of the examples drawn a ``collate_fn`` has left in the batch, where it leaves out broken ones.

    NaN where there are fewer labels than that, which may be those of fewer examples or of the objects in them.
    """
    if drawn is None:
        return None
    graphs, labels = _graphs(batch), _labels(batch)
    if graphs is not None:
        return min(drawn, graphs or drawn)
    if labels is None or labels >= drawn or hasattr(batch, "edge_index"):
        return drawn
    lengths = {tensor.size(0) for tensor in tensors_in(batch)}
    return labels if lengths == {labels} else drawn if drawn in lengths else math.nan


def count_examples(batch: Any) -> int | None:  # noqa: ANN401
    """Count the examples that a batch shows: graphs, or labels, or the first dimension where all tensors agree in it.

    >>> import torch
    >>> count_examples((torch.zeros(5, 8, 3), torch.zeros(8)))  # time first, one label for each of 8 sequences
    8
    >>> count_examples((torch.zeros(5, 8, 3), torch.zeros(7, 8))) is None
    True
    """
    if (graphs := _graphs(batch)) is not None:
        return graphs
    if hasattr(batch, "edge_index"):
        return 1
    if (labels := _labels(batch)) is not None:
        return labels
    tensors = list(tensors_in(batch))
    lengths = {tensor.size(0) for tensor in tensors}
    if isinstance(batch, list) and len(tensors) > 4 and lengths <= _COLOURS and {t.dim() for t in tensors} == {3}:
        return None
    return lengths.pop() if len(lengths) == 1 else None


def _may_be_time_first(batch: Any) -> bool:  # noqa: ANN401
    """Whether a batch is one of sequences in and out, (A, B, F) and (A, B, G): A or B may be the examples."""
    shapes = {tensor.shape for tensor in tensors_in(batch)}
    first = {shape[:2] for shape in shapes}
    return len(shapes) > 1 and {*map(len, shapes)} == {3} and len(first) == 1 and first.pop()[0] > 1


def _graphs(batch: Any) -> int | None:  # noqa: ANN401
    graphs = getattr(batch, "num_graphs", None)
    return graphs if isinstance(graphs, int) else None


def _labels(batch: Any) -> int | None:  # noqa: ANN401
    """Count the labels, where there is one vector of them."""
    parts = dict(_parts(batch))
    labels = [part for name, part in parts.items() if name in _LABELS or (name == 1 and len(parts) == 2)]
    one = len(labels) == 1 and isinstance(labels[0], Tensor) and labels[0].dim() == 1
    return labels[0].size(0) if one else None


def first_tensor(batch: Any) -> Tensor | None:  # noqa: ANN401
    """Find the first tensor with a batch dimension in a tensor, mapping, sequence or object."""
    return next(tensors_in(batch), None)


def tensors_in(batch: Any, depth: int = 5) -> Iterator[Tensor]:  # noqa: ANN401
    """Find the tensors with a dimension in a tensor, mapping, sequence or object."""
    if isinstance(batch, Tensor):
        if batch.dim():
            yield batch
    elif depth:
        for _, part in _parts(batch):
            yield from tensors_in(part, depth - 1)


def _parts(batch: Any) -> Iterator[tuple[Any, Any]]:  # noqa: ANN401
    """Name and value of what a batch is made of; nothing is consumed that can be read once only."""
    if isinstance(batch, Mapping) or (hasattr(batch, "items") and hasattr(batch, "keys")):
        yield from batch.items()
    elif isinstance(batch, (list, tuple)):
        yield from zip(getattr(batch, "_fields", range(len(batch))), batch, strict=True)
    elif hasattr(batch, "__dict__") and not isinstance(batch, (type, Tensor)):
        yield from vars(batch).items()


def ends_in_a_repeat(loader: Any, batch_idx: int) -> bool:  # noqa: ANN401
    """Tell whether the last example of this rank's batch is one that another rank has as well.

    ``DistributedSampler`` pads an uneven data set with examples from its start; a rank gets at most one, as its last.
    """
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler) or sampler.drop_last or sampler.shuffle:
        return False
    # The rank's last position in the padded order is (num_samples - 1) * world + rank.
    last = (sampler.num_samples - 1) * sampler.num_replicas + sampler.rank
    return last >= len(sampler.dataset) and batch_idx == len(loader) - 1  # type: ignore[arg-type]
