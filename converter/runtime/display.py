"""A progress display where the caller asked for one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from converter.request import SILENT, Progress


@contextmanager
def progress_of(what: str, *, shown: bool) -> Iterator[Progress]:
    """On stderr if `shown`, else nowhere."""
    if not shown:
        yield SILENT
        return
    from converter.console import show_progress

    with show_progress(quiet=False) as progress, progress.stage(what):
        yield progress
