"""Parameters that a model computes come from the model; parameters that are merely missing stay missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from converter.checkpoint import open_checkpoint
from converter.recipes import Constant, read
from converter.registry import load_registry
from converter.tracing.build import build_skeleton


def test_sinusoidal_positions_are_computed_and_lost_weights_are_not(
    tiny_checkpoint: Callable[..., Path],
) -> None:
    marian = load_registry().find("marian")
    task = marian.tasks[0]
    checkpoint = open_checkpoint(tiny_checkpoint("marian"))
    lost = (
        "encoder.layers.0.fc1.weight",
        "encoder.layers.0.fc1.bias",
        "encoder.layers.0.final_layer_norm.weight",
    )
    kept = {name: info for name, info in checkpoint.tensors.items() if not name.endswith(lost)}
    assert len(kept) == len(checkpoint.tensors) - len(lost)

    skeleton = build_skeleton(marian, marian.source.config(checkpoint), task)
    mapping = marian.source.key_mapping(skeleton, replace(checkpoint, tensors=kept))

    original = marian.source.original(checkpoint, task, None)
    for side in ("encoder", "decoder"):
        name = f"model.{side}.embed_positions.weight"
        assert isinstance(mapping[name], Constant)
        np.testing.assert_array_equal(read(mapping[name]), original.get_parameter(name).detach().numpy())
    assert not any(name.endswith(lost) for name in mapping)
