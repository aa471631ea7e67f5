"""Operators that torch's exporter cannot translate, and the engine can."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from torch import nn

from converter.records import Architecture, Axis, Component, DummyInputs, Output, Size
from converter.tracing.export import trace


class TakenFromNumbers(nn.Module):
    def forward(self, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return 1.0 - mask, 1 - mask, 0.5 - mask.float(), torch.rsub(mask, 7, alpha=2), 2**40 + 1 - mask


def traced(model: nn.Module, inputs: DummyInputs, size: Size, names: list[str], path: Path) -> Any:
    """A session of the model's graph, in which every axis that is named varies."""
    component = Component(
        "model",
        lambda model: model,
        lambda size: inputs,
        lambda model, tensors: dict(zip(names, model(**tensors), strict=True)),
        tuple(Axis(name, count) for name, count in size.axes.items()),
        tuple(Output(name, {0: "batch_size"}) for name in names),
    )
    plain = cast(Architecture, SimpleNamespace(name="mine", patches=nullcontext, translations=dict))
    graph = trace(plain, component, model, dtype="fp32", opset=23, size=size)
    ir.save(graph.model, path)
    return onnxruntime.InferenceSession(path)


def test_whole_numbers_can_be_taken_from_a_number(tmp_path: Path) -> None:
    """`1.0 - mask` of an integer mask stopped the export of XLNet and ProphetNet."""
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    names, model = ["real", "whole", "half", "twice", "large"], TakenFromNumbers()
    inputs = DummyInputs({"mask": mask}, {"mask": {0: "batch_size"}})
    session = traced(model, inputs, Size({"batch_size": 2}), names, tmp_path / "model.onnx")
    found = session.run(None, {"mask": mask.numpy()})
    for name, array, expected in zip(names, found, model(mask), strict=True):
        assert array.dtype == expected.numpy().dtype, name
        assert np.array_equal(array, expected.numpy()), name


class RepeatedAsOftenAs(nn.Module):
    def forward(self, image: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, ...]:
        count = points.shape[1]
        rows, columns = image.repeat_interleave(count, 0), image.repeat_interleave(count, dim=-1)
        return rows, columns, image.repeat_interleave(3, 1), image.repeat_interleave(count)


@pytest.mark.parametrize(("batch", "count"), [(2, 3), (1, 4), (3, 1)])
def test_entries_are_repeated_in_a_row_as_often_as_an_input_has_items(
    tmp_path: Path, batch: int, count: int
) -> None:
    """onnxscript's own translation repeats the axis before: SAM's decoder failed at a batch of 2."""
    image, points = torch.arange(10.0).reshape(2, 5), torch.zeros(2, 3)
    names, model = ["rows", "columns", "thrice", "flat"], RepeatedAsOftenAs()
    axes = {"image": {0: "batch_size"}, "points": {0: "batch_size", 1: "count"}}
    size = Size({"batch_size": 2, "count": 3})
    session = traced(
        model, DummyInputs({"image": image, "points": points}, axes), size, names, tmp_path / "m.onnx"
    )
    image, points = torch.arange(5.0 * batch).reshape(batch, 5), torch.zeros(batch, count)
    found = session.run(None, {"image": image.numpy(), "points": points.numpy()})
    for name, array, expected in zip(names, found, model(image, points), strict=True):
        assert np.array_equal(array, expected.numpy()), name
