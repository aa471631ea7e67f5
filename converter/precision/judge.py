"""The quality of graphs against fp32's, on inputs that nothing was chosen by.

Which kind of model a package holds shows in its record and in what its graphs take and give. A text model is judged
on text or not at all: its error on random tokens says nothing of text. What has no natural inputs of its own is
judged on those its plugin makes for parity, and the report says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converter.errors import ConverterError, UsageError
from converter.precision.budget import Budget, Quality
from converter.precision.kinds import Chosen, Preprocess, choose_task
from converter.precision.latency import Stopwatch
from converter.precision.samples import Given
from converter.precision.sessions import Feeds, Sessions, main_bytes
from converter.precision.sliced import LARGE, SlicedSessions
from converter.precision.statistics import Statistics
from converter.precision.tasks import Task

# Of the choosing samples, how many of them compare plans by a glance.
_QUICK = 6


class _UnmeasuredError(UsageError):
    """A bound on something that is not measured on this kind of model."""


@dataclass
class Judge:
    """Measures graphs of the package in `folder` against its fp32 graphs. The fp32 results are made once.

    `large` graphs are run in slices.
    """

    folder: Path
    task: Task
    calibration: Sequence[Any]
    evaluation: Sequence[Any]
    about: str
    large: bool = False
    _references: dict[str, Any] = field(default_factory=dict)
    _ran: Feeds = field(default_factory=list)

    @staticmethod
    def of(
        folder: Path,
        record: Mapping[str, Any],
        stems: Sequence[str],
        *,
        calibration: Given | None = None,
        evaluation: Given | None = None,
        count: int | None = None,
        preprocess: Preprocess | None = None,
        keep: Budget | None = None,
    ) -> Judge:
        """The judge of a package, its fp32 run on the evaluation inputs.

        Raises UsageError where there is nothing to judge it by, and before anything is run for a bound in `keep` on
        what is not measured on this kind of model.
        """
        try:
            chosen: Chosen = choose_task(folder, record, stems, calibration, evaluation, count, preprocess)
            judge = Judge(
                folder,
                chosen.task,
                chosen.calibration,
                chosen.evaluation,
                chosen.about,
                main_bytes(folder, stems) >= LARGE,
            )
            judge._require(keep or {})
            judge._reference("evaluation", judge.evaluation)
        except _UnmeasuredError:
            raise
        except ConverterError as error:
            raise UsageError(
                f"no quality can be measured on this package: {error.message}",
                remedy="; ".join(
                    filter(None, (error.remedy, "--unjudged writes precisions without measuring"))
                ),
            ) from error
        return judge

    def evaluate(self, suffix: str) -> Quality:
        """On the inputs that nothing was chosen on."""
        return self._judged("evaluation", self.evaluation, suffix)

    def rehearse(self, suffix: str, *, quick: bool = False) -> Quality:
        """On the inputs that plans may be chosen by; `quick` on every sixth of them."""
        if quick:
            return self._judged("quick", self.calibration[::_QUICK], suffix)
        return self._judged("calibration", self.calibration, suffix)

    def observe(self, statistics: Statistics, count: int | None = None) -> None:
        """Run fp32 on the calibration inputs, or the first `count`; `statistics` see what enters its matrices."""
        samples = self.calibration[:count]
        found = self.task.run(self._sessions(statistics=statistics), samples)
        if len(samples) == len(self.calibration):
            self._references.setdefault("calibration", found)

    def stopwatch(self) -> Stopwatch:
        """What measures the speed of graphs on the evaluation inputs."""
        if self.large:
            return Stopwatch.of_large(self.folder, self._ran)
        return Stopwatch.of(self.folder, self.task, self.evaluation)

    def budget(self, wanted: Budget) -> dict[str, float]:
        """Of a budget's bounds, those on what is measured here."""
        return {name: bound for name, bound in wanted.items() if name in self.task.measures}

    def _require(self, asked: Budget) -> None:
        absent = [name for name in asked if name not in self.task.measures]
        if absent:
            raise _UnmeasuredError(
                f"--keep {', '.join(absent)}: not measured on this kind of model",
                remedy=f"choose from {', '.join(self.task.measures)}",
            )

    def _sessions(
        self, suffix: str = "", statistics: Statistics | None = None, record: Feeds | None = None
    ) -> Sessions:
        kind = SlicedSessions if self.large else Sessions
        return kind(self.folder, suffix, statistics=statistics, record=record)

    def _judged(self, half: str, samples: Sequence[Any], suffix: str) -> Quality:
        reference = self._reference(half, samples)
        found = self.task.run(self._sessions(suffix), samples, reference)
        return self.task.compare(reference, found)

    def _reference(self, half: str, samples: Sequence[Any]) -> Any:
        if half not in self._references:
            record = self._ran if self.large and half == "evaluation" else None
            self._references[half] = self.task.run(self._sessions(record=record), samples)
        return self._references[half]
