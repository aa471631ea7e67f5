"""The package: a folder made in one step, with a record of all it holds that can be checked later.

`stage_package` (`staging.py`) makes the folder, `write_contents` (`contents.py`) has the files made that go with the
graphs, `write_record` seals it, and `inspect_package` reads and checks what somebody else made or moved.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from converter.card.front_matter import CARD
from converter.errors import PackageError
from converter.packages.staging import RECORD, Staging, stage_package
from converter.paths import is_inside

if TYPE_CHECKING:
    from converter.packages.graph_info import GraphInfo

__all__ = [
    "FORMAT_VERSION",
    "PackageInfo",
    "Staging",
    "inspect_package",
    "stage_package",
    "write_record",
]

FORMAT_VERSION = 1
_CHUNK = 4 * 2**20


@dataclass(frozen=True)
class PackageInfo:
    """What a package says it is, and whether it still is. `files` maps paths to sizes in bytes.

    `extra` are files that the record does not know, hidden ones apart. `edited` is the card where somebody wrote
    into it or removed it: that is what a card is for, and no damage.
    """

    folder: Path
    record: Mapping[str, Any]
    files: Mapping[str, int]
    altered: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    edited: tuple[str, ...]
    graphs: tuple[GraphInfo, ...]

    @property
    def intact(self) -> bool:
        """Every recorded file is there and unchanged, the card apart."""
        return not self.altered and not self.missing

    @property
    def exact(self) -> bool:
        """Intact, and without files that nobody recorded: clients would read them all the same."""
        return self.intact and not self.extra

    def require_intact(self) -> None:
        """Raise PackageError naming what is missing or altered."""
        problems = [f"{name} is missing" for name in self.missing] + [
            f"{name} was altered" for name in self.altered
        ]
        if problems:
            raise PackageError(
                f"{self.folder} is damaged: {', '.join(problems)}",
                remedy="convert again, or copy the package again",
            )


def write_record(
    folder: Path,
    record: Mapping[str, Any],
    *,
    known_hashes: Mapping[str, str] | None = None,
    kind: str = "package",
) -> dict[str, int]:
    """Write converter.json: `record` plus size and sha256 of each file. Returns the sizes in bytes.

    `known_hashes` spares reading files whose hash the writer took on the way, by path in the package or, in
    onnx/, by bare name. Numbers JSON has no spelling for become strings.
    """
    known = known_hashes or {}
    files: dict[str, dict[str, Any]] = {}
    for name in files_in(folder):
        path = folder / name
        in_onnx = known.get(path.name) if name == f"onnx/{path.name}" else None
        files[name] = {"bytes": path.stat().st_size, "sha256": known.get(name) or in_onnx or hash_file(path)}
    content = {**plain(record), "format_version": FORMAT_VERSION, "kind": kind, "files": files}
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")
    return {name: entry["bytes"] for name, entry in files.items()}


def hash_file(path: Path) -> str:
    """sha256 of a file, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def plain(value: Any) -> Any:
    """As JSON gives it back: lists for tuples, keys as text and in order, words for numbers it cannot spell."""
    if isinstance(value, Mapping):
        return {str(key): plain(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def files_in(folder: Path) -> list[str]:
    """POSIX paths of all files of a package but its record, sorted."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(name for path in found if (name := path.relative_to(folder).as_posix()) != RECORD)


def inspect_package(folder: Path, *, hashes: bool = True) -> PackageInfo:
    """Read a package and check that each recorded file has its size and, with `hashes`, its sha256.

    Weights in data files are hashed but never loaded. Raises PackageError for a folder that is not a package,
    a record this version cannot read or trust, and a graph that is damaged or points outside the folder.
    """
    from converter.packages.graph_info import read_graph

    record = read_record(folder)
    if record.get("kind", "package") != "package":
        raise PackageError(f"{folder} is a {record['kind']}, not a package", remedy="convert it first")
    entries = _recorded_files(folder, record)
    fixed = [name for name in entries if name != CARD]
    missing = [name for name in fixed if not (folder / name).is_file()]
    present = [name for name in fixed if name not in missing]
    altered = [name for name in present if not _is_intact(folder / name, entries[name], hashes)]
    readable = [name for name in present if name.endswith(".onnx") and name not in altered]
    return PackageInfo(
        folder=folder,
        record=record,
        files={name: size for name, (size, _) in entries.items()},
        altered=tuple(altered),
        missing=tuple(missing),
        extra=tuple(name for name in files_in(folder) if name not in entries and not _is_hidden(name)),
        edited=(CARD,) if CARD in entries and not _is_intact(folder / CARD, entries[CARD], hashes) else (),
        graphs=tuple(read_graph(folder, name) for name in readable),
    )


def read_record(folder: Path) -> dict[str, Any]:
    """The content of converter.json. Raises PackageError when it is absent, no JSON object, or too new."""
    path = folder / RECORD
    if not folder.is_dir():
        raise PackageError(f"{folder} is not a folder" if folder.exists() else f"there is no folder {folder}")
    if not path.is_file():
        raise PackageError(
            f"{folder} is not a package of this converter: it has no {RECORD}",
            remedy="name the folder that `converter --output` made, the one above onnx/",
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PackageError(f"{path} cannot be read: {error}", remedy="copy the package again") from error
    version = record.get("format_version") if isinstance(record, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise PackageError(f"{path} is not a package record: it has no format_version")
    if version > FORMAT_VERSION:
        raise PackageError(
            f"{path} has format {version}; this converter reads up to {FORMAT_VERSION}",
            remedy="upgrade the converter",
        )
    assert isinstance(record, dict)
    return record


def _recorded_files(folder: Path, record: Mapping[str, Any]) -> dict[str, tuple[int, str]]:
    files = record.get("files")
    if not isinstance(files, dict):
        raise PackageError(f"{folder / RECORD} lists no files")
    entries: dict[str, tuple[int, str]] = {}
    for name, entry in files.items():
        if not is_inside(name):
            raise PackageError(f"{folder / RECORD} names a file outside the package: {name!r}: not read")
        try:
            entries[name] = (int(entry["bytes"]), str(entry["sha256"]))
        except (KeyError, TypeError, ValueError) as error:
            raise PackageError(f"{folder / RECORD}: the entry of {name!r} lacks its size or hash") from error
    return entries


def _is_hidden(name: str) -> bool:
    """Whether a file is none of the package's business: `.git`, `.cache` and `.gitattributes` of the hub."""
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def _is_intact(path: Path, entry: tuple[int, str], hashes: bool) -> bool:
    size, sha256 = entry
    return path.is_file() and path.stat().st_size == size and (not hashes or hash_file(path) == sha256)
