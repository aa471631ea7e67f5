"""ColQwen2 in fewer bits: 159 queries, 50 drawn pages, and whether each query's best page stays.

The weights are random. What holds here is that queries and pages go through the package's own runtime, that scores are
MaxSim's, that a recipe that spoils them is seen and one that does not is kept. Nothing follows for a trained model: its
best page leads by a margin it has learned, and its weights have outliers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from converter.cli.main import run

pytestmark = pytest.mark.xdist_group("colqwen2")
Capture = pytest.CaptureFixture[str]


def quantize(package: Path, target: Path, *options: str, trials: int) -> int:
    arguments = ["quantize", str(package), "--output", str(target), "--quiet", "--trials", str(trials)]
    return run([*arguments, *options])


def entries(package: Path) -> Any:
    return json.loads((package / "converter.json").read_text())["precisions"]


def test_the_best_of_50_pages_stays(retrieval_package: Path, tmp_path: Path) -> None:
    """By the budget that q8 has anyway: 97 %."""
    assert quantize(retrieval_package, tmp_path / "p", "--precisions", "q8", trials=24) == 0
    row = entries(tmp_path / "p")["q8"]
    assert row["judged_on"] == "queries and pages"
    assert row["quality"]["samples"] == 159, "every sentence asks for one of 50 pages"
    assert row["quality"]["maxsim_top1"] >= 0.97
    names = {Path(file).name for file in row["files"]}
    stems = {"model", "text_model", "image_model"}
    assert {f"{stem}_quantized.onnx" for stem in stems} <= names
    datas = [name for name in names if name.endswith("_data")]
    assert len(datas) <= 1, "one data file for a precision, shared by its components"


def test_a_ranking_that_is_not_kept_is_an_error(
    retrieval_package: Path, tmp_path: Path, capsys: Capture
) -> None:
    options = ["--precisions", "bnb4", "--keep", "maxsim_top1=1.0", "--keep", "cosine=0.9999"]
    assert quantize(retrieval_package, tmp_path / "p", *options, trials=1) == 3
    assert "bnb4: " in capsys.readouterr().err
    assert not (tmp_path / "p").exists()
