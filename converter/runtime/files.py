"""The files of a package, each checked against the record before it is used."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.errors import PackageError, UsageError
from converter.packages.staging import RECORD

# Names of precisions and the ends of their files' stems, as transformers.js and the model hub have them.
SUFFIXES: Mapping[str, str] = {
    "fp32": "",
    "fp16": "_fp16",
    "bf16": "_bf16",
    "q8": "_quantized",
    "int8": "_int8",
    "uint8": "_uint8",
    "q4": "_q4",
    "q4f16": "_q4f16",
    "bnb4": "_bnb4",
}


def suffix_of(precision: str) -> str:
    """The end of a precision's file stems; one that nobody else has a name for is called by its own."""
    return SUFFIXES.get(precision, f"_{precision}")


_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class PackageFiles:
    """A package's folder. `sizes` maps recorded files to bytes; empty where somebody else made the folder.

    `source` opens it again, from any working directory: the folder, or the hub id. `others` names precisions of
    the record that `SUFFIXES` does not have.
    """

    folder: Path
    source: str
    sizes: Mapping[str, int]
    others: tuple[str, ...] = ()

    def has(self, name: str) -> bool:
        """Whether the file belongs to the package: it is there, or ought to be."""
        return name in self.sizes or (self.folder / name).is_file()

    def require(self, name: str, *, purpose: str = "") -> Path:
        """The path of a file. Raises PackageError when it is missing or not of its recorded size."""
        path = self.folder / name
        if not path.is_file():
            what = f", which is needed for {purpose}" if purpose else ""
            raise PackageError(
                f"{self.folder} has no {name}{what}", remedy="copy the package again, or convert again"
            )
        found, recorded = path.stat().st_size, self.sizes.get(name)
        if recorded is not None and found != recorded:
            raise PackageError(
                f"{path} was altered: it has {found} bytes, {recorded} are recorded",
                remedy="copy the package again, or convert again",
            )
        return path

    def read_json(self, name: str) -> Any:
        """The content of a JSON file, or an empty object where the package has no such file."""
        if not self.has(name):
            return {}
        path = self.require(name)
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PackageError(f"{path} cannot be read: {error}", remedy="copy the package again") from error

    def read_object(self, name: str) -> Mapping[str, Any]:
        """The same for a file that must hold a JSON object."""
        content = self.read_json(name)
        if not isinstance(content, dict):
            raise PackageError(f"{self.folder / name} is not a JSON object", remedy="copy the package again")
        return content

    def precisions(self, stem: str, *also: str) -> dict[str, str]:
        """The precisions there are of a graph, and their files: `{"fp32": "onnx/model.onnx"}`.

        `also` names some to look for besides the usual and the recorded ones.
        """
        found = {}
        for precision in dict.fromkeys((*SUFFIXES, *self.others, *also)):
            names = tuple(f"{folder}{stem}{suffix_of(precision)}.onnx" for folder in ("onnx/", ""))
            if name := next(filter(self.has, names), None):
                found[precision] = name
        return found

    def graph(self, stems: Sequence[str], precision: str, *, half_first: bool = False) -> str:
        """The file of the first of `stems` that exists in a precision.

        `auto` is fp32, or fp16 first with `half_first`, or else the first there is: accuracy is never traded
        for speed unasked. Raises UsageError for a precision the package does not have.
        """
        asked = () if precision == "auto" else (precision,)
        available = {stem: self.precisions(stem, *asked) for stem in stems}
        order = [*asked] or [*(("fp16",) if half_first else ()), *SUFFIXES, *self.others]
        for stem in stems:
            for name in order:
                if name in available[stem]:
                    return available[stem][name]
        known = sorted({name for files in available.values() for name in files})
        if not known:
            raise PackageError(
                f"{self.folder} has no graph {' or '.join(f'onnx/{stem}.onnx' for stem in stems)}",
                remedy="name the folder above onnx/, or convert that variant",
            )
        raise UsageError(
            f"{self.folder} has no precision {precision!r}; it has {', '.join(known)}",
            remedy="choose one of these, or 'auto'",
        )


def open_package(package: str | Path, precisions: Sequence[str] = ()) -> PackageFiles:
    """A folder or a hub id as a package; from the hub, only graphs of `precisions` are fetched (empty: all).

    Folders without converter.json are taken as they are. Raises PackageError: no such folder or model, a
    record of a newer format, or of something that is no package.
    """
    folder = Path(package).expanduser()
    source = str(folder.resolve()) if folder.is_dir() else str(package)
    if not folder.is_dir():
        folder = _download(str(package), folder, precisions)
    folder = folder.resolve()
    if not (folder / RECORD).is_file():
        return PackageFiles(folder, source, {})
    from converter.packages.package import read_record

    record = read_record(folder)
    if record.get("kind", "package") != "package":
        raise PackageError(f"{folder} is a {record['kind']}, not a package", remedy="convert it first")
    files = record.get("files")
    try:
        sizes = {str(name): int(entry["bytes"]) for name, entry in (files or {}).items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise PackageError(f"{folder / RECORD}: its list of files is damaged") from error
    recorded = record.get("precisions")
    others = tuple(name for name in recorded if name not in SUFFIXES) if isinstance(recorded, dict) else ()
    return PackageFiles(folder, source, sizes, others)


def _download(name: str, folder: Path, precisions: Sequence[str]) -> Path:
    """The snapshot of a hub model: what goes with the graphs, and those graphs that are wanted."""
    if folder.exists():
        parent = folder.parent
        package = parent.parent if parent.name == "onnx" else parent
        raise PackageError(f"{name} is a file", remedy=f"name the package's folder: {package}")
    if not _HUB_ID.fullmatch(name) or name.startswith("."):
        raise PackageError(f"there is no folder {name}", remedy="check the path of the package")
    others = [suffix for precision, suffix in SUFFIXES.items() if suffix and precision not in precisions]
    unwanted = [f"*{suffix}.onnx*" for suffix in others] if precisions else []
    try:
        found = _snapshot(name, unwanted)
        return found if any(found.rglob("*.onnx")) or not unwanted else _snapshot(name, [])
    except Exception as error:  # the client under huggingface_hub changes, and its errors share no base
        raise PackageError(
            f"there is no folder {name}, and the hub does not give a model of that name"
            f" ({type(error).__name__}: {error})",
            remedy="check the name, or download the package and give its folder",
        ) from error


def _snapshot(name: str, unwanted: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.txt", "*.onnx*", "artifact.metadata"]
    return Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=list(unwanted)))
