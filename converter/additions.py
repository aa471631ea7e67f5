"""Records of what a plugin can add besides architectures. Like `converter.records`, they declare and do nothing.

Each goes with one hook of `converter.hookspecs`. Importing this costs milliseconds: functions named here import what
they need when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from converter.errors import UsageError
from converter.records import Checkpoint, Component, ModelSource, Variant

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir
    from numpy.typing import NDArray

    Array = NDArray[np.generic]

Better = Literal["lower", "higher"]
# What passes of a level may do. none: nothing to the nodes, such as dropping the paths of the tracing machine.
# basic: the same in fewer nodes. extended: an operator of a newer opset for several. ort: operators that only
# onnxruntime has. Each has those before it.
Level = Literal["none", "basic", "extended", "ort"]


@dataclass(frozen=True)
class GraphPass:
    """A named graph transformation. `run` edits the model in place and says whether it changed anything.

    Passes run in the order of their numbers; `converter plugins` shows it, and the built-in ones have 100 to 950.
    `level` is the first of `--optimize` at which it runs.
    """

    name: str
    run: Callable[[ir.Model], bool]
    order: int = 500
    level: Level = "basic"

    def __post_init__(self) -> None:
        check_name("graph pass", self.name)
        check_order("graph pass", self.name, self.order)
        if self.level not in get_args(Level):
            raise UsageError(
                f"graph pass {self.name!r} has level {self.level!r}, not one of {get_args(Level)}"
            )


@dataclass(frozen=True)
class Extension:
    """Variants for an architecture that another plugin brought: of a task it has, or of a task it had not.

    components  (config, task) -> the components the variants need besides those the architecture has; called for
                `task` only
    source      where models of a new task come from; None is the architecture's own source
    """

    architecture: str
    task: str
    variants: tuple[Variant, ...]
    components: Callable[[Any, str], Sequence[Component]] = lambda config, task: ()
    source: ModelSource | None = None

    def __post_init__(self) -> None:
        check_name("extension", self.architecture)
        check_name("extension", self.task)
        if not self.variants:
            raise UsageError(f"the extension of {self.architecture!r} has no variant")

    def key(self, variant: str) -> str:
        """What a variant is called where plugins are listed and overridden: `architecture/task/variant`."""
        return f"{self.architecture}/{self.task}/{variant}"


class PrecisionPlan(Protocol):
    """One way to make a graph of fewer bits out of a finished fp32 graph."""

    @property
    def label(self) -> str:
        """What it does, in a few words."""

    def apply(self, model: ir.Model) -> None:
        """Edit the graph in place. Weights are `converter.recipes.RecipeTensor`: edit recipes, ask for no values."""

    def to_json(self) -> dict[str, Any]:
        """Plain values, enough to make the same graph again. They go into converter.json."""


@dataclass(frozen=True)
class Precision:
    """Graphs that a package can have beside its fp32 ones.

    name     what `--precisions` takes, and the end of its files' stems: `mine` makes model_mine.onnx
    plans    () -> the ways to make it that may keep the budget; the smallest or fastest that does is taken, and
             formats of others are mixed in where the budget allows
    budget   bound of each measure of quality: {"cosine": 0.999}; those a kind of model does not have are passed over
    unjudged () -> the way to make it where nothing is measured; None is the first of `plans`
    """

    name: str
    plans: Callable[[], Sequence[PrecisionPlan]]
    summary: str = ""
    budget: Mapping[str, float] = field(default_factory=dict)
    unjudged: Callable[[], PrecisionPlan] | None = None

    def __post_init__(self) -> None:
        check_name("precision", self.name)
        if not self.name.isidentifier():
            raise UsageError(f"precision name {self.name!r} must be letters and digits: it ends file names")

    @property
    def suffix(self) -> str:
        """The end of its files' stems."""
        from converter.runtime.files import suffix_of

        return suffix_of(self.name)


@dataclass(frozen=True)
class Metric:
    """A way to judge one output of a component.

    measures  what it gives, and which way is better: {"max_abs": "lower", "cosine": "higher"}
    measure   (expected, found, valid) -> a number for each of them; `valid` is boolean over the leading axes, or None.
              The arrays may differ in shape and hold what is not finite.
    """

    name: str
    measures: Mapping[str, Better]
    measure: Callable[[Array, Array, Array | None], Mapping[str, float]]
    summary: str = ""

    def __post_init__(self) -> None:
        check_name("metric", self.name)
        wrong = [name for name, better in self.measures.items() if better not in ("lower", "higher")]
        if not self.measures or wrong:
            raise UsageError(
                f"metric {self.name!r} must say of each measure whether 'lower' or 'higher' is better"
            )

    def keeps(self, measure: str, value: float, bound: float) -> bool:
        """Whether a value keeps its bound. What is no number keeps none."""
        return value <= bound if self.measures[measure] == "lower" else value >= bound


@dataclass(frozen=True)
class PackageBuild:
    """A package about to be sealed, as those see it who add files to it.

    folder      the package under construction: write here and nowhere else; onnx/ is finished
    record      what converter.json will say, but for sizes and hashes of the files
    checkpoint  what it was made from; None where a finished package gets more precisions
    sections    the card sections of all plugins, in their order
    previous    the folder of the package that this one takes the place of or is a copy of, if there is any
    """

    folder: Path
    record: Mapping[str, Any]
    checkpoint: Checkpoint | None = None
    sections: tuple[CardSection, ...] = ()
    previous: Path | None = None


@dataclass(frozen=True)
class PackageFile:
    """A file, or several, that every package gets. `write` returns notes for the user, if it has any.

    `converter.json` and the graphs are the engine's: a package whose graphs were changed is refused.
    """

    name: str
    write: Callable[[PackageBuild], Sequence[str] | None]
    order: int = 500
    summary: str = ""

    def __post_init__(self) -> None:
        check_name("package file", self.name)
        check_order("package file", self.name, self.order)


@dataclass(frozen=True)
class CardSection:
    """A part of the package's README. `text` gives Markdown, or nothing where the package has nothing to say to it."""

    name: str
    text: Callable[[PackageBuild], str]
    order: int = 500
    summary: str = ""

    def __post_init__(self) -> None:
        check_name("card section", self.name)
        check_order("card section", self.name, self.order)


def check_name(noun: str, name: object) -> None:
    """Raise UsageError unless `name` can be shown, typed and listed with others."""
    if not isinstance(name, str) or not name or set(name) & set(" ,\n\t"):
        raise UsageError(
            f"{noun} name {name!r} must be a word: it is typed on command lines and listed with commas"
        )


def check_order(noun: str, name: str, order: object) -> None:
    if not isinstance(order, int):
        raise UsageError(f"the order of {noun} {name!r} must be a whole number, not {order!r}")
