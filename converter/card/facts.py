"""What a card is written from: a package's record, and what lies in its folder. Nothing is measured here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.additions import PackageBuild
from converter.card.front_matter import CARD
from converter.json_files import object_or_empty

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_WITH_PAST = "-with-past"


@dataclass(frozen=True)
class CardFacts:
    """`record` is the content of converter.json; `files` maps the package's files to bytes.

    `pooling` and `normalize` are how hidden states become embeddings, empty where the package does not say;
    `start_token` is what an encoder-decoder's generation begins with, `image_size` the height and width that
    the checkpoint was made for, `model_type` transformers' name of its class, empty where config.json has none;
    `encoder_alone` whether it is the encoder of a type that usually has a decoder too.
    """

    record: Mapping[str, Any]
    files: Mapping[str, int]
    pooling: tuple[str, ...] = ()
    normalize: bool = False
    start_token: int | None = None
    image_size: tuple[int, int] | None = None
    model_type: str = ""
    encoder_alone: bool = False

    @classmethod
    def of(cls, build: PackageBuild) -> CardFacts:
        """The facts of a package, sealed or about to be. A damaged pooling configuration says nothing."""
        from converter.packages.package import files_in, plain

        folder = build.folder
        files = {name: (folder / name).stat().st_size for name in files_in(folder) if name != CARD}
        record = plain(build.record)  # in the order that reading it back gives
        pooling, normalize = _read_pooling(folder) if "modules.json" in files else ((), False)
        config = object_or_empty(folder / "config.json")
        return cls(
            record,
            files,
            pooling,
            normalize,
            _read_start_token(folder),
            _read_image_size(folder),
            str(config.get("model_type") or ""),
            any(str(name).endswith("EncoderModel") for name in config.get("architectures") or ()),
        )

    @property
    def source(self) -> Mapping[str, Any]:
        return dict(self.record.get("source") or {})

    @property
    def name(self) -> str:
        """What to call the model: the last part of its source's name."""
        name = str(self.source.get("name") or self.record.get("architecture") or "model")
        return " ".join(name.split()).rpartition("/")[2]

    @property
    def base_model(self) -> str:
        """The source's id on the hub, empty for a local folder, whose name proves nothing."""
        name = str(self.source.get("name") or "")
        return name if _HUB_ID.fullmatch(name) else ""

    @property
    def task(self) -> str:
        """The task as pipelines call it: past key values are a matter of the graph."""
        return str(self.record.get("task") or "").removesuffix(_WITH_PAST)

    @property
    def variants(self) -> Mapping[str, Mapping[str, Any]]:
        return dict(self.record.get("variants") or {})

    @property
    def graphs(self) -> dict[str, Mapping[str, Any]]:
        """Each graph once, by stem, in the order they are run: file, inputs, outputs, opset, nodes."""
        found = {
            stem: graph
            for variant in self.variants.values()
            for stem, graph in (variant.get("graphs") or {}).items()
        }
        return {stem: found[stem] for stem in sorted(found, key=lambda stem: ("decoder" in stem, stem))}

    @property
    def precisions(self) -> Mapping[str, Mapping[str, Any]]:
        """Those that were added to the main graphs."""
        return dict(self.record.get("precisions") or {})

    @property
    def missed_precisions(self) -> Mapping[str, Mapping[str, Any]]:
        """Those that were tried and not written."""
        return dict(self.record.get("missed_precisions") or {})

    @property
    def measures(self) -> tuple[str, ...]:
        """What the quality of any added precision was measured by; none where nothing was judged."""
        judged = (entry.get("quality") or {} for entry in self.precisions.values())
        return tuple(dict.fromkeys(name for quality in judged for name in quality))

    @property
    def dtype(self) -> str:
        """What the main graphs compute in."""
        return str((self.record.get("settings") or {}).get("dtype") or "fp32")

    @property
    def main_files(self) -> tuple[str, ...]:
        """The main graphs and their data, none of the added precisions."""
        added = {name for entry in self.precisions.values() for name in entry.get("files") or ()}
        return tuple(name for name in self.files if name.startswith("onnx/") and name not in added)

    @property
    def files_of(self) -> dict[str, tuple[str, ...]]:
        """The graph files of each precision, those of the main graphs first."""
        added = {name: tuple(entry.get("files") or ()) for name, entry in self.precisions.items()}
        return {self.dtype: self.main_files, **added}

    def inputs(self, stem: str) -> tuple[str, ...]:
        """Names of a graph's inputs, in order."""
        return tuple(str(value["name"]) for value in self.graphs[stem].get("inputs") or ())

    def outputs(self, stem: str) -> tuple[str, ...]:
        """Names of a graph's outputs, in order."""
        return tuple(str(value["name"]) for value in self.graphs[stem].get("outputs") or ())

    @property
    def pages(self) -> bool:
        """Whether the package embeds pages and queries, for late interaction."""
        images = [stem for stem in self.graphs if "pixel_values" in self.inputs(stem)]
        texts = [stem for stem in self.graphs if {"input_ids"} <= set(self.inputs(stem))]
        return self.task == "feature-extraction" and bool(images) and bool(texts)


def _read_start_token(folder: Path) -> int | None:
    for name in ("generation_config.json", "config.json"):
        token = object_or_empty(folder / name).get("decoder_start_token_id")
        if isinstance(token, int):
            return token
    return None


def _read_image_size(folder: Path) -> tuple[int, int] | None:
    size = object_or_empty(folder / "config.json").get("image_size")
    height, width = size if isinstance(size, list) and len(size) == 2 else (size, size)
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _read_pooling(folder: Path) -> tuple[tuple[str, ...], bool]:
    from converter.errors import ConverterError
    from converter.runtime.files import PackageFiles
    from converter.runtime.pooling import read_pooling

    try:
        pooling = read_pooling(PackageFiles(folder, str(folder), {}), None)
    except ConverterError:
        return (), False
    return pooling.modes, pooling.normalize
