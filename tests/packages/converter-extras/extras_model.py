"""Torch modules of the plugin in extras.py."""

from __future__ import annotations

import torch
from flawed_model import SIZE, Encoder
from torch import nn


class Pooled(nn.Module):
    """An encoder and the mean of what it gives over the valid positions."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        mask = attention_mask.unsqueeze(-1).float()
        pooled: torch.Tensor = (self.encoder(input_ids, attention_mask) * mask).sum(1) / mask.sum(1)
        return pooled


class Scorer(nn.Module):
    """An encoder with a head on its first position."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.head = nn.Linear(SIZE, 3)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.encoder(input_ids, attention_mask)[:, 0])
        return scores
