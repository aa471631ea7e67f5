"""Text encoders with a vector for every token, as ColBERT has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class Dense(nn.Module):
    """A projection as PyLate has it: linear, activation, and what went in added again where `residual` says so.

    A residual of another width than the output goes through a matrix of its own.
    """

    def __init__(self, linear: nn.Linear, activation: nn.Module, *, residual: bool) -> None:
        super().__init__()
        self.linear = linear
        self.activation = activation
        self.adds = residual
        wide = residual and linear.in_features != linear.out_features
        self.residual = nn.Linear(linear.in_features, linear.out_features, bias=False) if wide else None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out)."""
        projected: torch.Tensor = self.activation(self.linear(hidden))
        if not self.adds:
            return projected
        return projected + (hidden if self.residual is None else self.residual(hidden))


class Projected(nn.Module):
    """A model of transformers and the projections after it: what ColBERT's own class holds, restated."""

    def __init__(self, backbone: Any, projections: Sequence[Dense]) -> None:
        super().__init__()
        self.backbone = backbone
        self.projections = nn.ModuleList(projections)
        self.config = backbone.config

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        """The backbone's inputs -> (batch, sequence, embedding), as projected: neither masked nor normalized."""
        hidden: torch.Tensor = self.backbone(**inputs)[0]
        for projection in self.projections:
            hidden = projection(hidden)
        return hidden


class ColBERT(nn.Module):
    """Token ids and mask to a unit vector a token; zeros where the id is the padding's.

    The mask does not decide what is zero, since queries are filled up with mask tokens that others do not
    attend to, and whose vectors count. Without a padding id nothing is zero.
    """

    def __init__(self, model: Projected, pad: int | None) -> None:
        super().__init__()
        self.model = model
        self.pad = pad

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """int64 (batch, sequence) each -> (batch, sequence, embedding)."""
        embeddings = self.model(input_ids=input_ids, attention_mask=attention_mask)
        if self.pad is not None:
            embeddings = embeddings * (input_ids != self.pad)[..., None]
        return nn.functional.normalize(embeddings, p=2.0, dim=-1)
