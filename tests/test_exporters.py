"""Operators that torch lowers to nothing ONNX has, lowered by the plugins."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from torch import nn

from converter.plugins._exporters import erfinv_in_onnx


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
