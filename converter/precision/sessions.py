"""Graphs of one precision, opened when they are first run; with statistics, what enters their matrices is seen."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converter.errors import PackageError
from converter.precision.statistics import Statistics
from converter.precision.stored import read_graphs
from converter.runtime.files import PackageFiles, open_package
from converter.runtime.session import DTYPES, Array, SessionSettings, open_session

ONNX = "onnx"


class Sessions:
    """Runs graphs of the package in `folder` by stem: a feed by input name in, float outputs by name out."""

    def __init__(
        self,
        folder: Path,
        suffix: str = "",
        *,
        statistics: Statistics | None = None,
        spinning: bool = False,
    ) -> None:
        self.folder = folder
        self.files: PackageFiles = open_package(folder)
        self._suffix, self._statistics = suffix, statistics
        self._settings = SessionSettings(spinning=spinning)
        self._open: dict[str, Any] = {}

    def session(self, stem: str) -> Any:
        """The onnxruntime session of a graph."""
        if stem not in self._open:
            name = f"{ONNX}/{stem}{self._suffix}.onnx"
            if self._statistics is not None:
                name = _with_outputs(self.folder, stem, self._statistics.points.values.get(stem, {}))
            self._open[stem] = open_session(self.files, name, self._settings)
        return self._open[stem]

    def inputs(self, stem: str) -> Mapping[str, Any]:
        """onnxruntime's descriptions of a graph's inputs, by name."""
        return {value.name: value for value in self.session(stem).get_inputs()}

    def outputs(self, stem: str) -> Mapping[str, Any]:
        return {value.name: value for value in self.session(stem).get_outputs()}

    def run(self, stem: str, feed: Mapping[str, Any], outputs: Sequence[str] = ()) -> dict[str, Array]:
        """The outputs asked for, or all of the graph's own. Inputs the graph does not have are passed over."""
        session, inputs = self.session(stem), self.inputs(stem)
        if absent := [name for name in inputs if name not in feed]:
            raise PackageError(
                f"{stem} takes an input {', '.join(absent)} that is not known here",
                remedy="give calibration inputs with all of the graph's inputs, as JSON lines",
            )
        typed = {name: np.asarray(feed[name], dtype=DTYPES.get(value.type)) for name, value in inputs.items()}
        seen = self._statistics.points.values.get(stem, {}) if self._statistics is not None else {}
        wanted = list(outputs) or [name for name in self.outputs(stem) if name not in seen]
        names = list(dict.fromkeys((*wanted, *seen)))
        try:
            found = dict(zip(names, session.run(names, typed), strict=True))
        except Exception as error:  # onnxruntime's errors share no public base
            raise PackageError(f"{stem}{self._suffix} cannot be run: {error}") from error
        if self._statistics is not None:
            self._statistics.observe(stem, found)
        return {name: found[name] for name in wanted}


class Recorder(Sessions):
    """Sessions that remember which graph was run on what."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.feeds: list[tuple[str, Mapping[str, Any]]] = []

    def run(self, stem: str, feed: Mapping[str, Any], outputs: Sequence[str] = ()) -> dict[str, Array]:
        self.feeds.append((stem, feed))
        return super().run(stem, feed, outputs)


def _with_outputs(folder: Path, stem: str, names: Mapping[str, Any]) -> str:
    """A copy of a graph that gives some of its values as outputs as well; its data file is the graph's own.

    The outputs are written behind the graph: messages of protobuf that stand one after the other are read as one, so
    that weights inside of it are copied and not parsed.
    """
    import onnx

    (graph,) = read_graphs(folder / ONNX, [stem])
    known = {output.name for output in graph.model.graph.outputs}
    more = onnx.ModelProto()
    more.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in names
        if name not in known
    )
    file = f"{ONNX}/{stem}.observed.onnx"
    shutil.copyfile(folder / ONNX / f"{stem}.onnx", folder / file)
    with (folder / file).open("ab") as copy:
        copy.write(more.SerializeToString())
    return file


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
        return np.asarray(self._sessions.run(self._stem, feed, [self.output])[self.output], np.float32)
