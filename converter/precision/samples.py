"""Inputs to calibrate and to judge by: texts and pictures that come along, and those a user gives.

The texts were written for this project and are under its licence. `corpus.txt` is for choosing, `evaluation.txt` for
judging alone: it was written before anything was measured on it, and no choice was made on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from converter.errors import UsageError
from converter.runtime.images import SUFFIXES, list_images

GENERATED = "generated"
_LINES = (".jsonl", ".ndjson", ".json")


@cache
def corpus() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Calibration and evaluation texts."""
    return _lines("corpus.txt"), _lines("evaluation.txt")


def _lines(name: str) -> tuple[str, ...]:
    text = (files("converter.precision") / name).read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if line.strip())


@dataclass(frozen=True)
class Given:
    """Samples a user gave: texts, image paths, or feeds by input name; and what they were read from."""

    kind: str  # "texts", "images", "feeds" or "generated"
    items: tuple[Any, ...]
    source: str


def read_samples(source: str | Path, count: int | None, *, option: str = "--calibration") -> Given:
    """Samples from a text file (a text a line), JSON lines, or a folder of images; `generated` makes them up.

    A JSON line is a string, an object with `text`, or an object of arrays by input name. All are given, also beyond
    `count`. Raises UsageError for what cannot be read, holds nothing, or holds fewer than `count`.
    """
    if str(source) == GENERATED:
        return Given("generated", tuple(range(count or 0)), GENERATED)
    path = Path(source).expanduser()
    if path.is_dir():
        kind, items = "images", tuple(list_images(path))
    elif path.suffix.lower() in SUFFIXES:
        kind, items = "images", (path,)
    else:
        kind, items = _read_file(path, option)
    if not items:
        raise UsageError(f"{option} {path} holds no samples", remedy="give one sample a line")
    if count is not None and len(items) < count:
        raise UsageError(
            f"{option} {path} holds {len(items)} samples, but {count} were asked for",
            remedy=f"give more, or --num-samples {len(items)}",
        )
    return Given(kind, items, str(source))


def require_apart(calibration: Given, evaluation: Given) -> None:
    """Raise UsageError where samples that plans are chosen by would judge them as well."""
    known = {item for item in calibration.items if isinstance(item, str | Path)}
    shared = [item for item in evaluation.items if isinstance(item, str | Path) and item in known]
    same = evaluation.kind != "generated" and evaluation.source == calibration.source
    if shared or same:
        raise UsageError(
            f"--evaluation {evaluation.source} holds {len(shared) or len(evaluation.items)} of the samples of"
            f" --calibration {calibration.source}: what a recipe is chosen by cannot judge it",
            remedy="take them out of one of the two",
        )


def _read_file(path: Path, option: str) -> tuple[str, tuple[Any, ...]]:
    try:
        # Not splitlines: a text may hold what Unicode calls a line separator. The mark is of Windows' editors.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{option} {path} cannot be read: {error}",
            remedy="give a UTF-8 text file, JSON lines, or a folder of images",
        ) from error
    if path.suffix.lower() not in _LINES:
        return "texts", tuple(line for line in lines if line.strip())
    entries = [
        _entry(line, f"{option} {path}, line {number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    kinds = {"texts" if isinstance(entry, str) else "feeds" for entry in entries}
    if len(kinds) > 1:
        raise UsageError(f"{option} {path} mixes texts with arrays", remedy="give one kind of sample a file")
    return next(iter(kinds), "texts"), tuple(entries)


def _entry(line: str, where: str) -> Any:
    try:
        entry = json.loads(line)
        if isinstance(entry, str):
            return entry
        if isinstance(entry, dict) and isinstance(entry.get("text"), str):
            return entry["text"]
        if isinstance(entry, dict) and entry:
            arrays = {str(name): np.asarray(values) for name, values in entry.items()}
            if all(values.dtype.kind in "biuf" for values in arrays.values()):
                return arrays
    except ValueError as error:
        raise UsageError(f"{where} cannot be read: {error}", remedy="give one JSON value a line") from error
    raise UsageError(
        f"{where} is neither a text nor an object of arrays of numbers",
        remedy='write "a text", {"text": "a text"} or {"input name": [[...]]}',
    )


def draw_pages(texts: Sequence[str], count: int) -> list[Any]:
    """Pages as a scanner might give them, PIL images: sentences in lines, a figure; page n begins with text n."""
    from PIL import Image, ImageDraw

    pages = []
    for number in range(count):
        draw = np.random.default_rng(number)
        page = Image.new("RGB", (256, 320), _shade(draw, 225, 256))
        pen = ImageDraw.Draw(page)
        lines = [texts[(number + step * 53) % len(texts)] for step in range(3)]
        pieces = [piece for line in lines for piece in _wrapped(line, 38)]
        for row, piece in enumerate(pieces):
            pen.text((14, 14 + 13 * row), piece, fill=(20, 20, 30))
        _figure(pen, draw, (20, 180), (120, 240))
        pages.append(page)
    return pages


def draw_pictures(count: int, first: int = 0) -> list[Any]:
    """Pictures of overlapping shapes on a shaded ground, PIL images, for models that look at no pages."""
    from PIL import Image, ImageDraw

    pictures = []
    for number in range(first, first + count):
        draw = np.random.default_rng(number)
        steps = np.linspace(0, 1, 256)
        corners = draw.integers(0, 256, (2, 2, 3))
        top, bottom = (np.outer(1 - steps, row[0]) + np.outer(steps, row[1]) for row in corners)
        ground = top[None] * (1 - steps)[:, None, None] + bottom[None] * steps[:, None, None]
        picture = Image.fromarray((ground + draw.integers(0, 8, ground.shape)).clip(0, 255).astype(np.uint8))
        pen = ImageDraw.Draw(picture)
        for _ in range(int(draw.integers(3, 9))):
            _figure(pen, draw, (-20, -20), (220, 220))
        pictures.append(picture)
    return pictures


def _figure(pen: Any, draw: np.random.Generator, low: tuple[int, int], high: tuple[int, int]) -> None:
    left, top = (int(place) for place in draw.integers(low, high))
    corner = (left + int(draw.integers(30, 110)), top + int(draw.integers(20, 90)))
    shape = (pen.rectangle, pen.ellipse)[int(draw.integers(2))]
    shape((left, top, *corner), fill=_shade(draw, 0, 200))


def _shade(draw: np.random.Generator, low: int, high: int) -> tuple[int, ...]:
    return tuple(int(value) for value in draw.integers(low, high, 3))


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def draw_feed(shapes: Mapping[str, tuple[Any, ...]], types: Mapping[str, str], seed: int) -> dict[str, Any]:
    """Made-up values for float inputs; an axis without a fixed size gets the same small one wherever it is named.

    Raises UsageError for inputs of whole numbers: nothing says what they may be.
    """
    draw = np.random.default_rng(seed)
    sizes: dict[Any, int] = {}
    feed = {}
    for name, shape in shapes.items():
        if "float" not in types[name] and "double" not in types[name]:
            raise UsageError(
                f"inputs cannot be made up for {name!r}, which takes {types[name]}: nothing says what it may hold",
                remedy="give --calibration with a file of JSON lines, or a tokenizer beside a text model",
            )
        extent = [
            size if isinstance(size, int) and size > 0 else sizes.setdefault(size, int(draw.integers(2, 6)))
            for size in shape
        ]
        feed[name] = draw.standard_normal(extent).astype(np.float32)
    return feed
