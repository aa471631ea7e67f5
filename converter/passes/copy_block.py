"""A copy of a traced layer, for a layer that was not traced."""

from __future__ import annotations

import onnx_ir as ir

from converter.passes.blocks import Block, Chain, Naming, own_output
from converter.passes.strip_metadata import SCOPES
from converter.recipes import RecipeTensor


class Names:
    """Makes names that nothing in the graph has."""

    def __init__(self, graph: ir.Graph) -> None:
        results = (value for node in graph for value in node.outputs)
        values = [*graph.inputs, *graph.initializers.values(), *results]
        self.used = {value.name for value in values} | {node.name for node in graph}

    def fresh(self, base: str | None, index: int) -> str:
        """`base` with the layer's number, and another number after it if that is taken."""
        name, count = f"{base}_{index}", 0
        while name in self.used:
            count += 1
            name = f"{base}_{index}_{count}"
        self.used.add(name)
        return name


class Copy:
    """The template's nodes again, for the layer at `original`, on what its predecessor hands on.

    `values` maps each of the template's own values to its copy; what all layers share is not in it.
    """

    def __init__(
        self, template: Block, original: int, carried: ir.Value, chain: Chain, naming: Naming, names: Names
    ) -> None:
        self.template = template
        self.original = original
        self.chain = chain
        self.naming = naming
        self.names = names
        self.values: dict[ir.Value, ir.Value] = {chain.carried[template.index - 1]: carried}
        for value, role in template.inputs.items():
            self.values[value] = _like(value, role.format(original))
        lead = [self._node(node) for node in template.lead]
        self.block = Block(original, lead, [self._node(node) for node in template.main])

    def _node(self, node: ir.Node) -> ir.Node:
        inputs = [self._source(value) for value in node.inputs]
        outputs = [_like(value, self._name(value)) for value in node.outputs]
        self.values.update(zip(node.outputs, outputs, strict=True))
        scopes = {
            key: self.naming.rename_scopes(value, self.original)
            for key, value in node.metadata_props.items()
            if key == SCOPES
        }
        return ir.Node(
            node.domain,
            node.op_type,
            inputs,
            list(node.attributes.values()),
            overload=node.overload,
            outputs=outputs,
            version=node.version,
            name=self.names.fresh(node.name, self.original),
            metadata_props=scopes,
        )

    def _name(self, value: ir.Value) -> str:
        pattern = own_output(value, self.template)
        return pattern.format(self.original) if pattern else self.names.fresh(value.name, self.original)

    def _source(self, value: ir.Value | None) -> ir.Value | None:
        if value is None:
            return None
        if value not in self.values and value.is_initializer():
            private = self.chain.is_private(value, self.template)
            self.values[value] = self._initializer(value) if private else value
        return self.values.get(value, value)

    def _initializer(self, value: ir.Value) -> ir.Value:
        old, tensor = self.template.index, value.const_value
        if self.naming.relative(value.name or "", old) is None:
            name = self.names.fresh(value.name, self.original)
        else:
            name = self.naming.rename(value.name or "", old, self.original)
        copy = _like(value, name)
        if isinstance(tensor, RecipeTensor):
            copy.const_value = RecipeTensor(self.naming.recipe(tensor.recipe, old, self.original), name=name)
        elif tensor is not None:
            copy.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=name)
        return copy


def _like(value: ir.Value, name: str) -> ir.Value:
    shape = None if value.shape is None else value.shape.copy()
    return ir.Value(name=name, shape=shape, type=value.type)
