"""Any model: its inputs by name in, the tensors of its output by name out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class NamedFields(nn.Module):
    """Calls the model as it is, with fixed options, and returns the named tensors of its output, in order."""

    def __init__(self, model: nn.Module, fields: tuple[str, ...], options: Mapping[str, Any]) -> None:
        super().__init__()
        self.model = model
        self.fields = fields
        self.options = dict(options)

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Whatever the model takes and gives."""
        found = tensors_of(self.model(**inputs, **self.options))
        return tuple(found[field] for field in self.fields)


def tensors_of(output: Any) -> dict[str, torch.Tensor]:
    """The floating-point tensors of a model's output: by field name, or `output`, `output_1`... where it has none.

    Nested outputs (hidden states by layer, caches) are left out.
    """
    if isinstance(output, torch.Tensor):
        output = {"output": output}
    elif not isinstance(output, Mapping):
        output = {f"output_{place}" if place else "output": value for place, value in enumerate(output)}
    return {
        name: value
        for name, value in output.items()
        if isinstance(value, torch.Tensor) and value.is_floating_point() and name != "loss"
    }
