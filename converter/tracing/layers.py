"""Which layers of a model need tracing: lists of alike layers are cut to a few before tracing.

Two layers are alike when everything their code could branch on is equal: classes, shapes, scalar attributes,
buffers. Three of each kind stay: the first may create what all share, the second is the template, the third
has to come out equal to the second (`converter.passes.stamp` checks). Layers of several kinds may alternate
in any order.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd

from converter.tracing.signature import index_attributes, reads_any, signatures

# How many layers of a kind are traced.
TRACED = 3

# Names of config entries that count layers, that list positions of layers, that say how often a kind recurs.
COUNT = re.compile(r"layer|depth|block")
POSITIONS = re.compile(r"(layer|block|attn|attention).*(index|indices|idx)|indexes$|indices$")
PERIOD = re.compile(r"interval|pattern|period|every|freq|sparse_step")


@dataclass(frozen=True)
class CutList:
    """A list of layers that was cut.

    path     of the list in the model
    kept     original positions of the layers still there, ascending
    classes  the kind of each original layer, as a number
    """

    path: str
    kept: tuple[int, ...]
    classes: tuple[int, ...]


@dataclass(frozen=True)
class LayerPlan:
    """What was cut from a model, and so what has to be stamped into its graphs."""

    lists: tuple[CutList, ...] = ()


def cut_layers(model: nn.Module) -> LayerPlan:
    """Cut every list of alike layers of `model` in place, and what modules and configs say of their number.

    Buffers must be real; parameters may be fake. Lists inside the layers of a cut list stay as they are, and
    so does a list that would not become shorter.
    """
    shared = _shared_parameters(model)
    cuts: list[CutList] = []
    for group in _sibling_lists(model):
        if any(group[0].startswith(f"{cut.path}.") for cut in cuts):
            continue
        lists = [_module_list(model, path) for path in group]
        if any(id(parameter) in shared for layers in lists for parameter in layers.parameters()):
            continue
        holders = _holders(model, group[0], len(lists[0]))
        counts = {name for holder in holders for name in _counts(holder, group[0], len(lists[0]))}
        # A layer that computes with the depth, to scale by it or to find the last one, needs the true one.
        names = counts | {"num_hidden_layers"}
        if any(reads_any(layers, names) for layers in lists):
            continue
        classes = _classes(lists, holders)
        kept = tuple(i for i, kind in enumerate(classes) if classes[:i].count(kind) < TRACED)
        if len(kept) == len(classes) or _resizes(lists, kept) or _tables(lists):
            continue
        for layers in lists:
            _shorten(layers, kept)
        for holder in holders:
            _renumber(holder, group[0], kept, len(classes))
        cuts += [CutList(path, kept, classes) for path in group]
    return LayerPlan(tuple(cuts))


def _resizes(lists: Sequence[nn.ModuleList], kept: Sequence[int]) -> bool:
    """Whether a layer that would be dropped makes what it hands on shorter, as wav2vec 2.0's convolutions do.

    What follows counts on the size that all of them leave.
    """
    dropped = (layer for layers in lists for place, layer in enumerate(layers) if place not in kept)
    parts = (module for layer in dropped for module in layer.modules())
    return any(isinstance(part, _ConvNd) and max(part.stride) > 1 for part in parts)


def _tables(lists: Sequence[nn.ModuleList]) -> bool:
    """Whether these are tables to look up in, as MarkupLM has one for each step of a path: none follows another."""
    return any(isinstance(layer, nn.Embedding) for layers in lists for layer in layers)


def _sibling_lists(model: nn.Module) -> Iterator[list[str]]:
    """Paths of lists worth cutting, outer ones first. Lists of one module and one length belong together.

    Their layers may be used in pairs, so that both must keep the same positions.
    """
    for path, module in list(model.named_modules()):
        by_length: dict[int, list[str]] = {}
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList) and len(child) > TRACED:
                by_length.setdefault(len(child), []).append(f"{path}.{name}" if path else name)
        yield from by_length.values()


def _module_list(model: nn.Module, path: str) -> nn.ModuleList:
    module = model.get_submodule(path)
    assert isinstance(module, nn.ModuleList)
    return module


def _shared_parameters(model: nn.Module) -> set[int]:
    """`id` of each parameter that has several names. A layer that has one is not like the others."""
    seen: set[int] = set()
    shared: set[int] = set()
    for _, parameter in model.named_parameters(remove_duplicate=False):
        (shared if id(parameter) in seen else seen).add(id(parameter))
    return shared


# --- which layers are alike ---


def _classes(lists: Sequence[nn.ModuleList], holders: Sequence[Any]) -> tuple[int, ...]:
    """The kind of each position: equal where the layers are, and what their model says about them."""
    total = len(lists[0])
    keys: list[list[Hashable]] = [[] for _ in range(total)]
    for layers in map(list, lists):
        for key, signature in zip(keys, signatures(layers, index_attributes(layers)), strict=True):
            key.append(signature)
    for holder in holders:
        for values in _per_layer(holder, total).values():
            for key, value in zip(keys, values, strict=True):
                key.append(repr(value))
        for positions in _positions(holder, total).values():
            for position, key in enumerate(keys):
                key.append(position in positions)
    numbers: dict[Hashable, int] = {}
    classes = tuple(numbers.setdefault(tuple(key), len(numbers)) for key in keys)
    # The model seems to treat every few layers differently by their position alone: no two count as alike.
    hidden_period = len(numbers) == 1 and any(_has_period(holder, total) for holder in holders)
    return tuple(range(total)) if hidden_period else classes


def _per_layer(holder: Any, total: int) -> dict[str, Any]:
    """Entries with one scalar for each layer: `layer_types`, `no_rope_layers`."""
    return {
        name: value
        for name, value in vars(holder).items()
        if isinstance(value, (list, tuple))
        and len(value) == total
        and "drop" not in name
        and all(item is None or isinstance(item, (bool, int, float, str)) for item in value)
    }


def _positions(holder: Any, total: int) -> dict[str, Any]:
    """Entries that name some of the layers by position: `fullatt_block_indexes`."""
    return {
        name: value
        for name, value in vars(holder).items()
        if isinstance(value, (list, tuple, set, frozenset))
        and POSITIONS.search(name)
        and 0 < len(value) == len(set(map(repr, value)))
        and len(value) < total
        and all(type(item) is int and 0 <= item < total for item in value)
    }


def _has_period(holder: Any, total: int) -> bool:
    periods = (value for name, value in vars(holder).items() if PERIOD.search(name))
    return any(type(value) is int and 1 < value < total for value in periods)


# --- who else knows the number of layers ---


def _holders(model: nn.Module, path: str, total: int) -> list[Any]:
    """Objects that know of the list at `path`: the module that owns it and the configs that describe it.

    The nearest config that counts `total` layers describes it. So do configs of the same class further up: a
    model of two stacks may give each a copy of its own.
    """
    parents = [model]
    for name in path.split(".")[:-1]:
        parents.append(parents[-1].get_submodule(name))
    found = [getattr(module, "config", None) for module in reversed(parents)]
    configs = [config for config in found if hasattr(config, "__dict__")]
    nearest = next((config for config in configs if _counts(config, path, total)), None)
    holders: list[Any] = [parents[-1]]
    if nearest is not None:
        # A nested config counts only if its stack has a copy instead of it.
        for config in configs:
            within = [other for other in _nested(config) if type(other) is type(nearest)]
            holders += [config] * (type(config) is type(nearest))
            holders += [] if any(other is nearest for other in within) else within
        holders.append(nearest)
    unique = {id(holder): holder for holder in holders}
    return list(unique.values())


def _nested(config: Any) -> Iterator[Any]:
    yield config
    for name, value in vars(config).items():
        if name.endswith("config") and hasattr(value, "__dict__"):
            yield from _nested(value)


def _counts(holder: Any, path: str, total: int) -> list[str]:
    """Names of the entries of `holder` that count the layers of the list at `path`.

    A config of an encoder and a decoder counts both; the path says which is meant.
    """
    entries = vars(holder).items()
    names = [name for name, value in entries if type(value) is int and value == total and COUNT.search(name)]
    other = "encoder" if "decoder" in path else "decoder" if "encoder" in path else None
    return [name for name in names if other is None or other not in name]


def _renumber(holder: Any, path: str, kept: Sequence[int], total: int) -> None:
    """Make `holder` describe the kept layers. Its setters are avoided: they check entries one by one."""
    changed: dict[str, Any] = dict.fromkeys(_counts(holder, path, total), len(kept))
    for name, positions in _positions(holder, total).items():
        changed[name] = type(positions)(kept.index(value) for value in positions if value in kept)
    for name, values in _per_layer(holder, total).items():
        changed[name] = type(values)([values[position] for position in kept])
    vars(holder).update(changed)


def _shorten(layers: nn.ModuleList, kept: Sequence[int]) -> None:
    """Drop the other layers; the kept ones learn their new positions."""
    indices = index_attributes(list(layers))
    remaining = [layers[position] for position in kept]
    for position, layer in enumerate(remaining):
        modules = dict(layer.named_modules())
        for index in indices:
            if index.path in modules and index.name in vars(modules[index.path]):
                modules[index.path].__dict__[index.name] = position + index.offset
    layers._modules.clear()
    layers._modules.update({str(position): layer for position, layer in enumerate(remaining)})
