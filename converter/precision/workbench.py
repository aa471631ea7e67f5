"""Where candidates are made: a package inside the package, of links, and the graphs of a plan in it."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from converter.packages.staging import RECORD
from converter.precision.formats import Plan
from converter.precision.products import lookups, products
from converter.precision.sessions import ONNX, main_bytes, main_files
from converter.precision.statistics import Points, Statistics
from converter.precision.stored import read_graphs
from converter.recipes import WeightRecipe
from converter.records import ExportedGraph
from converter.request import SILENT
from converter.weights.writing import bind_graphs, write_graphs


@dataclass
class Candidate:
    """The files of a plan on the workbench: bytes and hashes by name."""

    suffix: str
    plan: Any = None
    files: Mapping[str, int] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return sum(self.files.values())


@dataclass
class Workbench:
    """The fp32 graphs `stems` in `folder`, and what is known of all of them together."""

    folder: Path
    stems: tuple[str, ...]
    halves: Path | None = None
    statistics: Statistics | None = None

    @property
    def onnx(self) -> Path:
        return self.folder / ONNX

    @cached_property
    def whole(self) -> int:
        """Bytes of the fp32 graphs and their data."""
        return main_bytes(self.folder, self.stems)

    @cached_property
    def _graphs(self) -> tuple[ExportedGraph, ...]:
        """The graphs, for looking at."""
        return read_graphs(self.onnx, self.stems)

    @cached_property
    def matrices(self) -> Mapping[str, WeightRecipe]:
        """The matrices of all graphs, each once."""
        found = {}
        for graph in self._graphs:
            found.update({product.name: product.recipe for product in products(graph.model)})
        return found

    @cached_property
    def modules(self) -> tuple[tuple[str, int], ...]:
        """Their names with their sizes in bytes."""
        return tuple((name, recipe.nbytes) for name, recipe in self.matrices.items())

    @cached_property
    def tied(self) -> frozenset[str]:
        """Tables that are matrices as well, in whichever graph."""
        looked_up = {lookup.name for graph in self._graphs for lookup in lookups(graph.model)}
        return frozenset(looked_up & {name for name, _ in self.modules})

    def points(self) -> Points:
        """Where calibration has to look."""
        return Points.of(self._graphs)

    def write(self, candidate: Candidate, plan: Any) -> None:
        """The graphs of a plan in the candidate's place, weights streamed, laid out as those of fp32 are."""
        if candidate.files and candidate.plan == plan:
            return  # the last one tried is often the one that is taken, and a large model takes minutes to write
        self.remove(candidate)
        apart = not (self.onnx / "model.onnx_data").exists()
        suffix = candidate.suffix
        traced = self.halves if self.is_traced(plan) else None
        read = read_graphs(traced or self.onnx, self.stems)
        graphs = [ExportedGraph(f"{graph.stem}{suffix}", graph.model) for graph in read]
        informed = plan.informed(self.statistics, self.tied) if isinstance(plan, Plan) else plan
        for graph in graphs:
            if traced is None:
                informed.apply(graph.model)
        pending = bind_graphs(
            graphs, {}, self.onnx, external_data="auto", data_file=f"model{suffix}.onnx_data", apart=apart
        )
        written = write_graphs(pending, SILENT.stage)
        candidate.plan, candidate.hashes = plan, written.hashes
        candidate.files = {name: (self.onnx / name).stat().st_size for name in written.hashes}

    def is_traced(self, plan: Any) -> bool:
        """Whether the plan is fp16 and nothing else, and there are graphs traced in fp16."""
        return self.halves is not None and plan == Plan(tables=False, half=True)

    def remove(self, candidate: Candidate) -> None:
        for name in candidate.files:
            (self.onnx / name).unlink(missing_ok=True)
        candidate.files = {}

    def install(self, candidate: Candidate, folder: Path) -> None:
        """Move a candidate's files into the package at `folder`, in the place of older ones."""
        ours = {f"{stem}{candidate.suffix}" for stem in (*self.stems, "model")}
        for file in list((folder / ONNX).iterdir()):
            if file.name.partition(".")[0] in ours:
                file.unlink()
        for name in candidate.files:
            (self.onnx / name).replace(folder / ONNX / name)


@contextmanager
def workbench(folder: Path, stems: Sequence[str], halves: Path | None = None) -> Iterator[Workbench]:
    """A workbench in a package's folder, gone when the block ends. `halves` holds the graphs traced in fp16."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != RECORD]
    main = main_files(folder, stems)
    with tempfile.TemporaryDirectory(prefix=".candidates-", dir=folder) as scratch:
        for file in files:
            name = file.relative_to(folder)
            if name.parts[0] != ONNX or file in main:
                link(file, Path(scratch) / name)
        yield Workbench(Path(scratch), tuple(stems), halves)


def copy_files(package: Path, folder: Path, *, linked: bool) -> None:
    """All of a package but its record. Graphs may be linked: they are never written to, new ones take their place."""
    for file in package.rglob("*"):
        name = file.relative_to(package)
        if file.is_file() and name.as_posix() != RECORD:
            if linked and name.parts[0] == ONNX:
                link(file, folder / name)
            else:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, folder / name)


def link(file: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        os.link(file, target)
        return
    shutil.copyfile(file, target)
