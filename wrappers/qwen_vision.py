"""The vision towers of the Qwen-VL models with every image grid left open.

transformers runs a tower on all patches of a batch in one row, cut at each image, and makes Python lists of the cuts.
Here a patch's place follows from its index and the width of its grid, and masks keep images, frames and windows
apart, so that grids stay tensors. Rows may hold one image each, padded, or one row all images, packed.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision

from converter.wrappers.common import additive_mask


def divide(number: torch.Tensor, divisor: torch.Tensor | int) -> torch.Tensor:
    """Whole quotient of numbers that are never negative: one node, where flooring would take five."""
    return torch.div(number, divisor, rounding_mode="trunc")


class Places(NamedTuple):
    """Where patches are, each (rows, patches): row, column, what they attend within, and the sides of their grid.

    `segment` is equal for the patches of one frame of one image, and different otherwise.
    """

    row: torch.Tensor
    column: torch.Tensor
    segment: torch.Tensor
    height: torch.Tensor
    width: torch.Tensor


def grid_places(index: torch.Tensor, width: torch.Tensor, merge: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column of the patches number `index` of grids `width` patches wide; both broadcast together.

    Patches come in squares of merge x merge, which the merger joins; squares run along rows of the grid.
    """
    square, inside = divide(index, merge**2), index % merge**2
    columns = divide(width, merge).clamp(min=1)  # in squares
    row = divide(square, columns) * merge + divide(inside, merge)
    return row, square % columns * merge + inside % merge


def padded_places(grid_thw: torch.Tensor, patches: int, merge: int) -> Places:
    """Rows of one still image each, padded at the end: grid_thw (rows, 3)."""
    index = torch.arange(patches, device=grid_thw.device)[None, :]
    height, width = grid_thw[:, 1:2], grid_thw[:, 2:]
    row, column = grid_places(index, width, merge)
    padding = (index >= height * width).long()
    return Places(row, column, padding, height.expand_as(row), width.expand_as(row))


def packed_places(grid_thw: torch.Tensor, patches: int, merge: int) -> Places:
    """All images one after another in one row, frames of a video too: grid_thw (images, 3)."""
    index = torch.arange(patches, device=grid_thw.device)
    counts = grid_thw.prod(dim=1)  # (images,)
    ends = counts.cumsum(dim=0)
    image = (index[:, None] >= ends[None, :]).long().sum(dim=1).clamp(max=grid_thw.shape[0] - 1)
    start, height, width = (ends - counts)[image], grid_thw[image, 1], grid_thw[image, 2]
    frame = divide(index - start, (height * width).clamp(min=1)) * height * width  # its first patch
    row, column = grid_places(index - start - frame, width, merge)
    places = Places(row, column, start + frame, height, width)
    return Places(*(values[None, :] for values in places))


class VisionBlock(nn.Module):
    """One block of the vision tower on rows of patches, made of the original block's own parts.

    All it computes lies in its own scope. One tensor comes from its predecessor; all blocks share the rest.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.block = block

    def forward(
        self, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """(rows, patches, dim), tables (rows, patches, head_dim), mask (rows, 1, patches, patches)."""
        attention = self.block.attn
        rows, patches, dim = hidden.shape
        fused = attention.qkv(self.block.norm1(hidden))
        heads = fused.view(rows, patches, 3, attention.num_heads, attention.head_dim)
        query, key, value = heads.unbind(2)  # each (rows, patches, heads, head_dim)
        query, key = apply_rotary_pos_emb_vision(query, key, cos, sin)
        mixed = nn.functional.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=mask,
            scale=attention.scaling,
        )
        hidden = hidden + attention.proj(mixed.transpose(1, 2).reshape(rows, patches, dim))
        result: torch.Tensor = hidden + self.block.mlp(self.block.norm2(hidden))
        return result


class VisionTower(nn.Module):
    """The tower of Qwen2-VL, Qwen2.5-VL (blocks that attend within windows) or Qwen3-VL (a table of positions, and
    features of earlier blocks beside those of the last)."""

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.merge = int(visual.spatial_merge_size)
        self.patch_embed = visual.patch_embed
        self.rotary_pos_emb = visual.rotary_pos_emb
        self.blocks = nn.ModuleList(VisionBlock(block) for block in visual.blocks)
        self.merger = visual.merger
        side = getattr(visual, "window_size", 0) // (self.merge * int(visual.patch_embed.patch_size))
        self.window = side * self.merge  # in patches; none is 0
        self.unwindowed = frozenset(getattr(visual, "fullatt_block_indexes", ()))
        self.pos_embed = getattr(visual, "pos_embed", None)
        self.deep_after = tuple(getattr(visual, "deepstack_visual_indexes", ()))
        self.deep_mergers = getattr(visual, "deepstack_merger_list", None)

    def forward(self, pixel_values: torch.Tensor, places: Places) -> torch.Tensor:
        """(rows, patches, pixels) -> (rows, patches / merge ** 2, hidden), followed by deep features if there are any.

        With n mergers of deep features, the last axis is 1 + n times as wide.
        """
        rows, patches, pixels = pixel_values.shape
        hidden = self.patch_embed(pixel_values.reshape(rows * patches, pixels))  # (rows * patches, dim)
        cos, sin = self.tables(hidden, places)
        hidden = hidden.view(rows, patches, -1)
        if self.pos_embed is not None:
            hidden = hidden + self.learned_positions(places).to(hidden.dtype)
        within, windowed = self.masks(places, hidden.dtype)
        merged = []
        for number, block in enumerate(self.blocks):
            hidden = block(hidden, cos, sin, within if number in self.unwindowed else windowed)
            if number in self.deep_after:
                merged.append(self.deep_mergers[self.deep_after.index(number)](hidden.flatten(0, 1)))  # type: ignore[index]
        features = torch.cat([self.merger(hidden), *merged], dim=-1)  # (rows * patches / merge ** 2, ...)
        return features.view(rows, patches // self.merge**2, -1)

    def tables(self, hidden: torch.Tensor, places: Places) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines of each patch's place, (rows, patches, head_dim)."""
        rows, patches = places.row.shape
        flat = torch.stack([places.row, places.column], dim=-1).reshape(rows * patches, 2)
        cos, sin = self.rotary_pos_emb(hidden, flat)
        return cos.view(rows, patches, -1), sin.view(rows, patches, -1)

    def masks(self, places: Places, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """What blocks add: between the patches of a frame, and between those of one window of it."""

        def same(values: torch.Tensor) -> torch.Tensor:
            return values[:, None, :, None] == values[:, None, None, :]

        frame = same(places.segment)
        within = additive_mask(frame, dtype)
        if not self.window:
            return within, within
        column, row = divide(places.column, self.window), divide(places.row, self.window)
        return within, additive_mask(frame & same(row) & same(column), dtype)

    def learned_positions(self, places: Places) -> torch.Tensor:
        """Qwen3-VL's square table of positions stretched to each grid, bilinearly, corners on corners."""
        assert self.pos_embed is not None
        side = int(self.pos_embed.num_embeddings**0.5)
        total = torch.zeros(())
        for row, row_weight in _taps(places.row, places.height, side):
            for column, column_weight in _taps(places.column, places.width, side):
                total = total + self.pos_embed(row * side + column) * (row_weight * column_weight)[..., None]
        return total


def _taps(index: torch.Tensor, size: torch.Tensor, side: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The two entries of a table of `side` next to position `index` of an axis of `size`, and their weights."""
    place = index.float() * (side - 1) / (size - 1).clamp(min=1)
    low = place.long()
    share = place - low
    return [(low, 1 - share), ((low + 1).clamp(max=side - 1), share)]


class PackedVision(nn.Module):
    """Images as the processors of the Qwen-VL models hand them out, to features for their image tokens, in order."""

    def __init__(self, visual: Any, grid: str) -> None:
        super().__init__()
        self.tower = VisionTower(visual)
        self.grid = grid

    def forward(self, pixel_values: torch.Tensor, **grids: torch.Tensor) -> torch.Tensor:
        """(patches, pixels of a patch) and int64 (images, 3) -> (image tokens, hidden), one image after another.

        The grids are called `grid`: clients do not agree on a name.
        """
        grid_thw = grids[self.grid]
        places = packed_places(grid_thw, pixel_values.shape[0], self.tower.merge)
        features: torch.Tensor = self.tower(pixel_values[None], places)
        return features[0]
