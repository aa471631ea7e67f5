"""The command `bench`: a package's precisions against torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from converter.bench.load import BATCH_SIZES
from converter.cli.options import FOLDER, OUTPUT, options
from converter.console import quiet_libraries, show_progress, write_line, write_table


@click.command("bench", short_help="Measure a package against torch.")
@click.argument("package", type=FOLDER)
@click.option("--model", "--model-id", help="The original checkpoint: also measure torch, as the baseline.")
@click.option("--precision", "precisions", multiple=True, help="May be repeated. [default: all]")
@click.option(
    "--batch-size",
    "batch_sizes",
    type=click.IntRange(1),
    multiple=True,
    default=BATCH_SIZES,
    show_default=True,
    help="May be repeated.",
)
@click.option(
    "--repeats", type=click.IntRange(1), default=7, show_default=True, help="Rounds after the warm-up."
)
@click.option(
    "--documents",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help="Texts to measure throughput on.",
)
@click.option(
    "--new-tokens",
    type=click.IntRange(2),
    default=32,
    show_default=True,
    help="Tokens to generate, for models that generate.",
)
@click.option("--threads", type=click.IntRange(1), help="Threads per contender. [default: all cores]")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the results: FILE.png, .svg or .pdf.",
)
@click.option("--record", is_flag=True, help="Save the figures in the package's record and README.")
@options(*OUTPUT)
def bench_command(
    package: Path, plot: Path | None, record: bool, quiet: bool, verbose: bool, as_json: bool, **given: Any
) -> None:
    """Measure speed, memory and agreement with torch, on text, images, sound or generation."""
    from converter.bench.plot import check_plot, draw
    from converter.cli.display import write_json

    if plot is not None:
        check_plot(plot)
    with quiet_libraries(verbose=verbose), show_progress(quiet=quiet) as progress:
        from converter.bench.benchmark import bench
        from converter.bench.record import record_bench, require_recordable

        if record:
            require_recordable(package)
        report = bench(package, progress=progress, **given)
        if plot is not None:
            draw(report, plot)
        if record:
            record_bench(package, report)
    if as_json:
        write_json(report.to_json())
    elif not quiet:
        header, rows = report.table()
        write_table(header, rows, right=header[1:])
        for line in report.conditions:
            write_line(line)
