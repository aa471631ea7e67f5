"""The plans that settings leave of a precision's, or the one that a recipe tells."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.additions import Precision
from converter.errors import UsageError
from converter.precision.formats import Plan, read_plan
from converter.precision.settings import Settings
from converter.precision.statistics import METHODS, Method

BUILT_IN = "what comes along"


@dataclass(frozen=True)
class Calibrated:
    """What a recipe records of calibration; `samples` is 0 where it needed none."""

    method: Method | None = None
    samples: int = 0
    source: str = ""

    def count(self, settings: Settings) -> int | None:
        """As many of the built-in samples as the recipe was made by, if nothing else is asked for."""
        asked = settings.calibration is not None or settings.num_samples is not None
        return self.samples if self.source == BUILT_IN and not asked else None

    def differs(self, now: Mapping[str, Any] | None) -> str:
        """How it was done, where it is done otherwise now."""
        same = now is None or (self.samples, self.source) == (now["samples"], now["source"])
        return "" if same or not self.samples else f"{self.samples} samples of {self.source}"


def all_plans(precisions: Sequence[Precision], settings: Settings) -> list[Any]:
    """`plans_of` all of them. Raises UsageError also for an option that none of their formats heeds."""
    plans = [plan for precision in precisions for plan in plans_of(precision, settings)]
    settings.tuning.require_used(plans)
    return plans


def plans_of(precision: Precision, settings: Settings) -> list[Any]:
    """The ways to make a precision that these settings leave, or the one that their recipe tells.

    Raises UsageError where none is left, and for a recipe that cannot be read.
    """
    if settings.recipe is not None:
        return [read_plan(read_recipe(settings.recipe, precision.name))]
    plans = precision.plans()
    if settings.unjudged and precision.unjudged is not None:
        plans = (precision.unjudged(), *plans)
    tuned = settings.tuning.apply(precision.name, plans)
    return tuned[:1] if settings.unjudged else tuned


def read_recipe(path: Path, name: str) -> Any:
    """The recipe in a file: one alone, or that of a precision in a package's record."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--recipe {path} cannot be read: {error}", remedy="give a JSON file") from error
    if isinstance(content, dict) and isinstance(content.get("precisions"), dict):
        if name not in content["precisions"]:
            known = ", ".join(content["precisions"]) or "none"
            raise UsageError(f"--recipe {path} has no recipe of {name!r}; it has {known}")
        content = content["precisions"][name]
    if isinstance(content, dict) and "recipe" in content:
        content = content["recipe"]
    return content


def recorded_calibration(path: Path | None, name: str) -> Calibrated:
    """How the activations were observed that a recipe was made by. Raises UsageError where that cannot be told."""
    content = {} if path is None else read_recipe(path, name)
    given = content.get("calibration") if isinstance(content, dict) else None
    if given is None:
        return Calibrated()
    try:
        method, samples, source = given["method"], int(given["samples"]), str(given["source"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"--recipe {path}: its calibration cannot be read: {error!r}",
            remedy="give a converter.json as it was written",
        ) from error
    if method not in METHODS:
        raise UsageError(
            f"--recipe {path}: the calibration method {method!r} is unknown",
            remedy=f"choose from {', '.join(METHODS)}",
        )
    return Calibrated(method, samples, source)


def require_matrices_of(plan: Any, known: Sequence[str]) -> None:
    """Raise UsageError for a recipe with a format of a matrix that the graphs do not have."""
    absent = [name for name in plan.exceptions if name not in known] if isinstance(plan, Plan) else []
    if absent:
        raise UsageError(
            f"the recipe is of other graphs: these multiply by no matrix {', '.join(map(repr, absent[:3]))}"
            + (f" and {len(absent) - 3} more" if len(absent) > 3 else ""),
            remedy="give the recipe of this model at this --optimize, or search for one without --recipe",
        )
