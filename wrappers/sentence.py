"""Text encoders and decoders as sentence embedders: pooling, dense layers and normalisation inside the graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from converter.wrappers.text_encoder import without_cache


def pooled(mode: str, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One vector per text, as in sentence-transformers' `Pooling`: (batch, tokens, dim) -> (batch, dim).

    mask  int64 (batch, tokens); padding may stand on either side
    """
    positions = torch.arange(mask.shape[1], device=mask.device)
    if mode in ("cls", "lasttoken"):
        real = mask.bool()
        first = torch.where(real, positions, mask.shape[1]).amin(1)
        last = torch.where(real, positions, -1).amax(1)
        chosen = first if mode == "cls" else last
        index = chosen.clamp(0, mask.shape[1] - 1)[:, None, None].expand(-1, 1, hidden.shape[-1])
        return hidden.gather(1, index)[:, 0]
    if mode == "max":
        return hidden.masked_fill(~mask.bool()[..., None], float("-inf")).amax(1)
    weights = mask.to(hidden.dtype)
    if mode == "weightedmean":
        weights = weights * (positions + 1).to(hidden.dtype)
    total = (hidden * weights[..., None]).sum(1)
    count = weights.sum(1, keepdim=True).clamp(min=1e-9)
    return total / (count.sqrt() if mode == "mean_sqrt_len" else count)


class SentenceEncoder(nn.Module):
    """Hidden states of the tokens and one embedding per text."""

    def __init__(self, model: Any, head: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.modes = tuple(head["pooling"])
        self.normalize = bool(head["normalize"])
        self.activations = nn.ModuleList(getattr(nn, entry["activation"])() for entry in head["dense"])
        self.options = without_cache(model)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All inputs int64 (batch, sequence) -> (batch, sequence, hidden) and (batch, embedding)."""
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, **segments, **self.options)
        hidden = output.last_hidden_state
        embedding = torch.cat([pooled(mode, hidden, attention_mask) for mode in self.modes], dim=-1)
        for place, activation in enumerate(self.activations):
            embedding = activation(self.model.sentence_dense[place](embedding))
        if self.normalize:
            embedding = nn.functional.normalize(embedding, dim=-1)
        return hidden, embedding
