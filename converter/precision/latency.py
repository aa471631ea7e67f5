"""How fast graphs are against fp32: the same feeds, in turns, so that what else the machine does falls on both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from converter.precision.sessions import Sessions
from converter.precision.tasks import Task

Feeds = list[tuple[str, Mapping[str, Any]]]
_ROUNDS = 5
# A round takes at least so many seconds of fp32, or it would be the clock that is measured.
_ROUND = 0.01
_MANY = 16


class _Recorder(Sessions):
    """Remembers what it was fed."""

    def run(self, stem: str, feed: Mapping[str, Any], outputs: Sequence[str] = ()) -> dict[str, Any]:
        self.feeds.append((stem, feed))
        return super().run(stem, feed, outputs)

    feeds: Feeds


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


@dataclass
class Stopwatch:
    """Measures precisions in `folder` on what a task runs; fp32 takes its turns in the same rounds."""

    folder: Any
    task: Task
    samples: Sequence[Any]

    def __post_init__(self) -> None:
        self._fp32 = Sessions(self.folder, spinning=True)
        self._feeds = [self._recorded(self.samples[:1]), self._recorded(self.samples[:_MANY])]

    def _recorded(self, samples: Sequence[Any]) -> Feeds:
        recorder = _Recorder(self.folder)
        recorder.feeds = []
        recorder._open = self._fp32._open
        self.task.run(recorder, samples)
        return recorder.feeds

    def measure(self, suffix: str) -> Latency:
        """Medians of ratios over rounds."""
        other = Sessions(self.folder, suffix, spinning=True)
        return Latency(*(self._ratio(other, feeds) for feeds in self._feeds))

    def _ratio(self, other: Sessions, feeds: Feeds) -> float:
        _time(other, feeds)
        calls = max(1, int(_ROUND / max(_time(self._fp32, feeds), 1e-6)))
        ratios = []
        for _ in range(_ROUNDS):
            first = sum(_time(self._fp32, feeds) for _ in range(calls))
            ratios.append(first / sum(_time(other, feeds) for _ in range(calls)))
        return statistics.median(ratios)


def _time(sessions: Sessions, feeds: Feeds) -> float:
    start = time.perf_counter()
    for stem, feed in feeds:
        sessions.run(stem, feed)
    return time.perf_counter() - start
