"""Making the precisions of one package: plans are tried on a workbench, the one that is chosen is judged."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converter.additions import Precision
from converter.errors import WeightError
from converter.precision.catalogue import require_matrices
from converter.precision.formats import Plan
from converter.precision.grids import trained_for
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
from converter.precision.report import UNJUDGED, PrecisionRow
from converter.precision.search import Choice, Trial, choose_plan
from converter.precision.settings import Settings
from converter.precision.statistics import Statistics
from converter.precision.workbench import Candidate, Workbench
from converter.request import Progress

_HALF = 65504.0  # the largest number of fp16
_UNUSED = "--calibration changed nothing: no activation in it is calibrated, --static does that"


@dataclass
class Work:
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
        reached = self._reached(plans)
        plans = self._fitting(reached)
        judge = None if self.settings.unjudged else self.judge
        budget: dict[str, float] = {}
        if judge is not None:
            budget = judge.budget(self.settings.bounds or precision.budget)
        notes = [UNJUDGED if judge is None else f"judged on {judge.about}"]
        looked_at = calibration is not None or getattr(plans[0], "half", False)
        if self.settings.calibration and len(plans) == 1 and not looked_at:
            notes.append(f"{precision.name}: {_UNUSED}")
        if plans != reached:
            notes.append(f"{precision.name}: the weights lie in {plans[0].matrices.label} already")
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

    def _fitting(self, plans: Sequence[Any]) -> list[Any]:
        """The formats that the weights were trained for, where that shows and nothing else is asked for."""
        told = self.settings.recipe is not None or self.settings.tuning.symmetric is not None
        return list(plans) if told else trained_for(plans, tuple(self.bench.matrices.values()))

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
