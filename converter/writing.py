"""Graphs and their weights onto disk: one data file where weights are shared or large, else one file a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from converter.errors import UsageError
from converter.model_file import EMBEDDED_LIMIT, embedded_layout, embedded_size, write_model
from converter.records import ExportedGraph
from converter.weights import bind_graph, check_data, write_data_file

if TYPE_CHECKING:
    from converter.recipes import WeightRecipe

ExternalData = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class Written:
    """The files of a package's onnx folder: graphs by stem, hashes by file name.

    `used` names the checkpoint's tensors that went in; `tensors_checked` counts those found right on re-reading.
    """

    folder: Path
    files: Mapping[str, Path]
    hashes: Mapping[str, str]
    used: frozenset[str]
    tensors_checked: int


def write_graphs(
    graphs: Sequence[ExportedGraph],
    mapping: Mapping[str, WeightRecipe],
    folder: Path,
    *,
    external_data: ExternalData,
    check: bool,
    data_file: str = "model.onnx_data",
    on_stage: Callable[[str], Any],
    advance: Callable[[int, int], None] | None = None,
) -> Written:
    """Bind every graph's weights and write graphs and data. With `check`, re-read the data against its source."""
    folder.mkdir(parents=True, exist_ok=True)
    used = {name for graph in graphs for name in bind_graph(graph, mapping)}
    hashes: dict[str, str] = {}
    checked = 0
    external = use_data_file(graphs, external_data)
    if external:
        with on_stage("write weights"):
            layout = write_data_file(graphs, folder / data_file, progress=advance)
        if layout.tensors:
            hashes[data_file] = layout.sha256
        if check:
            with on_stage("check weights"):
                checked = check_data(layout)
    files = {graph.stem: folder / f"{graph.stem}.onnx" for graph in graphs}
    with on_stage("write graphs"):
        for graph in graphs:
            path = files[graph.stem]
            hashes[path.name] = write_model(graph.model, path, embed=not external, progress=None)
    if check and not external:
        with on_stage("check weights"):
            checked = sum(check_data(embedded_layout(graph.model, files[graph.stem])) for graph in graphs)
    return Written(folder, files, hashes, frozenset(used), checked)


def use_data_file(graphs: Sequence[ExportedGraph], external_data: ExternalData) -> bool:
    """Whether weights lie beside the graphs: several graphs share one copy, and no protobuf file may reach 2 GiB."""
    largest = max(embedded_size(graph.model) for graph in graphs)
    if external_data == "never" and largest > EMBEDDED_LIMIT:
        raise UsageError(
            f"a single .onnx file cannot hold {largest / 2**30:.1f} GiB: protobuf ends at 2 GiB",
            remedy="leave --external-data at auto",
        )
    return external_data == "always" or (
        external_data == "auto" and (len(graphs) > 1 or largest > EMBEDDED_LIMIT)
    )
