"""SigLIP 2's positions, resized for all images at once, are those the original resizes image by image."""

from __future__ import annotations

import torch
from transformers.models.siglip2.modeling_siglip2 import Siglip2VisionEmbeddings

from converter.wrappers.image_text import resized_positions


def test_positions_are_resized_as_the_original_does_it() -> None:
    """Grids larger and smaller than the table. One column alone is left out: torch 2.13 is wrong there."""
    table = torch.randn(16, 16, 8, generator=torch.Generator().manual_seed(0))
    shapes = torch.tensor([[3, 40], [16, 16], [1, 5], [20, 9], [5, 7], [40, 3]])
    expected = Siglip2VisionEmbeddings.resize_positional_embeddings(table, shapes, 256)
    torch.testing.assert_close(resized_positions(table, shapes, 256), expected, atol=1e-5, rtol=0)
