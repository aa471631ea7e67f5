"""The passes of level `basic`, each on a graph of a few nodes: what goes, what stays, and no weight is looked at.

Weights are `RecipeTensor`s of parameters in no checkpoint: asking one for its values is an error.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from converter.passes.float_io import float_interface
from converter.passes.fold_transpose import fold_transposes
from converter.passes.kept_past import measure_kept_past
from converter.passes.rewrite import simplify
from converter.passes.standard import (
    fix_names,
    fold_constants,
    inline_functions,
    remove_unused,
    share_subexpressions,
)
from converter.passes.strip_metadata import SCOPES, strip_metadata
from converter.recipes import Parameter, RecipeTensor, Transpose

FLOAT, HALF = ir.TensorType(ir.DataType.FLOAT), ir.TensorType(ir.DataType.FLOAT16)
MATRIX = Parameter("matrix", (4, 6), np.dtype(np.float32))


def weight(name: str = "matrix") -> ir.Value:
    tensor = RecipeTensor(MATRIX, name=name)
    return ir.Value(name=name, shape=ir.Shape((4, 6)), type=FLOAT, const_value=tensor)


def number(name: str, *values: int) -> ir.Value:
    tensor = ir.tensor(np.array(values, np.int64), name=name)
    return ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(ir.DataType.INT64), const_value=tensor)


def rows(name: str = "x", kind: ir.TensorType = FLOAT, width: int = 6) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(("batch_size", width)), type=kind)


def model(takes: list[ir.Value], nodes: list[ir.Node], holds: list[ir.Value], *gives: ir.Node) -> ir.Model:
    """A graph of these nodes; `gives` are those whose results are its outputs, else the last."""
    outputs = [node.outputs[0] for node in gives or nodes[-1:]]
    for index, value in enumerate(outputs):
        value.name = f"result_{index}"
        value.type = value.type or FLOAT
    graph = ir.Graph(takes, outputs, nodes=nodes, initializers=holds, opset_imports={"": 23}, name="g")
    return ir.Model(graph, ir_version=10)


def operators(graph: ir.Model) -> list[str]:
    return [node.op_type for node in graph.graph]


def test_a_transpose_of_a_weight_moves_into_its_recipe() -> None:
    stored = weight()
    turned = ir.node("Transpose", [stored], {"perm": [1, 0]})
    graph = model([rows()], [turned, ir.node("MatMul", [rows(), turned.outputs[0]])], [stored])
    assert fold_transposes(graph)
    assert operators(graph) == ["MatMul"]
    folded = graph.graph.initializers["matrix"].const_value
    assert isinstance(folded, RecipeTensor)
    assert folded.recipe == Transpose(MATRIX, (1, 0))
    assert not fold_transposes(graph)


def test_a_weight_that_is_used_as_it_lies_too_keeps_its_transpose() -> None:
    stored, ids = weight(), number("ids", 0, 2)
    turned = ir.node("Transpose", [stored], {"perm": [1, 0]})
    looked_up = ir.node("Gather", [stored, ids])
    product = ir.node("MatMul", [looked_up.outputs[0], turned.outputs[0]])
    graph = model([], [turned, looked_up, product], [stored, ids])
    assert not fold_transposes(graph)
    assert operators(graph) == ["Transpose", "Gather", "MatMul"]


def test_what_depends_on_constants_only_is_computed_and_a_weight_is_none() -> None:
    one, two, stored = number("one", 1), number("two", 2), weight()
    three = ir.node("Add", [one, two])
    shape = ir.node("Expand", [stored, three.outputs[0]])
    graph = model([], [three, shape], [one, two, stored])
    assert fold_constants(graph)
    assert operators(graph) == ["Expand"]
    found = graph.graph.node(0).inputs[1]
    assert found is not None and found.const_value is not None
    assert found.const_value.numpy().tolist() == [3]
    assert isinstance(stored.const_value, RecipeTensor)


def test_equal_things_are_computed_once() -> None:
    x, first, second = rows(), number("first", 1, 6), number("second", 1, 6)
    left, right = ir.node("Reshape", [x, first]), ir.node("Reshape", [x, second])
    graph = model([x], [left, right, ir.node("Add", [*left.outputs, *right.outputs])], [first, second])
    assert share_subexpressions(graph)
    assert operators(graph) == ["Reshape", "Add"]
    assert len(graph.graph.initializers) == 1


def test_a_copy_that_is_an_output_beside_its_source_keeps_its_name() -> None:
    x = rows()
    source = ir.node("Relu", [x])
    copy = ir.node("Identity", source.outputs)
    graph = model([x], [source, copy], [], source, copy)
    graph.graph.outputs[0].name, graph.graph.outputs[1].name = "first", "second"
    share_subexpressions(graph)
    assert [value.name for value in graph.graph.outputs] == ["first", "second"]


def test_weights_are_not_shared_by_looking_at_them() -> None:
    one, two = weight("one"), weight("two")
    graph = model([], [ir.node("Add", [one, two])], [one, two])
    share_subexpressions(graph)
    assert set(graph.graph.initializers) == {"one", "two"}


def test_what_nothing_uses_goes_with_its_weight() -> None:
    x, stored = rows(), weight()
    unused, used = ir.node("MatMul", [x, stored]), ir.node("Relu", [x])
    graph = model([x], [unused, used], [stored], used)
    graph.opset_imports["unheard.of"] = 1
    assert remove_unused(graph)
    assert operators(graph) == ["Relu"]
    assert not graph.graph.initializers
    assert set(graph.opset_imports) == {""}


def test_shapes_and_operations_without_effect_are_simplified() -> None:
    x, perm = rows(), {"perm": [1, 0]}
    there = ir.node("Transpose", [x], perm)
    back = ir.node("Transpose", there.outputs, perm)
    same = ir.node("Cast", back.outputs, {"to": ir.DataType.FLOAT})
    for node in (there, back, same):
        node.outputs[0].type = FLOAT
    graph = model([x], [there, back, same, ir.node("Relu", same.outputs)], [])
    assert simplify(graph)
    remove_unused(graph)
    assert "Transpose" not in operators(graph)
    assert "Cast" not in operators(graph)


def test_a_helper_function_is_replaced_by_its_body() -> None:
    inner = rows("inner")
    body = ir.node("Relu", [inner])
    function = ir.Function(
        "helpers",
        "twice",
        graph=ir.Graph([inner], body.outputs, nodes=[body], opset_imports={"": 23}),
        attributes=[],
    )
    x = rows()
    graph = model([x], [ir.node("twice", [x], domain="helpers")], [])
    graph.functions[function.identifier()] = function
    assert inline_functions(graph)
    assert operators(graph) == ["Relu"]


def test_names_become_unique_and_outputs_the_results_of_nodes() -> None:
    x = rows()
    first, second = ir.node("Relu", [x], name="n"), ir.node("Abs", [x], name="n")
    graph = model([x], [first, second], [], first, second)
    graph.graph.outputs.append(x)
    assert fix_names(graph)
    assert len({node.name for node in graph.graph}) == len(list(graph.graph)) == 3
    assert all(value.producer() is not None for value in graph.graph.outputs)


def test_halves_are_taken_and_given_as_fp32_under_the_same_names() -> None:
    x = rows("x", HALF)
    node = ir.node("Relu", [x])
    node.outputs[0].type = HALF
    graph = model([x], [node], [])
    assert float_interface(graph)
    assert operators(graph) == ["Cast", "Relu", "Cast"]
    ends = [*graph.graph.inputs, *graph.graph.outputs]
    assert [(value.name, value.dtype) for value in ends] == [
        ("x", ir.DataType.FLOAT),
        ("result_0", ir.DataType.FLOAT),
    ]
    assert not float_interface(graph)


def test_the_past_is_measured_behind_the_cut_that_the_switch_governs() -> None:
    switch = ir.Value(name="use_cache_branch", shape=ir.Shape((1,)), type=ir.TensorType(ir.DataType.BOOL))
    past, start, stop = rows("past_key_values.0.key"), number("start", 0), number("stop", 9)
    size = ir.node("Shape", [past])
    cut = ir.node("Slice", [past, start, stop])
    graph = model([switch, past], [size, cut], [start, stop], size, cut)
    assert measure_kept_past(graph)
    assert operators(graph) == ["Slice", "Shape"]
    assert size.inputs[0] is cut.outputs[0]
    without = model([past_alone := rows("past_key_values.0.key")], [ir.node("Shape", [past_alone])], [])
    assert not measure_kept_past(without)


def test_paths_of_the_tracing_machine_go_and_names_of_modules_stay() -> None:
    x = rows()
    node = ir.node("Relu", [x])
    node.metadata_props.update(
        {SCOPES: "['', 'layers.0']", "pkg.torch.onnx.stack_trace": "/home/someone/x.py"}
    )
    node.doc_string = "/home/someone"
    graph = model([x], [node], [])
    graph.metadata_props["producer"] = "/home/someone"
    assert strip_metadata(graph)
    assert dict(node.metadata_props) == {SCOPES: "['', 'layers.0']"}
    assert "/home/someone" not in str(ir.to_proto(graph))
