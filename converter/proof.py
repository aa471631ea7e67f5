"""One model through the stages that make graphs, and the proof that they compute what the original computes.

The proof of a model too large for this machine sends a two-layer sibling through these same stages.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter.build import BuildSettings, build_graphs, build_skeleton, select
from converter.checkpoint import open_checkpoint
from converter.records import (
    Architecture,
    Checkpoint,
    Comparison,
    Component,
    ExportedGraph,
    ParityMode,
    ParityReport,
    Variant,
)
from converter.skeleton import load_buffers
from converter.verify import fits_in_memory, run_parity, verdict
from converter.writing import Written, write_graphs

if TYPE_CHECKING:
    from converter.pipeline import Ledger
    from converter.registry import Registry
    from converter.request import ConversionRequest


@dataclass(frozen=True)
class Subject:
    """What is being converted: one checkpoint of one architecture, for one task, as some variants."""

    architecture: Architecture
    checkpoint: Checkpoint
    config: Any
    task: str
    variants: tuple[Variant, ...]

    @property
    def stems(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(stem for variant in self.variants for stem in variant.stems))

    def components(self) -> list[Component]:
        """The chosen components, for the whole depth of the model."""
        return select(self.architecture.components(self.config, self.task), self.stems)


@dataclass(frozen=True)
class Made:
    """Graphs, written, with notes for the user."""

    graphs: tuple[ExportedGraph, ...]
    written: Written
    notes: tuple[str, ...]


def build_and_write(
    request: ConversionRequest,
    registry: Registry,
    subject: Subject,
    folder: Path,
    ledger: Ledger,
    *,
    check: bool = False,
) -> Made:
    """Skeleton, traces, passes, weights: the graphs of `subject` in `folder`. `check` re-reads what was stored."""
    architecture, task = subject.architecture, subject.task
    with ledger.stage("build skeleton"):
        skeleton = build_skeleton(architecture, subject.config, task)
        mapping = architecture.source.key_mapping(skeleton, subject.checkpoint)
        load_buffers(skeleton, mapping)
    built = build_graphs(
        architecture,
        skeleton,
        subject.config,
        task,
        subject.stems,
        build_settings(request),
        registry.passes,
        ledger.stage,
    )
    written = write_graphs(
        built.graphs,
        mapping,
        folder,
        external_data=request.external_data,
        check=check,
        on_stage=ledger.stage,
        advance=ledger.progress.advance,
    )
    return Made(built.graphs, written, (*built.notes, *surplus(subject.checkpoint, written.used)))


def surplus(checkpoint: Checkpoint, used: frozenset[str]) -> tuple[str, ...]:
    """A note naming the checkpoint's tensors that no graph uses, if there are any: heads of other tasks, old buffers."""
    unused = sorted(set(checkpoint.tensors) - used)
    if not unused:
        return ()
    named = ", ".join(unused[:3]) + (", ..." if len(unused) > 3 else "")
    return (f"{len(unused)} of {len(checkpoint.tensors)} checkpoint tensors are in no graph: {named}",)


def build_settings(request: ConversionRequest) -> BuildSettings:
    sizes = {"batch_size": request.batch_size, "sequence_length": request.sequence_length}
    return BuildSettings(
        dtype=request.dtype,
        opset=request.opset,
        stamp=request.stamp,
        post_process=request.post_process,
        sizes={name: size for name, size in sizes.items() if size is not None},
    )


def prove(
    request: ConversionRequest,
    registry: Registry,
    subject: Subject,
    made: Made,
    choice: tuple[ParityMode, str],
    ledger: Ledger,
) -> ParityReport:
    """Run the parity chosen (`choose_mode`). `off` proves nothing, and the report says so."""
    mode, why = choice
    if mode == "off":
        return ParityReport(mode, why)
    if mode == "structural":
        rows = _structural(request, registry, subject, ledger)
    else:
        rows = _full(request, subject, made.written.files, ledger)
    return verdict(mode, why, rows, made.written.tensors_checked)


def prove_package(request: ConversionRequest, subject: Subject, folder: Path, ledger: Ledger) -> ParityReport:
    """Full parity of graphs that are already written."""
    files = {stem: folder / f"{stem}.onnx" for stem in subject.stems}
    return verdict("full", "asked for", _full(request, subject, files, ledger))


def recorded_request(record: Mapping[str, Any]) -> ConversionRequest:
    """The request a package was made by, as far as its record keeps it: never the checkpoint's place."""
    from converter.request import ConversionRequest

    settings = dict(record["settings"])
    settings["variants"] = tuple(record["variants"])
    return ConversionRequest(
        **{**settings, "arch": record["architecture"], "task": record["task"], "tiny": False}
    )


def _full(
    request: ConversionRequest, subject: Subject, files: Mapping[str, Path], ledger: Ledger
) -> tuple[Comparison, ...]:
    with tempfile.TemporaryDirectory(prefix="converter-offload-") as scratch:
        return run_parity(
            subject.architecture,
            subject.components(),
            subject.checkpoint,
            subject.task,
            files,
            dtype=request.dtype,
            seed=request.seed,
            atol=request.atol,
            device=request.device,
            offload=None if fits_in_memory(subject.checkpoint) else Path(scratch),
            on_stage=ledger.stage,
        )


def _structural(
    request: ConversionRequest, registry: Registry, subject: Subject, ledger: Ledger
) -> tuple[Comparison, ...]:
    """A small sibling, same config but for its sizes, with random weights, through every stage and full parity."""
    with tempfile.TemporaryDirectory(prefix="converter-structural-") as scratch:
        folder = Path(scratch) / "checkpoint"
        source = subject.architecture.source
        source.write_tiny(folder, like=subject.config, seed=request.seed, task=subject.task)
        checkpoint = open_checkpoint(folder, trust_remote_code=request.trust_remote_code)
        small = replace(subject, checkpoint=checkpoint, config=source.config(checkpoint))
        made = build_and_write(request, registry, small, Path(scratch) / "onnx", ledger)
        return _full(request, small, made.written.files, ledger)


def failure(report: ParityReport) -> str:
    """The worst failing comparison of each component, in words."""
    failed = [row for row in report.comparisons if not row.passed]
    worst = sorted(failed, key=lambda row: -row.max_abs)[:3]
    lines = [
        f"{row.component} {row.output} at {row.size}: {row.pair} differ by {row.max_abs:.2e} (cosine {row.cosine:.6f})"
        for row in worst
    ]
    return f"parity failed in {len(failed)} of {len(report.comparisons)} comparisons:\n  " + "\n  ".join(
        lines
    )
