"""Each option of `converter quantize` about formats, as it shows in the graph that is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from converter.cli.main import run
from converter.errors import UsageError
from converter.precision.quantize import quantize_package
from converter.precision.settings import Settings

pytestmark = pytest.mark.xdist_group("judging")
Capture = pytest.CaptureFixture[str]
SUFFIXES = {"q8": "quantized", "int8": "int8", "uint8": "uint8", "q4": "q4", "bnb4": "bnb4"}


class Written:
    """A graph that options made: its operators, attributes and initializers."""

    def __init__(self, path: Path) -> None:
        self.model = onnx.load(path)
        self.operators = Counter(node.op_type for node in self.model.graph.node)
        self.weights = {entry.name: numpy_helper.to_array(entry) for entry in self.model.graph.initializer}
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def attributes(self, operator: str) -> dict[str, Any]:
        node = next(node for node in self.model.graph.node if node.op_type == operator)
        return {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}

    def ending(self, end: str) -> list[Any]:
        return [value for name, value in self.weights.items() if name.endswith(end)]


@pytest.fixture
def quantized(package_of: Callable[..., Path], tmp_path: Path) -> Callable[..., Written]:
    def make(precision: str, *options: str) -> Written:
        arguments = ["quantize", str(package_of("qwen2")), "--output", str(tmp_path / "p"), "--unjudged"]
        assert run([*arguments, "--quiet", "--precisions", precision, *options]) == 0
        return Written(tmp_path / f"p/onnx/model_{SUFFIXES[precision]}.onnx")

    return make


def test_a_scale_for_each_column_or_one_for_all(quantized: Callable[..., Written]) -> None:
    by_column = quantized("int8", "--per-channel", "--overwrite").ending("_int8_scales")
    whole = quantized("int8", "--no-per-channel", "--overwrite").ending("_int8_scales")
    assert len(by_column) == len(whole) > 4
    assert {value.ndim for value in by_column} == {1}
    assert {value.ndim for value in whole} == {0}


def test_weights_of_7_bits_for_processors_that_saturate(quantized: Callable[..., Written]) -> None:
    for option, most in (("--reduce-range", 63), ("--no-reduce-range", 127)):
        found = quantized("int8", option, "--overwrite").ending("_int8")
        assert max(np.abs(value).max() for value in found) == most
    found = quantized("int8", "--target", "avx2", "--overwrite").ending("_int8")
    assert max(np.abs(value).max() for value in found) == 63


def test_signed_or_unsigned_weights(quantized: Callable[..., Written]) -> None:
    assert quantized("int8", "--weight-type", "QUInt8", "--overwrite").ending("_uint8")[0].dtype == np.uint8
    assert quantized("uint8", "--weight-type", "QInt8", "--overwrite").ending("_int8")[0].dtype == np.int8


def test_a_target_does_not_turn_a_precision_into_another(quantized: Callable[..., Written]) -> None:
    """On ARM, model_uint8.onnx got signed weights."""
    assert quantized("uint8", "--target", "arm64").ending("_uint8")[0].dtype == np.uint8


@pytest.mark.parametrize("size", ["16", "32", "64", "128", "256"])
def test_blocks_of_any_size(quantized: Callable[..., Written], size: str) -> None:
    found = quantized("q4", "--block-size", size)
    assert found.attributes("MatMulNBits")["block_size"] == int(size)
    assert found.attributes("MatMulNBits")["bits"] == 4


def test_blocks_with_and_without_zero_points(quantized: Callable[..., Written]) -> None:
    assert not quantized("q4", "--symmetric", "--overwrite").ending("_zero_points")
    assert quantized("q4", "--no-symmetric", "--overwrite").ending("_zero_points")


@pytest.mark.parametrize("level", ["0", "1", "2", "3", "4"])
def test_what_products_in_blocks_compute_in(quantized: Callable[..., Written], level: str) -> None:
    found = quantized("q4", "--accuracy-level", level)
    assert found.attributes("MatMulNBits").get("accuracy_level", 0) == int(level)


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_calibrated_activations_are_written_for_any_runtime(
    quantized: Callable[..., Written], method: str, tmp_path: Path
) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text('"a text"\n{"text": "another one"}\n"a third"\n')
    found = quantized("int8", "--static", method, "--calibration", str(lines), "--num-samples", "3")
    assert {"QuantizeLinear", "DequantizeLinear"} <= found.operators.keys()
    assert "DynamicQuantizeLinear" not in found.operators
    assert not {node.domain for node in found.model.graph.node} - {""}


def test_calibration_that_changes_nothing_is_said_to(
    package_of: Callable[..., Path], tmp_path: Path, capsys: Capture
) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("a text\nanother one\n")
    arguments = ["quantize", str(package_of("qwen2")), "--output", str(tmp_path / "p")]
    assert run([*arguments, "--precisions", "int8", "--calibration", str(lines)]) == 0
    assert "int8: --calibration changed nothing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "operator"),
    [
        ("arm64", "MatMulNBits"),
        ("avx2", "MatMulNBits"),
        ("avx512", "MatMulNBits"),
        ("avx512_vnni", "MatMulNBits"),
        ("tensorrt", "QuantizeLinear"),
        ("webgpu", "MatMulNBits"),
        ("auto", "MatMulNBits"),
    ],
)
def test_a_target_gets_what_it_has_kernels_for(
    quantized: Callable[..., Written], target: str, operator: str
) -> None:
    operators = quantized("q8", "--target", target).operators
    assert operator in operators
    assert len({"MatMulInteger", "QuantizeLinear", "MatMulNBits"} & operators.keys()) == 1


def test_from_python_options_go_by_the_names_of_the_command_line(tmp_path: Path) -> None:
    """`static` had to be wrapped in a Tuning, and what is no option was a TypeError."""
    assert Settings.of(static="minmax", keep="cosine=0.9").tuning.static == "minmax"
    assert Settings.of(keep="cosine=0.9").bounds == {"cosine": 0.9}
    with pytest.raises(UsageError, match="unknown quantization option: chanel") as caught:
        quantize_package(tmp_path, ["q8"], chanel=True)
    assert "per_channel" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--block-size", "48"], "'48' is not one of"),
        (["--weight-type", "int8"], "'int8' is not one of"),
        (["--accuracy-level", "7"], "not in the range"),
        (["--target", "toaster"], "'toaster' is not one of"),
        (["--minutes", "0"], "not in the range"),
        (["--precisions", "int8", "--target", "webgpu"], "webgpu has no kernels for int8"),
        (["--precisions", "q4", "--target", "tensorrt"], "tensorrt has no kernels for q4"),
        (["--precisions", "uint8", "--target", "tensorrt"], "tensorrt has no kernels for uint8"),
        (["--target", "tensorrt", "--weight-type", "QUInt8"], "weight_type QUInt8 says otherwise"),
        (["--target", "tensorrt", "--reduce-range"], "reduce_range True says otherwise"),
        (["--target", "tensorrt", "--no-symmetric"], "symmetric False says otherwise"),
        (["--precisions", "int8", "--static", "median"], "'median' is not one of"),
        (["--precisions", "q4", "--per-channel"], "--per-channel says nothing about what would be made"),
        (["--precisions", "q4", "--static", "minmax"], "--static says nothing"),
        (
            ["--precisions", "q8", "--target", "webgpu", "--weight-type", "QInt8"],
            "--weight-type says nothing",
        ),
        (
            ["--precisions", "q8", "--recipe", "any.json", "--block-size", "64"],
            "a recipe is applied as it is",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_mean_nothing_are_refused_and_nothing_is_written(
    options: list[str],
    message: str,
    package_of: Callable[..., Path],
    tmp_path: Path,
    capsys: Capture,
) -> None:
    assert run(["quantize", str(package_of("qwen2")), "--output", str(tmp_path / "p"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "p").exists()
