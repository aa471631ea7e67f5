"""The command `bench`: a package's precisions against torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from converter.console import quiet_libraries, show_progress, write_line, write_table
from converter.options import FOLDER, OUTPUT, options


@click.command("bench", short_help="Measure a package against torch.")
@click.argument("package", type=FOLDER)
@click.option("--model", "--model-id", help="The checkpoint; torch is then measured too, as the baseline.")
@click.option("--precision", "precisions", multiple=True, help="May be repeated. [default: all there are]")
@click.option("--batch-size", "batch_sizes", type=click.IntRange(1), multiple=True, help="May be repeated.")
@click.option("--repeats", type=click.IntRange(1), default=7, show_default=True)
@click.option("--documents", type=click.IntRange(1), default=256, show_default=True)
@click.option(
    "--new-tokens", type=click.IntRange(2), default=32, show_default=True, help="Of packages that generate."
)
@click.option("--threads", type=click.IntRange(1), help="Of each contender. [default: all cores]")
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), help="Write a picture, such as bench.png."
)
@click.option("--record", is_flag=True, help="Write the figures into the package's record and card.")
@options(*OUTPUT)
def bench_command(
    package: Path, plot: Path | None, record: bool, quiet: bool, verbose: bool, as_json: bool, **given: Any
) -> None:
    """Measure what a package runs, text, images, sound or generation: speed, memory, agreement with torch."""
    from converter.bench_plot import check_plot, draw
    from converter.display import write_json

    given["batch_sizes"] = given["batch_sizes"] or (1, 8, 32)
    if plot is not None:
        check_plot(plot)
    with quiet_libraries(verbose=verbose), show_progress(quiet=quiet) as progress:
        from converter.bench import bench
        from converter.bench_record import record_bench, require_recordable

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
