"""What the converter loads. Importing this file must not import torch, so functions import what they need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from converter import Architecture, Axis, Component, DummyInputs, Output, Size, Variant, hookimpl
from converter_tiny_mlp.source import ItemScorerSource

if TYPE_CHECKING:
    import torch
    from torch import nn

    from converter_tiny_mlp.model import Config

converter_api = "1.0"  # of the extension surface this was written for

BATCH, ITEMS = "batch_size", "num_items"
TASK = "item-scoring"


def inputs(config: Config, size: Size) -> DummyInputs:
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    batch, items = size[BATCH], size[ITEMS]
    tensors = {
        "features": torch.randn(batch, config.features, generator=generator),
        "item_ids": torch.randint(0, config.catalogue, (batch, items), generator=generator),
    }
    return DummyInputs(tensors, {"features": {0: BATCH}, "item_ids": {0: BATCH, 1: ITEMS}})


def wrapper(model: nn.Module) -> nn.Module:
    from converter_tiny_mlp.wrapper import ScoreItems

    return ScoreItems(model)


def reference(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    return model(dict(tensors))


def components(config: Config, task: str) -> Sequence[Component]:
    return (
        Component(
            stem="model",
            wrapper=wrapper,
            inputs=partial(inputs, config),
            reference=reference,
            axes=(Axis(BATCH, traced=2, high=8), Axis(ITEMS, traced=3, high=20)),
            outputs=(Output("scores", {0: BATCH, 1: ITEMS}),),
        ),
    )


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    register(
        Architecture(
            name="tiny_mlp",
            model_types=("tiny_mlp",),
            summary="scores items of a catalogue for users",
            reference_checkpoint="",
            source=ItemScorerSource(),
            components=components,
            variants={TASK: (Variant("scores", ("model",), "users and item ids in, scores out"),)},
        )
    )
