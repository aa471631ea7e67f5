"""Audio graphs: which inputs they have follows from the feature extractor, and which frames of the output count."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from converter.checkpoint import open_checkpoint
from converter.records import DummyInputs, Size
from converter.registry import load_registry

# what preprocessor_config.json says, or that there is none; what config.json says; the inputs
CASES = [
    (None, "group", {"input_values"}),
    (None, "layer", {"input_values", "attention_mask"}),
    ({"return_attention_mask": True}, "group", {"input_values", "attention_mask"}),
    ({"return_attention_mask": False}, "layer", {"input_values"}),
    ({"sampling_rate": 16000}, "layer", {"input_values"}),  # the extractor's default is to return none
]


@pytest.mark.parametrize(("extractor", "norm", "inputs"), CASES)
def test_there_is_a_mask_where_the_feature_extractor_returns_one(
    extractor: dict[str, Any] | None,
    norm: str,
    inputs: set[str],
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint("hubert", overrides={"feat_extract_norm": norm}), folder)
    if extractor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    made = example(folder, Size({"batch_size": 3, "sequence_length": 200}, "right"))
    assert set(made.tensors) == inputs
    if "attention_mask" in inputs:
        assert (made.tensors["attention_mask"].sum(dim=1) < 200).tolist() == [False, True, True]


def example(folder: Path, size: Size) -> DummyInputs:
    architecture = load_registry().find("hubert")
    config = architecture.source.config(open_checkpoint(folder))
    (component,) = architecture.components(config, "automatic-speech-recognition")
    return component.inputs(size)


@pytest.mark.parametrize("arch", ["granite_speech5_ctc", "lasr_encoder", "parakeet_ctc"])
def test_frames_that_count_are_those_the_model_itself_says(
    arch: str, tiny_checkpoint: Callable[..., Path]
) -> None:
    """What these models make of padding differs between torch and onnxruntime, and means nothing."""
    architecture = load_registry().find(arch)
    (task,) = architecture.tasks
    checkpoint = open_checkpoint(tiny_checkpoint(arch))
    model = architecture.source.original(checkpoint, task, None)
    (component,) = architecture.components(architecture.source.config(checkpoint), task)
    for length in (component.axes[1].low, 41, 60):
        made = component.inputs(Size({"batch_size": 3, "sequence_length": length}, "right"))
        ((field, output),) = component.reference(model, made.tensors).items()
        mask = made.tensors["attention_mask"]
        expected = model._get_output_attention_mask(mask, target_length=output.shape[1])
        assert torch.equal(made.valid[field], expected)
