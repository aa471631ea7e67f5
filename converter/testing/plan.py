"""Which parity cases there are: found once a session, before anything is traced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from converter.extras import require_export
from converter.parity.drawing import FEW
from converter.parity.verify import reference_sizes
from converter.records import Checkpoint, Component
from converter.request import SILENT, ConversionRequest, Progress

if TYPE_CHECKING:
    from converter.parity.proof import Subject

FP32 = "fp32"


@dataclass(frozen=True)
class Asked:
    """What the options of pytest ask for. Without `model` it is a tiny checkpoint with random weights."""

    arch: str
    model: str | None = None
    task: str | None = None
    precisions: tuple[str, ...] = (FP32,)


@dataclass(frozen=True)
class CaseName:
    """One case: a graph of a variant at one size in one precision, or a scenario played by a variant's graphs."""

    variant: str
    stem: str
    size: str
    precision: str = FP32

    def __str__(self) -> str:
        what = "-".join(self.stem.replace(",", "").split())  # a scenario's name is a phrase
        return "-".join(filter(None, (self.variant, what, self.size, self.precision)))


@dataclass(frozen=True)
class Plan:
    """The cases of one checkpoint of one architecture.

    request    the conversion that all cases share
    cases      every case; of a scenario `stem` is its name and `size` is empty
    runs       (stem, label of the size) in the order in which the original is run
    scenarios  names, in the order in which the original plays them
    """

    asked: Asked
    request: ConversionRequest
    checkpoint: Checkpoint
    cases: tuple[CaseName, ...]
    runs: tuple[tuple[str, str], ...]
    scenarios: tuple[str, ...]


def make_plan(asked: Asked, folder: Path, progress: Progress = SILENT) -> Plan:
    """Find the architecture and its checkpoint, or write a tiny one into `folder`. Brings torch; traces nothing.

    Raises UsageError for what is not there, with near misses.
    """
    require_export()
    from converter.pipeline import Ledger, choose_subject
    from converter.precision.catalogue import choose_precisions
    from converter.registry import load_registry

    registry = load_registry()
    added = [name for name in asked.precisions if name != FP32]
    if added or not asked.precisions:
        choose_precisions(added, registry.precisions)
    request = ConversionRequest(
        arch=asked.arch, model=asked.model, task=asked.task, tiny=asked.model is None, parity="off"
    )
    subject = choose_subject(request, registry, folder, Ledger(progress))
    model = asked.model or str(subject.checkpoint.root)
    maker = subject.architecture
    # Its own name finds another where it stood in for the owner of a model type.
    named = maker.name if registry.known(maker.name) in (None, maker) else maker.stands_in
    runs = [(stem, size) for component in subject.components() for stem, size in _runs(component)]
    return Plan(
        asked,
        replace(request, arch=named, model=model, task=subject.task, tiny=False),
        subject.checkpoint,
        tuple(_cases(subject, asked.precisions, runs)),
        tuple(runs),
        tuple(scenario.name for scenario in subject.scenarios()),
    )


def _runs(component: Component) -> Iterator[tuple[str, str]]:
    fixed, drawn = reference_sizes(component, 0, FEW)
    for size in (*fixed, *drawn):
        yield component.stem, size.label


def _cases(
    subject: Subject, precisions: Sequence[str], runs: Sequence[tuple[str, str]]
) -> Iterator[CaseName]:
    for variant in subject.variants:
        for precision in dict.fromkeys(precisions):
            for stem, size in runs:
                if stem in variant.stems:
                    yield CaseName(variant.name, stem, size, precision)
            for scenario in subject.scenarios() if precision == FP32 else ():
                if scenario.stems <= set(variant.stems):
                    yield CaseName(variant.name, scenario.name, "")
