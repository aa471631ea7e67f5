"""Which module of a reduced precision adds the error: one is spoilt, and it alone is found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from converter.arrays import FLOAT16, FLOAT32
from converter.cli import run
from converter.precision.formats import Blocks, Columns, Plan
from converter.precision.products import products
from converter.precision.stored import read_graphs
from converter.recipes import Cast, RecipeTensor
from converter.records import ExportedGraph
from converter.request import SILENT
from converter.writing import bind_graphs, write_graphs

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


# How a precision stores its matrices, and how one of them is stored worse.
CHOICES = {
    "q8": (Plan(Columns()), Blocks(4, size=64)),
}


@pytest.mark.parametrize("precision", CHOICES)
def test_of_a_real_precision_the_matrix_stored_worse_comes_first(
    minilm_package: Path, precision: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (graph,) = read_graphs(minilm_package / "onnx", ["model"])
    plan, worse = CHOICES[precision]
    name = [product.name for product in products(graph.model)][19]
    recipe, package = tmp_path / "recipe.json", str(tmp_path / "package")
    recipe.write_text(json.dumps(plan.giving([name], worse).to_json()))
    options = ["--precisions", precision, "--recipe", str(recipe), "--unjudged", "--output", package]
    assert run(["quantize", str(minilm_package), *options, "--quiet"]) == 0
    capsys.readouterr()
    assert run(["bisect", package, "--precision", precision, "--json"]) == 0
    first, second, *_ = json.loads(capsys.readouterr().out)["modules"]
    assert first["module"].endswith(name.removesuffix(".weight"))
    assert first["added"] > 1.5 * second["added"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--precision", "q3"], "has no precision 'q3'"), ([], "nothing to compare the package with")],
)
def test_what_cannot_be_ranked_is_said(
    minilm_package: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bisect", str(minilm_package), *arguments]) == 2
    assert message in capsys.readouterr().err
