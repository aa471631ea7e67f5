"""Stamped layers are the layers that tracing would have made: both graphs are equal node for node, up to names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from converter.checkpoint import open_checkpoint
from converter.passes.compare import same_graph
from converter.passes.stamp import StampRefused
from converter.records import Architecture
from converter.registry import load_registry
from converter.tracing.build import Builder, BuildSettings, Built, build_graphs, build_skeleton
from converter.tracing.layers import LayerPlan
from converter.tracing.skeleton import load_buffers

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
# Each much like another; CI has no time for both.
LATER = {"wavlm", "colpali", "qwen2_5_vl"}


def parameters() -> list[Any]:
    return [
        pytest.param(*case, id=case[0], marks=pytest.mark.coverage if case[0] in LATER else ())
        for case in CASES
    ]


@pytest.mark.parametrize(("arch", "task", "overrides", "stem"), parameters())
def test_the_stamped_graph_is_the_traced_one(
    arch: str, task: str, overrides: dict[str, Any], stem: str, tiny_checkpoint: Checkpoints
) -> None:
    folder = tiny_checkpoint(arch, task=task, overrides=overrides)
    stamped, traced = both_ways(load_registry().find(arch), folder, task, [stem])
    assert not stamped.notes, "the layers were not stamped at all"
    assert differences(stamped, traced) == []


def test_what_is_traced_whole_after_all_keeps_the_checkpoints_buffers(
    tiny_checkpoint: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, models = "object-detection", []

    def refuse(self: Builder, model: nn.Module, config: Any, plan: LayerPlan) -> tuple[()]:
        models.append(model)
        if plan.lists:
            raise StampRefused("not alike")
        return ()

    monkeypatch.setattr(Builder, "build", refuse)
    folder = tiny_checkpoint("conditional_detr", task=task, overrides={"encoder_layers": 5})
    architecture, checkpoint = load_registry().find("conditional_detr"), open_checkpoint(folder)
    config = architecture.source.config(checkpoint)
    model = build_skeleton(architecture, config, task)
    load_buffers(model, architecture.source.key_mapping(model, checkpoint))
    wanted = {name: buffer.clone() for name, buffer in model.named_buffers()}
    built = build_graphs(
        architecture, model, config, task, ["model"], BuildSettings(), [], lambda name: nullcontext()
    )
    assert built.notes == ("every layer was traced: not alike",)
    found = dict(models[1].named_buffers())
    assert found.keys() == wanted.keys() and any("running_var" in name for name in wanted)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


REGISTERED = [entry for entry in load_registry().architectures.values() if entry.stand_in is None]


@pytest.mark.coverage
@pytest.mark.parametrize("architecture", REGISTERED, ids=lambda entry: entry.name)
def test_every_architecture_is_stamped_as_it_is_traced(
    architecture: Architecture, coverage_script: Any, tmp_path: Path
) -> None:
    """Every graph of the default task. What cannot be stamped is traced whole, and says why."""
    task = architecture.tasks[0]
    coverage_script.write_deep(architecture.source, tmp_path, task)
    stems = [stem for variant in architecture.variants[task] for stem in variant.stems]
    stamped, traced = both_ways(architecture, tmp_path, task, stems)
    assert differences(stamped, traced) == []
    if stamped.notes:
        pytest.skip(stamped.notes[0])


def both_ways(
    architecture: Architecture, folder: Path, task: str, stems: Sequence[str]
) -> tuple[Built, Built]:
    """The graphs with most layers stamped, and with every layer traced."""
    config = architecture.source.config(open_checkpoint(folder))

    def build(stamp: bool) -> Built:
        return build_graphs(
            architecture,
            build_skeleton(architecture, config, task),
            config,
            task,
            stems,
            BuildSettings(stamp=stamp),
            load_registry().passes,
            lambda name: nullcontext(),
        )

    return build(True), build(False)


def differences(one: Built, two: Built) -> list[str]:
    pairs = zip(one.graphs, two.graphs, strict=True)
    return [f"{a.stem}: {line}" for a, b in pairs for line in same_graph(a.model, b.model)]
