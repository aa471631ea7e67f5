"""The recommender as its authors wrote it: histories are lists of tensors, one a user, each as long as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import normalize


@dataclass(frozen=True)
class Config:
    users: int
    items: int
    features: int
    width: int


class UserTower(nn.Module):
    """Who the user is, and what of the items seen before matters to them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.users = nn.Embedding(config.users, config.width)
        self.profile = nn.Linear(config.features, config.width)
        self.query = nn.Linear(config.width, config.width)
        self.key = nn.Linear(config.width, config.width, bias=False)
        self.out = nn.Linear(2 * config.width, config.width)

    def forward(self, user: torch.Tensor, profile: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """() and (features) and (history, width) -> (width), of length 1."""
        who = self.users(user) + torch.tanh(self.profile(profile))
        if len(seen) == 0:
            past = torch.zeros_like(who)
        else:
            past = torch.softmax(self.key(seen) @ self.query(who) / len(who) ** 0.5, dim=0) @ seen
        return normalize(self.out(torch.cat([who, past])), dim=-1)


class ItemTower(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.hidden = nn.Linear(config.width, 2 * config.width)
        self.out = nn.Linear(2 * config.width, config.width)

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        """(..., width) -> (..., width), of length 1."""
        return normalize(self.out(torch.relu(self.hidden(items))), dim=-1)


class TwoTower(nn.Module):
    """Scores candidates for each user: the cosine of the two towers' vectors, times a learnt scale."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.items = nn.Embedding(config.items, config.width)
        self.user_tower = UserTower(config)
        self.item_tower = ItemTower(config)
        self.scale = nn.Parameter(torch.ones(1))

    def recommend(
        self,
        users: torch.Tensor,
        profiles: torch.Tensor,
        histories: Sequence[torch.Tensor],
        candidates: torch.Tensor,
    ) -> torch.Tensor:
        """(batch), (batch, features), batch histories and (batch, candidates) -> scores (batch, candidates)."""
        vectors = self.embed_users(users, profiles, histories)
        return self.scale * torch.einsum("bw,bcw->bc", vectors, self.embed_items(candidates))

    def embed_users(
        self, users: torch.Tensor, profiles: torch.Tensor, histories: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        rows = zip(users, profiles, histories, strict=True)
        return torch.stack([self.user_tower(user, profile, self.items(seen)) for user, profile, seen in rows])

    def embed_items(self, items: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.item_tower(self.items(items))
        return vectors
