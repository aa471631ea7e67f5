"""`converter list`: what there is to convert."""

from __future__ import annotations

import click

from converter.cli.options import OUTPUT, options
from converter.console import quiet_libraries, write_error


@click.command("list", short_help="Show the architectures and their tasks.")
@click.option("--arch", help="Only this architecture, by name or model type.")
@options(*OUTPUT)
def list_command(arch: str | None, quiet: bool, verbose: bool, as_json: bool) -> None:
    """Show architectures with their model types, tasks and variants; with --arch, inputs and outputs too."""
    from converter.cli.display import describe_architecture, show_architecture, show_architectures, write_json
    from converter.registry import load_registry
    from converter.tracing.interfaces import interfaces

    with quiet_libraries(verbose=verbose):
        registry = load_registry()
        found = [registry.find(arch)] if arch else list(registry.architectures.values())
        graphs, unshown = interfaces(found[0]) if arch else ((), ())
    if as_json:
        write_json({"architectures": [describe_architecture(entry, graphs, unshown) for entry in found]})
        return
    if arch:
        show_architecture(found[0], graphs, unshown)
    else:
        show_architectures(found)
    if registry.failures and not quiet:
        write_error(f"{len(registry.failures)} plugin(s) failed to load; `converter plugins` says why")
