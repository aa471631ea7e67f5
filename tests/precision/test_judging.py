"""What each kind of model is judged by, and what is refused. The weights are random: they show that the machinery
works on models of this shape, and nothing about how well a trained one bears fewer bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.cli.main import run
from converter.errors import UsageError
from converter.packages.package import inspect_package
from converter.precision.quantize import quantize_package

pytestmark = pytest.mark.xdist_group("judging")
Capture = pytest.CaptureFixture[str]
Make = Callable[..., Path]
FEW = {"num_samples": 8, "trials": 1}


def record(package: Path) -> Any:
    return json.loads((package / "converter.json").read_text())


def test_a_decoder_is_judged_by_its_next_tokens_and_perplexity(package_of: Make, tmp_path: Path) -> None:
    report = quantize_package(
        package_of("qwen2"), ["q8"], output=tmp_path / "p", keep=("perplexity=1.05x", "top1=0.9"), **FEW
    )
    (row,) = report.rows
    assert row.quality is not None
    assert set(row.quality.values) == {"cosine", "cosine_min", "top1", "perplexity"}
    assert report.kept == ("q8",)
    assert record(tmp_path / "p")["precisions"]["q8"]["judged_on"] == "passages of text"


def test_parts_of_a_pair_are_quantized_each_on_its_own(package_of: Make, tmp_path: Path) -> None:
    target = tmp_path / "p"
    report = quantize_package(package_of("t5"), ["q8", "q4"], output=target, keep=("cosine=0.9",), **FEW)
    assert report.kept == ("q8", "q4")
    names = {path.name for path in (target / "onnx").iterdir()}
    for suffix in ("quantized", "q4"):
        assert {f"encoder_model_{suffix}.onnx", f"decoder_model_merged_{suffix}.onnx"} <= names
    assert not [name for name in names if name.endswith("_data")], "each holds its own weights, as in fp32"
    assert inspect_package(target).intact


def test_an_image_model_is_judged_on_pictures(package_of: Make, tmp_path: Path) -> None:
    report = quantize_package(package_of("vit", text=False), ["int8"], output=tmp_path / "p", **FEW)
    (row,) = report.rows
    assert row.quality is not None
    assert row.quality.values["cosine"] > 0.99
    assert row.quality.what == "pictures"


@pytest.mark.coverage
def test_a_model_that_hears_is_judged_by_what_its_plugin_makes_up(package_of: Make, tmp_path: Path) -> None:
    """Noise of any length had been drawn by the graph's shapes, shorter than Moonshine's first convolution is wide."""
    report = quantize_package(
        package_of("moonshine", text=False), ["int8"], output=tmp_path / "p", keep=("cosine=0",)
    )
    (row,) = report.rows
    assert row.passed and row.quality is not None and row.notes[0] == "judged on made-up inputs"


def test_an_image_model_is_calibrated_on_a_folder_of_images(package_of: Make, tmp_path: Path) -> None:
    from converter.precision.samples import draw_pictures

    folder = tmp_path / "images"
    folder.mkdir()
    for number, picture in enumerate(draw_pictures(5, 500)):
        picture.save(folder / f"{number}.png")
    arguments = ["quantize", str(package_of("vit", text=False)), "--output", str(tmp_path / "p"), "--quiet"]
    options = ["--precisions", "int8", "--static", "minmax", "--calibration", str(folder)]
    assert run([*arguments, *options, "--num-samples", "5"]) == 0
    operators = {node.op_type for node in onnx.load(tmp_path / "p/onnx/model_int8.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    calibration = record(tmp_path / "p")["precisions"]["int8"]["recipe"]["calibration"]
    assert calibration == {
        "method": "minmax",
        "matrices": calibration["matrices"],
        "samples": 5,
        "source": "images",
    }


def test_what_cannot_be_calibrated_on_is_refused_and_nothing_written(
    package_of: Make, tmp_path: Path, capsys: Capture
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("one line\nanother\n")
    damaged = tmp_path / "damaged.jsonl"
    damaged.write_text('{"input_ids": [[1, 2]\n')
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\x80")
    package, target = package_of("qwen2"), tmp_path / "p"
    cases = {
        (str(texts), "--num-samples", "3"): "holds 2 samples, but 3 were asked for",
        (str(damaged),): "line 1 cannot be read",
        (str(tmp_path / "binary.txt"),): "cannot be read",
        (str(tmp_path / "absent.txt"),): "cannot be read",
        ("generated",): "made-up inputs say nothing of a model that takes texts",
    }
    for given, message in cases.items():
        arguments = [
            "quantize",
            str(package),
            "--output",
            str(target),
            "--precisions",
            "int8",
            "--calibration",
        ]
        assert run([*arguments, *given]) == 2
        assert message in capsys.readouterr().err
        assert not target.exists()


def test_a_text_model_without_tokenizer_is_refused_unless_nobody_asks(
    package_of: Make, tmp_path: Path
) -> None:
    package = package_of("qwen2", text=False)
    with pytest.raises(UsageError, match="random tokens would prove nothing"):
        quantize_package(package, ["q8"], output=tmp_path / "p")
    report = quantize_package(package, ["q8", "q4f16"], output=tmp_path / "p", unjudged=True)
    assert report.kept == ("q8", "q4f16")
    entry = record(tmp_path / "p")["precisions"]["q8"]
    assert entry["quality"] == {}
    assert "nothing was measured" in entry["notes"][0]


def test_a_measure_this_kind_does_not_have_is_refused_before_anything_is_run(
    package_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converter.precision.tasks.Language.run", lambda *_: pytest.fail("fp32 was run"))
    with pytest.raises(UsageError, match="maxsim_top1: not measured on this kind"):
        quantize_package(package_of("qwen2"), ["q8"], output=tmp_path / "p", keep=("maxsim_top1=0.9",), **FEW)


def test_a_recorded_recipe_makes_the_same_bytes(package_of: Make, tmp_path: Path) -> None:
    options = {**FEW, "trials": 12, "keep": ("cosine=0.99",)}
    first = quantize_package(package_of("qwen2"), ["q4"], output=tmp_path / "one", **options)
    again = quantize_package(
        package_of("qwen2"), ["q4"], output=tmp_path / "two", recipe=tmp_path / "one/converter.json"
    )
    assert first.rows[0].plan == again.rows[0].plan
    assert first.rows[0].hashes == again.rows[0].hashes


def floats_in(folder: Path, *, quantized: bool = False, turned: bool = False) -> Path:
    """x (rows, 48) -> product -> y, somebody's file; `quantized` is as training for quantization leaves it.

    `turned` gives y (24, rows), which is as wide as x has rows: scores of as many items as somebody asks about.
    """
    draw = np.random.default_rng(0)
    weights = [numpy_helper.from_array(draw.standard_normal((48, 24)).astype(np.float32), "matrix")]
    nodes = [helper.make_node("MatMul", ["x", "matrix"], ["y"])]
    if quantized:
        weights = [
            numpy_helper.from_array(draw.integers(-99, 99, (48, 24), dtype=np.int8), "matrix"),
            numpy_helper.from_array(np.float32(0.02), "scale"),
            numpy_helper.from_array(np.int8(0), "zero"),
        ]
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["back"]),
            helper.make_node("DequantizeLinear", ["matrix", "scale", "zero"], ["full"]),
            helper.make_node("MatMul", ["back", "full"], ["y"]),
        ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["rows", w]) for n, w in (("x", 48), ("y", 24))
    ]
    if turned:
        nodes[-1].output[0] = "upright"
        nodes.append(helper.make_node("Transpose", ["upright"], ["y"]))
        ends[1] = helper.make_tensor_value_info("y", TensorProto.FLOAT, [24, "rows"])
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], weights)
    path = folder / "ranker.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


def test_an_onnx_file_of_anybodys_becomes_a_package(tmp_path: Path) -> None:
    before = floats_in(tmp_path).read_bytes()
    assert run(["quantize", str(tmp_path / "ranker.onnx"), "--output", str(tmp_path / "p"), "--quiet"]) == 0
    assert (tmp_path / "p/onnx/ranker.onnx").read_bytes() == before == (tmp_path / "ranker.onnx").read_bytes()
    assert (tmp_path / "p/onnx/ranker_quantized.onnx").is_file()
    assert inspect_package(tmp_path / "p").intact
    assert "judged on made-up inputs" in record(tmp_path / "p")["precisions"]["q8"]["notes"]


# An architecture that makes inputs as long as its config says, or fails to.
DECLARING = """
from converter import Architecture, Axis, Component, DummyInputs, Variant, hookimpl

class Source:
    def config(self, checkpoint):
        FAILS
        return checkpoint.config["longest"]

def inputs(size):
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    return DummyInputs({"x": torch.randn(size["rows"], 48, generator=generator)}, {"x": {0: "rows"}})

def components(longest, task):
    return (Component("ranker", None, inputs, None, (Axis("rows", 2, high=longest),), ()),)

@hookimpl
def register_architectures(register):
    variants = {"scoring": (Variant("scores", ("ranker",), "scores out"),)}
    register(Architecture("NAME", (), "made up", "", Source(), components, variants))
"""


@pytest.mark.parametrize(
    ("fails", "config", "exits", "said"),
    [
        ("pass", {"longest": 5}, 0, "judged on made-up inputs"),
        ("pass", {}, 2, "could not make the inputs it declares: KeyError: 'longest'"),
        ("import not_there", {}, 0, "inputs drawn by shape, since those of declaring need not_there"),
        (None, {}, 0, "inputs drawn by shape, since the architecture 'declaring' is not installed"),
    ],
    ids=["its own", "its code fails", "it needs a package", "it is not there"],
)
def test_inputs_are_those_of_the_plugin_or_it_is_said_why_not(
    fails: str | None,
    config: dict[str, int],
    exits: int,
    said: str,
    install: Callable[..., None],
    tmp_path: Path,
    capsys: Capture,
) -> None:
    package, target = tmp_path / "p", tmp_path / "out"
    quantize_package(floats_in(tmp_path), ["fp16"], output=package, unjudged=True)
    changed = {**record(package), "architecture": "declaring", "source": {"name": "x", "config": config}}
    (package / "converter.json").write_text(json.dumps(changed))
    if fails:
        install("declaring", DECLARING.replace("FAILS", fails))
    assert run(["quantize", str(package), "--precisions", "q8", "--output", str(target)]) == exits
    assert target.exists() is (exits == 0)
    notes = record(target)["precisions"]["q8"]["notes"] if exits == 0 else capsys.readouterr().err
    assert said in " ".join(str(notes).split())


@pytest.mark.parametrize("turned", [False, True], ids=["rows of one width", "rows of any width"])
def test_a_preprocessing_function_feeds_a_graph(turned: bool, tmp_path: Path) -> None:
    numbers = tmp_path / "seeds.txt"
    numbers.write_text("\n".join(map(str, range(20))))

    def preprocess(line: str) -> dict[str, Any]:
        shape = (3 + int(line) % 4, 48)
        return {"x": np.random.default_rng(int(line)).standard_normal(shape).astype(np.float32)}

    path = floats_in(tmp_path, turned=turned)
    report = quantize_package(
        path, ["q8"], output=tmp_path / "p", calibration=str(numbers), preprocess=preprocess
    )
    assert report.kept == ("q8",)
    assert report.rows[0].quality is not None
    assert report.rows[0].quality.samples == 10
    assert set(report.rows[0].quality.values) == {"cosine", "cosine_min", "top1"}


def test_a_graph_that_is_quantized_already_passes_through_unharmed(tmp_path: Path) -> None:
    path = floats_in(tmp_path, quantized=True)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="nothing to quantize"):
        quantize_package(path, ["q8"], output=tmp_path / "p")
    assert not (tmp_path / "p").exists()
    report = quantize_package(path, ["fp16"], output=tmp_path / "p", keep=("cosine=0.99",))
    assert report.kept == ("fp16",)
    half = {node.op_type for node in onnx.load(tmp_path / "p/onnx/ranker_fp16.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear", "MatMul"} <= half
    assert path.read_bytes() == before == (tmp_path / "p/onnx/ranker.onnx").read_bytes()
