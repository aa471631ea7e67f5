"""What converter.json says: source, settings, graphs, parity, cost. Plain values, no decisions."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from converter.card.front_matter import read_source_card
from converter.errors import PackageError
from converter.records import Checkpoint, Comparison, ExportedGraph, ParityReport, Variant
from converter.request import ConversionRequest

if TYPE_CHECKING:
    from converter.pipeline import Report

PACKAGES = (
    "converter",
    "torch",
    "transformers",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "safetensors",
)


def package_record(
    request: ConversionRequest,
    checkpoint: Checkpoint,
    report: Report,
    variants: Sequence[Variant],
    graphs: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything a reader needs to make this package again and to trust it."""
    return {
        "architecture": report.architecture,
        "task": report.task,
        "source": {
            "name": checkpoint.source,
            "revision": checkpoint.revision,
            "tensors": len(checkpoint.tensors),
            **read_source_card(checkpoint.root if checkpoint.adapter is None else checkpoint.adapter.folder),
            **_base(checkpoint),
            **_own_config(checkpoint),
        },
        "versions": versions(),
        "settings": settings_of(request),
        "variants": {
            variant.name: {
                "summary": variant.summary,
                "graphs": {stem: graphs[stem] for stem in variant.stems},
            }
            for variant in variants
        },
        "parity": parity_record(report.parity),
        "stages": [{"name": name, "seconds": seconds} for name, seconds in report.stages],
        "peak_memory_bytes": report.peak_memory,
        "notes": list(report.notes),
    }


def _base(checkpoint: Checkpoint) -> dict[str, Any]:
    adapter = checkpoint.adapter
    return {} if adapter is None else {"base": {"name": adapter.base, "revision": adapter.base_revision}}


def _own_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """The config of a checkpoint that has no config.json for the package to carry: its architecture reads another."""
    if (checkpoint.folder / "config.json").is_file():
        return {}
    try:
        return {"config": json.loads(json.dumps(dict(checkpoint.config)))}
    except (TypeError, ValueError):  # a plugin's own values
        return {}


def settings_of(request: ConversionRequest) -> dict[str, Any]:
    """The request without what names this machine or its user: paths, token, cache."""
    private = {"model", "base_model", "output", "output_parent", "token", "cache_dir", "overwrite"}
    return {name: value for name, value in asdict(request).items() if name not in private}


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def parity_record(report: ParityReport) -> dict[str, Any]:
    """The verdict, the worst of each output and pair, and of each size and pair, and every size that was tried."""
    worst = _worst(report.comparisons, lambda row: (row.component, row.output, row.pair))
    farthest = _worst(report.comparisons, lambda row: (row.component, row.size, row.pair))
    names = ("component", "size", "pair", "output", "max_abs", "cosine", "passed")
    return {
        "mode": report.mode,
        "why": report.why,
        "passed": report.proven,
        "tensors_checked": report.tensors_checked,
        "sizes": sorted({f"{row.component}: {row.size}" for row in report.comparisons}),
        "warnings": list(report.warnings),
        "worst": [asdict(row) for row in worst],
        "by_size": [{name: getattr(row, name) for name in names} for row in farthest],
    }


def _worst(rows: Iterable[Comparison], key: Callable[[Comparison], Hashable]) -> Iterable[Comparison]:
    """Of the rows of one key the one that fails or else differs most; the first of equals."""
    worst: dict[Hashable, Comparison] = {}
    for row in rows:
        other = worst.setdefault(key(row), row)
        if (row.passed, -row.max_abs) < (other.passed, -other.max_abs):
            worst[key(row)] = row
    return worst.values()


def describe_graphs(graphs: Sequence[ExportedGraph]) -> dict[str, Any]:
    """Inputs, outputs, opset and node count of each graph, by stem."""
    return {
        graph.stem: {
            "file": f"onnx/{graph.stem}.onnx",
            "inputs": [describe_value(value) for value in graph.model.graph.inputs],
            "outputs": [describe_value(value) for value in graph.model.graph.outputs],
            "opset": graph.model.opset_imports.get("", 0),
            "ir_version": graph.model.ir_version,
            "nodes": sum(1 for _ in ir.traversal.RecursiveGraphIterator(graph.model.graph)),
        }
        for graph in graphs
    }


def describe_value(value: ir.Value) -> dict[str, Any]:
    """Name, dtype and shape of a graph input or output, for the package's record."""
    shape = (
        []
        if value.shape is None
        else [dim if isinstance(dim, int) else str(dim.value) for dim in value.shape]
    )
    return {"name": value.name, "dtype": str(value.dtype), "shape": shape}


def recorded_request(record: Mapping[str, Any]) -> ConversionRequest:
    """The request a package was made by, as far as its record keeps it: never the checkpoint's place."""
    settings = dict(record["settings"])
    # Until quantization had options of its own, these two were the request's.
    older = {name: settings.pop(name) for name in ("keep", "prefer") if name in settings}
    settings["quantization"] = {**older, **settings.get("quantization", {})}
    settings["variants"] = tuple(record["variants"])
    if unknown := sorted(set(settings) - {entry.name for entry in fields(ConversionRequest)}):
        raise PackageError(
            f"converter.json has settings that this version does not know: {', '.join(unknown)}",
            remedy="use the version that made the package (`versions` in converter.json), or convert again",
        )
    return ConversionRequest(**{**settings, "arch": maker_of(record), "task": record["task"], "tiny": False})


def maker_of(record: Mapping[str, Any]) -> str:
    """What `--arch` names whoever made a package: who stood in is not the owner of the checkpoint's model type."""
    return str(record.get("stand_in") or record.get("architecture") or "")
