"""ColModernVBERT and ColIdefics3 (ColSmol): multi-vector retrieval over pages cut into square tiles."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from converter import Architecture, Axis, Component, DummyInputs, Size, hookimpl
from converter.plugins._engine import RetrievalModel
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
from converter.plugins._tiles import IDEFICS3, TEXT, VISION, tile_tensors, tokens_of_tile

if TYPE_CHECKING:
    import torch
    from torch import nn

AXES: Mapping[str, Mapping[int, str]] = {
    "input_ids": TOKENS,
    "attention_mask": TOKENS,
    "pixel_values": {0: "batch_size", 1: "num_images"},
    "pixel_attention_mask": {0: "batch_size", 1: "num_images"},
}
SIDES = {"pixel_values": (3, 4), "pixel_attention_mask": (2, 3)}

MODERNVBERT: Mapping[str, Any] = {
    "image_token_id": 593,
    "pixel_shuffle_factor": 2,
    "text_config": {
        **TEXT,
        "num_attention_heads": 3,
        "num_key_value_heads": None,
        "local_attention": 8,
        "layer_types": None,
        "cls_token_id": 589,
        "sep_token_id": 590,
    },
    "vision_config": VISION,
}
CLASS = {TASK: "ColModernVBertForRetrieval"}
TINY = {"embedding_dim": 20, "vlm_config": {"text_config": {"num_hidden_layers": 2}}}
MODERN = RetrievalModel(
    CLASS, TINY, "colmodernvbert", backbones={"modernvbert": {}}, tinies={"modernvbert": MODERNVBERT}
)
# The class of transformers takes any backbone of this shape; colpali-engine's over Idefics3 has no other.
IDEFICS = RetrievalModel(
    CLASS,
    TINY,
    "colmodernvbert",
    backbones={"idefics3": {}},
    tinies={"idefics3": IDEFICS3},
    bare="idefics3",
    class_name="ColIdefics3",
)


def _sized(config: Any) -> bool:
    """Whether the tower takes tiles of any size, and a mask for them."""
    return bool(config.vlm_config.model_type == "idefics3")


def _page_inputs(config: Any, mixed: bool, size: Size) -> DummyInputs:
    """Pages of one to `num_images` tiles, the first page of all of them; some rows are text if `mixed`."""
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    batch, most = size["batch_size"], size["num_images"]
    text = text_row_flags(batch, generator) if mixed else [False] * batch
    first = text.index(False) if False in text else None
    tiles = [
        0 if is_text else most if row == first else int(torch.randint(1, most + 1, (1,), generator=generator))
        for row, is_text in enumerate(text)
    ]
    squares = size["tile_squares"] if _sized(config) else None
    each = tokens_of_tile(config.vlm_config, squares)
    tensors = page_tensors(tokens_of(config.vlm_config), size, [count * each for count in tiles], generator)
    tensors |= tile_tensors(config.vlm_config, tiles, most, squares, generator)
    axes = {name: dict(AXES[name]) for name in tensors}
    if _sized(config):
        for name, dims in SIDES.items():
            axes[name] |= dict(zip(dims, ("height", "width"), strict=True))
    return DummyInputs(tensors, axes)


def _wrapper(images: bool, model: nn.Module) -> nn.Module:
    from converter.wrappers.colmodernvbert import ColModernVBert

    return ColModernVBert(model, images=images)


def reference(model: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The untouched model on what its processor makes: pages as pages, rows without image tokens as text."""
    return pages_and_text(model, tensors, lambda rows: model(**rows).embeddings)


def _components(config: Any, task: str) -> Sequence[Component]:
    sides = (Axis("tile_squares", 3, high=4),) if _sized(config) else ()
    axes = (Axis("num_images", 3, high=4), *sides)
    return retrieval_components(config, _wrapper, _page_inputs, reference, axes)


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    for name, types, over, checkpoint, source in (
        ("colmodernvbert", ("colmodernvbert",), "ModernVBERT", "ModernVBERT/colmodernvbert", MODERN),
        ("colidefics3", ("colidefics3", "colsmol"), "Idefics3", "vidore/colSmol-256M", IDEFICS),
    ):
        register(
            Architecture(
                name=name,
                model_types=types,
                summary=f"page and query embeddings for late interaction, over {over}",
                reference_checkpoint=checkpoint,
                source=source,
                components=_components,
                variants={TASK: VARIANTS},
                recognizes=source.recognizes,
            )
        )
