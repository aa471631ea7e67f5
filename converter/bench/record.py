"""A benchmark into the record and the card of the package that was measured."""

from __future__ import annotations

from pathlib import Path

from converter.additions import PackageBuild
from converter.bench.report import BenchReport
from converter.packages.package import inspect_package, read_record
from converter.packages.seal import seal_package
from converter.packages.staging import stage_package
from converter.precision.workbench import copy_files
from converter.registry import load_registry


def require_recordable(package: Path) -> None:
    """Raise PackageError for a folder whose record could not be added to; ask before long work."""
    inspect_package(package, hashes=False).require_intact()


def record_bench(package: Path, report: BenchReport) -> None:
    """Add the figures to converter.json and README.md, in the place of older ones. Graphs stay as they are."""
    info = inspect_package(package)
    info.require_intact()
    registry = load_registry()
    record = read_record(package)
    content = {name: value for name, value in report.to_json().items() if name != "package"}
    known = {name: entry["sha256"] for name, entry in record["files"].items() if name.startswith("onnx/")}
    with stage_package(package, overwrite=True) as staging:
        copy_files(package, staging.folder, linked=True)
        build = PackageBuild(
            staging.folder,
            {**record, "benchmark": content},
            sections=registry.card_sections,
            previous=package,
        )
        seal_package(build, registry.package_files, known_hashes=known)
