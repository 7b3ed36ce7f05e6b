"""Copies of a module's tensors, and the way back into them, whatever their layout."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy


def copied(tensors: Iterable[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """Copy tensors: each with its copy, for `load_tensors`; lazy ones, which hold nothing so far, are left out.

    Raises:
        RuntimeError: For a tensor that cannot be copied, or not be written to; torch's own words.
    """
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors if not is_lazy(tensor)]
    for tensor, values in kept:
        if tensor.layout != torch.strided or tensor.is_nested:  # better now than when it is to be put back
            _write(tensor, values)
    return kept


def load_tensors(kept: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Give tensors the values that they had when they were copied; one that refuses costs the others nothing."""
    refusal = None
    for tensor, values in kept:
        try:
            _write(tensor, values)
        except Exception as error:
            refusal = error
    if refusal is not None:
        raise refusal


def are_equal(kept: Sequence[tuple[Tensor, Tensor]]) -> bool:
    """Whether tensors are as they were when they were copied; False where torch cannot tell."""
    try:
        return all(torch.equal(tensor, values) for tensor, values in kept)
    except RuntimeError:  # sparse ones
        return False


def _write(tensor: Tensor, values: Tensor) -> None:
    has_strides = tensor.layout == torch.strided and not tensor.is_nested
    if has_strides and 0 in tensor.stride():  # expanded: many places, one number
        once = tuple(slice(None if stride else 1) for stride in tensor.stride())
        tensor, values = tensor[once], values[once]
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        tensor.copy_(values)
