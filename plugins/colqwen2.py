"""ColQwen2: multi-vector retrieval over Qwen2-VL, pages of any shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from converter import Architecture, Axis, Component, DummyInputs, Size, TransformersModel, hookimpl
from converter.plugins._retrieval import (
    OUTPUTS,
    TASK,
    TOKENS,
    VARIANTS,
    page_tensors,
    text_row_flags,
    text_tensors,
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

# Two layers a tower, odd widths, grouped heads, three M-RoPE sections that differ. A checkpoint lists
# layer_types for its own depth; without the list it is derived.
TINY: Mapping[str, Any] = {
    "embedding_dim": 20,
    "vlm_config": {
        "vocab_size": 601,
        "image_token_id": 593,
        "video_token_id": 594,
        "vision_start_token_id": 591,
        "vision_end_token_id": 592,
        "text_config": {
            "vocab_size": 601,
            "hidden_size": 48,
            "intermediate_size": 76,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "max_window_layers": 2,
            "layer_types": None,
            "rope_parameters": {"mrope_section": [1, 2, 3]},
            "bos_token_id": 589,
            "eos_token_id": 590,
            "pad_token_id": 588,
        },
        "vision_config": {
            "depth": 2,
            "embed_dim": 36,
            "hidden_size": 48,
            "num_heads": 3,
            "mlp_ratio": 2,
            "patch_size": 3,
        },
    },
}


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


def _text_inputs(config: Any, size: Size) -> DummyInputs:
    tensors = text_tensors(tokens_of(config.vlm_config), size)
    return DummyInputs(tensors, {name: AXES[name] for name in tensors})


def _wrapper(images: bool, model: nn.Module) -> nn.Module:
    from converter.wrappers.colqwen2 import ColQwen2

    return ColQwen2(model, images=images)


def reference(model: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The untouched model with M-RoPE positions, pages as pages and rows without image tokens as text.

    `ColQwen2ForRetrieval` hands no token ids to the inner model, which therefore cannot make these positions
    itself; the published weights were trained with them.
    """
    ids = tensors["input_ids"]
    if "pixel_values" not in tensors:
        return {"embeddings": _embed(model, tensors)}
    page = (ids == model.config.vlm_config.image_token_id).any(dim=1)
    rows = ids.new_zeros(*ids.shape, model.embedding_dim, dtype=tensors["pixel_values"].dtype)
    if page.any():
        rows[page] = _embed(model, {name: tensor[page] for name, tensor in tensors.items()})
    if not page.all():
        rows[~page] = _embed(model, {name: tensors[name][~page] for name in ("input_ids", "attention_mask")})
    return {"embeddings": rows}


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


def _translations() -> dict[Any, Any]:
    """A convolution over patches for ONNX.

    onnxscript 0.7.2 invents a two-dimensional bias for `conv3d` without one, which onnxruntime refuses.
    """
    import torch
    from onnxscript import opset18

    def conv3d(
        input: Any,
        weight: Any,
        bias: Any = None,
        stride: Sequence[int] = (1, 1, 1),
        padding: Sequence[int] = (0, 0, 0),
        dilation: Sequence[int] = (1, 1, 1),
        groups: int = 1,
    ) -> Any:
        inputs = (input, weight) if bias is None else (input, weight, bias)
        pads = [*padding, *padding]
        return opset18.Conv(*inputs, strides=list(stride), pads=pads, dilations=list(dilation), group=groups)

    return {torch.ops.aten.conv3d.default: conv3d}


def _components(config: Any, task: str) -> Sequence[Component]:
    batch = Axis("batch_size", 2, high=5)
    pages = partial(_wrapper, True)
    page_axes = (
        batch,
        Axis("text_length", 5, high=9),
        Axis("grid_height", 2, high=5),
        Axis("grid_width", 3, high=5),
    )
    return (
        Component(
            stem="text_model",
            wrapper=partial(_wrapper, False),
            inputs=partial(_text_inputs, config),
            reference=reference,
            axes=(batch, Axis("sequence_length", 7, high=24)),
            outputs=OUTPUTS,
        ),
        Component(
            stem="image_model",
            wrapper=pages,
            inputs=partial(_page_inputs, config, False),
            reference=reference,
            axes=page_axes,
            outputs=OUTPUTS,
        ),
        Component(
            stem="model",
            wrapper=pages,
            inputs=partial(_page_inputs, config, True),
            reference=reference,
            axes=page_axes,
            outputs=OUTPUTS,
        ),
    )


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    register(
        Architecture(
            name="colqwen2",
            model_types=("colqwen2",),
            summary="page and query embeddings for late interaction, over Qwen2-VL",
            reference_checkpoint="vidore/colqwen2-v1.0-hf",
            source=TransformersModel(
                classes={TASK: "ColQwen2ForRetrieval"}, tiny=TINY, model_type="colqwen2"
            ),
            components=_components,
            variants={TASK: VARIANTS},
            translations=_translations,
        )
    )
