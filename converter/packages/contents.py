"""The files of a package that are not graphs: written by whoever registered them, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from converter.additions import PackageBuild, PackageFile
from converter.errors import ConverterError, PackageError


def write_contents(build: PackageBuild, entries: Sequence[PackageFile]) -> tuple[str, ...]:
    """Let each entry write its files, and return their notes. Each sees the notes of those before it in the record.

    Raises PackageError naming the entry that failed or that touched the graphs. What goes wrong with the disk is left
    to the staging.
    """
    notes: list[str] = list(build.record.get("notes", ()))
    graphs = _stamps(build.folder)
    for entry in entries:
        try:
            said = entry.write(replace(build, record={**build.record, "notes": list(notes)}))
        except (ConverterError, OSError):
            raise
        except Exception as error:  # any plugin's code
            raise PackageError(
                f"the package file {entry.name!r} could not be made: {type(error).__name__}: {error}",
                remedy="`converter plugins` shows which plugin registers it; CONVERTER_PLUGINS can exclude that plugin",
            ) from error
        if _stamps(build.folder) != graphs:
            raise PackageError(
                f"making the package file {entry.name!r} changed the graphs, which are finished"
            )
        added = [said] if isinstance(said, str) else map(str, said or ())
        notes += [
            note for note in added if note not in notes
        ]  # a package that gets precisions is sealed again
    return tuple(notes)


def _stamps(folder: Path) -> dict[Path, tuple[int, int]]:
    files = (path for path in (folder / "onnx").rglob("*") if path.is_file())
    return {path: ((found := path.stat()).st_size, found.st_mtime_ns) for path in files}
