"""A size that several graph inputs share is read from the first of them, once."""

from __future__ import annotations

import onnx_ir as ir

from converter.passes.anchor_sizes import anchor_sizes

INT64 = ir.TensorType(ir.DataType.INT64)


def size_of(value: ir.Value, axis: int) -> list[ir.Node]:
    shape = ir.node("Shape", [value], attributes={"start": axis, "end": axis + 1})
    return [shape, ir.node("Squeeze", shape.outputs)]


def inputs() -> list[ir.Value]:
    shapes = {"ids": ("batch_size", "sequence_length"), "past": ("batch_size", "past_sequence_length")}
    return [ir.Value(name=name, shape=ir.Shape(shape), type=INT64) for name, shape in shapes.items()]


def model(takes: list[ir.Value], nodes: list[ir.Node], gives: list[ir.Value]) -> ir.Model:
    return ir.Model(ir.Graph(takes, gives, nodes=nodes, opset_imports={"": 18}), ir_version=10)


def test_equal_sizes_become_one() -> None:
    ids, past = inputs()
    late, early = size_of(past, 0), size_of(ids, 0)
    result = ir.node("Concat", [late[1].outputs[0], early[1].outputs[0]], attributes={"axis": 0})
    graph = model([ids, past], [*late, *early, result], list(result.outputs))
    assert anchor_sizes(graph)
    assert [node.op_type for node in graph.graph] == ["Shape", "Squeeze", "Concat"]
    assert graph.graph[0].inputs[0] is ids
    assert result.inputs[0] is result.inputs[1]


def test_sums_of_sizes_are_equal_in_either_order() -> None:
    ids, past = inputs()
    length, before = size_of(ids, 1), size_of(past, 1)
    a, b = length[1].outputs[0], before[1].outputs[0]
    sums = [ir.node("Add", [a, b]), ir.node("Add", [b, a])]
    result = ir.node("Concat", [total.outputs[0] for total in sums], attributes={"axis": 0})
    graph = model([ids, past], [*length, *before, *sums, result], list(result.outputs))
    assert anchor_sizes(graph)
    assert result.inputs[0] is result.inputs[1]


def test_sizes_of_other_names_and_differences_are_kept_apart() -> None:
    ids, past = inputs()
    length, before = size_of(ids, 1), size_of(past, 1)
    a, b = length[1].outputs[0], before[1].outputs[0]
    gaps = [ir.node("Sub", [a, b]), ir.node("Sub", [b, a])]
    result = ir.node("Concat", [gap.outputs[0] for gap in gaps], attributes={"axis": 0})
    graph = model([ids, past], [*length, *before, *gaps, result], list(result.outputs))
    assert not anchor_sizes(graph)
    assert result.inputs[0] is not result.inputs[1]


def test_sums_of_axes_are_declared_in_one_order() -> None:
    names = (
        "past_sequence_length + sequence_length",
        "sequence_length + past_sequence_length",
        "height//4 + 1",
    )
    outputs = [ir.Value(name=f"out{i}", shape=ir.Shape(("batch_size", name))) for i, name in enumerate(names)]
    graph = model(inputs(), [ir.node("Identity", [], outputs=outputs)], outputs)
    assert anchor_sizes(graph)
    assert outputs[0].shape == outputs[1].shape == ir.Shape(("batch_size", names[0]))
    assert outputs[2].shape == ir.Shape(("batch_size", names[2]))
