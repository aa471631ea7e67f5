"""The same package, the same command: the same bytes, in every precision and in what is written about them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from converter.precision.quantize import quantize_package

PRECISIONS = ("fp16", "q8", "int8", "uint8", "q4", "q4f16", "bnb4")


def hashes(package: Path) -> dict[str, str]:
    files = sorted((package / "onnx").iterdir())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.xdist_group("judging")
def test_two_runs_give_identical_graphs_and_data(package_of: Callable[..., Path], tmp_path: Path) -> None:
    """A pair of graphs, so that data which two graphs might share is among it."""
    first, second = tmp_path / "first", tmp_path / "second"
    for output in (first, second):
        report = quantize_package(package_of("t5"), PRECISIONS, output=output, unjudged=True)
        assert set(report.kept) == set(PRECISIONS)
    made = hashes(first)
    assert made == hashes(second)
    assert len(made) == 2 * (1 + len(PRECISIONS))
    recorded = [json.loads((folder / "converter.json").read_text())["files"] for folder in (first, second)]
    assert recorded[0] == recorded[1], "the card among them"


@pytest.mark.xdist_group("judging")
def test_a_search_comes_to_the_same_plan_again(package_of: Callable[..., Path], tmp_path: Path) -> None:
    rows = []
    for name in ("first", "second"):
        report = quantize_package(
            package_of("t5"),
            ("q8",),
            output=tmp_path / name,
            keep=("cosine=0.99",),
            num_samples=4,
            trials=4,
            keep_failed=True,
        )
        (row,) = report.rows
        rows.append((row.plan.label, row.hashes, row.quality))
    assert rows[0] == rows[1]
