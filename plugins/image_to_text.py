"""Images to text (TrOCR, Donut, Nougat): an encoder graph over pixels, and the decoder graph of `seq2seq`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter import Architecture, Axis, Component, DummyInputs, Size, TransformersModel, hookimpl
from converter.errors import UsageError
from converter.plugins._merged_decoder import (
    decoder_component,
    encoder_component,
    pair,
    scenario,
)
from converter.plugins._vision_types import FAMILY
from converter.plugins.seq2seq import BART
from converter.plugins.vision_encoder import image_size

if TYPE_CHECKING:
    import torch

    from converter.scenario import Scenario

TASK = "image-to-text-with-past"
MODEL_TYPE = "vision-encoder-decoder"
TROCR = {
    "d_model": 36,
    "decoder_layers": 2,
    "decoder_attention_heads": 3,
    "decoder_ffn_dim": 44,
    "vocab_size": 601,
    "max_position_embeddings": 70,
    "cross_attention_hidden_size": None,
}
DECODERS: Mapping[str, Mapping[str, Any]] = {"trocr": TROCR, "mbart": BART}
# An encoder of another width than the decoder's, so that there is a projection between them.
ENCODERS: Mapping[str, Mapping[str, Any]] = {
    **{name: kind.small for name, kind in FAMILY.items() if kind.small.get("image_size")},
    **{name: {**FAMILY[name].small, "hidden_size": 30} for name in ("vit", "deit", "beit")},
}


@dataclass(frozen=True)
class PairedModel(TransformersModel):
    """An encoder and a decoder of any two model types; `tiny` has an entry for each type that is served."""

    def write_tiny(self, folder: Path, *, like: Any | None, seed: int, task: str) -> None:
        from transformers import CONFIG_MAPPING

        if like is None:  # TrOCR's two halves; the class itself would take BERT for the second
            halves = {
                side: CONFIG_MAPPING[kind]() for side, kind in (("encoder", "vit"), ("decoder", "trocr"))
            }
            like = CONFIG_MAPPING[self.model_type].from_encoder_decoder_configs(*halves.values())
        super().write_tiny(folder, like=like, seed=seed, task=task)

    def shrunk(self, base: Any) -> Any:
        from converter.sources import merged

        small = {side: self.tiny.get(getattr(base, side).model_type, {}) for side in ("encoder", "decoder")}
        return type(base).from_dict(merged(base.to_dict(), small))


def check(config: Any) -> None:
    """Raise UsageError for halves that no graph is known for."""
    for side, served in (("encoder", ENCODERS), ("decoder", DECODERS)):
        kind = getattr(config, side).model_type
        if kind not in served:
            raise UsageError(
                f"{MODEL_TYPE} with a {side} of type {kind!r} is not served",
                remedy=f"{side}s that are: {', '.join(sorted(served))}",
            )


def _images(config: Any, size: Size) -> DummyInputs:
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    shape = size["batch_size"], getattr(config, "num_channels", 3), *image_size(config)
    pixels = torch.randn(*shape, generator=generator)
    return DummyInputs({"pixel_values": pixels}, {"pixel_values": {0: "batch_size"}})


def _components(config: Any, task: str) -> Sequence[Component]:
    check(config)
    return (
        encoder_component(partial(_images, config.encoder), hidden={0: "batch_size"}),
        decoder_component(
            config.decoder,
            Axis("encoder_sequence_length", 7, high=20),
            masked=False,
            hidden=int(config.encoder.hidden_size),
        ),
    )


def _pictures(config: Any, seed: int) -> dict[str, torch.Tensor]:
    return dict(_images(config.encoder, Size({"batch_size": 3}, seed=seed)).tensors)


def _scenarios(config: Any, task: str) -> Sequence[Scenario]:
    return (scenario(config.decoder, "text of images", partial(_pictures, config), masked=False),)


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    source = PairedModel({TASK: "VisionEncoderDecoderModel"}, {**ENCODERS, **DECODERS}, MODEL_TYPE)
    checkpoint = "microsoft/trocr-small-printed"
    register(pair(source, _components, "pixels", _scenarios, variant="image", checkpoint=checkpoint))
