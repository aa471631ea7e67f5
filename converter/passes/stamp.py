"""The layers that were not traced are stamped: copies of a traced one with names and wiring of their own.

A model's list of layers was cut to a few of each kind (`converter.layers`). In the traced graph the second of each
kind is the template and the third the witness: only if both are the same node for node are the other layers of their
kind copied from the template. The result is the graph that tracing the whole model would have given.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableSequence, Sequence

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from converter.layers import CutList, LayerPlan
from converter.passes.blocks import Block, Chain, Naming, StampRefused, check_same, find_blocks, find_chain, role
from converter.passes.strip_metadata import SCOPES
from converter.recipes import RecipeTensor

__all__ = ["StampRefused", "stamp"]


def stamp(model: ir.Model, plan: LayerPlan, scopes: Mapping[str, str]) -> bool:
    """Complete a graph as traced from a model that was cut by `plan`. Says whether anything was stamped.

    `scopes` maps module paths in the wrapper, which nodes and initializers carry, to module paths in the model, which
    recipes carry. Graph inputs and outputs with a layer's number between dots (`past_key_values.1.key`) are multiplied
    too. Raises StampRefused, before anything has changed but function calls, if the traced layers do not prove how the
    others look.
    """
    if not plan.lists:
        return False
    if model.functions:
        InlinePass()(model)
    stamps = [Stamp(model.graph, cut, scopes) for cut in plan.lists]
    used = [one for one in stamps if one.blocks]
    for one in used:
        one.check()
    for one in used:
        one.apply()
    return bool(used)


class Stamp:
    """One cut list in one graph. `check` only looks; `apply` only succeeds."""

    def __init__(self, graph: ir.Graph, cut: CutList, scopes: Mapping[str, str]) -> None:
        self.graph = graph
        self.cut = cut
        self.naming = Naming(tuple(wrapped for wrapped, path in scopes.items() if path == cut.path), cut.path)
        self.blocks = find_blocks(graph, cut, self.naming)
        self.members: dict[int, list[Block]] = {}
        for block in self.blocks:
            self.members.setdefault(cut.classes[cut.kept[block.index]], []).append(block)

    def check(self) -> None:
        """Find what the blocks hand on, and refuse unless template and witness of each kind to copy are the same."""
        self.chain = find_chain(self.blocks, self.cut)
        for kind, members in self.members.items():
            if self.cut.classes.count(kind) > len(members):
                _, template, witness = members
                check_same(template, witness, self.chain, self.naming)

    def apply(self) -> None:
        """Copy, rewire, rename. Copies come first, while the traced layers are still wired as traced."""
        names = Names(self.graph)
        copies: dict[int, Copy] = {}
        results: list[ir.Value] = []
        traced = {original: block for original, block in zip(self.cut.kept, self.blocks, strict=True)}
        for original, kind in enumerate(self.cut.classes):
            if original in traced:
                results.append(self.chain.carried[traced[original].index])
                continue
            copy = Copy(self.members[kind][1], original, results[-1], self.chain, self.naming, names)
            copies[original] = copy
            results.append(copy.values[self.chain.carried[copy.template.index]])
        self._insert(copies, traced)
        self._rewire(traced, results)
        self._multiply(self.graph.inputs, copies, traced)
        self._multiply(self.graph.outputs, copies, traced)
        for block in reversed(self.blocks):
            self._renumber(block, self.cut.kept[block.index])
        for copy in copies.values():
            copy.register(self.graph, names)

    def _insert(self, copies: Mapping[int, Copy], traced: Mapping[int, Block]) -> None:
        """Each copy behind its predecessor, as if traced; what prepares its inputs behind that of its predecessor."""
        lead_end: ir.Node | None = None
        main_end: ir.Node | None = None
        for original in range(len(self.cut.classes)):
            if original in copies:
                lead, main = copies[original].lead, copies[original].main
                assert main_end is not None
                self.graph.insert_after(main_end, main)
                if lead:
                    assert lead_end is not None
                    self.graph.insert_after(lead_end, lead)
            else:
                lead, main = traced[original].lead, traced[original].main
            main_end = main[-1]
            lead_end = lead[-1] if lead else lead_end

    def _rewire(self, traced: Mapping[int, Block], results: Sequence[ir.Value]) -> None:
        """Traced layers whose predecessor is a copy take its result, and the rest of the graph takes the last one."""
        for original, block in traced.items():
            if block.index == 0:
                continue
            before, now = self.chain.carried[block.index - 1], results[original - 1]
            _replace(before, now, lambda node, block=block: self.chain.places.get(node) == block.index)
        last, final = self.chain.carried[-1], results[-1]
        if last is final:
            return
        _replace(last, final, lambda node: node.graph is not self.graph or self._is_outside(node))
        for index, value in enumerate(self.graph.outputs):
            if value is last:
                last.name, final.name = final.name, last.name
                self.graph.outputs[index] = final

    def _is_outside(self, node: ir.Node) -> bool:
        return node not in self.chain.places and self.naming.layer(node) is None
