"""Precisions at the end of a conversion: checked before it starts, added once fp32 is proven."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from converter.errors import ExportError, WeightError
from converter.request import ConversionRequest, Progress

if TYPE_CHECKING:
    from converter.parity.proof import Subject
    from converter.pipeline import Ledger, Report
    from converter.records import ExportedGraph
    from converter.registry import Registry


def check_precisions(request: ConversionRequest, registry: Registry) -> None:
    """Raise UsageError for precisions, options or samples that cannot be used, before any long work."""
    from converter.precision.catalogue import choose_precisions
    from converter.precision.planning import all_plans
    from converter.precision.settings import Settings

    settings = Settings.of(**request.quantization)
    all_plans(choose_precisions(request.precisions, registry.precisions), settings)
    settings.samples()


def check_graphs(request: ConversionRequest, registry: Registry, graphs: Sequence[ExportedGraph]) -> None:
    """Raise UsageError for a precision that traced graphs cannot have, before weights are written and proven."""
    from converter.precision.catalogue import choose_precisions, require_matrices
    from converter.precision.planning import plans_of
    from converter.precision.products import products
    from converter.precision.settings import Settings

    settings = Settings.of(**request.quantization)
    found = any(True for graph in graphs for _ in products(graph.model))
    for precision in choose_precisions(request.precisions, registry.precisions):
        require_matrices(precision.name, plans_of(precision, settings), found=found)


def trace_halves(
    request: ConversionRequest,
    registry: Registry,
    subject: Callable[..., Subject],
    scratch: Path,
    ledger: Ledger,
) -> tuple[Path | None, tuple[str, ...]]:
    """Where fp16 is asked for: the graphs traced in fp16, as scratch. What torch cannot trace so gets a note.

    `subject` settles task and variants of the checkpoint for a request and a ledger.
    """
    from converter.parity.proof import Job

    if "fp16" not in request.precisions:
        return None, ()
    folder = scratch / "halves"
    wanted = replace(request, dtype="fp16", precisions=(), quantization={})
    try:
        Job(wanted, registry, subject(wanted, ledger=ledger), ledger).make(folder)
    except (ExportError, WeightError) as error:
        return None, (f"fp16 is made from the fp32 graphs, since tracing in fp16 failed: {error.message}",)
    return folder, ()


def add_precisions(
    report: Report, request: ConversionRequest, halves: Path | None, progress: Progress
) -> Report:
    """The same package with graphs of other precisions, each judged; the report says which were kept."""
    from converter.precision.quantize import quantize_package
    from converter.precision.settings import Settings

    added = quantize_package(
        report.output,
        request.precisions,
        settings=Settings.of(**request.quantization, keep_failed=request.keep_failed),
        halves=halves,
        progress=progress,
    )
    sizes = {
        f"onnx/{name}": size
        for row in added.rows
        if row.name in added.kept
        for name, size in row.files.items()
    }
    return replace(report, quantization=added, files={**report.files, **sizes})
