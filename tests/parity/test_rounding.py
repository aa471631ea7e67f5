"""Outputs so large that float32 rounds them by more than the usual bound: float64 tells rounding from a mistake."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from converter.cli.main import run
from converter.parity.metrics import Terms, compare_all
from converter.parity.rounding import settle_rounding, weighed
from converter.parity.runners import Case
from converter.records import Comparison, Criteria, Size
from converter.registry import load_registry
from converter.request import ConversionRequest
from converter.testing.cases import Suite, plan_in
from converter.testing.plan import Asked

pytestmark = pytest.mark.xdist_group("rounding")
TASK = "text-classification"


@pytest.fixture(scope="module")
def loud(tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier whose logits are thousands, as depths and similarities of real models are."""
    folder = tmp_path_factory.mktemp("loud") / "checkpoint"
    shutil.copytree(tiny_checkpoint("bert", task=TASK), folder)
    return changed(folder, weight=lambda weight: 5000 * weight)


def changed(folder: Path, **changes: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    """The checkpoint with tensors of its classifier changed in place."""
    weights = load_file(folder / "model.safetensors")
    for name, change in changes.items():
        weights[f"classifier.{name}"] = change(weights[f"classifier.{name}"]).contiguous()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def package(loud: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("package") / "package"
    arguments = ["--model", loud, "--task", TASK, "--output", target, "--quiet"]
    assert run([str(argument) for argument in arguments]) == 0
    return target


def test_a_graph_as_exact_as_its_original_passes_and_the_record_says_by_what(package: Path) -> None:
    record = json.loads((package / "converter.json").read_text())["parity"]
    assert record["passed"]
    (warning,) = (line for line in record["warnings"] if "float32" in line)
    assert warning.startswith("float32 rounds logits of model: ")
    (worst,) = (row for row in record["worst"] if row["pair"] == "graph/original")
    assert worst["max_abs"] > 1e-4
    assert 0 < worst["others"]["graph.float64"] < 1e-2 > worst["others"]["original.float64"] > 0


def test_a_mistake_that_is_larger_than_rounding_fails(
    package: Path, loud: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A millionth of the largest logit, in the bias: the cosine does not see it."""
    other = shutil.copytree(loud, tmp_path / "other")
    changed(other, bias=lambda bias: bias + 2e-2)
    assert run(["verify", str(package), "--model", str(other)]) == 3
    shown = capsys.readouterr()
    assert "FAILED" in shown.out + shown.err and "1.0000000" in shown.out + shown.err


def test_cases_of_the_pytest_plugin_know_rounding_too(loud: Path, tmp_path: Path) -> None:
    plan_in(tmp_path, Asked("bert", str(loud), TASK, ("fp32",)), apart=False)
    suite = Suite(tmp_path)
    (case,) = (case for case in suite.plan.cases if case.size == "batch_size=5,sequence_length=10,left")
    rows = suite.compare(case)
    assert all(row.passed for row in rows)
    assert max(row.max_abs for row in rows) > 1e-4


def test_a_bound_that_the_user_set_stands() -> None:
    row = Comparison("model", "batch_size=2", "logits", "graph/original", 3e-4, 1.0, False)
    request = replace(ConversionRequest(arch="bert"), atol=1e-4)
    nothing = cast(Any, None)  # it is not looked at
    assert settle_rounding(request, nothing, Path(), (), [row]) == (row,)


def test_the_cosine_of_a_small_vector_beside_large_ones_is_rounding_too() -> None:
    """Rows of BiT's feature maps that are nearly zero were 3e-5 apart at a cosine of 0.999986, and refused."""
    exact = np.array([[9.0, 4.0], [1e-3, 2e-3]])
    original, graph = exact + 2e-5, exact - 2e-5 * np.array([[1, 1], [1, -1]])
    case = Case(
        Criteria("model", {}),
        Size({"rows": 2}),
        {},
        {},
        {"states": original.astype(np.float32)},
        {},
    )
    metrics, sides = load_registry().metrics, (("original", original), ("graph", graph))
    plain = compare_all(
        case.criteria, case.size, {name: {"states": states} for name, states in sides}, {}, Terms(metrics)
    )
    assert not plain[0].passed
    (row,) = weighed(case, {"states": graph.astype(np.float32)}, {"states": exact}, metrics, steps=False)
    assert row.passed and row.cosine < 0.9999 and row.max_abs < 1e-4
