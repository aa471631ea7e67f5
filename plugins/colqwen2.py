"""ColQwen2 and ColQwen2.5: multi-vector retrieval over Qwen2-VL and Qwen2.5-VL, pages of any shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from converter import Architecture, Axis, Component, DummyInputs, Size, hookimpl
from converter.plugins._engine import RetrievalModel
from converter.plugins._qwen_vl import TINY, conv3d_in_onnx
from converter.plugins._retrieval import (
    TASK,
    TOKENS,
    VARIANTS,
    page_tensors,
    pages_and_text,
    retrieval_components,
    text_row_flags,
    tokens_of,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

AXES: Mapping[str, Mapping[int, str]] = {
    "input_ids": TOKENS,
    "attention_mask": TOKENS,
    "pixel_values": {0: "batch_size", 1: "num_patches"},
    "image_grid_thw": {0: "batch_size"},
}

TINY_HEAD = {"embedding_dim": 20, "vlm_config": {"text_config": {"num_hidden_layers": 2}}}
# colpali-engine named its tensors as releases of transformers did: the mapping for the backbone itself knows them.
SOURCE = RetrievalModel(
    classes={TASK: "ColQwen2ForRetrieval"},
    tiny=TINY_HEAD,
    model_type="colqwen2",
    backbones={"qwen2_vl": {}},
    tinies=TINY,
)
# transformers' class takes either backbone. Checkpoints over the newer one are colpali-engine's.
NEWER = replace(
    SOURCE,
    backbones={"qwen2_5_vl": {}},
    bare="qwen2_5_vl",
    class_name="ColQwen2_5",
    projection="custom_text_proj",
    prefix="",
)


def _page_inputs(config: Any, mixed: bool, size: Size) -> DummyInputs:
    """Pages of up to grid_height x grid_width squares, the first one full; some rows are text if `mixed`."""
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    batch = size["batch_size"]
    text = text_row_flags(batch, generator) if mixed else [False] * batch
    squares = _squares(text, size, generator)
    images = [
        0 if is_text else rows * columns for is_text, (rows, columns) in zip(text, squares, strict=True)
    ]
    tensors = page_tensors(tokens_of(config.vlm_config), size, images, generator)
    vision = config.vlm_config.vision_config
    merge = int(vision.spatial_merge_size)
    patches = [rows * columns * merge**2 for rows, columns in squares]
    tensors["pixel_values"] = _pixels(vision, text, patches, generator)
    tensors["image_grid_thw"] = torch.tensor(
        [(1, rows * merge, columns * merge) for rows, columns in squares]
    )
    return DummyInputs(tensors, AXES)


def _squares(text: Sequence[bool], size: Size, generator: torch.Generator) -> list[tuple[int, int]]:
    """Each row's grid in squares of merged patches: one square for text, the full size for the first page."""
    import torch

    full = (size["grid_height"], size["grid_width"])
    drawn = [tuple(int(torch.randint(1, side + 1, (1,), generator=generator)) for side in full) for _ in text]
    first = text.index(False) if False in text else None
    drawn = [full if row == first else sides for row, sides in enumerate(drawn)]
    return [(1, 1) if is_text else (sides[0], sides[1]) for is_text, sides in zip(text, drawn, strict=True)]


def _pixels(
    vision: Any, text: Sequence[bool], patches: Sequence[int], generator: torch.Generator
) -> torch.Tensor:
    """(batch, most patches, pixels of a patch): noise for pages, zeros for text and behind shorter pages."""
    import torch

    per_patch = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    pixels = torch.zeros(len(patches), max(patches), per_patch)
    for row, (is_text, count) in enumerate(zip(text, patches, strict=True)):
        if not is_text:
            pixels[row, :count] = torch.randn(count, per_patch, generator=generator)
    return pixels


def _wrapper(images: bool, model: nn.Module) -> nn.Module:
    from converter.wrappers.colqwen2 import ColQwen2

    return ColQwen2(model, images=images)


def reference(model: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The untouched model with M-RoPE positions, pages as pages and rows without image tokens as text.

    `ColQwen2ForRetrieval` hands no token ids to the inner model, which therefore cannot make these positions
    itself; the published weights were trained with them.
    """
    return pages_and_text(model, tensors, partial(_embed, model))


def _embed(model: Any, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    ids = tensors["input_ids"]
    positions, _ = model.vlm.get_rope_index(
        ids,
        mm_token_type_ids=(ids == model.config.vlm_config.image_token_id).int(),
        image_grid_thw=tensors.get("image_grid_thw"),
        attention_mask=tensors["attention_mask"],
    )
    embeddings: torch.Tensor = model(**tensors, position_ids=positions).embeddings
    return embeddings


def _components(config: Any, task: str) -> Sequence[Component]:
    axes = (Axis("grid_height", 2, high=5), Axis("grid_width", 3, high=5))
    return retrieval_components(config, _wrapper, _page_inputs, reference, axes)


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    for name, over, checkpoint, source in (
        ("colqwen2", "Qwen2-VL", "vidore/colqwen2-v1.0-hf", SOURCE),
        ("colqwen2_5", "Qwen2.5-VL", "vidore/colqwen2.5-v0.2", NEWER),
    ):
        register(
            Architecture(
                name=name,
                model_types=(name,),
                summary=f"page and query embeddings for late interaction, over {over}",
                reference_checkpoint=checkpoint,
                source=source,
                components=_components,
                variants={TASK: VARIANTS},
                translations=conv3d_in_onnx,
                recognizes=source.recognizes,
            )
        )
