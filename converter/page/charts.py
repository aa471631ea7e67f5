"""Charts as inline SVG: a title and a description for readers, colours from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 860
ROW, TOP, RIGHT = 26, 10, 130
LETTER, LONGEST = 6.6, 52  # the width of a letter, about, and the most of a label that is shown


@dataclass(frozen=True)
class Row:
    """A row of a chart: its label, a value, and the note written beside it. `kind` is `main` or `other`."""

    label: str
    value: float
    note: str
    kind: str = "main"


@dataclass(frozen=True)
class Bar(Row):
    """A bar as long as its value, with a whisker between its quartiles where it has them."""

    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Dot(Row):
    """A point on a logarithmic axis, a square for `other`; `bound` is a mark on its row."""

    bound: float | None = None


def bars(name: str, title: str, description: str, items: Sequence[Bar]) -> str:
    """Horizontal bars from zero."""
    left, plot = _columns([item.label for item in items])
    most = max((max(item.value, item.high or 0) for item in items), default=0) or 1
    parts = []
    for index, item in enumerate(items):
        y, length = TOP + index * ROW, plot * item.value / most
        parts.append(_label(item.label, left, y))
        parts.append(
            f'<rect class="{item.kind}" x="{left}" y="{y + 4}" width="{length:.1f}" height="{ROW - 9}"/>'
        )
        if item.low is not None and item.high is not None:
            parts.append(_whisker(y, left + plot * item.low / most, left + plot * item.high / most))
        end = left + max(length, plot * (item.high or 0) / most)
        parts.append(f'<text x="{end + 8:.1f}" y="{y + 17}">{escape(item.note)}</text>')
    return _figure(name, title, description, parts, len(items))


def _columns(labels: Sequence[str]) -> tuple[int, int]:
    """Where the plot begins, to the right of the longest label, and how wide it is."""
    longest = min(max(map(len, labels), default=0), LONGEST)
    left = 20 + math.ceil(LETTER * longest)
    return left, WIDTH - left - RIGHT


def _whisker(y: int, left: float, right: float) -> str:
    middle = y + 12.5
    ends = "".join(
        f'<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{middle - 5}" y2="{middle + 5}"/>'
        for x in (left, right)
    )
    return f'<line class="whisker" x1="{left:.1f}" x2="{right:.1f}" y1="{middle}" y2="{middle}"/>{ends}'


def dots(
    name: str,
    title: str,
    description: str,
    items: Sequence[Dot],
    limit: float | None = None,
    *,
    floor: float = 1e-9,
) -> str:
    """Points on a logarithmic axis, with a line at `limit`. What is zero lies at the left end."""
    low, high = _decades(items, limit, floor)
    span = max(high - low, 1)
    left, plot = _columns([item.label for item in items])

    def place(value: float) -> float:
        bounded = min(max(value, 10.0**low), 10.0**high) if not math.isnan(value) else 10.0**high
        return left + plot * (math.log10(bounded) - low) / span

    bottom = TOP + len(items) * ROW
    parts = [_gridline(place(10.0**power), bottom, f"1e{power}") for power in range(low, high + 1)]
    if limit is not None:
        parts.append(_limit(place(limit), TOP, bottom))
    for index, item in enumerate(items):
        y = TOP + index * ROW
        if item.bound is not None:
            parts.append(_limit(place(item.bound), y + 2, y + ROW - 2))
        parts.append(_label(item.label, left, y))
        parts.append(_mark(item, place(item.value), y + 12.5))
        parts.append(f'<text x="{WIDTH - RIGHT + 12}" y="{y + 17}">{escape(item.note)}</text>')
    return _figure(name, title, description, parts, len(items) + 1)


def _decades(items: Sequence[Dot], limit: float | None, floor: float) -> tuple[int, int]:
    """The powers of ten between which all values and bounds lie, with room on both sides."""
    bounds = [item.bound for item in items if item.bound is not None] + ([] if limit is None else [limit])
    values = [item.value for item in items if math.isfinite(item.value) and item.value > floor]
    known = [*values, *bounds] or [1.0]
    room = 1 if not values or max(bounds, default=0.0) >= max(values) else 0
    return math.floor(math.log10(min(known))) - 1, math.ceil(math.log10(max(known))) + room


def _gridline(x: float, bottom: int, label: str) -> str:
    line = f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>'
    return f'{line}<text class="quiet" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{label}</text>'


def _limit(x: float, top: int, bottom: int) -> str:
    return f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'


def _mark(item: Dot, x: float, y: float) -> str:
    if item.kind == "main":
        return f'<circle class="main" cx="{x:.1f}" cy="{y}" r="5"/>'
    return f'<rect class="{item.kind}" x="{x - 4.5:.1f}" y="{y - 4.5}" width="9" height="9"/>'


def _label(label: str, left: int, y: int) -> str:
    shown = label if len(label) <= LONGEST else label[: LONGEST - 1] + "\u2026"
    full = f"<title>{escape(label)}</title>"
    return f'<text x="{left - 10}" y="{y + 17}" text-anchor="end">{full}{escape(shown)}</text>'


def _figure(name: str, title: str, description: str, parts: Sequence[str], rows: int) -> str:
    height = TOP * 2 + rows * ROW
    return (
        f'<figure tabindex="0"><svg viewBox="0 0 {WIDTH} {height}" role="img"'
        f' aria-labelledby="{name}-title {name}-about">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-about">{escape(description)}</desc>'
        f"{''.join(parts)}</svg></figure>"
    )
