"""Precisions of a package: what they keep on real text, and what stays when they miss."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.cli.main import run
from converter.errors import UsageError
from converter.packages.package import inspect_package
from converter.precision.quantize import quantize_package
from converter.runtime import Encoder

pytestmark = pytest.mark.xdist_group("minilm")
Capture = pytest.CaptureFixture[str]
FEW = ["--trials", "1", "--num-samples", "40"]


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def record(package: Path) -> Any:
    return json.loads((package / "converter.json").read_text())


@pytest.fixture(scope="module")
def quantized(minilm_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM with q8, int8 and fp16 beside fp32."""
    target = tmp_path_factory.mktemp("quantized") / "package"
    arguments = ["quantize", str(minilm_package), "--output", str(target), "--quiet"]
    assert run([*arguments, "--precisions", "q8,fp16,int8", "--trials", "3", "--num-samples", "60"]) == 0
    return target


def test_q8_keeps_what_it_promises_on_real_text(quantized: Path) -> None:
    row = record(quantized)["precisions"]["q8"]
    quality = row["quality"]
    assert quality["cosine"] >= 0.999
    assert quality["cosine_min"] >= 0.995
    assert quality["top1"] >= 0.97
    assert row["ratio"] <= 0.30
    assert row["bytes"] == (quantized / "onnx/model_quantized.onnx").stat().st_size


def test_fp16_is_half_the_size_and_indistinguishable(quantized: Path) -> None:
    row = record(quantized)["precisions"]["fp16"]
    assert row["ratio"] < 0.51
    assert row["quality"]["cosine"] >= 0.99999


def test_int8_is_judged_without_a_budget(quantized: Path) -> None:
    row = record(quantized)["precisions"]["int8"]
    assert row["budget"] == {}
    assert 0.95 < row["quality"]["cosine"] < 0.999


def test_every_precision_takes_and_gives_what_fp32_does(quantized: Path) -> None:
    interfaces = {(graph.inputs, graph.outputs) for graph in inspect_package(quantized).graphs}
    assert len(inspect_package(quantized).graphs) == 4
    assert len(interfaces) == 1


def test_the_runtime_runs_what_was_added(quantized: Path) -> None:
    texts = ["a rainy day at the coast", "Storms are expected by the sea."]
    full = Encoder(quantized).encode(texts, normalize=True)
    for precision, least in (("q8", 0.995), ("fp16", 0.9999)):
        found = Encoder(quantized, precision=precision).encode(texts, normalize=True)
        assert (np.sum(full * found, axis=1) > least).all()


def test_the_record_stays_right(quantized: Path) -> None:
    info = inspect_package(quantized)
    assert info.intact
    assert not info.extra


def test_adding_in_place_keeps_what_is_there_and_replaces_an_older_precision(
    minilm_package: Path, tmp_path: Path
) -> None:
    package = tmp_path / "package"
    quantize_package(minilm_package, ["int8"], output=package)
    before = contents(package)
    quantize_package(package, ["q8"], trials=1, num_samples=40)
    quantize_package(package, ["int8"])
    after = contents(package)
    assert after.keys() - before.keys() == {"onnx/model_quantized.onnx"}
    assert {name for name in before if after[name] != before[name]} <= {"converter.json", "README.md"}
    assert set(record(package)["precisions"]) == {"q8", "int8"}
    assert inspect_package(package).intact


def test_a_missed_budget_exits_3_says_by_how_much_and_leaves_the_package(
    minilm_package: Path, capsys: Capture
) -> None:
    before = contents(minilm_package)
    assert (
        run(["quantize", str(minilm_package), "--precisions", "int8", "--keep", "cosine=0.9999", *FEW]) == 3
    )
    error = capsys.readouterr().err
    assert "int8: cosine 0.99" in error
    assert "misses 0.9999 by" in error
    assert contents(minilm_package) == before


def test_a_miss_leaves_the_others_in_place(minilm_package: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    arguments = ["quantize", str(minilm_package), "--output", str(package), "--quiet"]
    assert run([*arguments, "--precisions", "int8,fp16", "--keep", "cosine_min=0.999", *FEW]) == 3
    assert set(record(package)["precisions"]) == {"fp16"}
    assert not (package / "onnx/model_int8.onnx").exists()
    assert inspect_package(package).intact
    missed = record(package)["missed_precisions"]["int8"]
    assert (missed["files"], missed["budget"]) == ([], {"cosine_min": 0.999})
    assert missed["quality"]["cosine_min"] < 0.999
    assert "Tried and not written: int8 (cosine_min 0.9" in (package / "README.md").read_text()


def test_keep_failed_writes_and_marks_it(minilm_package: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    arguments = ["quantize", str(minilm_package), "--output", str(package), "--quiet", "--keep-failed"]
    assert run([*arguments, "--precisions", "int8", "--keep", "cosine=0.9999", *FEW]) == 3
    row = record(package)["precisions"]["int8"]
    assert not row["passed"]
    assert row["misses"]
    assert (package / "onnx/model_int8.onnx").is_file()


def test_what_there_is_not_is_refused_with_the_choices(minilm_package: Path, capsys: Capture) -> None:
    assert run(["quantize", str(minilm_package), "--precisions", "q8,q3"]) == 2
    error = capsys.readouterr().err
    assert "'q3'" in error
    assert "fp16, q8, int8, uint8, q4, q4f16, bnb4" in error
    assert run(["quantize", str(minilm_package), "--keep", "beauty=1"]) == 2
    assert "cosine, cosine_min, top1, maxsim_top1, perplexity" in capsys.readouterr().err
    assert run(["quantize", str(minilm_package), "--keep", "cosine=99"]) == 2


def test_a_package_without_text_is_not_judged_by_random_tokens(minilm_package: Path, tmp_path: Path) -> None:
    package = tmp_path / "package"
    quantize_package(minilm_package, ["int8"], output=package)
    content = record(package)
    (package / "tokenizer.json").unlink()
    del content["files"]["tokenizer.json"]
    (package / "converter.json").write_text(json.dumps(content))
    before = contents(package)
    with pytest.raises(UsageError, match="no quality can be measured"):
        quantize_package(package, ["q8"])
    assert contents(package) == before


def test_a_conversion_adds_precisions_once_the_fp32_graph_is_proven(
    minilm: Path, tmp_path: Path, capsys: Capture
) -> None:
    target = tmp_path / "package"
    arguments = ["--model", str(minilm), "--output", str(target)]
    assert run([*arguments, "--quantize", "--keep", "cosine=0.9999999", *FEW]) == 3
    assert sorted(path.name for path in (target / "onnx").iterdir()) == ["model.onnx"], (
        "fp32 stays, q8 does not"
    )
    assert "cosine" in capsys.readouterr().err
    assert inspect_package(target).intact


@pytest.mark.parametrize(
    "arguments",
    [
        ["--precisions", "q9"],
        ["--precisions", "int8", "--target", "webgpu"],
        ["--quantize", "--recipe", "absent.json"],
        ["--quantize", "--keep", "beauty=1"],
        ["--quantize", "--dtype", "fp16"],
    ],
    ids=["unknown precision", "no kernels", "no recipe", "unknown measure", "not from fp32"],
)
def test_a_conversion_refuses_precisions_it_cannot_make_before_it_begins(
    arguments: list[str], minilm: Path, tmp_path: Path
) -> None:
    assert run(["--model", str(minilm), "--output", str(tmp_path / "package"), *arguments]) == 2
    assert not list(tmp_path.iterdir())


SCALED = """
from converter import Architecture, Axis, Component, DummyInputs, Output, Variant, hookimpl

class Source:
    def config(self, checkpoint):
        return None

    def default_task(self, checkpoint):
        return "scaling"

    def skeleton(self, config, task):
        import torch

        class Scale(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.factors = torch.nn.Parameter(torch.ones(4))

            def forward(self, x):
                return x * self.factors

        return Scale()

    def key_mapping(self, model, checkpoint):
        from converter.recipes import Load

        return {name: Load(info) for name, info in checkpoint.tensors.items()}

    def write_tiny(self, folder, *, like, seed, task):
        import numpy
        from safetensors.numpy import save_file

        folder.mkdir()
        (folder / "config.json").write_text('{"model_type": "scaled"}')
        save_file({"factors": numpy.ones(4, numpy.float32)}, folder / "model.safetensors")

def inputs(size):
    import torch

    return DummyInputs({"x": torch.ones(size["batch_size"], 4)}, {"x": {0: "batch_size"}})

def components(config, task):
    axes, outputs = (Axis("batch_size", 2),), (Output("y", {0: "batch_size"}),)
    return (Component("model", lambda model: model, inputs, lambda model, given: {"y": model(**given)}, axes, outputs),)

@hookimpl
def register_architectures(register):
    variants = {"scaling": (Variant("whole", ("model",), "scaled"),)}
    register(Architecture("scaled", ("scaled",), "no matrix in it", "", Source(), components, variants))
"""


def test_a_graph_without_a_matrix_is_refused_before_its_weights_are_written(
    install: Callable[..., None], tmp_path: Path, capsys: Capture
) -> None:
    install("scaled", SCALED)
    arguments = ["--arch", "scaled", "--tiny", "--output", str(tmp_path / "package")]
    assert run([*arguments, "--precisions", "fp16,q8"]) == 2
    said = capsys.readouterr().err
    assert "q8: these graphs multiply by no stored fp32 matrix: there is nothing to quantize" in said
    assert "clean model ..." in said and "write graphs" not in said
    assert not (tmp_path / "package").exists()
