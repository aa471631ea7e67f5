"""Packages made by hand: small graphs with the interfaces that conversions have, sealed as conversions are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
Values = Mapping[str, tuple[int, list[int | str]]]


def write_graph(path: Path, nodes: list[Any], inputs: Values, outputs: Values, weights: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    given, made = (
        [helper.make_tensor_value_info(name, *kind) for name, kind in values.items()]
        for values in (inputs, outputs)
    )
    graph = helper.make_graph(nodes, path.stem, given, made, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def describe(inputs: Values, outputs: Values, stem: str) -> dict[str, Any]:
    listed = {
        key: [
            {"name": name, "dtype": TensorProto.DataType.Name(dtype), "shape": shape}
            for name, (dtype, shape) in values.items()
        ]
        for key, values in (("inputs", inputs), ("outputs", outputs))
    }
    return {"file": f"onnx/{stem}.onnx", "opset": 18, "ir_version": 10, "nodes": 2, **listed}


TABLE = helper.make_tensor("table", FLOAT, [9, 9], [float(7 * i % 11) for i in range(81)])
LOGITS = helper.make_node("Gather", ["table", "input_ids"], ["logits"])


def decoder(folder: Path, stem: str, *, pair: bool) -> dict[str, Any]:
    """Logits by a table; past key values that grow by one hidden row a step."""
    inputs: dict[str, tuple[int, list[int | str]]] = {
        "input_ids": (INT64, ["batch_size", "sequence_length"]),
        "past_key_values.0.key": (FLOAT, ["batch_size", 2, "past_sequence_length", 4]),
    }
    if pair:
        inputs = {
            "encoder_hidden_states": (FLOAT, ["batch_size", "encoder_sequence_length", 3]),
            **inputs,
            "use_cache_branch": (BOOL, [1]),
        }
    else:
        inputs = {"attention_mask": (INT64, ["batch_size", "total_sequence_length"]), **inputs}
    outputs: Values = {
        "logits": (FLOAT, ["batch_size", "sequence_length", 9]),
        "present.0.key": (FLOAT, ["batch_size", 2, "total_sequence_length", 4]),
    }
    row = helper.make_tensor("row", FLOAT, [1, 2, 1, 4], [1.0] * 8)
    nodes = [LOGITS, helper.make_node("Concat", ["past_key_values.0.key", "row"], ["present.0.key"], axis=2)]
    write_graph(folder / f"onnx/{stem}.onnx", nodes, inputs, outputs, [TABLE, row])
    return describe(inputs, outputs, stem)


def encoder(folder: Path, stem: str = "encoder_model") -> dict[str, Any]:
    inputs: Values = {"input_features": (FLOAT, ["batch_size", 5, 3])}
    outputs: Values = {"last_hidden_state": (FLOAT, ["batch_size", "encoder_sequence_length", 3])}
    node = helper.make_node("Abs", ["input_features"], ["last_hidden_state"])
    write_graph(folder / f"onnx/{stem}.onnx", [node], inputs, outputs, [])
    return describe(inputs, outputs, stem)


def image(folder: Path, stem: str = "model") -> dict[str, Any]:
    inputs: Values = {"pixel_values": (FLOAT, ["batch_size", 3, "height", "width"])}
    outputs: Values = {"logits": (FLOAT, ["batch_size", 3])}
    axes = helper.make_tensor("axes", INT64, [2], [2, 3])
    node = helper.make_node("ReduceMean", ["pixel_values", "axes"], ["logits"], keepdims=0)
    write_graph(folder / f"onnx/{stem}.onnx", [node], inputs, outputs, [axes])
    return describe(inputs, outputs, stem)


def make(
    seal: Callable[..., None], folder: Path, task: str, graphs: Mapping[str, Any], **changes: Any
) -> dict[str, Any]:
    """Seal what lies in `folder` as a package of `graphs`. Returns its record."""
    record: dict[str, Any] = {
        "architecture": "some_arch",
        "task": task,
        "source": {"name": "org/some-model", "revision": "abc", "tensors": 4},
        "versions": {"converter": "0.1.0"},
        "settings": {"dtype": "fp32", "parity": "auto"},
        "variants": {"all": {"summary": "ids in, logits out", "graphs": dict(graphs)}},
        "parity": {
            "mode": "full",
            "why": "4.2 GiB are free",
            "passed": True,
            "tensors_checked": 0,
            "sizes": ["model: batch_size=1", "model: batch_size=3"],
            "worst": [
                {
                    "component": "model",
                    "size": "batch_size=3",
                    "output": "logits",
                    "pair": "graph/original",
                    "max_abs": 2.5e-6,
                    "cosine": 0.9999999,
                    "passed": True,
                }
            ],
        },
        "stages": [],
        "notes": ["one tensor is in no graph"],
    }
    record |= changes
    seal(folder, record)
    return record


@pytest.fixture
def decoder_package(seal: Callable[..., None], tmp_path: Path) -> Path:
    folder = tmp_path / "decoder"
    make(seal, folder, "text-generation-with-past", {"model": decoder(folder, "model", pair=False)})
    return folder


@pytest.fixture
def speech_package(seal: Callable[..., None], tmp_path: Path) -> Path:
    folder = tmp_path / "speech"
    graphs = {
        "encoder_model": encoder(folder),
        "decoder_model_merged": decoder(folder, "decoder_model_merged", pair=True),
    }
    (folder / "generation_config.json").write_text(json.dumps({"decoder_start_token_id": 2}))
    make(seal, folder, "automatic-speech-recognition-with-past", graphs)
    return folder


@pytest.fixture
def image_package(seal: Callable[..., None], tmp_path: Path) -> Path:
    folder = tmp_path / "image"
    graphs = {"model": image(folder)}
    (folder / "config.json").write_text(json.dumps({"image_size": [6, 4]}))
    (folder / "preprocessor_config.json").write_text("{}")
    make(seal, folder, "image-classification", graphs)
    return folder
