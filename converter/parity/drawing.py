"""Sizes nobody thought of: drawn from the declared axes by hypothesis, and shrunk to the smallest that fails."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from converter.records import Axis, Padding, Size
from converter.scratch import scratch_folder

# Simplest first: hypothesis shrinks towards the front.
PADDINGS: tuple[Padding, ...] = ("none", "right", "left")
# Sizes drawn where time counts, and where it is spent to find out.
FEW, MANY = 6, 24
# For shrinking, which runs only when something failed already.
ATTEMPTS, SECONDS = 120, 30.0
# hypothesis now and then draws a number that it found in the source of loaded modules; none is as large as this, so
# that the same seed gives the same sizes wherever it runs.
_FAR = 777_000_000_000_000


def draw_sizes(axes: Sequence[Axis], seed: int, count: int) -> list[Size]:
    """Up to `count` different sizes within the axes' ranges. The same seed gives the same sizes."""
    drawn: dict[str, Size] = {}

    def take(size: Size) -> bool:
        drawn.setdefault(size.label, size)
        return False

    _search(axes, seed, count, take, shrink=False)
    return list(drawn.values())


def smallest_failure(
    axes: Sequence[Axis],
    seed: int,
    fails: Callable[[Size], bool],
    known: Mapping[str, bool],
    *,
    seconds: float = SECONDS,
) -> Size | None:
    """The smallest failing size that hypothesis finds, trying no size twice; None if it finds none in time.

    `known` says of sizes, by label, whether they fail. What `draw_sizes` gave for this seed is tried first.
    """
    results = dict(known)
    failing: list[Size] = []
    end = time.monotonic() + seconds

    def check(size: Size) -> bool:
        label = size.label
        if label not in results:
            if time.monotonic() > end:
                return False  # not remembered: it was not tried
            results[label] = fails(size)
        if results[label]:
            failing.append(size)
        return results[label]

    _search(axes, seed, ATTEMPTS, check, shrink=True)
    return min(failing, key=weight, default=None)


def sizes_of(labels: Iterable[str], seed: int) -> list[Size]:
    """The sizes behind labels; what else rows are labelled with, such as a generation, is none."""
    sizes = []
    for label in labels:
        with suppress(ValueError):
            sizes.append(Size.of(label, seed))
    return sizes


def weight(size: Size) -> tuple[int, int, int]:
    """Orders sizes: few elements first, then short axes, then no padding."""
    product = 1
    for value in size.axes.values():
        product *= max(1, value)
    return product, sum(size.axes.values()), PADDINGS.index(size.padding)


class _FoundError(Exception):
    """A size that fails: what hypothesis goes by."""


def _search(
    axes: Sequence[Axis], seed: int, examples: int, fails: Callable[[Size], bool], *, shrink: bool
) -> None:
    import hypothesis
    from hypothesis import strategies

    phases = (hypothesis.Phase.generate, *((hypothesis.Phase.shrink,) if shrink else ()))
    numbers = [strategies.integers(_FAR + axis.low, _FAR + axis.high) for axis in axes]

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        phases=phases,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=hypothesis.Verbosity.quiet,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategies.integers(_FAR, _FAR + len(PADDINGS) - 1), strategies.tuples(*numbers))
    def attempt(side: int, values: tuple[int, ...]) -> None:
        point = {axis.name: value - _FAR for axis, value in zip(axes, values, strict=True)}
        if fails(Size(point, PADDINGS[side - _FAR], seed)):
            raise _FoundError

    # What failed, `fails` remembers.
    with _no_traces(), suppress(_FoundError, hypothesis.errors.HypothesisException):
        attempt()


@contextmanager
def _no_traces() -> Iterator[None]:
    """hypothesis keeps files in the working directory, which is the user's: for the moment it keeps them elsewhere."""
    name = "HYPOTHESIS_STORAGE_DIRECTORY"
    before: Any = os.environ.get(name)
    with scratch_folder() as scratch:
        os.environ[name] = str(Path(scratch) / "hypothesis")
        try:
            yield
        finally:
            if before is None:
                del os.environ[name]
            else:
                os.environ[name] = before
