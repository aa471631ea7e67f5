"""The layers that were not traced are stamped: copies of a traced one with names and wiring of their own.

A model's list of layers was cut to a few of each kind (`converter.tracing.layers`). In the traced graph the second of
a kind is the template and the third the witness: only if both are the same node for node are the other layers
of that kind copied from the template. The result is the graph that tracing the whole model would have given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from converter.passes.alike import check_same
from converter.passes.anchor_sizes import anchor_sizes
from converter.passes.blocks import (
    Block,
    Naming,
    StampRefused,
    find_blocks,
    find_chain,
    own_output,
)
from converter.passes.copy_block import Copy, Names
from converter.passes.strip_metadata import SCOPES
from converter.recipes import RecipeTensor
from converter.tracing.layers import CutList, LayerPlan

__all__ = ["StampRefused", "stamp"]


def stamp(model: ir.Model, plan: LayerPlan, scopes: Mapping[str, str]) -> bool:
    """Complete a graph as traced from a model that was cut by `plan`. Says whether anything was stamped.

    `scopes` maps module paths in the wrapper, which nodes carry, to module paths in the model, which recipes
    carry. Graph inputs and outputs with a layer's number between dots (`past_key_values.1.key`) are
    multiplied too. Raises StampRefused if the traced layers do not prove how the others look; the graph then
    still is as deep as it was.
    """
    if not plan.lists:
        return False
    if model.functions:
        InlinePass()(model)
    for name, value in list(model.graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del model.graph.initializers[name]
    anchor_sizes(model)
    stamps = [Stamp(model.graph, cut, scopes) for cut in plan.lists]
    used = [one for one in stamps if one.blocks]
    for one in used:
        one.check()
    for one in used:
        one.apply()
    return bool(used)


class Use(NamedTuple):
    """A node and which of its inputs."""

    node: ir.Node
    idx: int


class Stamp:
    """One cut list in one graph. `check` only looks; `apply` only succeeds."""

    def __init__(self, graph: ir.Graph, cut: CutList, scopes: Mapping[str, str]) -> None:
        self.graph = graph
        self.cut = cut
        self.naming = Naming(tuple(wrapped for wrapped, path in scopes.items() if path == cut.path), cut.path)
        self.blocks = find_blocks(graph, cut, self.naming)
        if not self.blocks and any(map(self._is_of_the_list, graph.initializers.values())):
            raise StampRefused(f"nodes of {cut.path} do not say which of its layers they are of")
        self.members: dict[int, list[Block]] = {}
        for block in self.blocks:
            self.members.setdefault(cut.classes[cut.kept[block.index]], []).append(block)

    def _is_of_the_list(self, value: ir.Value) -> bool:
        tensor = value.const_value
        return isinstance(tensor, RecipeTensor) and any(
            self.naming.owns(tensor.recipe, index) for index in range(len(self.cut.kept))
        )

    def check(self) -> None:
        """Find what the blocks hand on; refuse unless template and witness of each kind are the same."""
        self.chain = find_chain(self.blocks, self.cut)
        for kind, members in self.members.items():
            if self.cut.classes.count(kind) > len(members):
                _, template, witness = members
                check_same(template, witness, self.chain, self.naming)
        self.owners = {value: block for block in self.blocks for value in self._owned(block)}

    def _owned(self, block: Block) -> Iterator[ir.Value]:
        """Graph inputs, graph outputs and initializers that are the block's by name."""
        yield from block.inputs
        for node in block.nodes:
            yield from (value for value in node.outputs if own_output(value, block) is not None)
        for value in self.graph.initializers.values():
            named = self.naming.relative(value.name or "", block.index) is not None
            tensor = value.const_value
            if isinstance(tensor, RecipeTensor) and named != self.naming.owns(tensor.recipe, block.index):
                raise StampRefused(f"initializer {value.name} and {tensor.recipe} differ in their layer")
            if named:
                yield value

    def apply(self) -> None:
        """Copy while the traced layers are still wired and named as traced; then wire, then name."""
        names = Names(self.graph)
        traced = dict(zip(self.cut.kept, self.blocks, strict=True))
        copies: dict[int, Copy] = {}
        results: list[ir.Value] = []
        wires = self._wires()
        for original, kind in enumerate(self.cut.classes):
            if original in traced:
                results.append(self.chain.carried[traced[original].index])
                continue
            template = self.members[kind][1]
            copies[original] = Copy(template, original, results[-1], self.chain, self.naming, names)
            results.append(copies[original].values[self.chain.carried[template.index]])
        self._insert(copies, traced)
        self._rewire(wires, results)
        orders = [self._spread(values, copies) for values in self._sequences()]
        for block in reversed(self.blocks):
            self._renumber(block)
        self._reorder(orders)

    def _wires(self) -> list[tuple[int, Use]]:
        """Who takes which carried value: the position of the layer in the graph as traced, and the use."""
        return [
            (index, Use(*use))
            for index, value in enumerate(self.chain.carried)
            for use in value.uses()
            if self.chain.places.get(use.node) != index
        ]

    def _insert(self, copies: Mapping[int, Copy], traced: Mapping[int, Block]) -> None:
        """Each copy goes after its predecessor, in both parts."""
        ends: dict[str, ir.Node] = {}
        for original in range(len(self.cut.classes)):
            block = copies[original].block if original in copies else traced[original]
            for part, nodes in (("lead", block.lead), ("main", block.main)):
                if nodes and original in copies:
                    self.graph.insert_after(ends[part], nodes)
                if nodes:
                    ends[part] = nodes[-1]

    def _rewire(self, wires: Sequence[tuple[int, Use]], results: Sequence[ir.Value]) -> None:
        """Everyone takes what its predecessor hands on, traced or copied; the rest takes the last one's."""
        bounds = [*self.cut.kept, len(self.cut.classes)]
        for index, use in wires:
            use.node.replace_input_with(use.idx, results[bounds[index + 1] - 1])
        last, final = self.chain.carried[-1], results[-1]
        for index, value in enumerate(self.graph.outputs):
            if value is last and last is not final:
                last.name, final.name = final.name, last.name
                self.graph.outputs[index] = final

    def _sequences(self) -> tuple[list[ir.Value], ...]:
        return list(self.graph.inputs), list(self.graph.outputs), list(self.graph.initializers.values())

    def _spread(self, values: Sequence[ir.Value], copies: Mapping[int, Copy]) -> list[ir.Value]:
        """`values` with the copies of those that belong to layers, in the order of a whole trace.

        Whether that goes layer by layer or kind by kind shows in the runs of ascending layers.
        """
        result: list[ir.Value] = []
        run: list[tuple[int, ir.Value]] = []
        for value in values:
            owner = self.owners.get(value)
            if owner is None or (run and owner.index < run[-1][0]):
                result += self._fill(run, copies)
                run = []
            if owner is None:
                result.append(value)
            else:
                run.append((owner.index, value))
        return [*result, *self._fill(run, copies)]

    def _fill(self, run: Sequence[tuple[int, ir.Value]], copies: Mapping[int, Copy]) -> Iterator[ir.Value]:
        for original in range(len(self.cut.classes)):
            copy = copies.get(original)
            if copy is None:
                yield from (value for index, value in run if self.cut.kept[index] == original)
            else:
                yield from (copy.values[value] for index, value in run if index == copy.template.index)

    def _renumber(self, block: Block) -> None:
        """Names, recipes and scopes of a traced layer: from its position as traced to that in the model."""
        original = self.cut.kept[block.index]
        for value in (value for value, owner in self.owners.items() if owner is block):
            pattern = block.inputs.get(value) or own_output(value, block)
            if pattern is not None:
                value.name = pattern.format(original)
                continue
            tensor = value.const_value
            name = self.naming.rename(value.name or "", block.index, original)
            if isinstance(tensor, RecipeTensor):
                recipe = self.naming.recipe(tensor.recipe, block.index, original)
                value.const_value = RecipeTensor(recipe, name=name)
            value.name = name
        for node in block.main:
            node.metadata_props[SCOPES] = self.naming.rename_scopes(node.metadata_props[SCOPES], original)

    def _reorder(self, orders: Sequence[Sequence[ir.Value]]) -> None:
        inputs, outputs, initializers = orders
        self.graph.inputs[:] = inputs
        self.graph.outputs[:] = outputs
        self.graph.initializers.clear()
        for value in initializers:
            self.graph.register_initializer(value)
