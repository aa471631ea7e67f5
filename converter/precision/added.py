"""Which modules of a reduced precision add how much error.

Each module of the reduced graph is given what the fp32 graph gives it there, and what it makes of that is compared
with what fp32 makes: so an error counts where it arises, not where it arrives. One run does it for all modules, with
the graph cut wherever a value goes from one module to another. Only what the precision left in place can be compared:
a module whose inputs or outputs it fused away is passed over.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from converter.errors import UsageError
from converter.packages.package import inspect_package
from converter.parity.observe import open_unoptimised, run_inside
from converter.precision.judge import Judge
from converter.precision.quantize import main_stems
from converter.precision.sessions import ONNX, Feeds, Sessions
from converter.request import SILENT, Progress
from converter.runtime.files import suffix_of
from converter.tracing.scopes import unit_of, units

Array = np.ndarray[Any, Any]
# Runs of a graph that the errors are taken over.
RUNS = 4
EXACT = "exact/"


@dataclass(frozen=True)
class AddedError:
    """What one module adds, and what has gathered by the time it is done.

    added     relative error of what it gives when it is given what fp32 gives it: |found - fp32| / |fp32|
    gathered  the same when all of the graph is reduced
    cosine    least cosine along the last axis, of what it gives when it is given what fp32 gives it
    """

    component: str
    module: str
    added: float
    gathered: float
    cosine: float


def rank_modules(package: Path, precision: str, progress: Progress = SILENT) -> tuple[AddedError, ...]:
    """The modules of a package's graphs in `precision`, those first that add the largest error.

    The graphs run on what the precision is judged by: texts for text models, pictures for those that see. Raises
    UsageError for a precision the package does not have, and where there is nothing to judge it by.
    """
    info = inspect_package(package)
    stems = main_stems(info.record)
    suffix = suffix_of(precision)
    there = [stem for stem in stems if (package / ONNX / f"{stem}{suffix}.onnx").is_file()]
    if not there or not suffix:
        known = ", ".join(info.record.get("precisions", {})) or "none"
        raise UsageError(f"{package} has no precision {precision!r}", remedy=f"it has {known} besides fp32")
    with progress.stage("run fp32"):
        judge = Judge.of(package, info.record, stems)
        ran: Feeds = []
        judge.task.run(Sessions(package, record=ran), judge.evaluation[:RUNS])
    found: list[AddedError] = []
    for stem in there:
        fed = [feed for name, feed in ran if name == stem][:RUNS]
        feeds = [{name: np.asarray(value) for name, value in feed.items()} for feed in fed]
        with progress.stage(f"compare the modules of {stem}"):
            found += compare_units(package / ONNX, stem, suffix, feeds)
    return tuple(sorted(found, key=lambda entry: -entry.added))


def compare_units(
    folder: Path, stem: str, suffix: str, feeds: Sequence[Mapping[str, Array]]
) -> Iterator[AddedError]:
    """The error each module of `<stem><suffix>.onnx` adds to that of `<stem>.onnx`, over the feeds."""
    whole, path = folder / f"{stem}.onnx", folder / f"{stem}{suffix}.onnx"
    reduced = ir.load(path)
    made = {value.name: value for node in reduced.graph for value in node.outputs}
    given = {value.name for value in reduced.graph.inputs}
    edges = {
        scope: edge
        for scope, edge in units(ir.load(whole).graph).items()
        if edge.outputs and all(name in made or name in given for name in (*edge.inputs, *edge.outputs))
    }
    inner = {name for edge in edges.values() for name in edge.inputs if name not in given}
    wanted = {name for edge in edges.values() for name in edge.outputs}
    sums = {name: _Sum() for name in wanted}
    session = None
    for feed in feeds:
        exact = run_inside(whole, inner | wanted, feed)
        together = run_inside(path, inner | wanted, feed)
        if session is None:
            session = open_unoptimised(_cut(reduced, inner, wanted, together), path)
        alone = session.run(
            sorted(wanted),
            {value.name: _fed(value.name, feed, exact, together) for value in session.get_inputs()},
        )
        for name, found in zip(sorted(wanted), alone, strict=True):
            sums[name].add(exact[name], found, together[name])
    for scope, edge in edges.items():
        measured = [sums[name] for name in edge.outputs if sums[name].counted]
        if measured:
            worst = max(measured, key=lambda entry: entry.added)
            yield AddedError(stem, scope.removeprefix("wrapper."), worst.added, worst.gathered, worst.cosine)


def _fed(
    name: str, feed: Mapping[str, Array], exact: Mapping[str, Array], like: Mapping[str, Array]
) -> Array:
    """A graph's own input, or the exact value for a cut, in the type the reduced graph has there."""
    if not name.startswith(EXACT):
        return feed[name]
    inner = name.removeprefix(EXACT)
    return exact[inner].astype(like[inner].dtype)


def _cut(reduced: ir.Model, inner: set[str], wanted: set[str], like: Mapping[str, Array]) -> ir.Model:
    """The graph with an input in the place of every value that goes from one module to another, typed as in `like`."""
    graph = reduced.graph
    made = {value.name: value for node in graph for value in node.outputs}
    graph.outputs.clear()
    graph.outputs.extend(made[name] for name in sorted(wanted))
    for name in sorted(inner):
        value = made[name]
        kind = ir.TensorType(ir.DataType.from_numpy(like[name].dtype))
        twin = ir.Value(name=f"{EXACT}{name}", type=kind)
        own = unit_of(value)
        for node, index in list(value.uses()):
            if own is None or unit_of(node.outputs[0]) != own:
                node.replace_input_with(index, twin)
        if any(True for _ in twin.uses()):
            graph.inputs.append(twin)
    return reduced


@dataclass
class _Sum:
    """Sums of squares over runs."""

    exact: float = 0.0
    alone: float = 0.0
    together: float = 0.0
    cosine: float = 1.0
    counted: bool = False

    def add(self, exact: Array, alone: Array, together: Array) -> None:
        if exact.dtype.kind != "f" or exact.shape != alone.shape or not exact.size:
            return
        first, second, third = (each.astype(np.float64) for each in (exact, alone, together))
        finite = np.isfinite(first) & (
            np.abs(first) < 1e30
        )  # a mask's infinities are not numbers that matter
        first, second, third = (np.where(finite, each, 0.0) for each in (first, second, third))
        self.counted = True
        self.exact += float((first**2).sum())
        self.alone += float(((second - first) ** 2).sum())
        self.together += float(((third - first) ** 2).sum())
        norms = np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
        if first.ndim and first.shape[-1] > 1 and (norms > 1e-8).any():
            cosines = (first * second).sum(axis=-1)[norms > 1e-8] / norms[norms > 1e-8]
            self.cosine = min(self.cosine, float(cosines.min()))

    @property
    def added(self) -> float:
        return math.sqrt(self.alone / self.exact) if self.exact else 0.0

    @property
    def gathered(self) -> float:
        return math.sqrt(self.together / self.exact) if self.exact else 0.0
