"""The operator is said in ONNX, and the check that was taken away for tracing is back afterwards."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from converter_heat_map import model
from converter_heat_map.lowering import without_checks
from converter_heat_map.source import TASK, HeatMapSource

from converter import convert


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    check, folder = model.check_pixels, tmp_path_factory.mktemp("package")
    report = convert(arch="heat_map", tiny=True, output=folder / "package", parity="full", opset=18)
    assert report.parity.proven
    assert model.check_pixels is check
    return folder / "package"


def test_the_operator_is_three_of_onnx(package: Path) -> None:
    graph = onnx.load(package / "onnx" / "model.onnx")
    assert {entry.domain for entry in graph.opset_import} == {""}
    assert not graph.functions
    assert {"MaxPool", "Equal", "Where"} <= {node.op_type for node in graph.graph.node}


def test_a_peak_is_where_nothing_near_is_larger(package: Path) -> None:
    session = onnxruntime.InferenceSession(package / "onnx" / "model.onnx")
    pixels = np.random.default_rng(0).random((1, 3, 40, 60), dtype=np.float32)
    peaks, counts = session.run(["peaks", "counts"], {"pixel_values": pixels})
    assert peaks.shape == (1, 3, 10, 15)
    assert 0 < (peaks > 0).mean() < 0.5
    assert np.array_equal(counts, (peaks > 0.5).sum(axis=(2, 3)))


def test_the_check_is_put_back_even_after_an_error() -> None:
    check = model.check_pixels
    with pytest.raises(RuntimeError, match="boom"), without_checks():
        model.check_pixels(torch.full((1, 3, 8, 8), 7.0))
        raise RuntimeError("boom")
    assert model.check_pixels is check
    with pytest.raises(ValueError, match="not in"):
        HeatMapSource().skeleton(model.Config(4, 2, 1), TASK)(torch.full((1, 3, 8, 8), 7.0))
