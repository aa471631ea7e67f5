"""Looking inside while things run: what each torch module was given and gave, and any value of a graph."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from converter.errors import ParityError
from converter.parity.metrics import Array
from converter.parity.runners import run_graph

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Call:
    """One call of a module: the tensors among its arguments, and its first output that is a tensor."""

    inputs: tuple[Array, ...]
    output: Array | None


def record_calls(root: nn.Module, run: Callable[[], Any]) -> dict[str, list[Call]]:
    """What each module of `root` was given and gave during `run`, by its path, in the order the calls ended.

    Tensors are copied: a model may write into them afterwards.
    """
    import torch

    calls: dict[str, list[Call]] = {}

    def hook(path: str) -> Callable[..., None]:
        def remember(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            first = next(iter(_tensors(result)), None)
            calls.setdefault(path, []).append(Call(tuple(_tensors((args, kwargs))), first))

        return remember

    handles = [
        module.register_forward_hook(hook(path), with_kwargs=True) for path, module in root.named_modules()
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
    return calls


def _tensors(value: Any) -> Iterable[Array]:
    """Every tensor in nested tuples, lists and dicts, in order. A model's output record is a dict."""
    import torch

    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu()
        yield (tensor.float() if tensor.is_floating_point() else tensor).numpy().copy()
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _tensors(item)


def run_inside(path: Path, values: Iterable[str], feed: Mapping[str, Array]) -> dict[str, Array]:
    """Run the graph at `path` and return the named values besides its outputs, floats as fp32.

    The graph is opened unoptimised, so that every value exists, from a copy in memory; its data file stays where it
    is. Raises ParityError when onnxruntime cannot open or run it.
    """
    model = ir.load(path)
    given = {value.name for value in model.graph.outputs}
    wanted = {name: None for name in values if name not in given}
    made = {value.name: value for node in model.graph for value in node.outputs}
    model.graph.outputs.extend(made[name] for name in wanted)
    return run_graph(open_unoptimised(model, path), feed)


def open_unoptimised(model: ir.Model, path: Path) -> Any:
    """A session of a graph in memory, every value kept, with the data file that lies beside `path`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(path.parent.resolve())
    )
    options.add_session_config_entry("session.disable_prepacking", "1")
    content = ir.to_proto(model).SerializeToString()
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's error types share no public base
        raise ParityError(
            f"onnxruntime cannot open {path.name} with its inner values as outputs: {error}"
        ) from error
