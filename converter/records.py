"""The frozen records that travel between the stages. They declare and check themselves; they do nothing.

torch is named here only as a type: importing this module costs milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from converter.errors import UsageError
from converter.model_source import ModelSource as ModelSource
from converter.parity.verdicts import Comparison as Comparison
from converter.parity.verdicts import ParityMode as ParityMode
from converter.parity.verdicts import ParityReport as ParityReport
from converter.scenario import Scenario, no_scenarios
from converter.stored import Checkpoint as Checkpoint
from converter.stored import TensorInfo as TensorInfo

if TYPE_CHECKING:
    import onnx_ir as ir
    import torch
    from torch import nn


Dtype = Literal["fp32", "fp16", "bf16"]
Padding = Literal["none", "left", "right"]
_SIDES: Mapping[str, Padding] = {"left": "left", "right": "right"}


# --- what a plugin declares ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """A dimension that may vary at run time, and the sizes worth trying.

    `traced` must be 2 or more: torch.export specialises an axis of size 1 without a word. Two axes of one component
    that meet in one tensor should be traced at different sizes.
    """

    name: str
    traced: int
    low: int = 1
    high: int = 16

    def __post_init__(self) -> None:
        if not self.low <= self.traced <= self.high or self.traced < 2:
            raise UsageError(
                f"axis {self.name!r}: traced size {self.traced} must be at least 2 and lie in [{self.low}, {self.high}]"
            )


@dataclass(frozen=True)
class Size:
    """One point to run a component at: a size for each declared axis, the padding side, and a seed for the values."""

    axes: Mapping[str, int]
    padding: Padding = "none"
    seed: int = 0

    @property
    def label(self) -> str:
        """Short and readable, used as a test id: `batch_size=3,sequence_length=1,left`."""
        parts = [f"{name}={value}" for name, value in self.axes.items()]
        return ",".join(parts if self.padding == "none" else [*parts, self.padding])

    @classmethod
    def of(cls, label: str, seed: int) -> Size:
        """The size that has this label, with values from `seed`."""
        parts = label.split(",") if label else []
        padding = _SIDES.get(parts[-1], "none") if parts else "none"
        sized = parts if padding == "none" else parts[:-1]
        axes = {name: int(value) for name, _, value in (part.rpartition("=") for part in sized)}
        return cls(axes, padding, seed)

    def __getitem__(self, axis: str) -> int:
        return self.axes[axis]


@dataclass(frozen=True)
class DummyInputs:
    """Example tensors by input name, in graph order, with the axes that vary: `{"input_ids": {0: "batch_size"}}`.

    `valid` says which positions of an output mean anything (bool, broadcast from the left, e.g. (batch, sequence)
    for a padded decoder's logits); an output it does not name is compared whole.
    """

    tensors: Mapping[str, torch.Tensor]
    axes: Mapping[str, Mapping[int, str]]
    valid: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.axes) - set(self.tensors))
        if unknown:
            raise UsageError(
                f"dummy inputs: axes are named for {unknown}, which are not among the inputs {list(self.tensors)}"
            )


@dataclass(frozen=True)
class Output:
    """A graph output and the axes it varies along."""

    name: str
    axes: Mapping[int, str]


@dataclass(frozen=True)
class Tolerance:
    """Bounds of parity: largest absolute difference, smallest cosine along the last axis.

    Anything looser than the default carries its `reason` and the value that was measured.
    """

    max_abs: float = 1e-4
    cosine: float = 0.99999
    reason: str = ""

    def __post_init__(self) -> None:
        if (self.max_abs > 1e-4 or self.cosine < 0.99999) and not self.reason:
            raise UsageError("a tolerance looser than 1e-4 / 0.99999 needs its reason and the measured value")


@dataclass(frozen=True)
class Judgement:
    """A metric by its name, and the bounds its measures must keep: `Judgement("word-errors", {"rate": 0.0})`.

    It is asked besides `Tolerance`, for the outputs named (empty is all) and the dtypes named (empty is all). With
    `alone` those outputs are judged by it and no longer by `Tolerance`, which needs its reason.
    """

    metric: str
    bounds: Mapping[str, float]
    outputs: tuple[str, ...] = ()
    dtypes: tuple[Dtype, ...] = ()
    alone: bool = False
    reason: str = ""

    def __post_init__(self) -> None:
        if not self.bounds:
            raise UsageError(f"the judgement by metric {self.metric!r} names no bound, so it could not fail")
        if self.alone and not self.reason:
            raise UsageError(f"judging by metric {self.metric!r} alone needs its reason")

    def concerns(self, output: str, dtype: str) -> bool:
        return (not self.outputs or output in self.outputs) and (not self.dtypes or dtype in self.dtypes)


Tensors = Mapping[str, "torch.Tensor"]


@dataclass(frozen=True)
class Component:
    """One graph, one file stem. Wrapper, inputs and reference stand together so that they cannot disagree.

    wrapper    the original model (or its skeleton) -> a module whose forward takes the inputs by name, as plain
               tensors, and returns the outputs in order (a tensor or a tuple of tensors)
    inputs     a size -> example inputs; must work at every size the axes allow, not only at the traced one
    reference  the untouched original, called as its authors intend, on the same inputs -> outputs by name
    tolerance  bounds other than the usual ones, by dtype; by the name of a precision, those of its graph at one size
    fixed      inputs whose undeclared axes stay as they are although the original takes others -> the reason
    """

    stem: str
    wrapper: Callable[[nn.Module], nn.Module]
    inputs: Callable[[Size], DummyInputs]
    reference: Callable[[nn.Module, Tensors], Tensors]
    axes: tuple[Axis, ...]
    outputs: tuple[Output, ...]
    tolerance: Mapping[Any, Tolerance] = field(default_factory=dict)
    judged_by: tuple[Judgement, ...] = ()
    fixed: Mapping[str, str] = field(default_factory=dict)

    @property
    def criteria(self) -> Criteria:
        return Criteria(self.stem, self.tolerance, self.judged_by)


@dataclass(frozen=True)
class Criteria:
    """What the outputs of a component are judged by, without what makes them: it can be pickled."""

    stem: str
    tolerance: Mapping[Any, Tolerance]
    judged_by: tuple[Judgement, ...] = ()


@dataclass(frozen=True)
class Variant:
    """A named choice of components, by file stem."""

    name: str
    stems: tuple[str, ...]
    summary: str


@dataclass(frozen=True)
class StandIn:
    """How an architecture stands in for model types that no architecture owns.

    architecture  (model type, its checkpoint if there is one) -> the architecture of that type, or None
    model_types   every type it may have one for, to suggest near misses from; may take seconds
    """

    architecture: Callable[[str, Checkpoint | None], Architecture | None]
    model_types: Callable[[], Sequence[str]]


@dataclass(frozen=True)
class Architecture:
    """All the engine knows about a family of models.

    components    (config, task) -> every component of that task
    variants      task -> the variants it can be written as; the first task is the family's usual one
    patches       a context to trace in, for what cannot be traced as it is; restores what it changes
    translations  torch op -> onnxscript function, for ops the exporter does not know
    opens         (folder, whether pickles may be read) -> the checkpoint, where its layout is the architecture's own;
                  None for a folder that is another's. It is asked before config.json is looked for.
    stand_in      asked for model types that nobody owns
    stands_in     the name of the architecture whose `stand_in` gave this one; the registry writes it
    judged_by     metrics that judge every component, besides what a component names itself
    recognizes    whether a checkpoint is this architecture's although another owns its model type, told by its
                  tensors' names, its config and its modules: ColBERT calls itself `bert`
    scenarios     (config, task) -> runs of several calls, such as generation, that must give what the original gives
    """

    name: str
    model_types: tuple[str, ...]
    summary: str
    reference_checkpoint: str
    source: ModelSource
    components: Callable[[Any, str], Sequence[Component]]
    variants: Mapping[str, tuple[Variant, ...]]
    patches: Callable[[], AbstractContextManager[Any]] = nullcontext
    translations: Callable[[], Mapping[Any, Any]] = dict
    opens: Callable[[Path, bool], Checkpoint | None] | None = None
    stand_in: StandIn | None = None
    judged_by: tuple[Judgement, ...] = ()
    recognizes: Callable[[Checkpoint], bool] = lambda checkpoint: False
    scenarios: Callable[[Any, str], Sequence[Scenario]] = no_scenarios
    stands_in: str = ""

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise UsageError(f"architecture name {self.name!r} must be a Python identifier: it names a file")
        if not isinstance(self.model_types, tuple) or not all(
            isinstance(kind, str) for kind in self.model_types
        ):
            raise UsageError(f"architecture {self.name!r}: model_types is a tuple of names")
        if not self.variants or not all(self.variants.values()):
            raise UsageError(
                f"architecture {self.name!r} must declare at least one task, each with a variant"
            )

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.variants)


# --- what the stages hand on -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExportedGraph:
    """A traced component. Its initializers hold recipes (`converter.recipes.RecipeTensor`) where weights will be.

    `scopes` maps module paths in the wrapper, which the nodes carry, to module paths in the original model.
    """

    stem: str
    model: ir.Model
    scopes: Mapping[str, str] = field(default_factory=dict)
