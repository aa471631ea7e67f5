"""The spellings of `--optimize`: our own levels, optimum's and onnxruntime's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import click

from converter.errors import UsageError
from converter.request import Optimization

# optimum's O3 and O4 add an approximated Gelu and half precision to its O2; the first is not exact, the second is
# `--dtype fp16` here.
OPTIMUM_LEVELS: Mapping[str, Optimization] = {"O1": "basic", "O2": "extended", "O3": "ort", "O4": "ort"}
ORT_LEVELS: Mapping[str, Optimization] = {"0": "none", "1": "basic", "2": "extended", "99": "ort"}

OPTIMIZATION = (
    click.option(
        "--optimize",
        type=click.Choice([*get_args(Optimization), *OPTIMUM_LEVELS], case_sensitive=False),
        help="basic (default) runs in any client, extended adds operators of opset 23, ort adds onnxruntime's own.",
    ),
    click.option(
        "--optimizer-level",
        type=click.Choice(list(ORT_LEVELS)),
        help="The same as onnxruntime's level numbers.",
    ),
    click.option("--no-post-process", is_flag=True, help="The same as --optimize none: the graph as traced."),
)


def take_optimization(given: dict[str, Any]) -> Optimization:
    """The level that the options choose, taken out of `given`. Raises UsageError where they contradict each other."""
    asked = given.pop("optimize")
    chosen = {
        "--optimize": None if asked is None else OPTIMUM_LEVELS.get(asked, asked),
        "--optimizer-level": ORT_LEVELS.get(given.pop("optimizer_level")),
        "--no-post-process": "none" if given.pop("no_post_process") else None,
    }
    named: dict[str, Optimization] = {option: level for option, level in chosen.items() if level is not None}
    if len(set(named.values())) > 1:
        raise UsageError(f"{' and '.join(named)} contradict each other", remedy="leave all but one out")
    return next(iter(named.values()), "basic")
