"""The command line of a conversion: what it prints, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from converter.cli.main import run
from converter.errors import CheckpointError, ParityError, UsageError
from converter.pipeline import Report
from converter.records import Comparison, ParityReport
from converter.request import ConversionRequest, Progress

Capture = pytest.CaptureFixture[str]
Answering = Callable[[Callable[[ConversionRequest, Progress], Report]], list[ConversionRequest]]


def test_a_conversion_prints_its_parity_its_files_and_where_it_lies(
    asked: list[ConversionRequest], capsys: Capture
) -> None:
    assert run(["--model", "m"]) == 0
    out = capsys.readouterr().out
    assert "parity passed (full: asked for)" in out
    line = next(line for line in out.splitlines() if line.startswith("model"))
    assert line.split() == ["model", "embeddings", "5.0e-07", "0.9999999", "2", "passed"]
    assert "onnx/model.onnx  91.0 MB" in out
    assert "note: no tokenizer files were found" in out
    assert "wrote models/x (some_arch, feature-extraction, text) in " in out
    assert "s, peak memory 1.40 GB" in out


def test_json_is_one_object_and_nothing_else_on_stdout(
    answering: Answering, report: Callable[..., Report], capsys: Capture
) -> None:
    def answer(request: ConversionRequest, progress: Progress) -> Report:
        print("a library that prints")
        progress.note("a note")
        failed = Comparison("model", "", "y", "original/graph", float("inf"), -1.0, False)
        return report(parity=ParityReport("full", "", (failed,)))

    answering(answer)
    assert run(["--model", "m", "--json"]) == 0
    captured = capsys.readouterr()
    value = json.loads(captured.out)
    assert value["output"] == "models/x"
    assert value["parity"]["comparisons"][0]["max_abs"] == "inf"
    assert "a library that prints" in captured.err


def test_quiet_prints_nothing(asked: list[ConversionRequest], capsys: Capture) -> None:
    assert run(["--model", "m", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_verbose_adds_the_stages(asked: list[ConversionRequest], capsys: Capture) -> None:
    assert run(["--model", "m", "--verbose"]) == 0
    assert "trace model      1.25" in capsys.readouterr().out


def test_parity_that_was_not_checked_is_not_called_passed(
    answering: Answering, report: Callable[..., Report], capsys: Capture
) -> None:
    answering(lambda request, progress: report(parity=ParityReport("off", "asked for")))
    assert run(["--model", "m"]) == 0
    out = capsys.readouterr().out
    assert "parity: not checked" in out
    assert "passed" not in out


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (
            CheckpointError("tensor x is missing", remedy="download it again"),
            1,
            "error: tensor x is missing\n  download",
        ),
        (UsageError("no"), 2, "error: no"),
        (ParityError("they differ"), 3, "error: they differ"),
        (KeyboardInterrupt(), 130, "interrupted: nothing is left half-written"),
        (ZeroDivisionError("oh"), 1, "this is a bug: ZeroDivisionError: oh; run again with --verbose"),
    ],
)
def test_each_error_is_one_message_and_its_exit_code(
    answering: Answering, capsys: Capture, raised: BaseException, code: int, words: str
) -> None:
    def answer(request: ConversionRequest, progress: Progress) -> Report:
        raise raised

    answering(answer)
    assert run(["--model", "m", "--json"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert "Traceback" not in captured.err
    run(["--model", "m", "--verbose"])
    assert ("Traceback" in capsys.readouterr().err) == isinstance(raised, Exception)
