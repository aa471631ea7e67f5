"""Weights from the checkpoint into one data file: bound, deduplicated, written in blocks, and checked."""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from converter.arrays import Array, Region, extent, row_blocks
from converter.checkpoints.twins import find_twins, with_twins
from converter.errors import WeightError
from converter.recipes import (
    Constant,
    Load,
    RecipeTensor,
    Transpose,
    WeightRecipe,
    bind,
    evaluate,
    leaves,
    read,
    walk,
)
from converter.records import ExportedGraph
from converter.request import Advance
from converter.weights.direct_io import DIRECT, PIECE, Bytes, read_spans
from converter.weights.hashed_file import BLOCK_BYTES, HashedFile

# Bytes. Below the first, a tensor stays in the graph; from the second on it starts on a page, for mapping.
INLINE = 1024
_PAGED = 64 * 1024
_PAGE, _LINE = 4096, 64
# Each block of a transposed tensor reads the whole source again: few large blocks. Most matrices are one.
_TURNED_BLOCK = 64 * 2**20


@dataclass(frozen=True)
class StoredTensor:
    """A recipe, the first initializer that asked for it, and where its value lies in the data file."""

    name: str
    recipe: WeightRecipe
    offset: int


@dataclass(frozen=True)
class DataLayout:
    """A written data file, its size in bytes and its tensors. Those of equal content share an offset."""

    path: Path
    size: int
    sha256: str  # empty for tensors within an .onnx file
    tensors: tuple[StoredTensor, ...]
    block_bytes: int = BLOCK_BYTES


def bind_graph(graph: ExportedGraph, mapping: Mapping[str, WeightRecipe]) -> list[str]:
    """Bind the recipe of every initializer, those of subgraphs included, to the checkpoint.

    Returns the names of the checkpoint's tensors that the graph uses, sorted. Raises WeightError for a
    parameter that `mapping` lacks or gives another shape.
    """
    used: set[str] = set()
    for value in initializers(graph.model):
        tensor = value.const_value
        if not isinstance(tensor, RecipeTensor):
            continue
        try:
            recipe = bind(tensor.recipe, mapping)
        except WeightError as error:
            near = _near_misses(tensor.recipe, mapping)
            raise WeightError(
                f"{graph.stem}, initializer {value.name!r}: {error.message}{near}", remedy=error.remedy
            ) from error
        value.const_value = RecipeTensor(recipe, name=value.name)
        used.update(leaf.info.name for leaf in leaves(recipe) if isinstance(leaf, Load))
    return sorted(used)


def _near_misses(recipe: WeightRecipe, mapping: Mapping[str, WeightRecipe]) -> str:
    """Names much like those of the parameters that are missing."""
    missing = [
        name for leaf in leaves(recipe) if (name := getattr(leaf, "name", None)) and name not in mapping
    ]
    close = [near for name in missing for near in difflib.get_close_matches(name, mapping, n=3)]
    return f" (near misses: {', '.join(map(repr, close))})" if close else ""


@contextmanager
def naming(initializer: str | None) -> Iterator[None]:
    """Within, a WeightError says which initializer it is about."""
    try:
        yield
    except WeightError as error:
        raise WeightError(f"initializer {initializer!r}: {error.message}", remedy=error.remedy) from error


def initializers(model: ir.Model) -> Iterator[ir.Value]:
    """The initializers of a model's graph and of its subgraphs."""
    for graph in model.graphs():
        yield from graph.initializers.values()


@dataclass(frozen=True)
class DataPlan:
    """A data file before it is written: where each recipe goes, and the name of the first that asked for it.

    `tensors` are all that was asked for; those of equal content share an offset. Plans can be pickled.
    """

    path: Path
    size: int
    stored: Mapping[WeightRecipe, int]
    names: Mapping[WeightRecipe, str]
    tensors: tuple[StoredTensor, ...]
    block_bytes: int

    def write(self, advance: Advance | None = None) -> DataLayout:
        """Write it. `advance` is called with bytes done and bytes in all. Memory: a few blocks."""
        if not self.stored:
            return self.layout(hashlib.sha256().hexdigest())
        with HashedFile(self.path, self.block_bytes, expected=self.size) as file:
            for recipe, offset in self.stored.items():
                file.pad_to(offset)
                with naming(self.names[recipe]):
                    append_tensor(file, recipe, self.size, advance)
        return self.layout(file.hexdigest)

    def layout(self, sha256: str) -> DataLayout:
        """The file as written, with this digest."""
        return DataLayout(self.path, self.size, sha256, self.tensors, self.block_bytes)


def plan_data_file(
    graphs: Sequence[ExportedGraph], path: Path, *, block_bytes: int = BLOCK_BYTES
) -> DataPlan:
    """Decide where the weights of all graphs go in one file, each once, and point the initializers there.

    Equal recipes, and recipes over checkpoint tensors of equal content, are stored once. Tensors under a
    kibibyte and constants of that size stay in the graphs. The same graphs give the same plan.
    """
    wanted = _collect(graphs)
    twins = find_twins(recipe for _, recipe in wanted)
    stored: dict[WeightRecipe, int] = {}
    names: dict[WeightRecipe, str] = {}
    tensors: dict[WeightRecipe, StoredTensor] = {}
    size = 0
    for value, recipe in wanted:
        unified = with_twins(recipe, twins)
        if unified not in stored:
            stored[unified] = aligned(size, recipe.nbytes)
            size = stored[unified] + recipe.nbytes
            names[unified] = str(value.name)
        tensors.setdefault(recipe, StoredTensor(str(value.name), recipe, stored[unified]))
        value.const_value = _external(value, recipe, path, stored[unified])
    return DataPlan(path, size, stored, names, tuple(tensors.values()), block_bytes)


def _collect(graphs: Sequence[ExportedGraph]) -> list[tuple[ir.Value, WeightRecipe]]:
    """What goes to the data file. Small recipes are replaced by their values in the graph on the way."""
    wanted: list[tuple[ir.Value, WeightRecipe]] = []
    for graph in graphs:
        for value in initializers(graph.model):
            tensor = value.const_value
            if isinstance(tensor, RecipeTensor):
                if tensor.nbytes < INLINE:
                    with naming(value.name):
                        value.const_value = ir.Tensor(
                            read(tensor.recipe), dtype=tensor.dtype, name=value.name
                        )
                else:
                    wanted.append((value, tensor.recipe))
            elif tensor is not None and tensor.nbytes >= INLINE and _is_plain(tensor):
                wanted.append((value, Constant.of(tensor.numpy())))
    return wanted


def _is_plain(tensor: ir.TensorProtocol) -> bool:
    """Whether its values are numbers of whole bytes."""
    return tensor.dtype != ir.DataType.STRING and tensor.dtype.bitwidth % 8 == 0


def _external(value: ir.Value, recipe: WeightRecipe, path: Path, offset: int) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        path.name,
        offset,
        recipe.nbytes,
        ir.DataType.from_numpy(recipe.dtype),
        shape=ir.Shape(recipe.shape),
        name=str(value.name),
        base_dir=path.parent,
    )


def aligned(position: int, nbytes: int) -> int:
    """Where a tensor of this size starts in a data file that ends at `position`: large ones on a page."""
    alignment = _PAGE if nbytes >= _PAGED else _LINE
    return -(-position // alignment) * alignment


def append_tensor(file: HashedFile, recipe: WeightRecipe, total: int, advance: Advance | None) -> None:
    """Write a recipe's value to the end of `file` in blocks; `total` is for `advance`."""
    for region in _regions(recipe, file.block_bytes):
        size = extent(region)
        buffer = file.buffer(math.prod(size) * recipe.dtype.itemsize)
        evaluate(recipe, region, buffer.view(recipe.dtype).reshape(size))
        file.append(buffer)
        if advance is not None:
            advance(file.position, total)


def _regions(recipe: WeightRecipe, block_bytes: int) -> Iterator[Region]:
    turned = any(isinstance(part, Transpose) for part in walk(recipe))
    return row_blocks(
        recipe.shape, recipe.dtype.itemsize, max(block_bytes, _TURNED_BLOCK) if turned else block_bytes
    )


def check_data(layout: DataLayout) -> int:
    """Read every tensor back and compare it, bit for bit, with its recipe applied to the checkpoint.

    Returns the number of recipes compared. Raises WeightError for the first difference, or a file of another
    size.
    """
    if not layout.tensors:
        return 0
    size = layout.path.stat().st_size
    if size != layout.size:
        raise WeightError(
            f"{layout.path} has {size} bytes, {layout.size} were written",
            remedy="the disk may be faulty: convert again",
        )
    spans = (span for tensor in layout.tensors for span in _spans(tensor, layout.block_bytes))
    with closing(read_spans(layout.path, spans, direct=layout.size >= DIRECT)) as found:
        for tensor in layout.tensors:
            _check_tensor(found, tensor, layout)
    return len(layout.tensors)


def _spans(tensor: StoredTensor, block_bytes: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of the pieces in which a tensor is read back: parts of its blocks."""
    offset = tensor.offset
    for region in _regions(tensor.recipe, block_bytes):
        end = offset + math.prod(extent(region)) * tensor.recipe.dtype.itemsize
        for start in range(offset, end, PIECE):
            yield start, min(PIECE, end - start)
        offset = end


def _check_tensor(found: Iterator[Bytes], tensor: StoredTensor, layout: DataLayout) -> None:
    recipe = tensor.recipe
    for region in _regions(recipe, layout.block_bytes):
        expected: Array = np.empty(extent(region), recipe.dtype)
        evaluate(recipe, region, expected)
        difference = _first_difference(found, expected.reshape(-1).view(np.uint8))
        if difference is not None:
            inside = np.unravel_index(difference // recipe.dtype.itemsize, extent(region)) if region else ()
            where = tuple(int(at) + start for at, (start, _) in zip(inside, region, strict=True))
            raise WeightError(
                f"{layout.path.name}: tensor {tensor.name!r} differs from its source, first at index {where}",
                remedy="the file was changed after it was written, or the disk is faulty: convert again",
            )


def _first_difference(found: Iterator[Bytes], expected: Bytes) -> int | None:
    """Index of the first byte in which what was read back, piece by piece, differs."""
    for start in range(0, len(expected), PIECE):
        wanted, read = expected[start : start + PIECE], next(found)
        if not np.array_equal(wanted, read):
            common = min(len(wanted), len(read))
            differing = np.flatnonzero(wanted[:common] != read[:common])
            return start + int(differing[0] if differing.size else common)
    return None
