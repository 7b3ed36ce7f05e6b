"""How much gradient reaches each unit: a pass over a few training examples that leaves no trace."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from training_health import lightning as pl
from training_health.batches import size_of
from training_health.relu.sites import ReLUCall, ReLUSites
from training_health.training_sample.isolation import Copies, isolated
from training_health.training_sample.sample import training_sample


def gradient_sums(
    trainer: pl.Trainer, pl_module: pl.LightningModule, examples: int, seed: int, eager: bool
) -> tuple[dict[str, np.ndarray], float]:
    """Add up, per site and unit, the absolute gradient of the loss by the ReLU's input, over examples and positions.

    The loss is that of ``training_step``, in eval mode and with autocast as in training, on this rank's part of a fixed
    sample of training examples; each example counts the same, whatever its batch. The second value is how many they
    are. All that the step does is undone.

    Raises:
        Exception: Whatever the module raises, or why there is no sample.
    """
    sums: dict[str, np.ndarray] = {}
    count = 0.0
    calls: list[ReLUCall] = []
    sites = ReLUSites(calls.append, eager)
    with isolated(trainer, Copies(trainer, pl_module)), torch.inference_mode(False), torch.enable_grad():
        batches = training_sample(trainer, examples, seed)
        try:
            sites.attach(pl_module)
            for batch_idx, batch in enumerate(batches):
                batch = pl.to_device(trainer, pl_module, batch)
                calls.clear()
                sites.begin_pass()
                loss = pl.training_loss(trainer, pl_module, batch, batch_idx)
                sites.end_pass()
                known = [call for call in calls if call.output.requires_grad]
                size = size_of(batch, batches, batch_idx).examples
                outputs = [call.output for call in known]
                gradients = torch.autograd.grad(loss, outputs, allow_unused=True) if outputs else ()
                for call, gradient in zip(known, gradients, strict=True):
                    found = _per_unit(call, gradient) * size
                    sums[call.site] = sums.get(call.site, 0) + found
                count += size
        finally:
            sites.detach()
    return sums, count


def _per_unit(call: ReLUCall, gradient: Tensor | None) -> np.ndarray:
    output = call.output.detach()
    if gradient is None:  # the loss does not depend on it
        return np.zeros(output.shape[call.unit_dim])
    others = [d for d in range(output.dim()) if d != call.unit_dim]
    # The ReLU's own backward, in one pass: the gradient where the output is above 0.
    by_input = torch.ops.aten.threshold_backward(gradient, output, 0).abs_()
    if call.activation != "relu":  # nor at its upper end, which is not seen of a hardtanh in place
        by_input[(output >= 6) if call.activation == "relu6" else (call.input.detach() > output)] = 0
    sums = by_input.sum(dim=others, dtype=torch.promote_types(output.dtype, torch.float32))
    return sums.cpu().double().numpy()
