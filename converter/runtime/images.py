"""Images as transformers' processors prepare them, in Pillow and numpy.

`PatchLayout` is for graphs that take flattened patches of any grid, `FixedSize` for those that take one
size. Both follow the Pillow backend of transformers to the last rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from converter.errors import PackageError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

Picture: TypeAlias = "str | Path | Image"
Pixels = NDArray[np.float32]
Size: TypeAlias = tuple[int, int]  # height, width

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif"}
LARGEST_RATIO = 200  # of the sides; the limit that Qwen2-VL's preprocessing sets
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_HALF = (0.5, 0.5, 0.5)
_BICUBIC = 3


@dataclass(frozen=True)
class Scaling:
    """What happens to pixel values: 0 to 255 into the range the model was trained on."""

    factor: float | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None

    @classmethod
    def read(cls, config: Mapping[str, Any], mean: Sequence[float], std: Sequence[float]) -> Scaling:
        """From a processor's config; `mean` and `std` where it is silent."""
        normalize = config.get("do_normalize", True)
        return cls(
            float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else None,
            _triple(config.get("image_mean") or mean) if normalize else None,
            _triple(config.get("image_std") or std) if normalize else None,
        )

    def apply(self, pixels: NDArray[np.uint8]) -> Pixels:
        """(height, width, 3) to the same in float32."""
        scaled = pixels.astype(np.float32)
        if self.factor is not None:
            scaled = (pixels.astype(np.float64) * self.factor).astype(np.float32)
        if self.mean is not None and self.std is not None:
            mean, std = (np.array(values, dtype=np.float32) for values in (self.mean, self.std))
            scaled = ((scaled - mean) / std).astype(np.float32, copy=False)
        return scaled


def _triple(value: float | Sequence[float]) -> tuple[float, ...]:
    return (value,) * 3 if isinstance(value, int | float) else tuple(value)


@dataclass(frozen=True)
class PatchLayout:
    """Images resized to a multiple of the patch grid near their own size, cut into flattened patches."""

    patch: int
    merge: int
    temporal: int
    least: int
    most: int
    resize: bool
    resample: int
    scaling: Scaling

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> PatchLayout:
        """From a processor's config. Raises PackageError where its size bounds are of another kind."""
        size = dict(config.get("size") or {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280})
        least = config.get("min_pixels") or size.get("shortest_edge")
        most = config.get("max_pixels") or size.get("longest_edge")
        if not least or not most:
            raise PackageError(f"the image processor's size {size} has no shortest_edge and longest_edge")
        return cls(
            int(config.get("patch_size", 14)),
            int(config.get("merge_size", 2)),
            int(config.get("temporal_patch_size", 2)),
            int(least),
            int(most),
            bool(config.get("do_resize", True)),
            int(config.get("resample", _BICUBIC)),
            Scaling.read(config, _CLIP_MEAN, _CLIP_STD),
        )

    def target(self, size: Size) -> Size:
        """The size an image is brought to. Raises ValueError for one that is too long or fits no grid."""
        unit = self.patch * self.merge
        if not self.resize:
            if size[0] % unit or size[1] % unit:
                raise ValueError(f"its sides are not multiples of {unit}, and this package does not resize")
            return size
        if max(size) > LARGEST_RATIO * min(size):
            raise ValueError(f"one side is more than {LARGEST_RATIO} times the other")
        return nearest_grid(size, unit, self.least, self.most)

    def tokens(self, target: Size) -> int:
        """Image tokens that stand for an image of that size."""
        return math.prod(target) // (self.patch * self.merge) ** 2

    def tensors(self, images: Sequence[Image], target: Size) -> dict[str, NDArray[Any]]:
        """Images of one target size: `pixel_values` (batch, patches, values) and their grids (batch, 3)."""
        patches = [self._patches(resized(image, target, self.resample)) for image in images]
        grid = (1, target[0] // self.patch, target[1] // self.patch)
        return {"pixel_values": np.stack(patches), "image_grid_thw": np.array([grid] * len(images), np.int64)}

    def neutral(self, batch: int) -> dict[str, NDArray[Any]]:
        """All-zero images of one merged square, for rows of text in a graph that wants an image."""
        width = 3 * self.temporal * self.patch**2
        grids = np.array([(1, self.merge, self.merge)] * batch, np.int64)
        return {"pixel_values": np.zeros((batch, self.merge**2, width), np.float32), "image_grid_thw": grids}

    def _patches(self, pixels: NDArray[np.uint8]) -> Pixels:
        """Patches in rows of merged squares; within one, colour first and the image once a time step."""
        scaled = self.scaling.apply(pixels).transpose(2, 0, 1)
        rows, columns = pixels.shape[0] // self.patch, pixels.shape[1] // self.patch
        split = (rows // self.merge, self.merge, self.patch, columns // self.merge, self.merge, self.patch)
        squares = scaled.reshape(3, *split).transpose(1, 4, 2, 5, 0, 3, 6)
        steps = np.repeat(squares[:, :, :, :, :, None], self.temporal, axis=5)
        return np.ascontiguousarray(steps.reshape(rows * columns, -1))


@dataclass(frozen=True)
class FixedSize:
    """Images resized to the one size a graph takes, whatever their shape."""

    size: Size
    count: int
    resample: int
    scaling: Scaling

    @classmethod
    def read(cls, config: Mapping[str, Any], vision: Mapping[str, Any]) -> FixedSize:
        """From a processor's config; what it lacks, from the vision tower's."""
        side = vision.get("image_size", 224)
        given = config.get("size") or {}
        size = (int(given.get("height", side)), int(given.get("width", side)))
        count = config.get("image_seq_length") or math.prod(size) // int(vision.get("patch_size", 14)) ** 2
        resample = int(config.get("resample", _BICUBIC))
        return cls(size, int(count), resample, Scaling.read(config, _HALF, _HALF))

    def target(self, size: Size) -> Size:
        """The same for every image."""
        return self.size

    def tokens(self, target: Size) -> int:
        """Image tokens that stand for an image."""
        return self.count

    def tensors(self, images: Sequence[Image], target: Size) -> dict[str, NDArray[Any]]:
        """`pixel_values` (batch, 3, height, width)."""
        scaled = [self.scaling.apply(resized(image, target, self.resample)) for image in images]
        return {"pixel_values": np.stack([pixels.transpose(2, 0, 1) for pixels in scaled])}

    def neutral(self, batch: int) -> dict[str, NDArray[Any]]:
        """All-zero images, for rows of text in a graph that wants an image."""
        return {"pixel_values": np.zeros((batch, 3, *self.size), np.float32)}


def nearest_grid(size: Size, unit: int, least: int, most: int) -> Size:
    """Height and width as multiples of `unit`, with between `least` and `most` pixels, proportions kept.

    The rule of Qwen2-VL's preprocessing: round, and where the area is out of bounds, scale both sides by the
    root of its excess and round inwards.
    """
    height, width = (round(side / unit) * unit for side in size)
    if height * width > most:
        shrink = math.sqrt(math.prod(size) / most)
        height, width = (max(unit, math.floor(side / shrink / unit) * unit) for side in size)
    elif height * width < least:
        grow = math.sqrt(least / math.prod(size))
        height, width = (math.ceil(side * grow / unit) * unit for side in size)
    return height, width


def resized(image: Image, target: Size, resample: int) -> NDArray[np.uint8]:
    """(height, width, 3) of 0 to 255. Transparency shows white."""
    from PIL.Image import Resampling

    flat = image
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        flat = _on_white(image)
    height, width = target
    pixels = flat.convert("RGB")
    if pixels.size != (width, height):
        pixels = pixels.resize((width, height), Resampling(resample))
    return np.asarray(pixels)


def _on_white(image: Image) -> Image:
    from PIL.Image import alpha_composite, new

    layer = image.convert("RGBA")
    return alpha_composite(new("RGBA", layer.size, (255, 255, 255, 255)), layer)


def list_images(folder: str | Path) -> list[Path]:
    """The images of a folder by their suffixes, sorted by name. Raises UsageError if there are none."""
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UsageError(f"there is no folder {path}", remedy="check the path")
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
    if not found:
        raise UsageError(f"{path} holds no images", remedy=f"known are {', '.join(sorted(SUFFIXES))}")
    return found


def gather(images: str | Path | Iterable[Picture]) -> list[Picture]:
    """A folder's images, or those of a list; a path of a file is a list of one."""
    require_pillow()
    if isinstance(images, str | Path):
        return list(list_images(images)) if Path(images).expanduser().is_dir() else [images]
    return list(images)


def require_pillow() -> None:
    """Raise UsageError unless Pillow is installed; the base installation has it only for images."""
    from importlib.util import find_spec

    if find_spec("PIL") is None:
        raise UsageError("reading images needs Pillow", remedy="pip install pillow")


def open_image(picture: Picture, index: int) -> Image:
    """An image, upright; a path is opened but its pixels are not read yet. Raises UsageError naming it."""
    from PIL import Image as Pillow
    from PIL import ImageOps

    if isinstance(picture, Pillow.Image):
        return picture
    if not isinstance(picture, str | Path):
        raise UsageError(
            f"image {index} is {type(picture).__name__}, neither a path nor a PIL image",
            remedy="make one of an array with PIL.Image.fromarray",
        )
    try:
        image = Pillow.open(Path(picture).expanduser())
        ImageOps.exif_transpose(image, in_place=True)
    except (OSError, ValueError, SyntaxError, Pillow.DecompressionBombError) as error:
        raise _unreadable(picture, index, error) from error
    return image


def read_pixels(picture: Picture, index: int) -> Image:
    """The same with its pixels in memory and its file closed."""
    image = open_image(picture, index)
    try:
        image.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise _unreadable(picture, index, error) from error
    return image


def _unreadable(picture: object, index: int, error: Exception) -> UsageError:
    name = picture if isinstance(picture, str | Path) else "given as a PIL image"
    return UsageError(
        f"image {index} ({name}) cannot be read: {error}", remedy="leave it out, or repair the file"
    )
