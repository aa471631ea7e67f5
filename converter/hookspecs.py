"""The whole extension surface. A plugin is a module with functions marked `@hookimpl`.

A third party's package declares it in its pyproject:

    [project.entry-points.converter]
    my_arch = "my_package.plugin"

and the module states the version of this surface that it was written for: `converter_api = "1.0"`.

Every hook is handed `register`. `register(record)` adds a record under its name. `register(record, overrides="name")`
puts it in the place of another plugin's, and `register(None, overrides="name")` takes that away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import pluggy

if TYPE_CHECKING:
    from converter.additions import (
        CardSection,
        Extension,
        GraphPass,
        Metric,
        PackageFile,
        Precision,
    )
    from converter.records import Architecture

# Of this file and of the records it names. The first number changes when a plugin may have to change, the second when
# something is added.
API_VERSION = "1.0"

hookspec = pluggy.HookspecMarker("converter")
hookimpl = pluggy.HookimplMarker("converter")

Record = TypeVar("Record", contravariant=True)


class Register(Protocol[Record]):
    """What a hook is handed."""

    def __call__(self, record: Record | None, *, overrides: str | Sequence[str] = ()) -> None: ...


@hookspec
def register_architectures(register: Register[Architecture]) -> None:
    """Add families of models. `overrides` takes names of architectures, and model types that others own."""


@hookspec
def register_variants(register: Register[Extension]) -> None:
    """Add variants and tasks to architectures of other plugins. `overrides` takes `architecture/task/variant`."""


@hookspec
def register_passes(register: Register[GraphPass]) -> None:
    """Add graph transformations, each with its place in the order."""


@hookspec
def register_precisions(register: Register[Precision]) -> None:
    """Add graphs of fewer bits that packages can have."""


@hookspec
def register_metrics(register: Register[Metric]) -> None:
    """Add ways to judge outputs. Architectures and components name the ones that judge theirs."""


@hookspec
def register_package_files(register: Register[PackageFile]) -> None:
    """Add files that every package gets."""


@hookspec
def register_card_sections(register: Register[CardSection]) -> None:
    """Add parts of a package's README."""
