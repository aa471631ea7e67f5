"""One graph opened with onnxruntime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from converter.errors import PackageError, UsageError
from converter.runtime.files import PackageFiles

Array: TypeAlias = NDArray[Any]
Provider: TypeAlias = str | tuple[str, Mapping[str, Any]]
Optimization: TypeAlias = Literal["all", "extended", "basic", "disabled"]

PREPACK_LIMIT = 2**30  # bytes; beyond, packed copies of mapped weights cost more than they bring
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
}
# What brings them, where it is not onnxruntime itself.
PACKAGES = {
    **dict.fromkeys(("CUDAExecutionProvider", "TensorrtExecutionProvider"), "onnxruntime-gpu"),
    **{"OpenVINOExecutionProvider": "onnxruntime-openvino", "DmlExecutionProvider": "onnxruntime-directml"},
}
HALF_FIRST = {"cuda", "tensorrt", "rocm", "migraphx"}
LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disabled": "ORT_DISABLE_ALL",
}
DTYPES: Mapping[str, Any] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
    "tensor(uint8)": np.uint8,
}


class SessionKeywords(TypedDict, total=False):
    """The fields of `SessionSettings`, as the keywords of whatever opens a graph."""

    providers: Sequence[Provider]
    threads: int | None
    optimization: Optimization
    memory_pattern: bool
    prepacking: bool | None
    spinning: bool


@dataclass(frozen=True)
class SessionSettings:
    """How graphs are opened.

    `providers` are `cpu`, `cuda`, `tensorrt` or onnxruntime's own names, each alone or with its options; a single name
    will do;
    `threads` are those within an operator, None for onnxruntime's choice. `prepacking` None packs weights
    unless the data file is larger than 1 GiB. Without `spinning`, threads that wait let others run: slower alone,
    faster on a machine that is busy.
    """

    providers: Sequence[Provider] = ("cpu",)
    threads: int | None = None
    optimization: Optimization = "all"
    memory_pattern: bool = True
    prepacking: bool | None = None
    spinning: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.providers, str):
            object.__setattr__(self, "providers", (self.providers,))
        if not self.providers:
            raise UsageError("no provider is named", remedy='providers=("cpu",) is the default')
        if wrong := [entry for entry in self.providers if not _is_provider(entry)]:
            raise UsageError(
                f"{wrong[0]!r} is no provider",
                remedy='each is a name, or a name with its options: providers=(("cuda", {"device_id": 1}), "cpu")',
            )
        if self.optimization not in LEVELS:
            raise UsageError(
                f"no optimization level {self.optimization!r}", remedy=f"choose from {', '.join(LEVELS)}"
            )
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"{self.threads} threads cannot run anything", remedy="give 1 or more, or None")

    @property
    def half_first(self) -> bool:
        """Whether fp16 is what the first provider is made for."""
        name, _ = _name_and_options(self.providers[0])
        return name in {PROVIDERS[short] for short in HALF_FIRST}

    def precisions(self, asked: str) -> tuple[str, ...]:
        """The precisions that `asked` may mean, which are worth fetching; empty is all. See `PackageFiles.graph`."""
        if asked == "fastest":
            return ()
        if asked != "auto":
            return (asked,)
        return ("fp16", "fp32") if self.half_first else ("fp32",)


class Graph(Protocol):
    """What runs: names of inputs, and one output in float32, of a rank and, if known, a last axis."""

    @property
    def inputs(self) -> Sequence[str]: ...

    @property
    def file(self) -> str: ...

    @property
    def width(self) -> int | None: ...

    @property
    def output_rank(self) -> int: ...

    def run(self, feed: Mapping[str, Array]) -> NDArray[np.float32]: ...

    def run_all(self, feeds: Iterable[Mapping[str, Array]]) -> Iterator[NDArray[np.float32]]: ...


class OneByOne(ABC):
    """A graph that takes feeds one at a time."""

    @abstractmethod
    def run(self, feed: Mapping[str, Array]) -> NDArray[np.float32]: ...

    def run_all(self, feeds: Iterable[Mapping[str, Array]]) -> Iterator[NDArray[np.float32]]:
        """The output for each feed, as they come."""
        return map(self.run, feeds)


class OnnxGraph(OneByOne):
    """A graph of a package. `outputs` names the one wanted, by preference."""

    def __init__(
        self, files: PackageFiles, name: str, settings: SessionSettings, outputs: Sequence[str]
    ) -> None:
        self.file = name
        self._session = open_session(files, name, settings)
        self._dtypes = {value.name: DTYPES.get(value.type) for value in self._session.get_inputs()}
        found = {value.name: value for value in self._session.get_outputs()}
        chosen = next((found[output] for output in outputs if output in found), None)
        if chosen is None:
            raise PackageError(
                f"{files.folder / name} has no output {' or '.join(outputs)}; it gives {', '.join(found)}",
                remedy=f"this package was made for another task; convert for one whose graph gives {outputs[0]}",
            )
        self.output: str = chosen.name
        self.output_rank = len(chosen.shape)
        self.width = chosen.shape[-1] if chosen.shape and isinstance(chosen.shape[-1], int) else None

    @property
    def inputs(self) -> Sequence[str]:
        return tuple(self._dtypes)

    def run(self, feed: Mapping[str, Array]) -> NDArray[np.float32]:
        """The chosen output for a feed, of which the inputs that the graph has are taken."""
        if absent := [name for name in self._dtypes if name not in feed]:
            raise PackageError(
                f"{self.file} takes an input {', '.join(absent)} that this runtime does not provide",
                remedy="run this graph with onnxruntime itself",
            )
        typed = {name: np.asarray(feed[name], dtype=dtype) for name, dtype in self._dtypes.items()}
        try:
            (result,) = self._session.run([self.output], typed)
        except Exception as error:  # onnxruntime's errors share no public base
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in typed.items())
            raise PackageError(
                f"{self.file} cannot be run on {shapes}: {error}",
                remedy="if memory ran out take smaller batches; if the text is too long, a lower max_length",
            ) from error
        return np.asarray(result, dtype=np.float32)


def open_session(files: PackageFiles, name: str, settings: SessionSettings) -> Any:
    """An InferenceSession. Raises UsageError for a provider that is absent, PackageError for a bad graph."""
    import onnxruntime

    path = files.require(name)
    options = session_options(settings, _check_data(files, name))
    wanted = [_available(provider, onnxruntime.get_available_providers()) for provider in settings.providers]
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:  # onnxruntime's errors share no public base
        raise PackageError(
            f"onnxruntime cannot open {path}: {error}",
            remedy="if the file is intact, try an up-to-date onnxruntime",
        ) from error
    if wanted[0][0] not in session.get_providers():
        raise UsageError(
            f"onnxruntime could not start {wanted[0][0]} and fell back to {session.get_providers()[0]}",
            remedy="install what that provider needs (drivers, libraries), or choose providers=('cpu',)",
        )
    return session


def session_options(settings: SessionSettings, data_bytes: int) -> Any:
    """onnxruntime's options for a graph whose data file has so many bytes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.enable_mem_pattern = settings.memory_pattern
    options.graph_optimization_level = getattr(
        onnxruntime.GraphOptimizationLevel, LEVELS[settings.optimization]
    )
    if settings.threads is not None:
        options.intra_op_num_threads = settings.threads
    prepacking = data_bytes <= PREPACK_LIMIT if settings.prepacking is None else settings.prepacking
    if not settings.spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not prepacking:
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options


def _is_provider(entry: Any) -> bool:
    if isinstance(entry, str):
        return True
    pair = isinstance(entry, tuple | list) and len(entry) == 2
    return pair and isinstance(entry[0], str) and isinstance(entry[1], Mapping)


def _name_and_options(provider: Provider) -> tuple[str, dict[str, Any]]:
    name, given = (provider, {}) if isinstance(provider, str) else provider
    return PROVIDERS.get(name.lower(), name), dict(given)


def _available(provider: Provider, known: Sequence[str]) -> tuple[str, dict[str, Any]]:
    name, given = _name_and_options(provider)
    if name in known:
        return name, given
    if not name.endswith("ExecutionProvider"):
        raise UsageError(
            f"there is no provider {name!r}",
            remedy=f"choose from {', '.join(PROVIDERS)}, or give onnxruntime's own name of one",
        )
    other = PACKAGES.get(name, "an onnxruntime that is built with it")
    raise UsageError(
        f"this onnxruntime has no {name}; it has {', '.join(known)}",
        remedy=f"install {other} in the place of onnxruntime, or choose providers=('cpu',)",
    )


def _check_data(files: PackageFiles, name: str) -> int:
    """Bytes of a graph's data files, each checked. Graphs of folders without any are not looked into."""
    folder = (files.folder / name).parent
    recorded = {entry for entry in files.sizes if entry.startswith("onnx/")}
    if not any(not entry.endswith(".onnx") for entry in recorded) and not list(folder.glob("*data*")):
        return 0
    from converter.packages.graph_info import read_graph

    parent = folder.relative_to(files.folder).as_posix()
    names = [
        f"{parent}/{data}" if parent != "." else data for data in read_graph(files.folder, name).data_files
    ]
    return sum(files.require(data, purpose=name).stat().st_size for data in names)
