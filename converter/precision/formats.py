"""What a weight may be stored as, and the plan of a whole graph: plain values, to be written down and read back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from converter.errors import UsageError

if TYPE_CHECKING:
    import onnx_ir as ir

    from converter.precision.statistics import Statistics

Activations = Literal["tensor", "row", "static"]
BLOCK_SIZES = (16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Blocks:
    """A matrix with a scale for each `size` weights of a column (onnxruntime's MatMulNBits).

    `accuracy_level` 4 lets the kernel quantize activations to 8 bits, block by block; 0 computes in fp32.
    `narrow` blocks of 4 bits go from -7 to 7, which is for weights that were trained so.
    """

    bits: Literal[4, 8]
    size: int = 32
    symmetric: bool = True
    accuracy_level: int = 4
    narrow: bool = False

    def __post_init__(self) -> None:
        _require("accuracy_level", self.accuracy_level, (0, 1, 2, 3, 4))
        if self.narrow and (self.bits == 8 or not self.symmetric):
            raise UsageError("blocks from -7 to 7 have 4 bits around zero", remedy="leave `narrow` out")
        if self.bits not in (4, 8) or self.size not in BLOCK_SIZES:
            raise UsageError(
                f"blocks of {self.size} weights in {self.bits} bits: onnxruntime has no kernel for them",
                remedy=f"choose 4 or 8 bits and a block size of {', '.join(map(str, BLOCK_SIZES))}",
            )

    @property
    def label(self) -> str:
        kind = "" if self.symmetric else ", asymmetric"
        level = "" if self.accuracy_level == 4 else f", accuracy level {self.accuracy_level}"
        return f"{self.bits} bits in blocks of {self.size}{kind}{', -7 to 7' if self.narrow else ''}{level}"


@dataclass(frozen=True)
class Columns:
    """A matrix in 8 bits with a scale for each column (or one for all), its activations in 8 bits as well.

    activations   what gets one scale: the whole tensor, measured at run time; each of its rows (a token), likewise;
                  or the whole tensor, from calibration (`static`, written as QuantizeLinear and DequantizeLinear)
    smooth        how much of the activations' spread over features moves into the weights, 0 to 1
                  (SmoothQuant, https://arxiv.org/abs/2211.10438, equation 4); needs calibration
    reduce_range  7 bits, for processors whose 8-bit products saturate
    symmetric     static activations without a zero point, as TensorRT wants them
    """

    signed: bool = True
    per_channel: bool = True
    reduce_range: bool = False
    activations: Activations = "tensor"
    smooth: float = 0.0
    symmetric: bool = False

    def __post_init__(self) -> None:
        _require("activations", self.activations, get_args(Activations))
        if not 0 <= float(self.smooth) <= 1:
            raise UsageError(f"smooth {self.smooth!r} is no share", remedy="choose 0 to 1")

    @property
    def label(self) -> str:
        kind = f"{'int8' if self.signed else 'uint8'} {'by column' if self.per_channel else 'by tensor'}"
        how = {"tensor": "by tensor", "row": "by token", "static": "calibrated"}[self.activations]
        extra = f", smoothed {self.smooth:g}" if self.smooth else ""
        return f"{kind}, activations {how}{extra}{', 7 bits' if self.reduce_range else ''}"


@dataclass(frozen=True)
class NormalFloat:
    """A matrix in 4-bit floats of bitsandbytes, a scale for each `size` weights (onnxruntime's MatMulBnb4)."""

    size: int = 64
    kind: Literal["fp4", "nf4"] = "nf4"

    def __post_init__(self) -> None:
        _require("kind", self.kind, ("fp4", "nf4"))
        _require("size", self.size, BLOCK_SIZES)

    @property
    def label(self) -> str:
        return f"{self.kind} in blocks of {self.size}"


def _require(name: str, value: Any, known: Sequence[Any]) -> None:
    if value not in known:
        raise UsageError(f"{name} {value!r} is unknown", remedy=f"choose from {', '.join(map(str, known))}")


Matrix = Blocks | Columns | NormalFloat
_KINDS = {"blocks": Blocks, "columns": Columns, "float": NormalFloat}


@dataclass(frozen=True)
class Plan:
    """A whole graph: the format of its matrices, exceptions by initializer, tables by row, halves.

    What is no matrix or table stays as it is; with `half` every float that is left becomes fp16. `statistics` are
    what calibration measured, for formats that want it; `tied` names tables that are matrices as well, in whichever
    graph. Neither is part of the plan's value.
    """

    matrices: Matrix | None = None
    exceptions: Mapping[str, Matrix | None] = field(default_factory=dict)
    tables: bool = True
    half: bool = False
    statistics: Statistics | None = field(default=None, compare=False, repr=False)
    tied: frozenset[str] = field(default=frozenset(), compare=False, repr=False)

    def of(self, name: str) -> Matrix | None:
        """The format of the matrix in this initializer; None leaves it alone."""
        return self.exceptions.get(name, self.matrices)

    @property
    def label(self) -> str:
        """In words: the format of most matrices, how many have another, and what else changes."""
        if self.matrices is None:
            base = "fp16" if self.half else "matrices as they are"
        else:
            base = self.matrices.label + (", the rest fp16" if self.half else "")
        others: dict[str, int] = {}
        for form in self.exceptions.values():
            name = "as it was" if form is None else form.label
            others[name] = others.get(name, 0) + 1
        return "; ".join((base, *(f"{count} x {name}" for name, count in others.items())))

    @property
    def calibrates(self) -> bool:
        """Whether some format wants statistics of activations."""
        forms = (self.matrices, *self.exceptions.values())
        return any(
            isinstance(form, Columns) and (form.smooth or form.activations == "static") for form in forms
        )

    @property
    def keeps_matrices(self) -> bool:
        """Whether every matrix stays in fp32."""
        return not (self.half or self.matrices or any(self.exceptions.values()))

    @property
    def symmetric(self) -> bool:
        """Whether ranges of activations that are calibrated lie around zero."""
        forms = (self.matrices, *self.exceptions.values())
        return any(isinstance(form, Columns) and form.symmetric for form in forms)

    def giving(self, names: Iterable[str], form: Any) -> Plan:
        """The same plan, but for these matrices."""
        return replace(self, exceptions={**self.exceptions, **dict.fromkeys(names, form)})

    def informed(self, statistics: Statistics | None, tied: frozenset[str]) -> Plan:
        """The same plan with what calibration measured and what the package's graphs have in common."""
        return replace(self, statistics=statistics, tied=tied)

    def apply(self, model: ir.Model) -> None:
        """Turn the weights of a graph into this plan's."""
        from converter.precision.apply import apply_plan

        apply_plan(self, model)

    def to_json(self) -> dict[str, Any]:
        """Plain values, enough to make the same graph again (`read_plan`)."""
        return {
            "matrices": _to_json(self.matrices),
            "exceptions": {name: _to_json(form) for name, form in self.exceptions.items()},
            "tables": self.tables,
            "half": self.half,
        }


def read_plan(content: Any) -> Plan:
    """A plan from what `to_json` gave. Raises UsageError where it is something else."""
    try:
        exceptions = {str(name): _from_json(form) for name, form in content["exceptions"].items()}
        return Plan(
            _from_json(content["matrices"]), exceptions, bool(content["tables"]), bool(content["half"])
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UsageError(
            f"this is not the recipe of a precision: {type(error).__name__} {error}",
            remedy="give a converter.json, or the `recipe` entry of one of its precisions",
        ) from error


def _to_json(form: Matrix | None) -> dict[str, Any] | None:
    if form is None:
        return None
    kind = next(name for name, known in _KINDS.items() if isinstance(form, known))
    return {"format": kind, **asdict(form)}


def _from_json(content: Any) -> Matrix | None:
    if content is None:
        return None
    values = dict(content)
    made: Matrix = _KINDS[values.pop("format")](**values)
    return made
