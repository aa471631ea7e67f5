"""Choosing a plan on the calibration samples: what keeps the budget, smallest or fastest first, then mixtures.

First every plan for the whole graph is measured. Where a smaller or faster one misses, it is given to single
matrices of the best one that keeps, those first that add the least error for their size, as far as the budget goes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from converter.precision.budget import COUNTED, Budget, Quality, error_of
from converter.precision.formats import Plan
from converter.request import Advance, Preference

# Aimed at on calibration samples: this much of the allowed error, since others may fare worse.
_SHARE = 0.75
# With fewer than this left after each plan was tried, not each is: they come in the order of their errors.
_LITTLE = 8
# A plan that errs by up to twice what is allowed is worth mixing in for its cost; of worse ones the closest is taken.
_NEAR = -1.0
# Plans closer than this in speed are equally fast, and closer than this in size equally small: then order counts.
_SAME_SPEED, _SAME_SIZE = 0.03, 0.001


@dataclass(frozen=True)
class Trial:
    """A plan, its size in bytes, its quality on the calibration samples; `speed` as a multiple of fp32's if measured.

    `quick` quality is of a part of the samples, for comparing plans by.
    """

    plan: Any
    nbytes: int
    quality: Quality
    speed: float | None = None
    quick: bool = False

    def to_json(self) -> dict[str, Any]:
        speed = {} if self.speed is None else {"speed": round(self.speed, 3)}
        return {"plan": self.plan.label, "bytes": self.nbytes, **speed, **self.quality.to_json()}


class Measure(Protocol):
    """Makes a plan's graphs and runs them; `quick` takes a part of the samples, enough to compare plans by."""

    def __call__(self, plan: Any, *, quick: bool = False) -> Trial: ...


@dataclass(frozen=True)
class Choice:
    """The plan to judge, and what was measured on the way; `cut` where time ran out before all was tried."""

    plan: Any
    trials: tuple[Trial, ...] = ()
    cut: bool = False


def never() -> bool:
    """Time that does not run out."""
    return False


def aim_of(budget: Budget, cases: int) -> dict[str, float]:
    """The bounds that calibration samples must keep: part of the allowed error is left to other samples.

    Of a share of `cases` that is a standard error, sqrt(p (1 - p) / n): a share that is just kept by these is missed
    by half of all other samples.
    """
    return {
        name: _counted(bound, cases) if name in COUNTED else 1 + (bound - 1) * _SHARE
        for name, bound in budget.items()
    }


def _counted(bound: float, cases: int) -> float:
    return min(1.0, bound + math.sqrt(bound * (1 - bound) / max(cases, 1)))


def choose_plan(
    plans: Sequence[Any],
    budget: Budget,
    modules: Sequence[tuple[str, int]],
    measure: Measure,
    advance: Advance,
    *,
    prefer: Preference = "size",
    limit: int = 60,
    over: Callable[[], bool] = never,
) -> Choice:
    """The smallest (or fastest) of what keeps the budget; where nothing does, the closest.

    `modules` are the matrices with their sizes; at most about `limit` plans are measured, and none begins once time is
    `over`. The same measurements give the same plan. One plan without a budget is not measured: there is nothing to
    choose.
    """
    if len(plans) == 1 and (not budget or limit < 2):
        return Choice(plans[0])
    search = _Search(budget, modules, measure, advance, prefer, limit, over)
    search.whole(plans)
    kept = [trial for trial in search.trials if search.keeps(trial)]
    kept = kept or search.rescue()
    if not kept:
        return Choice(max(search.trials, key=search.closeness).plan, tuple(search.trials), search.cut)
    best = min(kept, key=search.cost)
    cheaper = [
        trial
        for trial in search.trials
        if search.cost(trial) < search.cost(best) and _form(trial.plan) != _form(best.plan)
    ]
    if cheaper:
        near = [trial for trial in cheaper if search.closeness(trial)[0] > _NEAR]
        other = min(near, key=search.cost) if near else max(cheaper, key=search.closeness)
        best = search.mix(best, other)
    return Choice(best.plan, tuple(trial for trial in search.trials if not trial.quick), search.cut)


def _form(plan: Any) -> Any:
    """What it gives matrices, to mix plans by."""
    return getattr(plan, "matrices", plan)


@dataclass
class _Search:
    budget: Budget
    modules: Sequence[tuple[str, int]]
    measure: Measure
    advance: Advance
    prefer: Preference
    limit: int
    over: Callable[[], bool]

    def __post_init__(self) -> None:
        self.trials: list[Trial] = []
        self.cut = False

    def may_try(self, more: int = 1) -> bool:
        """Whether there is room for so many trials; the first is always made."""
        self.cut = self.cut or bool(self.trials and self.over())
        return not self.cut and len(self.trials) + more <= self.limit

    def keeps(self, trial: Trial) -> bool:
        return not trial.quality.misses(self._aim(trial))

    def closeness(self, trial: Trial) -> tuple[float, float]:
        return trial.quality.closeness(self._aim(trial)), -error_of(trial.quality)

    def _aim(self, trial: Trial) -> Budget:
        return aim_of(self.budget, trial.quality.cases or trial.quality.samples)

    def cost(self, trial: Trial) -> tuple[int, int]:
        """Least is best: bytes in steps, or with speed preferred time in coarse steps and then bytes."""
        size = round(math.log(trial.nbytes) / _SAME_SIZE)
        if self.prefer == "speed" and trial.speed:
            return round(1 / trial.speed / _SAME_SPEED), size
        return size, 0

    def try_plan(self, plan: Any, *, quick: bool = False) -> Trial:
        trial = self.measure(plan, quick=quick)
        self.trials.append(replace(trial, quick=quick))
        self.advance(min(len(self.trials), self.limit), self.limit)
        return trial

    def whole(self, plans: Sequence[Any]) -> None:
        """Each plan for the whole graph; with little to spend, halving what may be the first to keep the budget."""
        if self.limit >= len(plans) + _LITTLE:
            for plan in plans:
                if self.may_try():
                    self.try_plan(plan)
            return
        low, high = 0, len(plans)
        while low < high and self.may_try():
            middle = (low + high) // 2
            if self.keeps(self.try_plan(plans[middle])):
                high = middle
            else:
                low = middle + 1

    def rescue(self) -> list[Trial]:
        """What keeps the budget with tables or matrices left in float, where no format keeps it for all of them.

        If both must stay, what is left to give is single matrices: fp32 itself is where that begins.
        """
        plan = max(self.trials, key=self.closeness).plan
        if not isinstance(plan, Plan) or plan.half:
            return []
        bare = replace(plan, matrices=None, exceptions={})
        for step in ((replace(plan, tables=False), bare), (replace(bare, tables=False),)):
            tried = [self.try_plan(other) for other in step if other != plan and self.may_try()]
            if kept := [trial for trial in tried if self.keeps(trial)]:
                return kept
        return []

    def mix(self, best: Trial, other: Trial) -> Trial:
        """Give matrices of a plan that keeps the budget the format of one that does not, as many as it allows.

        Each one's error is measured alone; how many there may be is then bisected with all of them together.
        """
        groups = self._groups()
        if not hasattr(best.plan, "giving") or len(groups) < 2:
            return best
        form, error = other.plan.matrices, {}
        for group in groups:
            if not self.may_try(len(groups).bit_length() + 2):
                return best
            alone = self.try_plan(best.plan.giving(group, form), quick=True)
            error[group] = error_of(alone.quality) / sum(size for name, size in self.modules if name in group)
        order = sorted(groups, key=lambda group: (error[group], group))
        found, low, high = best, 0, len(order)
        while high - low > 1 and self.may_try(0):
            middle = (low + high) // 2
            names = [name for group in order[:middle] for name in group]
            trial = self.try_plan(best.plan.giving(names, form))
            if self.keeps(trial):
                low = middle
                found = min(found, trial, key=self.cost)
            else:
                high = middle
        return found

    def _groups(self) -> list[tuple[str, ...]]:
        """The matrices one by one, or runs of neighbours where there are more than may be tried."""
        names = [name for name, _ in self.modules]
        room = max(1, self.limit - len(self.trials) - 8)
        step = -(-len(names) // room)
        return [tuple(names[start : start + step]) for start in range(0, len(names), step)]
