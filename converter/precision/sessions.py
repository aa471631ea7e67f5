"""Graphs of one precision, opened when they are first run; with statistics, what enters their matrices is seen."""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from converter.errors import PackageError
from converter.packages.graph_info import read_graph
from converter.precision.statistics import Statistics
from converter.precision.stored import read_graphs
from converter.runtime.files import PackageFiles, open_package
from converter.runtime.session import DTYPES, Array, SessionSettings, open_session

ONNX = "onnx"
Feeds = list[tuple[str, Mapping[str, Any]]]  # a graph's stem, and what it is run on


class Described(Protocol):
    """An input or output as onnxruntime describes it; the type is such as `tensor(float)`."""

    @property
    def name(self) -> str: ...

    @property
    def type(self) -> str: ...

    @property
    def shape(self) -> Sequence[int | str | None]: ...


class Sessions:
    """Runs graphs of the package in `folder` by stem: a feed by input name in, float outputs by name out.

    What is run is appended to `record`, where there is one.
    """

    def __init__(
        self,
        folder: Path,
        suffix: str = "",
        *,
        statistics: Statistics | None = None,
        record: Feeds | None = None,
        spinning: bool = False,
    ) -> None:
        self.folder, self.suffix = folder, suffix
        self.files: PackageFiles = open_package(folder)
        self.settings = SessionSettings(spinning=spinning)
        self._statistics, self._record = statistics, record
        self._open: dict[str, Any] = {}
        self._added: dict[str, Sequence[str]] = {}  # outputs of an observed graph that are not its own

    def session(self, stem: str) -> Any:
        """The onnxruntime session of a graph."""
        if stem not in self._open:
            name = f"{ONNX}/{stem}{self.suffix}.onnx"
            if self._statistics is not None:
                name, self._added[stem] = _with_outputs(self.folder, stem, self.points(stem))
            self._open[stem] = open_session(self.files, name, self.settings)
        return self._open[stem]

    def inputs(self, stem: str) -> Mapping[str, Described]:
        """A graph's inputs by name."""
        return {value.name: value for value in self.session(stem).get_inputs()}

    def outputs(self, stem: str) -> Mapping[str, Described]:
        return {value.name: value for value in self.session(stem).get_outputs()}

    def points(self, stem: str) -> Collection[str]:
        """The values of a graph that statistics are taken of."""
        return self._statistics.points.values.get(stem, {}) if self._statistics is not None else ()

    def run_all(
        self, stem: str, feeds: Iterable[Mapping[str, Any]], outputs: Sequence[str] = ()
    ) -> Iterator[dict[str, Array]]:
        """`run` for each feed, in their order."""
        return (self.run(stem, feed, outputs) for feed in feeds)

    def run(self, stem: str, feed: Mapping[str, Any], outputs: Sequence[str] = ()) -> dict[str, Array]:
        """The outputs asked for, or all of the graph's own. Inputs the graph does not have are passed over."""
        typed, seen = self.typed(stem, feed), self.points(stem)
        self.note(stem, feed)
        wanted = list(outputs) or self._own(stem)
        names = list(dict.fromkeys((*wanted, *seen)))
        found = dict(zip(names, self.compute(stem, self.session(stem), names, typed), strict=True))
        self.observe(stem, found)
        return {name: found[name] for name in wanted}

    def _own(self, stem: str) -> Sequence[str]:
        """The outputs of the graph itself. One of them may enter a matrix, and so be observed as well."""
        return [name for name in self.outputs(stem) if name not in self._added.get(stem, ())]

    def seconds(self, feeds: Feeds) -> float:
        """How long it takes to run the graphs on these."""
        start = time.perf_counter()
        for stem, feed in feeds:
            self.run(stem, feed)
        return time.perf_counter() - start

    def typed(self, stem: str, feed: Mapping[str, Any]) -> dict[str, Array]:
        """What the graph takes of a feed, in its own types."""
        inputs = self.inputs(stem)
        if absent := [name for name in inputs if name not in feed]:
            raise PackageError(
                f"{stem} takes an input {', '.join(absent)} that is not known here",
                remedy="give calibration inputs with all of the graph's inputs, as JSON lines",
            )
        return {name: np.asarray(feed[name], dtype=DTYPES.get(value.type)) for name, value in inputs.items()}

    def compute(self, stem: str, session: Any, names: Sequence[str], typed: Mapping[str, Array]) -> list[Any]:
        """What onnxruntime gives. Raises PackageError where it gives up."""
        try:
            found: list[Any] = session.run(names, typed)
        except Exception as error:  # onnxruntime's errors share no public base
            raise PackageError(f"{stem}{self.suffix} cannot be run: {error}") from error
        return found

    def note(self, stem: str, feed: Mapping[str, Any]) -> None:
        if self._record is not None:
            self._record.append((stem, feed))

    def observe(self, stem: str, found: Mapping[str, Any]) -> None:
        if self._statistics is not None:
            self._statistics.observe(stem, found)


def main_files(folder: Path, stems: Iterable[str]) -> frozenset[Path]:
    """A package's fp32 graphs and their data, whatever its name: that of somebody's graph may be any."""
    graphs = [read_graph(folder / ONNX, f"{stem}.onnx") for stem in stems]
    return frozenset(folder / ONNX / name for graph in graphs for name in (graph.file, *graph.data_files))


def main_bytes(folder: Path, stems: Iterable[str]) -> int:
    """Bytes of a package's fp32 graphs and their data."""
    return sum(file.stat().st_size for file in main_files(folder, stems))


def _with_outputs(folder: Path, stem: str, names: Iterable[str]) -> tuple[str, list[str]]:
    """A copy of a graph that gives some of its values as outputs as well, and which; its data file is the graph's own.

    The outputs are written behind the graph: messages of protobuf that stand one after the other are read as one, so
    that weights inside of it are copied and not parsed.
    """
    import onnx

    (graph,) = read_graphs(folder / ONNX, [stem])
    known = {output.name for output in graph.model.graph.outputs}
    added = [name for name in names if name not in known]
    more = onnx.ModelProto()
    more.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in added
    )
    file = f"{ONNX}/{stem}.observed.onnx"
    shutil.copyfile(folder / ONNX / f"{stem}.onnx", folder / file)
    with (folder / file).open("ab") as copy:
        copy.write(more.SerializeToString())
    return file, added


class SessionGraph:
    """One graph of `Sessions` as the runtime's classes want it: one float output."""

    def __init__(self, sessions: Sessions, stem: str, outputs: Sequence[str]) -> None:
        self._sessions, self._stem = sessions, stem
        self.file = f"{ONNX}/{stem}.onnx"
        found = sessions.outputs(stem)
        chosen = next((found[name] for name in outputs if name in found), None)
        if chosen is None:
            raise PackageError(f"{stem} has no output {' or '.join(outputs)}; it gives {', '.join(found)}")
        self.output: str = chosen.name
        self.output_rank = len(chosen.shape)
        self.width = chosen.shape[-1] if chosen.shape and isinstance(chosen.shape[-1], int) else None

    @property
    def inputs(self) -> Sequence[str]:
        return tuple(self._sessions.inputs(self._stem))

    def run(self, feed: Mapping[str, Array]) -> Any:
        """The chosen output in float32."""
        return next(self.run_all([feed]))

    def run_all(self, feeds: Iterable[Mapping[str, Array]]) -> Iterator[Any]:
        """The same for each feed."""
        for found in self._sessions.run_all(self._stem, feeds, [self.output]):
            yield np.asarray(found[self.output], np.float32)
