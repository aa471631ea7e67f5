"""Graphs of other precisions at sizes of parity: what rounding costs passes, another computation does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converter.additions import Precision
from converter.cli.main import run
from converter.parity.reduced import allowed_error, relative_error
from converter.registry import load_registry

FLAWED = Path(__file__).parent / "packages" / "converter-flawed"

# Weights of a precision that someone stored the wrong way round.
TURNED = """
from converter import Precision, hookimpl

class Turned:
    label = "square matrices the wrong way round"

    def apply(self, model):
        from converter.recipes import RecipeTensor, Transpose

        for value in model.graph.initializers.values():
            weight = value.const_value
            if isinstance(weight, RecipeTensor) and len(weight.shape) == 2 and len(set(weight.shape)) == 1:
                value.const_value = RecipeTensor(Transpose(weight.recipe, (1, 0)), name=value.name)

    def to_json(self):
        return {"label": self.label}

@hookimpl
def register_precisions(register):
    register(Precision("turned", lambda: (Turned(),), "wrong", {"cosine": 0.999}))
"""


def test_the_error_allowed_follows_from_the_budget() -> None:
    assert allowed_error(Precision("mine", tuple, budget={"cosine": 0.995})) == pytest.approx(0.3)
    assert allowed_error(Precision("mine", tuple)) == 0.9


def test_an_error_is_relative_and_taken_at_the_valid_positions() -> None:
    expected = np.array([[3.0, 4.0], [1.0, 1.0]])
    found = expected + np.array([[0.3, 0.4], [50.0, 0.0]])
    assert relative_error(expected, found, np.array([True, False])) == pytest.approx(0.1)
    assert relative_error(expected, np.full((2, 2), np.nan)) == float("inf")
    assert relative_error(expected, expected[:1]) == float("inf")
    assert relative_error(np.zeros(2), np.zeros(2)) == 0


def test_verify_looks_at_every_precision_of_a_package(
    install: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.syspath_prepend(str(FLAWED))
    install("turned", TURNED)
    checkpoint, package = tmp_path / "checkpoint", str(tmp_path / "package")
    load_registry().find("flawed").source.write_tiny(checkpoint, like="none", seed=1, task="encoding")
    assert run(["--model", str(checkpoint), "--output", package, "--parity", "off", "--quiet"]) == 0
    assert run(["quantize", package, "--precisions", "q8,fp16", "--unjudged", "--quiet"]) == 0
    assert run(["verify", package, "--model", str(checkpoint), "--quiet"]) == 0

    assert run(["quantize", package, "--precisions", "turned", "--unjudged", "--quiet"]) == 0
    capsys.readouterr()
    assert run(["verify", package, "--model", str(checkpoint), "--json"]) == 3
    rows = json.loads(capsys.readouterr().out)["comparisons"]
    failed = {row["component"] for row in rows if not row["passed"]}
    assert failed == {"model_turned"}
    assert {"model", "model_quantized", "model_fp16"} < {row["component"] for row in rows}
