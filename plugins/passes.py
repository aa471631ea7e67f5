"""The graph passes every conversion runs, in order. A plugin puts its own between them by number."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from converter import GraphPass, hookimpl

if TYPE_CHECKING:
    import onnx_ir as ir

    from converter.additions import Level


def _lazily(module: str, function: str) -> Callable[[ir.Model], bool]:
    """The pass itself needs onnx_ir and onnxscript; naming it must not."""

    def run(model: ir.Model) -> bool:
        from importlib import import_module

        return bool(getattr(import_module(f"converter.passes.{module}"), function)(model))

    return run


@hookimpl
def register_passes(register: Callable[[GraphPass], None]) -> None:
    levels: tuple[tuple[int, str, str, str, Level], ...] = (
        (100, "inline-functions", "standard", "inline_functions", "basic"),
        (110, "widen-bfloat16", "small_floats", "widen_bfloat16", "none"),
        (140, "expand-masks", "expand_masks", "expand_masks", "basic"),
        (150, "anchor-sizes", "anchor_sizes", "anchor_sizes", "basic"),
        (200, "fold-constants", "standard", "fold_constants", "basic"),
        (220, "simplify", "rewrite", "simplify", "basic"),
        (240, "fold-rewritten", "standard", "fold_constants", "basic"),
        (300, "share-subexpressions", "standard", "share_subexpressions", "basic"),
        (400, "fold-transposes", "fold_transpose", "fold_transposes", "basic"),
        (600, "onnxsim", "simplified", "simplify_smaller", "extended"),
        (620, "fuse-standard", "fusions", "fuse_standard", "extended"),
        (630, "flat-attention", "flat_attention", "flatten_attention", "extended"),
        (640, "share-fused", "standard", "share_subexpressions", "extended"),
        (700, "fuse-onnxruntime", "fusions", "fuse_for_onnxruntime", "ort"),
        (720, "keep-padded-zeros", "padded_pools", "keep_padded_zeros", "none"),
        (800, "remove-unused", "standard", "remove_unused", "basic"),
        (900, "strip-metadata", "strip_metadata", "strip_metadata", "none"),
        (950, "fix-names", "standard", "fix_names", "basic"),
    )
    for order, name, module, function, level in levels:
        register(GraphPass(name, _lazily(module, function), order, level))
