"""The graph passes every conversion runs, in order. A plugin puts its own between them by number."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from converter import GraphPass, hookimpl

if TYPE_CHECKING:
    import onnx_ir as ir


def _lazily(module: str, function: str) -> Callable[[ir.Model], bool]:
    """The pass itself needs onnx_ir and onnxscript; naming it must not."""

    def run(model: ir.Model) -> bool:
        from importlib import import_module

        return bool(getattr(import_module(f"converter.passes.{module}"), function)(model))

    return run


@hookimpl
def register_passes(register: Callable[[GraphPass], None]) -> None:
    for order, name, module, function in (
        (100, "inline-functions", "standard", "inline_functions"),
        (150, "anchor-sizes", "anchor_sizes", "anchor_sizes"),
        (200, "fold-constants", "standard", "fold_constants"),
        (220, "simplify", "rewrite", "simplify"),
        (240, "fold-rewritten", "standard", "fold_constants"),
        (300, "share-subexpressions", "standard", "share_subexpressions"),
        (400, "fold-transposes", "fold_transpose", "fold_transposes"),
        (800, "remove-unused", "standard", "remove_unused"),
        (900, "strip-metadata", "strip_metadata", "strip_metadata"),
        (950, "fix-names", "standard", "fix_names"),
    ):
        register(GraphPass(name, _lazily(module, function), order))
