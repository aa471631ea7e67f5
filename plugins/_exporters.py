"""What transformers' own exporters know, for what is traced here. Not a plugin itself: it registers nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def exporter_patches() -> Iterator[None]:
    """What transformers' own exporters change in torch and in models while they trace; undone on leaving."""
    import transformers.exporters.exporter_onnx  # noqa: F401  (registers the patches)
    from transformers.exporters.utils import apply_patches

    with ExitStack() as stack:
        for backend in ("dynamo", "onnx"):
            stack.enter_context(apply_patches(backend))
        stack.enter_context(one_key_for_all_heads())
        yield


@contextmanager
def one_key_for_all_heads() -> Iterator[None]:
    """Attention whose queries share one key and value (multi-query), written out for every head.

    torch broadcasts them; torch's lowering to ONNX's Attention refuses them, as of 2.13. Undone on leaving.
    """
    import torch

    attention = torch.nn.functional.scaled_dot_product_attention

    def expanded(query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> Any:
        if query.dim() == 4 and key.shape[1] == 1 != query.shape[1]:
            key, value = (entry.expand(-1, query.shape[1], -1, -1) for entry in (key, value))
        return attention(query, key, value, *rest, **named)

    torch.nn.functional.scaled_dot_product_attention = expanded
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = attention


def exporter_translations() -> Mapping[Any, Any]:
    """transformers' lowerings of ops that torch has none for, or a wrong one, and ours of mixtures of experts."""
    from transformers.exporters.exporter_onnx import _ONNX_TRANSLATION_TABLE

    from converter.plugins._experts import experts_in_onnx

    return {**_ONNX_TRANSLATION_TABLE, **experts_in_onnx(), **erfinv_in_onnx()}


# M. Giles, Approximating the erfinv function (2010), table 5: single precision, highest power first, for
# w = -log(1 - x^2) below 5 and above.
CENTRE = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503)
CENTRE += (-0.00417768164, 0.246640727, 1.50140941)
TAIL = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613)
TAIL += (0.00943887047, 1.00167406, 2.83297682)


def erfinv_in_onnx() -> Mapping[Any, Any]:
    """The inverse of the error function, which ONNX has not: Gemma 3n finds by it what its sparse layers keep."""
    import torch
    from onnxscript import opset18 as op

    def polynomial(coefficients: tuple[float, ...], w: Any) -> Any:
        value = op.CastLike(op.Constant(value_float=coefficients[0]), w)
        for coefficient in coefficients[1:]:
            value = op.Add(op.Mul(value, w), op.CastLike(op.Constant(value_float=coefficient), w))
        return value

    def erfinv(x: Any) -> Any:
        def number(value: float) -> Any:
            return op.CastLike(op.Constant(value_float=value), x)

        w = op.Neg(op.Log(op.Mul(op.Sub(number(1.0), x), op.Add(number(1.0), x))))
        centre = polynomial(CENTRE, op.Sub(w, number(2.5)))
        tail = polynomial(TAIL, op.Sub(op.Sqrt(op.Max(w, number(5.0))), number(3.0)))
        return op.Mul(op.Where(op.Less(w, number(5.0)), centre, tail), x)

    return {torch.ops.aten.erfinv.default: erfinv, torch.ops.prims.erf_inv.default: erfinv}
