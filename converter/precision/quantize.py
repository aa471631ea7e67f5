"""A package gets graphs in other precisions. What misses its budget is not kept, and the rest stays as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

from converter.additions import PackageBuild
from converter.errors import PackageError, UsageError
from converter.packages.package import PackageInfo, inspect_package
from converter.packages.seal import seal_package
from converter.packages.staging import stage_package
from converter.precision.catalogue import choose_precisions
from converter.precision.foreign import as_package
from converter.precision.planning import all_plans
from converter.precision.report import QuantizationReport
from converter.precision.sessions import ONNX
from converter.precision.settings import Settings
from converter.precision.work import Work
from converter.precision.workbench import copy_files, workbench
from converter.registry import Registry, load_registry
from converter.request import SILENT, Progress


class _NothingKeptError(Exception):
    """Leaves the staging of a package none of whose precisions is kept."""


def quantize_package(
    package: Path,
    precisions: Sequence[str] = ("q8",),
    *,
    output: Path | None = None,
    overwrite: bool = False,
    progress: Progress = SILENT,
    settings: Settings | None = None,
    halves: Path | None = None,
    **options: Any,
) -> QuantizationReport:
    """Add precisions to a package, or to a copy of it at `output`, in one step once they are judged.

    `package` may be an .onnx file of anybody's: then `output` is a new package around it. `halves` is a folder with
    the same graphs traced in fp16, where a conversion made them; else fp16 is converted. `options` are fields of
    `Settings` and `Tuning` (`keep="cosine=0.999"`, `static="minmax"`), in place of `settings`. A precision that misses
    its budget is in the report and, without `keep_failed`, not in the package: see
    `QuantizationReport.require_passed`. Raises UsageError for what cannot be asked for and for a package nothing can
    be judged by, PackageError for one that is damaged. What was there before stays.
    """
    settings, registry = settings or Settings.of(**options), load_registry()
    chosen, given = choose_precisions(precisions, registry.precisions), settings.samples()
    all_plans(chosen, settings)  # what cannot be made is refused before anything is read or copied
    with _as_folder(package, output) as source:
        info = inspect_package(source)
        info.require_intact()
        stems, beside = main_stems(info.record), output is not None
        report = QuantizationReport(output or source, (), ())
        with (
            suppress(_NothingKeptError),
            stage_package(
                report.output, overwrite=overwrite or not beside, source=source if beside else None
            ) as staging,
        ):
            copy_files(source, staging.folder, linked=not beside)
            with workbench(staging.folder, stems, halves) as bench:
                rows = Work(bench, info.record, settings, given, progress).add(chosen, staging.folder)
            kept = tuple(row.name for row in rows if row.files and (row.passed or settings.keep_failed))
            report = QuantizationReport(report.output, rows, kept)
            if not kept:
                raise _NothingKeptError
            _seal(info, staging.folder, report, registry)
    return report


def _as_folder(package: Path, output: Path | None) -> AbstractContextManager[Path]:
    """The package's folder, or a temporary one around an .onnx file."""
    if not package.is_file():
        return nullcontext(package)
    if output is None:
        raise UsageError(f"{package} is a file", remedy="name the folder of the new package with --output")
    return as_package(package)


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


def _seal(info: PackageInfo, folder: Path, report: QuantizationReport, registry: Registry) -> None:
    """The package's record with what was made, and the files that say so, written anew."""
    rows = [row for row in report.rows if row.name in report.kept]
    made = {f"{ONNX}/{name}": digest for row in rows for name, digest in row.hashes.items()}
    hashes = {name: entry["sha256"] for name, entry in info.record["files"].items()}
    record = report.entered(info.record)
    build = PackageBuild(folder, record, sections=registry.card_sections, previous=info.folder)
    known = {name: digest for name, digest in {**hashes, **made}.items() if name.startswith(f"{ONNX}/")}
    seal_package(build, registry.package_files, known_hashes=known)
