"""Running the cases of a plan: one conversion and one run of the original for all of them, in whichever process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from converter.console import quiet_libraries
from converter.errors import ParityError
from converter.parity.axes import came_out_fixed
from converter.parity.metrics import Terms
from converter.parity.reduced import compare_reduced
from converter.parity.runners import Case, load, open_session
from converter.parity.verify import References, compare_case, difference
from converter.records import Checkpoint, Comparison
from converter.request import SILENT, ConversionRequest, Progress
from converter.runtime.files import suffix_of
from converter.scratch import scratch_folder
from converter.testing.plan import FP32, Asked, CaseName, Plan, make_plan
from converter.testing.shared import Shared

if TYPE_CHECKING:
    import onnxruntime

    from converter.registry import Registry

PLAN, GRAPHS = "plan", "graphs"


class DifferenceError(ParityError):
    """A case that failed, with all that was compared in it."""

    def __init__(self, rows: Sequence[Comparison]) -> None:
        lines = [f"{'passed' if row.passed else 'FAILED'}: {difference(row)}" for row in rows]
        super().__init__("\n".join(lines) or "nothing was compared")
        self.rows = tuple(rows)


def plan_in(folder: Path, asked: Asked, *, apart: bool) -> Plan:
    """What there is to test, left where every process of the session reads it. `apart` keeps torch out of this one."""
    from converter.apart import run_apart

    def make(own: Path) -> Plan:
        with quiet_libraries():
            return run_apart(make_plan, asked, own) if apart else make_plan(asked, own)

    plan: Plan = Shared(folder).once(PLAN, make)
    return plan


@dataclass
class Suite:
    """The cases of a session in one of its processes. All of them share `folder`."""

    folder: Path
    _sessions: dict[tuple[str, str], onnxruntime.InferenceSession] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shared = Shared(self.folder)

    @cached_property
    def plan(self) -> Plan:
        plan: Plan = self.shared.once(PLAN, _absent)
        return plan

    @cached_property
    def registry(self) -> Registry:
        from converter.registry import load_registry

        return load_registry()

    def compare(self, name: CaseName) -> list[Comparison]:
        """Original, wrapper and graph at one size, or what they generate. The first call converts."""
        with quiet_libraries():
            references: References = self.shared.once(GRAPHS, partial(make_graphs, self.plan))
            if not name.size:
                return [self._play(name, references)]
            case, session = self._case(name, references), self._session(name)
            terms = Terms(self.registry.metrics)
            if name.precision == FP32:
                return self._settled(compare_case(session, case, terms), references)
            return compare_reduced(session, case, self.registry.precisions[name.precision], terms)

    def _settled(self, rows: list[Comparison], references: References) -> list[Comparison]:
        """The comparisons, those passed that float32 alone keeps apart."""
        if all(row.passed for row in rows):
            return rows
        from converter.apart import run_without_torch

        plan, graphs = self.plan, self.folder / GRAPHS / "package" / "onnx"
        with scratch_folder() as scratch:
            name = "converter.making:weigh_rounding"
            return list(
                run_without_torch(
                    name, plan.request, plan.checkpoint, scratch, graphs, references.files, rows
                )
            )

    def close(self) -> None:
        self._sessions.clear()

    def warnings(self, name: CaseName) -> tuple[str, ...]:
        """On axes of the case's graph that are not what was declared: for the first case of each graph."""
        first = next(other for other in self.plan.cases if other.stem == name.stem)
        if name != first or name.precision != FP32 or not name.size:
            return ()
        references: References = self.shared.once(GRAPHS, _absent)
        fixed = came_out_fixed(self._session(name), name.stem, self._case(name, references).axes)
        return (*(line for line in references.warnings if line.startswith(f"{name.stem}: ")), *fixed)

    def _case(self, name: CaseName, references: References) -> Case:
        case: Case = load(references.files[self.plan.runs.index((name.stem, name.size))])
        assert (case.criteria.stem, case.size.label) == (name.stem, name.size)
        return case

    def _play(self, name: CaseName, references: References) -> Comparison:
        from converter.parity.play import play_graphs

        played = load(references.files[len(self.plan.runs) + self.plan.scenarios.index(name.stem)])
        return play_graphs(played, self.folder / GRAPHS / "package" / "onnx", self.plan.request.device)

    def _session(self, name: CaseName) -> onnxruntime.InferenceSession:
        key = name.stem, name.precision
        if key not in self._sessions:
            package = self.folder / GRAPHS / "package"
            if name.precision != FP32:
                make = partial(add_precision, self.plan, package, name.precision)
                package = self.shared.once(name.precision, make)
            path = package / "onnx" / f"{name.stem}{suffix_of(name.precision)}.onnx"
            self._sessions[key] = open_session(path)
        return self._sessions[key]


def _absent(folder: Path) -> None:
    raise AssertionError(f"{folder.name} was not made")


def make_graphs(plan: Plan, folder: Path) -> References:
    """A package in `folder`, and beside it what the original gives at every size."""
    from converter.pipeline import make_unjudged

    return make_unjudged(plan.request, plan.checkpoint, folder / "package", folder, SILENT)


def add_precision(plan: Plan, package: Path, precision: str, folder: Path) -> Path:
    """A copy of the package, its files linked, with graphs in one more precision: what `converter quantize` makes.

    On a checkpoint that was named they are judged and keep their budget, or this raises ParityError. Random weights
    have no quality to judge.
    """
    from converter.apart import run_without_torch
    from converter.precision.quantize import quantize_package

    halves = None
    if precision == "fp16":
        name = "converter.testing.cases:trace_in_halves"
        halves = run_without_torch(name, plan.request, plan.checkpoint, folder)
    copy = folder / "package"
    shutil.copytree(package, copy, copy_function=os.link)
    report = quantize_package(copy, [precision], unjudged=plan.asked.model is None, halves=halves)
    report.require_passed()
    return copy


def trace_in_halves(
    request: ConversionRequest, checkpoint: Checkpoint, folder: Path, progress: Progress
) -> Path | None:
    """The graphs traced in fp16, where torch can: fp16 is made of them, as a conversion makes it."""
    from converter.added import trace_halves
    from converter.pipeline import Ledger, settle
    from converter.registry import load_registry
    from converter.selection import owner

    registry = load_registry()
    named = registry.known(request.arch)
    owned = named if named is not None and named.stand_in is None else owner(registry, named, checkpoint)
    settled = partial(
        settle,
        registry=registry,
        architecture=owned,
        checkpoint=checkpoint,
    )
    wanted = replace(request, precisions=("fp16",))
    halves, _ = trace_halves(wanted, registry, settled, folder, Ledger(progress))
    return halves
