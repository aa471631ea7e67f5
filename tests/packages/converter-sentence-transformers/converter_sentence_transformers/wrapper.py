"""A sentence-transformers model with an interface a graph can have."""

from __future__ import annotations

import torch
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn


class SentenceEncoder(nn.Module):
    """Token ids in; the encoder's hidden states and the vector of each text out.

    `model` is a SentenceTransformer, or any sequence of modules of which the first keeps the encoder as `model`. What
    follows the pooling is called as it is.
    """

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        first, *heads = model
        self.encoder = first.model
        self.heads = nn.ModuleList(heads)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        prompt_length: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """All inputs int64: (batch, sequence), and `prompt_length` (batch): the tokens that pooling leaves out.

        Returns (batch, sequence, hidden) and (batch, dimension).
        """
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **segments)[0]
        features = {"token_embeddings": hidden, "attention_mask": attention_mask}
        for head in self.heads:
            if isinstance(head, Pooling):
                tokens = features["token_embeddings"]
                features["sentence_embedding"] = pool(head, tokens, attention_mask, prompt_length)
            else:
                features = head(features)
        return hidden, features["sentence_embedding"]


def pool(
    pooling: Pooling, tokens: torch.Tensor, mask: torch.Tensor, prompt_length: torch.Tensor | None = None
) -> torch.Tensor:
    """What `pooling` makes of (batch, sequence, hidden) under a mask (batch, sequence): (batch, modes x hidden).

    Restates `Pooling.forward` of sentence-transformers 6.2, which takes one prompt length for the whole batch, and
    branches in Python on it and on the padding.
    """
    modes = (pooling.pooling_mode,) if isinstance(pooling.pooling_mode, str) else pooling.pooling_mode
    # Places count from the first token of each text, whatever padding is before it.
    places = torch.arange(mask.shape[1], device=mask.device) - mask.int().argmax(dim=1, keepdim=True)
    kept = mask if prompt_length is None else mask * (places >= prompt_length[:, None])
    return torch.cat([_pool(mode, tokens, kept, places) for mode in modes], dim=-1)


def _pool(mode: str, tokens: torch.Tensor, kept: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    if mode in ("cls", "lasttoken"):
        # The first kept place, or the last one.
        order = kept.int() if mode == "cls" else kept.int() * (places.int() + 1)
        chosen = order.argmax(dim=1)[:, None, None].expand(-1, 1, tokens.shape[2])
        return tokens.gather(1, chosen).squeeze(1)
    if mode == "max":
        return tokens.masked_fill(kept[:, :, None] == 0, float("-inf")).amax(dim=1)
    weights = kept * (places + 1) if mode == "weightedmean" else kept
    weights = weights[:, :, None].to(tokens.dtype)  # (batch, sequence, 1)
    count = weights.sum(dim=1).clamp(min=1e-9)
    return (tokens * weights).sum(dim=1) / (count.sqrt() if mode == "mean_sqrt_len_tokens" else count)
