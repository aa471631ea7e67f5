"""A conversion as a user sees it: the command and the package it leaves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load_file, save_file

from converter import convert
from converter.cli.main import run

Checkpoints = Callable[..., Path]
Array = np.ndarray


def convert_cli(*arguments: object) -> int:
    return run([str(argument) for argument in arguments])


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


# --- MiniLM: real weights ---------------------------------------------------------------------------------------------


@pytest.mark.xdist_group("minilm")
def test_minilm_is_one_self_contained_file_with_its_companions(minilm_package: Path) -> None:
    onnx_files = sorted(path.name for path in (minilm_package / "onnx").iterdir())
    assert onnx_files == ["model.onnx"]
    assert {"config.json", "tokenizer.json", "tokenizer_config.json", "converter.json"} <= {
        path.name for path in minilm_package.iterdir()
    }


@pytest.mark.xdist_group("minilm")
def test_minilm_has_the_names_that_clients_look_for(minilm_package: Path) -> None:
    graph = session(minilm_package / "onnx/model.onnx")
    assert [value.name for value in graph.get_inputs()] == ["input_ids", "attention_mask", "token_type_ids"]
    assert graph.get_inputs()[0].shape == ["batch_size", "sequence_length"]
    assert [value.name for value in graph.get_outputs()] == ["last_hidden_state"]


@pytest.mark.xdist_group("minilm")
def test_minilm_gives_the_embeddings_of_the_original_on_real_text(minilm: Path, minilm_package: Path) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = [
        "A cat sat on the mat.",
        "ONNX",
        "The quarterly report shows revenue growing in every region but one.",
    ]
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    encoded = tokenizer(texts, padding=True, return_tensors="np")
    feed = {
        name: encoded[name].astype(np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")
    }
    (ours,) = session(minilm_package / "onnx/model.onnx").run(None, feed)
    with torch.no_grad():
        theirs = AutoModel.from_pretrained(minilm)(**{k: torch.from_numpy(v) for k, v in feed.items()})
    real = feed["attention_mask"].astype(bool)
    np.testing.assert_allclose(ours[real], theirs.last_hidden_state.numpy()[real], atol=2e-5)


def assert_untraceable(path: Path) -> onnx.ModelProto:
    """Nothing in the graph tells where it was made."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")  # random bytes spell anything
    content = model.SerializeToString()
    for word in (b"site-packages", b"stack_trace", str(Path.cwd()).encode(), b".py"):
        assert word not in content
    return model


@pytest.mark.xdist_group("minilm")
def test_the_graph_holds_no_trace_of_the_machine_that_made_it(minilm_package: Path) -> None:
    model = assert_untraceable(minilm_package / "onnx/model.onnx")
    scopes = {prop.value for node in model.graph.node for prop in node.metadata_props}
    assert any("encoder.layer.5" in scope for scope in scopes), "module scopes stay, for the bisection"


@pytest.mark.xdist_group("minilm")
def test_converting_twice_gives_the_same_bytes(minilm: Path, minilm_package: Path, tmp_path: Path) -> None:
    """Graph, weights, card and companions; converter.json has timings besides.

    The second time from a fresh shell, where torch stays in a process of its own that ends before the session opens.
    """
    code = (
        "import sys\n"
        "from converter.cli.main import run\n"
        f"assert run(['--model', {str(minilm)!r}, '--output', {str(tmp_path / 'again')!r}, '--quiet']) == 0\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    first, again = (
        json.loads((folder / "converter.json").read_text())["files"]
        for folder in (minilm_package, tmp_path / "again")
    )
    assert {"onnx/model.onnx", "README.md"} <= set(first)
    assert first == again


@pytest.mark.xdist_group("minilm")
def test_the_record_says_where_it_came_from_and_what_was_measured(minilm_package: Path) -> None:
    record = json.loads((minilm_package / "converter.json").read_text())
    assert record["architecture"] == "bert"
    assert record["task"] == "feature-extraction"
    assert record["parity"]["passed"] is True
    assert record["parity"]["mode"] == "full"
    assert {"torch", "onnx", "onnxruntime", "transformers"} <= set(record["versions"])
    assert record["peak_memory_bytes"] > 0
    assert str(Path.home()) not in json.dumps(record["settings"])
    assert any("pooler.dense.weight" in note for note in record["notes"]), "surplus tensors are reported"


@pytest.mark.xdist_group("minilm")
def test_verify_proves_a_package_and_inspect_checks_its_files(minilm: Path, minilm_package: Path) -> None:
    assert convert_cli("inspect", minilm_package) == 0
    assert convert_cli("verify", minilm_package, "--model", minilm) == 0


@pytest.mark.xdist_group("minilm")
def test_verify_exits_3_when_the_checkpoint_is_another_model(
    minilm: Path, minilm_package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    shutil.copytree(minilm, other)
    weights = {name: array.copy() for name, array in load_file(other / "model.safetensors").items()}
    weights["encoder.layer.3.output.dense.bias"][7] += 0.1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    assert convert_cli("verify", minilm_package, "--model", other) == 3
    assert "FAILED" in capsys.readouterr().out


# --- ColQwen2: three graphs, one data file ----------------------------------------------------------------------------


@pytest.mark.xdist_group("colqwen2")
def test_colqwen2_writes_three_graphs_and_every_weight_once(colqwen2_package: Path) -> None:
    files = sorted(path.name for path in (colqwen2_package / "onnx").iterdir())
    assert files == ["image_model.onnx", "model.onnx", "model.onnx_data", "text_model.onnx"]
    spans: dict[tuple[int, int], set[str]] = {}
    for stem in ("text_model", "image_model", "model"):
        model = onnx.load(colqwen2_package / f"onnx/{stem}.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            if entries:
                spans.setdefault((int(entries["offset"]), int(entries["length"])), set()).add(tensor.name)
    starts = sorted(spans)
    assert all(start + length <= after for (start, length), (after, _) in pairwise(starts))
    tables = [names for names in spans.values() if any("embed_tokens" in name for name in names)]
    assert len(tables) == 1


@pytest.mark.xdist_group("colqwen2")
def test_a_package_can_be_moved_and_opened_from_anywhere(
    colqwen2_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(colqwen2_package, moved)
    monkeypatch.chdir(tmp_path)
    ids = np.array([[5, 6, 7]])
    (embeddings,) = session(moved / "onnx/text_model.onnx").run(
        None, {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    )
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=-1), 1.0, atol=1e-5)


@pytest.mark.xdist_group("colqwen2")
def test_the_unified_graph_serves_text_rows_with_a_neutral_image(colqwen2_package: Path) -> None:
    """One all-zero 2x2 grid a row; the same numbers as the text graph's."""
    unified = session(colqwen2_package / "onnx/model.onnx")
    width = unified.get_inputs()[2].shape[2]
    ids = np.array([[5, 6, 7, 8], [9, 10, 11, 12]])
    text = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    neutral = {
        "pixel_values": np.zeros((2, 4, width), dtype=np.float32),
        "image_grid_thw": np.array([[1, 2, 2], [1, 2, 2]]),
    }
    (both,) = unified.run(None, {**text, **neutral})
    (alone,) = session(colqwen2_package / "onnx/text_model.onnx").run(None, text)
    np.testing.assert_allclose(both, alone, atol=1e-5)


@pytest.mark.xdist_group("colqwen2")
def test_layers_that_were_stamped_are_recorded_as_no_note(colqwen2_package: Path) -> None:
    record = json.loads((colqwen2_package / "converter.json").read_text())
    assert not [note for note in record["notes"] if "every layer was traced" in note]


# --- options ---


def test_structural_parity_proves_a_sibling_and_re_reads_the_weights(
    tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    for external, arch in (("always", "bert"), ("never", "bert")):
        report = convert(
            model=tiny_checkpoint(arch),
            output=tmp_path / external,
            parity="structural",
            external_data=external,
        )
        assert report.parity.proven
        assert report.parity.tensors_checked >= 14
    names = sorted(path.name for path in (tmp_path / "always/onnx").iterdir())
    assert names == ["model.onnx", "model.onnx_data"]


def test_the_graph_as_traced_is_written_on_request(tiny_checkpoint: Checkpoints, tmp_path: Path) -> None:
    report = convert(model=tiny_checkpoint("bert"), output=tmp_path / "raw", optimize="none")
    assert report.parity.proven
    raw = onnx.load(tmp_path / "raw/onnx/model.onnx")
    assert any(node.op_type == "Constant" for node in raw.graph.node)


def test_half_precision_takes_and_gives_fp32(tiny_checkpoint: Checkpoints, tmp_path: Path) -> None:
    report = convert(
        arch="colqwen2", model=tiny_checkpoint("colqwen2"), output=tmp_path / "half", dtype="fp16"
    )
    assert report.parity.proven
    graph = session(tmp_path / "half/onnx/image_model.onnx")
    assert {value.type for value in graph.get_inputs()} == {"tensor(int64)", "tensor(float)"}
    assert graph.get_outputs()[0].type == "tensor(float)"
    assert (tmp_path / "half/onnx/model.onnx_data").stat().st_size < 1_000_000


def test_a_graph_as_traced_holds_no_trace_of_the_machine_either(
    tiny_checkpoint: Checkpoints, tmp_path: Path
) -> None:
    arguments = ("--model", tiny_checkpoint("bert"), "--output", tmp_path / "package", "--parity", "off")
    assert convert_cli(*arguments, "--no-post-process", "--quiet") == 0
    assert_untraceable(tmp_path / "package/onnx/model.onnx")
