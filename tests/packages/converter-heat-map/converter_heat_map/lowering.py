"""What torch.export and the ONNX exporter cannot do by themselves with this model, and what is done about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def translations() -> Mapping[Any, Callable[..., Any]]:
    """The exporter knows nothing of `heat_map::keep_peaks`; this says it in ONNX."""
    import torch
    from onnxscript import opset18 as op

    from converter_heat_map import model  # registers the operator

    def keep_peaks(heat: Any, radius: int) -> Any:
        side = 2 * radius + 1
        largest, _ = op.MaxPool(heat, kernel_shape=[side, side], pads=[radius] * 4, strides=[1, 1])
        zero = op.CastLike(op.Constant(value_float=0.0), heat)
        return op.Where(op.Equal(heat, largest), heat, zero)

    assert model.keep_peaks is not None
    return {torch.ops.heat_map.keep_peaks.default: keep_peaks}


@contextmanager
def without_checks() -> Iterator[None]:
    """`check_pixels` looks at values, of which there are none while tracing. A graph has no place for it either.

    Needed until the model's authors make the check optional.
    """
    from converter_heat_map import model

    check = model.check_pixels
    model.check_pixels = lambda images: None
    try:
        yield
    finally:
        model.check_pixels = check
