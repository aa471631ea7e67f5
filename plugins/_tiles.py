"""Dummy tiles and small configs for models that see an image as several square tiles.

Not a plugin itself: it registers nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Two layers a tower, odd widths, grouped heads.
TEXT: Mapping[str, Any] = {
    "vocab_size": 601,
    "hidden_size": 36,
    "intermediate_size": 52,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": None,
    "max_position_embeddings": 512,
    "bos_token_id": 589,
    "eos_token_id": 590,
    "pad_token_id": 588,
}
# Six patches a side, so that tiles that are smaller take other rows of the table of positions.
VISION: Mapping[str, Any] = {
    "hidden_size": 30,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 18,
    "patch_size": 3,
}
IDEFICS3: Mapping[str, Any] = {
    "image_token_id": 593,
    "scale_factor": 2,
    "text_config": TEXT,
    "vision_config": VISION,
}


def _factor(config: Any) -> int:
    return int(getattr(config, "scale_factor", None) or config.pixel_shuffle_factor)


def tokens_of_tile(config: Any, squares: int | None) -> int:
    """How many tokens a tile becomes, of `squares` merged patches a side or of the config's size."""
    vision = config.vision_config
    side = squares or int(vision.image_size) // int(vision.patch_size) // _factor(config)
    return side**2


def tile_tensors(
    config: Any, tiles: Sequence[int], most: int, squares: int | None, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """`pixel_values` (rows, most, channels, side, side): noise for each row's tiles, zeros behind them.

    With `squares`, the side of a tile in merged patches, there is a `pixel_attention_mask` too, (rows, most, side,
    side), in which some tiles have padding at the right and the bottom.
    """
    import torch

    vision = config.vision_config
    patch = int(vision.patch_size)
    side = squares * _factor(config) * patch if squares else int(vision.image_size)
    pixels = torch.zeros(len(tiles), most, int(vision.num_channels), side, side)
    mask = torch.zeros(len(tiles), most, side, side, dtype=torch.int64)
    for row, count in enumerate(tiles):
        pixels[row, :count] = torch.randn(pixels[row, :count].shape, generator=generator)
        for tile in range(count):
            sides = torch.randint(1, side // patch + 1, (2,), generator=generator) * patch
            height, width = (side, side) if tile % 2 == 0 else map(int, sides)
            mask[row, tile, :height, :width] = 1
    return {"pixel_values": pixels, "pixel_attention_mask": mask} if squares else {"pixel_values": pixels}
