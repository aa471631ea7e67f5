"""Points where a graph and the modules it came from can be compared, and what the comparison says. Nothing is run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from converter.parity.metrics import Array, distance
from converter.parity.observe import Call
from converter.records import Tolerance
from converter.tracing.scopes import Boundary


@dataclass(frozen=True)
class Point:
    """One module's input or output, compared. `module` is its path in the original, or `wrapper.` and that in there."""

    module: str
    side: str
    value: str
    max_abs: float
    cosine: float
    agrees: bool

    def __str__(self) -> str:
        return f"what {self.module or 'the model'} {'is given' if self.side == 'input' else 'gives'}"


@dataclass(frozen=True)
class Comparer:
    """Compares recorded tensors with values of the graph, at the valid positions."""

    results: Mapping[str, Array]
    valid: tuple[Array, ...]
    tolerance: Tolerance
    share: float

    def module(self, edge: Boundary, path: str, calls: Sequence[Call]) -> Iterator[Point]:
        """A module's output, and its input where it takes one tensor: with several, which is which is not known."""
        for call in calls:
            if len(call.inputs) == 1:
                yield from self._nearest(path, "input", call.inputs[0], edge.inputs)
            if call.output is not None:
                yield from self._nearest(path, "output", call.output, edge.outputs)

    def output(self, name: str, expected: Array, valid: Array | None) -> Point:
        """An output of the graph's own, held to the bounds of parity."""
        max_abs, cosine = distance(expected, self.results[name].astype(expected.dtype), valid)
        agrees = max_abs <= self.tolerance.max_abs and cosine >= self.tolerance.cosine
        return Point("", "output", name, max_abs, cosine, agrees)

    def _nearest(self, path: str, side: str, expected: Array, names: Mapping[str, None]) -> Iterator[Point]:
        """The value that is nearest among those of the right shape; none if no value has it."""
        measured = []
        for name in names:
            found = aligned(self.results[name], expected)
            if found is not None:
                measured.append((*distance(expected, found, self._mask(expected)), name))
        if measured:
            max_abs, cosine, name = min(measured, key=lambda entry: (entry[0], -entry[1]))
            counts = expected.dtype.kind != "f"
            bound = 0.0 if counts else self.share * self.tolerance.max_abs * max(1.0, _scale(expected))
            agrees = max_abs <= bound and cosine >= self.tolerance.cosine
            yield Point(path, side, name, max_abs, cosine, agrees)

    def _mask(self, expected: Array) -> Array | None:
        return next((mask for mask in self.valid if expected.shape[: mask.ndim] == mask.shape), None)


def aligned(found: Array, expected: Array) -> Array | None:
    """`found` in the shape of `expected`, where one is the other with axes merged, split or repeated; else None.

    A wrapper may keep rows apart that the original packs. Numbers and indices do not compare.
    """
    if (found.dtype.kind == "f") != (expected.dtype.kind == "f") or expected.ndim == 0:
        return None
    if found.shape == expected.shape:
        return found
    if found.size == expected.size and found.shape[-1:] == expected.shape[-1:]:
        return found.reshape(expected.shape)
    repeated = found.ndim == expected.ndim and all(
        a in (1, b) for a, b in zip(found.shape, expected.shape, strict=True)
    )
    return np.broadcast_to(found, expected.shape) if repeated and found.shape[0] == 1 else None


def _scale(array: Array) -> float:
    finite = array[np.isfinite(array)]
    return float(np.abs(finite.astype(np.float64)).max()) if finite.size else 0.0
