"""Images of any resolution as LLaVA-NeXT and LLaVA-OneVision see them: whole, and cut into tiles by the fitting grid.

The processor makes the whole image its first tile and pads the rest. Which grid fits, and which tokens of the tiles lie
in the image and not in its padding, follows from the image's size. The originals work that out in Python, image by
image; here it is arithmetic over all images at once, up to the one place where the tokens that are real are picked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate.utils import align_module_device
from torch import nn

from converter.wrappers.vision_language import LlavaVision, without_decoder

Pinpoints = Sequence[Sequence[int]]


class AnyresVision(nn.Module):
    """Tiles to features, those of each image in reading order with a newline behind each row, none for padding.

    `most` bounds the tokens of an image's tiles, in tiles; an image with more is made smaller. None leaves it as it is.
    """

    def __init__(self, model: Any, most: int | None) -> None:
        super().__init__()
        self.tiles = LlavaVision(model)
        self.owner = without_decoder(model.model)
        config, vision = model.config, model.config.vision_config
        self.pinpoints = config.image_grid_pinpoints
        self.tile, self.side = vision.image_size, vision.image_size // vision.patch_size
        self.most = most
        heights, widths = zip(*self.pinpoints, strict=True)
        self.rows, self.columns = (max(sides) // self.tile * self.side for sides in (heights, widths))

    def forward(self, pixel_values: torch.Tensor, image_sizes: torch.Tensor) -> torch.Tensor:
        """(images, tiles, channels, side, side), int64 heights and widths (images, 2) -> (image tokens, hidden).

        An image has as many tiles as its grid, and the whole image before them; what is behind those does not count.
        """
        features = self.tiles(pixel_values.flatten(0, 1))
        # A large original's weights are on disk until they are asked for.
        with align_module_device(self.owner):
            table = torch.cat([features.flatten(0, 1), self.owner.image_newline[None]])
        grids = best_grids(image_sizes, self.pinpoints, self.tile)
        seen = unpadded(image_sizes, grids * self.side)
        sizes = seen[:, 2:] if self.most is None else reduced(seen[:, 2:], self.most * self.side**2)
        rows = between(seen[:, 0], seen[:, 2], sizes[:, 0], self.rows)
        columns = between(seen[:, 1], seen[:, 3], sizes[:, 1], self.columns)
        if self.most is None:  # every token stays where it is
            rows, columns = rows[:1], columns[:1]
        chosen = real_tokens(sizes, self.side**2, self.rows, self.columns).flatten().nonzero()[:, 0]
        tokens = torch.zeros_like(table[chosen * 0])
        for row, vertical in rows:
            for column, horizontal in columns:
                places = self.places(row, column, grids[:, 1], table.shape[0] - 1)
                # Tokens of the whole image, and newlines, are the same in all corners.
                each = 1 / (len(rows) * len(columns))
                shares = nn.functional.pad(vertical[:, :, None] * horizontal[:, None], (0, 1), value=each)
                shares = nn.functional.pad(shares.flatten(1), (self.side**2, 0), value=each)
                tokens = tokens + table[places.flatten()[chosen]] * shares.flatten()[chosen][:, None]
        return tokens

    def places(
        self, row: torch.Tensor, column: torch.Tensor, across: torch.Tensor, newline: int
    ) -> torch.Tensor:
        """Where in the table of all tokens, tile after tile, those of images stand: (images, all one may have).

        row, column  of tokens in the image's grid of tiles, (images, rows) and (images, columns)
        across       columns of that grid, in tiles
        newline      the place of the newline, the last one
        """
        side, images = self.side, row.shape[0]
        start = torch.arange(images, device=row.device)[:, None] * (newline // images)
        whole = start + torch.arange(side**2, device=row.device)
        row, column = row[:, :, None], column[:, None]
        tile = 1 + row // side * across[:, None, None] + column // side
        inside = start[:, :, None] + tile * side**2 + row % side * side + column % side
        # What is outside the image is not picked, and may be anywhere in the table.
        inside = nn.functional.pad(inside.clamp(max=newline), (0, 1), value=-1).flatten(1)
        return torch.cat([whole, torch.where(inside < 0, newline, inside)], dim=1)


def best_grids(image_sizes: torch.Tensor, pinpoints: Pinpoints, tile: int) -> torch.Tensor:
    """Rows and columns of tiles for each image, int64 (images, 2).

    Chosen as `select_best_resolution` of transformers does it, in float64 like Python's own numbers: the resolution
    that keeps most of the image's pixels, of those the one that wastes least, of those the first.
    """
    sizes = torch.tensor(pinpoints, device=image_sizes.device)
    height, width = (image_sizes[:, side : side + 1].double() for side in (0, 1))
    scale = torch.minimum(sizes[:, 1].double() / width, sizes[:, 0].double() / height)
    shown = (width * scale).long() * (height * scale).long()
    kept = torch.minimum(shown, image_sizes.prod(dim=1, keepdim=True))
    areas = sizes.prod(dim=1)
    bound = 1 + max(height * width for height, width in pinpoints)
    order = torch.arange(len(pinpoints), device=sizes.device)
    best = ((kept * bound - (areas - kept)) * len(pinpoints) - order).argmax(dim=1)
    return sizes[best] // tile


def unpadded(image_sizes: torch.Tensor, grids: torch.Tensor) -> torch.Tensor:
    """What of each image's grid of tokens is no padding: int64 (images, 4), its top, left, height and width."""
    (height, width), (rows, columns) = image_sizes.unbind(dim=1), grids.unbind(dim=1)
    wide = width * rows > columns * height
    above = torch.where(wide, (rows - height * columns // width) // 2, 0)
    beside = torch.where(wide, 0, (columns - width * rows // height) // 2)
    return torch.stack([above, beside, rows - 2 * above, columns - 2 * beside], dim=1)


def reduced(sizes: torch.Tensor, most: int) -> torch.Tensor:
    """Heights and widths in tokens, int64 (images, 2), smaller where one has more than 1.21 times `most` tokens."""
    ratio = (sizes.prod(dim=1, keepdim=True).double() / most).sqrt()
    quotient = (sizes / ratio).floor()
    # A quotient may have been rounded up to the next whole number.
    quotient = quotient - (quotient * ratio > sizes).double()
    return torch.where(ratio > 1.1, quotient.long(), sizes)


def between(
    start: torch.Tensor, length: torch.Tensor, size: torch.Tensor, most: int
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Of each place in `size`, the two places in `length` around it, from `start` on, with their shares.

    Bilinear, as `interpolate` does it; where both lengths are equal the first place is it. `start`, `length` and `size`
    are (images), places and shares (images, most).
    """
    scale = (length.float() / size.float())[:, None]
    wanted = ((torch.arange(most, device=start.device) + 0.5) * scale - 0.5).clamp(min=0)
    last = (length - 1)[:, None]
    below = torch.minimum(wanted.long(), last)
    share = wanted - below
    above = torch.minimum(below + 1, last)
    return [(start[:, None] + below, 1 - share), (start[:, None] + above, share)]


def real_tokens(sizes: torch.Tensor, whole: int, rows: int, columns: int) -> torch.Tensor:
    """Which places hold a token: those of the whole image, then rows with a newline: bool (images, all)."""
    row = torch.arange(rows, device=sizes.device)[:, None]
    column = torch.arange(columns + 1, device=sizes.device)
    height, width = sizes[:, 0, None, None], sizes[:, 1, None, None]
    real = (row < height) & ((column < width) | (column == columns))
    return nn.functional.pad(real.flatten(1), (whole, 0), value=True)


def token_counts(
    image_sizes: torch.Tensor, pinpoints: Pinpoints, tile: int, side: int, most: int | None
) -> list[int]:
    """How many tokens each image becomes. `tile` counts pixels of a side, `side` tokens."""
    grids = best_grids(image_sizes, pinpoints, tile)
    sizes = unpadded(image_sizes, grids * side)[:, 2:]
    sizes = sizes if most is None else reduced(sizes, most * side**2)
    return [side**2 + rows * (columns + 1) for rows, columns in sizes.tolist()]
