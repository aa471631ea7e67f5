"""Heads that a model type's own architecture has no task for: who converts them, and that it is asked at all."""

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
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from converter import convert
from converter.bench.original import open_declared
from converter.cli.main import run
from converter.errors import UsageError
from converter.packages.declared import architecture_of
from converter.records import Checkpoint
from converter.registry import load_registry
from converter.seeding import seed_weights
from converter.selection import settle_task
from converter.testing.plan import Asked, make_plan

GENERATES, CLASSIFIES = "text2text-generation-with-past", "text-classification"
FEATURES = "feature-extraction"
STAND_IN = "no plugin of its own: called as transformers has it"


def settled(folder: Path, arch: str, named: str, asked: str | None = None, **files: Any) -> tuple[str, str]:
    """What is said of the architecture, and the task, for a checkpoint of type `arch` that names the class `named`."""
    registry = load_registry()
    config = {"model_type": arch, "architectures": [named]}
    for name, content in {"config": config, **files}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    checkpoint = Checkpoint(folder, "mine", None, config, {})
    architecture, task = settle_task(asked, registry.find(arch), checkpoint, registry)
    return architecture.summary, task


@pytest.mark.parametrize(
    ("arch", "named", "task"),
    [
        ("llama", "LlamaForTokenClassification", "token-classification"),
        ("siglip", "SiglipForImageClassification", "image-classification"),
    ],
)
def test_a_head_that_the_type_has_no_task_for_is_the_stand_ins(
    arch: str, named: str, task: str, tmp_path: Path
) -> None:
    assert settled(tmp_path, arch, named) == (STAND_IN, task)
    assert settled(tmp_path, arch, named, task) == (STAND_IN, task)


@pytest.mark.parametrize(
    ("arch", "named", "task"),
    [
        ("bart", "BartModel", GENERATES),
        ("bart", "BartForConditionalGeneration", GENERATES),
        ("bart", "BartForSequenceClassification", CLASSIFIES),
        ("bart", "BartForQuestionAnswering", "question-answering"),
        ("whisper", "WhisperForAudioClassification", "audio-classification"),
        ("marian", "MarianMTModel", GENERATES),
        ("llama", "LlamaForSequenceClassification", CLASSIFIES),
        ("gemma3", "Gemma3ForConditionalGeneration", "image-text-to-text"),
        ("detr", "DetrForSegmentation", "image-segmentation"),
        ("mobilevit", "MobileViTForSemanticSegmentation", "semantic-segmentation"),
        ("deit", "DeiTForImageClassificationWithTeacher", "image-classification"),
        ("levit", "LevitForImageClassificationWithTeacher", "image-classification"),
    ],
)
def test_what_the_type_has_a_task_for_stays_with_it(arch: str, named: str, task: str, tmp_path: Path) -> None:
    summary, found = settled(tmp_path, arch, named)
    assert summary != STAND_IN and found == task


def test_a_tower_with_its_projection_is_the_stand_ins_and_one_without_is_not(tmp_path: Path) -> None:
    arch = "clip_vision_model"
    assert settled(tmp_path, arch, "CLIPVisionModelWithProjection") == (STAND_IN, FEATURES)
    summary, task = settled(tmp_path, arch, "CLIPVisionModel")
    assert summary != STAND_IN and task == "image-feature-extraction"


def test_a_tower_with_its_projection_gives_embeddings(tmp_path: Path) -> None:
    vision = {"hidden_size": 28, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 44}
    config = CLIPVisionConfig(**vision, image_size=24, patch_size=4, projection_dim=21)
    tower: Any = CLIPVisionModelWithProjection(config).eval()
    seed_weights(tower, 3)
    tower.save_pretrained(tmp_path / "tower")
    arguments = ["--model", tmp_path / "tower", "--output", tmp_path / "package", "--parity", "full"]
    assert run([*map(str, arguments)]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "package" / "onnx" / "model.onnx")
    pixels = torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = tower(pixels).image_embeds.numpy()
    (found,) = session.run(["image_embeds"], {"pixel_values": pixels.numpy()})
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_checkpoint_without_one_of_its_towers_is_refused_with_what_it_lacks(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "half"
    shutil.copytree(tiny_checkpoint("clip"), folder)
    stored = load_file(folder / "model.safetensors")
    half = {name: tensor for name, tensor in stored.items() if name.startswith("vis")}
    save_file(half, folder / "model.safetensors", {"format": "pt"})
    assert run(["--model", str(folder), "--output", str(tmp_path / "package")]) == 1
    message = capsys.readouterr().err
    assert "has no tensor in the checkpoint" in message and "bug" not in message


def test_a_checkpoint_of_sentence_transformers_stays_with_its_type_whatever_its_head(tmp_path: Path) -> None:
    summary, task = settled(tmp_path, "llama", "LlamaForTokenClassification", modules=[])
    assert summary != STAND_IN and task == "feature-extraction"


def test_a_task_that_neither_has_is_the_types_own_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'llama' has no task 'fill-mask'"):
        settled(tmp_path, "llama", "LlamaForTokenClassification", "fill-mask")


def test_a_package_that_the_stand_in_was_asked_for_is_verified_against_it(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """BERT has a plugin with that task, whose graph has no pooler."""
    folder, package = tiny_checkpoint("bert", task=FEATURES), tmp_path / "package"
    report = convert(arch="generic", model=folder, output=package, task=FEATURES, parity="full")
    assert (report.architecture, report.variants) == ("bert", ("model",))
    assert run(["verify", str(package), "--model", str(folder)]) == 0
    record = json.loads((package / "converter.json").read_text())
    again = architecture_of(record, package)
    assert again is not None and again.summary == STAND_IN
    declared, _ = open_declared(record, str(folder))
    assert {output.name for output in declared.components()["model"].outputs} == {
        "last_hidden_state",
        "pooler_output",
    }


def test_cases_of_the_stand_in_are_its_own(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = str(tiny_checkpoint("bert", task=FEATURES))
    plan = make_plan(Asked("generic", folder, FEATURES, ("fp32",)), tmp_path)
    assert plan.request.arch == "generic"
    assert make_plan(Asked("bert", folder, FEATURES, ("fp32",)), tmp_path).request.arch == "bert"


def test_a_package_of_such_a_head_finds_the_stand_in_again(tmp_path: Path) -> None:
    own = architecture_of({"architecture": "llama", "task": "text-generation"}, tmp_path)
    other = architecture_of({"architecture": "llama", "task": "token-classification"}, tmp_path)
    assert own is not None and own.summary != STAND_IN
    assert other is not None and other.summary == STAND_IN
