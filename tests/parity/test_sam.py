"""Segment Anything through both of its graphs: an image seen once, and points on it, as its clients call them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import SamModel

from converter import convert

# Two graphs of their own to trace: CI has no time for them.
pytestmark = [pytest.mark.xdist_group("sam"), pytest.mark.coverage]


Checkpoints = Callable[..., Path]


@pytest.fixture(scope="module")
def package(tiny_checkpoint: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sam") / "package"
    return convert(model=tiny_checkpoint("sam"), output=folder).output


def session(package: Path, stem: str) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(package / f"onnx/{stem}.onnx", providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("batch", "prompts", "points"), [(1, 1, 1), (3, 1, 2), (1, 5, 3), (2, 3, 1)])
def test_points_on_an_image_give_the_masks_of_the_original(
    tiny_checkpoint: Checkpoints, package: Path, batch: int, prompts: int, points: int
) -> None:
    """Prompts are many where an image has objects to tell apart; the decoder repeats the image for each."""
    generator = torch.Generator().manual_seed(batch)
    pixels = torch.randn(batch, 3, 32, 32, generator=generator)
    where = torch.rand(batch, prompts, points, 2, generator=generator) * 32
    labels = torch.randint(0, 2, (batch, prompts, points), generator=generator)
    original = SamModel.from_pretrained(tiny_checkpoint("sam")).eval()
    with torch.no_grad():
        expected = original(pixel_values=pixels, input_points=where, input_labels=labels)
    image: Any = session(package, "vision_encoder").run(None, {"pixel_values": pixels.numpy()})
    feed = {
        "input_points": where.numpy(),
        "input_labels": labels.numpy(),
        "image_embeddings": image[0],
        "image_positional_embeddings": image[1],
    }
    scores, masks = session(package, "prompt_encoder_mask_decoder").run(None, feed)
    np.testing.assert_allclose(scores, expected.iou_scores.numpy(), atol=1e-5)
    np.testing.assert_allclose(masks, expected.pred_masks.numpy(), atol=1e-5)
