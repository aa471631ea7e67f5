"""What two graphs may differ in and still be the same: names, and the order of nodes that do not need each other."""

from __future__ import annotations

import onnx_ir as ir

from converter.passes.compare import same_graph

FLOAT = ir.TensorType(ir.DataType.FLOAT)


def model(order: str, *, swapped: bool = False) -> ir.Model:
    """`tanh(x) - relu(x)`, the two computed in either order; `swapped` subtracts the other way round."""
    x = ir.Value(name="x", shape=ir.Shape(["n"]), type=FLOAT)
    nodes = {"tanh": ir.node("Tanh", [x]), "relu": ir.node("Relu", [x])}
    operands = [nodes["tanh"].outputs[0], nodes["relu"].outputs[0]]
    y = ir.Value(name="y", shape=ir.Shape(["n"]), type=FLOAT)
    last = ir.node("Sub", operands[::-1] if swapped else operands, outputs=[y])
    listed = [nodes[name] for name in order.split()]
    return ir.Model(ir.Graph([x], [y], nodes=[*listed, last], opset_imports={"": 18}), ir_version=10)


def test_nodes_that_do_not_need_each_other_may_stand_in_either_order() -> None:
    assert same_graph(model("tanh relu"), model("relu tanh")) == []


def test_operands_may_not_be_swapped_in_either_order() -> None:
    assert same_graph(model("tanh relu"), model("tanh relu", swapped=True))
    assert same_graph(model("tanh relu"), model("relu tanh", swapped=True))
