"""A small transformer, and a wrapper around its own parts that makes one mistake of those people make."""

from __future__ import annotations

import torch
from torch import nn

SIZE, HEADS, WORDS, LENGTH = 24, 2, 53, 20


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(SIZE, SIZE) for _ in range(4))

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.out(attend(self, hidden, mask, scale=(SIZE // HEADS) ** -0.5))


def attend(own: Attention, hidden: torch.Tensor, mask: torch.Tensor | None, scale: float) -> torch.Tensor:
    heads = [
        layer(hidden).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (own.query, own.key, own.value)
    ]
    scores = heads[0] @ heads[1].transpose(-1, -2) * scale
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :].bool(), -1e9)
    return (scores.softmax(-1) @ heads[2]).transpose(1, 2).flatten(2)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.norm = nn.LayerNorm(SIZE)
        self.dense = nn.Linear(SIZE, SIZE)
        self.final = nn.LayerNorm(SIZE)

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        hidden = self.norm(hidden + self.attention(hidden, mask))
        return self.final(hidden + torch.relu(self.dense(hidden)))


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, SIZE)
        self.positions = nn.Embedding(LENGTH + 2, SIZE)
        self.layers = nn.ModuleList(Layer() for _ in range(2))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden = self.words(input_ids) + self.positions(positions[None])
        for layer in self.layers:
            hidden = layer(hidden, attention_mask)
        return hidden


class FlawedEncoder(nn.Module):
    """The encoder restated. `flaw` is `none`, or what is wrong in the second layer, or with the positions: `length`
    is right up to nine of them."""

    def __init__(self, model: Encoder, flaw: str) -> None:
        super().__init__()
        self.model = model
        self.flaw = flaw

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        if self.flaw == "position":
            positions = positions + 1
        if self.flaw == "length":
            positions = positions.clamp(max=8)
        hidden = self.model.words(input_ids) + self.model.positions(positions[None])
        for index, layer in enumerate(self.model.layers):
            hidden = self.restated(layer, hidden, attention_mask, self.flaw if index == 1 else "none")
        return hidden

    def restated(self, layer: nn.Module, hidden: torch.Tensor, mask: torch.Tensor, flaw: str) -> torch.Tensor:
        width = SIZE if flaw == "scale" else SIZE // HEADS
        context = attend(layer.attention, hidden, None if flaw == "mask" else mask, scale=width**-0.5)
        hidden = layer.norm(hidden + layer.attention.out(context))
        weight = layer.dense.weight
        dense = hidden @ weight + layer.dense.bias if flaw == "transposed" else layer.dense(hidden)
        return layer.final(hidden + torch.relu(dense))
