"""Speech to text: an encoder graph over features, and the decoder graph of `seq2seq`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

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
from converter.plugins.seq2seq import (
    SOURCE,
    cross_attention_in_onnx,
    decoder_component,
    encoder_reference,
)

if TYPE_CHECKING:
    from torch import nn

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

# model type -> its tiny config
FAMILY: dict[str, dict[str, Any]] = {"whisper": WHISPER}


def feature_inputs(config: Any, size: Size) -> DummyInputs:
    """A window of spectrum, always as long as the config says: Whisper pads its audio to 30 seconds."""
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    shape = size["batch_size"], config.num_mel_bins, 2 * config.max_source_positions
    features = torch.randn(*shape, generator=generator)
    return DummyInputs({"input_features": features}, {"input_features": {0: "batch_size"}})


def _encoder(model: nn.Module) -> nn.Module:
    from converter.wrappers.seq2seq import Encoder

    return Encoder(model)


def _components(config: Any, task: str) -> Sequence[Component]:
    encoder = Component(
        stem="encoder_model",
        wrapper=_encoder,
        inputs=partial(feature_inputs, config),
        reference=encoder_reference,
        axes=(Axis("batch_size", 2, high=4),),
        outputs=(Output("last_hidden_state", SOURCE),),
    )
    return encoder, decoder_component(config, Axis("encoder_sequence_length", 7, high=20), masked=False)


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    variant = Variant(
        "speech",
        ("encoder_model", "decoder_model_merged"),
        "an encoder of one window of audio, and a decoder whose first step has no past and use_cache_branch false",
    )
    for model_type, tiny in FAMILY.items():
        register(
            Architecture(
                name=model_type,
                model_types=(model_type,),
                summary="speech recognition model",
                reference_checkpoint="",
                source=TransformersModel(
                    classes={TASK: "AutoModelForSpeechSeq2Seq"}, tiny=tiny, model_type=model_type
                ),
                components=_components,
                variants={TASK: (variant,)},
                translations=cross_attention_in_onnx,
            )
        )
