"""Swin and its kin: windows of attention over images that they do not divide, at sizes of which none was traced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers

from converter import convert
from converter.registry import load_registry
from converter.seeding import seed_weights
from converter.wrappers.swin import any_size, as_loaded

Checkpoints = Callable[..., Path]

# Windows of 3 over three stages: 9 patches of 4 pixels, of which one pixel is enough of the last.
LEAST = 33
SMALL: dict[str, Any] = {"embed_dim": 12, "window_size": 3, "image_size": 48, "patch_size": 4}
SMALL |= {"depths": [2, 3, 2], "num_heads": [1, 3, 3]}
SIZES = [(48, 48), (LEAST, LEAST), (LEAST, 70), (71, LEAST), (45, 58), (97, 130)]


@pytest.mark.coverage
def test_a_graph_takes_every_size_that_the_original_takes(
    tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    checkpoint = tiny_checkpoint("swin", task="image-classification", overrides=SMALL)
    convert(model=checkpoint, output=tmp_path / "package", parity="off")
    session = onnxruntime.InferenceSession(str(tmp_path / "package" / "onnx" / "model.onnx"))
    generator = torch.Generator().manual_seed(5)
    for height, width in SIZES:
        pixels = torch.randn(2, 3, height, width, generator=generator)
        # Loaded anew: it shifts no window any more once it saw a grid no larger than one.
        original = transformers.SwinForImageClassification.from_pretrained(checkpoint).eval()
        with torch.inference_mode():
            expected = original(pixels).logits
        (logits,) = session.run(["logits"], {"pixel_values": pixels.numpy()})
        assert np.abs(logits - expected.numpy()).max() < 1e-5, (height, width)
    with torch.inference_mode(), pytest.raises(RuntimeError):
        original(pixels[:, :, : LEAST - 1])


@pytest.mark.parametrize("kind", ["swin", "donut-swin", "swinv2", "maskformer-swin"])
def test_windows_by_index_are_those_of_the_original(kind: str) -> None:
    model: Any = transformers.AutoModel.from_config(transformers.CONFIG_MAPPING[kind](**SMALL)).eval()
    seed_weights(model, 3)
    for height, width in [(LEAST, LEAST + 8), *SIZES]:
        pixels = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.inference_mode(), as_loaded(model):
            expected = model(pixels).last_hidden_state
        with torch.inference_mode(), any_size(model):
            found = model(pixels).last_hidden_state
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("entries", "least"),
    [
        ({}, 193),
        ({"window_size": 12, "image_size": 384}, 353),
        ({"image_size": 32}, 193),
        ({"use_absolute_embeddings": True}, None),
    ],
)
def test_the_last_stage_has_to_be_as_large_as_a_window(entries: dict[str, Any], least: int | None) -> None:
    config = transformers.SwinConfig(**entries)
    (component,) = load_registry().find("swin").components(config, "image-classification")
    lows = {axis.name: axis.low for axis in component.axes if axis.name != "batch_size"}
    assert lows == ({"height": least, "width": least} if least else {})
