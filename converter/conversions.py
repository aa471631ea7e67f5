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

from converter.computed import computed_parameters
from converter.errors import CheckpointError
from converter.recipes import Concat, Load, Reshape, Slice, Stack, Transpose, WeightRecipe
from converter.records import Checkpoint


def recipes_for(model: nn.Module, checkpoint: Checkpoint) -> dict[str, WeightRecipe]:
    """Parameter or buffer name of `model` -> recipe over the checkpoint's tensors; what has no source is absent.

    A parameter that the model computes and the checkpoint does not store has a constant for a recipe.
    Tied parameters share one tensor object in `model`: each of their names gets the recipe of the one that is stored.
    Raises CheckpointError when a conversion does something that cannot be expressed as a recipe.
    """
    transforms = get_model_conversion_mapping(model)
    renamings = [entry for entry in transforms if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in transforms if isinstance(entry, WeightConverter)]
    owner = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    prefix: str = model.base_model_prefix  # type: ignore[assignment]
    state = dict(model.state_dict(keep_vars=True))

    recipes: dict[str, WeightRecipe] = {}
    pending: dict[str, WeightConverter] = {}
    for name in sorted(checkpoint.tensors, key=dot_natural_key):
        target, pattern = rename_source_key(name, renamings, converters, prefix, state)
        if target not in state and name in state:
            target, pattern = rename_source_key(name, [], [], prefix, state)
        if target not in state:
            continue
        load = Load(checkpoint.tensors[name])
        if pattern is None:
            recipes[target] = load
        else:
            converter = pending.setdefault(target, copy.deepcopy(owner[pattern]))
            converter.add_tensor(target, name, pattern, Symbol(load))
    for target, converter in pending.items():
        recipes.update(_converted(target, converter, model))
    recipes = _with_ties(recipes, state)
    missing = [name for name, _ in model.named_parameters(remove_duplicate=False) if name not in recipes]
    return {**recipes, **computed_parameters(model, missing)}


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
