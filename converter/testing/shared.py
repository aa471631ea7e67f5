"""What one process makes and every process of a test session reads: workers of xdist see the same folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converter.errors import ConverterError
from converter.parity.runners import load, save


@dataclass
class Shared:
    """A folder of a test session. Whoever needs a thing first makes it, and the others wait for it."""

    folder: Path
    _known: dict[str, tuple[Any, Exception | None]] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[Path], Any]) -> Any:
        """What `make(a folder of its own)` returned in whichever process made it; what it raised, raised in each.

        A process that is killed while it makes something leaves it to the next one, which begins anew.
        """
        if name not in self._known:
            self._known[name] = self._read_or_make(name, make)
        result, error = self._known[name]
        if error is not None:
            raise error
        return result

    def _read_or_make(self, name: str, make: Callable[[Path], Any]) -> tuple[Any, Exception | None]:
        from filelock import FileLock

        outcome = self.folder / f"{name}.outcome"
        with FileLock(self.folder / f"{name}.lock"):
            if not outcome.exists():
                own = self.folder / name
                shutil.rmtree(own, ignore_errors=True)
                own.mkdir()
                save(_attempt(make, own), unfinished := outcome.with_suffix(".unfinished"))
                unfinished.replace(outcome)
            found: tuple[Any, Exception | None] = load(outcome)
            return found


def _attempt(make: Callable[[Path], Any], folder: Path) -> tuple[Any, Exception | None]:
    try:
        return make(folder), None
    except ConverterError as error:  # its words; some of its kinds cannot be pickled
        return None, ConverterError(error.message, remedy=error.remedy, topic=error.topic)
    except Exception as error:  # a plugin's own, which need not survive a pickle
        return None, ConverterError(f"{type(error).__name__}: {error}", topic="plugin")
