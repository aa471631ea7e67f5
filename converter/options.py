"""The options of the command line, as data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from converter.optimization_options import OPTIMIZATION
from converter.quantize_options import QUANTIZATION
from converter.records import Dtype, ParityMode
from converter.request import DEFAULT_OPSET, OPSETS, Device, ExternalData

F = TypeVar("F", bound=Callable[..., Any])
FOLDER = click.Path(file_okay=False, path_type=Path)

OUTPUT = (
    click.option("--quiet", is_flag=True, help="Print nothing but errors."),
    click.option("--verbose", is_flag=True, help="Show what libraries say, and tracebacks."),
    click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object to stdout, and nothing else there."
    ),
)
HUB = (
    click.option("--revision", help="Branch, tag or commit on the hub."),
    click.option("--token", help="Access token of the hub."),
    click.option("--cache-dir", type=FOLDER, help="Where the hub's files are cached."),
)
BASE_MODEL = click.option("--base-model", help="What an adapter is merged into. [default: what it names]")
CONVERSION = (
    click.option("--arch", default="auto", show_default=True, help="Architecture, or a model type it owns."),
    click.option(
        "--model", "--model-id", help="Local folder or hub id. [default: the architecture's reference]"
    ),
    BASE_MODEL,
    *HUB,
    click.option("--output", type=FOLDER, help="Package folder. [default: models/<model name>]"),
    click.option(
        "--output-parent-dir", "output_parent", type=FOLDER, help="Folder the package folder goes into."
    ),
    click.option("--task", help="Head to convert. [default: the checkpoint's own]"),
    click.option("--variants", default="", help="Comma-separated names. [default: all]"),
    click.option("--dtype", type=click.Choice(get_args(Dtype)), default="fp32", show_default=True),
    click.option("--precisions", default="", help="Graphs to add, such as q8,fp16. [default: none]"),
    click.option("--quantize", is_flag=True, help="The same as --precisions q8."),
    *QUANTIZATION,
    click.option(
        "--opset", type=click.IntRange(OPSETS[0], OPSETS[-1]), default=DEFAULT_OPSET, show_default=True
    ),
    click.option("--batch-size", type=int, help="Batch size of the traced dummies."),
    click.option("--sequence-length", type=int, help="Sequence length of the traced dummies."),
    *OPTIMIZATION,
    click.option(
        "--external-data", type=click.Choice(get_args(ExternalData)), default="auto", show_default=True
    ),
    click.option("--parity", type=click.Choice(get_args(ParityMode)), default="auto", show_default=True),
    click.option("--skip-validation", is_flag=True, help="The same as --parity off."),
    click.option(
        "--atol", type=click.FloatRange(0, min_open=True), help="Largest absolute difference allowed."
    ),
    click.option("--debug-parity", is_flag=True, help="Where parity fails, find the module that is wrong."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
    click.option("--device", type=click.Choice(get_args(Device)), default="cpu", show_default=True),
    click.option(
        "--tiny", is_flag=True, help="Convert a two-layer checkpoint with random weights. No network."
    ),
    click.option("--overwrite", is_flag=True, help="Replace an existing target, once the new one is proven."),
    click.option(
        "--keep-failed", is_flag=True, help="Keep a package that failed parity, marked, beside the target."
    ),
    click.option("--no-stamp", is_flag=True, help="Trace every layer, also those that repeat."),
    click.option("--allow-pickle", is_flag=True, help="Load a pickle checkpoint, weights only."),
    click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the checkpoint."),
)


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Apply click options so that help lists them in the order given."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply
