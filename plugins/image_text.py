"""Image-text models (CLIP, SigLIP and their kin): a graph of each tower and one of both, types as data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
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
from converter.plugins._vision_types import STRETCHES

if TYPE_CHECKING:
    import torch
    from torch import nn

ZERO_SHOT, FEATURES = "zero-shot-image-classification", "feature-extraction"

TEXTS, IMAGES = "text_batch_size", "image_batch_size"
# The fields of the joint model that optimum and transformers.js read, with the axes that vary.
SIMILARITIES: dict[str, Mapping[int, str]] = {
    "logits_per_image": {0: IMAGES, 1: TEXTS},
    "logits_per_text": {0: TEXTS, 1: IMAGES},
    "text_embeds": {0: TEXTS},
    "image_embeds": {0: IMAGES},
}

TEXT = {
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 52,
    "vocab_size": 601,
    "max_position_embeddings": 20,
    "eos_token_id": 600,
    "bos_token_id": 0,
    "pad_token_id": 1,
    "projection_dim": 20,
    "projection_size": 28,
}
VISION = {
    "hidden_size": 28,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 44,
    "image_size": 24,
    "patch_size": 4,
    "projection_dim": 20,
}
TINY = {"text_config": TEXT, "vision_config": VISION, "projection_dim": 20}
BERT_TEXT = {**TEXT, "max_position_embeddings": 40, "project_dim": 20, "pad_token_id": 0}


@dataclass(frozen=True)
class Kind:
    """How a model type differs.

    tiny       its tiny config
    masked     whether its text tower is told of padding; SigLIP is not, and reads its padding
    segments   whether it takes token_type_ids
    patches    whether images come cut into patches, each image with its own grid of them
    embeds     whether a tower's pooled output is called text_embeds and image_embeds, as with CLIP, or pooler_output
    """

    tiny: Mapping[str, Any] = field(default_factory=lambda: TINY)
    masked: bool = True
    segments: bool = False
    embeds: bool = True
    patches: bool = False


# model type -> how it differs
FAMILY: dict[str, Kind] = {
    "altclip": Kind({**TINY, "text_config": {**BERT_TEXT, "pad_token_id": 1, "type_vocab_size": 1}}),
    "chinese_clip": Kind({**TINY, "text_config": BERT_TEXT}, segments=True),
    "clip": Kind(),
    "clipseg": Kind(),
    "metaclip_2": Kind(),
    "siglip": Kind(
        {"text_config": {**TEXT, "projection_size": 28}, "vision_config": VISION}, masked=False, embeds=False
    ),
    "siglip2": Kind(
        {"text_config": TEXT, "vision_config": {**VISION, "num_patches": 16}},
        masked=False,
        embeds=False,
        patches=True,
    ),
}


def _text_inputs(kind: Kind, config: Any, size: Size, batch: str) -> dict[str, torch.Tensor]:
    """Texts that end in the token that the tower is read at, padded on the right as their tokenizers do."""
    from converter.plugins.text_encoder import token_inputs

    text = config.text_config
    axes = {"batch_size": size[batch], "sequence_length": size["sequence_length"]}
    end, pad = getattr(text, "eos_token_id", None), text.pad_token_id or 0
    segments = text.type_vocab_size if kind.segments else 0
    made = token_inputs(
        Size(axes, "none" if size.padding == "none" else "right", size.seed),
        vocabulary=text.vocab_size - 1,
        pad=pad,
        segments=segments,
    )
    tensors = dict(made.tensors)
    if end is not None and end != pad and end < text.vocab_size:
        ids, mask = tensors["input_ids"], tensors["attention_mask"]
        ids = ids.where(ids != end, end - 1)
        tensors["input_ids"] = ids.scatter(1, mask.sum(dim=1, keepdim=True) - 1, end)
    if not kind.masked:
        del tensors["attention_mask"]
    return tensors


def _image_inputs(kind: Kind, config: Any, size: Size, batch: str) -> dict[str, torch.Tensor]:
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    vision = config.vision_config
    channels = getattr(vision, "num_channels", 3)
    if not kind.patches:
        shape = channels, size["height"], size["width"]
        return {"pixel_values": torch.randn(size[batch], *shape, generator=generator)}
    count = size["num_patches"]
    # Never one column alone: for that torch 2.13 resizes tables in the order that the original has wrongly, by 0.7.
    rows = 1 + (torch.arange(size[batch]) + size.seed) % min(4, count // 2)
    shapes = torch.stack([rows, count // rows], dim=1)
    pixels = torch.randn(size[batch], count, channels * vision.patch_size**2, generator=generator)
    mask = (torch.arange(count) < shapes.prod(dim=1, keepdim=True)).long()
    return {"pixel_values": pixels, "pixel_attention_mask": mask, "spatial_shapes": shapes}


def _inputs(kind: Kind, config: Any, side: str, size: Size) -> DummyInputs:
    texts, images = (TEXTS, IMAGES) if side == "both" else ("batch_size", "batch_size")
    tensors: dict[str, torch.Tensor] = {}
    if side != "image":
        tensors |= _text_inputs(kind, config, size, texts)
    axes: dict[str, Mapping[int, str]] = {name: {0: texts, 1: "sequence_length"} for name in tensors}
    if side != "text":
        pictures = _image_inputs(kind, config, size, images)
        tensors |= pictures
        axes |= {name: {0: images} for name in pictures}
        if kind.patches:
            axes |= {name: {0: images, 1: "num_patches"} for name in ("pixel_values", "pixel_attention_mask")}
        else:
            axes["pixel_values"] = {0: images, 2: "height", 3: "width"}
    # What stands at padding is nobody's business, unless the model is not told of it and so reads it.
    valid = {"last_hidden_state": tensors["attention_mask"].bool()} if "attention_mask" in tensors else {}
    return DummyInputs(tensors, axes, valid if side == "text" else {})


def _options(kind: Kind, side: str) -> Mapping[str, bool]:
    """Of a call: images of another size than the checkpoint's have its positions stretched over them."""
    return {} if side == "text" or kind.patches else {STRETCHES: True}


def _wrapper(kind: Kind, side: str, model: nn.Module) -> nn.Module:
    from converter.wrappers.image_text import Pair, Tower

    options = _options(kind, side)
    return Pair(model, tuple(SIMILARITIES), options) if side == "both" else Tower(model, side, options)


def _reference(kind: Kind, side: str, pooled: str, model: Any, tensors: Any) -> dict[str, torch.Tensor]:
    options = _options(kind, side)
    if side == "both":
        output = model(**tensors, **options)
        return {name: output[name] for name in SIMILARITIES}
    output = getattr(model, f"get_{side}_features")(**tensors, **options)
    return {pooled: output.pooler_output, "last_hidden_state": output.last_hidden_state}


def _image_axes(kind: Kind, config: Any) -> tuple[Axis, ...]:
    if kind.patches:
        return (Axis("num_patches", 20, low=4, high=40),)
    side = config.vision_config.image_size
    return (
        Axis("height", side + side // 2, low=side, high=2 * side),
        Axis("width", 2 * side, low=side, high=2 * side),
    )


def _components(kind: Kind, config: Any, task: str) -> Sequence[Component]:
    # The start and the end of a text are tokens of their own, and one of each is the least there is.
    length = Axis("sequence_length", 7, low=2, high=min(16, config.text_config.max_position_embeddings - 2))
    batch = Axis("batch_size", 2, high=5)
    image = _image_axes(kind, config)
    outputs = tuple(Output(name, axes) for name, axes in SIMILARITIES.items())
    both = Component(
        stem="model",
        wrapper=partial(_wrapper, kind, "both"),
        inputs=partial(_inputs, kind, config, "both"),
        reference=partial(_reference, kind, "both", ""),
        axes=(Axis(TEXTS, 2, high=5), length, Axis(IMAGES, 3, high=4), *image),
        outputs=outputs,
    )
    return (
        both,
        _tower(kind, config, "text", (batch, length), {0: "batch_size", 1: "sequence_length"}),
        _tower(kind, config, "image", (batch, *image), {0: "batch_size"}),
    )


def _tower(
    kind: Kind, config: Any, side: str, axes: tuple[Axis, ...], hidden: Mapping[int, str]
) -> Component:
    pooled = f"{side}_embeds" if kind.embeds else "pooler_output"
    return Component(
        stem="text_model" if side == "text" else "vision_model",
        wrapper=partial(_wrapper, kind, side),
        inputs=partial(_inputs, kind, config, side),
        reference=partial(_reference, kind, side, pooled),
        axes=axes,
        outputs=(Output(pooled, {0: "batch_size"}), Output("last_hidden_state", hidden)),
    )


@contextmanager
def _positions_at_once() -> Iterator[None]:
    """SigLIP 2 resizes its positions image by image, by sizes that are input; traced, for all images at once."""
    from transformers.models.siglip2 import modeling_siglip2

    from converter.wrappers.image_text import resized_positions

    owner: Any = modeling_siglip2.Siglip2VisionEmbeddings
    original = owner.resize_positional_embeddings
    owner.resize_positional_embeddings = staticmethod(
        lambda positional_embeddings, spatial_shapes, max_length: resized_positions(
            positional_embeddings, spatial_shapes, max_length
        )
    )
    try:
        yield
    finally:
        owner.resize_positional_embeddings = staticmethod(original)


BOTH = Variant("joint", ("model",), "texts and images in, their embeddings and similarities out")
TOWERS = (
    Variant("text", ("text_model",), "texts in, embeddings out"),
    Variant("image", ("vision_model",), "images in, embeddings out"),
)


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    for model_type, kind in FAMILY.items():
        register(
            Architecture(
                name=model_type,
                model_types=(model_type,),
                summary="image-text model",
                reference_checkpoint="",
                source=TransformersModel(
                    classes={ZERO_SHOT: "AutoModelForZeroShotImageClassification", FEATURES: "AutoModel"},
                    tiny=kind.tiny,
                    model_type=model_type,
                ),
                components=partial(_components, kind),
                patches=_positions_at_once if kind.patches else nullcontext,
                variants={ZERO_SHOT: (BOTH, *TOWERS), FEATURES: TOWERS},
            )
        )
