"""What calibration measures of the activations that enter each matrix: their range, and each feature's peak.

Everything goes by the matrix's name, so that graphs which share a matrix share what is made of it. Matrices that
read the same activations form a group and share factors and scales.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from typing import Any, Literal

import numpy as np

from converter.errors import ConverterError, UsageError
from converter.precision.columns import row_peaks
from converter.precision.formats import Columns
from converter.precision.products import products
from converter.recipes import WeightRecipe
from converter.records import ExportedGraph

Method = Literal["minmax", "entropy", "percentile"]
METHODS: tuple[Method, ...] = ("minmax", "entropy", "percentile")
_BINS, _PERCENTILE = 2048, 99.999


@dataclass(frozen=True)
class Points:
    """Where activations enter matrices: graph by stem, value name, names of the matrices. And the matrices."""

    values: Mapping[str, Mapping[str, tuple[str, ...]]]
    matrices: Mapping[str, WeightRecipe]

    @staticmethod
    def of(graphs: Iterable[ExportedGraph]) -> Points:
        values: dict[str, dict[str, tuple[str, ...]]] = {}
        matrices: dict[str, WeightRecipe] = {}
        for graph in graphs:
            found = values.setdefault(graph.stem, {})
            for product in products(graph.model):
                name = str(product.activations.name)
                if product.node.graph is graph.model.graph:  # what subgraphs compute cannot be looked at
                    found[name] = tuple(dict.fromkeys((*found.get(name, ()), product.name)))
                matrices[product.name] = product.recipe
        return Points(values, matrices)


@dataclass
class Statistics:
    """Ranges and peaks, filled by `observe`; asked by the formats that want them.

    `symmetric` ranges lie around zero. With `minmax` the range is what was seen; `entropy` and `percentile` are
    onnxruntime's, over histograms.
    """

    points: Points
    method: Method = "minmax"
    symmetric: bool = False
    peaks: dict[str, Any] = field(default_factory=dict)
    lows: dict[str, float] = field(default_factory=dict)
    highs: dict[str, float] = field(default_factory=dict)
    _collector: Any = None
    _ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    _weights: dict[str, Any] = field(default_factory=dict)

    def observe(self, stem: str, found: Mapping[str, Any]) -> None:
        """Values of a run, by name; of a run in parts, of one part."""
        for name, names in self.points.values.get(stem, {}).items():
            if name not in found:
                continue
            values = np.asarray(found[name], np.float32)
            if not values.size or not np.isfinite(values).all():
                continue
            group = self.group(names[0])
            features = np.abs(values).reshape(-1, values.shape[-1]).max(axis=0)
            self.peaks[group] = np.maximum(self.peaks.get(group, 0), features)
            self.lows[group] = min(self.lows.get(group, 0.0), float(values.min()))
            self.highs[group] = max(self.highs.get(group, 0.0), float(values.max()))
            if self.method != "minmax":
                self._collect(group, values)

    def group(self, name: str) -> str:
        """The first of the matrices that read the same activations."""
        for found in self.points.values.values():
            for names in found.values():
                if name in names:
                    return names[0]
        return name

    def _members(self, group: str) -> Sequence[str]:
        for found in self.points.values.values():
            for names in found.values():
                if names[0] == group:
                    return names
        return (group,)

    def factors(self, name: str, share: float) -> tuple[str, Any]:
        """The group of a matrix, and by how much to divide each feature of its activations: (K,)."""
        group = self._known(name)
        if group not in self._weights:
            rows = [row_peaks(self.points.matrices[member]) for member in self._members(group)]
            self._weights[group] = np.maximum(np.max(rows, axis=0), 1e-5)
        factors = np.maximum(self.peaks[group], 1e-5) ** share / self._weights[group] ** (1 - share)
        return group, factors / np.exp(np.log(factors).mean())

    def static(self, name: str, form: Columns) -> tuple[str, float, int]:
        """The group of a matrix, and scale and zero point of its activations."""
        group = self._known(name)
        if form.smooth:
            _, factors = self.factors(name, form.smooth)
            low, high = -(top := float((self.peaks[group] / factors).max())), top
        else:
            low, high = self._range(group)
        if form.symmetric:
            return group, max(abs(low), abs(high), 1e-9) / 127, 0
        scale = max(high - low, 1e-9) / 255
        return group, scale, int(np.clip(round(-low / scale), 0, 255))

    def saw(self, name: str) -> bool:
        """Whether anything entered this matrix."""
        return self.group(name) in self.peaks

    def _known(self, name: str) -> str:
        if not self.saw(name):
            raise missing_statistics(name)
        return self.group(name)

    def _range(self, group: str) -> tuple[float, float]:
        if self.method == "minmax":
            return self.lows[group], self.highs[group]
        if not self._ranges:
            with redirect_stdout(StringIO()):  # onnxruntime prints what it is about to do
                made = self._collector.compute_collection_result()
            self._ranges = {
                name: (min(0.0, float(entry[0])), max(0.0, float(entry[1]))) for name, entry in made.items()
            }
        return self._ranges[group]

    def _collect(self, group: str, values: Any) -> None:
        from onnxruntime.quantization.calibrate import HistogramCollector

        if self._collector is None:
            bins = 128
            self._collector = HistogramCollector(
                self.method,
                self.symmetric,
                _BINS if self.method == "percentile" else bins,
                bins,
                _PERCENTILE,
                "same",
            )
        with redirect_stdout(StringIO()):
            self._collector.collect({group: values.reshape(-1)})

    def to_json(self) -> dict[str, Any]:
        """How the calibration was done."""
        return {"method": self.method, "matrices": len(self.peaks)}


def missing_statistics(name: str) -> ConverterError:
    return UsageError(
        f"calibration saw nothing enter the matrix {name!r}",
        remedy="give calibration inputs that reach it (--calibration), or a precision that needs none",
    )
