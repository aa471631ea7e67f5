"""convert(): the stages in their order."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter.errors import ParityError
from converter.records import ParityReport
from converter.request import SILENT, ConversionRequest, Progress
from converter.scratch import scratch_folder

if TYPE_CHECKING:
    from converter.made import Made
    from converter.parity.proof import Subject
    from converter.parity.verify import References
    from converter.precision.report import QuantizationReport
    from converter.records import Architecture, Checkpoint, ParityMode
    from converter.registry import Registry


@dataclass(frozen=True)
class Report:
    """What a conversion made: where, how long it took (seconds), what it took at most (bytes), and what parity said."""

    output: Path
    architecture: str
    task: str
    variants: tuple[str, ...]
    parity: ParityReport
    stages: tuple[tuple[str, float], ...]
    peak_memory: int
    files: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    quantization: QuantizationReport | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values only, ready for `json.dumps`."""
        added = None if self.quantization is None else self.quantization.to_json()
        return {**asdict(replace(self, quantization=None)), "output": str(self.output), "quantization": added}


@dataclass
class Ledger:
    """Times the stages as they run and tells the progress display about them."""

    progress: Progress
    stages: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        with self.progress.stage(name):
            yield
        self.stages.append((name, round(time.perf_counter() - start, 3)))


def convert(
    *, arch: str = "auto", model: str | Path | None = None, output: str | Path | None = None, **options: Any
) -> Report:
    """Convert a checkpoint into a verified ONNX package.

    `model` is a folder or a hub id, `output` the package folder; every other option is a field of
    `ConversionRequest`. Raises a ConverterError (see `converter.errors`); then nothing was written, unless it is
    about `precisions`: those come after the fp32 package, which stays.
    """
    request = ConversionRequest(
        arch=arch,
        model=None if model is None else str(model),
        output=None if output is None else Path(output),
        **options,
    )
    report = convert_request(request)
    if report.quantization is not None:
        report.quantization.require_passed()
    return report


def convert_request(request: ConversionRequest, progress: Progress = SILENT) -> Report:
    """As `convert`, with the request as a record and a display for the progress."""
    from converter.added import add_precisions, check_precisions, trace_halves
    from converter.extras import require_export
    from converter.packages.staging import check_target
    from converter.parity.runners import require_device
    from converter.registry import load_registry
    from converter.selection import find_source

    require_export()
    require_device(request.device)
    if request.output is not None:
        check_target(request.output, overwrite=request.overwrite)
    ledger = Ledger(progress)
    with ledger.stage("load plugins"):
        registry = load_registry()
    if registry.failures:
        progress.note(f"{len(registry.failures)} plugin(s) failed to load; `converter plugins` says why")
    if request.precisions:
        check_precisions(request, registry)
    with scratch_folder() as scratch:
        with ledger.stage("open checkpoint"):
            architecture, checkpoint = find_source(request, registry, scratch)
        report = _convert(request, registry, architecture, checkpoint, scratch, ledger)
        if request.precisions:
            subject = partial(settle, registry=registry, architecture=architecture, checkpoint=checkpoint)
            halves, notes = trace_halves(request, registry, subject, scratch, ledger)
            report = replace(report, notes=(*report.notes, *notes))
            report = add_precisions(report, request, halves, progress)
    return report


def choose_subject(request: ConversionRequest, registry: Registry, scratch: Path, ledger: Ledger) -> Subject:
    """What the request asks for. `scratch` takes a checkpoint that has to be made first."""
    from converter.selection import find_source

    with ledger.stage("open checkpoint"):
        architecture, checkpoint = find_source(request, registry, scratch)
    return settle(request, registry, architecture, checkpoint, ledger)


def settle(
    request: ConversionRequest,
    registry: Registry,
    architecture: Architecture,
    checkpoint: Checkpoint,
    ledger: Ledger,
) -> Subject:
    """Task and variants of what was found, from the checkpoint where the request leaves them open."""
    from converter.parity.proof import Subject  # brings torch
    from converter.selection import choose_variants, settle_task

    with ledger.stage("read config"):
        architecture, task = settle_task(request.task, architecture, checkpoint, registry)
        config = architecture.source.config(checkpoint)
        variants = choose_variants(request.variants, architecture, task)
    return Subject(architecture, checkpoint, config, task, variants, registry.metrics)


def _convert(
    request: ConversionRequest,
    registry: Registry,
    architecture: Architecture,
    checkpoint: Checkpoint,
    scratch: Path,
    ledger: Ledger,
) -> Report:
    from converter.packages.staging import stage_package
    from converter.parity.judging import judge_graphs
    from converter.parity.verify import choose_mode, failure

    target = request.target(checkpoint.source, architecture.name)
    mode, why = choose_mode(request.parity, checkpoint)
    with stage_package(
        target, overwrite=request.overwrite, keep_failed=request.keep_failed, source=checkpoint.root
    ) as staging:
        made, peak = _make(request, checkpoint, scratch, staging.folder / "onnx", mode, why, ledger)
        parity = made.parity or judge_graphs(
            request, registry, checkpoint, scratch, made.references, made.written.folder, why, ledger
        )
        report = _report(target, registry, made, parity, peak, ledger)
        report = _seal(request, registry, checkpoint, made, report, staging.folder)
        if not parity.passed:
            kept = "`converter bisect` finds the module that is wrong"
            dropped = "nothing was written; --keep-failed keeps the package beside the target"
            raise ParityError(failure(parity), remedy=kept if request.keep_failed else dropped)
    return report


def make_unjudged(
    request: ConversionRequest, checkpoint: Checkpoint, folder: Path, scratch: Path, progress: Progress
) -> References:
    """A package in the new folder `folder`, and in `scratch` what proves it, for those who judge by themselves.

    The record says that parity was not checked.
    """
    from converter.registry import load_registry

    ledger, registry = Ledger(progress), load_registry()
    made, peak = _make(request, checkpoint, scratch, folder / "onnx", "full", "", ledger)
    parity = ParityReport("off", "left to whoever asked")
    report = _report(folder, registry, made, parity, peak, ledger)
    _seal(request, registry, checkpoint, made, report, folder)
    return made.references


def _report(
    target: Path,
    registry: Registry,
    made: Made,
    parity: ParityReport,
    peak: int,
    ledger: Ledger,
) -> Report:
    return Report(
        output=target,
        architecture=made.architecture,
        task=made.task,
        variants=tuple(variant.name for variant in made.variants),
        parity=parity,
        stages=tuple(ledger.stages),
        peak_memory=max(peak, peak_memory()),
        notes=(*made.notes, *map(str, registry.overrides)),
    )


def _seal(
    request: ConversionRequest,
    registry: Registry,
    checkpoint: Checkpoint,
    made: Made,
    report: Report,
    folder: Path,
) -> Report:
    """Everything beside the graphs, the record last."""
    from converter.additions import PackageBuild
    from converter.packages.record import package_record
    from converter.packages.seal import seal_package

    record = package_record(request, checkpoint, report, made.variants, made.graphs)
    record["plugins"] = registry.strangers
    record |= {"stand_in": made.stand_in} if made.stand_in else {}
    build = PackageBuild(folder, record, checkpoint, registry.card_sections, previous=report.output)
    files, notes = seal_package(build, registry.package_files, known_hashes=made.written.hashes)
    return replace(report, files=files, notes=notes)


def _make(
    request: ConversionRequest,
    checkpoint: Checkpoint,
    scratch: Path,
    folder: Path,
    mode: ParityMode,
    why: str,
    ledger: Ledger,
) -> tuple[Made, int]:
    """The graphs, and the peak memory of whichever process made them."""
    from converter.apart import run_without_torch

    made, spent = run_without_torch(
        "converter.making:make_graphs",
        request,
        checkpoint,
        scratch,
        folder,
        mode,
        why,
        progress=ledger.progress,
    )
    ledger.stages += spent.stages
    return made, spent.peak_memory


def peak_memory() -> int:
    """Largest resident set of this process so far, in bytes; mapped pages count."""
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
