"""Graphs and their weights onto disk: one data file where weights are shared or large, else one file a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from converter.errors import UsageError
from converter.model_file import EMBEDDED_LIMIT, embedded_layout, embedded_size, write_model
from converter.records import ExportedGraph
from converter.request import Progress
from converter.weights import DataLayout, DataPlan, bind_graph, check_data, plan_data_file

if TYPE_CHECKING:
    from converter.recipes import WeightRecipe

ExternalData = Literal["auto", "always", "never"]
OnStage = Callable[[str], Any]


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
    """Graphs bound to their checkpoint, not yet written. `plan` is for the data file, if there is to be one."""

    graphs: tuple[ExportedGraph, ...]
    folder: Path
    used: frozenset[str]
    plan: DataPlan | None

    def finish(
        self, layout: DataLayout | None, on_stage: OnStage, *, checked: int = 0, check: bool = False
    ) -> Written:
        """Write the graphs; the data file, if any, is written. `check` re-reads the weights inside of graphs."""
        files = {graph.stem: self.folder / f"{graph.stem}.onnx" for graph in self.graphs}
        hashes = {layout.path.name: layout.sha256} if layout is not None and layout.tensors else {}
        with on_stage("write graphs"):
            for graph in self.graphs:
                path = files[graph.stem]
                hashes[path.name] = write_model(graph.model, path, embed=self.plan is None, progress=None)
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
) -> Pending:
    """Bind every weight to the checkpoint and decide where it goes. Nothing but the folder is made yet."""
    folder.mkdir(parents=True, exist_ok=True)
    used = frozenset(name for graph in graphs for name in bind_graph(graph, mapping))
    external = use_data_file(graphs, external_data)
    return Pending(
        tuple(graphs), folder, used, plan_data_file(graphs, folder / data_file) if external else None
    )


def write_graphs(
    pending: Pending, on_stage: OnStage, advance: Callable[[int, int], None] | None = None
) -> Written:
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
