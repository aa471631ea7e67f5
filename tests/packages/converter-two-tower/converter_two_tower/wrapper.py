"""The towers with interfaces that graphs can have: histories are one padded tensor with a mask."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import normalize

from converter_two_tower.model import TwoTower


class UserGraph(nn.Module):
    """Restates `UserTower.forward` for a batch, which it takes row by row."""

    def __init__(self, model: TwoTower) -> None:
        super().__init__()
        self.items = model.items
        self.tower = model.user_tower

    def forward(
        self,
        user_ids: torch.Tensor,
        profile: torch.Tensor,
        history_ids: torch.Tensor,
        history_mask: torch.Tensor,
    ) -> torch.Tensor:
        """(batch), (batch, features), (batch, history) twice -> (batch, width). A history may be masked whole."""
        tower, seen = self.tower, self.items(history_ids)  # (batch, history, width)
        who = tower.users(user_ids) + torch.tanh(tower.profile(profile))  # (batch, width)
        match = (tower.key(seen) * tower.query(who)[:, None]).sum(-1) / who.shape[-1] ** 0.5
        mask = history_mask.bool()
        # The softmax of a history that is masked whole is not a number anywhere; the second mask makes it zero.
        weights = match.masked_fill(~mask, float("-inf")).softmax(-1).masked_fill(~mask, 0.0)
        past = (weights[:, :, None] * seen).sum(1)
        return normalize(tower.out(torch.cat([who, past], dim=-1)), dim=-1)


class ItemGraph(nn.Module):
    def __init__(self, model: TwoTower) -> None:
        super().__init__()
        self.items = model.items
        self.tower = model.item_tower

    def forward(self, item_ids: torch.Tensor) -> torch.Tensor:
        """(batch, items) -> (batch, items, width)."""
        vectors: torch.Tensor = self.tower(self.items(item_ids))
        return vectors


class ScoreGraph(nn.Module):
    """Both towers and their product."""

    def __init__(self, model: TwoTower) -> None:
        super().__init__()
        self.user_graph = UserGraph(model)
        self.item_graph = ItemGraph(model)
        self.scale = model.scale

    def forward(
        self,
        user_ids: torch.Tensor,
        profile: torch.Tensor,
        history_ids: torch.Tensor,
        history_mask: torch.Tensor,
        item_ids: torch.Tensor,
    ) -> torch.Tensor:
        """As the towers take them -> scores (batch, items)."""
        users = self.user_graph(user_ids, profile, history_ids, history_mask)
        return self.scale * torch.einsum("bw,biw->bi", users, self.item_graph(item_ids))
