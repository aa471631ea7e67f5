"""The command `quantize`: a finished package, or an ONNX file, gets graphs of other precisions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from converter.cli.options import FOLDER, OUTPUT, options
from converter.cli.quantize_options import QUANTIZATION, take_options
from converter.console import quiet_libraries, show_progress, write_line, write_table
from converter.text import size_text

if TYPE_CHECKING:
    from converter.precision.report import PrecisionRow, QuantizationReport

_MEASURES = ("cosine", "cosine_min", "top1", "maxsim_top1", "perplexity")


@click.command("quantize", short_help="Add precisions to a package.")
@click.argument("package", type=click.Path(path_type=Path))
@click.option("--output", type=FOLDER, help="Folder of the new package. [default: added to PACKAGE]")
@click.option("--precisions", default="q8", show_default=True, help="Comma-separated names.")
@options(*QUANTIZATION)
@click.option("--keep-failed", is_flag=True, help="Keep what misses its budget, marked in converter.json.")
@click.option("--overwrite", is_flag=True, help="Replace an existing --output, after success only.")
@options(*OUTPUT)
def quantize_command(
    package: Path,
    output: Path | None,
    precisions: str,
    keep_failed: bool,
    overwrite: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Add precisions to PACKAGE, a package or .onnx file, and measure each. Exits with 3 if one misses its budget."""
    from converter.cli.display import write_json

    names = [name.strip() for name in precisions.split(",") if name.strip()]
    with quiet_libraries(verbose=verbose), show_progress(quiet=quiet) as progress:
        from converter.precision.quantize import quantize_package
        from converter.precision.settings import Settings

        report = quantize_package(
            package,
            names,
            output=output,
            overwrite=overwrite,
            progress=progress,
            settings=Settings.of(**take_options(given), keep_failed=keep_failed),
        )
    if as_json:
        write_json(report.to_json())
    elif not quiet:
        show_quantization(report)
    report.require_passed()


def show_quantization(report: QuantizationReport) -> None:
    """One line a precision, and where those that were kept are."""
    found = {name for row in report.rows if row.quality is not None for name in row.quality.values}
    measures = [name for name in _MEASURES if name in found]
    header = ("precision", "size", "of fp32", *measures, "speed 1", "speed many", "budget", "recipe")
    write_table(header, [_cells(row, measures) for row in report.rows], right=header[1:-2])
    for note in dict.fromkeys(note for row in report.rows for note in row.notes):
        write_line(note)
    if report.kept:
        write_line(f"wrote {', '.join(report.kept)} to {report.output}")


def _cells(row: PrecisionRow, measures: list[str]) -> tuple[str, ...]:
    values = {} if row.quality is None else row.quality.values
    speed = ("", "") if row.latency is None else (f"{row.latency.one:.2f}x", f"{row.latency.many:.2f}x")
    verdict = ("kept" if row.passed else "MISSED") if row.budget else "none"
    return (
        row.name,
        size_text(sum(row.files.values())),
        f"{row.ratio:.3f}",
        *(f"{values[name]:.5f}" if name in values else "" for name in measures),
        *speed,
        "unjudged" if row.quality is None else verdict,
        row.plan.label,
    )
