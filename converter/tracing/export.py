"""Tracing: a wrapper and example tensors in, a raw ONNX graph out. The only call of `torch.onnx.export`."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from converter.errors import ExportError
from converter.recipes import Parameter, RecipeTensor
from converter.records import Architecture, Component, Dtype, DummyInputs, ExportedGraph, Size
from converter.tracing.fake_quantization import FAKE_QUANTIZATION, settled_quantizers
from converter.tracing.operators import OPERATORS
from converter.tracing.quantized_layers import unpacking_traced
from converter.tracing.skeleton import TORCH_DTYPES, parameter_names


def traced_size(component: Component, overrides: Mapping[str, int] | None = None) -> Size:
    """The size a component is traced at: the declared one, or the user's where they asked for another."""
    sizes = {axis.name: axis.traced for axis in component.axes}
    sizes.update({name: value for name, value in (overrides or {}).items() if name in sizes})
    frozen = sorted(name for name, value in sizes.items() if value < 2)
    if frozen:
        raise ExportError(
            f"{component.stem}: cannot trace with {', '.join(frozen)} below 2: torch makes an axis of size 1 constant",
            remedy="trace with 2 or more; the finished graph accepts 1 as well",
        )
    return Size(sizes)


def trace(
    architecture: Architecture,
    component: Component,
    model: nn.Module,
    *,
    dtype: Dtype,
    opset: int,
    size: Size,
) -> ExportedGraph:
    """Trace `component` of `model` (whole or skeleton) at `size`, and translate it to ONNX at `opset`.

    The graph is returned as translated: nothing is folded or removed yet. Its inputs and outputs carry the declared
    names. Raises ExportError, with the exporter's own words, when torch cannot trace the wrapper.
    """
    inputs = component.inputs(size)
    _check_axes(inputs, component)
    wrapper = ByName(component.wrapper(model), tuple(inputs.tensors)).eval()
    axes = tuple(dict(inputs.axes.get(name, {})) for name in inputs.tensors)
    try:
        with torch.no_grad(), architecture.patches(), settled_quantizers(), unpacking_traced(), _unlogged():
            program = torch.onnx.export(
                wrapper,
                _distinct(inputs, dtype),
                dynamic_shapes=(axes,),
                input_names=list(inputs.tensors),
                output_names=[output.name for output in component.outputs],
                custom_translation_table={**OPERATORS, **FAKE_QUANTIZATION, **architecture.translations()},
                opset_version=opset,
                dynamo=True,
                optimize=False,
                verbose=False,
            )
    except Exception as error:  # torch raises anything at all here; every kind means the same to the user
        raise ExportError(
            f"{architecture.name}: tracing {component.stem} failed: {_first_line(error)}",
            remedy="run again with --verbose for torch's full report",
        ) from error
    assert program is not None
    graph = program.model.graph
    _leave_recipes(graph, wrapper, model, component.stem)
    _check_interface(graph, inputs, component)
    _name_found_sizes(graph, component)
    return ExportedGraph(component.stem, program.model, shared_scopes(wrapper, model))


@contextmanager
def _unlogged() -> Iterator[None]:
    """Without what others attached to torch's trace log, which is for TORCH_TRACE and obeys no level.

    pytest 9.1 does so, and would show thousands of empty records with a test that fails.
    """
    log = logging.getLogger("torch.__trace")
    others = [handler for handler in log.handlers if not type(handler).__module__.startswith("torch.")]
    for handler in others:
        log.removeHandler(handler)
    try:
        yield
    finally:
        for handler in others:
            log.addHandler(handler)


def shared_scopes(wrapper: nn.Module, model: nn.Module) -> dict[str, str]:
    """Module path in the wrapper -> path in the model, for what they share.

    A list of the wrapper's own whose elements each hold the matching element of one of the model's lists stands for
    that list: a wrapper may restate a repeated block around the block's own parts.
    """
    paths = {id(module): path for path, module in model.named_modules()}
    # A wrapper may hold a module under two names, of which torch puts either on the nodes.
    named = list(wrapper.named_modules(remove_duplicate=False))
    shared = {path: paths[id(module)] for path, module in named if id(module) in paths}
    lists = [(path, module) for path, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    for path, module in wrapper.named_modules():
        if isinstance(module, nn.ModuleList) and path not in shared:
            shared.update((path, original) for original, candidate in lists if _restates(module, candidate))
    return shared


def _restates(own: nn.ModuleList, original: nn.ModuleList) -> bool:
    return len(own) == len(original) > 0 and all(
        any(part is block for part in wrapped.modules()) for wrapped, block in zip(own, original, strict=True)
    )


def _distinct(inputs: DummyInputs, dtype: Dtype) -> tuple[torch.Tensor, ...]:
    """Copies, because the exporter merges inputs that are the same tensor object; floats in the dtype to trace in."""
    kind = TORCH_DTYPES[dtype]
    copies = (tensor.clone() for tensor in inputs.tensors.values())
    return tuple(tensor.to(kind) if tensor.is_floating_point() else tensor for tensor in copies)


def _apart(outputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """What is returned twice (BLIP's image states) is copied: a tensor has one name, and two outputs want two."""
    before = (outputs[:place] for place in range(len(outputs)))
    return tuple(
        output.clone() if any(output is other for other in others) else output
        for output, others in zip(outputs, before, strict=True)
    )


class ByName(nn.Module):
    """Hands positional tensors on by name: torch.export takes no names that are not identifiers (`past.0.key`)."""

    def __init__(self, wrapper: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.wrapper = wrapper
        self.names = names

    def forward(self, *tensors: torch.Tensor) -> Any:
        found = self.wrapper(**dict(zip(self.names, tensors, strict=True)))
        return _apart(found) if isinstance(found, (tuple, list)) else found


def _leave_recipes(graph: ir.Graph, wrapper: nn.Module, model: nn.Module, stem: str) -> None:
    """Give parameters and buffers their names in the model, and parameters a recipe; buffers keep their values."""
    canonical = parameter_names(model)
    sources = {name: canonical.get(id(p)) for name, p in wrapper.named_parameters(remove_duplicate=False)}
    owned = {id(buffer): name for name, buffer in model.named_buffers()}
    buffers = {name: owned.get(id(buffer)) for name, buffer in wrapper.named_buffers(remove_duplicate=False)}
    for name, value in list(graph.initializers.items()):
        source = sources.get(name)
        if source is not None:
            _name_parameter(graph, value, source)
        elif isinstance(getattr(value.const_value, "raw", None), FakeTensor):
            raise ExportError(
                f"{stem}: the graph needs {name!r}, which is not a parameter of the model and has no value",
                remedy="a wrapper may use the model's parameters and real buffers; it may not make new parameters",
            )
        else:
            value.name = buffers.get(name) or name.removeprefix("wrapper.")


def _name_parameter(graph: ir.Graph, value: ir.Value, source: str) -> None:
    """Tied parameters come under several names; they become one initializer."""
    tensor = value.const_value
    assert tensor is not None and value.name is not None
    first = graph.initializers.get(source)
    if first is not None:
        ir.convenience.replace_all_uses_with(value, first)
        del graph.initializers[value.name]
        return
    kind = np.dtype(tensor.dtype.numpy())
    value.const_value = RecipeTensor(Parameter(source, tuple(tensor.shape.numpy()), kind), name=source)
    value.name = source


def _check_axes(inputs: DummyInputs, component: Component) -> None:
    """An axis that outputs have and no input would be traced at one size and asked for at others.

    One that neither has may still shape inputs: the sides of a grid of patches.
    """
    given = {axis for axes in inputs.axes.values() for axis in axes.values()}
    expected = {axis for output in component.outputs for axis in output.axes.values()}
    if forgotten := [axis.name for axis in component.axes if axis.name in expected - given]:
        raise ExportError(
            f"{component.stem}: the axes {forgotten} are declared, outputs have them, and no input has them",
            remedy="name them in the axes of DummyInputs",
        )


def _check_interface(graph: ir.Graph, inputs: DummyInputs, component: Component) -> None:
    """Every declared input and axis must have survived tracing; torch drops and freezes them silently."""
    found = {value.name: value for value in graph.inputs}
    missing = [name for name in inputs.tensors if name not in found]
    if missing:
        raise ExportError(
            f"{component.stem}: tracing dropped the inputs {missing}", remedy="does the wrapper use them?"
        )
    for name, axes in inputs.axes.items():
        shape = found[name].shape
        for dim, axis in axes.items():
            if shape is None or isinstance(shape[dim], int):
                raise ExportError(
                    f"{component.stem}: axis {axis!r} of {name!r} came out fixed at {shape[dim] if shape else '?'}",
                    remedy="something in the wrapper depends on its size; trace it with a size of 2 or more",
                )
    expected = [output.name for output in component.outputs]
    if [value.name for value in graph.outputs] != expected:
        raise ExportError(
            f"{component.stem}: the wrapper returns {len(graph.outputs)} tensors, {len(expected)} outputs are declared"
        )


def _name_found_sizes(graph: ir.Graph, component: Component) -> None:
    """A size that only values tell (how many tokens are an image's) has torch's name, `u0`; here, the declared one."""
    names: dict[str, str] = {}
    for value, output in zip(graph.outputs, component.outputs, strict=True):
        for place, axis in output.axes.items():
            size = value.shape[place] if value.shape is not None and place < len(value.shape) else None
            if isinstance(size, ir.SymbolicDim) and re.fullmatch(r"u\d+", str(size.value)):
                names.setdefault(str(size.value), axis)
    made = (value for node in graph for value in node.outputs if names)
    for shape in (value.shape for value in made if value.shape is not None):
        for place, size in enumerate(shape):
            if isinstance(size, ir.SymbolicDim) and size.value in names:
                shape[place] = names[size.value]


def _first_line(error: BaseException) -> str:
    """The innermost cause, in one line, or two where the first announces: the exporter adds pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no message"]
    announced = lines[1].removeprefix("- ") if lines[0].endswith(":") and len(lines) > 1 else ""
    return f"{type(error).__name__}: {lines[0]} {announced}".rstrip()
