"""Three graphs of one recommender: each computes what the model does, and they share their weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from converter_two_tower.model import TwoTower
from converter_two_tower.source import TASK, TwoTowerSource, framework_tensors

from converter import ConverterError, convert
from converter.checkpoint import open_for
from converter.registry import load_registry


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    TwoTowerSource().write_tiny(folder, like=None, seed=3, task=TASK)
    return folder


@pytest.fixture(scope="session")
def package(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("package") / "package"
    report = convert(model=checkpoint, output=output, parity="full", external_data="always")
    assert report.architecture == "two_tower", "found by the folder alone"
    assert report.parity.proven
    return output


def original(checkpoint: Path) -> TwoTower:
    opened = open_for(load_registry().find("two_tower"), checkpoint)
    model = TwoTowerSource().original(opened, TASK, None)
    assert isinstance(model, TwoTower)
    return model


def test_the_names_of_the_framework_become_those_of_the_model(checkpoint: Path) -> None:
    from safetensors.torch import load_file

    model, stored = original(checkpoint), load_file(checkpoint / "weights.safetensors")
    again = framework_tensors(model)
    assert again.keys() == stored.keys()
    assert all(torch.equal(again[name], stored[name]) for name in stored)


def test_a_user_without_history_is_scored(checkpoint: Path, package: Path) -> None:
    session = onnxruntime.InferenceSession(package / "onnx" / "model.onnx")
    profile = np.linspace(-1, 1, 14, dtype=np.float32).reshape(2, 7)
    feed = {
        "user_ids": np.array([4, 28]),
        "profile": profile,
        "history_ids": np.array([[0, 0, 0], [7, 8, 0]]),
        "history_mask": np.array([[0, 0, 0], [1, 1, 0]]),
        "item_ids": np.array([[1, 52], [3, 3]]),
    }
    (scores,) = session.run(None, feed)
    histories = [torch.tensor([], dtype=torch.long), torch.tensor([7, 8])]
    with torch.no_grad():
        expected = original(checkpoint).recommend(
            torch.tensor([4, 28]), torch.from_numpy(profile), histories, torch.tensor([[1, 52], [3, 3]])
        )
    assert np.abs(scores - expected.numpy()).max() < 1e-5


def test_the_three_graphs_store_each_weight_once(checkpoint: Path, package: Path) -> None:
    (data,) = (package / "onnx").glob("model.*_data")
    assert data.stat().st_size < 1.1 * (checkpoint / "weights.safetensors").stat().st_size


def test_the_package_records_the_config_that_it_has_no_file_of(package: Path) -> None:
    """Precisions are judged on the plugin's inputs, which need the sizes that `hparams.json` has."""
    record = json.loads((package / "converter.json").read_text())
    assert record["source"]["config"]["items"] == 53


def test_a_folder_without_its_weights_says_so(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "hparams.json").write_text(json.dumps({"model": "two_tower"}))
    with pytest.raises(ConverterError, match=r"no weights\.safetensors"):
        convert(model=folder, output=tmp_path / "out")
