"""One model through the stages that make graphs, and the proof that they compute what the original computes.

The proof of a model too large for this machine sends a two-layer sibling through these same stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter.added import check_graphs
from converter.additions import Metric
from converter.apart import Apart
from converter.checkpoint import open_for
from converter.checkpoints.lora import require_applied
from converter.checkpoints.own_code import blame_own_code, code_left_alone
from converter.errors import WeightError
from converter.made import Made
from converter.packages.record import describe_graphs
from converter.parity.drawing import FEW
from converter.parity.judging import look_at
from converter.parity.metrics import Terms
from converter.parity.verify import References, compare_graphs, save_references, verdict
from converter.records import (
    Architecture,
    Checkpoint,
    Component,
    ParityMode,
    ParityReport,
    Variant,
)
from converter.request import ConversionRequest
from converter.scenario import Scenario
from converter.scratch import scratch_folder
from converter.sentence_modules import left_to_clients
from converter.tracing.build import BuildSettings, Built, build_graphs, build_skeleton, select
from converter.tracing.skeleton import load_buffers
from converter.weights.writing import Pending, Written, bind_graphs, write_and_check, write_graphs

if TYPE_CHECKING:
    from converter.pipeline import Ledger
    from converter.recipes import WeightRecipe
    from converter.registry import Registry


@dataclass(frozen=True)
class Subject:
    """What is being converted: one checkpoint of one architecture, for one task, as some variants.

    `metrics` are those that plugins registered; components name the ones that judge them.
    """

    architecture: Architecture
    checkpoint: Checkpoint
    config: Any
    task: str
    variants: tuple[Variant, ...]
    metrics: Mapping[str, Metric]

    @property
    def stems(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(stem for variant in self.variants for stem in variant.stems))

    def scenarios(self) -> list[Scenario]:
        """Those whose components are all among the chosen ones."""
        declared = self.architecture.scenarios(self.config, self.task)
        return [scenario for scenario in declared if scenario.stems <= set(self.stems)]

    def components(self) -> list[Component]:
        """The chosen components, for the whole depth of the model, with all that judges them."""
        chosen = select(self.architecture.components(self.config, self.task), self.stems)
        shared = self.architecture.judged_by
        return [replace(entry, judged_by=(*entry.judged_by, *shared)) for entry in chosen]


@dataclass(frozen=True)
class Planned:
    """Graphs without weights, where each parameter comes from, and the checkpoint tensors that are buffers."""

    built: Built
    mapping: Mapping[str, WeightRecipe]
    buffers: frozenset[str]


@dataclass(frozen=True)
class Job:
    """One conversion on its way: what is asked for, of what, with which plugins, told to whom."""

    request: ConversionRequest
    registry: Registry
    subject: Subject
    ledger: Ledger

    def run(self, folder: Path, scratch: Path, mode: ParityMode, why: str) -> Made:
        """Make the graphs in `folder`, and prove them or leave what proves them in `scratch`.

        `off` proves nothing, and the report says so.
        """
        if mode == "structural":
            return self._run_structural(folder, why)
        made = self.make(folder)
        if mode == "off":
            return replace(made, parity=ParityReport(mode, why))
        return replace(made, references=self.run_original(scratch))

    def run_original(self, scratch: Path, drawn: int = FEW) -> References:
        """What the original and the wrappers compute, as files in `scratch`, also at `drawn` random sizes."""
        subject = self.subject
        return save_references(
            subject.architecture,
            subject.components(),
            subject.checkpoint,
            subject.task,
            scratch,
            seed=self.request.seed,
            scenarios=subject.scenarios() if self.request.dtype == "fp32" else (),
            drawn=drawn,
            on_stage=self.ledger.stage,
        )

    def _run_structural(self, folder: Path, why: str) -> Made:
        """The weights are written, and read back, by another process while the sibling is traced here."""
        planned, ledger = self.plan(), self.ledger
        pending = self._bind(planned, folder)
        if pending.plan is None:
            proven = self._prove_sibling()
            written = pending.finish(None, ledger.stage, check=True)
        else:
            with Apart(write_and_check, pending.plan) as writer:
                proven = self._prove_sibling()
                with ledger.stage("write and check weights"):
                    layout, checked = writer.result(ledger.progress)
            written = pending.finish(layout, ledger.stage, checked=checked)
        parity = replace(proven, why=why, tensors_checked=written.tensors_checked)
        return replace(self._made(planned, written), parity=parity)

    def make(self, folder: Path) -> Made:
        """Skeleton, traces, passes, weights, one after the other."""
        planned = self.plan()
        written = write_graphs(self._bind(planned, folder), self.ledger.stage, self.ledger.progress.advance)
        return self._made(planned, written)

    def plan(self) -> Planned:
        """The graphs, with recipes where weights will be."""
        subject, architecture = self.subject, self.subject.architecture
        with self.ledger.stage("build skeleton"):
            skeleton = build_skeleton(architecture, subject.config, subject.task)
            mapping = architecture.source.key_mapping(skeleton, subject.checkpoint)
            require_applied(subject.checkpoint, mapping)
            buffers = load_buffers(skeleton, mapping)
        built = build_graphs(
            architecture,
            skeleton,
            subject.config,
            subject.task,
            subject.stems,
            build_settings(self.request),
            self.registry.passes,
            self.ledger.stage,
        )
        if self.request.precisions:
            check_graphs(self.request, self.registry, built.graphs)
        return Planned(built, mapping, buffers)

    def _bind(self, planned: Planned, folder: Path) -> Pending:
        try:
            return bind_graphs(
                planned.built.graphs,
                planned.mapping,
                folder,
                external_data=self.request.external_data,
                apart=all(len(variant.stems) > 1 for variant in self.subject.variants),
            )
        except WeightError as error:
            raise blame_own_code(error, self.subject.checkpoint) from error

    def _made(self, planned: Planned, written: Written) -> Made:
        subject, described = self.subject, describe_graphs(planned.built.graphs)
        unused = surplus(subject.checkpoint, written.used | planned.buffers)
        left = (*code_left_alone(subject.checkpoint), *left_to_clients(subject.checkpoint.root))
        notes = (*planned.built.notes, *unused, *left)
        maker = subject.architecture
        return Made(maker.name, maker.stands_in, subject.task, subject.variants, written, described, notes)

    def _prove_sibling(self) -> ParityReport:
        """A small sibling, same config but for its sizes, random weights, through every stage and full parity."""
        subject = self.subject
        with scratch_folder() as scratch:
            folder = scratch / "checkpoint"
            source = subject.architecture.source
            source.write_tiny(folder, like=subject.config, seed=self.request.seed, task=subject.task)
            checkpoint = replace(
                open_for(subject.architecture, folder), trust_remote_code=self.request.trust_remote_code
            )
            small = replace(subject, checkpoint=checkpoint, config=source.config(checkpoint))
            job = replace(self, subject=small)
            made = job.make(scratch / "onnx")
            graphs, references = made.written.folder, job.run_original(scratch)
            report = job.compare(graphs, references)
            if report.passed:
                return report
            closer = look_at(
                self.request, small, graphs, scratch, references.files, report.comparisons, self.ledger
            )
            return closer.report(report)

    def compare(self, folder: Path, references: References) -> ParityReport:
        """The graphs in a folder with what they should compute."""
        request, ledger = self.request, self.ledger
        terms = terms_of(request, self.subject)
        found = compare_graphs(references.files, folder, terms, device=request.device, on_stage=ledger.stage)
        return verdict("structural", "", found, warnings=references.warnings)


def surplus(checkpoint: Checkpoint, used: frozenset[str]) -> tuple[str, ...]:
    """A note naming the checkpoint's tensors that no graph uses, if there are any: other heads, old buffers."""
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
        optimize=request.optimize,
        sizes={name: size for name, size in sizes.items() if size is not None},
    )


def terms_of(request: ConversionRequest, subject: Subject) -> Terms:
    """What the outputs of this conversion are judged by."""
    return Terms(subject.metrics, request.dtype, request.atol)
