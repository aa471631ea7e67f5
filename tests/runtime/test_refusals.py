"""What a package or a request cannot be is said before anything runs: what is wrong, where, and what to do."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.errors import PackageError, UsageError
from converter.runtime import Encoder


def replace(path: Path, content: str) -> None:
    path.unlink(missing_ok=True)  # it may be a link to a file that other tests read
    path.write_text(content)


@pytest.mark.xdist_group("minilm")
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("tokenizer.json", None, r"no tokenizer\.json"),
        ("onnx/model.onnx", None, r"no onnx/model\.onnx"),
        ("onnx/model.onnx", "cut off", "altered"),
        ("tokenizer.json", "{}", "altered"),
        ("1_Pooling/config.json", None, "pooling"),
        ("converter.json", '{"format_version": 99}', "upgrade"),
        ("converter.json", '{"format_version": 1, "kind": "checkpoint"}', "convert it first"),
        ("converter.json", "not json", "cannot be read"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_damaged_package_says_what_is_wrong(
    copy: Path, name: str, content: str | None, expected: str
) -> None:
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_text(content)
    with pytest.raises(PackageError, match=expected):
        Encoder(copy)


@pytest.mark.xdist_group("minilm")
def test_a_module_that_is_not_in_the_graph_is_not_left_out_in_silence(copy: Path) -> None:
    modules = json.loads((copy / "modules.json").read_text())
    modules.append({"idx": 3, "path": "3_Dense", "type": "sentence_transformers.models.Dense"})
    replace(copy / "modules.json", json.dumps(modules))
    (copy / "converter.json").unlink()
    with pytest.raises(PackageError, match="Dense"):
        Encoder(copy)


@pytest.mark.xdist_group("minilm")
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"precision": "q4"}, "fp32"),
        ({"providers": ["cuda"]}, "no CUDAExecutionProvider; it has .*CPUExecutionProvider"),
        ({"providers": [("tensorrt", {"device_id": 0}), "cuda"]}, "no TensorrtExecutionProvider"),
        ({"providers": ["cudaa"]}, "no provider 'cudaa'"),
        ({"providers": "cuda"}, "no CUDAExecutionProvider"),
        ({"providers": [None]}, "None is no provider"),
        ({"providers": [("cpu", 3)]}, r"\('cpu', 3\) is no provider"),
        ({"providers": []}, "cpu"),
        ({"threads": 0}, "1 or more"),
        ({"optimization": "most"}, "extended"),
        ({"pooling": "median"}, "mean_sqrt_len"),
        ({"max_length": 0}, "1 or more"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_met_says_what_can(
    minilm_package: Path, settings: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UsageError, match=expected):
        Encoder(minilm_package, **settings)


@pytest.mark.xdist_group("minilm")
def test_what_is_no_text_is_named(encoder: Encoder) -> None:
    with pytest.raises(UsageError, match="text 1 is of type NoneType, not str"):
        encoder.encode(["a", None])  # type: ignore[list-item]
    with pytest.raises(UsageError, match=r"text 1 has '\\ud83d' at 2, which is half of a character"):
        encoder.encode(["ä", "so\ud83d"])
    with pytest.raises(UsageError, match="batch of 0"):
        encoder.encode(["a"], batch_size=0)
    with pytest.raises(UsageError, match="None is no list of texts"):
        encoder.encode(None)  # type: ignore[arg-type]


@pytest.mark.xdist_group("minilm")
def test_a_graph_in_place_of_its_package_is_told_which_folder_is_meant(minilm_package: Path) -> None:
    with pytest.raises(PackageError, match="is a file") as caught:
        Encoder(minilm_package / "onnx" / "model.onnx")
    assert str(caught.value).endswith(f"name the package's folder: {minilm_package}")


@pytest.mark.parametrize("name", ["no/such/folder/here", "./missing", "/nowhere"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(PackageError, match="there is no folder"):
        Encoder(name)


@pytest.mark.xdist_group("minilm")
def test_a_hub_id_is_fetched_with_the_wanted_precision_only(
    encoder: Encoder, minilm_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, list[str]]] = []

    def snapshot(name: str, *, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        asked.append((name, ignore_patterns))
        return str(minilm_package)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    from_hub = Encoder("somebody/model")
    assert asked[0][0] == "somebody/model" and "*_fp16.onnx*" in asked[0][1]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(from_hub)).encode("a"), encoder.encode("a"))
    assert asked[1][0] == "somebody/model"


@pytest.mark.xdist_group("minilm")
def test_what_the_hubs_cache_has_opens_without_a_network(
    encoder: Encoder, minilm_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    repo, commit = tmp_path / "models--somebody--model", "a" * 40
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text(commit)
    shutil.copytree(minilm_package, repo / "snapshots" / commit, copy_function=os.link)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    np.testing.assert_array_equal(Encoder("somebody/model").encode("a"), encoder.encode("a"))
    with pytest.raises(PackageError, match="the hub does not give a model of that name"):
        Encoder("somebody/other")


def test_a_hub_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot(*_: Any, **__: Any) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    with pytest.raises(PackageError, match="no route to host"):
        Encoder("somebody/model")


def test_a_graph_for_another_task_is_refused(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    values = {
        name: helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"])
        for name in ("input_ids", "logits")
    }
    node = helper.make_node("Identity", ["input_ids"], ["logits"])
    graph = helper.make_graph([node], "g", [values["input_ids"]], [values["logits"]])
    (tmp_path / "onnx").mkdir()
    onnx.save(
        helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)]),
        tmp_path / "onnx/model.onnx",
    )
    with pytest.raises(PackageError, match=r"it gives logits\n.* whose graph gives sentence_embedding"):
        Encoder(tmp_path)
