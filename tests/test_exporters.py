"""Operators that torch lowers to nothing ONNX has, lowered by the plugins; sizes that code makes plain numbers of."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from torch import nn

from converter.plugins._exporters import erfinv_in_onnx, sizes_stay_sizes


class Quantiles(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.erfinv(x)


def test_the_inverse_of_the_error_function_is_right_to_single_precision() -> None:
    points = torch.cat(
        [torch.linspace(-0.99999, 0.99999, 30), torch.tensor([0.0, 0.9, 1 - 1e-6, -0.5, 1e-4])]
    )
    table = dict(erfinv_in_onnx())
    program = torch.onnx.export(
        Quantiles(), (points,), dynamo=True, custom_translation_table=table, verbose=False
    )
    assert program is not None
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: points.numpy()})
    np.testing.assert_allclose(found, torch.erfinv(points.double()).numpy(), rtol=1e-6, atol=1e-6)


class Rows(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.new_ones(len(x), 3)


def test_the_length_of_a_tensor_stays_a_size_while_tracing() -> None:
    batch = {"x": {0: torch.export.Dim.DYNAMIC}}
    with sizes_stay_sizes(__name__):
        program = torch.export.export(Rows(), (torch.zeros(2, 5),), dynamic_shapes=batch, strict=False)
    assert program.module()(torch.zeros(4, 5)).shape == (4, 3)
    assert "len" not in globals()
