"""Parts of a model whose inside Python cannot see: compiled, scripted or fused."""

from collections.abc import Iterator

import torch
from torch import nn
from torch._dynamo import OptimizedModule


def why_opaque(module: nn.Module) -> str | None:
    """Say in words why calls inside ``module`` cannot be watched, or None if they can."""
    if isinstance(module, OptimizedModule) or getattr(module, "_compiled_call_impl", None) is not None:
        return "compiled with torch.compile"
    if isinstance(module, torch.jit.ScriptModule):
        return "a TorchScript module"
    if isinstance(module, (nn.RNN, nn.RNNCell)) and module.nonlinearity == "relu":
        return "a fused RNN with ReLU"
    return None


def walk_visible(root: nn.Module) -> Iterator[tuple[str, nn.Module, str | None]]:
    """Walk the modules below ``root`` in ``named_modules`` order, not into opaque ones.

    Args:
        root: The model. Is it compiled as a whole, only itself is yielded.

    Yields:
        Qualified name ("" for the root), module, and the reason if it is opaque.
    """
    seen: set[nn.Module] = set()

    def walk(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module, str | None]]:
        if module in seen:
            return
        seen.add(module)
        reason = why_opaque(module)
        yield name, module, reason
        if reason is None:
            for child_name, child in module.named_children():
                yield from walk(f"{name}.{child_name}" if name else child_name, child)

    if getattr(root, "_compiler_ctx", None) is not None:  # a LightningModule compiled before it reached the trainer
        yield "", root, "compiled with torch.compile"
    else:
        yield from walk("", root)
