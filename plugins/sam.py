"""Segment Anything (SAM, SlimSAM): a graph that sees the image once, and one that turns points on it into masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from converter import (
    Architecture,
    Axis,
    Component,
    DummyInputs,
    Output,
    Size,
    TransformersModel,
    Variant,
    hookimpl,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

TASK = "mask-generation"
# The names that optimum gave the two graphs, and that transformers.js asks for.
IMAGE, PROMPT = "vision_encoder", "prompt_encoder_mask_decoder"
# 8 x 8 patches, in windows of 3 x 3 that do not divide them; the last layer sees all of them.
TINY = {
    "vision_config": {
        "hidden_size": 36,
        "output_channels": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "image_size": 32,
        "patch_size": 4,
        "window_size": 3,
        "global_attn_indexes": [2],
        "num_pos_feats": 16,
        "mlp_dim": 44,
    },
    "prompt_encoder_config": {
        "hidden_size": 32,
        "image_size": 32,
        "patch_size": 4,
        "image_embedding_size": 8,
        "mask_input_channels": 4,
    },
    "mask_decoder_config": {
        "hidden_size": 32,
        "mlp_dim": 44,
        "num_attention_heads": 4,
        "iou_head_hidden_dim": 28,
    },
}


def _pixels(config: Any, size: Size) -> DummyInputs:
    import torch

    vision, generator = config.vision_config, torch.Generator().manual_seed(size.seed)
    shape = size["batch_size"], vision.num_channels, vision.image_size, vision.image_size
    return DummyInputs(
        {"pixel_values": torch.randn(shape, generator=generator)}, {"pixel_values": {0: "batch_size"}}
    )


def _prompts(config: Any, size: Size) -> DummyInputs:
    """Points all over the image, some outside of what is meant, some that are none; one table of places for all."""
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    prompt = config.prompt_encoder_config
    side = prompt.image_embedding_size
    counts = size["batch_size"], size["prompts"], size["points"]
    labels = torch.tensor([1, 0, -1, -10])[torch.randint(0, 4, counts, generator=generator)]
    labels[..., 0] = 1
    features = size["batch_size"], config.vision_config.output_channels, side, side
    places = torch.randn(1, *features[1:], generator=generator)
    tensors = {
        "input_points": torch.rand(*counts, 2, generator=generator) * prompt.image_size,
        "input_labels": labels,
        "image_embeddings": torch.randn(features, generator=generator),
        "image_positional_embeddings": places.expand(features).contiguous(),
    }
    pointed = {0: "batch_size", 1: "prompts", 2: "points"}
    axes = {name: pointed if name.startswith("input_") else {0: "batch_size"} for name in tensors}
    return DummyInputs(tensors, axes)


def _encoder(model: nn.Module) -> nn.Module:
    from converter.wrappers.sam import VisionEncoder

    return VisionEncoder(model)


def _decoder(model: nn.Module) -> nn.Module:
    from converter.wrappers.sam import MaskDecoder

    return MaskDecoder(model)


def _seen(model: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    embeddings = model.get_image_embeddings(**tensors)
    places = model.get_image_wide_positional_embeddings()
    return {
        "image_embeddings": embeddings,
        "image_positional_embeddings": places.repeat(len(embeddings), 1, 1, 1),
    }


def _masks(model: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The whole model on embeddings of an image; the places, which it works out anew each time, are those given."""
    given = dict(tensors)
    places = given.pop("image_positional_embeddings")[:1]
    model.get_image_wide_positional_embeddings = lambda: places
    try:
        output = model(**given)
    finally:
        del model.get_image_wide_positional_embeddings
    return {"iou_scores": output.iou_scores, "pred_masks": output.pred_masks}


def _components(config: Any, task: str) -> Sequence[Component]:
    batch, prompts = Axis("batch_size", 2, high=4), {0: "batch_size", 1: "prompts"}
    return (
        Component(
            stem=IMAGE,
            wrapper=_encoder,
            inputs=partial(_pixels, config),
            reference=_seen,
            axes=(batch,),
            outputs=(
                Output("image_embeddings", {0: "batch_size"}),
                Output("image_positional_embeddings", {0: "batch_size"}),
            ),
        ),
        Component(
            stem=PROMPT,
            wrapper=_decoder,
            inputs=partial(_prompts, config),
            reference=_masks,
            axes=(batch, Axis("prompts", 3, high=6), Axis("points", 4, high=9)),
            outputs=(Output("iou_scores", prompts), Output("pred_masks", prompts)),
        ),
    )


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    register(
        Architecture(
            name="sam",
            model_types=("sam",),
            summary="masks of what points on an image mean",
            reference_checkpoint="facebook/sam-vit-base",
            source=TransformersModel({TASK: "AutoModelForMaskGeneration"}, TINY, "sam"),
            components=_components,
            variants={
                TASK: (Variant("points", (IMAGE, PROMPT), "an image in; then points on it in, masks out"),)
            },
        )
    )
