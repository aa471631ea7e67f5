"""Checkpoints of sentence-transformers: pooling, dense layers and normalisation end up in the graph."""

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
from transformers import T5EncoderModel

from converter import convert
from converter.bench.graphs import load_original
from converter.cli.main import run

Checkpoints = Callable[..., Path]
KIND = "sentence_transformers.models."


def add_modules(checkpoint: Path, folder: Path, pooling: dict[str, Any], *rest: tuple[str, str]) -> Path:
    """The checkpoint with modules.json, a pooling config and further modules (kind, path)."""
    shutil.copytree(checkpoint, folder)
    listed = [("Transformer", ""), ("Pooling", "1_Pooling"), *rest]
    entries = [
        {"idx": i, "name": str(i), "path": path, "type": KIND + kind} for i, (kind, path) in enumerate(listed)
    ]
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def test_a_decoder_that_embeds_pools_the_last_token_on_either_side_of_padding(
    tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    plain = tiny_checkpoint("qwen3", overrides={"num_hidden_layers": 4})
    checkpoint = add_modules(
        plain, tmp_path / "embedder", {"pooling_mode_lasttoken": True}, ("Normalize", "2_Normalize")
    )
    report = convert(model=checkpoint, output=tmp_path / "package", parity="full")
    assert report.task == "feature-extraction" and report.parity.proven
    session = onnxruntime.InferenceSession(str(tmp_path / "package" / "onnx" / "model.onnx"))
    assert [value.name for value in session.get_inputs()] == ["input_ids", "attention_mask"]
    assert [value.name for value in session.get_outputs()] == ["last_hidden_state", "sentence_embedding"]
    text = [[17, 230, 5, 600]]
    right = {"input_ids": np.array([*text]), "attention_mask": np.ones((1, 4), np.int64)}
    embedded = []
    for before, behind in ((0, 0), (0, 3), (3, 0)):
        feed = {name: np.pad(value, ((0, 0), (before, behind))) for name, value in right.items()}
        hidden, embedding = session.run(None, feed)
        state = hidden[0, before + 3]
        np.testing.assert_allclose(embedding[0], state / np.linalg.norm(state), atol=1e-5)
        embedded.append(embedding)
    np.testing.assert_allclose(embedded[1], embedded[0], atol=1e-5)
    np.testing.assert_allclose(embedded[2], embedded[0], atol=1e-5)


def nest(checkpoint: Path, name: str) -> None:
    """Put what belongs to the transformer into a folder of its own, as checkpoints of 2020 have it."""
    (checkpoint / name).mkdir()
    for file in [path for path in checkpoint.iterdir() if path.is_file() and path.name != "modules.json"]:
        file.rename(checkpoint / name / file.name)
    entries = json.loads((checkpoint / "modules.json").read_text())
    entries[0]["path"] = name
    (checkpoint / "modules.json").write_text(json.dumps(entries))


@pytest.mark.parametrize("nested", ["", "0_Transformer"])
def test_dense_layers_come_from_their_own_files(
    tiny_checkpoint: Checkpoints, tmp_path: Path, nested: str
) -> None:
    modes = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True, "word_embedding_dimension": 36}
    checkpoint = add_modules(tiny_checkpoint("bert"), tmp_path / "embedder", modes, ("Dense", "2_Dense"))
    (checkpoint / "2_Dense").mkdir()
    activation = "torch.nn.modules.activation.Tanh"
    sizes = {"in_features": 72, "out_features": 10, "bias": True, "activation_function": activation}
    (checkpoint / "2_Dense" / "config.json").write_text(json.dumps(sizes))
    torch.manual_seed(5)
    weight, bias = torch.randn(10, 72) / 8, torch.randn(10)
    save_file({"linear.weight": weight, "linear.bias": bias}, checkpoint / "2_Dense" / "model.safetensors")
    if nested:
        nest(checkpoint, nested)
    arguments = ["--model", checkpoint, "--output", tmp_path / "package", "--task", "sentence-similarity"]
    assert run([*map(str, arguments), "--parity", "full"]) == 0
    # Clients look for the transformer where modules.json says, and for its graph in onnx/ there.
    assert json.loads((tmp_path / "package" / "modules.json").read_text())[0]["path"] == ""
    assert (tmp_path / "package" / "config.json").is_file() and not (
        tmp_path / "package" / "0_Transformer"
    ).exists()
    assert run(["verify", str(tmp_path / "package"), "--model", str(checkpoint)]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "package" / "onnx" / "model.onnx"))
    assert [value.name for value in session.get_outputs()] == ["token_embeddings", "sentence_embedding"]
    ids, mask = np.array([[3, 8, 400, 0, 0]]), np.array([[1, 1, 1, 0, 0]])
    feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    hidden, embedding = session.run(None, feed)
    pooled = np.concatenate([hidden[0, 0], hidden[0, :3].mean(0)])
    expected = np.tanh(pooled @ weight.numpy().T + bias.numpy())
    np.testing.assert_allclose(embedding[0], expected, atol=1e-5)


def test_a_benchmark_finds_the_transformer_in_its_own_folder(
    tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    checkpoint = add_modules(
        tiny_checkpoint("bert"), tmp_path / "embedder", {"pooling_mode_mean_tokens": True}
    )
    nest(checkpoint, "0_Transformer")
    original = load_original(str(checkpoint), "AutoModel", torch.get_num_threads())
    assert type(original).__name__ == "BertModel"


def test_the_encoder_of_an_encoder_decoder_embeds(tiny_checkpoint: Checkpoints, tmp_path: Path) -> None:
    """As sentence-t5 and GTR: T5 v1.1 in half precision, whose table is stored under the encoder's name alone."""
    gated = {"num_layers": 3, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    plain = tiny_checkpoint("t5", task="feature-extraction", overrides=gated)
    rest = ("Dense", "2_Dense"), ("Normalize", "3_Normalize")
    checkpoint = add_modules(plain, tmp_path / "embedder", {"pooling_mode_mean_tokens": True}, *rest)
    stored = {name: tensor.half() for name, tensor in load_file(checkpoint / "model.safetensors").items()}
    stored["encoder.embed_tokens.weight"] = stored.pop("shared.weight")
    save_file(stored, checkpoint / "model.safetensors", metadata={"format": "pt"})
    (checkpoint / "2_Dense").mkdir()
    sizes = {"in_features": 32, "out_features": 21, "bias": False}
    sizes["activation_function"] = "torch.nn.modules.linear.Identity"
    (checkpoint / "2_Dense" / "config.json").write_text(json.dumps(sizes))
    torch.manual_seed(5)
    weight = torch.randn(21, 32) / 6
    save_file({"linear.weight": weight}, checkpoint / "2_Dense" / "model.safetensors")
    arguments = ["--model", checkpoint, "--output", tmp_path / "package", "--task", "sentence-similarity"]
    assert run([*map(str, arguments), "--parity", "full"]) == 0
    # sentence-transformers computes the layers itself, from their own files.
    dense = Path("2_Dense") / "model.safetensors"
    assert (tmp_path / "package" / dense).read_bytes() == (checkpoint / dense).read_bytes()
    session = onnxruntime.InferenceSession(str(tmp_path / "package" / "onnx" / "model.onnx"))
    ids = np.pad(np.arange(2, 63)[None], ((0, 0), (4, 0)))  # longer than anything parity tried
    feed = {"input_ids": ids, "attention_mask": (ids > 0).astype(np.int64)}
    _, embedding = session.run(None, feed)
    original = T5EncoderModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.inference_mode():
        states = original(**{name: torch.from_numpy(value) for name, value in feed.items()}).last_hidden_state
    expected = torch.nn.functional.normalize(states[:, 4:].mean(1) @ weight.T, dim=-1)
    np.testing.assert_allclose(embedding, expected.numpy(), atol=1e-5)


def test_pickled_dense_layers_are_read_where_that_is_allowed(
    tiny_checkpoint: Checkpoints, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = add_modules(tiny_checkpoint("bert"), tmp_path / "embedder", {}, ("Dense", "2_Dense"))
    (checkpoint / "2_Dense").mkdir()
    (checkpoint / "2_Dense" / "config.json").write_text(json.dumps({"in_features": 36, "out_features": 10}))
    torch.manual_seed(5)
    weight, bias = torch.randn(10, 36) / 6, torch.randn(10)
    torch.save({"linear.weight": weight, "linear.bias": bias}, checkpoint / "2_Dense" / "pytorch_model.bin")
    arguments = ["--model", str(checkpoint), "--output", str(tmp_path / "package"), "--parity", "off"]
    arguments += ["--task", "sentence-similarity"]
    assert run(arguments) == 1
    assert "--allow-pickle" in capsys.readouterr().err
    assert run([*arguments, "--allow-pickle"]) == 0
    assert "2_Dense" not in capsys.readouterr().err  # no note says that its tensors are in no graph
    session = onnxruntime.InferenceSession(str(tmp_path / "package" / "onnx" / "model.onnx"))
    ids = np.array([[3, 8, 400]])
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    hidden, embedding = session.run(None, feed)
    expected = np.tanh(hidden[0].mean(0) @ weight.numpy().T + bias.numpy())
    np.testing.assert_allclose(embedding[0], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ([("LSTM", "2_LSTM")], "LSTM"),
        ([("Normalize", "2_Normalize"), ("Dense", "3_Dense")], "Normalize, Dense"),
        ([("Pooling", "1_Pooling")], "Pooling, Pooling"),
        ([("Dense", "tokens")], "token_embeddings"),
    ],
)
def test_modules_that_no_graph_can_hold_are_refused_and_the_remedy_helps(
    rest: list[tuple[str, str]],
    said: str,
    tiny_checkpoint: Checkpoints,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = add_modules(tiny_checkpoint("bert"), tmp_path / "embedder", {}, *rest)
    sizes: dict[str, Any] = {"in_features": 36, "out_features": 10}
    for path, more in (("3_Dense", {}), ("tokens", {"module_input_name": "token_embeddings"})):
        (checkpoint / path).mkdir()
        (checkpoint / path / "config.json").write_text(json.dumps({**sizes, **more}))
    arguments = ["--model", str(checkpoint), "--output", str(tmp_path / "package"), "--parity", "off"]
    assert run(arguments) == 1
    message = capsys.readouterr().err
    assert said in message and "without modules.json" in message
    assert not (tmp_path / "package").exists()
    (checkpoint / "modules.json").unlink()
    assert run([*arguments, "--task", "sentence-similarity"]) == 0


def test_a_sparse_encoder_keeps_its_head_and_a_note_names_what_clients_compute(
    tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    """As sentence-transformers writes SPLADE: modules, and a transformer that fills masks."""
    checkpoint = tmp_path / "splade"
    shutil.copytree(tiny_checkpoint("bert", task="fill-mask"), checkpoint)
    entries = [
        {"path": "", "type": KIND + "Transformer"},
        {"path": "1_Splade", "type": KIND + "SpladePooling"},
    ]
    (checkpoint / "modules.json").write_text(json.dumps(entries))
    (checkpoint / "sentence_bert_config.json").write_text(json.dumps({"transformer_task": "fill-mask"}))
    report = convert(model=checkpoint, output=tmp_path / "package", parity="off")
    assert report.task == "fill-mask"
    assert any("SpladePooling" in note for note in report.notes)
