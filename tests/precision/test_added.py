"""Which module of a reduced precision adds the error: one is spoilt, and it alone is found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from converter.arrays import FLOAT16, FLOAT32
from converter.cli import run
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--precision", "q3"], "has no precision 'q3'"), ([], "nothing to compare the package with")],
)
def test_what_cannot_be_ranked_is_said(
    minilm_package: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bisect", str(minilm_package), *arguments]) == 2
    assert message in capsys.readouterr().err
