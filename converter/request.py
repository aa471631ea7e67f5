"""What a user asks for, as one frozen record, and how a conversion tells how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from converter.errors import UsageError
from converter.records import Dtype, ParityMode

ExternalData = Literal["auto", "always", "never"]
Device = Literal["cpu", "cuda"]
Preference = Literal["size", "speed"]
# What is done to graphs; see `converter.additions.Level`.
Optimization = Literal["none", "basic", "extended", "ort"]

# Opens in onnxruntime from 1.23 and in transformers.js 4 (Node and WebAssembly), and has Attention and RMSNormalization
# as single operators. 24 opens there too and has nothing more that these graphs use.
DEFAULT_OPSET = 23
# What torch translates to directly; other opsets would be converted to afterwards, which loses as often as it works.
OPSETS = range(18, 25)


@dataclass(frozen=True)
class ConversionRequest:
    """One conversion, as asked for. The command line's options and the keywords of `convert` are its fields.

    model          a local folder or a hub id; None is the architecture's reference checkpoint
    base_model     what an adapter is merged into; None is what the adapter names
    output         the package folder; None is `models/<model name>`, or `<output_parent>/<model name>`
    variants       names of variants; empty is every one the task has
    dtype          what the main graphs compute in; their inputs and outputs stay fp32
    optimize       how far graphs are optimized; `none` writes them as traced
    batch_size     size of the traced dummies, at least 2 (torch.export specialises an axis of size 1)
    atol           largest absolute difference parity allows, in place of the component's own
    debug_parity   where parity fails, find the first module that differs, and say so
    seed           of tiny weights, random sizes and input values
    precisions     names of graphs to add once the fp32 ones are proven
    quantization   how: the options of `converter quantize` that are not its defaults, {"keep": ["cosine=0.999"]}
    tiny           convert a two-layer checkpoint with seeded random weights, made on the spot
    """

    arch: str = "auto"
    model: str | None = None
    base_model: str | None = None
    output: Path | None = None
    output_parent: Path | None = None
    revision: str | None = None
    token: str | None = field(default=None, repr=False)
    cache_dir: Path | None = None
    task: str | None = None
    variants: tuple[str, ...] = ()
    dtype: Dtype = "fp32"
    opset: int = DEFAULT_OPSET
    batch_size: int | None = None
    sequence_length: int | None = None
    optimize: Optimization = "basic"
    stamp: bool = True
    external_data: ExternalData = "auto"
    parity: ParityMode = "auto"
    atol: float | None = None
    seed: int = 0
    debug_parity: bool = False
    device: Device = "cpu"
    tiny: bool = False
    overwrite: bool = False
    keep_failed: bool = False
    allow_pickle: bool = False
    trust_remote_code: bool = False
    precisions: tuple[str, ...] = ()
    quantization: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, choices in (
            ("dtype", get_args(Dtype)),
            ("external_data", get_args(ExternalData)),
            ("parity", get_args(ParityMode)),
            ("device", get_args(Device)),
        ):
            if getattr(self, name) not in choices:
                raise UsageError(
                    f"{name} {getattr(self, name)!r} is unknown", remedy=f"choose from {', '.join(choices)}"
                )
        if self.dtype == "bf16" and self.device == "cpu" and self.parity != "off":
            raise UsageError(
                "bf16 graphs cannot be proven on the CPU: onnxruntime has no bf16 kernels there",
                remedy="add --device cuda where there is one, or --parity off to write the package unproven",
            )
        if self.precisions and self.dtype != "fp32":
            raise UsageError(
                f"other precisions are made from fp32 graphs, not from {self.dtype}",
                remedy="leave --dtype out",
            )
        if self.opset not in OPSETS:
            raise UsageError(
                f"opset {self.opset} is not supported", remedy=f"choose {OPSETS[0]} to {OPSETS[-1]}"
            )
        if self.quantization and not self.precisions:
            options = ", ".join(f"--{name.replace('_', '-')}" for name in self.quantization)
            raise UsageError(
                f"{options}: no precision is asked for", remedy="add --quantize, or --precisions fp16,q8"
            )
        for name in ("batch_size", "sequence_length"):
            size = getattr(self, name)
            if size is not None and size < 2:
                raise UsageError(
                    f"{name} {size}: graphs are traced at sizes of 2 or more, tracing at 1 freezes the axis",
                    remedy="the graph accepts size 1 anyway; leave the option out or give a larger size",
                )
        if self.output is not None and self.output_parent is not None:
            raise UsageError(
                "both an output folder and an output parent are given",
                remedy="--output names the package folder, --output-parent-dir the folder it goes into",
            )

    def target(self, source: str, architecture: str) -> Path:
        """The package folder for a checkpoint called `source`, a hub id or a path: its last part counts."""
        if self.output is not None:
            return self.output
        name = Path(source).name
        if name in ("", ".."):
            name = Path(source).resolve().name or architecture
        return (self.output_parent or Path("models")) / name


# The two halves of a `Progress`, for functions that need only one of them.
OnStage = Callable[[str], AbstractContextManager[None]]
Advance = Callable[[int, int], None]


class Progress(Protocol):
    """What a conversion tells while it runs."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """A stage begins; it ends with the context."""

    def advance(self, done: int, total: int) -> None:
        """How far the current stage is, in bytes or whatever it counts."""

    def note(self, text: str) -> None:
        """Something worth a line."""


class Silent:
    """Tells nothing."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        yield

    def advance(self, done: int, total: int) -> None:
        pass

    def note(self, text: str) -> None:
        pass


SILENT: Progress = Silent()
