"""Tensor pieces that several wrappers share. No branch here depends on a tensor's values."""

from __future__ import annotations

import torch
from torch import nn


def additive_mask(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where `allowed` (bool, any shape) is true and the lowest finite number of `dtype` elsewhere.

    Made once per graph and added in every layer, which costs a layer one node; a boolean mask costs it several.
    """
    return torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, torch.finfo(dtype).min)


def key_mask(attention_mask: torch.Tensor) -> torch.Tensor:
    """Which keys any query may see: (batch, sequence) of 0 and 1 -> bool (batch, 1, 1, sequence)."""
    return attention_mask.bool()[:, None, None, :]


def causal_mask(attention_mask: torch.Tensor, window: int | None = None) -> torch.Tensor:
    """Which keys each query may see: (batch, sequence) of 0 and 1 -> bool (batch, 1, sequence, sequence).

    A query sees real tokens up to itself, the last `window` of them if that is given. It always sees itself: the rows
    of padding would otherwise see nothing, and a softmax over nothing is not a number.
    """
    positions = torch.arange(attention_mask.shape[1])
    distance = positions[:, None] - positions[None, :]
    allowed = (distance >= 0) & key_mask(attention_mask)
    if window is not None:
        allowed = allowed & (distance < window)
    return allowed | (distance == 0)


def token_positions(attention_mask: torch.Tensor) -> torch.Tensor:
    """Index of each real token among the real ones, whichever side is padded; padding gets 0. (batch, sequence)."""
    real = attention_mask.long()
    return (real.cumsum(dim=1) - 1) * real


def place_features(embeds: torch.Tensor, features: torch.Tensor, placeholder: torch.Tensor) -> torch.Tensor:
    """Put each row's n-th feature where its n-th placeholder token stands.

    embeds       (batch, sequence, hidden)
    features     (batch, count, hidden); `count` may be 0, and rows need not use all of theirs
    placeholder  bool (batch, sequence)

    This is `masked_scatter` with a shape that does not depend on values, for rows whose features are padded.
    """
    batch, count, hidden = features.shape
    order = placeholder.long().cumsum(dim=1) - 1
    start = torch.arange(batch)[:, None] * count
    # One row more than there are features, so that the index of "none" exists even when there are none at all.
    table = torch.cat([features.reshape(batch * count, hidden), features.new_zeros(1, hidden)])
    index = torch.where(placeholder, start + order, batch * count)
    return torch.where(placeholder[..., None], table[index], embeds)


def late_interaction(hidden: torch.Tensor, projection: nn.Module, attention_mask: torch.Tensor) -> torch.Tensor:
    """Unit vectors for MaxSim: (batch, sequence, hidden) -> (batch, sequence, embedding), zero at padding."""
    embeddings = projection(hidden)
    embeddings = embeddings / embeddings.norm(dim=-1, keepdim=True)
    masked: torch.Tensor = embeddings * attention_mask[..., None]
    return masked
