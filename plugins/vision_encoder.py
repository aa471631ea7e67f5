"""Models that see images (ViT, ConvNeXt, DETR and their kin) with their heads: one wrapper, model types as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
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
from converter.plugins._exporters import sizes_stay_sizes
from converter.plugins._layouts import processor_sizes
from converter.plugins._vision_types import FAMILY, FEATURES, STRETCHES, Kind

if TYPE_CHECKING:
    import torch
    from torch import nn

# Of an image where the config names no size of its own.
SIDE = 40
# Images are tried up to this side: attention over all patches of a larger one takes gigabytes.
LARGEST = 896
# The widest stride of models that halve their patches.
HALVED = 32


def image_size(config: Any) -> tuple[int, int]:
    """Height and width that the config names; without one, what its processor makes, or its backbone's."""
    size = getattr(config, "image_size", None)
    if not size and hasattr(config, "backbone_config"):
        size = next(iter(processor_sizes(config)), None) or getattr(
            config.backbone_config, "image_size", None
        )
    size = size or SIDE
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _varies(kind: Kind, config: Any) -> bool:
    """Whether the image's size may vary. Where there is a table of positions, in a backbone too, it may not."""
    inner = getattr(config, "backbone_config", None)
    backbone = FAMILY.get(getattr(inner, "model_type", ""))
    if any(getattr(part, "use_absolute_embeddings", False) for part in (config, inner)):
        return False
    return kind.dynamic and (backbone is None or backbone.dynamic) and _options(kind, config) == kind.options


def _least(kind: Kind, config: Any) -> int:
    """The least side of an image, in units."""
    if not kind.windows:
        return -(-image_size(config)[0] // kind.unit)
    # Each stage but the first halves the grid, and rounds up. A window never is larger than the last one's.
    grid = (config.window_size - 1) * 2 ** (len(config.depths) - 1) + 1
    least: int = (grid - 1) * config.patch_size + 1
    return least


def _options(kind: Kind, config: Any) -> Mapping[str, Any]:
    """Of a call; models stretch their positions as a square of squares: they take any other table for one."""
    height, width = image_size(config)
    if isinstance(getattr(config, "patch_size", 1), int) and height == width:
        return kind.options
    return {name: value for name, value in kind.options.items() if name != STRETCHES}


def _inputs(config: Any, kind: Kind, size: Size) -> DummyInputs:
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    batch, channels = size["batch_size"], getattr(config, "num_channels", 3)
    height, width = image_size(config)
    varies = _varies(kind, config)
    if varies:
        height, width = size["height"] * kind.unit, size["width"] * kind.unit
    axes = {"pixel_values": {0: "batch_size", **({2: "height", 3: "width"} if varies else {})}}
    tensors = {"pixel_values": torch.randn(batch, channels, height, width, generator=generator)}
    if kind.masked:
        tensors["pixel_mask"] = _mask(batch, size)
        axes["pixel_mask"] = {0: "batch_size", 1: "mask_height", 2: "mask_width"}
    return DummyInputs(tensors, axes)


def _mask(batch: int, size: Size) -> torch.Tensor:
    """Images of a batch are padded to one size on the right and below, as their processors do it."""
    import torch

    height, width = size["mask_height"], size["mask_width"]
    mask = torch.ones(batch, height, width, dtype=torch.int64)
    for row in range(1, batch if size.padding != "none" else 1):
        mask[row, -row * (height // 6) :] = 0
        mask[row, :, -row * (width // 8) :] = 0
    return mask


def _wrapper(fields: tuple[str, ...], kind: Kind, model: nn.Module) -> nn.Module:
    from converter.wrappers.swin import WindowedVisionEncoder, has_windows
    from converter.wrappers.vision_encoder import VisionEncoder

    windowed = _varies(kind, model.config) and has_windows(model)
    wrapped = WindowedVisionEncoder if windowed else VisionEncoder
    return wrapped(model, fields, _options(kind, model.config))


def _reference(
    fields: tuple[str, ...], kind: Kind, model: nn.Module, tensors: Any
) -> dict[str, torch.Tensor]:
    from converter.wrappers.swin import as_loaded

    with as_loaded(model):
        output = model(**tensors, **_options(kind, model.config))
    return {name: output[name] for name in fields}


def _axes(kind: Kind, config: Any) -> Sequence[Axis]:
    axes = [Axis("batch_size", 2, high=4)]
    if _varies(kind, config):
        low = _least(kind, config)
        further = _further(low, LARGEST // kind.unit, _patch(config) if kind.unit == 1 else 1)
        own = min(max(image_size(config)), LARGEST) // kind.unit
        high = max(low + 3 * further, own)
        axes += [Axis("height", low + further, low=low, high=high)]
        axes += [Axis("width", low + 2 * further, low=low, high=high)]
    if kind.masked:
        # Of a resolution of its own: transformers.js sends 64 x 64 whatever the image's size.
        axes += [Axis("mask_height", 64, low=32, high=160), Axis("mask_width", 56, low=32, high=160)]
    return axes


def _further(low: int, largest: int, step: int) -> int:
    """By how much a traced side exceeds the least: as much again, or some steps where that leads beyond the largest."""
    room = max(largest - low, low // 4) // 3
    return low if room >= low else max(step, room - room % step)


def _patch(config: Any) -> int:
    """Pixels that images grow by: a patch, or what it becomes in models that halve their patches."""
    of = config if hasattr(config, "patch_size") else getattr(config, "backbone_config", None)
    size = getattr(of, "patch_size", None)
    return size if isinstance(size, int) and HALVED % size else HALVED


def _components(kind: Kind, config: Any, task: str) -> Sequence[Component]:
    fields = kind.head(task)[1]
    if kind.pooled and task == FEATURES:
        fields += ("pooler_output",)
    return (
        Component(
            stem="model",
            wrapper=partial(_wrapper, fields, kind),
            inputs=partial(_inputs, config, kind),
            reference=partial(_reference, fields, kind),
            axes=tuple(_axes(kind, config)),
            outputs=tuple(Output(name, {0: "batch_size"}) for name in fields),
        ),
    )


def _sizes_stay_sizes(model: str) -> AbstractContextManager[None]:
    import transformers

    folder, _, name = model.partition("/")
    module = f"{transformers.__name__}.models.{folder}.modeling_{name or folder}"
    return sizes_stay_sizes(module, shadow_int=True)


def _summary(kind: Kind) -> str:
    size = "any height and width" if kind.dynamic else "the checkpoint's own image size"
    if kind.unit > 1:
        size = f"a height and width in multiples of {kind.unit}"
    return f"pixels of {size}, and a mask of them, in" if kind.masked else f"pixels of {size} in"


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    for model_type, kind in FAMILY.items():
        register(
            Architecture(
                name=model_type.replace("-", "_"),
                model_types=(model_type,),
                summary="image encoder and its heads",
                reference_checkpoint="",
                source=TransformersModel(
                    classes={task: kind.head(task)[0] for task in kind.tasks},
                    tiny=kind.small,
                    model_type=model_type,
                ),
                components=partial(_components, kind),
                patches=partial(_sizes_stay_sizes, kind.freezes) if kind.freezes else nullcontext,
                variants=dict.fromkeys(kind.tasks, (Variant("image", ("model",), _summary(kind)),)),
            )
        )
