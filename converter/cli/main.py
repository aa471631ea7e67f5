"""The command line: parses, calls, prints, and turns errors into exit codes.

Heavy imports happen inside the handlers, so that help and listings answer at once.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from converter import __version__
from converter.cli.arguments import flag_names, normalise
from converter.cli.bench_command import bench_command
from converter.cli.list_command import list_command
from converter.cli.optimization_options import take_optimization
from converter.cli.options import BASE_MODEL, CONVERSION, FOLDER, HUB, OUTPUT, options
from converter.cli.plugin_commands import bisect_command, explain_command, new_command
from converter.cli.push_command import push_command
from converter.cli.quantize_command import quantize_command, show_quantization
from converter.cli.quantize_options import take_options
from converter.cli.questions import ask_back
from converter.cli.report_command import report_command
from converter.console import error_text, quiet_libraries, show_progress, write_error
from converter.errors import ConverterError, ParityError, UsageError
from converter.request import ConversionRequest

if TYPE_CHECKING:
    from converter.pipeline import Report

INTERRUPTED = 130  # as a shell counts an end by SIGINT


class ConverterGroup(click.Group):
    """A group that converts when no command is named, and takes the spellings of `converter.cli.arguments`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, normalise(args or ["--help"], flag_names(self)))


@click.group(cls=ConverterGroup, invoke_without_command=True, subcommand_metavar="[COMMAND] [ARGS]...")
@options(*CONVERSION, *OUTPUT)
@click.version_option(__version__, prog_name="converter", message="%(prog)s %(version)s")
@click.pass_context
def cli(ctx: click.Context, /, quiet: bool, verbose: bool, as_json: bool, **given: Any) -> None:
    """Convert a PyTorch model into a verified ONNX package.

    \b
    converter --model CHECKPOINT --output DIR
    converter --arch NAME --tiny --output DIR     a small random model, no network
    """
    if ctx.invoked_subcommand is not None:
        _refuse_stray_options(ctx, ctx.invoked_subcommand)
        ctx.default_map = {ctx.invoked_subcommand: {"quiet": quiet, "verbose": verbose, "as_json": as_json}}
        return
    from converter.cli.display import show_report, write_json
    from converter.extras import require_export

    require_export()
    request = build_request(given)
    start = time.perf_counter()
    report = ask_back(request, partial(_convert, quiet=quiet, verbose=verbose))
    if as_json:
        write_json(report.to_json())
    elif not quiet:
        show_report(report, seconds=time.perf_counter() - start, verbose=verbose)
    if report.quantization is not None:
        if not (quiet or as_json):
            show_quantization(report.quantization)
        report.quantization.require_passed()


def _convert(request: ConversionRequest, *, quiet: bool, verbose: bool) -> Report:
    with quiet_libraries(verbose=verbose), show_progress(quiet=quiet) as progress:
        from converter.pipeline import convert_request

        return convert_request(request, progress)


def _refuse_stray_options(ctx: click.Context, command: str) -> None:
    for option in ctx.command.params:
        given = ctx.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if given and option.name not in ("quiet", "verbose", "as_json"):
            raise click.UsageError(
                f"{option.opts[0]} before the command {command!r} has no effect; "
                "put it after the command, or leave the command out to convert",
                ctx,
            )


def build_request(given: dict[str, Any]) -> ConversionRequest:
    """The options of a conversion as its record. Raises UsageError where they contradict each other."""
    parity = given.pop("parity")
    if given.pop("skip_validation"):
        if parity not in ("auto", "off"):
            raise UsageError(
                f"--skip-validation and --parity {parity} contradict each other", remedy="leave one out"
            )
        parity = "off"
    precisions = _names(given.pop("precisions"))
    if given.pop("quantize"):
        precisions = tuple(dict.fromkeys(("q8", *precisions)))
    return ConversionRequest(
        quantization=take_options(given),
        parity=parity,
        variants=_names(given.pop("variants")),
        precisions=precisions,
        optimize=take_optimization(given),
        stamp=not given.pop("no_stamp"),
        **given,
    )


def _names(listed: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in listed.split(",") if name.strip())


@cli.command("plugins", short_help="Show every plugin, and what is broken.")
@options(*OUTPUT)
def plugins_command(quiet: bool, verbose: bool, as_json: bool) -> None:
    """Show every plugin, what it registers, and why broken ones failed."""
    from converter.cli.display import describe_plugins, show_plugins, write_json
    from converter.registry import load_registry

    with quiet_libraries(verbose=verbose):
        registry = load_registry()
    if as_json:
        write_json(describe_plugins(registry))
    else:
        show_plugins(registry)


@cli.command("inspect")
@click.argument("package", type=FOLDER)
@options(*OUTPUT)
@click.pass_context
def inspect_command(ctx: click.Context, package: Path, quiet: bool, verbose: bool, as_json: bool) -> None:
    """Describe a package and check its files. Exits with 1 if one is missing, altered or not recorded."""
    from converter.cli.display import show_package, write_json
    from converter.packages.package import inspect_package

    with quiet_libraries(verbose=verbose):
        info = inspect_package(package)
    if as_json:
        write_json({**asdict(info), "intact": info.intact, "exact": info.exact})
    elif not quiet:
        show_package(info)
    ctx.exit(0 if info.exact else 1)


@cli.command("verify")
@click.argument("package", type=FOLDER)
@click.option("--model", "--model-id", required=True, help="The checkpoint the package was made from.")
@options(BASE_MODEL, *OUTPUT)
@click.pass_context
def verify_command(
    ctx: click.Context,
    package: Path,
    model: str,
    base_model: str | None,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Run parity again on a finished package. Exits with 3 if it fails."""
    from converter.cli.display import show_parity, write_json
    from converter.extras import require_export

    require_export()
    with quiet_libraries(verbose=verbose), show_progress(quiet=quiet) as progress:
        from converter.packages.finished import verify_package

        parity = verify_package(package, model, progress, base_model=base_model)
    if as_json:
        write_json({**asdict(parity), "passed": parity.passed})
    elif not quiet:
        show_parity(parity)
    ctx.exit(0 if parity.passed else ParityError.exit_code)


@cli.command("download", short_help="Make a local copy of a checkpoint.")
@click.argument("model")
@click.option("--output", type=FOLDER, required=True, help="Folder of the local copy.")
@click.option("--overwrite", is_flag=True, help="Replace an existing folder, once the new one is complete.")
@options(*HUB, *OUTPUT)
def download_command(
    model: str, output: Path, overwrite: bool, quiet: bool, verbose: bool, as_json: bool, **hub: Any
) -> None:
    """Make a local copy of a checkpoint; a pickle is turned into safetensors, weights only."""
    with quiet_libraries(verbose=verbose), show_progress(quiet=quiet) as progress:
        from converter.checkpoints.download import download

        with progress.stage(f"download {model}"):
            folder = download(model, output, overwrite=overwrite, **hub)
    _say_where(folder, quiet, as_json)


@cli.command("merge-data", short_help="Gather scattered external data.")
@click.argument("model", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--output", type=FOLDER, required=True, help="Folder of the merged model.")
@options(*OUTPUT)
def merge_data_command(model: Path, output: Path, quiet: bool, verbose: bool, as_json: bool) -> None:
    """Gather the scattered external data of any ONNX model into one file beside it."""
    with quiet_libraries(verbose=verbose), show_progress(quiet=quiet) as progress:
        from converter.packages.merge_data import merge_data

        with progress.stage(f"merge the data of {model.name}"):
            merge_data(model, output)
    _say_where(output, quiet, as_json)


def _say_where(folder: Path, quiet: bool, as_json: bool) -> None:
    from converter.cli.display import write_json
    from converter.console import write_line

    if as_json:
        write_json({"output": str(folder)})
    elif not quiet:
        write_line(f"wrote {folder}")


cli.add_command(bench_command)
cli.add_command(bisect_command)
cli.add_command(list_command)
cli.add_command(explain_command)
cli.add_command(new_command)
cli.add_command(push_command)
cli.add_command(quantize_command)
cli.add_command(report_command)


def run(argv: Sequence[str]) -> int:
    """Run the command line and return its exit code; no error leaves this function.

    0 done, 1 failed, 2 wrong usage, 3 parity failed, 130 interrupted.
    """
    verbose = "--verbose" in normalise(argv, flag_names(cli))
    try:
        code = cli.main(args=list(argv), prog_name="converter", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:
        # The reader left (`converter list | head`). The interpreter flushes stdout once more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, click.Abort):
        write_error("interrupted: nothing is left half-written")
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ConverterError as error:
        return _report_error(error_text(error), error.exit_code, verbose)
    except MemoryError:
        spent = ConverterError("out of memory", remedy="--parity structural needs less", topic="memory")
        return _report_error(error_text(spent), spent.exit_code, verbose)
    except Exception as error:  # the last resort: the user gets a line, not a stack
        hint = "" if verbose else "; run again with --verbose for the traceback"
        return _report_error(f"error: this is a bug: {type(error).__name__}: {error}{hint}", 1, verbose)


def _report_error(text: str, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    write_error(text)
    return code
