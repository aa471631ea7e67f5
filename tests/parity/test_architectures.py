"""Every built-in architecture against its untouched original, from checkpoints with odd sizes.

A case is a model type, a task, and what its config says beyond the architecture's own tiny one. A conversion with
`parity="full"` compares original, wrapper and graph at batch 1, length 1, both paddings and random sizes, and raises
when any of them differ; with past key values, greedy generation as well. `make coverage` runs more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from converter import TransformersModel, convert
from converter.checkpoint import open_for
from converter.errors import ConverterError
from converter.registry import load_registry
from converter.request import Optimization
from converter.seeding import seed_weights

Checkpoints = Callable[..., Path]

# arch, task, config overrides, why this one
CASES: list[tuple[str, str, dict[str, Any], str]] = [
    ("bert", "fill-mask", {"num_hidden_layers": 3}, "tied decoder, depth 3"),
    ("bert", "text-classification", {"num_hidden_layers": 5}, "stamped layers under a head"),
    ("bert", "question-answering", {}, "two outputs"),
    ("roberta", "feature-extraction", {}, "positions read off the padding id"),
    ("distilbert", "token-classification", {}, "no segments"),
    ("albert", "feature-extraction", {"num_hidden_layers": 4}, "one layer used four times"),
    ("mpnet", "feature-extraction", {}, "relative position bias"),
    (
        "qwen2",
        "text-generation-with-past",
        {"num_hidden_layers": 5, "tie_word_embeddings": True},
        "stamped, tied, past",
    ),
    ("llama", "text-generation", {"num_hidden_layers": 3}, "no past"),
    ("mistral", "text-generation-with-past", {}, "a sliding window shorter than the text"),
    ("gemma2", "text-generation-with-past", {}, "sliding and full layers by turns"),
    (
        "mixtral",
        "text-generation-with-past",
        {"intermediate_size": 50},
        "experts of an odd width, each with its own run of tokens",
    ),
    ("dinov2", "image-feature-extraction", {}, "a position table stretched to images of any size"),
    ("dinov2_with_registers", "image-feature-extraction", {}, "the same, stretched with antialiasing"),
    (
        "vit",
        "image-classification",
        {"image_size": [24, 40], "patch_size": [6, 8], "num_channels": 2},
        "patches of a height and a width of their own, which fix the image's size",
    ),
    ("convnext", "image-classification", {}, "no attention, any image size"),
    ("detr", "object-detection", {}, "a mask of a resolution of its own"),
    ("rt_detr", "object-detection", {}, "queries picked by score among anchors of any image size"),
    ("depth_anything", "depth-estimation", {}, "an output as large as the image"),
    ("clip", "zero-shot-image-classification", {}, "two towers, together and each alone"),
    ("t5", "text2text-generation-with-past", {}, "one decoder graph for first and later steps"),
    (
        "marian",
        "text2text-generation-with-past",
        {
            "decoder_vocab_size": 587,
            "share_encoder_decoder_embeddings": False,
            "tie_word_embeddings": False,
        },
        "positions that no checkpoint stores, two vocabularies",
    ),
    ("moonshine", "automatic-speech-recognition-with-past", {}, "speech from samples, rotary positions"),
    (
        "wav2vec2",
        "automatic-speech-recognition",
        {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "num_hidden_layers": 3},
        "samples of any length under a mask",
    ),
    ("sew", "audio-classification", {}, "frames squeezed together, an odd one left over"),
    ("wavlm", "audio-xvector", {"return_attention_mask": True}, "each row pooled over its own frames"),
    ("whisper", "automatic-speech-recognition-with-past", {}, "a decoder without an encoder mask"),
    (
        "conditional_detr",
        "object-detection",
        {"decoder_layers": 5},
        "layers that cannot be stamped, batch statistics",
    ),
    ("speech_to_text", "automatic-speech-recognition-with-past", {}, "frames halved twice under their mask"),
    ("vision_encoder_decoder", "image-to-text-with-past", {}, "halves of different widths"),
]


# A dozen, one for each kind of graph, runs in CI; the others wait for `make coverage`.
CHOSEN = {
    ("bert", "text-classification"),
    ("qwen2", "text-generation-with-past"),
    ("gemma2", "text-generation-with-past"),
    ("mixtral", "text-generation-with-past"),
    ("dinov2", "image-feature-extraction"),
    ("detr", "object-detection"),
    ("depth_anything", "depth-estimation"),
    ("clip", "zero-shot-image-classification"),
    ("t5", "text2text-generation-with-past"),
    ("wav2vec2", "automatic-speech-recognition"),
    ("whisper", "automatic-speech-recognition-with-past"),
    ("moonshine", "automatic-speech-recognition-with-past"),
}


# Levels of `--optimize` beyond the usual one, each for graphs that it changes: positions and norms as single operators,
# heads split by the attention, onnxruntime's own operators. `make coverage` runs each case at both.
LEVELS: dict[tuple[str, str], Optimization] = {
    ("bert", "text-classification"): "ort",
    ("gemma2", "text-generation-with-past"): "extended",
    ("dinov2", "image-feature-extraction"): "ort",
    ("t5", "text2text-generation-with-past"): "extended",
    ("whisper", "automatic-speech-recognition-with-past"): "ort",
}


def parameters() -> list[Any]:
    return [
        pytest.param(
            *case[:3],
            id=f"{case[0]}-{case[1]}",
            marks=() if case[:2] in CHOSEN else pytest.mark.coverage,
        )
        for case in CASES
    ]


@pytest.mark.parametrize(("arch", "task", "overrides"), parameters())
def test_graph_equals_the_original_at_sizes_never_traced(
    arch: str, task: str, overrides: dict[str, Any], tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    checkpoint = tiny_checkpoint(arch, task=task, overrides=overrides)
    level = LEVELS.get((arch, task), "basic")
    report = convert(model=checkpoint, output=tmp_path / "package", task=task, parity="full", optimize=level)
    sizes = {row.size for row in report.parity.comparisons}
    assert report.parity.passed
    assert len(sizes) >= 6
    generated = [row for row in report.parity.comparisons if row.output == "tokens"]
    assert len(generated) == int(task.endswith("-with-past"))
    assert {row.pair for row in report.parity.comparisons} == {
        "wrapper/original",
        "graph/original",
        "graph/wrapper",
    }


@pytest.mark.coverage
@pytest.mark.parametrize("level", ["extended", "ort"])
@pytest.mark.parametrize(("arch", "task", "overrides"), [case[:3] for case in CASES])
def test_no_level_of_optimization_changes_what_is_computed(
    arch: str,
    task: str,
    overrides: dict[str, Any],
    level: Optimization,
    tiny_checkpoint: Checkpoints,
    tmp_path: Path,
) -> None:
    checkpoint = tiny_checkpoint(arch, task=task, overrides=overrides)
    target = tmp_path / "package"
    assert convert(model=checkpoint, output=target, task=task, parity="full", optimize=level).parity.passed


def test_every_task_that_is_offered_has_a_class() -> None:
    for name, architecture in load_registry().architectures.items():
        source = architecture.source
        if isinstance(source, TransformersModel):
            assert set(architecture.tasks) == set(source.classes), name


@pytest.mark.parametrize(
    ("image", "patch", "varies"),
    [
        (24, 4, True),
        ([24, 24], 4, True),
        (24, [4, 6], False),
        (24, (4, 4), False),
        ([16, 36], 4, False),
    ],
)
def test_positions_are_stretched_only_over_a_square_of_squares(image: Any, patch: Any, varies: bool) -> None:
    from transformers import ViTConfig

    config = ViTConfig(image_size=image, patch_size=patch)
    (component,) = load_registry().find("vit").components(config, "image-feature-extraction")
    assert ({axis.name for axis in component.axes} == {"batch_size", "height", "width"}) is varies


def test_states_of_a_window_of_sound_have_one_length() -> None:
    from transformers import WhisperConfig

    task = "automatic-speech-recognition-with-past"
    encoder, decoder = load_registry().find("whisper").components(WhisperConfig(), task)
    assert [dict(output.axes) for output in encoder.outputs] == [{0: "batch_size"}]
    assert "encoder_sequence_length" in {axis.name for axis in decoder.axes}


def test_a_wide_image_and_a_teachers_head_are_those_of_the_class_that_config_json_names(
    tmp_path: Path,
) -> None:
    from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher

    # 4 x 9 patches: as many as 6 x 6, for which the stretching takes them.
    sizes = {"hidden_size": 36, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 52}
    config = DeiTConfig(**sizes, image_size=[16, 36], patch_size=4, num_labels=5)
    model = DeiTForImageClassificationWithTeacher(config).eval()
    seed_weights(model, 3)
    model.save_pretrained(tmp_path / "checkpoint")
    report = convert(model=tmp_path / "checkpoint", output=tmp_path / "package", parity="off")
    assert report.task == "image-classification"
    pixels = torch.randn(3, 3, 16, 36, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        expected = model(pixels).logits
    session = onnxruntime.InferenceSession(str(tmp_path / "package" / "onnx" / "model.onnx"))
    (logits,) = session.run(["logits"], {"pixel_values": pixels.numpy()})
    assert np.abs(logits - expected.numpy()).max() < 1e-5


def test_no_architecture_misses_an_entry_that_its_classes_own_config_has_not() -> None:
    """Tiny configs have entries of the whole family, which a published config.json of one type need not have."""
    from transformers import CONFIG_MAPPING

    for architecture in load_registry().architectures.values():
        if architecture.stand_in is not None:
            continue
        for model_type in set(architecture.model_types) & set(CONFIG_MAPPING):
            for task in architecture.tasks:
                # What is refused is refused with a reason; anything else is a bug.
                with contextlib.suppress(ConverterError):
                    assert architecture.components(CONFIG_MAPPING[model_type](), task), model_type


@pytest.mark.parametrize(("kind", "task"), [("Bloom", "text-generation"), ("CodeGen", "feature-extraction")])
def test_a_config_as_published_is_enough(kind: str, task: str, tmp_path: Path) -> None:
    """BLOOM's names no longest text, CodeGen's no padding."""
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "rotary_dim": 4}
    config = getattr(transformers, f"{kind}Config")(vocab_size=601, **sizes)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    seed_weights(model, 3)
    model.save_pretrained(tmp_path / "checkpoint")
    report = convert(model=tmp_path / "checkpoint", output=tmp_path / "package", task=task, parity="full")
    assert report.parity.passed


def test_every_chosen_case_exists() -> None:
    assert {case[:2] for case in CASES} >= CHOSEN >= set(LEVELS) and len(CHOSEN) == 12


@pytest.mark.parametrize(
    "arch", ["vit", "deit", "dinov2", "dinov2_with_registers", "dinov3_vit", "siglip_vision_model"]
)
def test_images_of_any_size_go_into_what_stretches_its_positions(
    arch: str, tiny_checkpoint: Checkpoints
) -> None:
    architecture = load_registry().find(arch)
    config = architecture.source.config(open_for(architecture, tiny_checkpoint(arch)))
    (component,) = architecture.components(config, "image-feature-extraction")
    assert {"height", "width"} <= {axis.name for axis in component.axes}


@pytest.mark.parametrize("arch", ["beit", "data2vec_vision"])
def test_relative_positions_follow_the_size_of_the_image(
    arch: str, tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    """Every published BEiT has a table of relative positions, which the usual tiny one has not."""
    overrides = {"use_relative_position_bias": True, "use_absolute_position_embeddings": False}
    checkpoint = tiny_checkpoint(arch, task="image-classification", overrides=overrides)
    report = convert(model=checkpoint, output=tmp_path / "package", parity="full")
    assert report.parity.passed and len({row.size for row in report.parity.comparisons}) >= 6
