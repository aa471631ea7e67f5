"""What a user asks of the formats, and what the processor they will run on can do."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from converter.errors import UsageError
from converter.precision.formats import Blocks, Columns, Matrix, NormalFloat, Plan
from converter.precision.statistics import METHODS, Method

Target = Literal["auto", "arm64", "avx2", "avx512", "avx512_vnni", "tensorrt", "webgpu"]
WeightType = Literal["QInt8", "QUInt8"]
TARGETS: tuple[Target, ...] = get_args(Target)


@dataclass(frozen=True)
class Tuning:
    """Choices about formats; None leaves each precision its own.

    `static` calibrates activations by this method and writes QuantizeLinear and DequantizeLinear; formats that see
    activations otherwise are left out where there is one that does so. `target` auto is this machine.
    """

    target: Target = "auto"
    per_channel: bool | None = None
    reduce_range: bool | None = None
    weight_type: WeightType | None = None
    block_size: int | None = None
    symmetric: bool | None = None
    accuracy_level: int | None = None
    static: Method | None = None

    def __post_init__(self) -> None:
        choices: Mapping[str, Sequence[Any]] = {
            "target": TARGETS,
            "weight_type": (None, *get_args(WeightType)),
            "static": (None, *METHODS),
            "accuracy_level": (None, 0, 1, 2, 3, 4),
            "block_size": (None, 16, 32, 64, 128, 256),
        }
        for name, known in choices.items():
            value = getattr(self, name)
            if value not in known:
                listed = ", ".join(str(entry) for entry in known if entry is not None)
                raise UsageError(f"{name} {value!r} is unknown", remedy=f"choose from {listed}")
        against = {"weight_type": "QUInt8", "reduce_range": True, "symmetric": False}
        for name, value in against.items() if self.target == "tensorrt" else ():
            if getattr(self, name) == value:
                raise UsageError(
                    f"tensorrt takes signed and symmetric weights of 8 bits, and {name} {value} says otherwise",
                    remedy="leave it out, or choose another --target",
                )

    def apply(self, name: str, plans: Sequence[Any]) -> list[Any]:
        """Plans of a precision as they are wanted here, without those the target cannot run.

        Plans of other kinds than the built-in ones stay as they are. Raises UsageError where none is left.
        """
        target = this_target() if self.target == "auto" else self.target
        tuned = [self._plan(plan, target) if isinstance(plan, Plan) else plan for plan in plans]
        left = list({plan.label: plan for plan in tuned if plan is not None}.values())
        if self.static is not None:
            left = [plan for plan in left if _calibrated(plan)] or left
        if not left:
            raise UsageError(
                f"{target} has no kernels for {name}", remedy="choose another --target, or another precision"
            )
        return left

    def require_used(self, plans: Sequence[Any]) -> None:
        """Raise UsageError for a choice that none of the plans has a format for: it would be passed over unseen."""
        built = [plan for plan in plans if isinstance(plan, Plan)]
        forms = [form for plan in built for form in (plan.matrices, *plan.exceptions.values())]
        columns = [form for form in forms if isinstance(form, Columns)]
        blocks = [form for form in forms if isinstance(form, Blocks)]
        floats = [form for form in forms if isinstance(form, NormalFloat)]
        calibrated = [form for form in columns if form.activations == "static"]
        takers: dict[str, Sequence[Matrix]] = {
            **dict.fromkeys(("per_channel", "reduce_range", "weight_type"), columns),
            **{"static": calibrated, "symmetric": [*blocks, *calibrated]},
            **{"block_size": [*blocks, *floats], "accuracy_level": blocks},
        }
        for name, takers_of in takers.items():
            if getattr(self, name) is not None and not takers_of:
                tried = ", ".join(dict.fromkeys(plan.label for plan in built)) or "formats of a plugin"
                raise UsageError(
                    f"--{name.replace('_', '-')} says nothing about what would be made: {tried}",
                    remedy="leave it out, or choose another precision or --target; "
                    "--unjudged takes one format of each precision, --recipe is applied as it is",
                )

    def _plan(self, plan: Plan, target: str) -> Plan | None:
        forms = {form: self._matrix(form, target) for form in (plan.matrices, *plan.exceptions.values())}
        if any(new is None for form, new in forms.items() if form is not None):
            return None
        exceptions = {name: forms[form] for name, form in plan.exceptions.items()}
        tables = plan.tables and target != "tensorrt"
        return replace(plan, matrices=forms[plan.matrices], exceptions=exceptions, tables=tables)

    def _matrix(self, form: Matrix | None, target: str) -> Matrix | None:
        if isinstance(form, Columns):
            signed = form.signed or self.weight_type == "QInt8"
            lacking = target == "webgpu" or (target == "tensorrt" and not signed)
            return None if lacking else self._columns(form, target)
        if target == "tensorrt" and form is not None:
            return None
        if isinstance(form, Blocks):
            given = {
                "size": self.block_size,
                "symmetric": self.symmetric,
                "accuracy_level": self.accuracy_level,
            }
            return replace(form, **_known(given))
        if isinstance(form, NormalFloat):
            return replace(form, **_known({"size": self.block_size}))
        return form

    def _columns(self, form: Columns, target: str) -> Columns:
        signed = None if self.weight_type is None else self.weight_type == "QInt8"
        reduce_range = self.reduce_range
        if reduce_range is None and target in ("avx2", "avx512"):
            reduce_range = True  # their products of 8 bits saturate at 16
        given = {"per_channel": self.per_channel, "reduce_range": reduce_range, "signed": signed}
        form = replace(form, **_known(given))
        if target == "tensorrt":
            return replace(
                form, signed=True, activations="static", smooth=0.0, symmetric=True, reduce_range=False
            )
        if self.static is not None:
            return replace(form, activations="static", smooth=0.0, symmetric=bool(self.symmetric))
        return form


def _calibrated(plan: Any) -> bool:
    if not isinstance(plan, Plan):
        return True
    forms = (plan.matrices, *plan.exceptions.values())
    return any(isinstance(form, Columns) and form.activations == "static" for form in forms)


def _known(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def this_target() -> Target:
    """The target that this machine is, by its instructions."""
    machine = platform.machine().lower()
    if machine in ("arm64", "aarch64"):
        return "arm64"
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return "avx2"
    flags = set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())
    if flags & {"avx512_vnni", "avx_vnni", "amx_int8"}:
        return "avx512_vnni"
    return "avx512" if "avx512f" in flags else "avx2"
