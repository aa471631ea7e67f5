"""A graph whose states stay with onnxruntime: what one step gives is bound to the next as it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from converter.errors import PackageError
from converter.runtime.files import PackageFiles
from converter.runtime.session import DTYPES, Array, SessionSettings, open_session

PRESENT = "present"
PAST = ("past_key_values", "past")


@dataclass(frozen=True)
class Value:
    """An input of a graph: its numpy type, and its shape with names where it varies."""

    dtype: Any
    shape: tuple[int | str | None, ...]


class BoundGraph:
    """A session, run through IO binding. `states` maps its outputs to the inputs they are for the next step."""

    def __init__(self, files: PackageFiles, name: str, settings: SessionSettings) -> None:
        self.file = name
        self._session = open_session(files, name, settings)
        self.inputs = {
            value.name: Value(DTYPES.get(value.type), tuple(value.shape))
            for value in self._session.get_inputs()
        }
        self.outputs = [value.name for value in self._session.get_outputs()]
        self.states = {name: past for name in self.outputs if (past := self._past_of(name))}
        self._device = _device_of(self._session.get_providers()[0])

    def _past_of(self, output: str) -> str | None:
        if not output.startswith(PRESENT):
            return None
        names = [output.replace(PRESENT, past, 1) for past in PAST]
        return next((name for name in names if name in self.inputs), None)

    def empty_states(self, batch: int) -> dict[str, Any]:
        """The states before the first step: no positions at all, or zeros where a state has one size."""
        from onnxruntime import OrtValue

        states = {}
        for name in self.states.values():
            value = self.inputs[name]
            shape = [batch, *(size if isinstance(size, int) else 0 for size in value.shape[1:])]
            states[name] = OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype=value.dtype), *self._device)
        return states

    def run(
        self, feed: Mapping[str, Array], states: Mapping[str, Any], outputs: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """One step: arrays for outputs that are no states, OrtValues on the device for those that are."""
        binding = self._session.io_binding()
        for name, value in self.inputs.items():
            if name in states:
                binding.bind_ortvalue_input(name, states[name])
            elif name in feed:
                binding.bind_cpu_input(name, np.ascontiguousarray(feed[name], dtype=value.dtype))
            else:
                raise PackageError(
                    f"{self.file} takes an input {name} that was not given", remedy="pass it by that name"
                )
        wanted = list(self.outputs if outputs is None else outputs)
        for name in wanted:
            device = self._device if name in self.states else ("cpu", 0)
            binding.bind_output(name, *device)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime's errors share no public base
            shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
            raise PackageError(
                f"{self.file} cannot be run on {shapes}: {error}",
                remedy="if memory ran out take smaller batches; if the text is too long, shorten it",
            ) from error
        values = dict(zip(wanted, binding.get_outputs(), strict=True))
        return {name: value if name in self.states else value.numpy() for name, value in values.items()}

    def pick(self, state: Any, rows: Array) -> Any:
        """Rows of a state, in that order: how beam search moves its hypotheses."""
        from onnxruntime import OrtValue

        return OrtValue.ortvalue_from_numpy(np.ascontiguousarray(state.numpy()[rows]), *self._device)


def _device_of(provider: str) -> tuple[str, int]:
    """Where onnxruntime keeps what a provider computes."""
    cuda = provider in ("CUDAExecutionProvider", "TensorrtExecutionProvider")
    return ("cuda", 0) if cuda else ("cpu", 0)
