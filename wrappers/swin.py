"""Windows of attention over images of any size: Swin, its kin and what has them as a backbone.

transformers pads a grid of patches to whole windows and shifts it in Python, by branches on its height and width that
tracing would take once and for all. Here the same rows and columns are taken by index, which holds at any size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

from converter.wrappers.vision_encoder import VisionEncoder

MODELING = ("modeling_swin", "modeling_donut_swin", "modeling_swinv2", "modeling_maskformer_swin")


class WindowedVisionEncoder(VisionEncoder):
    """The same calls and outputs, at any height and width that the model takes."""

    def forward(
        self, pixel_values: torch.Tensor, pixel_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, ...]:
        with any_size(self.model):
            return super().forward(pixel_values, pixel_mask)


def has_windows(model: nn.Module) -> bool:
    """Whether any part of it is one of these models."""
    return bool(_padding(model))


@contextmanager
def any_size(model: nn.Module) -> Iterator[None]:
    """While it lasts, windows, merged patches and patches are taken by index."""
    modules = _padding(model)
    # One whose weights are read from disk has a forward of its own already.
    before = [vars(module).get("forward") for module in modules]
    for module in modules:
        module.forward = partial(_restated(module), module)
    try:
        yield
    finally:
        for module, forward in zip(modules, before, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward


@contextmanager
def as_loaded(model: nn.Module) -> Iterator[None]:
    """Calls the untouched model without leaving a trace in it.

    A layer that saw a grid no larger than its windows never shifts them again, whatever it sees later. A graph
    remembers nothing: it computes what a freshly loaded model does.
    """
    layers = [module for module in _padding(model) if hasattr(module, "shift_size")]
    before = [(layer.window_size, layer.shift_size) for layer in layers]
    try:
        yield
    finally:
        for layer, (window, shift) in zip(layers, before, strict=True):
            layer.window_size, layer.shift_size = window, shift


def _padding(model: nn.Module) -> list[Any]:
    """The modules that pad what they are given by its size."""
    return [
        module
        for module in model.modules()
        if hasattr(module, "maybe_pad") and type(module).__module__.rpartition(".")[2] in MODELING
    ]


def _restated(module: Any) -> Callable[..., Any]:
    if hasattr(module, "shift_size"):
        return _layer
    return _merged if hasattr(module, "reduction") else _patches


def _patches(module: Any, pixel_values: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
    """Patches of an image, padded to whole ones: by as much as that may take, for a convolution drops the rest."""
    height, width = module.patch_size
    patches = module.projection(pad(pixel_values, (0, width - 1, 0, height - 1)))
    rows, columns = patches.shape[2:]
    return patches.flatten(2).transpose(1, 2), (rows, columns)


def _merged(module: Any, hidden: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Each two by two patches side by side in their width; an odd last row or column is merged with zeros."""
    rows, columns = ((length + 1) // 2 for length in grid)
    batch, width = hidden.shape[0], hidden.shape[2]
    padded = pad(hidden.view(batch, *grid, width), (0, 0, 0, 1, 0, 1))
    every = [2 * _places(count, hidden) for count in (rows, columns)]
    parts = [
        padded.index_select(1, every[0] + row).index_select(2, every[1] + column)
        for column in range(2)
        for row in range(2)
    ]
    merged = torch.cat(parts, dim=-1).view(batch, rows * columns, 4 * width)
    wide = module.norm.normalized_shape[0] == 4 * width  # Swin v2 norms what it has reduced
    result: torch.Tensor = (
        module.reduction(module.norm(merged)) if wide else module.norm(module.reduction(merged))
    )
    return result


def _layer(
    layer: Any, hidden: torch.Tensor, grid: tuple[int, int], *rest: Any, **options: Any
) -> tuple[torch.Tensor, None]:
    """(batch, rows * columns, width) of a `grid` (rows, columns) -> the same, and no attention weights."""
    always = options.get("always_partition", rest[1] if len(rest) > 1 else False)
    if not hasattr(layer, "set_shift_and_window_size") or always:
        shift = layer.shift_size
    else:
        shift = _shift(layer, grid, hidden)
    if "swinv2" in type(layer).__module__:  # its norms come after what they are of
        hidden = hidden + layer.layernorm_before(_attended(layer, hidden, grid, shift))
        return hidden + layer.layernorm_after(layer.output(layer.intermediate(hidden))), None
    hidden = hidden + _attended(layer, layer.layernorm_before(hidden), grid, shift)
    normed = layer.layernorm_after(hidden)
    fed = layer.mlp(normed) if hasattr(layer, "mlp") else layer.output(layer.intermediate(normed))
    return hidden + fed, None


def _shift(layer: Any, grid: tuple[int, int], hidden: torch.Tensor) -> int | torch.Tensor:
    """How far windows are shifted: not at all where the grid is no larger than one in either direction."""
    if not layer.shift_size:
        return 0
    # torch 2.13 has no translation of a size as a tensor: the last place stands for it.
    rows, columns = (_places(length, hidden).max() for length in grid)
    return torch.where(torch.minimum(rows, columns) < layer.window_size, 0, layer.shift_size)


def _attended(
    layer: Any, hidden: torch.Tensor, grid: tuple[int, int], shift: int | torch.Tensor
) -> torch.Tensor:
    """What attention within windows makes of a grid that is padded with zeros to whole ones."""
    window, batch, width = layer.window_size, hidden.shape[0], hidden.shape[2]
    down, across = ((length + window - 1) // window for length in grid)
    rows, columns = (_places(count * window, hidden) for count in (down, across))
    # Padded by as much as whole windows may take; what they do not take is not among the indices.
    padded = pad(hidden.view(batch, *grid, width), (0, 0, 0, window - 1, 0, window - 1))
    padded = padded.index_select(1, _turned(rows, shift, down * window))
    padded = padded.index_select(2, _turned(columns, shift, across * window))
    windows = padded.view(batch, down, window, across, window, width).transpose(2, 3)
    windows = windows.reshape(batch * down * across, window * window, width)
    mask = _mask(rows, columns, window, shift).to(hidden.dtype) if layer.shift_size else None
    attended = layer.attention(windows, mask)[0]
    whole = attended.view(batch, down, across, window, window, width).transpose(2, 3)
    whole = whole.reshape(batch, down * window, across * window, width)
    whole = whole.index_select(1, _turned(_places(grid[0], hidden), -shift, down * window))
    whole = whole.index_select(2, _turned(_places(grid[1], hidden), -shift, across * window))
    result: torch.Tensor = whole.reshape(batch, grid[0] * grid[1], width)
    return result


def _places(length: int, like: torch.Tensor) -> torch.Tensor:
    return torch.arange(length, device=like.device)


def _turned(places: torch.Tensor, by: int | torch.Tensor, length: int) -> torch.Tensor:
    """Places of a circle of this `length`, turned by less than one round."""
    if isinstance(by, int) and by == 0:
        return places
    turned = places + by
    # Not `%`, of which torch 2.13 has no translation where the length is a size.
    turned = torch.where(turned < 0, turned + length, turned)
    return torch.where(turned >= length, turned - length, turned)


def _mask(rows: torch.Tensor, columns: torch.Tensor, window: int, shift: int | torch.Tensor) -> torch.Tensor:
    """What keeps apart the parts of a window that a shift brought together: (windows, window^2, window^2).

    Without a shift every window is of one part, and the mask is zero.
    """
    down, across = (_parts(places, window, shift) for places in (rows, columns))
    parts = 3 * down[:, None, :, None] + across[None, :, None, :]
    parts = parts.reshape(down.shape[0] * across.shape[0], window * window)
    return -100.0 * (parts[:, None, :] != parts[:, :, None]).float()


def _parts(places: torch.Tensor, window: int, shift: int | torch.Tensor) -> torch.Tensor:
    """Of a side's places, window by window: 0, in the last window 1, and 2 for those that came from the other end."""
    length = places.shape[0]
    last = (places >= length - window).long() + (places + shift >= length).long()
    return last.view(length // window, window)
