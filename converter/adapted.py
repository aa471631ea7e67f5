"""An untouched model with its adapter beside it: what merged graphs are compared with.

Nothing is merged here: a module's output gets `scale * b(a(input))` added, as peft runs adapters. So a wrong merge
shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from converter.checkpoints.lora import LowRank
from converter.errors import CheckpointError
from converter.recipes import Load, read
from converter.records import Checkpoint, TensorInfo
from converter.tracing.conversions import Names, adapted_weights


def attach_adapter(
    model: nn.Module, checkpoint: Checkpoint, key_mapping: Mapping[str, str] | None = None
) -> None:
    """Let `model`, the base model with its weights, compute what it computes with the checkpoint's adapter, if any.

    Raises CheckpointError where a module was replaced whole and the model's weights lie on disk.
    """
    adapter = checkpoint.adapter
    if adapter is None:
        return
    for target, weight in adapted_weights(Names(model, key_mapping), checkpoint).items():
        if weight in adapter.replaced:
            _replace(model, target, adapter.replaced[weight])
        else:
            change = adapter.added[weight]
            model.get_submodule(target.rpartition(".")[0]).register_forward_hook(_added(change))


def attach_to(layer: nn.Linear, name: str, checkpoint: Checkpoint) -> None:
    """Fill a layer beside the base model with the checkpoint's tensors called `name`, and what the adapter adds."""
    adapter = checkpoint.adapter
    replaced = {} if adapter is None else adapter.replaced
    stored = {**checkpoint.tensors, **replaced}
    with torch.no_grad():
        for part, parameter in layer.named_parameters():
            parameter.copy_(fp32(stored[f"{name}.{part}"]))
    if adapter is not None and f"{name}.weight" in adapter.added:
        layer.register_forward_hook(_added(adapter.added[f"{name}.weight"]))


def fp32(info: TensorInfo) -> torch.Tensor:
    """A tensor of a checkpoint, whole, in float32."""
    return torch.from_numpy(np.asarray(read(Load(info)), np.float32))


def _replace(model: nn.Module, target: str, info: TensorInfo) -> None:
    parameter = model.get_parameter(target)
    if parameter.is_meta:
        raise CheckpointError(
            f"{target} is replaced by the adapter, and the base model does not fit into memory to replace it in",
            remedy="--parity structural proves a small sibling instead",
        )
    with torch.no_grad():
        parameter.copy_(fp32(info))


def _added(change: LowRank) -> Callable[[nn.Module, Any, torch.Tensor], torch.Tensor]:
    """A forward hook, for layers of numbers and for tables of embeddings."""
    a, b = fp32(change.a), fp32(change.b)

    def hook(module: nn.Module, arguments: Any, output: torch.Tensor) -> torch.Tensor:
        (inputs,) = arguments
        if isinstance(module, nn.Embedding):
            inner = nn.functional.embedding(inputs, a.T)
        else:
            inner = nn.functional.linear(inputs, a)
        return output + change.scale * nn.functional.linear(inner, b)

    return hook
