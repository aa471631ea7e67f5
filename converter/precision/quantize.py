"""A package gets graphs in other precisions. What misses its budget is not kept, and the rest stays as it was."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converter.additions import PackageBuild, Precision
from converter.errors import PackageError, UsageError, WeightError
from converter.packages.package import PackageInfo, inspect_package
from converter.packages.seal import seal_package
from converter.packages.staging import stage_package
from converter.precision.catalogue import choose_precisions, require_matrices
from converter.precision.foreign import as_package
from converter.precision.formats import Plan
from converter.precision.judge import Judge
from converter.precision.latency import Stopwatch
from converter.precision.planning import (
    BUILT_IN,
    Calibrated,
    all_plans,
    plans_of,
    recorded_calibration,
    require_matrices_of,
)
from converter.precision.report import UNJUDGED, PrecisionRow, QuantizationReport
from converter.precision.search import Choice, Trial, choose_plan
from converter.precision.sessions import ONNX
from converter.precision.settings import Settings
from converter.precision.statistics import Statistics
from converter.precision.workbench import Candidate, Workbench, copy_files, workbench
from converter.registry import Registry, load_registry
from converter.request import SILENT, Progress

_HALF = 65504.0  # the largest number of fp16
_UNUSED = "--calibration changed nothing: no activation in it is calibrated, --static does that"


class _NothingKeptError(Exception):
    """Leaves the staging of a package none of whose precisions is kept."""


def quantize_package(
    package: Path,
    precisions: Sequence[str] = ("q8",),
    *,
    output: Path | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
    settings: Settings | None = None,
    halves: Path | None = None,
    **options: Any,
) -> QuantizationReport:
    """Add precisions to a package, or to a copy of it at `output`, in one step once they are judged.

    `package` may be an .onnx file of anybody's: then `output` is a new package around it. `halves` is a folder with
    the same graphs traced in fp16, where a conversion made them; else fp16 is converted. `options` are fields of
    `Settings` and `Tuning` (`keep="cosine=0.999"`, `static="minmax"`), in place of `settings`. A precision that misses
    its budget is in the report and, without `keep_failed`, not in the package: see
    `QuantizationReport.require_passed`. Raises UsageError for what cannot be asked for and for a package nothing can
    be judged by, PackageError for one that is damaged. What was there before stays.
    """
    settings, registry = settings or Settings.of(**options), load_registry()
    chosen, given = choose_precisions(precisions, registry.precisions), settings.samples()
    all_plans(chosen, settings)  # what cannot be made is refused before anything is read or copied
    with _as_folder(package, output) as source:
        info = inspect_package(source)
        info.require_intact()
        stems, beside = main_stems(info.record), output is not None
        report = QuantizationReport(output or source, (), ())
        with (
            suppress(_NothingKeptError),
            stage_package(
                report.output, overwrite=overwrite or not beside, source=source if beside else None
            ) as staging,
        ):
            copy_files(source, staging.folder, linked=not beside)
            with workbench(staging.folder, stems, halves) as bench:
                rows = _Work(bench, info.record, settings, given, progress).add(chosen, staging.folder)
            kept = tuple(row.name for row in rows if row.files and (row.passed or settings.keep_failed))
            report = QuantizationReport(report.output, rows, kept)
            if not kept:
                raise _NothingKeptError
            _seal(info, staging.folder, report, registry)
    return report


def _as_folder(package: Path, output: Path | None) -> AbstractContextManager[Path]:
    """The package's folder, or a temporary one around an .onnx file."""
    if not package.is_file():
        return nullcontext(package)
    if output is None:
        raise UsageError(f"{package} is a file", remedy="name the folder of the new package with --output")
    return as_package(package)


def main_stems(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The graphs precisions are made of. Raises UsageError where the main graphs are not fp32."""
    dtype = record.get("settings", {}).get("dtype", "fp32")
    if dtype != "fp32":
        raise UsageError(
            f"the package's graphs are {dtype}, and precisions are made from fp32",
            remedy="convert with --dtype fp32 first",
        )
    stems = [stem for variant in record.get("variants", {}).values() for stem in variant.get("graphs", {})]
    if not stems:
        raise PackageError("the package's record names no graph", remedy="convert again")
    return tuple(dict.fromkeys(stems))


@dataclass
class _Work:
    """Precisions of one package, one after the other, with what all of them share."""

    bench: Workbench
    record: Mapping[str, Any]
    settings: Settings
    given: tuple[Any, Any]
    progress: Progress
    judge: Judge | None = None
    watch: Stopwatch | None = None
    observed: tuple[Any, ...] = ()

    def add(self, precisions: Sequence[Precision], folder: Path) -> tuple[PrecisionRow, ...]:
        """Write precisions into `folder`, those that are kept; one that was there stays where its successor misses."""
        plans = all_plans(precisions, self.settings)
        calibrated = any(isinstance(plan, Plan) and plan.calibrates for plan in plans)
        if not self.settings.unjudged or calibrated:
            with self.progress.stage("run fp32 on the evaluation inputs"):
                self._find_judge()
        rows = []
        for precision in precisions:
            candidate = Candidate(precision.suffix)
            with self.progress.stage(f"make {precision.name}"):
                row = self._make(precision, candidate)
            if row.files and (row.passed or self.settings.keep_failed):
                self.bench.install(candidate, folder)
            else:
                self.bench.remove(candidate)
            rows.append(row)
        return tuple(rows)

    def _find_judge(self) -> None:
        first, second = self.given
        self.judge = Judge.of(
            self.bench.folder,
            self.record,
            self.bench.stems,
            calibration=first,
            evaluation=second,
            count=self.settings.num_samples,
            preprocess=self.settings.preprocess,
            keep=self.settings.bounds,
        )
        self.watch = self.judge.stopwatch()

    def _make(self, precision: Precision, candidate: Candidate) -> PrecisionRow:
        plans = plans_of(precision, self.settings)
        require_matrices(precision.name, plans, found=bool(self.bench.modules))
        if self.settings.recipe is not None:
            require_matrices_of(plans[0], [name for name, _ in self.bench.modules])
        recorded = recorded_calibration(self.settings.recipe, precision.name)
        calibration = self._calibrate(plans, recorded)
        plans = self._reached(plans)
        judge = None if self.settings.unjudged else self.judge
        budget: dict[str, float] = {}
        if judge is not None:
            budget = judge.budget(self.settings.bounds or precision.budget)
        notes = [UNJUDGED if judge is None else f"judged on {judge.about}"]
        looked_at = calibration is not None or getattr(plans[0], "half", False)
        if self.settings.calibration and len(plans) == 1 and not looked_at:
            notes.append(f"{precision.name}: {_UNUSED}")
        if before := recorded.differs(calibration):
            notes.append(f"{precision.name}: the recipe was made by calibration on {before}")
        try:
            choice = self._choose(plans, budget, candidate, judge)
            if choice.cut:
                notes.append(f"{precision.name}: the search ended after {self.settings.minutes:g} minutes")
            self.bench.write(candidate, choice.plan)
        except WeightError as error:
            self.bench.remove(candidate)
            return PrecisionRow(precision.name, {}, {}, 0.0, None, budget, plans[0], refused=error.message)
        row = PrecisionRow(
            precision.name,
            files=candidate.files,
            hashes=candidate.hashes,
            ratio=candidate.nbytes / self.bench.whole,
            quality=None if judge is None else judge.evaluate(candidate.suffix),
            budget=budget,
            plan=choice.plan,
            tried=choice.trials,
            latency=None if judge is None or self.watch is None else self.watch.measure(candidate.suffix),
            calibration=calibration,
            notes=tuple(notes),
            refused=self._refused(choice.plan, candidate),
        )
        return (
            self._checked_for_overflow(row)
            if judge is not None and getattr(choice.plan, "half", False)
            else row
        )

    def _refused(self, plan: Any, candidate: Candidate) -> str:
        """A copy of fp32 keeps any budget, and is nobody's precision."""
        copied = isinstance(plan, Plan) and plan.keeps_matrices and candidate.nbytes > 0.99 * self.bench.whole
        return "nothing smaller than fp32 keeps the budget on the choosing samples" if copied else ""

    def _checked_for_overflow(self, row: PrecisionRow) -> PrecisionRow:
        """Halves hold up to 65504: what the fp32 graphs multiply on the calibration inputs must stay below."""
        statistics = self.bench.statistics or self._observe(Statistics(self.bench.points()))
        largest = max((float(peaks.max()) for peaks in statistics.peaks.values()), default=0.0)
        seen = f"the largest activation that enters a matrix is {largest:.4g}, fp16 ends at {_HALF:g}"
        note = (
            f"{row.name}: {seen if statistics.peaks else 'no activation that enters a matrix could be seen'}"
        )
        refused = (
            f"an activation of {largest:.4g} is beyond fp16, which ends at {_HALF:g}"
            if largest > _HALF
            else ""
        )
        made = "traced in fp16" if self.bench.is_traced(row.plan) else "converted from the fp32 graph"
        return replace(row, notes=(*row.notes, note, f"{row.name}: {made}"), refused=refused)

    def _observe(self, statistics: Statistics, count: int | None = None) -> Statistics:
        """What enters each matrix of the fp32 graphs on the calibration samples; looked at once in each way."""
        assert self.judge is not None
        way = (statistics.method, statistics.symmetric, count)
        if self.bench.statistics is None or self.observed != way:
            self.judge.observe(statistics, count)
            self.bench.statistics, self.observed = statistics, way
        return self.bench.statistics

    def _choose(
        self, plans: Sequence[Any], budget: Mapping[str, float], candidate: Candidate, judge: Judge | None
    ) -> Choice:
        """The plan; what is tried on the way lies where the candidate will."""
        if judge is None or self.settings.recipe is not None:
            return Choice(plans[0])
        settings, watch = self.settings, self.watch
        end = time.monotonic() + 60 * settings.minutes

        def measure(plan: Any, *, quick: bool = False) -> Trial:
            self.bench.write(candidate, plan)
            quality = judge.rehearse(candidate.suffix, quick=quick)
            timed = settings.prefer == "speed" and watch is not None and not quick
            speed = watch.measure(candidate.suffix).both if timed and watch is not None else None
            return Trial(plan, candidate.nbytes, quality, speed)

        return choose_plan(
            plans,
            budget,
            self.bench.modules,
            measure,
            self.progress.advance,
            prefer=settings.prefer,
            limit=settings.limit(self.bench.whole),
            over=lambda: time.monotonic() > end,
        )

    def _reached(self, plans: Sequence[Any]) -> list[Any]:
        """Without plans by what enters a matrix where that cannot be seen, as in branches; all if no other is left."""
        statistics = self.bench.statistics
        blind = statistics is not None and any(not statistics.saw(name) for name, _ in self.bench.modules)
        left = [plan for plan in plans if not (blind and isinstance(plan, Plan) and plan.calibrates)]
        return left or list(plans)

    def _calibrate(self, plans: Sequence[Any], recorded: Calibrated) -> dict[str, Any] | None:
        """Let the plans that want it know what enters each matrix on the calibration samples.

        By the method that is `recorded` with a recipe, else by the one that is asked for.
        """
        calibrating = [plan for plan in plans if isinstance(plan, Plan) and plan.calibrates]
        if not calibrating:
            return None
        method = recorded.method or self.settings.tuning.static or "minmax"
        symmetric, count = any(plan.symmetric for plan in calibrating), recorded.count(self.settings)
        statistics = self._observe(Statistics(self.bench.points(), method, symmetric), count)
        assert self.judge is not None
        source = self.settings.calibration or BUILT_IN
        return {
            **statistics.to_json(),
            "samples": len(self.judge.calibration[:count]),
            "source": Path(source).name,
        }


def _seal(info: PackageInfo, folder: Path, report: QuantizationReport, registry: Registry) -> None:
    """The package's record with what was made, and the files that say so, written anew."""
    rows = [row for row in report.rows if row.name in report.kept]
    made = {f"{ONNX}/{name}": digest for row in rows for name, digest in row.hashes.items()}
    hashes = {name: entry["sha256"] for name, entry in info.record["files"].items()}
    record = report.entered(info.record)
    build = PackageBuild(folder, record, sections=registry.card_sections, previous=info.folder)
    known = {name: digest for name, digest in {**hashes, **made}.items() if name.startswith(f"{ONNX}/")}
    seal_package(build, registry.package_files, known_hashes=known)
