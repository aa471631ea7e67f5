"""Operators that torch's exporter cannot translate, and the engine can."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx_ir as ir
import onnxruntime
import torch
from torch import nn

from converter.records import Architecture, Axis, Component, DummyInputs, Output, Size
from converter.tracing.export import trace


class TakenFromNumbers(nn.Module):
    def forward(self, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return 1.0 - mask, 1 - mask, 0.5 - mask.float(), torch.rsub(mask, 7, alpha=2), 2**40 + 1 - mask


def test_whole_numbers_can_be_taken_from_a_number(tmp_path: Path) -> None:
    """`1.0 - mask` of an integer mask stopped the export of XLNet and ProphetNet."""
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    names = ["real", "whole", "half", "twice", "large"]
    component = Component(
        "model",
        lambda model: model,
        lambda size: DummyInputs({"mask": mask}, {"mask": {0: "batch_size"}}),
        lambda model, tensors: dict(zip(names, model(**tensors), strict=True)),
        (Axis("batch_size", 2),),
        tuple(Output(name, {0: "batch_size"}) for name in names),
    )
    plain = cast(Architecture, SimpleNamespace(name="mine", patches=nullcontext, translations=dict))
    model = TakenFromNumbers()
    graph = trace(plain, component, model, dtype="fp32", opset=23, size=Size({"batch_size": 2}))
    ir.save(graph.model, tmp_path / "model.onnx")
    found: Any = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"mask": mask.numpy()})
    for name, array, expected in zip(names, found, model(mask), strict=True):
        assert array.dtype == expected.numpy().dtype, name
        assert np.array_equal(array, expected.numpy()), name
