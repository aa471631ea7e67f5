"""The options of precisions, for `converter quantize` and for conversions, as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

FILE = click.Path(dir_okay=False, path_type=Path)
# Spelt out, since the modules that know them import numpy.
TARGETS = ("auto", "arm64", "avx2", "avx512", "avx512_vnni", "tensorrt", "webgpu")
METHODS = ("minmax", "entropy", "percentile")
SIZES = ("16", "32", "64", "128", "256")

QUANTIZATION = (
    click.option(
        "--keep",
        multiple=True,
        metavar="MEASURE=BOUND",
        help="Quality to keep: cosine=0.999, top1=0.99. May be repeated.",
    ),
    click.option(
        "--prefer",
        type=click.Choice(["size", "speed"]),
        default="size",
        show_default=True,
        help="Which plan to take of those that keep their budget.",
    ),
    click.option("--unjudged", is_flag=True, help="Write precisions without measuring them."),
    click.option(
        "--calibration",
        metavar="SOURCE",
        help="Calibrate on a text file, JSON lines, a folder of images, or `generated`.",
    ),
    click.option("--evaluation", metavar="SOURCE", help="Inputs to measure quality on, in the same formats."),
    click.option(
        "--num-samples", type=click.IntRange(1), help="Calibration samples to use; fewer is an error."
    ),
    click.option(
        "--static", type=click.Choice(METHODS), help="Calibrate 8-bit activations by this method (QDQ)."
    ),
    click.option(
        "--target",
        type=click.Choice(TARGETS),
        default="auto",
        show_default=True,
        help="Hardware it will run on.",
    ),
    click.option("--per-channel/--no-per-channel", default=None, help="One scale per column of a matrix."),
    click.option("--reduce-range/--no-reduce-range", default=None, help="7-bit weights."),
    click.option(
        "--weight-type",
        type=click.Choice(["QInt8", "QUInt8"]),
        help="Type of weights with a scale per column.",
    ),
    click.option("--block-size", type=click.Choice(SIZES), help="Weights per scale, for formats in blocks."),
    click.option("--symmetric/--no-symmetric", default=None, help="Without zero points."),
    click.option(
        "--accuracy-level", type=click.IntRange(0, 4), help="How formats in blocks multiply: 4 int8, 0 fp32."
    ),
    click.option("--trials", type=click.IntRange(1), help="Most plans to measure. [default: by model size]"),
    click.option(
        "--minutes",
        type=click.FloatRange(0, min_open=True),
        help="Start no plan after this long; take the best so far. [default: 60 per precision]",
    ),
    click.option("--recipe", type=FILE, help="Apply a recorded recipe (a converter.json, or a part of it)."),
)
_NAMES = (
    "keep",
    "prefer",
    "unjudged",
    "calibration",
    "evaluation",
    "num_samples",
    "trials",
    "minutes",
    "recipe",
)
_TUNING = (
    "target",
    "per_channel",
    "reduce_range",
    "weight_type",
    "block_size",
    "symmetric",
    "accuracy_level",
    "static",
)


def take_options(given: dict[str, Any]) -> dict[str, Any]:
    """Remove the options above from `given`; those that say something, as plain values."""
    taken = {name: given.pop(name) for name in (*_NAMES, *_TUNING)}
    if taken["block_size"] is not None:
        taken["block_size"] = int(taken["block_size"])
    if taken["recipe"] is not None:
        taken["recipe"] = str(taken["recipe"])
    defaults = {"prefer": "size", "target": "auto", "unjudged": False, "keep": ()}
    return {name: value for name, value in taken.items() if value is not None and value != defaults.get(name)}
