"""Graphs too large to be opened whole: slice by slice, each run on all feeds before the next is opened.

Memory holds the weights of one slice and the values that go on to later ones, whatever the size of the model, and
weights are read once for all feeds. A slice is opened as clients open the whole graph, with packed weights: without
them MatMulNBits unpacks a matrix to fp32 and leaves activations in fp32, which is another computation.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import onnx

from converter.errors import PackageError
from converter.packages.graph_info import tensor_bytes
from converter.packages.skim import Span, skim
from converter.precision.sessions import ONNX, Described, Feeds, Sessions
from converter.precision.slices import SLICE, Slice, cut
from converter.runtime.session import Array, session_options

# Bytes of fp32 graphs from which on they are run in slices.
LARGE = 512 * 2**20
# Bytes of an fp32 matrix from which on it stays where it lies: a packed copy is memory, and computes the same.
_UNPACKED = 256 * 2**20


@dataclass(frozen=True)
class _Value:
    name: str
    type: str
    shape: tuple[int | str | None, ...]


class SlicedSessions(Sessions):
    """`Sessions` that have one slice of a graph open at a time. `run_all` is what they are for."""

    def inputs(self, stem: str) -> Mapping[str, Described]:
        return {value.name: _described(value) for value in _file(self._path(stem)).model.graph.input}

    def outputs(self, stem: str) -> Mapping[str, Described]:
        return {value.name: _described(value) for value in _file(self._path(stem)).model.graph.output}

    def run(self, stem: str, feed: Mapping[str, Any], outputs: Sequence[str] = ()) -> dict[str, Array]:
        return next(self.run_all(stem, [feed], outputs))

    def run_all(
        self, stem: str, feeds: Iterable[Mapping[str, Any]], outputs: Sequence[str] = ()
    ) -> Iterator[dict[str, Array]]:
        stores = []
        for feed in feeds:
            self.note(stem, feed)
            stores.append(self.typed(stem, feed))
        return self._run(stem, stores, outputs)

    def seconds(self, feeds: Feeds) -> float:
        return sum(self.each(feeds))

    def each(self, feeds: Feeds) -> list[float]:
        """What each feed took in all slices together, graph after graph; slices are warmed up with the first."""
        found: list[float] = []
        for stem in dict.fromkeys(stem for stem, _ in feeds):
            stores = [self.typed(stem, feed) for name, feed in feeds if name == stem]
            spent = [0.0] * len(stores)
            for _ in self._run(stem, stores, (), spent):
                pass
            found += spent
        return found

    def _run(
        self,
        stem: str,
        stores: list[dict[str, Array]],
        outputs: Sequence[str],
        spent: list[float] | None = None,
    ) -> Iterator[dict[str, Array]]:
        """Each feed becomes a store of the values that are wanted yet; the last slice gives its results at once."""
        wanted = tuple(outputs) or tuple(self.outputs(stem))
        seen = set(self.points(stem))
        file = _file(self._path(stem))
        made = seen - {value.name for value in file.model.graph.input}
        slices = cut(file.model.graph, file.sizes, wanted, made, SLICE)
        for store in stores:
            self.observe(stem, {name: value for name, value in store.items() if name in seen})
        for part in slices if stores else ():
            session = self._open_slice(file, part, stores[0])
            for index, store in enumerate(stores):
                given = {name: store[name] for name in part.inputs}
                if spent is not None and not index:
                    self.compute(stem, session, part.outputs, given)
                start = time.perf_counter()
                found = dict(zip(part.outputs, self.compute(stem, session, part.outputs, given), strict=True))
                if spent is not None:
                    spent[index] += time.perf_counter() - start
                self.observe(stem, {name: value for name, value in found.items() if name in seen})
                store.update(found)
                for name in part.drop:
                    store.pop(name, None)
                if part is slices[-1]:
                    del found
                    yield {name: store.pop(name) for name in wanted}
            del session  # before the next one is opened
            _give_back()

    def _path(self, stem: str) -> Path:
        return self.folder / ONNX / f"{stem}{self.suffix}.onnx"

    def _open_slice(self, file: _File, part: Slice, like: Mapping[str, Array]) -> Any:
        import onnxruntime

        largest = max((file.floats.get(name, 0) for name in part.weights), default=0)
        options = session_options(replace(self.settings, prepacking=largest < _UNPACKED), 0)
        options.enable_cpu_mem_arena = False  # what a slice needed goes back to the system
        folder = "session.model_external_initializers_file_folder_path"
        options.add_session_config_entry(folder, str(file.path.parent.resolve()))
        try:
            return onnxruntime.InferenceSession(
                _model(file, part, like),
                options,
                providers=["CPUExecutionProvider"],
                # It would turn a tied table once and keep the copy; the product can read it as it lies.
                disabled_optimizers=["ConstantFolding"] if largest >= _UNPACKED else [],
            )
        except Exception as error:  # onnxruntime's errors share no public base
            raise PackageError(
                f"onnxruntime cannot open a part of {file.path}: {error}",
                remedy="if the file is intact, try an up-to-date onnxruntime",
            ) from error


@dataclass(frozen=True)
class _File:
    """A graph file: its structure, where data inside of it lies, and the bytes of all initializers and of fp32 ones."""

    path: Path
    model: onnx.ModelProto
    spans: Mapping[str, Span]
    sizes: Mapping[str, int]
    floats: Mapping[str, int]


def _file(path: Path) -> _File:
    """Read once for as long as the file stays the same."""
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=4)
def _read(path: Path, changed: int, inode: int) -> _File:
    model, spans = skim(path)
    tensors = model.graph.initializer
    sizes = {tensor.name: tensor_bytes(tensor) for tensor in tensors}
    floats = {tensor.name: sizes[tensor.name] for tensor in tensors if tensor.data_type == tensor.FLOAT}
    return _File(path, model, spans, sizes, floats)


def _model(file: _File, part: Slice, like: Mapping[str, Array]) -> bytes:
    """The slice as a model of its own, its large weights where they lie; inputs have the types they have in `like`."""
    model = onnx.ModelProto(ir_version=file.model.ir_version)
    model.opset_import.extend(file.model.opset_import)
    model.functions.extend(file.model.functions)
    graph = model.graph
    graph.name = file.path.stem
    graph.node.extend(part.nodes)
    for tensor in file.model.graph.initializer:
        if tensor.name in part.weights:
            graph.initializer.append(tensor)
            if (span := file.spans.get(tensor.name)) is not None:
                _refer(graph.initializer[-1], file.path.name, span)
    for name in part.inputs:
        kind = onnx.helper.np_dtype_to_tensor_dtype(like[name].dtype)
        graph.input.append(onnx.helper.make_tensor_value_info(name, kind, [None] * like[name].ndim))
    graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in part.outputs)
    content: bytes = model.SerializeToString()
    return content


def _refer(tensor: onnx.TensorProto, location: str, span: Span) -> None:
    """Say that a tensor's data lies there."""
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", str(span[0])), ("length", str(span[1]))):
        tensor.external_data.add(key=key, value=value)


def _give_back() -> None:
    """Let glibc return what was freed; it would keep packed weights of one slice beside those of the next."""
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _described(value: onnx.ValueInfoProto) -> Described:
    """As onnxruntime describes it."""
    tensor = value.type.tensor_type
    kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in tensor.shape.dim
    )
    return _Value(value.name, f"tensor({kind})", shape)
