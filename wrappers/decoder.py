"""Causal language models: one graph for prefill and decode, past key values as flat tensors."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache


class Decoder(nn.Module):
    """Token ids, a mask and, where the model takes them, positions in, logits out; nothing is remembered."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, position_ids: torch.Tensor | None = None
    ) -> torch.Tensor:
        """int64 (batch, sequence) each -> logits (batch, sequence, vocabulary)."""
        output = self.model(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **given(position_ids)
        )
        logits: torch.Tensor = output.logits
        return logits


class DecoderWithPast(nn.Module):
    """As `Decoder`, with each layer's keys and values taken in and given back, the new ones appended.

    Nothing that has left a sliding window is dropped: every layer's past has the same length, and the mask hides it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor | None = None,
        **past: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Past: (batch, heads, past, head size), key and value of each layer in turn; the mask covers past and new."""
        cache = fill(DynamicCache(), past)
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            use_cache=True,
            **{cache_name(self.model): cache},
            **given(position_ids),
        )
        return (output.logits, *flat(cache))


def given(position_ids: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """An argument for the models that take it."""
    return {} if position_ids is None else {"position_ids": position_ids}


def cache_name(model: nn.Module) -> str:
    """The argument that takes a cache: `cache` since transformers 5.24, another in older code of checkpoints."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def fill(cache: Any, past: Mapping[str, torch.Tensor]) -> Any:
    """`cache`, now holding the flat tensors, in their order."""
    tensors = list(past.values())
    for layer in range(len(tensors) // 2):
        cache.update(tensors[2 * layer], tensors[2 * layer + 1], layer)
    return cache


def flat(cache: Any) -> tuple[torch.Tensor, ...]:
    """The cache's tensors, key and value of each layer in turn."""
    return tuple(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))
