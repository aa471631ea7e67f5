"""How fast graphs are against fp32: the same feeds, in turns, so that what else the machine does falls on both."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.precision.sessions import Feeds, Sessions
from converter.precision.sliced import SlicedSessions
from converter.precision.tasks import Task

_ROUNDS = 5
# A round takes at least so many seconds of fp32, or it would be the clock that is measured.
_ROUND = 0.01
_MANY, _FEW = 16, 6


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
    """Measures precisions in `folder` on `feeds`: one sample's and several samples'; fp32 takes its turns in between.

    No session outlives a measurement. Of `large` graphs there is never more than a slice of one open, and what `one`
    stands for is one run of each graph.
    """

    folder: Path
    feeds: tuple[Feeds, Feeds]
    large: bool = False

    @staticmethod
    def of(folder: Path, task: Task, samples: Sequence[Any]) -> Stopwatch:
        """A stopwatch for what a task makes of one sample, and of several."""
        feeds: tuple[Feeds, Feeds] = ([], [])
        for count, record in zip((1, _MANY), feeds, strict=True):
            task.run(Sessions(folder, record=record), samples[:count])
        return Stopwatch(folder, feeds)

    @staticmethod
    def of_large(folder: Path, ran: Feeds) -> Stopwatch:
        """A stopwatch for large graphs, from a run that was made in any case: a run takes minutes."""
        runs = {
            stem: [feed for name, feed in ran if name == stem] for stem in dict.fromkeys(n for n, _ in ran)
        }
        one, many = (
            [(stem, feed) for stem, fed in runs.items() for feed in fed[:count]] for count in (1, _FEW)
        )
        return Stopwatch(folder, (one, many), large=True)

    def measure(self, suffix: str) -> Latency:
        """Medians of ratios over rounds; of large graphs the ratio of one turn each."""
        if not self.large:
            return Latency(*self._together(suffix))
        fp32, other = (
            SlicedSessions(self.folder, name, spinning=True).each(self.feeds[1]) for name in ("", suffix)
        )
        first = {stem: index for index, (stem, _) in reversed(list(enumerate(self.feeds[1])))}.values()
        return Latency(sum(fp32[i] for i in first) / sum(other[i] for i in first), sum(fp32) / sum(other))

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
