"""Running: the untouched original, the wrapper around it, and the finished graph, on the same inputs.

They run one after the other, never together: the original is gone, with the process it ran in if that is one of its
own, before the session opens. In between lie files, one for each size.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converter.errors import ConverterError, ParityError, PluginError, UsageError
from converter.parity.metrics import Array
from converter.records import Component, Criteria, DummyInputs, Size

if TYPE_CHECKING:
    import onnxruntime
    from torch import nn


CASE = ".case"  # the ending of a file that holds one


@dataclass(frozen=True)
class Case:
    """One component at one size: what went in, and what the original and, where it ran, the wrapper made of it.

    `axes` are those declared, of inputs and outputs.
    """

    criteria: Criteria
    size: Size
    feed: Mapping[str, Array]
    valid: Mapping[str, Array]
    original: Mapping[str, Array]
    wrapper: Mapping[str, Array]
    axes: Mapping[str, Mapping[int, str]] = field(default_factory=dict)


def save(reference: Any, path: Path) -> Path:
    """Keep on disk what the original gave. Vocabularies make outputs of tens of megabytes.

    Raises PluginError for functions of a plugin that another process could not find.
    """
    try:
        with path.open("wb") as file:
            pickle.dump(reference, file, protocol=pickle.HIGHEST_PROTOCOL)
    except (
        pickle.PicklingError,
        AttributeError,
        TypeError,
    ) as error:  # it is all of these that pickle raises
        raise PluginError(
            f"what a plugin declares cannot go from one process to another: {error}",
            remedy="define the functions of its scenarios and metrics at the top of a module",
        ) from error
    return path


def load(path: Path) -> Any:
    """What `save` wrote, in this very conversion."""
    with path.open("rb") as file:
        return pickle.load(file)


def run_original(
    model: nn.Module, component: Component, sizes: Sequence[Size], *, restated: bool = True
) -> Iterator[Case]:
    """Run the original as its reference call says, and the wrapper around the very same weights, at each size.

    Without `restated` the wrapper is left out. Raises ParityError where a size that the axes allow cannot be run.
    """
    import torch

    wrapper = component.wrapper(model).eval()
    names = [output.name for output in component.outputs]
    for size in sizes:
        with _at(component, size), torch.no_grad():
            inputs = component.inputs(size)
            reference = component.reference(model, _copies(inputs))
            _check_names(component, reference)
            returned = wrapper(**_copies(inputs)) if restated else ()
        given = returned if isinstance(returned, tuple | list) else (returned,)
        yield Case(
            component.criteria,
            size,
            feed=_arrays(inputs.tensors),
            valid=_arrays(inputs.valid),
            original=_arrays({name: reference[name] for name in names}),
            wrapper=_arrays(dict(zip(names if restated else (), given, strict=True))),
            axes={**inputs.axes, **{output.name: output.axes for output in component.outputs}},
        )


def _check_names(component: Component, reference: Any) -> None:
    """Raise ParityError unless the reference gives all of the outputs that are declared."""
    names = [output.name for output in component.outputs]
    given = list(reference) if isinstance(reference, Mapping) else []
    if missing := [name for name in names if name not in given]:
        what = ", ".join(map(str, given)) if given else f"a {type(reference).__name__}"
        raise ParityError(
            f"{component.stem}: its reference gives {what}, and the outputs declared are {', '.join(names)}",
            remedy=f"`reference` returns a mapping with the names of the outputs: {', '.join(missing)} is missing",
        )


@contextmanager
def _at(component: Component, size: Size) -> Iterator[None]:
    try:
        yield
    except ConverterError:
        raise
    except Exception as error:  # the plugin's code, or the model's
        raise ParityError(
            f"{component.stem} at {size.label}: the original or its wrapper fails on the inputs built for this size:"
            f" {type(error).__name__}: {error}",
            remedy="inputs must work at every size that the axes allow: narrow the axis, or fix the inputs",
        ) from error


def _copies(inputs: DummyInputs) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in inputs.tensors.items()}


def _arrays(tensors: Mapping[str, Any]) -> dict[str, Array]:
    return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}


# Above this, weights stay in the mapped file: laying them out anew for the kernels would copy the model into memory.
PREPACK_LIMIT = 1 << 30


PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def require_device(device: str) -> None:
    """Raise UsageError where the installed onnxruntime has no provider for the device. Ask before long work."""
    import onnxruntime

    known = onnxruntime.get_available_providers()
    if PROVIDERS[device] not in known:
        raise UsageError(
            f"--device {device}: this onnxruntime has no {PROVIDERS[device]}; it has {', '.join(known)}",
            remedy="install the onnxruntime made for that device, such as onnxruntime-gpu, or leave --device out",
        )


def open_session(path: Path, *, device: str = "cpu") -> onnxruntime.InferenceSession:
    """Open a graph the way a user would. Its data file is mapped, not read; big ones are not repacked either.

    Raises ParityError when it cannot be opened, or when the device's provider did not start.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if sum(file.stat().st_size for file in path.parent.iterdir()) > PREPACK_LIMIT:
        options.add_session_config_entry("session.disable_prepacking", "1")
    providers = list(dict.fromkeys([PROVIDERS[device], PROVIDERS["cpu"]]))
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's error types share no public base
        raise ParityError(
            f"onnxruntime cannot open {path.name}: {error}",
            remedy="another --opset may help; --optimize none shows whether a graph pass is to blame",
        ) from error
    # onnxruntime goes on without a provider whose libraries it cannot load.
    if PROVIDERS[device] not in session.get_providers():
        raise ParityError(
            f"{PROVIDERS[device]} did not start, so {path.name} would run on the CPU",
            remedy=f"check the driver and the libraries that --device {device} needs",
        )
    return session


def run_graph(session: onnxruntime.InferenceSession, feed: Mapping[str, Array]) -> dict[str, Array]:
    """One call of the graph, fp16 inputs given as it declares them, outputs by name."""
    wanted = {value.name: value.type for value in session.get_inputs()}
    cast = {name: _as_declared(feed[name], kind) for name, kind in wanted.items()}
    names = [value.name for value in session.get_outputs()]
    try:
        results = session.run(names, cast)
    except Exception as error:  # see above
        shapes = {name: tuple(array.shape) for name, array in cast.items()}
        raise ParityError(f"the graph fails at {shapes}: {error}") from error
    return {name: np.asarray(result) for name, result in zip(names, results, strict=True)}


def _as_declared(array: Array, kind: str) -> Array:
    return array.astype(np.float16) if kind == "tensor(float16)" else array
