"""Speech to text: an encoder graph over features or samples, and the decoder graph of `seq2seq`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from converter import Architecture, Axis, Component, DummyInputs, Output, Size, Variant, hookimpl
from converter.plugins._encoder_decoder import EncoderDecoder
from converter.plugins._generation import tone
from converter.plugins._merged_decoder import (
    decoder_component,
    decoder_inputs,
    encoder_component,
    pair,
    scenario,
    width,
)
from converter.plugins.audio_encoder import CLASSES, TASKS, audio_reference, audio_wrapper
from converter.plugins.seq2seq import BART

if TYPE_CHECKING:
    import torch

    from converter.scenario import Scenario

TASK = "automatic-speech-recognition-with-past"

WHISPER = {
    "d_model": 36,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 52,
    "decoder_ffn_dim": 44,
    "vocab_size": 601,
    "num_mel_bins": 10,
    "max_source_positions": 11,
    "max_target_positions": 50,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
    "begin_suppress_tokens": [4, 2],
}
MOONSHINE = {
    "hidden_size": 36,
    "intermediate_size": 52,
    "encoder_num_hidden_layers": 2,
    "decoder_num_hidden_layers": 2,
    "encoder_num_attention_heads": 3,
    "decoder_num_attention_heads": 3,
    "encoder_num_key_value_heads": 3,
    "decoder_num_key_value_heads": 3,
    "vocab_size": 601,
    "max_position_embeddings": 70,
}
SPEECH_TO_TEXT = {
    **BART,
    "input_feat_per_channel": 10,
    "conv_channels": 28,
    "conv_kernel_sizes": [5, 3],
    "max_source_positions": 90,
    "max_target_positions": 70,
}
LABELLED = (Variant("audio", ("model",), "a spectrum of the checkpoint's own length in, logits out"),)
FRAMES = {0: "batch_size", 1: "num_frames"}
# What Moonshine's three convolutions span, and how far apart they look.
SAMPLES, STEP = 895, 384


def window_inputs(config: Any, size: Size) -> DummyInputs:
    """A window of spectrum, always as long as the config says: Whisper pads its audio to 30 seconds."""
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    shape = size["batch_size"], config.num_mel_bins, 2 * config.max_source_positions
    features = torch.randn(*shape, generator=generator)
    return DummyInputs({"input_features": features}, {"input_features": {0: "batch_size"}})


def sample_inputs(config: Any, size: Size) -> DummyInputs:
    """Samples of any length and no mask: rows of one length, as transformers.js and moonshine-onnx send them."""
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    samples = torch.randn(size["batch_size"], size["sequence_length"], generator=generator)
    return DummyInputs({"input_values": samples}, {"input_values": {0: "batch_size", 1: "sequence_length"}})


def frame_inputs(config: Any, size: Size) -> DummyInputs:
    """Frames of a spectrum and which of them are real, padded on the right as Speech2Text's extractor does it."""
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    batch, frames = size["batch_size"], size["num_frames"]
    channels = config.input_feat_per_channel * config.input_channels
    mask = frame_mask(size)
    lengths = torch.tensor([after_convolutions(config, int(real)) for real in mask.sum(dim=1)])
    real = torch.arange(after_convolutions(config, frames)) < lengths[:, None]
    return DummyInputs(
        {
            "input_features": torch.randn(batch, frames, channels, generator=generator),
            "attention_mask": mask,
        },
        {"input_features": FRAMES, "attention_mask": FRAMES},
        {"last_hidden_state": real},
    )


def frame_mask(size: Size) -> torch.Tensor:
    """int64 (batch, frames), each row shorter than the one before where padding is asked for."""
    import torch

    frames, step = size["num_frames"], 0 if size.padding == "none" else max(1, size["num_frames"] // 4)
    lengths = (frames - step * torch.arange(size["batch_size"])).clamp(min=1)
    return (torch.arange(frames) < lengths[:, None]).long()


def after_convolutions(config: Any, frames: int) -> int:
    """How many states the encoder makes of so many frames: each convolution takes every second."""
    for _ in range(config.num_conv_layers):
        frames = (frames - 1) // 2 + 1
    return frames


def _framed_decoder_inputs(config: Any, size: Size) -> DummyInputs:
    """The decoder's own, under a mask of the encoder's frames: the model works out which states are real."""
    length = after_convolutions(config, size["num_frames"])
    sized = replace(size, axes={**size.axes, "encoder_sequence_length": length})
    made = decoder_inputs(config, width(config), False, sized)
    mask = {"encoder_attention_mask": frame_mask(size)}
    axes = {"encoder_attention_mask": FRAMES}
    return replace(made, tensors={**mask, **made.tensors}, axes={**axes, **made.axes})


def _decoder(config: Any) -> Component:
    return decoder_component(config, Axis("encoder_sequence_length", 7, high=20), masked=False)


def _windowed(config: Any, task: str) -> Sequence[Component]:
    if task == CLASSES:
        fields = TASKS[CLASSES][1]
        return (
            Component(
                stem="model",
                wrapper=partial(audio_wrapper, CLASSES),
                inputs=partial(window_inputs, config),
                reference=partial(audio_reference, tuple(fields)),
                axes=(Axis("batch_size", 2, high=5),),
                outputs=tuple(Output(name, varying) for name, varying in fields.items()),
            ),
        )
    # A window has one length, and so have its states.
    return encoder_component(partial(window_inputs, config), hidden={0: "batch_size"}), _decoder(config)


def _sampled(config: Any, task: str) -> Sequence[Component]:
    length = Axis("sequence_length", SAMPLES + 7 * STEP, low=SAMPLES, high=SAMPLES + 20 * STEP)
    return encoder_component(partial(sample_inputs, config), length), _decoder(config)


def _framed(config: Any, task: str) -> Sequence[Component]:
    frames = Axis("num_frames", 27, high=60)
    decoder = decoder_component(config, frames, masked=True)
    return (
        encoder_component(partial(frame_inputs, config), frames),
        replace(decoder, inputs=partial(_framed_decoder_inputs, config)),
    )


def _window_of_sound(config: Any, seed: int) -> dict[str, torch.Tensor]:
    """The window of spectrum that transformers' own feature extractor makes of synthetic audio."""
    from transformers import WhisperFeatureExtractor

    frames = 2 * config.max_source_positions
    extract = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    sounds = list(tone(seed, frames * extract.hop_length))
    made = extract(sounds, sampling_rate=extract.sampling_rate, return_tensors="pt")
    return {"input_features": made["input_features"][:, :, :frames].contiguous()}


def _frames_of_sound(config: Any, seed: int) -> dict[str, torch.Tensor]:
    """Two sounds of different lengths, as transformers' own feature extractor hands them out."""
    from transformers import Speech2TextFeatureExtractor

    bins = config.input_feat_per_channel
    extract = Speech2TextFeatureExtractor(feature_size=bins, num_mel_bins=bins)
    sounds = [sound[: 9000 - 3000 * row] for row, sound in enumerate(tone(seed, 9000))]
    made = extract(sounds, sampling_rate=extract.sampling_rate, padding=True, return_tensors="pt")
    return {"input_features": made["input_features"], "attention_mask": made["attention_mask"].long()}


def _sound(config: Any, seed: int) -> dict[str, torch.Tensor]:
    import torch

    return {"input_values": torch.from_numpy(tone(seed, SAMPLES + 10 * STEP))}


@dataclass(frozen=True)
class Kind:
    """How a model type differs.

    tiny        its tiny config
    components  of a config
    what        its encoder takes
    prompt      (config, seed) -> synthetic sound, as the encoder takes it
    masked      whether the sound comes with a mask, which the decoder sees too
    classifies  whether there is a classifier over the encoder alone
    """

    tiny: Mapping[str, Any]
    components: Callable[[Any, str], Sequence[Component]]
    what: str
    prompt: Callable[[Any, int], dict[str, torch.Tensor]]
    masked: bool = False
    classifies: bool = False


FAMILY = {
    "moonshine": Kind(MOONSHINE, _sampled, "samples of any length", _sound),
    "speech_to_text": Kind(SPEECH_TO_TEXT, _framed, "frames of a spectrum", _frames_of_sound, masked=True),
    "whisper": Kind(WHISPER, _windowed, "one window of audio", _window_of_sound, classifies=True),
}


def _scenarios(kind: Kind, config: Any, task: str) -> Sequence[Scenario]:
    if task != TASK:
        return ()
    return (scenario(config, "transcription", partial(kind.prompt, config), masked=kind.masked),)


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    for model_type, kind in FAMILY.items():
        classes = {
            TASK: "AutoModelForSpeechSeq2Seq",
            **({CLASSES: TASKS[CLASSES][0]} if kind.classifies else {}),
        }
        source = EncoderDecoder(classes, kind.tiny, model_type)
        made = pair(source, kind.components, kind.what, partial(_scenarios, kind), variant="speech")
        register(replace(made, variants={**dict.fromkeys(classes, LABELLED), TASK: made.variants[TASK]}))
