"""Rope type `dynamic`: behind the trained length all positions turn the more the longer a text is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from converter import convert
from converter.checkpoint import open_checkpoint
from converter.records import Size
from converter.registry import load_registry

Checkpoints = Callable[..., Path]
TASK = "text-generation-with-past"
TRAINED = 32
DYNAMIC = {
    "max_position_embeddings": TRAINED,
    "rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
}


@pytest.fixture(scope="module")
def dynamic(tiny_checkpoint: Checkpoints) -> Path:
    return tiny_checkpoint("llama", task=TASK, overrides=DYNAMIC)


def original(folder: Path, task: str = TASK) -> Any:
    return load_registry().find("llama").source.original(open_checkpoint(folder), task, None)


def logits(model: Any, ids: torch.Tensor) -> np.ndarray[Any, Any]:
    with torch.no_grad():
        found: np.ndarray[Any, Any] = model(input_ids=ids, use_cache=False).logits.numpy()
    return found


def test_a_graph_turns_positions_as_the_original_does_before_and_behind_the_trained_length(
    dynamic: Path, tmp_path: Path
) -> None:
    import onnxruntime

    report = convert(model=dynamic, output=tmp_path / "package", parity="full")
    assert report.parity.proven  # generation among it, whose texts outgrow the trained length
    session = onnxruntime.InferenceSession(tmp_path / "package" / "onnx" / "model.onnx")
    model = original(dynamic)
    for length in (TRAINED - 1, TRAINED, TRAINED + 1, TRAINED + 20):  # each longer than any before
        ids = torch.randint(3, 601, (2, length), generator=torch.Generator().manual_seed(length))
        feed = {"input_ids": ids.numpy(), "attention_mask": np.ones((2, length), np.int64)}
        feed["position_ids"] = np.broadcast_to(np.arange(length), (2, length)).copy()
        past = {name: np.zeros((2, 2, 0, 8), np.float32) for name in names(session, "past_key_values")}
        (found,) = session.run(["logits"], {**feed, **past})
        assert np.abs(found - logits(model, ids)).max() < 1e-5
    # A longer text is remembered until one comes that is shorter than the trained length: that is what no graph does.
    short = torch.randint(3, 601, (2, TRAINED + 1), generator=torch.Generator().manual_seed(1))
    assert np.abs(logits(model, short) - logits(original(dynamic), short)).max() > 1e-3


def names(session: Any, prefix: str) -> list[str]:
    return [entry.name for entry in session.get_inputs() if entry.name.startswith(prefix)]


def test_an_original_that_has_read_a_longer_text_gives_the_same_reference(dynamic: Path) -> None:
    architecture, model = load_registry().find("llama"), original(dynamic)
    config = architecture.source.config(open_checkpoint(dynamic))
    (component,) = architecture.components(config, TASK)
    size = Size({"batch_size": 2, "sequence_length": 13, "past_sequence_length": 24}, "left", 0)
    inputs = component.inputs(size).tensors
    assert TRAINED < inputs["position_ids"].max() < 2 * TRAINED
    with torch.no_grad():
        fresh = component.reference(model, inputs)["logits"]
        logits(model, torch.ones(1, 4 * TRAINED, dtype=torch.int64))
        assert torch.equal(component.reference(model, inputs)["logits"], fresh)
        wrapped = component.wrapper(model)(**inputs)[0]
    assert torch.allclose(wrapped, fresh, atol=1e-5)


def test_an_encoder_turns_them_alike(tiny_checkpoint: Checkpoints) -> None:
    folder = tiny_checkpoint("llama", task="feature-extraction", overrides=DYNAMIC)
    architecture, model = load_registry().find("llama"), original(folder, "feature-extraction")
    (component,) = architecture.components(
        architecture.source.config(open_checkpoint(folder)), "feature-extraction"
    )
    ids = torch.randint(3, 601, (2, TRAINED + 9), generator=torch.Generator().manual_seed(2))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        model(input_ids=torch.ones(1, 4 * TRAINED, dtype=torch.int64))
        reference = component.reference(model, inputs)["last_hidden_state"]
        assert torch.allclose(component.wrapper(model)(**inputs)[0], reference, atol=1e-5)


def test_a_stretch_that_is_fixed_under_the_same_name_is_no_memory(
    tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    """As HunYuan publishes it. The texts of parity are longer than the positions it was trained with."""
    rope = {"rope_type": "dynamic", "alpha": 50.0, "factor": 1.0, "rope_theta": 10000.0}
    overrides = {"rope_parameters": rope, "max_position_embeddings": 16}
    checkpoint = tiny_checkpoint("hunyuan_v1_dense", overrides=overrides)
    assert convert(model=checkpoint, output=tmp_path / "package", parity="full").parity.passed
