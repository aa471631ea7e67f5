"""docs/architectures.md, written from the results of `scripts/coverage.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def results(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The last result of each case. One of the opset that is the default now outdates any other."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = sorted(map(json.loads, lines), key=current)
    return {(row["arch"], row["task"]): row for row in rows}


def current(row: Mapping[str, Any]) -> bool:
    """Whether a result is of the opset that is the default now."""
    from converter.request import DEFAULT_OPSET

    return bool(row.get("opset") == DEFAULT_OPSET)


def passes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of a table of what passed."""
    return [
        "| model type | task | result | max difference | seconds |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {row['model_type']} | {row['task']} | pass | {row['difference']:.1e} | {row['seconds']} |"
            for row in rows
        ),
    ]


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """docs/architectures.md."""
    from converter.request import DEFAULT_OPSET

    ordered = sorted(rows, key=lambda row: (row["model_type"], row["task"]))
    passed = [row for row in ordered if row["result"] == "pass" and current(row)]
    failed = [row for row in ordered if row["result"] != "pass" and current(row)]
    older = [row for row in ordered if row["result"] == "pass" and not current(row)]
    types = {row["model_type"] for row in passed}
    lines = [
        "# Architectures",
        "",
        f"Written by `scripts/coverage.py`: {len(types)} model types, {len(passed)} pairs of model type and task"
        f" pass, at opset {DEFAULT_OPSET}.",
        "Each is a small checkpoint of odd sizes and random weights, converted, and its graphs compared with the",
        "untouched original at sizes that tracing never saw: batch 1, every other axis at its least, padding on both",
        "sides. The difference is the largest of any unmasked output element at any of these sizes. Seconds are of a",
        "machine of two cores that others used too.",
        "",
        *passes(passed),
    ]
    if older:
        lines += [
            "",
            "## Not run again yet",
            "",
            f"These passed before opset {DEFAULT_OPSET} was the default.",
            "",
        ]
        lines += passes(older)
    if failed:
        lines += ["", "## Failures", "", "| model type | task | reason |", "| --- | --- | --- |"]
        lines += [
            f"| {row['model_type']} | {row['task']} | {row['reason'].replace('|', '/')} |" for row in failed
        ]
    return "\n".join([*lines, ""])
