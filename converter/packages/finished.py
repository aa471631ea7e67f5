"""Finished packages, proven again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from converter.apart import run_without_torch
from converter.extras import require_export
from converter.packages.package import inspect_package
from converter.packages.record import recorded_request
from converter.parity.drawing import MANY
from converter.parity.judging import judge_graphs
from converter.parity.metrics import Terms
from converter.parity.reduced import compare_precisions
from converter.pipeline import Ledger
from converter.records import ParityReport
from converter.registry import load_registry
from converter.request import SILENT, Progress
from converter.scratch import scratch_folder
from converter.selection import find_source


def verify_package(
    package: Path,
    model: str,
    progress: Progress = SILENT,
    *,
    base_model: str | None = None,
    seed: int = 0,
) -> ParityReport:
    """Prove a finished package against a checkpoint: intact files first, then full parity at sizes from `seed`.

    Graphs of other precisions are held to what rounding may cost (`converter.parity.reduced`). `base_model` goes with
    an adapter, as in a conversion. Raises PackageError when a file is missing or altered. Graphs that do not compute
    what the checkpoint's model computes are what the report is for: it has not `passed`.
    """
    require_export()
    ledger = Ledger(progress)
    with ledger.stage("check files"):
        info = inspect_package(package)
        info.require_intact()
    registry = load_registry()
    recorded = recorded_request(info.record)
    request = replace(recorded, model=model, base_model=base_model, parity="full", seed=seed)
    with scratch_folder() as scratch:
        with ledger.stage("open checkpoint"):
            _, checkpoint = find_source(request, registry, scratch)
        references, _ = run_without_torch(
            "converter.making:make_references", request, checkpoint, scratch, MANY, progress=progress
        )
        folder, asked = package / "onnx", "asked for"
        report = judge_graphs(request, registry, checkpoint, scratch, references, folder, asked, ledger)
        rows = compare_precisions(
            references.files,
            folder,
            {name: registry.precisions.get(name) for name in info.record.get("precisions", {})},
            Terms(registry.metrics),
            ledger.stage,
        )
    return replace(report, comparisons=(*report.comparisons, *rows))
