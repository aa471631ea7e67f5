"""The model as its authors wrote it: it takes a dict, which no graph can, and knows nothing of ONNX."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Config:
    features: int
    catalogue: int
    hidden: int
    layers: int


class ItemScorer(nn.Module):
    """Scores items of a catalogue for users described by a few numbers."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.enter = nn.Linear(config.features, config.hidden)
        self.layers = nn.ModuleList(nn.Linear(config.hidden, config.hidden) for _ in range(config.layers))
        self.items = nn.Embedding(config.catalogue, config.hidden)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        user = self.enter(batch["features"])  # (batch, hidden)
        for layer in self.layers:
            user = user + torch.tanh(layer(user))
        items = self.items(batch["item_ids"])  # (batch, items, hidden)
        return {"scores": torch.einsum("bh,bih->bi", user, items)}
