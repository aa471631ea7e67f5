"""Stamped layers are the layers that tracing would have made: both graphs are equal node for node, up to names."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from converter.build import BuildSettings, build_graphs, build_skeleton
from converter.checkpoint import open_checkpoint
from converter.passes.compare import same_graph
from converter.registry import load_registry

Checkpoints = Callable[..., Path]

DEEP_COLQWEN2 = {"vlm_config": {"text_config": {"num_hidden_layers": 5}, "vision_config": {"depth": 5}}}
DEEP_COLPALI = {
    "vlm_config": {"text_config": {"num_hidden_layers": 5}, "vision_config": {"num_hidden_layers": 5}}
}

# Blocks 1 and 4 see whole images, the others windows.
DEEP_QWEN2_5_VL = {"vision_config": {"depth": 6, "fullatt_block_indexes": [1, 4]}}

# arch, task, overrides that make it deeper than the three layers that are traced, component
CASES: list[tuple[str, str, dict[str, Any], str]] = [
    ("bert", "fill-mask", {"num_hidden_layers": 5}, "model"),
    ("qwen2", "text-generation-with-past", {"num_hidden_layers": 5}, "model"),
    ("wavlm", "feature-extraction", {"num_hidden_layers": 5}, "model"),
    ("colqwen2", "feature-extraction", DEEP_COLQWEN2, "image_model"),
    ("colpali", "feature-extraction", DEEP_COLPALI, "image_model"),
    ("qwen2_5_vl", "image-text-to-text", DEEP_QWEN2_5_VL, "vision_encoder"),
]


@pytest.mark.parametrize(("arch", "task", "overrides", "stem"), CASES, ids=[case[0] for case in CASES])
def test_the_stamped_graph_is_the_traced_one(
    arch: str, task: str, overrides: dict[str, Any], stem: str, tiny_checkpoint: Checkpoints
) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint(arch, task=task, overrides=overrides))
    registry = load_registry()
    architecture = registry.find(arch)
    config = architecture.source.config(checkpoint)

    def build(settings: BuildSettings) -> ir.Model:
        skeleton = build_skeleton(architecture, config, task)
        built = build_graphs(
            architecture,
            skeleton,
            config,
            task,
            [stem],
            settings,
            registry.passes,
            lambda name: nullcontext(),
        )
        assert not built.notes, "the layers were not stamped at all"
        return built.graphs[0].model

    stamped = build(BuildSettings())
    traced = build(replace(BuildSettings(), stamp=False))
    assert same_graph(stamped, traced) == []
