"""What the inputs of a model usually look like, by their names. Not a plugin itself: it registers nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from converter import DummyInputs, Size

if TYPE_CHECKING:
    import torch

BATCH, SEQUENCE, TARGET = "batch_size", "sequence_length", "decoder_sequence_length"
HEIGHT, WIDTH, FRAMES, SAMPLES = "height", "width", "num_frames", "num_samples"

Kind = Literal["ids", "mask", "normal", "boxes", "ones"]


@dataclass(frozen=True)
class Layout:
    """One input: its dimensions, each an axis or a fixed number, and how its values are drawn.

    below  ids are drawn from [0, below)
    avoid  the id of padding, which only padded positions have
    """

    dims: tuple[str | int, ...]
    kind: Kind = "normal"
    below: int = 2
    avoid: int = -1


def layouts(name: str, config: Any, beside: frozenset[str], first: int = 0) -> Iterator[Layout]:
    """The shapes an input of this name may have, likelier ones first; none for a name that says nothing.

    `beside` are the other inputs: a mask follows what it masks. `first` is the width that the model's first layer
    takes, which tells what a frame of a spectrum holds where the config does not; 0 where it is not known.
    """
    text, tokens = described(config, "text_config"), (BATCH, SEQUENCE)
    vocabulary, pad = number(text, "vocab_size") or 2, number(text, "pad_token_id")
    if name == "input_ids":
        yield Layout(tokens, "ids", vocabulary, -1 if pad is None else pad)
    elif name == "decoder_input_ids":
        yield Layout((BATCH, TARGET), "ids", number(text, "decoder_vocab_size") or vocabulary)
    elif name == "token_type_ids":
        yield Layout(tokens, "ids", number(text, "type_vocab_size") or 1)
    elif name == "bbox":
        yield Layout((*tokens, 4), "boxes")
    elif name == "attention_mask":
        followed = next(
            (axis for other, axis in MASKED.items() if other in beside),
            SEQUENCE,
        )
        yield Layout((BATCH, followed), "mask")
    elif name == "inputs_embeds":
        yield Layout((*tokens, number(text, "hidden_size") or 1))
    elif name in ("pixel_values", "pixel_values_videos"):
        channels = number(described(config, "vision_config"), "num_channels", "in_channels", "in_chans") or 3
        yield Layout((BATCH, channels, HEIGHT, WIDTH))
        frames = number(config, "num_frames") or 2
        yield Layout((BATCH, frames, channels, HEIGHT, WIDTH))
    elif name == "pixel_mask":
        yield Layout((BATCH, HEIGHT, WIDTH), "ones")
    elif name == "input_values":
        yield Layout((BATCH, SAMPLES))
        yield Layout((BATCH, 1, SAMPLES))
        yield from spectra(config, first)
    elif name == "input_features":
        yield from spectra(config, first)
    elif name == "input_features_mask":
        yield Layout((BATCH, FRAMES), "mask")


# What an attention mask covers where there are no token ids.
MASKED = {"input_ids": SEQUENCE, "input_values": SAMPLES, "input_features": FRAMES}


def spectra(config: Any, first: int) -> Iterator[Layout]:
    """Frames of spectrum, either way round."""
    names = ("num_mel_bins", "feature_projection_input_dim", "input_feat_per_channel", "n_mels", "input_dim")
    parts = [config, *(part for name, part in sorted(vars(config).items()) if name.endswith("_config"))]
    bins = next((found for part in parts if (found := number(part, *names))), 80)
    for width in dict.fromkeys((bins, first or bins)):
        yield Layout((BATCH, FRAMES, width))
        yield Layout((BATCH, width, FRAMES))


def described(config: Any, part: str) -> Any:
    """The config of one modality: the part of that name, or the config itself where there is none."""
    return getattr(config, part, None) or config


def number(config: Any, *names: str) -> int | None:
    """The first of these entries that the config has as a number."""
    found = (getattr(config, name, None) for name in names)
    return next((value for value in found if type(value) is int), None)


def draw(inputs: Mapping[str, Layout], units: Mapping[str, int], size: Size) -> DummyInputs:
    """Random values for the inputs at a size. An axis counts `units`, as an image's height may count patches."""
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    sizes = {axis: count * units.get(axis, 1) for axis, count in size.axes.items()}
    masked = [layout.dims[1] for layout in inputs.values() if layout.kind == "mask"]
    masks = {dim: padded(sizes[BATCH], dim if isinstance(dim, int) else sizes[dim], size) for dim in masked}
    tensors: dict[str, torch.Tensor] = {}
    for name, layout in inputs.items():
        shape = [sizes[dim] if isinstance(dim, str) else dim for dim in layout.dims]
        mask = masks.get(layout.dims[1]) if len(shape) > 1 else None
        tensors[name] = values(layout, shape, mask, generator)
    axes = {
        name: {place: dim for place, dim in enumerate(layout.dims) if isinstance(dim, str) and dim in sizes}
        for name, layout in inputs.items()
    }
    return DummyInputs(tensors, axes)


def values(
    layout: Layout, shape: list[int], mask: torch.Tensor | None, generator: torch.Generator
) -> torch.Tensor:
    """One input's values; ids at padded positions are those of padding."""
    import torch

    if layout.kind == "mask":
        assert mask is not None
        return mask
    if layout.kind == "ones":
        return torch.ones(shape, dtype=torch.int64)
    if layout.kind == "boxes":  # left, top, right, bottom, each in thousandths of the page
        corners = torch.randint(0, 500, (*shape[:-1], 2), generator=generator)
        return torch.cat([corners, corners + torch.randint(0, 500, corners.shape, generator=generator)], -1)
    if layout.kind == "normal":
        return torch.randn(shape, generator=generator)
    if not 0 <= layout.avoid < layout.below or layout.below < 3:
        return torch.randint(0, layout.below, shape, generator=generator)
    ids = torch.randint(0, layout.below - 1, shape, generator=generator)
    ids = ids + (ids >= layout.avoid)
    return ids if mask is None else torch.where(mask.bool(), ids, layout.avoid)


def padded(batch: int, length: int, size: Size) -> torch.Tensor:
    """int64 (batch, length): each row padded on the asked side, later rows more, one position always left."""
    import torch

    mask = torch.ones(batch, length, dtype=torch.int64)
    for row in range(batch if size.padding != "none" else 0):
        filler = min((row + 1) * max(1, length // 4), length - 1)
        mask[row, slice(length - filler, length) if size.padding == "right" else slice(0, filler)] = 0
    return mask


def image_sizes(config: Any) -> list[tuple[int, int]]:
    """Heights and widths to try: the config's, the processor's, the usual ones."""
    vision = described(config, "vision_config")
    found = [
        getattr(vision, "image_size", None),
        getattr(config, "image_size", None),
        getattr(getattr(config, "backbone_config", None), "image_size", None),
        *processor_sizes(config),
    ]
    sizes = [(size, size) if isinstance(size, int) else tuple(size) for size in found if size]
    return list(dict.fromkeys([*(size for size in sizes if len(size) == 2), (64, 64), (224, 224)]))


def processor_sizes(config: Any) -> list[tuple[int, int]]:
    """What the checkpoint's image processor makes, if it has one."""
    from transformers import AutoImageProcessor

    folder = getattr(config, "_name_or_path", "")
    if not folder:
        return []
    try:
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    except Exception:  # none there, or one for another machine
        return []
    made = (getattr(processor, name, None) or {} for name in ("crop_size", "size"))
    return [(size["height"], size["width"]) for size in made if "height" in size and "width" in size]


def frame_counts(config: Any) -> list[int]:
    """Lengths of a spectrum to try: one of no meaning, then those the config names."""
    audio = described(config, "audio_config")
    window = number(audio, "max_source_positions")
    found = [60, 2 * window if window else None, number(audio, "max_length")]
    return [count for count in found if count]
