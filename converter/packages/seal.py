"""The last step of every package: what goes with its graphs, then its record. After this nothing in it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from converter.additions import PackageBuild, PackageFile
from converter.packages.contents import write_contents
from converter.packages.package import write_record


def seal_package(
    build: PackageBuild, entries: Sequence[PackageFile], *, known_hashes: Mapping[str, str] | None = None
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Write the files of `entries` and converter.json. Returns the sizes of all files in bytes, and the notes.

    `known_hashes` spares reading graphs again. Raises PackageError where an entry fails or touches the graphs.
    """
    notes = write_contents(build, entries)
    record = {**build.record, "notes": list(notes)}
    return write_record(build.folder, record, known_hashes=known_hashes), notes
