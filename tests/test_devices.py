"""A graph is proven on the device that was asked for, or not at all."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from converter.cli.main import run
from converter.errors import ParityError
from converter.parity.runners import open_session


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy")
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    graph = helper.make_graph(nodes, "negated", [x], [y])
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_a_device_that_onnxruntime_was_not_built_for_is_refused_at_once(
    minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    target = tmp_path / "package"
    assert run(["--model", str(minilm), "--output", str(target), "--device", "cuda"]) == 2
    said = capsys.readouterr().err
    assert "--device cuda: this onnxruntime has no CUDAExecutionProvider" in said
    assert "onnxruntime-gpu" in said
    assert not target.exists()


def test_a_provider_that_does_not_start_is_no_silent_run_on_the_cpu(
    graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, providers: start(path, options, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(ParityError, match="CUDAExecutionProvider did not start"):
        open_session(graph, device="cuda")
    assert open_session(graph).get_providers() == ["CPUExecutionProvider"]
