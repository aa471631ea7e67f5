"""Sizes that nobody thought of, and axes that are not what they were declared to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import nn

from converter.cli.main import run
from converter.errors import ExportError, ParityError
from converter.parity.axes import came_out_fixed, could_vary
from converter.parity.drawing import draw_sizes, smallest_failure, weight
from converter.parity.runners import run_original
from converter.records import Architecture, Axis, Component, DummyInputs, Output, Size
from converter.registry import load_registry
from converter.tracing.export import trace

FLAWED = Path(__file__).parent / "packages" / "converter-flawed"
AXES = (Axis("batch_size", 2, high=6), Axis("sequence_length", 7, high=64))


def test_drawn_sizes_lie_in_the_ranges_and_come_from_the_seed() -> None:
    sizes = draw_sizes(AXES, 0, 24)
    assert len({size.label for size in sizes}) == len(sizes) > 12
    assert all(axis.low <= size[axis.name] <= axis.high for size in sizes for axis in AXES)
    assert {size.padding for size in sizes} == {"none", "left", "right"}
    assert draw_sizes(AXES, 0, 24) == sizes
    assert draw_sizes(AXES, 1, 24) != sizes


@pytest.mark.parametrize(
    ("model_type", "side", "patch", "most"),
    [("vit", 224, 16, 896), ("dinov2", 518, 14, 896), ("yolos", (800, 1333), 16, 1000)],
)
def test_images_as_published_are_traced_larger_and_not_at_a_multiple_that_no_memory_holds(
    model_type: str, side: Any, patch: int, most: int
) -> None:
    architecture = load_registry().find(model_type)
    config = SimpleNamespace(model_type=model_type, image_size=side, patch_size=patch)
    (component,) = architecture.components(config, architecture.tasks[0])
    height, width = (axis for axis in component.axes if axis.name in ("height", "width"))
    low = side if isinstance(side, int) else side[0]
    assert height.low == width.low == low < height.traced < width.traced < height.high <= most
    assert height.traced % patch == width.traced % patch == 0


def test_drawing_leaves_nothing_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw_sizes(AXES, 0, 24)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fails", "expected"),
    [
        (lambda size: size["sequence_length"] >= 17, "batch_size=1,sequence_length=17"),
        (
            lambda size: size["batch_size"] >= 3 and size["sequence_length"] > 40,
            "batch_size=3,sequence_length=41",
        ),
        (lambda size: size.padding == "left", "batch_size=1,sequence_length=1,left"),
        (lambda size: size["sequence_length"] != 7, "batch_size=1,sequence_length=1"),
    ],
    ids=["long", "long and wide", "left padding", "all but the traced one"],
)
def test_a_failure_shrinks_to_the_smallest_size(fails: Callable[[Size], bool], expected: str) -> None:
    found = smallest_failure(AXES, 0, fails, {})
    assert found is not None
    assert found.label == expected


def test_no_size_is_tried_twice_and_none_after_the_time_is_up() -> None:
    tried: list[str] = []

    def fails(size: Size) -> bool:
        tried.append(size.label)
        return size["sequence_length"] > 9

    assert smallest_failure(AXES, 0, fails, {"batch_size=1,sequence_length=1": False}) is not None
    assert len(tried) == len(set(tried))
    assert "batch_size=1,sequence_length=1" not in tried
    tried.clear()
    assert smallest_failure(AXES, 0, fails, {}, seconds=-1.0) is None
    assert not tried


@pytest.mark.parametrize("padding", ["none", "left", "right"])
def test_a_size_can_be_had_back_from_its_label(padding: Any) -> None:
    size = Size({"batch_size": 3, "num_images": 0}, padding, 4)
    assert Size.of(size.label, 4) == size
    assert weight(Size.of("batch_size=1", 0)) < weight(Size.of("batch_size=2", 0))


# --- through a conversion ---


@pytest.fixture
def short_sighted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A checkpoint whose wrapper is wrong from ten positions on, which no fixed size has."""
    monkeypatch.syspath_prepend(str(FLAWED))
    checkpoint = tmp_path / "checkpoint"
    load_registry().find("flawed").source.write_tiny(checkpoint, like="length", seed=1, task="encoding")
    yield checkpoint


def test_a_size_the_wrapper_forgot_is_found_and_named(
    short_sighted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "package"
    assert run(["--model", str(short_sighted), "--output", str(target), "--debug-parity", "--quiet"]) == 3
    said = capsys.readouterr().err
    assert "smallest failing size of model: batch_size=1,sequence_length=10\n" in said
    assert "model departs from the original at batch_size=1,sequence_length=10\n" in said
    assert "first wrong is what positions is given" in said
    assert not target.exists()


# --- axes ---


class Mean(nn.Module):
    def forward(self, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """(batch, length, 3), (batch, length) -> (batch, 3)"""
        return (values * weights.unsqueeze(-1)).mean(1) @ torch.ones(3, 3)


def component(axes: dict[str, dict[int, str]], **more: Any) -> Component:
    def inputs(size: Size) -> DummyInputs:
        batch, length = size["batch_size"], size.axes.get("length", 4)
        tensors = {"values": torch.randn(batch, length, 3), "weights": torch.rand(batch, length)}
        return DummyInputs(tensors, axes)

    names = {axis for dims in axes.values() for axis in dims.values()}
    declared = tuple(
        Axis(name, traced) for name, traced in (("batch_size", 2), ("length", 5)) if name in names
    )
    return Component(
        "model",
        lambda model: model,
        inputs,
        lambda model, tensors: {"mean": model(**tensors)},
        declared,
        (Output("mean", {0: "batch_size"}),),
        **more,
    )


BATCH = {"values": {0: "batch_size"}, "weights": {0: "batch_size"}}
BOTH = {name: {**dims, 1: "length"} for name, dims in BATCH.items()}


def test_an_axis_that_was_forgotten_is_named_with_those_that_go_with_it() -> None:
    (sentence,) = could_vary(Mean(), component(BATCH))
    assert "axis 1 of 'values' and axis 1 of 'weights' is fixed at 4" in sentence
    assert "also takes 5 and 8" in sentence


def test_what_is_declared_or_cannot_vary_or_is_meant_to_stay_is_not_named() -> None:
    assert could_vary(Mean(), component(BOTH)) == []
    reasons = {"values": "clips are four frames", "weights": "clips are four frames"}
    assert could_vary(Mean(), component(BATCH, fixed=reasons)) == []


def test_an_axis_that_no_input_has_is_refused_before_anything_is_traced() -> None:
    outputs = (Output("mean", {0: "batch_size", 1: "length"}),)
    forgetful = replace(component(BOTH), inputs=component(BATCH).inputs, outputs=outputs)
    size, architecture = Size({"batch_size": 2, "length": 5}), cast(Architecture, None)
    with pytest.raises(ExportError, match=r"\['length'\] are declared, .* no input has them"):
        trace(architecture, forgetful, Mean(), dtype="fp32", opset=23, size=size)


class Unrolled(nn.Module):
    def forward(self, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The mean again, but a step for each position that there is while tracing."""
        steps = [values[:, step] * weights[:, step, None] for step in range(values.shape[1])]
        return torch.stack(steps, 1).mean(1) @ torch.ones(3, 3)


def test_a_wrapper_that_counts_positions_in_python_is_told_which_axis_it_fixed() -> None:
    plain = cast(Architecture, SimpleNamespace(name="mine", patches=nullcontext, translations=dict))
    size = Size({"batch_size": 2, "length": 5})
    with pytest.raises(ExportError, match=r"conflicts between user-specified ranges.*static shape of 5"):
        trace(plain, component(BOTH), Unrolled(), dtype="fp32", opset=23, size=size)


class Picked(nn.Module):
    def forward(self, values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        return values[weights > 0.5]


def test_a_size_that_only_values_tell_has_the_declared_name() -> None:
    plain = cast(Architecture, SimpleNamespace(name="mine", patches=nullcontext, translations=dict))
    picking = replace(component(BOTH), outputs=(Output("picked", {0: "num_picked"}),))
    size = Size({"batch_size": 2, "length": 5})
    graph = trace(plain, picking, Picked(), dtype="fp32", opset=23, size=size).model.graph
    (picked,) = graph.outputs
    assert picked.shape is not None and [str(dim) for dim in picked.shape] == ["num_picked", "3"]


def test_an_output_that_the_reference_does_not_give_is_named() -> None:
    renamed = replace(component(BOTH), outputs=(Output("average", {0: "batch_size"}),))
    with pytest.raises(ParityError, match="its reference gives mean, and the outputs declared are average"):
        list(run_original(Mean(), renamed, [Size({"batch_size": 2, "length": 5})]))


def test_an_axis_that_the_graph_has_as_a_number_or_as_another_is_named() -> None:
    def value(name: str, *shape: object) -> SimpleNamespace:
        return SimpleNamespace(name=name, shape=list(shape))

    session: Any = SimpleNamespace(
        get_inputs=lambda: [
            value("values", "batch_size", 5, 3),
            value("weights", "batch_size", "batch_size"),
        ],
        get_outputs=lambda: [value("mean", 2, 3)],
    )
    found = came_out_fixed(session, "model", {**BOTH, "mean": {0: "batch_size"}})
    assert found == [
        "model: axis 'length' of input 'values' came out fixed at 5",
        "model: axis 'length' of input 'weights' came out as 'batch_size': it only works where both are equal",
        "model: axis 'batch_size' of output 'mean' came out fixed at 2",
    ]
