"""How fast graphs are against fp32: the same feeds, in turns, so that what else the machine does falls on both."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.precision.sessions import Feeds, Sessions
from converter.precision.sliced import open_sessions
from converter.precision.tasks import Task

_ROUNDS = 5
# A round takes at least so many seconds of fp32, or it would be the clock that is measured.
_ROUND = 0.01
_MANY = 16


@dataclass(frozen=True)
class Latency:
    """Speed as a multiple of fp32's (2 is half the time), for one sample and for several."""

    one: float
    many: float

    @property
    def both(self) -> float:
        """The geometric mean."""
        return float((self.one * self.many) ** 0.5)

    def to_json(self) -> dict[str, float]:
        return {"one": round(self.one, 3), "many": round(self.many, 3)}


@dataclass(frozen=True)
class Stopwatch:
    """Measures precisions in `folder` on `feeds`, each a task's run; fp32 takes its turns in the same rounds.

    No session outlives a measurement. Of `large` graphs there is never more than a slice of one.
    """

    folder: Path
    feeds: tuple[Feeds, ...]
    large: bool = False

    @staticmethod
    def of(folder: Path, task: Task, samples: Sequence[Any], large: bool) -> Stopwatch:
        """A stopwatch for what a task makes of one sample, and of several."""
        feeds: tuple[Feeds, Feeds] = ([], [])
        for count, record in zip((1, _MANY // 2 if large else _MANY), feeds, strict=True):
            task.run(open_sessions(folder, large=large, record=record), samples[:count])
        return Stopwatch(folder, feeds, large)

    def measure(self, suffix: str) -> Latency:
        """Medians of ratios over rounds."""
        return Latency(*(self._apart(suffix) if self.large else self._together(suffix)))

    def _together(self, suffix: str) -> list[float]:
        fp32, other = (Sessions(self.folder, name, spinning=True) for name in ("", suffix))
        found = []
        for feeds in self.feeds:
            other.seconds(feeds)
            fp32.seconds(feeds)
            calls = max(1, int(_ROUND / max(fp32.seconds(feeds), 1e-6)))
            ratios = []
            for _ in range(_ROUNDS):
                first = sum(fp32.seconds(feeds) for _ in range(calls))
                ratios.append(first / sum(other.seconds(feeds) for _ in range(calls)))
            found.append(statistics.median(ratios))
        return found

    def _apart(self, suffix: str) -> list[float]:
        """Two turns each, one after the other; a large model's run is long enough to be timed once."""
        turns = [
            [
                open_sessions(self.folder, name, large=True, spinning=True).seconds(feeds)
                for feeds in self.feeds
            ]
            for _ in range(2)
            for name in ("", suffix)
        ]
        fp32, other = turns[::2], turns[1::2]
        return [
            sum(a) / sum(b) for a, b in zip(zip(*fp32, strict=True), zip(*other, strict=True), strict=True)
        ]
