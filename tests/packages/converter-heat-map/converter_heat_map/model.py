"""The detector as its authors wrote it: a custom operator in numpy, and a look at the pixels before anything else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class Config:
    channels: int
    kinds: int
    radius: int


@torch.library.custom_op("heat_map::keep_peaks", mutates_args=())
def keep_peaks(heat: torch.Tensor, radius: int) -> torch.Tensor:
    """(batch, kinds, height, width) with every value made 0 that is not the largest within `radius` of itself."""
    values = heat.numpy()
    frame = [(0, 0), (0, 0), (radius, radius), (radius, radius)]
    padded = np.pad(values, frame, constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * radius + 1,) * 2, axis=(2, 3))
    largest = windows.max(axis=(-2, -1))
    return torch.from_numpy(np.where(values == largest, values, 0).astype(values.dtype))


@keep_peaks.register_fake
def _(heat: torch.Tensor, radius: int) -> torch.Tensor:
    return torch.empty_like(heat)


def check_pixels(images: torch.Tensor) -> None:
    """Raise ValueError for pixels that were not scaled to [0, 1]."""
    low, high = images.min().item(), images.max().item()
    if low < 0 or high > 1:
        raise ValueError(f"pixels lie in [{low}, {high}], not in [0, 1]")


class Block(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(after)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.norm(self.convolution(images)))


class HeatMap(nn.Module):
    """Where in an image things of each kind are: a map a quarter of its size, zero but at the peaks."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.radius = config.radius
        self.blocks = nn.Sequential(Block(3, config.channels), Block(config.channels, config.channels))
        self.head = nn.Conv2d(config.channels, config.kinds, kernel_size=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 3, height, width) in [0, 1] -> (batch, kinds, height / 4, width / 4), rounded up."""
        check_pixels(images)
        heat = torch.sigmoid(self.head(self.blocks(images)))
        peaks: torch.Tensor = keep_peaks(heat, self.radius)
        return peaks
