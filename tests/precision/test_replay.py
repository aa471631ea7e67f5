"""A recorded recipe, applied again: the same bytes, or an error that says why not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converter.cli.main import run
from converter.errors import UsageError
from converter.precision.quantize import quantize_package

pytestmark = pytest.mark.xdist_group("judging")
Make = Callable[..., Path]
Capture = pytest.CaptureFixture[str]
COLUMNS = {"format": "columns"}


@pytest.mark.parametrize("how", [{"static": "entropy"}, {"static": "minmax", "symmetric": True}])
def test_calibrated_recipes_make_the_same_bytes(
    how: dict[str, Any], package_of: Make, tmp_path: Path
) -> None:
    """The method and the number of samples were recorded, and a replay took others."""
    package, record = package_of("qwen2"), tmp_path / "one/converter.json"
    first = quantize_package(package, ["int8"], output=tmp_path / "one", num_samples=8, **how)
    again = quantize_package(package, ["int8"], output=tmp_path / "two", recipe=record)
    assert first.rows[0].hashes == again.rows[0].hashes
    assert first.rows[0].calibration == again.rows[0].calibration
    assert not [note for note in again.rows[0].notes if "calibration" in note]


def test_a_replay_that_calibrates_otherwise_says_so(package_of: Make, tmp_path: Path) -> None:
    package, record, texts = package_of("qwen2"), tmp_path / "one/converter.json", tmp_path / "mine.txt"
    texts.write_text("a text that is long enough\nanother one of some length\n")
    given = {"static": "minmax", "calibration": str(texts)}
    first = quantize_package(package, ["int8"], output=tmp_path / "one", **given)
    again = quantize_package(package, ["int8"], output=tmp_path / "two", recipe=record, num_samples=8)
    assert "int8: the recipe was made by calibration on 2 samples of mine.txt" in again.rows[0].notes
    same = quantize_package(
        package, ["int8"], output=tmp_path / "three", recipe=record, calibration=str(texts)
    )
    assert same.rows[0].hashes == first.rows[0].hashes


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"matrices": {**COLUMNS, "activations": "rows"}}, "activations 'rows' is unknown"),
        ({"matrices": {**COLUMNS, "smooth": 7}}, "smooth 7 is no share"),
        ({"matrices": {**COLUMNS, "smooth": "much"}}, "not the recipe of a precision"),
        ({"matrices": {"format": "float", "kind": "nf5"}}, "kind 'nf5' is unknown"),
        ({"matrices": {"format": "float", "size": 7}}, "size 7 is unknown"),
        ({"matrices": {"format": "blocks", "bits": 4, "accuracy_level": 9}}, "accuracy_level 9 is unknown"),
        ({"exceptions": {"layers.0.misspelt": COLUMNS}}, "multiply by no matrix 'layers.0.misspelt'"),
        ({"calibration": {"method": "median", "samples": 8, "source": ""}}, "method 'median' is unknown"),
        ({"calibration": {"method": "minmax"}}, "its calibration cannot be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_recipe_that_cannot_be_meant_is_refused(
    changed: dict[str, Any], message: str, package_of: Make, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(
        json.dumps({"matrices": COLUMNS, "exceptions": {}, "tables": True, "half": False, **changed})
    )
    with pytest.raises(UsageError, match=message):
        quantize_package(package_of("qwen2"), ["q8"], output=tmp_path / "p", recipe=recipe, num_samples=8)
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--recipe", "any.json", "--prefer", "speed"],
        ["--recipe", "any.json", "--trials", "3"],
        ["--unjudged", "--minutes", "3"],
        ["--unjudged", "--evaluation", "any.txt"],
    ],
    ids=" ".join,
)
def test_options_of_a_search_that_is_not_made_are_refused(
    options: list[str], package_of: Make, tmp_path: Path, capsys: Capture
) -> None:
    assert run(["quantize", str(package_of("qwen2")), "--output", str(tmp_path / "p"), *options]) == 2
    assert "leave" in capsys.readouterr().err
