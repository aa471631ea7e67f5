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
from torch.ao.quantization import disable_observer, get_default_qat_qconfig, prepare_qat

from converter.recipes import Constant, RecipeTensor, bind, read
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
    weights = {name: Constant.of(tensor.numpy()) for name, tensor in model.state_dict().items()}
    for value in graph.model.graph.initializers.values():
        if isinstance(value.const_value, RecipeTensor):
            value.const_value = ir.tensor(read(bind(value.const_value.recipe, weights)), name=value.name)
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


class TrainedToBeRounded(nn.Module):
    """A matrix by column and activations by tensor, as torch's own recipe for training places them."""

    def __init__(self, low: int, high: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        matrix = torch.nn.Linear(6, 4)
        matrix.qconfig = get_default_qat_qconfig("fbgemm")  # type: ignore[assignment]
        self.layers = prepare_qat(nn.Sequential(matrix, nn.ReLU()).train())
        self.low, self.high = low, high
        self.register_buffer("scale", torch.tensor([0.037]))
        self.register_buffer("zero_point", torch.tensor([low // 2 + 3], dtype=torch.int32))
        self.layers(torch.randn(64, 6))
        self.layers.apply(disable_observer).eval()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        rounded = torch.fake_quantize_per_tensor_affine(
            self.layers(x), self.scale, self.zero_point, self.low, self.high
        )
        return rounded, torch.fake_quantize_per_tensor_affine(x, 0.05, 3, self.low, self.high)


@pytest.mark.filterwarnings("ignore:Please use quant_min")  # of torch, about its own recipe
@pytest.mark.parametrize(("low", "high"), [(0, 255), (0, 127), (-128, 127), (-127, 127), (-8, 7)])
def test_what_training_rounded_is_rounded_in_the_graph(tmp_path: Path, low: int, high: int) -> None:
    """In 8 bits and fewer. The matrix is stored as it was trained, and no activation is rounded otherwise."""
    x, model = torch.linspace(-4, 9, 18).reshape(3, 6), TrainedToBeRounded(low, high)
    inputs = DummyInputs({"x": x}, {"x": {0: "batch_size"}})
    session = traced(model, inputs, Size({"batch_size": 3}), ["y", "rounded"], tmp_path / "m.onnx")
    nodes = [node.op_type for node in ir.load(tmp_path / "m.onnx").graph]
    assert nodes.count("QuantizeLinear") == nodes.count("DequantizeLinear") == 4
    for array, expected in zip(session.run(None, {"x": x[:2].numpy()}), model(x[:2]), strict=True):
        assert np.abs(array - expected.detach().numpy()).max() < 1e-6


class SaidTwice(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        states = x + 1
        return states, states, 2 * x


def test_one_tensor_may_be_two_outputs(tmp_path: Path) -> None:
    """BLIP's answers to questions give an image's states under two names."""
    x = torch.arange(6.0).reshape(2, 3)
    inputs = DummyInputs({"x": x}, {"x": {0: "batch_size"}})
    session = traced(
        SaidTwice(), inputs, Size({"batch_size": 2}), ["first", "second", "third"], tmp_path / "m"
    )
    assert [value.name for value in session.get_outputs()] == ["first", "second", "third"]
    assert all(
        np.array_equal(*pair)
        for pair in zip(session.run(None, {"x": x.numpy()}), SaidTwice()(x), strict=True)
    )
