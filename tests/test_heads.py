"""Heads that a model type's own architecture has no task for: who converts them, and that it is asked at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from converter.errors import UsageError
from converter.packages.declared import architecture_of
from converter.records import Checkpoint
from converter.registry import load_registry
from converter.selection import settle_task

GENERATES, CLASSIFIES = "text2text-generation-with-past", "text-classification"
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
    ],
)
def test_what_the_type_has_a_task_for_stays_with_it(arch: str, named: str, task: str, tmp_path: Path) -> None:
    summary, found = settled(tmp_path, arch, named)
    assert summary != STAND_IN and found == task


def test_a_checkpoint_of_sentence_transformers_stays_with_its_type_whatever_its_head(tmp_path: Path) -> None:
    summary, task = settled(tmp_path, "llama", "LlamaForTokenClassification", modules=[])
    assert summary != STAND_IN and task == "feature-extraction"


def test_a_task_that_neither_has_is_the_types_own_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'llama' has no task 'fill-mask'"):
        settled(tmp_path, "llama", "LlamaForTokenClassification", "fill-mask")


def test_a_package_of_such_a_head_finds_the_stand_in_again(tmp_path: Path) -> None:
    own = architecture_of({"architecture": "llama", "task": "text-generation"}, tmp_path)
    other = architecture_of({"architecture": "llama", "task": "token-classification"}, tmp_path)
    assert own is not None and own.summary != STAND_IN
    assert other is not None and other.summary == STAND_IN
