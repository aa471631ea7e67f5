"""Causal language models: one graph for prefill and decode, past key values as flat tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class Decoder(nn.Module):
    """Token ids and a mask in, logits out; nothing is remembered."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, position_ids: torch.Tensor
    ) -> torch.Tensor:
        """int64 (batch, sequence) each -> logits (batch, sequence, vocabulary)."""
        output = self.model(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=False
        )
        logits: torch.Tensor = output.logits
        return logits


class DecoderWithPast(nn.Module):
    """As `Decoder`, with each layer's keys and values taken in and given back, the new ones appended."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        position_ids: torch.Tensor,
        **past: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Past: (batch, heads, past, head size), key and value of each layer in turn; the mask covers past and new."""
        cache = cache_of(past)
        output = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=cache,
            use_cache=True,
        )
        return (output.logits, *flat(cache))


def cache_of(past: Mapping[str, torch.Tensor]) -> Any:
    """A cache holding the flat tensors, in their order.

    Not `DynamicCache(config=...)`: that one drops what slides out of a window, so that past and present would have
    other lengths than the mask. The mask keeps the window either way.
    """
    from transformers import DynamicCache

    tensors = list(past.values())
    cache = DynamicCache()
    for layer in range(len(tensors) // 2):
        cache.update(tensors[2 * layer], tensors[2 * layer + 1], layer)
    return cache


def flat(cache: Any) -> tuple[torch.Tensor, ...]:
    """The cache's tensors, key and value of each layer in turn."""
    return tuple(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))
