"""The screen: tables, progress, and silence from libraries."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator

import pytest

from converter.console import PlainProgress, quiet_libraries, show_progress, write_table
from converter.request import SILENT

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> Iterator[Callable[[], None]]:
    """What libraries do: warn, log through a handler of their own, and print."""
    monkeypatch.delenv("TRANSFORMERS_VERBOSITY", raising=False)
    logger = logging.getLogger("some.library")
    handler = logging.StreamHandler(sys.stderr)
    logger.addHandler(handler)

    def make() -> None:
        warnings.warn("a warning", FutureWarning, stacklevel=1)
        logger.warning("a record")

    yield make
    logger.removeHandler(handler)


def test_a_table_is_aligned_columns_where_there_is_no_terminal(capsys: Capture) -> None:
    write_table(("name", "size"), [("a", "1"), ("longer", "23")], right=("size",))
    assert capsys.readouterr().out == "name    size\na          1\nlonger    23\n"


def test_a_table_is_framed_on_a_terminal_and_takes_markup_literally(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    write_table(("name", "size"), [("[bold]x", "1")], right=("size",))
    assert "[bold]x" in capsys.readouterr().out


def test_progress_is_a_line_a_stage_where_there_is_no_terminal(capsys: Capture) -> None:
    with show_progress(quiet=False) as progress:
        assert isinstance(progress, PlainProgress)
        with progress.stage("trace model"):
            progress.advance(1, 2)
        progress.spoke = float("-inf")
        progress.advance(1, 2)
    assert capsys.readouterr().err == "trace model ...\n  50 %\n"


def test_progress_is_live_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with show_progress(quiet=False) as progress, progress.stage("outer"), progress.stage("inner"):
        progress.advance(3, 4)
        progress.note("[a] note")
    assert "[a] note" in capsys.readouterr().err


def test_quiet_progress_says_nothing(capsys: Capture) -> None:
    with show_progress(quiet=True) as progress, progress.stage("x"):
        progress.note("y")
    assert progress is SILENT
    assert capsys.readouterr() == ("", "")


@pytest.mark.filterwarnings("error")
def test_libraries_are_silent_and_everything_is_put_back(noise: Callable[[], None], capsys: Capture) -> None:
    with quiet_libraries():
        assert os.environ["TRANSFORMERS_VERBOSITY"] == "error"
        noise()
    assert capsys.readouterr() == ("", "")
    assert "TRANSFORMERS_VERBOSITY" not in os.environ
    with pytest.raises(FutureWarning):
        noise()


def test_verbose_lets_libraries_speak(noise: Callable[[], None], capsys: Capture) -> None:
    with quiet_libraries(verbose=True), pytest.warns(FutureWarning):
        noise()
    assert "a record" in capsys.readouterr().err
