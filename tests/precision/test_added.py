"""Which module of a reduced precision adds the error: one is spoilt, and it alone is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from converter.arrays import FLOAT16, FLOAT32
from converter.cli.main import run
from converter.precision.products import Product, constant, products, replace
from converter.precision.stored import read_graphs
from converter.recipes import Cast, Constant, RecipeTensor, read
from converter.records import ExportedGraph
from converter.request import SILENT
from converter.weights.writing import bind_graphs, write_graphs

pytestmark = pytest.mark.xdist_group("minilm")


@pytest.fixture(scope="module")
def spoilt(minilm_package: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """MiniLM with a precision `spoilt`, of which one matrix in the middle is rounded; and the matrix's name."""
    package = tmp_path_factory.mktemp("spoilt") / "package"
    shutil.copytree(minilm_package, package)
    (graph,) = read_graphs(package / "onnx", ["model"])
    name = [product.name for product in products(graph.model)][10]
    value = graph.model.graph.initializers[name]
    assert isinstance(value.const_value, RecipeTensor)
    rounded = Cast(Cast(value.const_value.recipe, FLOAT16), FLOAT32)
    value.const_value = RecipeTensor(rounded, name=name)
    graphs = [ExportedGraph("model_spoilt", graph.model)]
    pending = bind_graphs(
        graphs, {}, package / "onnx", external_data="auto", data_file="model_spoilt.onnx_data"
    )
    write_graphs(pending, SILENT.stage)
    return package, name


def test_the_spoilt_module_comes_first_and_the_others_add_nothing(
    spoilt: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    package, name = spoilt
    assert run(["bisect", str(package), "--precision", "spoilt", "--json"]) == 0
    first, *others = json.loads(capsys.readouterr().out)["modules"]
    assert first["module"].endswith(name.removesuffix(".weight"))
    assert 1e-5 < first["added"] < 1e-2
    assert len(others) > 50
    assert not any(entry["added"] for entry in others)
    # What comes after it gives something else, though it adds nothing.
    assert sum(entry["gathered"] > 1e-6 for entry in others) > 10


def test_the_worst_modules_are_shown_and_the_rest_is_counted(
    spoilt: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bisect", str(spoilt[0]), "--precision", "spoilt"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert spoilt[1].removesuffix(".weight") in lines[1]
    assert "modules that add less" in lines[-1]


Edit = Callable[[ir.Graph, Sequence[Product]], str]


def scale(graph: ir.Graph, name: str, factors: Any) -> None:
    value = graph.initializers[name]
    tensor: Any = value.const_value
    value.const_value = RecipeTensor(Constant.of(read(tensor.recipe) * np.float32(factors)), name=name)


def outlying_features(graph: ir.Graph, matrices: Sequence[Product]) -> str:
    """In each block of 32 one feature forty times as small before a matrix, and its weights as much larger."""
    factors = np.ones(384, np.float32)
    factors[::32] = 40
    scale(graph, "encoder.layer.3.attention.self.value.weight", 1 / factors)
    scale(graph, "encoder.layer.3.attention.self.value.bias", 1 / factors)
    scale(graph, "encoder.layer.3.attention.output.dense.weight", factors[:, None])
    return "encoder.layer.3.attention.output.dense"


def weights_too_small_for_halves(graph: ir.Graph, matrices: Sequence[Product]) -> str:
    """What is multiplied by them is made larger afterwards."""
    name = "encoder.layer.3.attention.self.key"
    scale(graph, f"{name}.weight", 2**-20)
    (node,) = (matrix.node for matrix in matrices if matrix.name == f"{name}.weight")
    factor = constant(graph, "larger", ir.Tensor(np.float32(2**20)))
    product = ir.node("MatMul", list(node.inputs))
    replace(node, [product, ir.node("Mul", [product.outputs[0], factor])])
    return name


@pytest.mark.parametrize(
    ("precisions", "edit"),
    [(("q8", "q4"), outlying_features), (("fp16",), weights_too_small_for_halves)],
    ids=["q8 and q4", "fp16"],
)
def test_a_matrix_that_a_real_precision_does_not_suit_comes_first(
    minilm_package: Path,
    precisions: Sequence[str],
    edit: Edit,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The fp32 graph computes what it did, and precisions are the built-in ones: only their numbers do not suffice."""
    shutil.copytree(minilm_package, tmp_path / "source", ignore=shutil.ignore_patterns("onnx"))
    (graph,) = read_graphs(minilm_package / "onnx", ["model"])
    module = edit(graph.model.graph, list(products(graph.model)))
    edited = tmp_path / "source" / "onnx"
    edited.mkdir()
    write_graphs(bind_graphs([graph], {}, edited, external_data="auto"), SILENT.stage)
    package = str(tmp_path / "package")
    options = ["--precisions", ",".join(precisions), "--unjudged", "--output", package, "--quiet"]
    assert run(["quantize", str(edited / "model.onnx"), *options]) == 0
    for precision in precisions:
        capsys.readouterr()
        assert run(["bisect", package, "--precision", precision, "--json"]) == 0
        first, second, *_ = json.loads(capsys.readouterr().out)["modules"]
        assert first["module"].endswith(module)
        assert first["added"] > 3 * second["added"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--precision", "q3"], "has no precision 'q3'"), ([], "nothing to compare the package with")],
)
def test_what_cannot_be_ranked_is_said(
    minilm_package: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bisect", str(minilm_package), *arguments]) == 2
    assert message in capsys.readouterr().err
