"""Temporary folders that a killed run does not leave for ever: the next run removes those of dead processes."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NAME = re.compile(r"converter-(\d+)-")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder in the system's place for temporary files, named after this process and gone at the end."""
    sweep()
    with tempfile.TemporaryDirectory(prefix=f"converter-{os.getpid()}-") as folder:
        yield Path(folder)


def sweep() -> None:
    """Remove our folders whose process is gone. One that cannot be removed is somebody else's, and left alone."""
    for folder in Path(tempfile.gettempdir()).glob("converter-*"):
        found = _NAME.match(folder.name)
        if found and not folder.is_symlink() and not _is_alive(int(found[1])):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
