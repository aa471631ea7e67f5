"""Checkpoints that hold a part of a model, or another head than the type's usual one: converted as what they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers

from converter import convert
from converter.checkpoint import open_checkpoint
from converter.cli.main import run
from converter.registry import Registry

Checkpoints = Callable[..., Path]
DEEP = {"num_layers": 3}
CLIP = {"num_hidden_layers": 2, "num_attention_heads": 3, "hidden_size": 36, "projection_dim": 20}


def edited(checkpoint: Path, folder: Path, **entries: object) -> Path:
    """The checkpoint with other entries in its config.json; None removes one."""
    shutil.copytree(checkpoint, folder)
    config = {**json.loads((folder / "config.json").read_text()), **entries}
    kept = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


def test_an_encoder_alone_is_found_and_takes_any_length(tiny_checkpoint: Checkpoints, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("t5", task="feature-extraction", overrides=DEEP)
    assert run(["--model", str(checkpoint), "--output", str(tmp_path / "package"), "--parity", "full"]) == 0
    record = json.loads((tmp_path / "package" / "converter.json").read_text())
    assert (record["architecture"], record["task"]) == ("t5", "feature-extraction")
    assert [file.name for file in (tmp_path / "package" / "onnx").iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(str(tmp_path / "package" / "onnx" / "model.onnx"))
    assert [value.name for value in session.get_outputs()] == ["last_hidden_state"]
    ids = torch.arange(2, 92)[
        None
    ]  # positions beyond relative_attention_max_distance, and beyond what parity tried
    feed = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    (found,) = session.run(None, {name: value.numpy() for name, value in feed.items()})
    with torch.inference_mode():
        expected = transformers.T5EncoderModel.from_pretrained(checkpoint).eval()(**feed).last_hidden_state
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_what_a_checkpoint_of_t5_is_for(
    builtin: Registry, tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    whole, encoder = tiny_checkpoint("t5"), tiny_checkpoint("t5", task="feature-extraction", overrides=DEEP)
    generates = "text2text-generation-with-past"
    cases = {
        "whole": (whole, ["T5ForConditionalGeneration"], generates),
        "older": (whole, ["T5WithLMHeadModel"], generates),
        "bare": (whole, ["T5Model"], generates),
        "unsaid": (whole, None, generates),
        "encoder": (encoder, None, "feature-extraction"),
        "several": (whole, ["T5ForConditionalGeneration", "T5ForSequenceClassification"], generates),
    }
    source = builtin.architectures["t5"].source
    for name, (checkpoint, named, task) in cases.items():
        opened = open_checkpoint(edited(checkpoint, tmp_path / name, architectures=named))
        assert source.default_task(opened) == task, name


@pytest.mark.parametrize(
    ("held", "asked", "words"),
    [
        ({}, "feature-extraction", ("whole encoder-decoder", '"architectures": ["T5EncoderModel"]')),
        (
            {"task": "feature-extraction", "overrides": DEEP},
            "text2text-generation-with-past",
            ("has no decoder", "T5EncoderModel"),
        ),
    ],
    ids=["the encoder of a whole model", "a decoder of an encoder"],
)
def test_a_part_that_is_not_there_is_refused_before_tracing(
    held: dict[str, Any],
    asked: str,
    words: tuple[str, ...],
    tiny_checkpoint: Checkpoints,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--model", tiny_checkpoint("t5", **held), "--output", tmp_path / "package", "--task", asked]
    assert run([str(argument) for argument in arguments]) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words) and "trace " not in message


def test_a_tower_keeps_its_projection_though_a_plugin_owns_those_without(tmp_path: Path) -> None:
    config = transformers.CLIPVisionConfig(**CLIP, intermediate_size=52, image_size=24, patch_size=4)
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(tmp_path / "tower")
    convert(model=tmp_path / "tower", output=tmp_path / "package", parity="off")
    session = onnxruntime.InferenceSession(str(tmp_path / "package" / "onnx" / "model.onnx"))
    assert "image_embeds" in {value.name for value in session.get_outputs()}


def test_a_class_that_no_auto_class_leads_to_is_called_as_it_is(tmp_path: Path) -> None:
    entries = {"vocab_size": 601, "max_position_embeddings": 20, "intermediate_size": 52}
    config = transformers.CLIPTextConfig(**CLIP, **entries, eos_token_id=600, bos_token_id=0, pad_token_id=1)
    torch.manual_seed(3)
    transformers.CLIPTextModelWithProjection(config).save_pretrained(tmp_path / "tower")
    for arch in ("auto", "clip_text_model"):
        report = convert(arch=arch, model=tmp_path / "tower", output=tmp_path / arch, parity="full")
        session = onnxruntime.InferenceSession(str(tmp_path / arch / "onnx" / "model.onnx"))
        assert report.parity.proven and "text_embeds" in {value.name for value in session.get_outputs()}


@pytest.mark.parametrize(
    ("arch", "task"), [("mbart", "text-classification"), ("whisper", "audio-classification")]
)
def test_heads_on_encoder_decoders_are_found(
    arch: str, task: str, tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    report = convert(model=tiny_checkpoint(arch, task=task), output=tmp_path / "package", parity="full")
    assert report.task == task and report.parity.proven and "onnx/model.onnx" in report.files
