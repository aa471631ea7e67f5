"""Every error names an entry that says what causes it and what cures it, and the command prints it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import converter
from converter import errors
from converter.cli.main import run
from converter.console import error_text
from converter.errors import ConverterError, UsageError
from converter.troubleshooting import entries

ENGINE = Path(converter.__path__[0])
SOURCES = [*ENGINE.rglob("*.py"), *(ENGINE.parent / "plugins").glob("*.py")]


def error_classes() -> list[type[ConverterError]]:
    found = [value for value in vars(errors).values() if isinstance(value, type)]
    return [value for value in found if issubclass(value, ConverterError)]


def topics_in_sources() -> Iterator[str]:
    """What is passed as `topic=` anywhere."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "topic" and isinstance(node.value, ast.Constant):
                yield node.value.value


@pytest.mark.parametrize("kind", error_classes(), ids=lambda kind: kind.__name__)
def test_every_class_of_error_has_an_entry(kind: type[ConverterError]) -> None:
    assert kind.topic in entries()
    assert kind is ConverterError or "topic" in vars(kind), "its own, not its parent's"


def test_every_entry_is_named_by_an_error_and_every_name_has_an_entry() -> None:
    named = {kind.topic for kind in error_classes()} | set(topics_in_sources())
    assert named == set(entries())


@pytest.mark.parametrize("topic", entries())
def test_every_entry_says_cause_and_cure(topic: str) -> None:
    text = entries()[topic]
    assert "**Causes.**" in text
    assert "**Cures.**" in text


def test_an_error_ends_with_where_there_is_more() -> None:
    assert error_text(UsageError("no", remedy="do this")).splitlines() == [
        "error: no",
        "  do this",
        "  more: converter explain usage  (docs/troubleshooting.md#usage)",
    ]
    assert "explain memory" in error_text(ConverterError("full", topic="memory"))


def test_explain_prints_an_entry_lists_them_and_suggests_near_misses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["explain", "parity"]) == 0
    assert "converter bisect" in capsys.readouterr().out
    assert run(["explain"]) == 0
    assert capsys.readouterr().out.split() == list(entries())
    assert run(["explain", "partiy"]) == 2
    assert "did you mean 'parity'" in capsys.readouterr().err


def test_running_out_of_memory_is_no_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def spent(*given: object) -> None:
        raise MemoryError

    monkeypatch.setattr("converter.pipeline.convert_request", spent)
    assert run(["--model", "m"]) == 1
    error = capsys.readouterr().err
    assert "out of memory" in error
    assert "bug" not in error


def test_options_that_entries_recommend_exist() -> None:
    import re

    from converter.cli.main import cli

    commands = [cli, *cli.commands.values()]  # type: ignore[attr-defined]
    options = {name for command in commands for parameter in command.params for name in parameter.opts}
    for text in entries().values():
        assert set(re.findall(r"--[a-z][a-z-]+", text)) <= options
        for command in re.findall(r"`converter ([a-z-]+)", text):
            assert command in cli.commands  # type: ignore[attr-defined]
