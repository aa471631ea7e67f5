"""What transformers' own exporters know, for what is traced here. Not a plugin itself: it registers nothing."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
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
        stack.enter_context(sizes_stay_sizes(*_modeling()))
        stack.enter_context(experts_of_all_tokens())
        stack.enter_context(one_row_of_positions())
        yield


def _modeling() -> list[str]:
    """The modules of transformers' models that are imported."""
    return [name for name in sys.modules if re.fullmatch(r"transformers\.models\..*\.modeling_\w+", name)]


@contextmanager
def sizes_stay_sizes(*modules: str, shadow_int: bool = False) -> Iterator[None]:
    """len(tensor) and torch_int(size) give the number at hand, which tracing takes for the only one; here, the size.

    So does int() where `shadow_int` asks for it, which a module that asks whether something is an `int` cannot bear.
    Checks of values, which have no place in a graph, are left out. Undone on leaving.
    """
    import torch

    def whole(value: Any) -> Any:
        return value if isinstance(value, torch.SymInt) else int(value)

    def length(value: Any) -> Any:
        return value.shape[0] if isinstance(value, torch.Tensor) else len(value)

    here: dict[str, Any] = {"len": length, "torch_int": whole, "torch_compilable_check": lambda *given: None}
    here |= {"int": whole} if shadow_int else {}
    # The builtins are shadowed for the functions of a module by names in it.
    spaces = [vars(import_module(name)) for name in modules]
    before = [{name: space[name] for name in here if name in space} for space in spaces]
    for space in spaces:
        space.update(here)
    try:
        yield
    finally:
        for space, kept in zip(spaces, before, strict=True):
            for name in here:
                del space[name]
            space.update(kept)


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


@contextmanager
def experts_of_all_tokens() -> Iterator[None]:
    """Switch Transformers asks its experts one by one, for the tokens that chose each; here, all of them for all.

    Which tokens these are is a matter of values. What an expert says of other tokens counts nothing. The router casts
    its weights in place at each call, to what they are already, which tracing refuses. Undone on leaving.
    """
    name = "transformers.models.switch_transformers.modeling_switch_transformers"
    if name not in sys.modules:
        yield
        return
    experts: Any = sys.modules[name].SwitchTransformersExperts
    router: Any = sys.modules[name].SwitchTransformersTop1Router
    call, route = experts.forward, router.forward

    def forward(self: Any, hidden_states: Any, selected_experts: Any, routing_weights: Any) -> Any:
        """(tokens, width), one-hot (tokens, 1, experts), (tokens, 1) -> (tokens, width)."""
        weights = selected_experts[:, 0].to(hidden_states.dtype) * routing_weights
        told = [
            self[f"expert_{index}"](hidden_states) * weights[:, index, None] for index in range(len(self))
        ]
        return sum(told[1:], told[0])

    def routed(self: Any, hidden_states: Any) -> Any:
        self.classifier.to = lambda dtype: self.classifier
        try:
            return route(self, hidden_states)
        finally:
            del self.classifier.to

    experts.forward, router.forward = forward, routed
    try:
        yield
    finally:
        experts.forward, router.forward = call, route


@contextmanager
def one_row_of_positions() -> Iterator[None]:
    """MPT cuts its table of positions, of one row, at row max(0, 1 - tokens), which is 0 whatever their number.

    torch keeps the maximum as it stands, and then finds no number of tokens that one row goes with. Undone on leaving.
    """
    import torch

    modeling = sys.modules.get("transformers.models.mpt.modeling_mpt")
    if modeling is None:
        yield
        return

    def largest(zero: Any, left: Any) -> Any:
        one_row = isinstance(left, torch.SymInt) and left.node.expr.as_coeff_Add()[0] == 1
        return zero if one_row else max(zero, left)

    vars(modeling)["max"] = largest
    try:
        yield
    finally:
        del vars(modeling)["max"]


def exporter_translations() -> Mapping[Any, Any]:
    """transformers' lowerings of ops that torch has none for, or a wrong one, and ours of mixtures of experts."""
    from transformers.exporters.exporter_onnx import _ONNX_TRANSLATION_TABLE

    from converter.plugins._experts import experts_in_onnx

    return {**_ONNX_TRANSLATION_TABLE, **experts_in_onnx(), **erfinv_in_onnx()}


# M. Giles, Approximating the erfinv function (2010), table 5: single precision, highest power first, for
# w = -log(1 - x^2) below 5 and above.
CENTRE: tuple[float, ...] = (
    2.81022636e-08,
    3.43273939e-07,
    -3.5233877e-06,
    -4.39150654e-06,
    0.00021858087,
    -0.00125372503,
)
CENTRE += (-0.00417768164, 0.246640727, 1.50140941)
TAIL: tuple[float, ...] = (
    -0.000200214257,
    0.000100950558,
    0.00134934322,
    -0.00367342844,
    0.00573950773,
    -0.0076224613,
)
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
