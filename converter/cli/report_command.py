"""The command `report`: what is recorded of a package, as a page to look at."""

from __future__ import annotations

from pathlib import Path

import click

from converter.cli.options import FOLDER, OUTPUT, options
from converter.console import quiet_libraries, write_line


@click.command("report", short_help="Write one HTML page about a package.")
@click.argument("package", type=FOLDER)
@click.option(
    "--html",
    "page",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The file to write.",
)
@options(*OUTPUT)
def report_command(package: Path, page: Path, quiet: bool, verbose: bool, as_json: bool) -> None:
    """Write one page of sizes, parity, quality, speed and provenance. It needs no network."""
    from converter.cli.display import write_json

    with quiet_libraries(verbose=verbose):
        from converter.page.compose import write_page

        write_page(package, page)
    if as_json:
        write_json({"page": str(page)})
    elif not quiet:
        write_line(f"wrote {page}")
