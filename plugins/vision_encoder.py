"""Image encoders (ViT, ConvNeXt and their kin) with their classifier: one wrapper, model types as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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

if TYPE_CHECKING:
    import torch
    from torch import nn

FEATURES, CLASSES = "image-feature-extraction", "image-classification"
CLASS_OF = {FEATURES: "AutoModel", CLASSES: "AutoModelForImageClassification"}

# Odd sizes; a grid of 6 x 6 patches. What follows from the depth is left for the config to work out.
TINY = {
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 52,
    "image_size": 24,
    "patch_size": 4,
    "num_labels": 5,
    "stage_names": None,
    "out_features": None,
    "out_indices": None,
}
STAGES = {"num_hidden_layers": None, "hidden_size": None, "num_attention_heads": None, "num_labels": 5}


@dataclass(frozen=True)
class Kind:
    """How a model type differs.

    tiny     what its tiny config needs beyond TINY
    dynamic  whether height and width may vary; if not, the graph takes the config's image size only
    options  arguments of every call; position tables are stretched to the image where the model can do it
    pooled   whether its features come with a `pooler_output` whose weights every checkpoint has
    tasks    those it has a class for
    """

    tiny: Mapping[str, Any] = field(default_factory=dict)
    dynamic: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    pooled: bool = False
    tasks: tuple[str, ...] = (FEATURES, CLASSES)


STRETCH = {"interpolate_pos_encoding": True}
CONV = {**STAGES, "hidden_sizes": [8, 12, 20, 28], "depths": [1, 2, 3, 1], "image_size": 40}
PYRAMID = {
    **STAGES,
    "hidden_sizes": [8, 12, 20, 28],
    "depths": [1, 1, 5, 1],
    "num_attention_heads": [1, 2, 2, 4],
}
PYRAMID["image_size"] = 64
SWIN = {
    **STAGES,
    "embed_dim": 12,
    "depths": [2, 2, 4],
    "num_heads": [1, 2, 3],
    "window_size": 3,
    "image_size": 48,
}

# model type -> how it differs
FAMILY: dict[str, Kind] = {
    "aimv2_vision_model": Kind(pooled=True, dynamic=False, tasks=(FEATURES,)),
    "beit": Kind(options=STRETCH),
    "clip_vision_model": Kind(options=STRETCH, pooled=True, tasks=(FEATURES,)),
    "convnext": Kind(CONV, pooled=True),
    "convnextv2": Kind(CONV, pooled=True),
    "data2vec-vision": Kind({"out_indices": [0, 1, 2, 3]}, options=STRETCH),
    "deit": Kind(options=STRETCH),
    "dinov2": Kind(pooled=True),
    "dinov2_with_registers": Kind(dynamic=False, pooled=True),
    "dinov3_convnext": Kind(CONV, pooled=True, tasks=(FEATURES,)),
    "dinov3_vit": Kind(pooled=True, tasks=(FEATURES,)),
    "donut-swin": Kind(SWIN, dynamic=False, pooled=True),
    "hiera": Kind(
        {
            **STAGES,
            "embed_dim": 8,
            "depths": [1, 1, 5, 1],
            "num_heads": [1, 1, 2, 4],
            "image_size": [64, 64],
            "patch_size": [7, 7],
        },
        dynamic=False,
        pooled=True,
    ),
    "ijepa": Kind(options=STRETCH),
    "mlcd_vision_model": Kind(pooled=True, tasks=(FEATURES,)),
    "pixio": Kind(pooled=True, tasks=(FEATURES,)),
    "poolformer": Kind(CONV),
    "pvt": Kind({**PYRAMID, "patch_size": 4}, dynamic=False),
    "pvt_v2": Kind({**PYRAMID, "image_size": [64, 64]}),
    "segformer": Kind(PYRAMID),
    "siglip_vision_model": Kind(options=STRETCH, pooled=True, tasks=(FEATURES,)),
    "swin": Kind(SWIN, dynamic=False, pooled=True),
    "swinv2": Kind({**SWIN, "pretrained_window_sizes": [0, 0, 0]}, dynamic=False, pooled=True),
    "vit": Kind(options=STRETCH),
    "vit_msn": Kind(options=STRETCH),
    "yolos": Kind({"num_detection_tokens": 4, "image_size": [24, 24]}, tasks=(FEATURES,), pooled=True),
    "levit": Kind(
        {
            **STAGES,
            "hidden_sizes": [16, 24, 32],
            "num_attention_heads": [2, 3, 4],
            "depths": [2, 2, 2],
            "key_dim": [8, 8, 8],
            "image_size": 64,
            "patch_size": 16,
            "down_ops": [["Subsample", 8, 2, 4, 2, 2], ["Subsample", 8, 3, 4, 2, 2]],
        },
        dynamic=False,
        pooled=True,
    ),
    "mobilevit": Kind(
        {
            "hidden_sizes": [16, 20, 24],
            "neck_hidden_sizes": [4, 8, 12, 16, 20, 24, 28],
            "num_attention_heads": 2,
            "patch_size": 2,
            "image_size": 64,
        },
        dynamic=False,
        pooled=True,
    ),
    "regnet": Kind({**CONV, "embedding_size": 8, "groups_width": 4}, pooled=True),
    "resnet": Kind({**CONV, "embedding_size": 8}, pooled=True),
}


def _image_size(config: Any) -> tuple[int, int]:
    size = getattr(config, "image_size", 40)
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _inputs(config: Any, dynamic: bool, size: Size) -> DummyInputs:
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    height, width = (size["height"], size["width"]) if dynamic else _image_size(config)
    axes = {0: "batch_size", **({2: "height", 3: "width"} if dynamic else {})}
    pixels = torch.randn(size["batch_size"], config.num_channels, height, width, generator=generator)
    return DummyInputs({"pixel_values": pixels}, {"pixel_values": axes})


def _wrapper(fields: tuple[str, ...], kind: Kind, model: nn.Module) -> nn.Module:
    from converter.wrappers.vision_encoder import VisionEncoder

    return VisionEncoder(model, fields, kind.options)


def _reference(
    fields: tuple[str, ...], kind: Kind, model: nn.Module, tensors: Any
) -> dict[str, torch.Tensor]:
    output = model(**tensors, **kind.options)
    return {name: output[name] for name in fields}


def _components(kind: Kind, config: Any, task: str) -> Sequence[Component]:
    fields: tuple[str, ...] = ("logits",) if task == CLASSES else ("last_hidden_state",)
    if kind.pooled and task == FEATURES:
        fields += ("pooler_output",)
    axes = [Axis("batch_size", 2, high=4)]
    if kind.dynamic:
        step = _image_size(config)[0]
        axes += [Axis("height", 2 * step, low=step, high=4 * step)]
        axes += [Axis("width", 3 * step, low=step, high=4 * step)]
    return (
        Component(
            stem="model",
            wrapper=partial(_wrapper, fields, kind),
            inputs=partial(_inputs, config, kind.dynamic),
            reference=partial(_reference, fields, kind),
            axes=tuple(axes),
            outputs=tuple(Output(name, {0: "batch_size"}) for name in fields),
        ),
    )


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    any_size = (Variant("image", ("model",), "pixels of any height and width in"),)
    one_size = (Variant("image", ("model",), "pixels of the checkpoint's own image size in"),)
    for model_type, kind in FAMILY.items():
        register(
            Architecture(
                name=model_type.replace("-", "_"),
                model_types=(model_type,),
                summary="image encoder and its classifier",
                reference_checkpoint="",
                source=TransformersModel(
                    classes={task: CLASS_OF[task] for task in kind.tasks},
                    tiny={**TINY, **kind.tiny},
                    model_type=model_type,
                ),
                components=partial(_components, kind),
                variants=dict.fromkeys(kind.tasks, any_size if kind.dynamic else one_size),
            )
        )
