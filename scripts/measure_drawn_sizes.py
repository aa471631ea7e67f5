"""What the sizes drawn for parity cost a conversion: python scripts/measure_drawn_sizes.py CHECKPOINT [TIMES].

Converts the checkpoint in this process, several times, and prints the seconds of each conversion and those spent on
drawn sizes: drawing them, running the original at them, running the graph at them. The first one pays for imports.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch  # noqa: F401 - where torch is in the process already, all of a conversion runs in it

from converter import convert, verify
from converter.console import quiet_libraries

spent: Counter[str] = Counter()


def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return function(*args, **options)
        finally:
            spent[name] += time.perf_counter() - start

    return run


def original_at(*args: Any, restated: bool = True, run: Any = verify.run_original) -> Iterator[Any]:
    """`run_original`, which leaves the wrapper out at drawn sizes only."""
    cases = run(*args, restated=restated)
    advance = timed("original at drawn sizes" if not restated else "original at fixed sizes", next)
    while (case := advance(cases, None)) is not None:
        yield case


def graph_at(session: Any, case: Any, terms: Any, run: Any = verify.compare_case) -> Any:
    return timed("graph at fixed sizes" if case.wrapper else "graph at drawn sizes", run)(
        session, case, terms
    )


def main() -> None:
    checkpoint, times = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 4
    verify.draw_sizes = timed("drawing sizes", verify.draw_sizes)
    verify.run_original, verify.compare_case = original_at, graph_at
    for _ in range(times):
        spent.clear()
        with tempfile.TemporaryDirectory() as folder, quiet_libraries():
            start = time.perf_counter()
            convert(model=checkpoint, output=Path(folder) / "package", parity="full")
            total = time.perf_counter() - start
        drawn = sum(seconds for name, seconds in spent.items() if "draw" in name)
        parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in spent.items())
        print(f"{total:.2f} s, {drawn:.2f} s of it for drawn sizes ({drawn / total:.0%}): {parts}")


if __name__ == "__main__":
    main()
