"""The options of the command line, as data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from converter.cli.optimization_options import OPTIMIZATION
from converter.cli.quantize_options import QUANTIZATION
from converter.records import Dtype, ParityMode
from converter.request import DEFAULT_OPSET, OPSETS, Device, ExternalData

F = TypeVar("F", bound=Callable[..., Any])
FOLDER = click.Path(file_okay=False, path_type=Path)


def _choice(flag: str, literal: Any, default: str, text: str) -> Callable[[F], F]:
    """An option that takes one of the values of a Literal type."""
    return click.option(
        flag, type=click.Choice(get_args(literal)), default=default, show_default=True, help=text
    )


OUTPUT = (
    click.option("--quiet", is_flag=True, help="Print nothing but errors."),
    click.option("--verbose", is_flag=True, help="Show library output and tracebacks."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else."),
)
HUB = (
    click.option("--revision", help="Branch, tag or commit on the hub."),
    click.option("--token", help="Access token for the hub."),
    click.option("--cache-dir", type=FOLDER, help="Folder of the hub cache."),
)
BASE_MODEL = click.option(
    "--base-model", help="Base model to merge an adapter into. [default: the one it names]"
)
CONVERSION = (
    click.option("--arch", default="auto", show_default=True, help="Architecture or model type."),
    click.option(
        "--model",
        "--model-id",
        help="Local folder or hub id. [default: the architecture's reference checkpoint]",
    ),
    BASE_MODEL,
    *HUB,
    click.option("--output", type=FOLDER, help="Package folder. [default: models/<model name>]"),
    click.option(
        "--output-parent-dir", "output_parent", type=FOLDER, help="Parent folder for the package folder."
    ),
    click.option("--task", help="Task to convert for. [default: the checkpoint's own]"),
    click.option("--variants", default="", help="Comma-separated names. [default: all]"),
    _choice("--dtype", Dtype, "fp32", "What graphs compute in."),
    click.option("--precisions", default="", help="Precisions to add, such as q8,fp16. [default: none]"),
    click.option("--quantize", is_flag=True, help="The same as --precisions q8."),
    *QUANTIZATION,
    click.option(
        "--opset",
        type=click.IntRange(OPSETS[0], OPSETS[-1]),
        default=DEFAULT_OPSET,
        show_default=True,
        help="ONNX opset.",
    ),
    click.option("--batch-size", type=int, help="Batch size to trace at, 2 or more."),
    click.option("--sequence-length", type=int, help="Sequence length to trace at, 2 or more."),
    *OPTIMIZATION,
    _choice("--external-data", ExternalData, "auto", "Whether weights go into a file beside the graphs."),
    _choice("--parity", ParityMode, "auto", "How to compare graphs with the original."),
    click.option("--skip-validation", is_flag=True, help="The same as --parity off."),
    click.option(
        "--atol", type=click.FloatRange(0, min_open=True), help="Largest absolute difference allowed."
    ),
    click.option("--debug-parity", is_flag=True, help="If parity fails, find the first wrong module."),
    click.option(
        "--seed",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="For random weights, sizes and inputs.",
    ),
    _choice("--device", Device, "cpu", "Where parity runs the graphs."),
    click.option(
        "--tiny", is_flag=True, help="Convert a two-layer model with random weights; needs no network."
    ),
    click.option(
        "--overwrite", is_flag=True, help="Replace an existing target once the new package is proven."
    ),
    click.option(
        "--keep-failed", is_flag=True, help="Keep a package that failed parity, marked, beside the target."
    ),
    click.option("--no-stamp", is_flag=True, help="Trace every layer, even repeated ones."),
    click.option("--allow-pickle", is_flag=True, help="Read pickled checkpoints, weights only."),
    click.option("--trust-remote-code", is_flag=True, help="Run code that comes with the checkpoint."),
)


def options(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    """Apply click options so that help lists them in the order given."""

    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply
