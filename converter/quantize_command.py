"""The command `quantize`: a finished package gets graphs of other precisions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from converter.console import quiet_libraries, show_progress, write_line, write_table
from converter.options import FOLDER, OUTPUT, options
from converter.text import size_text

if TYPE_CHECKING:
    from converter.precision.report import QuantizationReport


@click.command("quantize")
@click.argument("package", type=FOLDER)
@click.option("--output", type=FOLDER, help="Folder of the new package. [default: added to PACKAGE]")
@click.option("--precisions", default="q8", show_default=True, help="Comma-separated names.")
@click.option("--keep", multiple=True, metavar="MEASURE=BOUND", help="Such as cosine=0.999. May be repeated.")
@click.option(
    "--prefer",
    type=click.Choice(["size", "speed"]),
    default="size",
    show_default=True,
    help="What to take of all that keeps the budget.",
)
@click.option("--keep-failed", is_flag=True, help="Write what misses its budget, marked in converter.json.")
@click.option("--overwrite", is_flag=True, help="Replace an existing --output, after success only.")
@options(*OUTPUT)
def quantize_command(
    package: Path,
    output: Path | None,
    precisions: str,
    keep: tuple[str, ...],
    prefer: Literal["size", "speed"],
    keep_failed: bool,
    overwrite: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Add precisions to a package, each judged on real text. Exits with 3 if one misses its budget."""
    from converter.display import write_json

    names = [name.strip() for name in precisions.split(",") if name.strip()]
    with quiet_libraries(verbose=verbose), show_progress(quiet=quiet) as progress:
        from converter.precision.quantize import quantize_package

        report = quantize_package(
            package,
            names,
            output=output,
            keep=keep,
            prefer=prefer,
            keep_failed=keep_failed,
            overwrite=overwrite,
            progress=progress,
        )
    if as_json:
        write_json(report.to_json())
    elif not quiet:
        show_quantization(report)
    report.require_passed()


def show_quantization(report: QuantizationReport) -> None:
    """One line a precision, and where those that were kept are."""
    header = ("precision", "size", "of fp32", "cosine mean", "cosine min", "top1 kept", "budget")
    rows = [
        (
            row.name,
            size_text(sum(row.files.values())),
            f"{row.ratio:.3f}",
            f"{row.quality.cosine:.5f}",
            f"{row.quality.cosine_min:.5f}",
            f"{row.quality.top1:.1%}",
            ("kept" if row.passed else "MISSED") if row.budget else "none",
        )
        for row in report.rows
    ]
    write_table(header, rows, right=header[1:-1])
    if report.kept:
        write_line(f"wrote {', '.join(report.kept)} to {report.output}")
