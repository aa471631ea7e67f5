"""`converter list`: what there is to convert."""

from __future__ import annotations

import click

from converter.cli.options import OUTPUT, options
from converter.console import quiet_libraries, write_error

AUTO = "auto"


@click.command("list", short_help="Show the architectures and their tasks.")
@click.option("--arch", help="Only this architecture, by name or model type; `auto` says how one is chosen.")
@options(*OUTPUT)
def list_command(arch: str | None, quiet: bool, verbose: bool, as_json: bool) -> None:
    """Show architectures with their model types, tasks and variants; with --arch, inputs and outputs too."""
    from converter.cli.display import (
        describe_architecture,
        show_architecture,
        show_architectures,
        show_auto,
        write_json,
    )
    from converter.registry import load_registry
    from converter.tracing.interfaces import interfaces

    with quiet_libraries(verbose=verbose):
        registry = load_registry()
        every = list(registry.architectures.values())
        if arch == AUTO:
            found = [entry for entry in every if entry.stand_in is not None]
        else:
            found = [registry.find(arch)] if arch else every
        graphs, unshown = interfaces(found[0]) if arch and found else ((), ())
    if as_json:
        write_json({"architectures": [describe_architecture(entry, graphs, unshown) for entry in found]})
        return
    if arch == AUTO:
        show_auto(found)
    elif arch:
        show_architecture(found[0], graphs, unshown)
    else:
        show_architectures(found)
    if registry.failures and not quiet:
        write_error(f"{len(registry.failures)} plugin(s) failed to load; `converter plugins` says why")
