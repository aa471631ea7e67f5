"""What a benchmark feeds to graphs that take images or sound: seeded noise of the size the model was made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from converter.errors import PackageError
from converter.packages.graph_info import GraphInfo, Value
from converter.runtime.files import PackageFiles
from converter.runtime.session import Array

# An input as it goes to a contender's process: `name`, and `shape` to be filled with noise or ones, or `values`.
Drawn: TypeAlias = Mapping[str, Any]

SECONDS = 5  # of sound, where the graph takes any length
FRAMES_A_SECOND = 100  # of mel features, whose step is 10 ms wherever transformers computes them
SIDE = 224  # pixels, where no file of the package says
_IMAGES, _SOUNDS = ("pixel_values",), ("input_values", "input_features")
_MASKS = ("pixel_mask", "attention_mask")


class UnknownKindError(PackageError):
    """Nothing in a benchmark knows what to feed to a package's graphs; the architecture it was made by may."""


def unit_of(graph: GraphInfo) -> str | None:
    """`images` or `clips`, by what the graph takes; None for anything else."""
    names = {value.name for value in graph.inputs}
    for unit, mains in (("images", _IMAGES), ("clips", _SOUNDS)):
        if names & set(mains) and names <= {*mains, *_MASKS}:
            return unit
    return None


def describe(files: PackageFiles, graph: GraphInfo, batch: int) -> list[Drawn]:
    """The inputs of a graph of `images` or `clips`, for so many. Raises UnknownKindError for a shape unknown."""
    sizes = _Sizes(files, graph)
    return [
        {
            "name": value.name,
            "shape": [batch, *sizes.of(graph.file, value)],
            "ones": value.name in _MASKS,
        }
        for value in graph.inputs
    ]


def words(inputs: Sequence[Drawn]) -> str:
    """The inputs of one image or clip, for people."""
    shown = (f"{entry['name']} {' x '.join(map(str, entry['shape'][1:]))}" for entry in inputs)
    return ", ".join(shown)


def draw(inputs: Sequence[Drawn]) -> dict[str, Array]:
    """The tensors, the same at every call and in every process."""
    return {str(entry["name"]): _array(entry) for entry in inputs}


def _array(entry: Drawn) -> Array:
    if "values" in entry:
        return np.asarray(entry["values"], dtype=np.int64)
    if entry["ones"]:
        return np.ones(entry["shape"], dtype=np.int64)
    shape = [int(size) for size in entry["shape"]]
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


class _Sizes:
    """How large images and sounds are, from the checkpoint's files. Masks are as large as what they mask."""

    def __init__(self, files: PackageFiles, graph: GraphInfo) -> None:
        self._config = files.read_object("config.json")
        processor = files.read_object("processor_config.json")
        self._processor: Mapping[str, Any] = files.read_object("preprocessor_config.json") or (
            processor.get("image_processor") or processor.get("feature_extractor") or {}
        )
        self._main = next(value.name for value in graph.inputs if value.name in _IMAGES + _SOUNDS)

    def of(self, file: str, value: Value) -> list[int]:
        """The sizes of one row of an input: those the graph fixes, and for the others the model's usual ones."""
        usual = self._usual()
        free = [size for size in value.shape[1:] if not isinstance(size, int)]
        if free and len(usual) != len(free):
            raise UnknownKindError(
                f"{file} takes {value.name} {list(value.shape)}, a shape for which a benchmark knows no size",
                remedy="time it with onnxruntime itself, as its README.md shows",
            )
        filling = iter(usual)
        return [size if isinstance(size, int) else next(filling) for size in value.shape[1:]]

    def _usual(self) -> tuple[int, ...]:
        if self._main in _IMAGES:
            return self._image()
        rate = int(self._processor.get("sampling_rate") or 16000)
        return (SECONDS * (rate if self._main == "input_values" else FRAMES_A_SECOND),)

    def _image(self) -> tuple[int, int]:
        places = (
            self._processor.get("crop_size"),
            self._processor.get("size"),
            self._config.get("image_size"),
        )
        for size in places:
            if isinstance(size, int):
                return size, size
            if isinstance(size, list) and len(size) == 2:
                return int(size[0]), int(size[1])
            if isinstance(size, Mapping) and {"height", "width"} <= set(size):
                return int(size["height"]), int(size["width"])
            if isinstance(size, Mapping) and "shortest_edge" in size:
                return int(size["shortest_edge"]), int(size["shortest_edge"])
        return SIDE, SIDE
