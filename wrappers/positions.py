"""Rotary positions that transformers stretches by the longest text a model has seen (`dynamic`), without that memory.

What a model computes then depends on what it was called with before. A graph remembers nothing: it computes what the
model does where the longest text so far is the one at hand, which is so in every generation from a start.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS


def remembering(model: nn.Module) -> list[Any]:
    """The rotary modules that keep the length of the longest text."""
    dynamic = (module for module in model.modules() if getattr(module, "rope_type", None) == "dynamic")
    return [module for module in dynamic if not stretched_always(module.config)]


def stretched_always(config: Any) -> bool:
    """Whether it is HunYuan's, which as published stretches by an `alpha` alone, however long the text."""
    return config.model_type.startswith("hunyuan") and bool(config.rope_parameters.get("alpha"))


def forget(model: nn.Module) -> None:
    """Have an untouched model turn positions as it does when freshly loaded: a text of one token resets it."""
    for rotary in remembering(model):
        rotary(torch.zeros(1), torch.zeros(1, 1, dtype=torch.int64))


@contextmanager
def memoryless(model: nn.Module) -> Iterator[None]:
    """While it lasts, positions are turned by the text at hand alone."""
    modules = remembering(model)
    for rotary in modules:
        rotary.forward = partial(_turned, rotary)
    try:
        yield
    finally:
        for rotary in modules:
            del rotary.forward


def _turned(rotary: Any, x: torch.Tensor, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`dynamic_rope_update` around the module's own forward, its two branches as a choice between frequencies."""
    length = position_ids.max() + 1
    stretched, scaling = ROPE_INIT_FUNCTIONS["dynamic"](rotary.config, x.device, seq_len=length)
    frequencies = torch.where(length > rotary.original_max_seq_len, stretched, rotary.original_inv_freq)
    turned: tuple[torch.Tensor, torch.Tensor] = inspect.unwrap(type(rotary).forward)(
        _Turned(rotary, frequencies, scaling), x, position_ids
    )
    return turned


class _Turned:
    """A rotary module with other frequencies than it holds."""

    def __init__(self, rotary: Any, frequencies: torch.Tensor, scaling: float) -> None:
        self.rotary, self.inv_freq, self.attention_scaling = rotary, frequencies, scaling

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rotary, name)
