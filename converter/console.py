"""The screen: progress on stderr, silence from libraries, and the form of tables and errors."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from converter.errors import ConverterError
from converter.request import SILENT, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichBars
    from rich.progress import TaskID

# Read by huggingface_hub, transformers and tokenizers when they are imported, so set before that.
QUIET_ENVIRONMENT = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
SECONDS_BETWEEN_LINES = 10.0
WIDTH = 110  # characters; longer lines are hard to read


@contextmanager
def quiet_libraries(*, verbose: bool = False) -> Iterator[None]:
    """Keep what libraries say off the screen, and off stdout in any case, where only results belong.

    Warnings, log records below ERROR and progress bars are dropped, everywhere in the process, until the
    context ends; with `verbose` all of it is shown, on stderr.
    """
    with redirect_stdout(sys.stderr):
        if verbose:
            yield
            return
        missing = {name: value for name, value in QUIET_ENVIRONMENT.items() if name not in os.environ}
        disabled = logging.root.manager.disable
        os.environ.update(missing)
        logging.disable(max(disabled, logging.WARNING))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            logging.disable(disabled)
            for name in missing:
                os.environ.pop(name, None)


@contextmanager
def show_progress(*, quiet: bool, stream: TextIO | None = None) -> Iterator[Progress]:
    """A display for one conversion: live on a terminal, plain lines elsewhere, nothing with `quiet`."""
    stream = stream or sys.stderr
    if quiet:
        yield SILENT
    elif stream.isatty():
        with _live_bars(stream) as bars:
            yield LiveProgress(bars)
    else:
        yield PlainProgress(stream)


def _live_bars(stream: TextIO) -> RichBars:
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    return Bars(
        SpinnerColumn("line"),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        console=Console(file=stream),
        transient=True,
        refresh_per_second=4,
        redirect_stdout=False,
        redirect_stderr=False,
    )


@dataclass
class LiveProgress:
    """One bar for each stage that is running; they vanish as they end."""

    bars: RichBars
    running: list[TaskID] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.running.append(self.bars.add_task(name, total=None))
        try:
            yield
        finally:
            self.bars.remove_task(self.running.pop())

    def advance(self, done: int, total: int) -> None:
        if self.running:
            self.bars.update(self.running[-1], completed=done, total=total)

    def note(self, text: str) -> None:
        self.bars.console.print(text, markup=False, highlight=False)


@dataclass
class PlainProgress:
    """A line as each stage begins, and now and then one on how far it is."""

    stream: TextIO
    spoke: float = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self.note(f"{name} ...")
        yield

    def advance(self, done: int, total: int) -> None:
        if total and time.monotonic() - self.spoke >= SECONDS_BETWEEN_LINES:
            self.note(f"  {100 * done // total} %")

    def note(self, text: str) -> None:
        self.spoke = time.monotonic()
        self.stream.write(text + "\n")
        self.stream.flush()


def write_line(text: str = "") -> None:
    sys.stdout.write(text + "\n")


def write_list(label: str, names: Sequence[str]) -> None:
    """Names after a label, wrapped to the screen's width at most, and indented as far as the label."""
    width = min(shutil.get_terminal_size((WIDTH, 24)).columns, WIDTH)
    lines = textwrap.wrap(
        ", ".join(names), width - len(label), break_on_hyphens=False, break_long_words=False
    )
    for line in lines:
        write_line(label + line)
        label = " " * len(label)


def write_error(text: str) -> None:
    sys.stderr.write(text + "\n")


def error_text(error: ConverterError) -> str:
    """An error as the user reads it: what happened and where, what to do, and where there is more about it."""
    notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
    more = f"converter explain {error.topic}  (docs/troubleshooting.md#{error.topic})"
    return f"error: {error}{notes}\n  more: {more}"


def write_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """A table on stdout: framed on a terminal, aligned columns where it goes to a file or a pipe.

    `right` names the columns of numbers.
    """
    if sys.stdout.isatty():
        _write_framed(header, rows, right)
        return
    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        cells = (
            cell.rjust(width) if title in right else cell.ljust(width)
            for cell, width, title in zip(line, widths, header, strict=True)
        )
        write_line("  ".join(cells).rstrip())


def _write_framed(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    for title in header:
        table.add_column(title, justify="right" if title in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
