"""Speed against fp32, with graphs that are made up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from converter.precision import latency
from converter.precision.latency import Stopwatch
from converter.precision.sessions import Feeds


class Slow:
    """Sessions whose fp32 graph takes three times as long; counts how many are open at once."""

    alive: list[str] = []
    most = 0

    def __init__(self, folder: Path, suffix: str = "", **how: Any) -> None:
        self.suffix = suffix

    def each(self, feeds: Feeds) -> list[float]:
        return [self.seconds([feed]) for feed in feeds]

    def seconds(self, feeds: Feeds) -> float:
        if self.suffix not in Slow.alive:
            Slow.alive.append(self.suffix)
            Slow.most = max(Slow.most, len(Slow.alive))
        return len(feeds) * (0.01 if self.suffix else 0.03)

    def __del__(self) -> None:
        if self.suffix in Slow.alive:
            Slow.alive.remove(self.suffix)


@pytest.mark.parametrize(("large", "most"), [(False, 2), (True, 1)], ids=["together", "one at a time"])
def test_speed_is_a_ratio_and_large_models_are_open_one_at_a_time(
    large: bool, most: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Slow.alive, Slow.most = [], 0
    monkeypatch.setattr(latency, "Sessions", Slow)
    monkeypatch.setattr(latency, "SlicedSessions", Slow)
    found = Stopwatch(tmp_path, ([("model", {})], [("model", {})] * 4), large).measure("_quantized")
    assert (found.one, found.many) == (pytest.approx(3), pytest.approx(3))
    assert Slow.most == most
    assert not Slow.alive
