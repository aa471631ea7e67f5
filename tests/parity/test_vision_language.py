"""Vision-language models as clients run them: three graphs, greedy decoding, against the untouched `generate`.

Each row of a batch has a prompt of its own length around an image, padded on the left. The graphs are fed as
transformers.js feeds them: features where the image tokens stand, positions counted outside, keys and values back in.
"""

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

Checkpoints = Callable[..., Path]
STEPS = 6
IMAGE, PAD = 593, 588
# What a row of image tokens costs outside the default suite.
MODELS = [
    "qwen2_5_vl",
    "gemma3",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("qwen2_vl", "qwen3_vl", "idefics3", "smolvlm", "llava", "paligemma")
    ),
]


class Package:
    """The three graphs of a package."""

    def __init__(self, folder: Path) -> None:
        self.sessions = {
            stem: onnxruntime.InferenceSession(
                folder / "onnx" / f"{stem}.onnx", providers=["CPUExecutionProvider"]
            )
            for stem in ("vision_encoder", "embed_tokens", "decoder_model_merged")
        }

    def run(self, stem: str, **feed: Any) -> dict[str, Any]:
        session = self.sessions[stem]
        wanted = {value.name: np.asarray(feed[value.name]) for value in session.get_inputs()}
        return dict(
            zip((value.name for value in session.get_outputs()), session.run(None, wanted), strict=True)
        )

    def no_past(self, batch: int) -> dict[str, Any]:
        shapes = {value.name: value.shape for value in self.sessions["decoder_model_merged"].get_inputs()}
        return {
            name: np.zeros((batch, shape[1], 0, shape[3]), np.float32)
            for name, shape in shapes.items()
            if name.startswith("past_key_values")
        }


def qwen_images(model: Any) -> tuple[dict[str, torch.Tensor], list[int]]:
    """Two images of different grids."""
    grid = torch.tensor([[1, 4, 6], [1, 2, 8]])
    vision = model.config.vision_config
    pixels = 3 * vision.temporal_patch_size * vision.patch_size**2
    generator = torch.Generator().manual_seed(3)
    values = torch.randn(int(grid.prod(1).sum()), pixels, generator=generator)
    return {"pixel_values": values, "image_grid_thw": grid}, [6, 4]


def tiled_images(model: Any) -> tuple[dict[str, torch.Tensor], list[int]]:
    """Two tiles in the first row, one in the second, whose other tile is zeros."""
    pixels = torch.randn(2, 2, 3, 18, 18, generator=torch.Generator().manual_seed(3))
    mask = torch.ones(2, 2, 18, 18, dtype=torch.bool)
    pixels[1, 1], mask[1, 1], mask[0, 1, 9:] = 0, False, False
    return {"pixel_values": pixels, "pixel_attention_mask": mask}, [18, 9]


def plain_images(model: Any) -> tuple[dict[str, torch.Tensor], list[int]]:
    side = model.config.vision_config.image_size
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(3))
    features = model.get_image_features(pixel_values=pixels).pooler_output
    return {"pixel_values": pixels}, [features[0].shape[0]] * 2


def prompts(image_token: int, counts: list[int]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    rows = []
    for index, count in enumerate(counts):
        text = torch.randint(5, 580, (7 - 2 * index,), generator=generator).tolist()
        rows.append([*text[:2], *[image_token] * count, *text[2:]])
    length = max(map(len, rows))
    ids = torch.tensor([[PAD] * (length - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
    return {"input_ids": ids, "attention_mask": mask}


def as_clients_do(
    package: Package, model: Any, images: dict[str, torch.Tensor], text: dict[str, torch.Tensor], image: int
) -> list[list[int]]:
    """Greedy tokens of the three graphs."""
    name, ids, mask = model.config.model_type, text["input_ids"], text["attention_mask"]
    feed = {"grid_thw": images["image_grid_thw"], **images} if "image_grid_thw" in images else images
    features = package.run("vision_encoder", **feed)["image_features"]
    embeds = package.run("embed_tokens", input_ids=ids)["inputs_embeds"]
    embeds[(ids == image).numpy()] = features.reshape(-1, embeds.shape[-1])
    first = int(name in ("paligemma", "gemma3"))
    positions = (mask.cumsum(1) - 1 + first).clamp(min=0)
    behind = torch.zeros(len(ids), 1, dtype=torch.int64)
    if name.startswith("qwen"):
        positions, behind = model.model.get_rope_index(
            ids, (ids == image).int(), images["image_grid_thw"], attention_mask=mask
        )
    past, tokens = package.no_past(len(ids)), []
    for _ in range(STEPS):
        made = package.run(
            "decoder_model_merged", inputs_embeds=embeds, attention_mask=mask, position_ids=positions, **past
        )
        token = torch.from_numpy(made["logits"][:, -1].argmax(-1))[:, None]
        tokens.append(token)
        past = {
            key.replace("present", "past_key_values"): value for key, value in made.items() if key != "logits"
        }
        mask = torch.cat([mask, torch.ones_like(token)], dim=1)
        embeds = package.run("embed_tokens", input_ids=token)["inputs_embeds"]
        positions = mask.sum(1, keepdim=True) - 1 + first + behind
        positions = positions.expand(3, -1, -1) if name.startswith("qwen") else positions
    return torch.cat(tokens, dim=1).tolist()


@pytest.mark.parametrize("name", MODELS)
def test_greedy_decoding_is_that_of_generate(name: str, tiny_checkpoint: Checkpoints, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint(name)
    report = convert(model=checkpoint, output=tmp_path / "package", parity="full")
    assert (report.task, report.parity.proven) == ("image-text-to-text", True)
    package = Package(tmp_path / "package")
    model: Any = transformers.AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        draw = (
            qwen_images
            if name.startswith("qwen")
            else tiled_images
            if "id" in name or "smol" in name
            else plain_images
        )
        images, counts = draw(model)
        image = getattr(model.config, "image_token_id", None) or model.config.image_token_index
        text = prompts(image, counts)
        extra = {}
        if name.startswith("qwen"):
            extra = {"mm_token_type_ids": (text["input_ids"] == image).int()}
        elif name in ("paligemma", "gemma3"):
            types = (text["input_ids"] == image).long()
            extra = {"token_type_ids": types if name == "gemma3" else torch.zeros_like(types)}
        expected = model.generate(
            **text,
            **images,
            **extra,
            max_new_tokens=STEPS,
            min_new_tokens=STEPS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=PAD,
        )[:, text["input_ids"].shape[1] :]
        assert as_clients_do(package, model, images, text, image) == expected.tolist()
