"""Positions under images of any size: stretched, and SigLIP 2's for all images at once as for each by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers.models.siglip2.modeling_siglip2 import Siglip2VisionEmbeddings

from converter.checkpoint import open_for
from converter.registry import load_registry
from converter.wrappers.image_text import resized_positions


def test_positions_are_resized_as_the_original_does_it() -> None:
    """Grids larger and smaller than the table. One column alone is left out: torch 2.13 is wrong there."""
    table = torch.randn(16, 16, 8, generator=torch.Generator().manual_seed(0))
    shapes = torch.tensor([[3, 40], [16, 16], [1, 5], [20, 9], [5, 7], [40, 3]])
    expected = Siglip2VisionEmbeddings.resize_positional_embeddings(table, shapes, 256)
    torch.testing.assert_close(resized_positions(table, shapes, 256), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("arch", ["clip", "siglip"])
def test_images_of_any_size_go_into_the_tower_and_into_both(
    arch: str, tiny_checkpoint: Callable[..., Path]
) -> None:
    architecture = load_registry().find(arch)
    config = architecture.source.config(open_for(architecture, tiny_checkpoint(arch)))
    found = architecture.components(config, "zero-shot-image-classification")
    sized = {part.stem for part in found if {"height", "width"} <= {axis.name for axis in part.axes}}
    assert sized == {"model", "vision_model"}
