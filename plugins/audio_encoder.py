"""Audio encoders (wav2vec 2.0 and its kin, spectrum transformers) with their heads: one wrapper, types as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

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

if TYPE_CHECKING:
    import torch
    from torch import nn

    from converter.records import Checkpoint

FEATURES, CTC, CLASSES = "feature-extraction", "automatic-speech-recognition", "audio-classification"
FRAMES, SPEAKERS = "audio-frame-classification", "audio-xvector"

# task -> (class in transformers, the output fields it gives with the axes that vary)
FRAMED, ROWS = {0: "batch_size", 1: "num_frames"}, {0: "batch_size"}
LENGTHS = {0: "batch_size", 1: "sequence_length"}
TASKS: dict[str, tuple[str, dict[str, Mapping[int, str]]]] = {
    FEATURES: ("AutoModel", {"last_hidden_state": FRAMED}),
    CTC: ("AutoModelForCTC", {"logits": FRAMED}),
    CLASSES: ("AutoModelForAudioClassification", {"logits": ROWS}),
    FRAMES: ("AutoModelForAudioFrameClassification", {"logits": FRAMED}),
    SPEAKERS: ("AutoModelForAudioXVector", {"logits": ROWS, "embeddings": ROWS}),
}

# Odd sizes; three convolutions in place of seven, which make a frame of 20 samples.
TINY = {
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 52,
    "vocab_size": 33,
    "num_labels": 5,
    "classifier_proj_size": 28,
}
WAVE = {
    **TINY,
    "conv_dim": [8, 12, 20],
    "conv_kernel": [10, 3, 3],
    "conv_stride": [5, 2, 2],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 2,
}
XVECTOR = {
    "tdnn_dim": [20, 20, 28],
    "tdnn_kernel": [5, 3, 1],
    "tdnn_dilation": [1, 2, 1],
    "xvector_output_dim": 24,
}
SPECTRUM = {
    **TINY,
    "feature_projection_input_dim": 26,
    "conv_depthwise_kernel_size": 5,
    "left_max_position_embeddings": 6,
    "right_max_position_embeddings": 4,
}
PATCHES = {
    **TINY,
    "num_mel_bins": 24,
    "max_length": 44,
    "patch_size": 8,
    "frequency_stride": 5,
    "time_stride": 7,
}


@dataclass(frozen=True)
class Kind:
    """How a model type differs.

    tiny    its tiny config
    takes   raw samples; a spectrum of any length with a mask; or a spectrum of the one length the config says
    tasks   those it has a class for
    """

    tiny: Mapping[str, Any] = field(default_factory=lambda: WAVE)
    takes: Literal["samples", "spectrum", "window"] = "samples"
    tasks: tuple[str, ...] = (FEATURES, CTC, CLASSES)


# model type -> how it differs
FAMILY: dict[str, Kind] = {
    "audio-spectrogram-transformer": Kind(PATCHES, "window", (FEATURES, CLASSES)),
    "data2vec-audio": Kind(
        {**WAVE, **XVECTOR, "num_conv_pos_embeddings": 3, "conv_pos_kernel_size": 5}, tasks=tuple(TASKS)
    ),
    "hubert": Kind(),
    "sew": Kind(),
    "sew-d": Kind(),
    "unispeech": Kind(),
    "unispeech-sat": Kind({**WAVE, **XVECTOR}, tasks=tuple(TASKS)),
    "wav2vec2": Kind({**WAVE, **XVECTOR}, tasks=tuple(TASKS)),
    "wav2vec2-bert": Kind({**SPECTRUM, **XVECTOR}, "spectrum", tuple(TASKS)),
    "wav2vec2-conformer": Kind({**WAVE, **XVECTOR, "conv_depthwise_kernel_size": 5}, tasks=tuple(TASKS)),
    "wavlm": Kind({**WAVE, **XVECTOR, "num_buckets": 20, "max_bucket_distance": 30}, tasks=tuple(TASKS)),
}


class AudioModel(TransformersModel):
    """Reads from the checkpoint's feature extractor, too, whether it tells padding by a mask."""

    def config(self, checkpoint: Checkpoint) -> Any:
        from converter.json_files import read_object

        config = super().config(checkpoint)
        for name in ("preprocessor_config.json", "processor_config.json"):
            if (checkpoint.folder / name).is_file():
                said = read_object(checkpoint.folder / name)
                said = said.get("feature_extractor", said)
                config.return_attention_mask = said.get("return_attention_mask", False)
                break
        return config


def samples_for(config: Any, frames: int) -> int:
    """How many samples the convolutions make that many frames of, at least."""
    length = frames
    for kernel, stride in zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True):
        length = (length - 1) * stride + kernel
    return length


def is_masked(config: Any) -> bool:
    """Whether padding is told by a mask.

    Models that normalise over time ("group") were trained on audio padded with zeros and no mask; their feature
    extractors return none. A checkpoint whose preprocessor_config.json says otherwise is taken at its word.
    """
    said = getattr(config, "return_attention_mask", None)
    return getattr(config, "feat_extract_norm", "layer") == "layer" if said is None else bool(said)


def row_mask(size: Size, length: int, least: int) -> torch.Tensor:
    """A mask (batch, length) in which each row but the first is padded on the right, if padding is asked for."""
    import torch

    mask = torch.ones(size["batch_size"], length, dtype=torch.int64)
    if size.padding != "none":
        for row in range(1, len(mask)):
            mask[row, max(least, length - row * max(1, length // 4)) :] = 0
    return mask


def _sample_inputs(config: Any, fewest: int, size: Size) -> DummyInputs:
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    length = size["sequence_length"]
    mask = row_mask(size, length, samples_for(config, fewest))
    tensors = {"input_values": torch.randn(mask.shape, generator=generator) * mask}
    if is_masked(config):
        tensors["attention_mask"] = mask
    return DummyInputs(tensors, dict.fromkeys(tensors, LENGTHS))


def _spectrum_inputs(config: Any, fewest: int, size: Size) -> DummyInputs:
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    mask = row_mask(size, size["sequence_length"], fewest)
    features = torch.randn(*mask.shape, config.feature_projection_input_dim, generator=generator)
    tensors = {"input_features": features * mask[..., None], "attention_mask": mask}
    return DummyInputs(tensors, dict.fromkeys(tensors, LENGTHS))


def _window_inputs(config: Any, fewest: int, size: Size) -> DummyInputs:
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    spectrum = torch.randn(size["batch_size"], config.max_length, config.num_mel_bins, generator=generator)
    return DummyInputs({"input_values": spectrum}, {"input_values": {0: "batch_size"}})


def audio_wrapper(task: str, model: nn.Module) -> nn.Module:
    from converter.wrappers.audio_encoder import AudioEncoder, SpeakerEncoder

    return SpeakerEncoder(model) if task == SPEAKERS else AudioEncoder(model, tuple(TASKS[task][1]))


def audio_reference(fields: tuple[str, ...], model: nn.Module, tensors: Any) -> dict[str, torch.Tensor]:
    output = model(**tensors)
    return {field: output[field] for field in fields}


def _fewest_frames(config: Any, task: str) -> int:
    """Of which the model can still make something: what it squeezes together, what a head's convolutions span."""
    if task != SPEAKERS:
        squeezed: int = getattr(config, "squeeze_factor", 1)
        return squeezed
    layers = zip(config.tdnn_kernel, config.tdnn_dilation, strict=True)
    spanned: int = sum((kernel - 1) * step for kernel, step in layers)
    return spanned + 2  # the spread of what comes out needs two values


def _length_axis(kind: Kind, config: Any, task: str) -> Axis:
    """Traced where squeezing leaves a frame over, for then the models that squeeze fill up by what is missing."""
    few = _fewest_frames(config, task)
    low, traced, high = few, few + 13, few + 40
    if kind.takes == "samples":
        low, traced, high = (samples_for(config, frames) for frames in (low, traced, high))
    return Axis("sequence_length", traced, low=low, high=high)


def _components(kind: Kind, config: Any, task: str) -> Sequence[Component]:
    _, fields = TASKS[task]
    inputs = {"samples": _sample_inputs, "spectrum": _spectrum_inputs, "window": _window_inputs}[kind.takes]
    axes = [Axis("batch_size", 2, high=5)]
    if kind.takes != "window":
        axes.append(_length_axis(kind, config, task))
    return (
        Component(
            stem="model",
            wrapper=partial(audio_wrapper, task),
            inputs=partial(inputs, config, _fewest_frames(config, task)),
            reference=partial(audio_reference, tuple(fields)),
            axes=tuple(axes),
            outputs=tuple(Output(name, varying) for name, varying in fields.items()),
        ),
    )


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    variants = {
        "samples": Variant("audio", ("model",), "samples of any length in"),
        "spectrum": Variant("audio", ("model",), "a spectrum of any length and its mask in"),
        "window": Variant("audio", ("model",), "a spectrum of the checkpoint's own length in"),
    }
    for model_type, kind in FAMILY.items():
        register(
            Architecture(
                name=model_type.replace("-", "_"),
                model_types=(model_type,),
                summary="audio encoder and its heads",
                reference_checkpoint="",
                source=AudioModel(
                    classes={task: TASKS[task][0] for task in kind.tasks},
                    tiny=kind.tiny,
                    model_type=model_type,
                ),
                components=partial(_components, kind),
                variants=dict.fromkeys(kind.tasks, (variants[kind.takes],)),
            )
        )
