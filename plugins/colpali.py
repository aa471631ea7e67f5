"""ColPali: multi-vector retrieval over PaliGemma, pages of one fixed size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from converter import (
    Architecture,
    Component,
    DummyInputs,
    Size,
    Tolerance,
    hookimpl,
)
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

if TYPE_CHECKING:
    import torch
    from torch import nn

    from converter.records import Dtype

AXES: Mapping[str, Mapping[int, str]] = {
    "input_ids": TOKENS,
    "attention_mask": TOKENS,
    "pixel_values": {0: "batch_size"},
}

# Two layers a tower, grouped heads, and a head size that is not the width divided by the heads, as in Gemma.
PALIGEMMA: Mapping[str, Any] = {
    "vocab_size": 601,
    "image_token_index": 593,
    "hidden_size": 44,
    "projection_dim": 44,
    "text_config": {
        "vocab_size": 601,
        "hidden_size": 44,
        "intermediate_size": 76,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 14,
        "max_position_embeddings": 512,
        "layer_types": None,
    },
    "vision_config": {
        "hidden_size": 36,
        "intermediate_size": 52,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 21,
        "patch_size": 7,
        "projection_dim": 44,
    },
}
# colpali-engine's class holds PaliGemma with its head, whose tensors two releases of transformers named differently.
SOURCE = RetrievalModel(
    classes={TASK: "ColPaliForRetrieval"},
    tiny={"embedding_dim": 20, "vlm_config": {"text_config": {"num_hidden_layers": 2}}},
    model_type="colpali",
    backbones={
        "paligemma": {
            r"^model\.model\.": "model.",
            r"^model\.language_model\.model\.": "model.language_model.",
        }
    },
    tinies={"paligemma": PALIGEMMA},
)


# Image features enter unscaled beside text embeddings scaled by the root of the width, and rounding shows.
HALF: Mapping[Dtype, Tolerance] = {
    "fp16": Tolerance(4e-2, 0.9995, reason="measured up to 8.5e-3 and 0.99989 on tiny random weights"),
}


def _page_inputs(config: Any, mixed: bool, size: Size) -> DummyInputs:
    """Pages of the config's size; some rows are text with an all-zero image if `mixed`."""
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    batch = size["batch_size"]
    text = text_row_flags(batch, generator) if mixed else [False] * batch
    vision = config.vlm_config.vision_config
    count = (vision.image_size // vision.patch_size) ** 2
    images = [0 if is_text else count for is_text in text]
    tensors = page_tensors(tokens_of(config.vlm_config), size, images, generator)
    shape = (batch, vision.num_channels, vision.image_size, vision.image_size)
    pixels = torch.randn(shape, generator=generator)
    pixels[torch.tensor(text)] = 0
    tensors["pixel_values"] = pixels
    return DummyInputs(tensors, AXES)


def _wrapper(images: bool, model: nn.Module) -> nn.Module:
    from converter.wrappers.colpali import ColPali

    return ColPali(model, images=images)


def reference(model: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The untouched model, called with what `ColPaliProcessor` makes; rows without image tokens as text.

    The processor always adds `token_type_ids`, all 0, with which PaliGemma attends in both directions.
    """
    return pages_and_text(model, tensors, partial(_embed, model))


def _embed(model: Any, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    prefix = tensors["input_ids"].new_zeros(tensors["input_ids"].shape)
    embeddings: torch.Tensor = model(**tensors, token_type_ids=prefix).embeddings
    return embeddings


def _components(config: Any, task: str) -> Sequence[Component]:
    return retrieval_components(config, _wrapper, _page_inputs, reference, (), tolerance=HALF)


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    register(
        Architecture(
            name="colpali",
            model_types=("colpali",),
            summary="page and query embeddings for late interaction, over PaliGemma",
            reference_checkpoint="vidore/colpali-v1.3-hf",
            source=SOURCE,
            components=_components,
            variants={TASK: VARIANTS},
            recognizes=SOURCE.recognizes,
        )
    )
