"""docs/architectures.md, written from the results of `scripts/coverage.py`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HEADING = "## Results"


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
    """The results in docs/architectures.md; what stands above them there is written by hand."""
    from converter.request import DEFAULT_OPSET

    ordered = sorted(rows, key=lambda row: (row["model_type"], row["task"]))
    passed = [row for row in ordered if row["result"] == "pass" and current(row)]
    failed = [row for row in ordered if row["result"] != "pass" and current(row)]
    types = {row["model_type"] for row in passed}
    versions = Counter(row["versions"] for row in passed if "versions" in row)
    lines = [
        HEADING,
        "",
        f"{len(types)} model types, {len(passed)} pairs of model type and task pass, at opset {DEFAULT_OPSET}"
        f" ({'; '.join(f'{count} with {name}' for name, count in sorted(versions.items()))}).",
        "",
        *passes(passed),
    ]
    if failed:
        lines += ["", "## Failures", "", "| model type | task | reason |", "| --- | --- | --- |"]
        lines += [
            f"| {row['model_type']} | {row['task']} | {row['reason'].replace('|', '/')} |" for row in failed
        ]
    return "\n".join([*lines, ""])


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put the results in place of those that the file has."""
    head = path.read_text().partition(HEADING)[0] if path.exists() else ""
    path.write_text(head + table(rows))
