"""What the code of a module can branch on, as a value: modules of equal signature trace alike.

Names and shapes of parameters count, their values do not. Everything else counts with its value: buffers,
scalar attributes, functions, the objects a module holds. Dropout does not count: a model that runs has none.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import dataclass
from enum import Enum
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

# What every nn.Module has: hooks, the training flag, and what is read apart: submodules, parameters, buffers.
INTERNAL = frozenset(vars(nn.Module()))


@dataclass(frozen=True)
class Index:
    """An attribute that holds a layer's own position in its list, counted from `offset`."""

    path: str
    name: str
    offset: int


def index_attributes(layers: Sequence[nn.Module]) -> tuple[Index, ...]:
    """Attributes that equal the position, or the position plus one, in every layer that has them.

    One layer that has an attribute proves nothing; two do.
    """
    seen: dict[tuple[str, str], list[int]] = {}
    for position, layer in enumerate(layers):
        for path, module in layer.named_modules():
            for name, value in vars(module).items():
                if type(value) is int:
                    seen.setdefault((path, name), []).append(value - position)
    return tuple(
        Index(path, name, offsets[0])
        for (path, name), offsets in seen.items()
        if len(offsets) > 1 and len(set(offsets)) == 1 and offsets[0] in (0, 1)
    )


def signatures(layers: Sequence[nn.Module], indices: Sequence[Index]) -> list[Hashable]:
    """A signature for each layer, in which the layer's own position does not count."""
    skipped = {(index.path, index.name) for index in indices}
    freezer = Freezer()
    return [freezer.layer(layer, skipped) for layer in layers]


def reads_any(layers: nn.Module, names: Set[str]) -> bool:
    """Whether code of the layers, other than constructors, mentions an attribute of one of these names."""
    kinds = {kind for module in layers.modules() for kind in type(module).__mro__}
    functions = (function for kind in kinds for name, function in vars(kind).items() if name != "__init__")
    codes = [function.__code__ for function in functions if isinstance(function, FunctionType)]
    while codes:
        code = codes.pop()
        if not names.isdisjoint(code.co_names):
            return True
        codes += [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return False


class Freezer:
    """Turns values into hashable ones, each object once."""

    def __init__(self) -> None:
        self.memo: dict[int, Hashable] = {}
        self.alive: list[object] = []

    def layer(self, layer: nn.Module, skipped: Set[tuple[str, str]]) -> Hashable:
        """The signature of `layer` without the attributes (module path, name) in `skipped`."""
        return tuple(
            (path, _qualified(type(module)), self._tensors(module), self._attributes(module, path, skipped))
            for path, module in layer.named_modules()
        )

    def _tensors(self, module: nn.Module) -> Hashable:
        parameters = tuple(
            (name, None if value is None else (tuple(value.shape), str(value.dtype)))
            for name, value in module._parameters.items()
        )
        return parameters, tuple((name, self.freeze(value)) for name, value in module._buffers.items())

    def _attributes(self, module: nn.Module, path: str, skipped: Set[tuple[str, str]]) -> Hashable:
        if "drop" in type(module).__name__.lower():
            return ()
        return tuple(
            (name, self.freeze(value))
            for name, value in sorted(vars(module).items())
            if name not in INTERNAL and "drop" not in name and (path, name) not in skipped
        )

    def freeze(self, value: Any) -> Hashable:
        """Equal for values that behave alike. What cannot be looked into equals only itself."""
        if value is None or isinstance(value, (bool, int, str, bytes, torch.dtype, torch.device, type)):
            return type(value), value
        if isinstance(value, (float, complex)):
            return type(value), repr(value)
        if isinstance(value, Enum):
            return type(value), value.name
        if id(value) not in self.memo:
            self.memo[id(value)] = "cycle"
            self.alive.append(value)
            self.memo[id(value)] = self._compound(value)
        return self.memo[id(value)]

    def _compound(self, value: Any) -> Hashable:
        kind = _qualified(type(value))
        if isinstance(value, torch.Tensor):
            return _digest(value)
        if isinstance(value, Mapping):
            return kind, tuple((repr(key), self.freeze(item)) for key, item in value.items())
        if isinstance(value, (list, tuple)):
            return kind, tuple(self.freeze(item) for item in value)
        if isinstance(value, (set, frozenset)):
            return kind, frozenset(self.freeze(item) for item in value)
        if isinstance(value, functools.partial):
            return kind, self.freeze(value.func), self.freeze(value.args), self.freeze(value.keywords)
        if isinstance(value, FunctionType):
            cells = [cell.cell_contents for cell in value.__closure__ or ()]
            return _qualified(value), self.freeze(cells), self.freeze(value.__defaults__)
        if isinstance(value, BuiltinFunctionType):
            return _qualified(value)
        if isinstance(value, (MethodType, nn.Module)) or not hasattr(value, "__dict__"):
            return kind, id(value)
        return kind, self.freeze(vars(value))


def _digest(tensor: torch.Tensor) -> Hashable:
    described = tuple(tensor.shape), str(tensor.dtype)
    if isinstance(tensor, (FakeTensor, nn.Parameter)) or tensor.is_meta:
        return described
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return *described, hashlib.sha256(data.tobytes()).hexdigest()


def _qualified(named: Any) -> str:
    return f"{named.__module__}.{named.__qualname__}"
