"""What a stranger's plugin can add, through hooks alone."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from converter.cli.main import run
from converter.registry import Registry
from converter.runtime import Encoder

pytestmark = pytest.mark.xdist_group("minilm")


@pytest.fixture(scope="module")
def extended(extras: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The variant that was added, converted."""
    package = tmp_path_factory.mktemp("extended") / "package"
    arguments = ["--arch", "flawed", "--tiny", "--variants", "pooled", "--output", str(package), "--quiet"]
    assert run(arguments) == 0
    return package


def record(package: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((package / "converter.json").read_text())
    return content


def test_a_variant_can_be_added_to_an_architecture_of_another_plugin(
    extras: Registry, extended: Path
) -> None:
    variants = extras.find("flawed").variants["encoding"]
    assert [variant.name for variant in variants] == ["text", "pooled"]
    assert (extended / "onnx" / "pooled.onnx").is_file()


def test_the_metric_a_component_names_judges_it(extended: Path) -> None:
    worst = record(extended)["parity"]["worst"]  # type: ignore[index]
    assert {row["others"]["maxsim.top1"] for row in worst} == {1.0}


def test_a_pass_runs_in_its_place(extras: Registry, extended: Path) -> None:
    names = [graph_pass.name for graph_pass in extras.passes]
    assert names.index("remove-unused") < names.index("sign") < names.index("strip-metadata")
    assert onnx.load(extended / "onnx" / "pooled.onnx", load_external_data=False).producer_name.endswith(
        "signed"
    )


def test_package_files_are_written_with_the_card_sections_in_hand_and_recorded(extended: Path) -> None:
    found = json.loads((extended / "provenance.json").read_text())
    assert found == {"architecture": "flawed", "licence": "flawed is everybody's"}
    made = record(extended)
    assert "provenance.json" in made["files"]  # type: ignore[operator]
    assert "provenance.json says where it is from" in made["notes"]  # type: ignore[operator]
    assert made["plugins"] == {"extras": "extras 1.0", "flawed": "flawed 1.0"}


def test_a_note_stands_once_however_often_a_package_is_sealed(
    extended: Path, seal: Callable[..., None], tmp_path: Path
) -> None:
    copy = shutil.copytree(extended, tmp_path / "package")
    seal(copy, record(extended), extended)
    assert record(copy)["notes"] == record(extended)["notes"]


def test_a_task_can_be_added_with_a_source_of_its_own(extras: Registry, tmp_path: Path) -> None:
    package = tmp_path / "package"
    assert extras.find("flawed").tasks == ("encoding", "scoring")
    arguments = ["--arch", "flawed", "--tiny", "--task", "scoring", "--output", str(package), "--quiet"]
    assert run(arguments) == 0
    made = record(package)
    assert made["task"] == "scoring"
    assert made["parity"]["passed"]  # type: ignore[index]


def test_a_precision_is_made_judged_and_opened_by_its_name(
    extras: Registry, minilm_package: Path, tmp_path: Path
) -> None:
    package = tmp_path / "package"
    arguments = [
        "quantize",
        str(minilm_package),
        "--precisions",
        "rounded",
        "--output",
        str(package),
        "--quiet",
    ]
    assert run(arguments) == 0
    made = record(package)["precisions"]["rounded"]  # type: ignore[index]
    assert made["files"] == ["onnx/model_rounded.onnx"] or "onnx/model_rounded.onnx" in made["files"]
    assert made["recipe"] == {"label": "halves stored as floats"}
    text = ["a text"]
    rounded = np.asarray(Encoder(package, precision="rounded").encode(text))
    whole = np.asarray(Encoder(package, precision="fp32").encode(text))
    assert 0 < np.abs(rounded - whole).max() < 1e-2


def test_everything_it_brings_is_listed(extras: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins"]) == 0
    (block,) = re.findall(r"^extras \(.*\n(?:  .*\n)+", capsys.readouterr().out, re.MULTILINE)
    for part in (
        "API 1.0",
        "variants: flawed/encoding/pooled, flawed/scoring/scores",
        "passes: sign",
        "precisions: rounded",
        "metrics: maxsim",
        "package files: provenance",
        "card sections: licence",
    ):
        assert part in block
