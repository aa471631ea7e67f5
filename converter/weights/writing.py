"""Graphs and their weights onto disk: one data file where weights are shared or large, else one file a graph.

Graphs that run together, such as an encoder and its decoder, do not share: clients fetch each with what carries its
name, `decoder_model_merged.onnx` and, past 2 GiB, `decoder_model_merged.onnx_data`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from converter.errors import UsageError
from converter.recipes import RecipeTensor
from converter.records import ExportedGraph
from converter.request import Advance, ExternalData, OnStage, Progress
from converter.weights.binding import (
    INLINE,
    DataLayout,
    DataPlan,
    bind_graph,
    check_data,
    initializers,
    plan_data_file,
)
from converter.weights.model_file import EMBEDDED_LIMIT, embedded_layout, embedded_size, write_model

if TYPE_CHECKING:
    from converter.recipes import WeightRecipe


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


@dataclass(frozen=True)
class Pending:
    """Graphs bound to their checkpoint, not yet written.

    `plan` is for the data file, if there is to be one; `others` are for those of further graphs.
    """

    graphs: tuple[ExportedGraph, ...]
    folder: Path
    used: frozenset[str]
    plan: DataPlan | None
    others: tuple[DataPlan, ...] = ()

    def finish(
        self, layout: DataLayout | None, on_stage: OnStage, *, checked: int = 0, check: bool = False
    ) -> Written:
        """Write the graphs and data files after the first, which is written. `check` re-reads weights inside of graphs.

        Further data files are re-read where the first one's weights were `checked`.
        """
        files = {graph.stem: self.folder / f"{graph.stem}.onnx" for graph in self.graphs}
        layouts = [] if layout is None else [layout]
        for plan in self.others:
            with on_stage("write weights"):
                layouts.append(plan.write())
            if checked:
                checked += check_data(layouts[-1])
        hashes = {layout.path.name: layout.sha256 for layout in layouts if layout.tensors}
        with on_stage("write graphs"):
            for graph in self.graphs:
                path = files[graph.stem]
                hashes[path.name] = write_model(graph.model, path, embed=self.plan is None)
        if check and self.plan is None:
            with on_stage("check weights"):
                checked = sum(
                    check_data(embedded_layout(graph.model, files[graph.stem])) for graph in self.graphs
                )
        return Written(self.folder, files, hashes, self.used, checked)


def bind_graphs(
    graphs: Sequence[ExportedGraph],
    mapping: Mapping[str, WeightRecipe],
    folder: Path,
    *,
    external_data: ExternalData,
    data_file: str = "model.onnx_data",
    apart: bool = False,
) -> Pending:
    """Bind every weight to the checkpoint and decide where it goes. Nothing but the folder is made yet.

    `apart` gives each graph its own weights: in its file, or in a data file of its own name if one is too large.
    """
    folder.mkdir(parents=True, exist_ok=True)
    used = frozenset(name for graph in graphs for name in bind_graph(graph, mapping))
    if not use_data_file(graphs, external_data, apart=apart):
        return Pending(tuple(graphs), folder, used, None)
    if not apart:
        return Pending(tuple(graphs), folder, used, plan_data_file(graphs, folder / data_file))
    plan, *others = (plan_data_file([graph], folder / f"{graph.stem}.onnx_data") for graph in graphs)
    return Pending(tuple(graphs), folder, used, plan, tuple(others))


def write_graphs(pending: Pending, on_stage: OnStage, advance: Advance | None = None) -> Written:
    """Write the data file, if there is to be one, and the graphs, one after the other."""
    layout = None
    if pending.plan is not None:
        with on_stage("write weights"):
            layout = pending.plan.write(advance)
    return pending.finish(layout, on_stage)


def write_and_check(plan: DataPlan, progress: Progress) -> tuple[DataLayout, int]:
    """Write a planned data file and read it back: the layout, and the number of tensors that were found right.

    For `Apart`: the process has no torch in it.
    """
    layout = plan.write(progress.advance)
    return layout, check_data(layout)


def use_data_file(
    graphs: Sequence[ExportedGraph], external_data: ExternalData, *, apart: bool = False
) -> bool:
    """Whether weights lie beside the graphs: where graphs share some, and where protobuf's 2 GiB are too few.

    Graphs that share none, or are to be `apart`, hold their own: a browser opens a graph with a data file only if both
    have one name.
    """
    largest = max(embedded_size(graph.model) for graph in graphs)
    if external_data == "never" and largest > EMBEDDED_LIMIT:
        raise UsageError(
            f"a single .onnx file cannot hold {largest / 2**30:.1f} GiB: protobuf is limited to 2 GiB",
            remedy="leave --external-data at auto",
        )
    shared = not apart and _share_weights(graphs)
    return external_data == "always" or (external_data == "auto" and (shared or largest > EMBEDDED_LIMIT))


def _share_weights(graphs: Sequence[ExportedGraph]) -> bool:
    """Whether a weight that is worth it would be written twice if each graph held its own."""
    seen: set[WeightRecipe] = set()
    for graph in graphs:
        tensors = (value.const_value for value in initializers(graph.model))
        recipes = {
            tensor.recipe
            for tensor in tensors
            if isinstance(tensor, RecipeTensor) and tensor.nbytes >= INLINE
        }
        if seen & recipes:
            return True
        seen |= recipes
    return False
