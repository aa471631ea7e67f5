"""Whether two traced layers are the same but for their own parameters, inputs and predecessor."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import onnx_ir as ir

from converter.passes.blocks import Block, Chain, Naming, StampRefused, own_output
from converter.passes.compare import same_operator, same_tensor
from converter.recipes import RecipeTensor

# What torch.export calls the constants that a module makes while it runs.
LIFTED = re.compile(r"(\.lifted_tensor)_\d+$")


def check_same(template: Block, witness: Block, chain: Chain, naming: Naming) -> None:
    """Refuse unless `witness` is `template` with its own parameters, inputs and predecessor.

    Raises StampRefused with the first difference.
    """
    reason = Comparison(template, witness, chain, naming).difference()
    if reason:
        layers = f"layers {template.index} and {witness.index} of {naming.parameters}, counted as traced"
        raise StampRefused(f"{layers}, are not alike: {reason}")


@dataclass
class Comparison:
    """Walks two blocks in step. `pairs` holds what was found to correspond."""

    template: Block
    witness: Block
    chain: Chain
    naming: Naming
    pairs: dict[ir.Value, ir.Value] = field(default_factory=dict)

    def difference(self) -> str | None:
        """The first difference, or None."""
        one, two = self.template, self.witness
        if len(one.main) != len(two.main) or len(one.lead) != len(two.lead):
            return f"{len(one.nodes)} nodes and {len(two.nodes)}"
        for first, second in zip(one.nodes, two.nodes, strict=True):
            where = f"{first.op_type} {first.name} and {second.op_type} {second.name}"
            if not same_operator(first, second):
                return f"{where} differ"
            for a, b in zip(first.inputs, second.inputs, strict=True):
                if not self._same_source(a, b):
                    return f"{where} take {a.name if a else None} and {b.name if b else None}"
            for a, b in zip(first.outputs, second.outputs, strict=True):
                self.pairs[a] = b
                if (a.dtype, _rank(a), own_output(a, one)) != (b.dtype, _rank(b), own_output(b, two)):
                    return f"{where} give {a.name} and {b.name}, which differ in type or as graph outputs"
        if self.pairs.get(self.chain.carried[one.index]) is not self.chain.carried[two.index]:
            return "they hand on different values"
        return None

    def _same_source(self, a: ir.Value | None, b: ir.Value | None) -> bool:
        """Whether `a` is to the template what `b` is to the witness."""
        one, two = self.template, self.witness
        if a is None or b is None:
            return a is b
        if a in self.pairs:
            return self.pairs[a] is b
        if a is self.chain.carried[one.index - 1]:
            return b is self.chain.carried[two.index - 1]
        if a in one.inputs:
            return one.inputs[a] == two.inputs.get(b)
        if a.is_initializer() and b.is_initializer():
            return self._same_initializer(a, b)
        return a is b

    def _same_initializer(self, a: ir.Value, b: ir.Value) -> bool:
        one, two = self.template, self.witness
        if not self.chain.is_private(a, one) or not self.chain.is_private(b, two):
            # What belongs to one layer by name must not be used by another.
            return a is b and self.naming.relative(a.name or "", one.index) is None
        if self._own_name(a, one) != self._own_name(b, two):
            return False
        left, right = a.const_value, b.const_value
        if isinstance(left, RecipeTensor) and isinstance(right, RecipeTensor):
            recipe = self.naming.recipe(left.recipe, one.index, two.index)
            self.pairs[a] = b
            return recipe == right.recipe
        self.pairs[a] = b
        return same_tensor(left, right)

    def _own_name(self, value: ir.Value, block: Block) -> tuple[str, str] | None:
        """The name without the layer's index, nor the number that torch counts through the whole model."""
        return self.naming.relative(LIFTED.sub(r"\1", value.name or ""), block.index)


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)
