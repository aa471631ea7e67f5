"""Repeated layers in a traced graph: which nodes are whose, what they hand on, whether two are the same."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from converter.errors import ConverterError
from converter.passes.strip_metadata import SCOPES
from converter.recipes import Parameter, WeightRecipe
from converter.tracing.layers import CutList


class StampRefused(ConverterError):  # noqa: N818 - a decision, after which the model is traced whole
    """The traced layers do not prove how the others look. The model has to be traced whole."""


@dataclass(frozen=True)
class Naming:
    """How the layers of one list are called in a graph.

    modules     paths of the list in the wrapper, as nodes carry them
    parameters  path of the list in the model, as recipes and their initializers carry it
    """

    modules: tuple[str, ...]
    parameters: str

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What names of initializers start with. A buffer's may lack the outermost module of the trace."""
        inner = (module.partition(".")[2] for module in self.modules)
        return tuple(dict.fromkeys((self.parameters, *self.modules, *filter(None, inner))))

    def layer(self, node: ir.Node) -> int | None:
        """The layer of the list that was running when `node` was traced."""
        scopes = node.metadata_props.get(SCOPES, "")
        for module in self.modules:
            found = {int(index) for index in re.findall(rf"'{re.escape(module)}\.(\d+)(?=[.'])", scopes)}
            if len(found) > 1:
                raise StampRefused(f"node {node.name} is in the layers {sorted(found)} of {module} at once")
            if found:
                return found.pop()
        return None

    def rename_scopes(self, scopes: str, index: int) -> str:
        """`scopes`, a list of module paths as text, for layer `index`."""
        for module in self.modules:
            scopes = re.sub(rf"'{re.escape(module)}\.\d+(?=[.'])", f"'{module}.{index}", scopes)
        return scopes

    def relative(self, name: str, index: int) -> tuple[str, str] | None:
        """What comes before and after the index in `name`, if it belongs to layer `index`."""
        for prefix in self.prefixes:
            if name.startswith(f"{prefix}.{index}."):
                return prefix, name.removeprefix(f"{prefix}.{index}.")
        return None

    def rename(self, name: str, old: int, new: int) -> str:
        """The name of the same thing in layer `new`; `name` belongs to layer `old`."""
        found = self.relative(name, old)
        assert found is not None
        return f"{found[0]}.{new}.{found[1]}"

    def owns(self, recipe: WeightRecipe, index: int) -> bool:
        """Whether `recipe` is a parameter of layer `index`."""
        return isinstance(recipe, Parameter) and recipe.name.startswith(f"{self.parameters}.{index}.")

    def recipe(self, recipe: WeightRecipe, old: int, new: int) -> WeightRecipe:
        """The parameter of layer `new` in place of that of layer `old`; what is no such parameter stays."""
        if not isinstance(recipe, Parameter) or not self.owns(recipe, old):
            return recipe
        rest = recipe.name.removeprefix(f"{self.parameters}.{old}.")
        return replace(recipe, name=f"{self.parameters}.{new}.{rest}")


@dataclass
class Block:
    """The nodes of one traced layer, in graph order.

    lead    nodes outside of the layer's scope that prepare graph inputs of its own, such as its past keys
    main    the layer itself
    inputs  graph inputs of its own, by their name without the index
    """

    index: int
    lead: list[ir.Node] = field(default_factory=list)
    main: list[ir.Node] = field(default_factory=list)
    inputs: dict[ir.Value, str] = field(default_factory=dict)

    @property
    def nodes(self) -> list[ir.Node]:
        return [*self.lead, *self.main]


SUBGRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def role(name: str, index: int) -> str | None:
    """`present.3.key` -> `present.{}.key`, if 3 is the index and the only number between dots."""
    parts = name.split(".")
    numbers = [position for position, part in enumerate(parts) if part.isdecimal()]
    if len(numbers) != 1 or parts[numbers[0]] != str(index):
        return None
    parts[numbers[0]] = "{}"
    return ".".join(parts)


def own_output(value: ir.Value, block: Block) -> str | None:
    """The role of a graph output that belongs to the block, such as its present keys."""
    return role(value.name or "", block.index) if value.is_graph_output() else None


def find_blocks(graph: ir.Graph, cut: CutList, naming: Naming) -> list[Block]:
    """The blocks of the kept layers, in order; none if the graph does not use the list at all."""
    blocks = [Block(index) for index in range(len(cut.kept))]
    places: dict[ir.Node, int] = {}
    last = -1
    for node in graph:
        index = naming.layer(node)
        if index is None:
            continue
        if index >= len(blocks) or index < last:
            raise StampRefused(f"the layers of {cut.path} do not run one after the other")
        if any(attribute.type in SUBGRAPHS for attribute in node.attributes.values()):
            raise StampRefused(f"a layer of {cut.path} contains a subgraph ({node.op_type})")
        blocks[index].main.append(node)
        places[node] = last = index
    if not places:
        return []
    absent = [block.index for block in blocks if not block.main]
    if absent:
        raise StampRefused(f"the layers {absent} of {cut.path} left no node in the graph")
    _find_leads(graph, blocks, places)
    return blocks


def _find_leads(graph: ir.Graph, blocks: Sequence[Block], places: dict[ir.Node, int]) -> None:
    """Add to each block the nodes that only pass on graph inputs of its own, and those inputs.

    A node that reads an input's shape is none of them: sizes are everybody's.
    """
    owners: dict[ir.Value, int] = {}
    for value in graph.inputs:
        for block in blocks:
            if role(value.name or "", block.index) is not None:
                owners[value] = block.index
    for node in graph:
        if node in places or node.op_type == "Shape":
            continue
        found = {owners[value] for value in node.inputs if value in owners}
        if len(found) == 1:
            owners.update(dict.fromkeys(node.outputs, next(iter(found))))
    for block in blocks:
        lead = _lead(block, owners, places)
        block.lead = [node for node in graph if node in lead] if lead else []
    for block in blocks:
        places.update(dict.fromkeys(block.lead, block.index))


def _lead(block: Block, owners: Mapping[ir.Value, int], places: Mapping[ir.Node, int]) -> set[ir.Node]:
    """The nodes between the block and its own graph inputs, and what only they use, such as constants."""
    wanted: list[ir.Value | None] = [taken for node in block.main for taken in node.inputs]
    lead: set[ir.Node] = set()
    while wanted:
        value = wanted.pop()
        producer = None if value is None else value.producer()
        if value is None or producer in lead:
            continue
        own = owners.get(value) == block.index
        if producer is None and own:
            block.inputs[value] = role(value.name or "", block.index) or ""
        if producer is None or producer in places:
            continue
        users = {use.node for result in producer.outputs for use in result.uses()}
        if own or (users <= lead and producer.op_type != "Shape"):
            lead.add(producer)
            wanted += producer.inputs
    if any(value is not None and value.producer() in places for node in lead for value in node.inputs):
        raise StampRefused(f"what prepares the inputs of layer {block.index} depends on another layer")
    return lead


@dataclass(frozen=True)
class Chain:
    """What blocks hand on: `carried[k]` is the one value that block k gives to the next, or to the rest."""

    carried: tuple[ir.Value, ...]
    places: Mapping[ir.Node, int]

    def is_private(self, value: ir.Value, block: Block) -> bool:
        """Whether only `block` uses `value`."""
        users = (use.node for use in value.uses())
        return not value.is_graph_output() and all(self.places.get(node) == block.index for node in users)


def find_chain(blocks: Sequence[Block], cut: CutList) -> Chain:
    """Find the carried values, and check that blocks hand on nothing else.

    The first block of a kind may hand on more, to everybody: that is how constants come to be shared.
    """
    places = {node: block.index for block in blocks for node in block.nodes}
    kinds = [cut.classes[original] for original in cut.kept]
    carried: list[ir.Value] = []
    for block in blocks:
        candidates = []
        for value in (value for node in block.nodes for value in node.outputs):
            users = {places.get(usage.node) for usage in value.uses()} - {block.index}
            if value.is_graph_output() and role(value.name or "", block.index) is None:
                users.add(None)
            following = None if block is blocks[-1] else block.index + 1
            if users == {following}:
                candidates.append(value)
            elif users and block.index != kinds.index(kinds[block.index]):
                raise StampRefused(
                    f"layer {block.index} of {cut.path} gives {value.name} to others than the next"
                )
        if len(candidates) != 1:
            names = [value.name for value in candidates]
            raise StampRefused(f"layer {block.index} of {cut.path} hands on {len(names)} values: {names}")
        carried += candidates
    return Chain(tuple(carried), places)
