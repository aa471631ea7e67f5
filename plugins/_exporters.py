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

    return {**_ONNX_TRANSLATION_TABLE, **experts_in_onnx()}
