"""Choosing a plan on the calibration half: the first that keeps the budget, then more bits where they count most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from converter.precision.budget import Budget, Quality
from converter.precision.catalogue import Precision
from converter.precision.formats import Blocks, Plan

# Aimed at on calibration texts: this much of the allowed error, since other texts may fare worse.
_SHARE = 0.9


@dataclass(frozen=True)
class Trial:
    """A plan, its size in bytes, and its quality on the calibration texts."""

    plan: Plan
    nbytes: int
    quality: Quality

    def to_json(self) -> dict[str, Any]:
        promoted = len(self.plan.exceptions)
        return {
            "plan": _label(self.plan),
            "promoted": promoted,
            "bytes": self.nbytes,
            **self.quality.to_json(),
        }


class Measure(Protocol):
    """Makes a plan's graphs and runs them; `quick` takes a part of the texts, enough to compare plans by."""

    def __call__(self, plan: Plan, *, quick: bool = False) -> Trial: ...


Advance = Callable[[int, int], None]


def choose_plan(
    precision: Precision,
    budget: Budget,
    modules: Sequence[tuple[str, int]],
    measure: Measure,
    advance: Advance,
) -> tuple[Plan, tuple[Trial, ...]]:
    """The plan to judge, and all that was tried on the way; where none keeps the budget, the closest one.

    A precision with one plan has nothing to choose, and nothing is measured.
    `modules` are the matrices with their sizes. Deterministic: the same measurements give the same plan.
    """
    if len(precision.plans) == 1 and precision.promoted is None:
        return precision.plans[0], ()
    trials: list[Trial] = []
    aim = {name: 1 - (1 - bound) * _SHARE if name != "top1" else bound for name, bound in budget.items()}
    for plan in precision.plans:
        trials.append(measure(plan))
        if not trials[-1].quality.misses(aim):
            return plan, tuple(trials)
    if precision.promoted is not None and modules:
        trials += _promote(precision.plans[-1], precision.promoted, aim, modules, measure, advance)
    keeping = [trial for trial in trials if not trial.quality.misses(aim)]
    best = min(keeping, key=lambda trial: trial.nbytes) if keeping else max(trials, key=_closeness)
    return best.plan, tuple(trials)


def _closeness(trial: Trial) -> tuple[float, float, float]:
    return trial.quality.cosine, trial.quality.cosine_min, trial.quality.top1


def _promote(
    plan: Plan,
    better: Blocks,
    aim: Budget,
    modules: Sequence[tuple[str, int]],
    measure: Measure,
    advance: Advance,
) -> list[Trial]:
    """Rank modules by the error each adds alone, for its size; then bisect how many of them need more bits."""
    error = {}
    for done, (name, size) in enumerate(modules, 1):
        others = {other: better for other, _ in modules if other != name}
        error[name] = (1 - measure(replace(plan, exceptions=others), quick=True).quality.cosine) / size
        advance(done, len(modules))
    order = sorted(error, key=lambda name: (-error[name], name))
    trials = []
    low, high = 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        trials.append(measure(replace(plan, exceptions=dict.fromkeys(order[:middle], better))))
        low, high = (middle, high) if trials[-1].quality.misses(aim) else (low, middle)
    if high == len(order):
        trials.append(measure(replace(plan, exceptions=dict.fromkeys(order, better))))
    return trials


def _label(plan: Plan) -> str:
    if plan.half:
        return "fp16"
    form = plan.matrices
    if isinstance(form, Blocks):
        kind = "symmetric" if form.symmetric else "asymmetric"
        return f"{form.bits} bits, blocks of {form.size}, {kind}, accuracy level {form.accuracy_level}"
    return f"{'signed' if form and form.signed else 'unsigned'} 8 bits a column, activations a tensor"
