"""Inputs for models whose kind has none of its own: those their plugin makes for parity, or drawn ones."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from converter.graph_info import GraphInfo
from converter.json_files import object_or_empty
from converter.precision.samples import draw_feed

Feed = Mapping[str, Mapping[str, Any]]
_LOG = logging.getLogger(__name__)


def declared_feeds(folder: Path, record: Mapping[str, Any], stems: Sequence[str], count: int) -> list[Feed]:
    """Feeds by stem at random sizes, from the components that the package's architecture declares.

    Empty where the architecture is not installed, or where its inputs need what is not.
    """
    from converter.records import Checkpoint, Size
    from converter.registry import load_registry

    try:
        architecture = load_registry().find(str(record.get("architecture", "")))
        checkpoint = Checkpoint(folder, folder.name, None, object_or_empty(folder / "config.json"), {})
        config = architecture.source.config(checkpoint)
        components = [
            component
            for component in architecture.components(config, str(record.get("task")))
            if component.stem in stems
        ]
        feeds: list[Feed] = []
        draw = random.Random(0)
        for seed in range(count):
            made = {}
            for component in components:
                point = {axis.name: draw.randint(axis.low, axis.high) for axis in component.axes}
                tensors = component.inputs(Size(point, "none", seed)).tensors
                made[component.stem] = {name: tensor.numpy() for name, tensor in tensors.items()}
            feeds.append(made)
    except Exception as error:  # the plugin's code, in a package that may lack its config or anything else
        _LOG.info("the package's architecture makes no inputs for it: %r", error)
        return []
    return feeds if components else []


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
