"""Transposes of a weight move into its recipe: the stored tensor is already turned, nothing is turned at run time."""

from __future__ import annotations

import onnx_ir as ir

from converter.recipes import RecipeTensor, Transpose


def fold_transposes(model: ir.Model) -> bool:
    """Fold where every use of the weight is the same Transpose.

    A weight that something else uses as well (an embedding table that is also the output projection) keeps its node:
    folding would store it twice.
    """
    modified = False
    for value in list(model.graph.initializers.values()):
        tensor = value.const_value
        if not isinstance(tensor, RecipeTensor) or value.is_graph_output():
            continue
        users = [usage.node for usage in value.uses()]
        perms = {_perm(node, len(tensor.shape)) for node in users}
        if not users or len(perms) != 1 or None in perms:
            continue
        (perm,) = perms
        assert perm is not None
        _fold(value, tensor, perm, users)
        modified = True
    return modified


def _perm(node: ir.Node, rank: int) -> tuple[int, ...] | None:
    if node.op_type != "Transpose" or node.domain:
        return None
    if node.outputs[0].is_graph_output():
        return None
    attribute = node.attributes.get("perm")
    return tuple(attribute.as_ints()) if attribute is not None else tuple(reversed(range(rank)))


def _fold(value: ir.Value, tensor: RecipeTensor, perm: tuple[int, ...], users: list[ir.Node]) -> None:
    recipe = Transpose(tensor.recipe, perm)
    value.const_value = RecipeTensor(recipe, name=value.name or "")
    value.shape = ir.Shape(recipe.shape)
    for node in users:
        ir.convenience.replace_all_uses_with(node.outputs, [value])
        assert node.graph is not None
        node.graph.remove(node, safe=True)
