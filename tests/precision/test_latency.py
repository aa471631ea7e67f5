"""Speed against fp32, with graphs that are made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from converter.precision import latency
from converter.precision.latency import Stopwatch


class Slow:
    """Sessions whose fp32 graph takes three times as long; counts how many are open at once."""

    clock = 0.0
    alive: list[str] = []
    most = 0

    def __init__(self, folder: Path, suffix: str = "", *, spinning: bool = False) -> None:
        self.suffix = suffix

    def run(self, stem: str, feed: Mapping[str, Any], outputs: Sequence[str] = ()) -> dict[str, Any]:
        if self.suffix not in Slow.alive:
            Slow.alive.append(self.suffix)
            Slow.most = max(Slow.most, len(Slow.alive))
        Slow.clock += 0.01 if self.suffix else 0.03
        return {}

    def __del__(self) -> None:
        if self.suffix in Slow.alive:
            Slow.alive.remove(self.suffix)


@pytest.mark.parametrize(("apart", "most"), [(False, 2), (True, 1)], ids=["together", "one at a time"])
def test_speed_is_a_ratio_and_large_models_are_open_one_at_a_time(
    apart: bool, most: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Slow.alive, Slow.most = [], 0
    monkeypatch.setattr(latency, "Sessions", Slow)
    monkeypatch.setattr(latency.time, "perf_counter", lambda: Slow.clock)
    found = Stopwatch(tmp_path, ([("model", {})], [("model", {})] * 4), apart).measure("_quantized")
    assert (found.one, found.many) == (pytest.approx(3), pytest.approx(3))
    assert Slow.most == most
    assert not Slow.alive
