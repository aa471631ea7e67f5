"""The precision that runs fastest here, among those that were proven to keep their quality."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from converter.runtime.files import SUFFIXES, PackageFiles

FASTEST = "fastest"
WARM_UP, ROUNDS = 2, 5
_SAME = 0.97  # less than 3 % faster is as fast: then the precision listed first stays


def proven(files: PackageFiles, stem: str) -> tuple[str, ...]:
    """The main graph's precision, and those recorded as keeping their budget, in the order of `SUFFIXES`."""
    record = files.read_object("converter.json")
    added: Mapping[str, Any] = record.get("precisions") or {}
    names = [name for name in files.precisions(stem) if name not in added or _kept(added[name])]
    order = [*SUFFIXES, *files.others]
    return tuple(sorted(names, key=order.index))


def _kept(entry: Mapping[str, Any]) -> bool:
    """What was judged by nothing has kept nothing: int8, which has no budget, among it."""
    return bool(entry.get("passed") and entry.get("quality") and entry.get("budget"))


def fastest(precisions: Sequence[str], open_runner: Callable[[str], Callable[[], object]]) -> str:
    """The one whose quickest of five runs is the shortest; opened and measured one after the other."""
    if len(precisions) == 1:
        return precisions[0]
    best, least = precisions[0], float("inf")
    for name in precisions:
        seconds = _quickest(open_runner(name))
        if seconds < least * _SAME:
            best, least = name, seconds
    return best


def _quickest(run: Callable[[], object]) -> float:
    found = []
    for _ in range(WARM_UP + ROUNDS):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found[WARM_UP:])
