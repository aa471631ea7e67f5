"""What the converter loads. Importing this file must not import torch, so functions import what they need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from converter import Architecture, Axis, Component, DummyInputs, Output, Size, Variant, hookimpl
from converter_heat_map.lowering import translations, without_checks
from converter_heat_map.source import TASK, HeatMapSource

if TYPE_CHECKING:
    import torch
    from torch import nn

    from converter_heat_map.model import Config

converter_api = "1.0"

BATCH, HEIGHT, WIDTH = "batch_size", "height", "width"


def inputs(size: Size) -> DummyInputs:
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    pixels = torch.rand(size[BATCH], 3, size[HEIGHT], size[WIDTH], generator=generator)
    return DummyInputs({"pixel_values": pixels}, {"pixel_values": {0: BATCH, 2: HEIGHT, 3: WIDTH}})


def wrapper(model: nn.Module) -> nn.Module:
    from converter_heat_map.wrapper import CountPeaks

    return CountPeaks(model)


def reference(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    from converter_heat_map.wrapper import THRESHOLD

    peaks = model(tensors["pixel_values"])
    counts = [[int((kind > THRESHOLD).sum()) for kind in image] for image in peaks]
    return {"peaks": peaks, "counts": peaks.new_tensor(counts).long()}


def components(config: Config, task: str) -> Sequence[Component]:
    rows = {0: BATCH, 2: "rows", 3: "columns"}
    return (
        Component(
            stem="model",
            wrapper=wrapper,
            inputs=inputs,
            reference=reference,
            axes=(
                Axis(BATCH, traced=2, high=4),
                Axis(HEIGHT, traced=22, low=5, high=40),
                Axis(WIDTH, traced=31, low=5, high=40),
            ),
            outputs=(Output("peaks", rows), Output("counts", {0: BATCH})),
        ),
    )


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    register(
        Architecture(
            name="heat_map",
            model_types=("heat_map",),
            summary="finds and counts small things in images",
            reference_checkpoint="",
            source=HeatMapSource(),
            components=components,
            variants={TASK: (Variant("image", ("model",), "pixels in, peaks and their number out"),)},
            patches=without_checks,
            translations=translations,
        )
    )
