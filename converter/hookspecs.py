"""The whole extension surface. A plugin is a module with functions marked `@hookimpl`.

A third party's package declares it in its pyproject:

    [project.entry-points.converter]
    my_arch = "my_package.plugin"
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from converter.records import Architecture, GraphPass

hookspec = pluggy.HookspecMarker("converter")
hookimpl = pluggy.HookimplMarker("converter")


@hookspec
def register_architectures(register: Callable[[Architecture], None]) -> None:
    """Call `register(architecture)` once for each architecture the plugin brings."""


@hookspec
def register_passes(register: Callable[[GraphPass], None]) -> None:
    """Call `register(graph_pass)` once for each graph transformation the plugin adds."""
