"""How fast graphs are against fp32: the same feeds, in turns, so that what else the machine does falls on both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.precision.sessions import Recorder, Sessions
from converter.precision.tasks import Task

Feeds = list[tuple[str, Mapping[str, Any]]]
_ROUNDS = 5
# A round takes at least so many seconds of fp32, or it would be the clock that is measured.
_ROUND = 0.01
_MANY = 16
# Bytes of fp32 graphs from which on sessions are opened in turns as well: two of them at once would be too much.
_LARGE = 512 * 2**20


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

    No session outlives a measurement. With `apart` there is never more than one: each is opened for its turn.
    """

    folder: Path
    feeds: tuple[Feeds, ...]
    apart: bool = False

    @staticmethod
    def of(folder: Path, task: Task, samples: Sequence[Any], nbytes: int) -> Stopwatch:
        """A stopwatch for what a task makes of one sample, and of several. The fp32 graphs have `nbytes`."""
        recorder, feeds = Recorder(folder), []
        for count in (1, _MANY):
            recorder.feeds = []
            task.run(recorder, samples[:count])
            feeds.append(recorder.feeds)
        return Stopwatch(folder, tuple(feeds), nbytes >= _LARGE)

    def measure(self, suffix: str) -> Latency:
        """Medians of ratios over rounds."""
        return Latency(*(self._apart(suffix) if self.apart else self._together(suffix)))

    def _together(self, suffix: str) -> list[float]:
        fp32, other = (Sessions(self.folder, name, spinning=True) for name in ("", suffix))
        found = []
        for feeds in self.feeds:
            _time(other, feeds)
            calls = max(1, int(_ROUND / max(_warm(fp32, feeds), 1e-6)))
            ratios = []
            for _ in range(_ROUNDS):
                first = sum(_time(fp32, feeds) for _ in range(calls))
                ratios.append(first / sum(_time(other, feeds) for _ in range(calls)))
            found.append(statistics.median(ratios))
        return found

    def _apart(self, suffix: str) -> list[float]:
        """Two turns each, one after the other; a large model's run is long enough to be timed once."""
        turns = [
            [_warm(sessions, feeds) for feeds in self.feeds]
            for _ in range(2)
            for sessions in (Sessions(self.folder, name, spinning=True) for name in ("", suffix))
        ]
        fp32, other = turns[::2], turns[1::2]
        return [
            sum(a) / sum(b) for a, b in zip(zip(*fp32, strict=True), zip(*other, strict=True), strict=True)
        ]


def _warm(sessions: Sessions, feeds: Feeds) -> float:
    """Seconds of the second run."""
    _time(sessions, feeds)
    return _time(sessions, feeds)


def _time(sessions: Sessions, feeds: Feeds) -> float:
    start = time.perf_counter()
    for stem, feed in feeds:
        sessions.run(stem, feed)
    return time.perf_counter() - start
