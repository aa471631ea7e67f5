"""Speech to text: an encoder graph over features or samples, and the decoder graph of `seq2seq`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from converter import Architecture, Axis, Component, DummyInputs, Size, hookimpl
from converter.plugins._generation import tone
from converter.plugins._merged_decoder import decoder_component, encoder_component, pair, scenario

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


def _decoder(config: Any) -> Component:
    return decoder_component(config, Axis("encoder_sequence_length", 7, high=20), masked=False)


def _windowed(config: Any, task: str) -> Sequence[Component]:
    return encoder_component(partial(window_inputs, config)), _decoder(config)


def _sampled(config: Any, task: str) -> Sequence[Component]:
    length = Axis("sequence_length", SAMPLES + 7 * STEP, low=SAMPLES, high=SAMPLES + 20 * STEP)
    return encoder_component(partial(sample_inputs, config), length), _decoder(config)


def _window_of_sound(config: Any, seed: int) -> dict[str, torch.Tensor]:
    """The window of spectrum that transformers' own feature extractor makes of synthetic audio."""
    from transformers import WhisperFeatureExtractor

    frames = 2 * config.max_source_positions
    extract = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    sounds = list(tone(seed, frames * extract.hop_length))
    made = extract(sounds, sampling_rate=extract.sampling_rate, return_tensors="pt")
    return {"input_features": made["input_features"][:, :, :frames].contiguous()}


def _sound(seed: int) -> dict[str, torch.Tensor]:
    import torch

    return {"input_values": torch.from_numpy(tone(seed, SAMPLES + 10 * STEP))}


def _scenarios(config: Any, task: str) -> Sequence[Scenario]:
    prompt = _sound if config.model_type == "moonshine" else partial(_window_of_sound, config)
    return (scenario(config, "transcription", prompt, masked=False),)


# model type -> its tiny config, its components, what its encoder takes
FAMILY: dict[str, tuple[dict[str, Any], Callable[[Any, str], Sequence[Component]], str]] = {
    "moonshine": (MOONSHINE, _sampled, "samples of any length"),
    "whisper": (WHISPER, _windowed, "one window of audio"),
}


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    for model_type, (tiny, components, what) in FAMILY.items():
        register(pair(model_type, tiny, TASK, "AutoModelForSpeechSeq2Seq", components, what, _scenarios))
