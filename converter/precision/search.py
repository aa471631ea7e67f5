"""Choosing a plan on the calibration half: what keeps the budget first, then what is cheaper where it costs least."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from converter.additions import Precision, PrecisionPlan
from converter.precision.budget import Budget, Quality
from converter.request import Preference

# Aimed at on calibration texts: this much of the allowed error, since other texts may fare worse.
_SHARE = 0.75


@dataclass(frozen=True)
class Trial:
    """A plan, its size in bytes, and its quality on the calibration texts."""

    plan: PrecisionPlan
    nbytes: int
    quality: Quality

    def to_json(self) -> dict[str, Any]:
        promoted = len(self.plan.to_json().get("exceptions", ()))
        return {
            "plan": self.plan.label,
            "promoted": promoted,
            "bytes": self.nbytes,
            **self.quality.to_json(),
        }


class Measure(Protocol):
    """Makes a plan's graphs and runs them; `quick` takes a part of the texts, enough to compare plans by."""

    def __call__(self, plan: PrecisionPlan, *, quick: bool = False) -> Trial: ...


Advance = Callable[[int, int], None]


def choose_plan(
    precision: Precision,
    budget: Budget,
    modules: Sequence[tuple[str, int]],
    measure: Measure,
    advance: Advance,
    prefer: Preference = "size",
) -> tuple[PrecisionPlan, tuple[Trial, ...]]:
    """The plan to judge, and all that was tried on the way; where none keeps the budget, the closest one.

    The first of the precision's plans that keeps the budget, then its cheaper format (or with `prefer` speed its
    faster one) for as many modules as the budget allows. `modules` are the matrices with their sizes. A precision
    with one plan has nothing to choose, and nothing is measured. The same measurements give the same plan.
    """
    plans, make = precision.plans(), precision.faster if prefer == "speed" else precision.cheaper
    if len(plans) == 1 and make is None:
        return plans[0], ()
    aim = {name: 1 - (1 - bound) * _SHARE for name, bound in budget.items()}
    trials: list[Trial] = []
    for plan in plans:
        trials.append(measure(plan))
        if not trials[-1].quality.misses(aim):
            break
    else:
        return max(trials, key=_closeness).plan, tuple(trials)
    if make is None or not modules:
        return plan, tuple(trials)
    chosen, more = _spread(plan, make(), aim, modules, measure, advance)
    return chosen, (*trials, *more)


def _closeness(trial: Trial) -> tuple[float, float, float]:
    return trial.quality.cosine, trial.quality.cosine_min, trial.quality.top1


def _spread(
    plan: Any,
    other: Any,
    aim: Budget,
    modules: Sequence[tuple[str, int]],
    measure: Measure,
    advance: Advance,
) -> tuple[PrecisionPlan, list[Trial]]:
    """Give modules another format, those first that add the least error for their size, while the aim is kept.

    Each module's error is measured alone; how many there may be is then bisected with all of them together.
    """
    trials = [measure(plan.giving([name for name, _ in modules], other))]
    if not trials[0].quality.misses(aim):
        return trials[0].plan, trials
    error = {}
    for done, (name, size) in enumerate(modules, 1):
        alone = measure(plan.giving([name], other), quick=True)
        error[name] = (1 - alone.quality.cosine) / size
        advance(done, len(modules))
    order = sorted(error, key=lambda name: (error[name], name))
    best, low, high = plan, 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        trials.append(measure(plan.giving(order[:middle], other)))
        if trials[-1].quality.misses(aim):
            high = middle
        else:
            best, low = trials[-1].plan, middle
    return best, trials
