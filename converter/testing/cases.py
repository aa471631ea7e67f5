"""What the pytest plugin runs: one checkpoint, converted once when the first case asks for it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from converter.console import quiet_libraries
from converter.drawing import FEW, draw_sizes
from converter.errors import ConverterError, ParityError
from converter.extras import require_export
from converter.parity import Terms, compare_all, parity_sizes
from converter.records import Axis, Comparison, Size

if TYPE_CHECKING:
    import onnxruntime

    from converter.proof import Subject
    from converter.runners import Case


class DifferenceError(ParityError):
    """A case that failed, with all that was compared in it."""

    def __init__(self, rows: Sequence[Comparison]) -> None:
        lines = [
            f"{row.output}: {row.pair} differ by {row.max_abs:.2e} (cosine {row.cosine:.7f})"
            f" {'passed' if row.passed else 'FAILED'}"
            for row in rows
        ]
        super().__init__("\n".join(lines) or "nothing was compared")
        self.rows = tuple(rows)


@dataclass
class Suite:
    """The parity cases of one checkpoint of one architecture, every variant of one task, in fp32."""

    subject: Subject
    folder: tempfile.TemporaryDirectory[str]
    _made: dict[str, dict[str, Case]] = field(default_factory=dict)
    _failure: Exception | None = None
    _sessions: dict[str, onnxruntime.InferenceSession] = field(default_factory=dict)

    @classmethod
    def open(cls, arch: str, model: str | None, task: str | None) -> Suite:
        """Find the architecture and its checkpoint, or write a tiny one. Nothing is traced yet."""
        require_export()
        from converter.pipeline import Ledger, choose_subject
        from converter.registry import load_registry
        from converter.request import SILENT, ConversionRequest

        folder = tempfile.TemporaryDirectory(prefix="converter-testing-")
        request = ConversionRequest(arch=arch, model=model, task=task, tiny=model is None)
        try:
            with quiet_libraries():
                return cls(
                    choose_subject(request, load_registry(), Path(folder.name), Ledger(SILENT)), folder
                )
        except ConverterError:
            folder.cleanup()
            raise

    def close(self) -> None:
        self._sessions.clear()
        self.folder.cleanup()

    @property
    def name(self) -> str:
        return self.subject.architecture.name

    def cases(self) -> Iterator[tuple[str, str]]:
        """(stem, label of the size) of each case."""
        for component in self.subject.components():
            for size in self._sizes(component.axes):
                yield component.stem, size.label

    def compare(self, stem: str, label: str) -> list[Comparison]:
        """Original, wrapper and graph at one size. The first call converts, and later ones share what came of it."""
        case = self._prepared()[stem][label]
        from converter.runners import open_session, run_graph

        if stem not in self._sessions:
            self._sessions[stem] = open_session(self._package / "onnx" / f"{stem}.onnx")
        graph = run_graph(self._sessions[stem], case.feed)
        results = {"original": case.original, "wrapper": case.wrapper, "graph": graph}
        return compare_all(case.criteria, case.size, results, case.valid, Terms(self.subject.metrics))

    @property
    def _package(self) -> Path:
        return Path(self.folder.name) / "package"

    def _sizes(self, axes: tuple[Axis, ...]) -> list[Size]:
        fixed = {size.label: size for size in (*draw_sizes(axes, 0, FEW), *parity_sizes(axes, seed=0))}
        return list(fixed.values())

    def _prepared(self) -> dict[str, dict[str, Case]]:
        if self._failure is not None:
            raise self._failure
        if not self._made:
            try:
                with quiet_libraries():
                    self._convert()
                    self._made = self._run_original()
            except Exception as error:
                self._failure = error  # the other cases fail for the same reason, and none converts again
                raise
        return self._made

    def _convert(self) -> None:
        from converter.pipeline import convert

        checkpoint = self.subject.checkpoint
        convert(
            arch=self.name,
            model=checkpoint.folder,
            output=self._package,
            task=self.subject.task,
            parity="off",
        )

    def _run_original(self) -> dict[str, dict[str, Case]]:
        from converter.runners import run_original
        from converter.scratch import scratch_folder
        from converter.verify import stays_on_disk

        source, checkpoint = self.subject.architecture.source, self.subject.checkpoint
        with scratch_folder() as scratch:
            offload = scratch if stays_on_disk(checkpoint) else None
            model = source.original(checkpoint, self.subject.task, offload)
            return {
                component.stem: {
                    case.size.label: case
                    for case in run_original(model, component, self._sizes(component.axes))
                }
                for component in self.subject.components()
            }
