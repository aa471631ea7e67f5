"""The architecture converts, and its graph computes what the model computes."""

from __future__ import annotations

from pathlib import Path

from converter import convert


def test_a_tiny_checkpoint_becomes_a_proven_package(tmp_path: Path) -> None:
    report = convert(arch="tiny_mlp", tiny=True, output=tmp_path / "package", parity="full")
    assert report.parity.proven
    assert (tmp_path / "package" / "onnx" / "model.onnx").is_file()
