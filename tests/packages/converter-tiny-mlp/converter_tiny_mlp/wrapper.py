"""The model with an interface a graph can have: tensors in by name, tensors out in order."""

from __future__ import annotations

import torch
from torch import nn

from converter_tiny_mlp.model import ItemScorer


class ScoreItems(nn.Module):
    def __init__(self, model: ItemScorer) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        """(batch, features) and (batch, items) -> scores (batch, items)."""
        scores: torch.Tensor = self.model({"features": features, "item_ids": item_ids})["scores"]
        return scores
