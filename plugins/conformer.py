"""Conformer encoders that squeeze a spectrum together (Parakeet, LASR, Granite Speech), alone or with a CTC head.

They make fewer frames than they are given. What they make of padding means nothing and is not compared: no key is left
to such a frame, of which onnxruntime 1.31.1 makes something else than torch (2.2 apart in a small Parakeet).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from converter import (
    Architecture,
    Axis,
    Component,
    DummyInputs,
    Output,
    Size,
    TransformersModel,
    Variant,
    hookimpl,
)
from converter.plugins.audio_encoder import (
    CTC,
    FEATURES,
    LENGTHS,
    TASKS,
    audio_reference,
    audio_wrapper,
    row_mask,
)

# Odd sizes. Parakeet and LASR squeeze by convolutions, Granite Speech in its blocks.
TINY = {
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "intermediate_size": 52,
    "num_mel_bins": 24,
    "conv_kernel_size": 5,
}
CONVOLVED = {**TINY, "subsampling_conv_channels": 10}


def _encoder(config: Any) -> Any:
    return getattr(config, "encoder_config", config)


def parakeet_frames(config: Any, count: Any) -> Any:
    """Frames made of `count`: convolutions with as much padding on either side as keeps the middle in place."""
    kernel, stride = config.subsampling_conv_kernel_size, config.subsampling_conv_stride
    for _ in range(int(math.log2(config.subsampling_factor))):
        count = (count + (kernel - 1) // 2 * 2 - kernel) // stride + 1
    return count


def lasr_frames(config: Any, count: Any) -> Any:
    """Frames made of `count`: two convolutions without padding."""
    for _ in range(2):
        count = (count - config.subsampling_conv_kernel_size) // config.subsampling_conv_stride + 1
    return count


def granite_frames(config: Any, count: Any) -> Any:
    """Frames made of `count`: some blocks make one of two, and drop what is left over."""
    for _ in config.subsample_layers:
        count = count // 2
    return count


@dataclass(frozen=True)
class Kind:
    """How a model type differs.

    tiny     its encoder's tiny config
    frames   how many it makes of so many, as a function of the encoder's config and their number
    stacked  how many times `num_mel_bins` its feature extractor puts into a frame
    """

    task: str
    tiny: Mapping[str, Any]
    frames: Callable[[Any, Any], Any]
    stacked: int = 1

    @property
    def tiny_config(self) -> Mapping[str, Any]:
        return self.tiny if self.task == FEATURES else {"encoder_config": self.tiny, "vocab_size": 33}


GRANITE = {**TINY, "context_size": 7, "max_position_embeddings": 11, "vocab_size": 33}
# model type -> how it differs
FAMILY: dict[str, Kind] = {
    "granite_speech5_ctc": Kind(CTC, GRANITE, granite_frames, 4),
    "granite_speech5_encoder": Kind(FEATURES, GRANITE, granite_frames, 4),
    "lasr_ctc": Kind(CTC, CONVOLVED, lasr_frames),
    "lasr_encoder": Kind(FEATURES, CONVOLVED, lasr_frames),
    "parakeet_ctc": Kind(CTC, CONVOLVED, parakeet_frames),
    "parakeet_encoder": Kind(FEATURES, CONVOLVED, parakeet_frames),
}


def _inputs(kind: Kind, config: Any, fewest: int, field: str, size: Size) -> DummyInputs:
    """A spectrum, its mask, and which of the frames that are made of it count."""
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    length = size["sequence_length"]
    mask = row_mask(size, length, fewest)
    bins = _encoder(config).num_mel_bins * kind.stacked
    features = torch.randn(*mask.shape, bins, generator=generator) * mask[..., None]
    made, kept = kind.frames(_encoder(config), length), kind.frames(_encoder(config), mask.sum(dim=1))
    tensors = {"input_features": features, "attention_mask": mask}
    valid = {field: torch.arange(made) < kept[:, None]}
    return DummyInputs(tensors, dict.fromkeys(tensors, LENGTHS), valid)


def _components(kind: Kind, config: Any, task: str) -> Sequence[Component]:
    ((field, varying),) = TASKS[task][1].items()
    fewest = next(count for count in range(1, 1000) if kind.frames(_encoder(config), count) > 0)
    return (
        Component(
            stem="model",
            wrapper=partial(audio_wrapper, task),
            inputs=partial(_inputs, kind, config, fewest, field),
            reference=partial(audio_reference, (field,)),
            axes=(
                Axis("batch_size", 2, high=5),
                Axis("sequence_length", fewest + 58, low=fewest, high=fewest + 120),
            ),
            outputs=(Output(field, varying),),
        ),
    )


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    variant = Variant("audio", ("model",), "a spectrum of any length and its mask in")
    for model_type, kind in FAMILY.items():
        register(
            Architecture(
                name=model_type,
                model_types=(model_type,),
                summary="conformer that squeezes a spectrum"
                + (", with CTC head" if kind.task == CTC else ""),
                reference_checkpoint="",
                source=TransformersModel(
                    classes={kind.task: TASKS[kind.task][0]}, tiny=kind.tiny_config, model_type=model_type
                ),
                components=partial(_components, kind),
                variants={kind.task: (variant,)},
            )
        )
