"""The metric that judges every output of every graph. Its bounds are a component's `Tolerance`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from converter import Metric, hookimpl

if TYPE_CHECKING:
    from converter.hookspecs import Register
    from converter.parity.metrics import Array


def _difference(expected: Array, found: Array, valid: Array | None) -> Mapping[str, float]:
    from converter.parity.metrics import distance

    max_abs, cosine = distance(expected, found, valid)
    return {"max_abs": max_abs, "cosine": cosine}


@hookimpl
def register_metrics(register: Register[Metric]) -> None:
    register(
        Metric(
            "difference",
            {"max_abs": "lower", "cosine": "higher"},
            _difference,
            "largest absolute difference, smallest cosine along the last axis",
        )
    )
