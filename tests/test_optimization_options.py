"""How far to optimize, in our words, optimum's and onnxruntime's."""

from __future__ import annotations

import pytest

from converter.cli.main import cli, run
from converter.cli.optimization_options import take_optimization
from converter.errors import UsageError


def taken(*options: str) -> str:
    context = cli.make_context("converter", [*options, "--tiny"])
    return take_optimization(dict(context.params))


@pytest.mark.parametrize(
    ("options", "level"),
    [
        ([], "basic"),
        (["--optimize", "extended"], "extended"),
        (["--optimize", "O1"], "basic"),
        (["--optimize", "o2"], "extended"),
        (["--optimize", "O4"], "ort"),
        (["--optimizer_level", "0"], "none"),
        (["--optimizer-level", "99"], "ort"),
        (["--no-post-process"], "none"),
        (["--no-post-process", "--optimize", "none"], "none"),
    ],
)
def test_every_spelling_is_understood(options: list[str], level: str) -> None:
    assert taken(*options) == level


def test_spellings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="--optimize and --no-post-process contradict"):
        taken("--optimize", "ort", "--no-post-process")


def test_an_unknown_level_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--tiny", "--arch", "bert", "--optimize", "O5"]) == 2
    assert "extended" in capsys.readouterr().err
