"""Size against quality of all that was tried, as an SVG, from a package's record.

    python scripts/plot_precisions.py PACKAGE docs/precisions.svg

Across: bytes as a share of fp32. Up: 1 - cosine on a logarithmic scale, less error higher. Rings are trials, on the
samples that plans are chosen by; dots are what was taken, on the samples that only judge.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

WIDTH, HEIGHT, LEFT, BOTTOM = 720, 420, 70, 50
RIGHT, TOP = 20, 20
COLOURS = ("#1b6ca8", "#c8553d", "#3c896d", "#8d5a97", "#b58b00", "#4d4d4d", "#d1495b")


@dataclass(frozen=True)
class Point:
    """A plan: share of fp32's bytes, 1 - cosine, what it is, and whether it was taken."""

    share: float
    error: float
    label: str
    precision: str
    taken: bool


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path)
    parser.add_argument("svg", type=Path)
    given = parser.parse_args()
    record = json.loads((given.package / "converter.json").read_text())
    points = list(read_points(record["precisions"]))
    given.svg.write_text(draw(points), encoding="utf-8")
    print(f"{given.svg}: {len(points)} plans of {given.package.name}")


def read_points(entries: dict[str, Any]) -> Sequence[Point]:
    """Trials and chosen plans of every precision that was judged by cosine."""
    points = []
    for name, entry in entries.items():
        if "cosine" not in entry["quality"]:
            continue
        whole = entry["bytes"] / entry["ratio"]
        points += [
            Point(trial["bytes"] / whole, 1 - trial["cosine"], trial["plan"], name, taken=False)
            for trial in entry["tried"]
        ]
        points.append(Point(entry["ratio"], 1 - entry["quality"]["cosine"], entry["label"], name, taken=True))
    return points


def draw(points: Sequence[Point]) -> str:
    """The SVG. The same points give the same text."""
    errors = [max(point.error, 1e-8) for point in points]
    low, high = math.floor(math.log10(min(errors))), math.ceil(math.log10(max(errors)))
    least, most = min(p.share for p in points) - 0.02, max(p.share for p in points) + 0.02

    def across(share: float) -> float:
        return LEFT + (share - least) / (most - least) * (WIDTH - LEFT - RIGHT)

    def up(error: float) -> float:
        return TOP + (math.log10(max(error, 1e-8)) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    names = list(dict.fromkeys(point.precision for point in points))
    colours = {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for power in range(low, high + 1):
        y = up(10.0**power)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for tenth in range(math.ceil(least * 10), math.floor(most * 10) + 1):
        x = across(tenth / 10)
        parts.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eeeeee"/>')
        parts.append(
            f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{tenth / 10:g}</text>'
        )
    for point in sorted(points, key=lambda p: p.taken):
        colour, radius = colours[point.precision], 6 if point.taken else 4
        fill = colour if point.taken else "none"
        parts.append(
            f'<circle cx="{across(point.share):.1f}" cy="{up(point.error):.1f}" r="{radius}" fill="{fill}" '
            f'stroke="{colour}"><title>{escape(point.precision)}: {escape(point.label)}</title></circle>'
        )
    for row, name in enumerate(names):
        y = TOP + 14 + 18 * row
        parts.append(f'<circle cx="{WIDTH - 100}" cy="{y - 4}" r="5" fill="{colours[name]}"/>')
        parts.append(f'<text x="{WIDTH - 88}" y="{y}">{escape(name)}</text>')
    parts.append(
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">bytes as a share of fp32</text>'
    )
    turned = f'transform="rotate(-90 16 {HEIGHT / 2})"'
    parts.append(f'<text x="16" y="{HEIGHT / 2}" text-anchor="middle" {turned}>1 - mean cosine</text>')
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    main()
