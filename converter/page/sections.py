"""The sections of the page: each a function of what is known of the package, giving HTML or nothing to say."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from converter.card.facts import CardFacts
from converter.card.sections import budget_text, number_text, verdict
from converter.packages.package import PackageInfo
from converter.page.charts import Bar, Dot, bars, dots
from converter.page.html import element, paragraph, table, text
from converter.text import size_text

LIMIT = 1e-4  # the promise of fp32; a package of another dtype shows its own verdicts beside it


def overview(facts: CardFacts, info: PackageInfo) -> str:
    """What it is, whether its files are what was recorded, whether it was proven."""
    rows = [
        ("architecture", facts.record.get("architecture")),
        ("task", facts.record.get("task")),
        ("graphs", ", ".join(graph["file"] for graph in facts.graphs.values())),
        ("precisions", ", ".join((facts.dtype, *facts.precisions))),
        ("size of all files", size_text(sum(facts.files.values()))),
    ]
    state = text(
        "span", "unchanged" if info.exact else "not as recorded", class_="good" if info.exact else "bad"
    )
    wrong = [*info.altered, *info.missing, *info.extra]
    named = text("span", f"({', '.join(wrong)})") if wrong else ""
    return (
        paragraph(_verdict(facts.record.get("parity") or {}))
        + paragraph("Files, by their sha256 when this page was written:", state, named)
        + table("The package", ("", "value"), rows)
    )


def _verdict(parity: Mapping[str, Any]) -> str:
    if parity.get("mode", "off") == "off":
        return text("span", "Parity was not checked.", class_="bad")
    passed = bool(parity.get("passed"))
    words = f"Parity {'passed' if passed else 'FAILED'} ({parity['mode']}), {len(parity.get('sizes') or ())} sizes."
    return text("span", words, class_="good" if passed else "bad")


def sizes(facts: CardFacts, info: PackageInfo) -> str:
    """Bytes of the files of each precision, and what is in each graph."""
    items = [
        Bar(
            f"{precision}: {name.removeprefix('onnx/')}",
            facts.files.get(name, 0),
            size_text(facts.files.get(name, 0)),
        )
        for precision, names in facts.files_of.items()
        for name in names
    ]
    rows = [
        (graph.file, graph.opset, graph.nodes, graph.initializers, size_text(graph.initializer_bytes))
        for graph in info.graphs
    ]
    numbers = ("opset", "nodes", "initializers", "weights")
    about = "; ".join(f"{item.label} {item.note}" for item in items)
    return bars("sizes", "Bytes of each file", about, items) + table(
        "Graphs", ("graph", *numbers), rows, numbers=numbers
    )


def parity(facts: CardFacts, info: PackageInfo) -> str:
    """The largest difference of graph and original at each size, and all pairs in a table."""
    record = facts.record.get("parity") or {}
    rows = list(record.get("by_size") or ())
    if not rows:
        return paragraph("This package's record has no figures by size.")
    shown = [row for row in rows if {"graph", "original"} == set(row["pair"].split("/"))] or rows
    items = [
        Dot(
            f"{row['component']}: {row['size']}",
            float(row["max_abs"]),
            f"{float(row['max_abs']):.1e}",
            "main" if row["passed"] else "other",
        )
        for row in shown
    ]
    about = (
        f"Largest absolute difference of graph and original at {len(items)} sizes; the dashed line is {LIMIT:g};"
        f" the largest is {max(item.value for item in items):.1e}"
    )
    checked = record.get("tensors_checked")
    note = (
        paragraph(f"{checked} stored tensors were read back and compared with the checkpoint.")
        if checked
        else ""
    )
    return (
        paragraph(
            "Largest absolute difference between the graph and the original, by size. The dashed line is 0.0001."
        )
        + dots("parity", "Parity by size", about, items, LIMIT)
        + note
        + element("details", text("summary", f"All {len(rows)} comparisons") + _comparisons(rows))
    )


def _comparisons(rows: Sequence[Mapping[str, Any]]) -> str:
    listed = [
        (
            f"{row['component']}: {row['size']}",
            row["pair"].replace("/", " against "),
            row["output"],
            f"{float(row['max_abs']):.2e}",
            f"{float(row['cosine']):.8f}",
            "passed" if row["passed"] else "FAILED",
        )
        for row in rows
    ]
    numbers = ("max abs difference", "cosine")
    return table(
        "Every size: the output that is farthest off, of each pair",
        ("size", "compared", "output", *numbers, "verdict"),
        listed,
        numbers=numbers,
    )


def quality(facts: CardFacts, info: PackageInfo) -> str:
    """What each precision keeps."""
    if not facts.precisions:
        return paragraph("No other precisions were added:", text("code", "converter quantize"), "does.")
    rows = [
        (
            name,
            *(number_text((entry.get("quality") or {}).get(measure)) for measure in facts.measures),
            f"{entry['ratio']:.3f}",
            budget_text(entry),
            verdict(entry),
        )
        for name, entry in facts.precisions.items()
    ]
    numbers = (*facts.measures, "size of fp32")
    return _errors(facts) + table(
        "Quality against fp32",
        ("precision", *numbers, "budget", "verdict"),
        rows,
        numbers=numbers,
    )


def _errors(facts: CardFacts) -> str:
    """How far off each precision is, as 1 - cosine, and what it had to keep. Cosines themselves all look like 1."""
    items = [
        Dot(
            name,
            max(1 - float(cosine), 1e-7),
            f"cosine {cosine:.5f}",
            "main" if entry["passed"] else "other",
            None if (bound := (entry.get("budget") or {}).get("cosine")) is None else max(1 - bound, 1e-7),
        )
        for name, entry in facts.precisions.items()
        if (cosine := (entry.get("quality") or {}).get("cosine")) is not None
    ]
    if not items:
        return ""
    about = "; ".join(f"{item.label} {item.note}" for item in items)
    return paragraph(
        "1 - mean cosine to fp32, less is better. A dashed mark is what the precision had to keep."
    ) + dots("quality", "1 - mean cosine to fp32", about, items)


def speed(facts: CardFacts, info: PackageInfo) -> str:
    """The recorded benchmark: medians with quartiles, and the table of ratios."""
    from converter.bench.report import BenchReport

    content = facts.record.get("benchmark")
    if not content:
        return paragraph(
            "No benchmark was recorded:",
            text("code", "converter bench PACKAGE --model CHECKPOINT --record"),
            "does.",
        )
    report = BenchReport.from_json(content)
    charts = []
    for index, measure in enumerate(report.measures):
        items = []
        for contender in report.contenders:
            spread = contender.figures[measure.name]
            kind = "other" if contender is report.contenders[0] else "main"
            note = f"{measure.text(spread).split(' ')[0]}, {report.ratios(contender)[measure.name]:.2f}x"
            items.append(Bar(contender.name, spread.median, note, kind, spread.low, spread.high))
        better = "shorter" if measure.better == "lower" else "longer"
        title = f"{measure.title} ({better} is better)"
        about = "; ".join(f"{item.label} {item.note}" for item in items)
        charts.append(text("h3", title) + bars(f"speed{index}", title, about, items))
    header, rows = report.table()
    machine, method = report.conditions
    return (
        paragraph(text("span", f"{machine}; {method}."))
        + "".join(charts)
        + table(f"Ratios to {report.contenders[0].name}, and figures", header, rows, numbers=header[1:])
    )


def provenance(facts: CardFacts, info: PackageInfo) -> str:
    """Source, versions, settings, notes, and every file with its hash."""
    record, source = facts.record, facts.source
    rows = [
        ("source", source.get("name")),
        ("revision", source.get("revision") or "not recorded"),
        ("licence", source.get("license") or "the source names none"),
        *((name, number) for name, number in (record.get("versions") or {}).items()),
        ("peak memory", size_text(record.get("peak_memory_bytes") or 0)),
        ("seconds", f"{sum(stage['seconds'] for stage in record.get('stages') or ()):.1f}"),
    ]
    settings = json.dumps(record.get("settings") or {}, indent=1, sort_keys=True)
    hashes = [
        (name, size_text(entry["bytes"]), entry["sha256"])
        for name, entry in (record.get("files") or {}).items()
    ]
    notes = "".join(text("li", note) for note in record.get("notes") or ())
    return (
        table("Where it comes from and what made it", ("", "value"), rows)
        + (element("ul", notes) if notes else "")
        + element("details", text("summary", "Settings") + element("pre", text("code", settings)))
        + element(
            "details",
            text("summary", f"{len(hashes)} files and their hashes")
            + table("Files", ("file", "size", "sha256"), hashes, numbers=("size",)),
        )
    )
