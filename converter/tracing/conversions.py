"""From a checkpoint's tensor names to a transformers model's parameters, as transformers itself would load it.

transformers renames, splits, fuses and stacks tensors on loading (a Mixtral's experts become one tensor). Those
conversions are not restated here: transformers' own run on `Symbol`s, tensors without data that record what is done
to them as a recipe.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)

from converter.checkpoints.lora import MERGE_FIRST
from converter.errors import CheckpointError
from converter.recipes import Concat, Load, Reshape, Slice, Stack, Transpose, WeightRecipe
from converter.records import Checkpoint
from converter.tracing.computed import computed_parameters
from converter.tracing.quantized_layers import unpack_recipes


def recipes_for(
    model: nn.Module, checkpoint: Checkpoint, key_mapping: Mapping[str, str] | None = None
) -> dict[str, WeightRecipe]:
    """Parameter or buffer name of `model` -> recipe over the checkpoint's tensors; what has no source is absent.

    `key_mapping`, patterns of tensor names and what to write for them, is applied first, as by `from_pretrained`. An
    adapter's changes are part of the recipes. A parameter that the model computes and the checkpoint does not store has
    a constant for a recipe. Tied parameters share one tensor object in `model`: each of their names gets the recipe of
    the one that is stored. Raises CheckpointError when a conversion cannot be expressed as a recipe.
    """
    names = Names(model, key_mapping)
    changes = adapted_weights(names, checkpoint)
    recipes: dict[str, WeightRecipe] = {}
    pending: dict[str, WeightConverter] = {}
    for name in sorted(checkpoint.tensors, key=dot_natural_key):
        target, pattern = names.place(name)
        if target not in names.state:
            continue
        load: WeightRecipe = Load(checkpoint.tensors[name])
        if pattern is not None:
            converter = pending.setdefault(target, copy.deepcopy(names.owner[pattern]))
            converter.add_tensor(target, name, pattern, Symbol(load))
        else:
            recipes[target] = load
    for target, converter in pending.items():
        recipes.update(_converted(target, converter, model))
    if checkpoint.adapter is not None:
        adapter = checkpoint.adapter
        recipes.update(
            {target: adapter.applied(weight, recipes.get(target)) for target, weight in changes.items()}
        )
    recipes = _with_ties(unpack_recipes(recipes, names.state), names.state)
    missing = [name for name, _ in model.named_parameters(remove_duplicate=False) if name not in recipes]
    return {**recipes, **computed_parameters(model, missing)}


class Names:
    """Where the tensors of a checkpoint go in a model, as transformers itself would rename them.

    state  parameters and buffers of the model by name
    owner  pattern of a conversion that does more than rename -> that conversion
    """

    def __init__(self, model: nn.Module, key_mapping: Mapping[str, str] | None = None) -> None:
        transforms = get_model_conversion_mapping(model, dict(key_mapping or {}) or None)
        self.state = dict(model.state_dict(keep_vars=True))
        self._renamings = [entry for entry in transforms if isinstance(entry, WeightRenaming)]
        self._converters = [entry for entry in transforms if isinstance(entry, WeightConverter)]
        self._prefix = str(model.base_model_prefix)
        self.owner = {
            pattern: converter for converter in self._converters for pattern in converter.source_patterns
        }

    def place(self, name: str) -> tuple[str, str | None]:
        """The parameter a tensor goes to, and the pattern of the conversion that makes it part of that one."""
        target, pattern = rename_source_key(name, self._renamings, self._converters, self._prefix, self.state)
        if target not in self.state and name in self.state:
            target, pattern = rename_source_key(name, [], [], self._prefix, self.state)
        return target, pattern


def adapted_weights(names: Names, checkpoint: Checkpoint) -> dict[str, str]:
    """Parameter -> weight of the checkpoint's adapter that changes it.

    Weights that the model does not have, though the base model's checkpoint does, are passed over: a head that is not
    converted. Raises CheckpointError for a weight that neither has, and for one that the model stores fused.
    """
    places: dict[str, str] = {}
    adapter = checkpoint.adapter
    for weight in sorted(adapter.weights if adapter is not None else ()):
        target, pattern = names.place(weight)
        if pattern is not None:
            raise CheckpointError(
                f"{checkpoint.source}: its adapter changes {weight!r}, which becomes a part of {target!r}",
                remedy=MERGE_FIRST,
            )
        if target in names.state:
            places[target] = weight
    return places


def _converted(target: str, converter: WeightConverter, model: nn.Module) -> dict[str, WeightRecipe]:
    try:
        values: Mapping[str, Any] = converter.convert(target, model=model, config=model.config)
    except (NotImplementedError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{target}: {converter} cannot be streamed: {error}") from error
    flat = {name: value[0] if isinstance(value, list) else value for name, value in values.items()}
    return {name: symbol.recipe for name, symbol in flat.items()}


def _with_ties(
    recipes: dict[str, WeightRecipe], state: Mapping[str, torch.Tensor]
) -> dict[str, WeightRecipe]:
    stored = {id(state[name]): recipe for name, recipe in recipes.items()}
    ties = {name: stored[id(tensor)] for name, tensor in state.items() if id(tensor) in stored}
    return {**ties, **recipes}


class Symbol(torch.Tensor):
    """A tensor without data. The operations that loading conversions use build its recipe; any other is an error."""

    recipe: WeightRecipe

    @staticmethod
    def __new__(cls, recipe: WeightRecipe) -> Symbol:
        symbol = torch.Tensor._make_subclass(cls, torch.empty(recipe.shape, device="meta"))
        symbol.recipe = recipe
        return symbol

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        rule = _RULES.get(getattr(func, "__name__", ""))
        if rule is not None:
            return rule(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") in _HARMLESS:
            return super().__torch_function__(func, types, args, dict(kwargs or {}))  # type: ignore[no-untyped-call]
        raise NotImplementedError(f"no recipe for {getattr(func, '__name__', func)}")


def _cat(tensors: Sequence[Symbol], dim: int = 0) -> Symbol:
    return Symbol(Concat(tuple(tensor.recipe for tensor in tensors), dim % tensors[0].dim()))


def _stack(tensors: Sequence[Symbol], dim: int = 0) -> Symbol:
    return Symbol(Stack(tuple(tensor.recipe for tensor in tensors), dim % (tensors[0].dim() + 1)))


def _split(tensor: Symbol, sizes: int | Sequence[int], dim: int = 0) -> tuple[Symbol, ...]:
    axis = dim % tensor.dim()
    total = tensor.shape[axis]
    steps = [sizes] * -(-total // sizes) if isinstance(sizes, int) else list(sizes)
    starts = [sum(steps[:index]) for index in range(len(steps))]
    return tuple(
        Symbol(Slice(tensor.recipe, axis, start, min(start + step, total)))
        for start, step in zip(starts, steps, strict=True)
    )


def _chunk(tensor: Symbol, chunks: int, dim: int = 0) -> tuple[Symbol, ...]:
    return _split(tensor, -(-tensor.shape[dim] // chunks), dim)


def _permute(tensor: Symbol, *dims: Any) -> Symbol:
    order = dims[0] if isinstance(dims[0], tuple | list) else dims
    return Symbol(Transpose(tensor.recipe, tuple(dim % tensor.dim() for dim in order)))


def _swap(tensor: Symbol, dim0: int = 0, dim1: int = 1) -> Symbol:
    order = list(range(tensor.dim()))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return _permute(tensor, *order)


def _reshape(tensor: Symbol, *shape: Any) -> Symbol:
    sizes = shape[0] if isinstance(shape[0], tuple | list) else shape
    return Symbol(
        Reshape(tensor.recipe, tuple(torch.empty(tensor.shape, device="meta").reshape(sizes).shape))
    )


def _same(tensor: Symbol, *_: Any, **__: Any) -> Symbol:
    return tensor


_HARMLESS = {"__get__", "dim", "size", "numel", "ndimension", "is_floating_point", "__len__"}
_RULES: Mapping[str, Callable[..., Any]] = {
    "cat": _cat,
    "stack": _stack,
    "split": _split,
    "split_with_sizes": _split,
    "chunk": _chunk,
    "permute": _permute,
    "transpose": _swap,
    "t": _swap,
    "reshape": _reshape,
    "view": _reshape,
    "unsqueeze": lambda tensor, dim: _reshape(
        tensor, *torch.empty(tensor.shape, device="meta").unsqueeze(dim).shape
    ),
    "squeeze": lambda tensor, *dim: _reshape(
        tensor, *torch.empty(tensor.shape, device="meta").squeeze(*dim).shape
    ),
    "contiguous": _same,
    "clone": _same,
    "detach": _same,
}
