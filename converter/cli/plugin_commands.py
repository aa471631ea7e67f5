"""The commands for those who write plugins."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from converter.cli.options import BASE_MODEL, FOLDER, OUTPUT, options
from converter.console import quiet_libraries, show_progress, write_line
from converter.errors import ParityError, UsageError


@click.command("new", short_help="Write a plugin package to start from.")
@click.argument("name")
@click.option("--output", type=FOLDER, help="Folder of the package. [default: converter-NAME]")
@options(*OUTPUT)
def new_command(name: str, output: Path | None, quiet: bool, verbose: bool, as_json: bool) -> None:
    """Write a plugin package that converts and passes parity as it is, to start from."""
    from converter.cli.display import write_json
    from converter.scaffold import names, write_plugin

    folder = write_plugin(name, output)
    arch = names(name)["name"]
    if as_json:
        write_json({"output": str(folder), "architecture": arch})
    elif not quiet:
        write_line(f"wrote {folder}; try it:")
        write_line(f"  pip install --editable {folder}")
        write_line(f"  pytest --converter-arch {arch}")
        write_line(f"  converter --arch {arch} --tiny --output {arch}-onnx")


@click.command("explain", short_help="Print what causes and cures an error.")
@click.argument("topic", required=False)
@options(*OUTPUT)
def explain_command(topic: str | None, quiet: bool, verbose: bool, as_json: bool) -> None:
    """Print the causes and cures of an error, by the topic that its message names."""
    from converter.cli.display import write_json
    from converter.troubleshooting import entries, explain

    if topic is None:
        names = list(entries())
        if as_json:
            write_json({"topics": names})
        else:
            write_line("\n".join(names))
        return
    text = explain(topic)
    if as_json:
        write_json({"topic": topic, "text": text})
    else:
        write_line(text)


@click.command("bisect", short_help="Find the first module that is wrong.")
@click.argument("package", type=FOLDER)
@click.option("--model", "--model-id", help="The checkpoint the package was made from.")
@click.option("--precision", help="Rank this precision's modules by the error they add to fp32.")
@options(BASE_MODEL, *OUTPUT)
@click.pass_context
def bisect_command(
    ctx: click.Context,
    package: Path,
    model: str | None,
    precision: str | None,
    base_model: str | None,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Find the first module that a package computes differently. Exits with 3 if there is one.

    With --precision no checkpoint is needed: modules are compared with those of the package's own fp32 graphs.
    """
    from converter.cli.display import show_bisection, write_json
    from converter.extras import require_export

    if precision is not None:
        _rank(package, precision, quiet=quiet, verbose=verbose, as_json=as_json)
        return
    if model is None:
        raise UsageError(
            "nothing to compare the package with",
            remedy="give its checkpoint with --model, or rank a precision's modules with --precision",
        )
    require_export()
    with quiet_libraries(verbose=verbose), show_progress(quiet=quiet) as progress:
        from converter.parity.bisect import bisect_package

        found = bisect_package(package, model, progress, base_model=base_model)
    if as_json:
        write_json({"divergences": [asdict(entry) for entry in found]})
    elif not quiet:
        show_bisection(found)
    ctx.exit(ParityError.exit_code if found else 0)


def _rank(package: Path, precision: str, *, quiet: bool, verbose: bool, as_json: bool) -> None:
    from converter.cli.display import show_ranking, write_json

    with quiet_libraries(verbose=verbose), show_progress(quiet=quiet) as progress:
        from converter.precision.added import rank_modules

        ranked = rank_modules(package, precision, progress)
    if as_json:
        write_json({"precision": precision, "modules": [asdict(entry) for entry in ranked]})
    elif not quiet:
        show_ranking(ranked, everything=verbose)
