"""Tensor pieces that several wrappers share. No branch here depends on a tensor's values."""

from __future__ import annotations

import torch
from torch import nn


def additive_mask(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where `allowed` (bool, any shape) is true and the lowest finite number of `dtype` elsewhere.

    Made once per graph and added in every layer; a boolean mask would be turned into this in each of them.
    """
    zeros = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return zeros.masked_fill(~allowed, torch.finfo(dtype).min)


def key_mask(real: torch.Tensor) -> torch.Tensor:
    """Which keys each query may see, the same for all: (batch, length) -> bool (batch, 1, length, length).

    Written out for every query, because onnxruntime's `Attention` does not broadcast masks.
    """
    batch, length = real.shape
    return real.bool()[:, None, None, :].expand(batch, 1, length, length)


def causal_mask(real: torch.Tensor, window: int | None = None) -> torch.Tensor:
    """Which keys each query may see: (batch, length) -> bool (batch, 1, length, length).

    A query sees real tokens up to itself, no further back than `window` allows. It always sees itself, since
    queries of padding would otherwise see nothing, and a softmax over nothing is not a number.
    """
    positions = torch.arange(real.shape[1], device=real.device)
    distance = positions[:, None] - positions[None, :]
    allowed = (distance >= 0) & key_mask(real)
    if window is not None:
        allowed = allowed & (distance < window)
    return allowed | (distance == 0)


def token_positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Index of each real token among the real ones, padding on either side gets 0: (batch, sequence)."""
    real = attention_mask.long()
    return (real.cumsum(dim=1) - 1) * real


def place_features(embeds: torch.Tensor, features: torch.Tensor, placeholder: torch.Tensor) -> torch.Tensor:
    """Put each row's n-th feature where its n-th placeholder token stands.

    embeds       (batch, sequence, hidden)
    features     (batch, count, hidden), count at least 1; rows need not use all of theirs
    placeholder  bool (batch, sequence)

    This is `masked_scatter` with shapes that do not depend on values, for rows whose features are padded.
    """
    batch, count, hidden = features.shape
    order = placeholder.long().cumsum(dim=1) - 1
    start = torch.arange(batch, device=embeds.device)[:, None] * count
    index = torch.where(placeholder, start + order, 0)
    return torch.where(placeholder[..., None], features.reshape(batch * count, hidden)[index], embeds)


def late_interaction(
    hidden: torch.Tensor, projection: nn.Module, attention_mask: torch.Tensor
) -> torch.Tensor:
    """Unit vectors for MaxSim: (batch, sequence, hidden) -> (batch, sequence, embedding), zero at padding."""
    embeddings = projection(hidden)
    embeddings = embeddings / embeddings.norm(dim=-1, keepdim=True)
    masked: torch.Tensor = embeddings * attention_mask[..., None]
    return masked
