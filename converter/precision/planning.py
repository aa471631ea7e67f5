"""The plans that settings leave of a precision's, or the one that a recipe tells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from converter.additions import Precision
from converter.errors import UsageError
from converter.precision.formats import Plan, read_plan
from converter.precision.settings import Settings


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
        return [_read_recipe(settings.recipe, precision.name)]
    plans = precision.plans()
    if settings.unjudged and precision.unjudged is not None:
        plans = (precision.unjudged(), *plans)
    tuned = settings.tuning.apply(precision.name, plans)
    return tuned[:1] if settings.unjudged else tuned


def _read_recipe(path: Path, name: str) -> Plan:
    """The plan in a recipe file: one alone, a package's record, or one of several precisions by name."""
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
    return read_plan(content)
