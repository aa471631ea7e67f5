"""What a user asks of precisions: one frozen record for the command line, for `convert` and for Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from converter.errors import UsageError
from converter.precision.budget import Budget, parse_keep
from converter.precision.samples import Given, read_samples, require_apart
from converter.precision.targets import Tuning
from converter.request import Preference

# Far more than the trials of most models take: for machines that are slow or busy.
MINUTES = 60.0
_NO_SEARCH = ("size", None, MINUTES)


@dataclass(frozen=True)
class Settings:
    """How precisions are made and judged.

    keep         bounds such as `cosine=0.999`; they take the place of a precision's own budget, all of it
    prefer       of what keeps the budget, the smallest or the fastest
    keep_failed  what misses its budget is written all the same, marked
    unjudged     nothing is measured, nothing can miss
    calibration, evaluation
                 a text file, JSON lines, a folder of images, or `generated`; what comes along without them
    num_samples  so many calibration samples, and no fewer
    preprocess   from Python: a sample -> a feed by input name
    trials       at most about so many plans are measured; None goes by the model's size
    minutes      no plan is begun once a precision's search has taken so long; the best so far is taken, and noted
    recipe       a file with a recipe to apply as it is, in place of a search
    """

    keep: tuple[str, ...] = ()
    prefer: Preference = "size"
    keep_failed: bool = False
    unjudged: bool = False
    calibration: str | None = None
    evaluation: str | None = None
    num_samples: int | None = None
    preprocess: Callable[[Any], Mapping[str, Any]] | None = None
    trials: int | None = None
    minutes: float = MINUTES
    recipe: Path | None = None
    tuning: Tuning = field(default_factory=Tuning)

    def __post_init__(self) -> None:
        if self.num_samples is not None and self.num_samples < 1:
            raise UsageError(f"{self.num_samples} samples calibrate nothing", remedy="give 1 or more")
        if self.trials is not None and self.trials < 1:
            raise UsageError(f"{self.trials} trials measure nothing", remedy="give 1 or more")
        if not self.minutes > 0:
            raise UsageError(f"{self.minutes} minutes measure nothing", remedy="give more than 0")
        if self.unjudged and self.keep:
            raise UsageError("--keep and --unjudged contradict each other", remedy="leave one of them out")
        if self.recipe is not None and self.tuning != Tuning():
            raise UsageError(
                "a recipe is applied as it is, and options of formats would change nothing",
                remedy="leave --recipe out, or the other options",
            )
        if (self.recipe is not None or self.unjudged) and (
            self.prefer,
            self.trials,
            self.minutes,
        ) != _NO_SEARCH:
            raise UsageError(
                f"{'--recipe' if self.recipe is not None else '--unjudged'} searches for nothing, and --prefer, "
                "--trials and --minutes would change nothing",
                remedy="leave them out",
            )
        if self.unjudged and self.evaluation is not None:
            raise UsageError(
                "--evaluation and --unjudged contradict each other", remedy="leave one of them out"
            )
        parse_keep(self.keep)

    @staticmethod
    def of(**options: Any) -> Settings:
        """Settings from keywords, those of `Tuning` among them. Raises UsageError for what is none of them."""
        tuning = {each.name: options.pop(each.name) for each in fields(Tuning) if each.name in options}
        if unknown := sorted(set(options) - {each.name for each in fields(Settings)}):
            known = [
                each.name for kind in (Settings, Tuning) for each in fields(kind) if each.name != "tuning"
            ]
            raise UsageError(
                f"unknown quantization option: {', '.join(unknown)}", remedy=f"choose from {', '.join(known)}"
            )
        if tuning:
            options["tuning"] = Tuning(**tuning)
        if options.get("recipe") is not None:
            options["recipe"] = Path(options["recipe"])
        keep = options.get("keep", ())
        options["keep"] = (keep,) if isinstance(keep, str) else tuple(keep)
        return Settings(**options)

    @property
    def bounds(self) -> Budget:
        return parse_keep(self.keep)

    def samples(self) -> tuple[Given | None, Given | None]:
        """Calibration and evaluation samples, read. Raises UsageError for what cannot be, and for too few."""
        first = None if self.calibration is None else read_samples(self.calibration, self.num_samples)
        second = (
            None if self.evaluation is None else read_samples(self.evaluation, None, option="--evaluation")
        )
        if first is not None and second is not None:
            require_apart(first, second)
        return first, second

    def limit(self, nbytes: int) -> int:
        """Plans to measure at most, for a model of so many bytes: a minute or so for a small one."""
        return self.trials or int(min(72, max(3, 12e9 / max(nbytes, 1))))
