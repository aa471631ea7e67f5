"""A package gets graphs in other precisions. What misses its budget is not kept, and the rest stays as it was."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converter.additions import PackageBuild, Precision, PrecisionPlan
from converter.errors import PackageError, UsageError
from converter.package import PackageInfo, inspect_package
from converter.precision.budget import Budget, parse_keep
from converter.precision.catalogue import choose_precisions
from converter.precision.judge import Judge
from converter.precision.nbits import matrices
from converter.precision.report import PrecisionRow, QuantizationReport
from converter.precision.search import Trial, choose_plan
from converter.precision.stored import read_graphs
from converter.records import ExportedGraph
from converter.registry import Registry, load_registry
from converter.request import SILENT, Preference, Progress
from converter.seal import seal_package
from converter.staging import RECORD, stage_package
from converter.writing import bind_graphs, write_graphs

ONNX = "onnx"


class _NothingKeptError(Exception):
    """Leaves the staging of a package none of whose precisions is kept."""


def quantize_package(
    package: Path,
    precisions: Sequence[str] = ("q8",),
    *,
    output: Path | None = None,
    keep: Sequence[str] = (),
    keep_failed: bool = False,
    overwrite: bool = False,
    prefer: Preference = "size",
    progress: Progress = SILENT,
) -> QuantizationReport:
    """Add precisions to a package, or to a copy of it at `output`, in one step once they are judged.

    `keep` are bounds such as `cosine=0.999`, in place of a precision's own for that measure. `prefer` speed takes
    longer: it looks for modules that faster kernels may have. A precision that
    misses is in the report and, without `keep_failed`, not in the package: see
    `QuantizationReport.require_passed`. Raises UsageError for a precision or bound there is not and for a
    package nothing can be judged by, PackageError for one that is damaged. What was there before stays.
    """
    registry = load_registry()
    chosen, bounds = choose_precisions(precisions, registry.precisions), parse_keep(keep)
    info = inspect_package(package)
    info.require_intact()
    stems = main_stems(info.record)
    report = QuantizationReport(output or package, (), ())
    try:
        with stage_package(
            report.output, overwrite=overwrite or output is None, source=package if output else None
        ) as staging:
            _copy_files(package, staging.folder, link=output is None)
            rows = add_precisions(
                staging.folder,
                stems,
                chosen,
                bounds,
                keep_failed=keep_failed,
                prefer=prefer,
                progress=progress,
            )
            kept = tuple(row.name for row in rows if row.passed or keep_failed)
            report = QuantizationReport(report.output, rows, kept)
            if not kept:
                raise _NothingKeptError
            _seal(info, staging.folder, report, registry)
    except _NothingKeptError:
        pass
    return report


def main_stems(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The graphs precisions are made of. Raises UsageError where the main graphs are not fp32."""
    dtype = record.get("settings", {}).get("dtype", "fp32")
    if dtype != "fp32":
        raise UsageError(
            f"the package's graphs are {dtype}, and precisions are made from fp32",
            remedy="convert with --dtype fp32 first",
        )
    stems = [stem for variant in record.get("variants", {}).values() for stem in variant.get("graphs", {})]
    if not stems:
        raise PackageError("the package's record names no graph", remedy="convert again")
    return tuple(dict.fromkeys(stems))


def add_precisions(
    folder: Path,
    stems: Sequence[str],
    precisions: Sequence[Precision],
    bounds: Budget,
    *,
    keep_failed: bool = False,
    prefer: Preference = "size",
    progress: Progress = SILENT,
) -> tuple[PrecisionRow, ...]:
    """Write precisions of the fp32 graphs `stems` of a package into `folder/onnx`, once each is judged.

    The folder holds the tokenizer besides, to judge on text. A precision that misses its budget leaves no
    file, and one that was there stays.
    """
    rows = []
    with _workbench(folder, stems) as bench:
        with progress.stage("embed the corpus"):
            judge = Judge.of(bench)
        for precision in precisions:
            with progress.stage(f"make {precision.name}"):
                work = _Work(bench, stems, precision, judge)
                row = work.make({**precision.budget, **bounds}, prefer, progress)
            if row.passed or keep_failed:
                _install(bench, folder, precision, row.files, stems)
            rows.append(row)
    return tuple(rows)


@contextmanager
def _workbench(folder: Path, stems: Sequence[str]) -> Iterator[Path]:
    """A package inside the package, of links: candidates are written and judged there."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != RECORD]
    with tempfile.TemporaryDirectory(prefix=".candidates-", dir=folder) as scratch:
        for file in files:
            name = file.relative_to(folder)
            if name.parts[0] != ONNX or _is_main(file, stems):
                _link(file, Path(scratch) / name)
        yield Path(scratch)


def _is_main(file: Path, stems: Sequence[str]) -> bool:
    """A main graph or its data; data files are named after a graph, and shared ones after `model`."""
    return file.name.partition(".")[0] in {*stems, "model"}


@dataclass
class _Work:
    """One precision on the workbench: the candidate that lies there now, and how to make the next."""

    bench: Path
    stems: Sequence[str]
    precision: Precision
    judge: Judge
    files: dict[str, int] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)

    def make(self, budget: Budget, prefer: Preference, progress: Progress) -> PrecisionRow:
        modules = _modules(self.bench / ONNX, self.stems)
        plan, tried = choose_plan(self.precision, budget, modules, self._measure, progress.advance, prefer)
        if not tried or tried[-1].plan != plan:
            self._write(plan)
        whole = sum(
            file.stat().st_size for file in (self.bench / ONNX).iterdir() if _is_main(file, self.stems)
        )
        return PrecisionRow(
            self.precision.name,
            files=self.files,
            hashes=self.hashes,
            ratio=sum(self.files.values()) / whole,
            quality=self.judge.evaluate(self.precision.name),
            budget=budget,
            plan=plan,
            tried=tried,
        )

    def _measure(self, plan: PrecisionPlan, *, quick: bool = False) -> Trial:
        self._write(plan)
        quality = self.judge.rehearse(self.precision.name, quick=quick)
        return Trial(plan, sum(self.files.values()), quality)

    def _write(self, plan: PrecisionPlan) -> None:
        """The graphs of a plan, weights streamed from the fp32 files; large ones in one data file for all."""
        folder, suffix = self.bench / ONNX, self.precision.suffix
        for name in self.files:
            (folder / name).unlink()
        graphs = [
            ExportedGraph(f"{graph.stem}{suffix}", graph.model) for graph in read_graphs(folder, self.stems)
        ]
        for graph in graphs:
            plan.apply(graph.model)
        pending = bind_graphs(graphs, {}, folder, external_data="auto", data_file=f"model{suffix}.onnx_data")
        written = write_graphs(pending, SILENT.stage)
        self.hashes = written.hashes
        self.files = {name: (folder / name).stat().st_size for name in written.hashes}


def _modules(folder: Path, stems: Sequence[str]) -> tuple[tuple[str, int], ...]:
    """The matrices of all graphs with their sizes in bytes, each once."""
    found = {}
    for graph in read_graphs(folder, stems):
        found.update({name: recipe.nbytes for _, name, recipe in matrices(graph.model)})
    return tuple(found.items())


def _install(
    bench: Path, folder: Path, precision: Precision, files: Mapping[str, int], stems: Sequence[str]
) -> None:
    """Move a precision's files into the package, in the place of older ones."""
    for file in list((folder / ONNX).iterdir()):
        if file.name.partition(".")[0] in {f"{stem}{precision.suffix}" for stem in (*stems, "model")}:
            file.unlink()
    for name in files:
        (bench / ONNX / name).replace(folder / ONNX / name)


def _copy_files(package: Path, folder: Path, *, link: bool) -> None:
    """All of a package but its record. Graphs may be linked: they are never written to, new ones take their place."""
    for file in package.rglob("*"):
        name = file.relative_to(package)
        if file.is_file() and name.as_posix() != RECORD:
            if link and name.parts[0] == ONNX:
                _link(file, folder / name)
            else:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, folder / name)


def _link(file: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def _seal(info: PackageInfo, folder: Path, report: QuantizationReport, registry: Registry) -> None:
    """The package's record with the rows of what was kept, and the files that say so, written anew."""
    rows = [row for row in report.rows if row.name in report.kept]
    made = {f"{ONNX}/{name}": digest for row in rows for name, digest in row.hashes.items()}
    hashes = {name: entry["sha256"] for name, entry in info.record["files"].items()}
    entries = {**info.record.get("precisions", {}), **{row.name: row.to_json() for row in rows}}
    record = {**info.record, "precisions": entries}
    build = PackageBuild(folder, record, sections=registry.card_sections, previous=info.folder)
    known = {name: digest for name, digest in {**hashes, **made}.items() if name.startswith(f"{ONNX}/")}
    seal_package(build, registry.package_files, known_hashes=known)
