"""Inputs for models whose kind has none of its own: those their plugin makes for parity, or drawn ones."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter.errors import PluginError, UsageError
from converter.packages.declared import architecture_of, declared_by
from converter.packages.graph_info import GraphInfo
from converter.precision.samples import draw_feed

if TYPE_CHECKING:
    from converter.records import Architecture

Feed = Mapping[str, Mapping[str, Any]]


def made_up_feeds(
    folder: Path, record: Mapping[str, Any], graphs: Mapping[str, GraphInfo], count: int
) -> tuple[list[Feed], str]:
    """Feeds by stem at random sizes, and in words what they are.

    The architecture that the package was made by makes them. They are drawn by the shapes of the graphs where it is
    not installed, or needs a package that is not. Raises PluginError where it fails, and UsageError where inputs
    would have to be drawn for a graph that takes whole numbers.
    """
    name = str(record.get("architecture", ""))
    if not name:  # an ONNX file that was given
        return drawn_feeds(graphs, count), "made-up inputs"
    architecture = architecture_of(record, folder)
    if architecture is None:
        return _drawn_since(f"the architecture {name!r} is not installed", graphs, count)
    try:
        return _declared_feeds(architecture, folder, record, list(graphs), count), "made-up inputs"
    except ModuleNotFoundError as error:  # torch, in the base installation
        return _drawn_since(f"those of {name} need {error.name}", graphs, count)
    except Exception as error:  # the plugin's code
        raise PluginError(
            f"architecture {name!r} could not make the inputs it declares: {type(error).__name__}: {error}",
            remedy="mend its plugin, or give inputs with --calibration",
        ) from error


def _declared_feeds(
    architecture: Architecture, folder: Path, record: Mapping[str, Any], stems: Sequence[str], count: int
) -> list[Feed]:
    from converter.records import Size

    components = declared_by(architecture, folder, record).components()
    draw = random.Random(0)
    feeds: list[Feed] = []
    for seed in range(count):
        made = {}
        for stem in stems:
            point = {axis.name: draw.randint(axis.low, axis.high) for axis in components[stem].axes}
            tensors = components[stem].inputs(Size(point, "none", seed)).tensors
            made[stem] = {name: tensor.numpy() for name, tensor in tensors.items()}
        feeds.append(made)
    return feeds


def _drawn_since(reason: str, graphs: Mapping[str, GraphInfo], count: int) -> tuple[list[Feed], str]:
    try:
        return drawn_feeds(graphs, count), f"inputs drawn by shape, since {reason}"
    except UsageError as error:
        raise UsageError(f"{error.message}, and {reason}", remedy=error.remedy) from error


def drawn_feeds(graphs: Mapping[str, GraphInfo], count: int) -> list[Feed]:
    """Feeds by stem of made-up values. Raises UsageError for graphs that take whole numbers."""
    return [
        {
            stem: draw_feed(
                {value.name: value.shape for value in graph.inputs},
                {value.name: value.dtype for value in graph.inputs},
                seed,
            )
            for stem, graph in graphs.items()
        }
        for seed in range(count)
    ]
