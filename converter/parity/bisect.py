"""Where a graph departs from the model it was made from: module by module, at the smallest size that fails.

A module that the wrapper shares with the original, or that a graph shares with its wrapper, is a point where both can
be compared: what goes into it and what comes out of it. The first point that differs, on a way to a wrong output that
passes no point that agrees, lies just after the mistake.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from converter.packages.record import recorded_request
from converter.parity.drawing import sizes_of, weight
from converter.parity.metrics import Array, parity_sizes, tolerance_for
from converter.parity.observe import Call, record_calls, run_inside
from converter.parity.originals import open_original
from converter.parity.points import Comparer, Point
from converter.parity.proof import Job
from converter.parity.runners import Case, run_original
from converter.pipeline import Ledger, choose_subject
from converter.records import Comparison, Component, Dtype, Size, Tolerance
from converter.request import SILENT, ConversionRequest, Progress
from converter.scratch import scratch_folder
from converter.tracing.export import ByName, shared_scopes
from converter.tracing.scopes import Lineage, boundaries

if TYPE_CHECKING:
    from torch import nn

    from converter.parity.proof import Subject

# An error grows on its way to an output, so inner values have to agree better than outputs do. Only fp32 has room for
# that: its rounding is a thousandth of its bound, that of the halves nearly all of it.
INNER_SHARE: Mapping[Dtype, float] = {"fp32": 0.1, "fp16": 1.0, "bf16": 1.0}


@dataclass(frozen=True)
class Divergence:
    """The first place where one graph computes something else.

    against     what it was compared with: `original`, or `wrapper` where wrapper and original agree
    module      the module that is wrong, by its path in the original; empty is the model itself
    point       the first value that differs
    sources     what agrees and goes into it: graph inputs, and outputs of modules
    nodes       the nodes between `sources` and `point`
    parameters  those that the nodes use
    inputs      what the graph was given: name, type, shape, and values as far as a line holds them
    points      every point of comparison, in the order of the graph
    """

    component: str
    size: str
    against: str
    module: str
    point: Point
    sources: tuple[str, ...]
    nodes: tuple[str, ...]
    parameters: tuple[str, ...]
    inputs: tuple[str, ...]
    points: tuple[Point, ...]

    def lines(self) -> tuple[str, ...]:
        """What was found, in words: where, what is wrong, what it was made from, and the nodes in question."""
        found = f"max abs difference {self.point.max_abs:.2e}, cosine {self.point.cosine:.6f}"
        return (
            f"{self.component} departs from the {self.against} at {self.size}",
            *(f"  given {line}" for line in self.inputs),
            f"in {self.module or 'the model itself'}: first wrong is {self.point}",
            f"  value {self.point.value!r}: {found}",
            f"  made from {', '.join(self.sources) or 'nothing that could be compared'}",
            f"  parameters: {', '.join(self.parameters) or 'none'}",
            f"  nodes: {', '.join(self.nodes) or 'none'}",
        )

    def around(self, before: int = 4, after: int = 3) -> tuple[Point, ...]:
        """The points next to the first wrong one."""
        position = self.points.index(self.point) if self.point in self.points else len(self.points)
        return self.points[max(0, position - before) : position + 1 + after]


@dataclass(frozen=True)
class Observation:
    """The trusted side at one size.

    calls  scope in the graph -> the module's path in the original, or the scope where only the wrapper has it, and
           its calls
    """

    case: Case
    against: str
    calls: Mapping[str, tuple[str, list[Call]]]
    parameters: frozenset[str]


def bisect_package(
    package: Path, model: str, progress: Progress = SILENT, *, base_model: str | None = None
) -> tuple[Divergence, ...]:
    """One divergence for each graph of `package` that fails parity with the checkpoint `model`; none if all pass.

    The sizes and values are those that the conversion was judged at. The package may be one that `--keep-failed`
    left. Its files are not checked: a graph that was altered is a graph to look into.
    """
    from converter.packages.package import inspect_package
    from converter.registry import load_registry

    ledger = Ledger(progress)
    recorded = recorded_request(inspect_package(package).record)
    request = replace(recorded, model=model, base_model=base_model, parity="full")
    with scratch_folder() as scratch:
        registry = load_registry()
        subject = choose_subject(request, registry, scratch, ledger)
        job = Job(request, registry, subject, ledger)
        report = job.compare(package / "onnx", job.run_original(scratch))
        return bisect_graphs(request, subject, package / "onnx", report.comparisons, ledger)


def bisect_graphs(
    request: ConversionRequest,
    subject: Subject,
    folder: Path,
    comparisons: Sequence[Comparison],
    ledger: Ledger,
    smallest: Mapping[str, str] | None = None,
) -> tuple[Divergence, ...]:
    """One divergence for each graph in `folder` of which a comparison failed.

    `smallest` is what `judging.smallest_failures` gave; left out, it is asked.
    """
    from converter.parity.judging import smallest_failures

    failed = [row for row in comparisons if not row.passed and sizes_of([row.size], request.seed)]
    if failed and smallest is None:
        with scratch_folder() as scratch:
            smallest = smallest_failures(request, subject, folder, scratch, comparisons, ledger)
    with ledger.stage("look inside the original"):
        observed = _observe(subject, failed, smallest or {}, request.seed) if failed else []
    found = []
    for entry in observed:
        with ledger.stage(f"look inside {entry.case.criteria.stem}"):
            tolerance = tolerance_for(entry.case.criteria, request.dtype, request.atol)
            found.append(locate(entry, folder, tolerance, INNER_SHARE[request.dtype]))
    return tuple(found)


# --- the trusted side ---


def _observe(
    subject: Subject, failed: Sequence[Comparison], smallest: Mapping[str, str], seed: int
) -> list[Observation]:
    """Run the original once more, at one failing size of each failing component, with hooks."""
    checkpoint = subject.checkpoint
    with scratch_folder() as scratch:
        components = subject.components()
        model = open_original(subject.architecture, components, checkpoint, subject.task, scratch)
        found = []
        for component in components:
            rows = [row for row in failed if row.component == component.stem]
            if rows:
                against, size = choose_failure(component, rows, smallest.get(component.stem), seed)
                found.append(observe(model, component, size, against))
        del model
        gc.collect()
        return found


def choose_failure(
    component: Component, rows: Sequence[Comparison], smallest: str | None, seed: int
) -> tuple[str, Size]:
    """What to compare the graph with, and where: the smallest failing size, without padding if that fails too.

    A graph that departs from its wrapper was made wrong; one that only departs from the original was made right from
    a wrong wrapper. `smallest` is a size at which it departs from the original, found by shrinking.
    """
    made_wrong = [row for row in rows if row.pair == "graph/wrapper"]
    fixed = {size.label: size for size in parity_sizes(component.axes, seed)}
    shrunk = [smallest] if smallest is not None and not made_wrong else []
    failing = sizes_of(dict.fromkeys((*(row.size for row in made_wrong or rows), *shrunk)), seed)
    sizes = [fixed.get(size.label, size) for size in failing]
    size = min(sizes, key=lambda entry: (entry.padding != "none", weight(entry)))
    return ("wrapper" if made_wrong else "original"), size


def observe(model: nn.Module, component: Component, size: Size, against: str) -> Observation:
    """Record every module of the original, or of the wrapper around it, at `size`."""
    inputs = component.inputs(size)
    wrapper = ByName(component.wrapper(model), tuple(inputs.tensors)).eval()
    shared = shared_scopes(wrapper, model)
    (case,) = run_original(model, component, [size])
    copies = {name: tensor.clone() for name, tensor in inputs.tensors.items()}
    if against == "wrapper":
        calls = record_calls(wrapper, lambda: wrapper(*copies.values()))
        scopes = {path: path for path in calls if path}
    else:
        calls = record_calls(model, lambda: component.reference(model, copies))
        scopes = shared
    named = {
        scope: (shared.get(scope, scope), calls[path]) for scope, path in scopes.items() if path in calls
    }
    return Observation(case, against, named, frozenset(name for name, _ in model.named_parameters()))


# --- both sides ---


def locate(observed: Observation, folder: Path, tolerance: Tolerance, share: float) -> Divergence:
    """Run the graph with its inner values, compare it at every point, and find the first that is wrong."""
    case = observed.case
    path = folder / f"{case.criteria.stem}.onnx"
    graph = ir.load(path).graph
    edges = {scope: edge for scope, edge in boundaries(graph).items() if scope in observed.calls}
    wanted = {name for edge in edges.values() for name in (*edge.inputs, *edge.outputs)}
    results = {**case.feed, **run_inside(path, wanted - set(case.feed), case.feed)}
    lineage = Lineage.of(graph)
    compare = Comparer(results, tuple(case.valid.values()), tolerance, share)
    points = [
        point for scope, edge in edges.items() for point in compare.module(edge, *observed.calls[scope])
    ]
    points.sort(key=lambda point: (lineage.order[point.value], point.side == "input", -len(point.module)))
    trusted = case.wrapper if observed.against == "wrapper" else case.original
    ends = [compare.output(name, expected, case.valid.get(name)) for name, expected in trusted.items()]
    return _first(observed, points, [end for end in ends if not end.agrees] or ends, lineage)


def _first(
    observed: Observation, points: Sequence[Point], wrong: Sequence[Point], lineage: Lineage
) -> Divergence:
    """`points` are inner ones in the order of the graph, `wrong` the outputs that differ."""
    agreeing = {point.value for point in points if point.agrees}
    ends = [point.value for point in wrong]
    live, _ = lineage.behind(ends, agreeing)
    reached = {value.name for node in live for value in node.outputs} | set(ends)
    differing = [point for point in points if point.value in reached and point.value not in agreeing]
    point = differing[0] if differing else wrong[0]
    nodes, behind = lineage.behind([point.value], agreeing)
    parameters = tuple(name for name in behind if name in observed.parameters)
    sources = [entry for entry in points if entry.agrees and entry.value in behind]
    given = [name for name in behind if name in observed.case.feed]
    return Divergence(
        component=observed.case.criteria.stem,
        size=observed.case.size.label,
        against=observed.against,
        module=blame(point, [entry.module for entry in sources], parameters),
        point=point,
        sources=(*given, *dict.fromkeys(entry.module for entry in sources if entry.side == "output")),
        nodes=tuple(f"{node.name} ({node.op_type})" for node in nodes),
        parameters=parameters,
        inputs=tuple(_described(name, array) for name, array in observed.case.feed.items()),
        points=tuple(points),
    )


def _described(name: str, array: Array) -> str:
    """An input in one line: `input_ids int64 (1, 5) [[7 30 2 11 8]]`; of many values the first and last."""
    values = np.array2string(array, precision=3, threshold=12, edgeitems=2, max_line_width=10_000)
    return f"{name} {array.dtype} {array.shape} {' '.join(values.split())}"


def blame(point: Point, sources: Sequence[str], parameters: Sequence[str]) -> str:
    """The smallest module that holds everything between what agrees and what does not.

    Where the nodes between use the parameters of one module only, and no module's own output is wrong, it is that one.
    """
    owners = {name.rpartition(".")[0] for name in parameters}
    if point.side == "output" and point.module:
        return point.module
    if len(owners) == 1:
        return owners.pop()
    parts = [path.split(".") for path in (point.module, *sources)]
    common = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    whole = ".".join(common)
    return whole.rpartition(".")[0] if whole == point.module else whole
