"""Results as text: the report of a conversion, the architectures, the plugins, a package."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from converter.console import write_line, write_list, write_table
from converter.text import size_text

if TYPE_CHECKING:
    from converter.packages.package import PackageInfo
    from converter.parity.bisect import Divergence
    from converter.pipeline import Report
    from converter.precision.added import AddedError
    from converter.records import Architecture, Comparison, ParityReport
    from converter.registry import Registry
    from converter.tracing.interfaces import Interface, Unshown


def write_json(value: Any) -> None:
    """One JSON object on stdout. Numbers JSON has no spelling for become strings; so do paths."""
    write_line(json.dumps(_finite(value), indent=2, allow_nan=False, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def show_report(report: Report, *, seconds: float, verbose: bool) -> None:
    """What a finished conversion made, proved and cost. `seconds` is all of its time, imports included."""
    show_parity(report.parity)
    write_line()
    write_table(
        ("file", "size"), [(name, size_text(size)) for name, size in report.files.items()], right=("size",)
    )
    for note in report.notes:
        write_line(f"note: {note}")
    if verbose:
        write_line()
        write_table(
            ("stage", "seconds"),
            [(name, f"{spent:.2f}") for name, spent in report.stages],
            right=("seconds",),
        )
    write_line()
    what = f"{report.architecture}, {report.task}, {', '.join(report.variants)}"
    write_line(
        f"wrote {report.output} ({what}) in {seconds:.1f} s, peak memory {size_text(report.peak_memory)}"
    )


def show_parity(parity: ParityReport) -> None:
    """The verdict: for each output of each graph the worst of every size and pair that was compared."""
    if parity.mode == "off":
        write_line("parity: not checked")
        return
    verdict = "passed" if parity.passed else "FAILED"
    checked = f"; {parity.tensors_checked} tensors re-read and found right" if parity.tensors_checked else ""
    write_line(f"parity {verdict} ({parity.mode}: {parity.why}){checked}")
    rows = [_parity_row(name, output, group) for (name, output), group in _by_output(parity).items()]
    numbers = ("max abs difference", "cosine", "sizes")
    write_table(("graph", "output", *numbers, "verdict"), rows, right=numbers)
    for stem, size in parity.smallest.items():
        write_line(f"smallest failing size of {stem}: {size}")
    for warning in parity.warnings:
        write_line(f"warning: {warning}")


def _by_output(parity: ParityReport) -> dict[tuple[str, str], list[Comparison]]:
    groups: dict[tuple[str, str], list[Comparison]] = {}
    for row in parity.comparisons:
        groups.setdefault((row.component, row.output), []).append(row)
    return groups


def _parity_row(component: str, output: str, group: list[Comparison]) -> tuple[str, ...]:
    return (
        component,
        output,
        f"{max(row.max_abs for row in group):.1e}",
        f"{min(row.cosine for row in group):.7f}",
        str(len({row.size for row in group})),
        "passed" if all(row.passed for row in group) else "FAILED",
    )


def show_bisection(found: Sequence[Divergence]) -> None:
    """Where each graph departs: the module, what goes into it, what it became, and the points around."""
    if not found:
        write_line("parity passed: nothing to bisect")
    for entry in found:
        for line in entry.lines():
            write_line(line)
        numbers = ("max abs difference", "cosine")
        rows = [
            (str(row), f"{row.max_abs:.1e}", f"{row.cosine:.7f}", "agrees" if row.agrees else "DIFFERS")
            for row in entry.around()
        ]
        write_table(("point", *numbers, "verdict"), rows, right=numbers)


def show_ranking(ranked: Sequence[AddedError], *, everything: bool) -> None:
    """Modules by the error they add, the worst first; twenty of them, unless all are wanted."""
    shown = ranked if everything else ranked[:20]
    numbers = ("adds", "gathered", "least cosine")
    rows = [
        (entry.component, entry.module, f"{entry.added:.2e}", f"{entry.gathered:.2e}", f"{entry.cosine:.6f}")
        for entry in shown
    ]
    write_table(("graph", "module", *numbers), rows, right=numbers)
    if len(shown) < len(ranked):
        write_line(f"and {len(ranked) - len(shown)} modules that add less; --verbose shows them")


def show_architectures(architectures: Iterable[Architecture]) -> None:
    """What `--arch` and `--task` may be: those of a kind together, under the tasks that all of them have."""
    kinds: dict[str, dict[tuple[str, ...], list[str]]] = {}
    for entry in architectures:
        kinds.setdefault(entry.summary, {}).setdefault(tuple(entry.tasks), []).append(_names(entry))
    for summary, groups in kinds.items():
        write_line(summary)
        for tasks, names in groups.items():
            write_list("  ", names)
            write_list("    tasks: ", tasks)
        write_line()
    count = sum(len(names) for groups in kinds.values() for names in groups.values())
    write_line(f"{count} architectures; `converter list --arch NAME` shows the variants and inputs of one")


def _names(architecture: Architecture) -> str:
    """The name, and the model types it owns that are not it."""
    spelt = {architecture.name, architecture.name.replace("_", "-")}
    others = [kind for kind in architecture.model_types if kind not in spelt]
    return f"{architecture.name} ({', '.join(others)})" if others else architecture.name


def show_architecture(
    architecture: Architecture, graphs: Sequence[Interface], unshown: Sequence[Unshown]
) -> None:
    """One architecture: each task with its variants, and what goes into and comes out of its graphs."""
    write_line(f"{architecture.name}: {architecture.summary}; {_found_by(architecture)}")
    if architecture.reference_checkpoint:
        write_line(f"reference checkpoint: {architecture.reference_checkpoint}")
    if architecture.stand_in is not None:
        write_list("tasks, of models that have a class for them: ", architecture.tasks)
        write_line("`converter list --arch MODEL_TYPE` shows the inputs of one model type")
        return
    if any(isinstance(side, int) for graph in graphs for _, _, shape in graph.inputs for side in shape):
        write_line(
            "numbers in shapes are those of the small model that --tiny makes; a checkpoint has its own"
        )
    for task, variants in architecture.variants.items():
        write_line(f"\n{task}")
        for variant in variants:
            write_line(f"  {variant.name}: {variant.summary} ({', '.join(variant.stems)})")
        for graph in (graph for graph in graphs if graph.task == task):
            rows = [("in", name, dtype, " x ".join(map(str, shape))) for name, dtype, shape in graph.inputs]
            rows += [("out", name, "", "") for name in graph.outputs]
            write_table((graph.stem, "name", "type", "shape"), rows)
        for entry in (entry for entry in unshown if entry.task == task):
            write_line(f"  inputs cannot be shown: {entry.reason}")


def show_auto(stand_ins: Sequence[Architecture]) -> None:
    """What a conversion without `--arch` goes by, and what takes the models that no architecture owns."""
    write_line(
        "auto: the architecture that knows the checkpoint's files, or owns the model_type in config.json"
    )
    for entry in stand_ins:
        write_line("for a model type that no architecture owns:\n")
        show_architecture(entry, (), ())


def _found_by(architecture: Architecture) -> str:
    """How a checkpoint is known to be the architecture's, in the words of `converter list`."""
    if architecture.model_types:
        return f"model types: {', '.join(architecture.model_types)}"
    if architecture.stand_in is not None:
        return "model types: those that nobody else owns"
    return "no model types: its checkpoints are known by their layout, or named with --arch"


def describe_architecture(
    architecture: Architecture, graphs: Sequence[Interface] = (), unshown: Sequence[Unshown] = ()
) -> dict[str, Any]:
    """The same for a program."""
    return {
        "graphs": [asdict(graph) for graph in graphs],
        "unshown": [asdict(entry) for entry in unshown],
        "name": architecture.name,
        "model_types": list(architecture.model_types),
        "summary": architecture.summary,
        "reference_checkpoint": architecture.reference_checkpoint,
        "tasks": {
            task: [{"name": variant.name, "summary": variant.summary} for variant in variants]
            for task, variants in architecture.variants.items()
        },
    }


# What plugins place among others by a number, in the words of `converter plugins`; fields of `Registry`.
ORDERED = {"graph passes": "passes", "package files": "package_files", "card sections": "card_sections"}


def show_plugins(registry: Registry) -> None:
    """Every plugin and what it brought, then a line for each override and each plugin that failed."""
    for plugin in registry.plugins:
        write_line(f"{plugin.name} ({plugin.label}, API {plugin.api or 'not stated'})")
        brought = {title: names for title, names in plugin.brought.items() if names}
        for title, names in brought.items():
            write_list(f"  {title.replace('_', ' ')}: ", names)
        if not brought:
            write_line("  nothing that is in force")
        if plugin.imported:
            write_line(
                f"  imports {', '.join(plugin.imported)} when it is loaded: every command waits for that"
            )
    write_line()
    for noun, entries in ORDERED.items():
        placed = [f"{entry.name} {entry.order}" for entry in getattr(registry, entries)]
        write_list(f"{noun} in their order: ", placed)
    for override in registry.overrides:
        write_line(f"override: {override}")
    for failure in registry.failures:
        write_line(f"failed: {failure}")


def describe_plugins(registry: Registry) -> dict[str, Any]:
    """The same for a program."""
    plugins = [
        {
            "name": plugin.name,
            "distribution": plugin.distribution,
            "version": plugin.version,
            "api": plugin.api,
            **{title: list(listed) for title, listed in plugin.brought.items()},
            "imported": list(plugin.imported),
        }
        for plugin in registry.plugins
    ]
    return {
        "plugins": plugins,
        "pass_order": {entry.name: entry.order for entry in registry.passes},
        "file_order": {entry.name: entry.order for entry in registry.package_files},
        "section_order": {entry.name: entry.order for entry in registry.card_sections},
        "overrides": [asdict(entry) for entry in registry.overrides],
        "failures": [asdict(entry) for entry in registry.failures],
    }


def show_package(info: PackageInfo) -> None:
    """What a package says it is, whether it still is that, and its graphs."""
    record = info.record
    source = record.get("source", {})
    write_line(f"{info.folder}: {record.get('architecture')}, {record.get('task')}")
    write_line(f"source: {source.get('name')} at {source.get('revision') or 'no recorded revision'}")
    parity = record.get("parity", {})
    outcome = "passed" if parity.get("passed") else "failed"
    checked = parity.get("mode", "off") != "off"
    write_line(f"parity when made: {outcome} ({parity['mode']})" if checked else "parity: never checked")
    for graph in info.graphs:
        weights = size_text(graph.initializer_bytes)
        write_line(f"\n{graph.file}: opset {graph.opset}, {graph.nodes} nodes, {weights} of weights")
        values = [("in", value) for value in graph.inputs] + [("out", value) for value in graph.outputs]
        write_table(
            ("", "name", "type", "shape"),
            [(way, value.name, value.dtype, " x ".join(map(str, value.shape))) for way, value in values],
        )
    write_line()
    write_table(
        ("file", "size"), [(name, size_text(size)) for name, size in info.files.items()], right=("size",)
    )
    findings = (
        ("altered", info.altered),
        ("missing", info.missing),
        ("surplus, not recorded", info.extra),
        ("edited since, which is no damage", info.edited),
    )
    for word, names in findings:
        for name in names:
            write_line(f"{word}: {name}")
    write_line(_verdict(info))


def _verdict(info: PackageInfo) -> str:
    if not info.intact:
        return "the package is damaged"
    if info.extra:
        return "every recorded file is there and unchanged, but others are there too"
    return "every recorded file is there and unchanged"
