"""Text encoders of one signature: token ids and a mask in, hidden states or a head's logits out."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn


def without_cache(model: nn.Module) -> dict[str, Any]:
    """The argument that keeps a causal model from making a cache, for those that take it."""
    return {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}


class TextEncoder(nn.Module):
    """Calls the model by name and returns the named fields of its output, in order."""

    def __init__(self, model: nn.Module, fields: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.fields = fields
        self.options = without_cache(model)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        bbox: torch.Tensor | None = None,
        xpath_tags_seq: torch.Tensor | None = None,
        xpath_subs_seq: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, ...]:
        """All inputs int64 (batch, sequence), places on a page with several numbers a token; outputs as the head's."""
        optional = {
            "token_type_ids": token_type_ids,
            "bbox": bbox,
            "xpath_tags_seq": xpath_tags_seq,
            "xpath_subs_seq": xpath_subs_seq,
        }
        given = {name: tensor for name, tensor in optional.items() if tensor is not None}
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, **given, **self.options)
        return tuple(output[field] for field in self.fields)
