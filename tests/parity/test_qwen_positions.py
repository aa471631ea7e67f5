"""Positions of Qwen's patches and tokens, computed without a loop over images, against transformers' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ColQwen2ForRetrieval

from converter.wrappers.colqwen2 import mrope_positions
from converter.wrappers.qwen_vision import padded_places

pytestmark = pytest.mark.xdist_group("colqwen2")


@pytest.fixture(scope="module")
def model(colqwen2_checkpoint: Path) -> Any:
    return ColQwen2ForRetrieval.from_pretrained(colqwen2_checkpoint).eval()


def grids(merge: int) -> st.SearchStrategy[list[tuple[int, int]]]:
    side = st.integers(1, 6).map(lambda squares: squares * merge)
    return st.lists(st.tuples(side, side), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), side=st.sampled_from(["left", "right"]))
def test_positions_are_those_of_get_rope_index(model: Any, data: st.DataObject, side: str) -> None:
    """Mixed grids, text before and behind, rows without an image, either padding."""
    image_id = model.config.vlm_config.image_token_id
    rows, sizes = [], data.draw(grids(2))
    shown = data.draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)))
    for (height, width), has_image in zip(sizes, shown, strict=True):
        before, behind = data.draw(st.integers(0, 4)), data.draw(st.integers(0, 4))
        run = height * width // 4 if has_image else 0
        rows.append([5] * before + [image_id] * run + [6] * behind or [7])
    length = max(map(len, rows)) + data.draw(st.integers(0, 2))
    ids = torch.zeros(len(rows), length, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        span = slice(length - len(row), length) if side == "left" else slice(0, len(row))
        ids[index, span], mask[index, span] = torch.tensor(row), 1
    thw = torch.tensor([(1, height, width) for height, width in sizes])
    images = ids == image_id
    expected, _ = model.vlm.get_rope_index(ids, images.int(), thw[torch.tensor(shown)], attention_mask=mask)
    assert torch.equal(mrope_positions(images, mask, thw, 2), expected)


@pytest.mark.parametrize("merge", [1, 2, 3])
def test_patch_places_are_those_of_the_original(merge: int) -> None:
    from transformers.vision_utils import get_vision_position_ids

    thw = torch.tensor([(1, 2 * merge, 4 * merge), (1, 3 * merge, merge)])
    places = padded_places(thw, 8 * merge**2, merge)
    for row, grid in zip(torch.stack([places.row, places.column], dim=-1), thw, strict=True):
        count = int(grid.prod())
        assert torch.equal(row[:count], get_vision_position_ids(grid[None], merge))
