"""Text embeddings from a package: the numbers of the original, in the order given, whatever the input."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.errors import UsageError
from converter.runtime import EncodeBatches, Encoder
from converter.runtime.fastest import fastest
from converter.runtime.pooling import Pooling

Array = np.ndarray
SENTENCES = [
    "A cat sat on the mat.",
    "",
    "ONNX",
    "The quarterly report shows revenue growing in every region but one.",
    "Größe, 日本語, emoji 🙂 and\ttabs\n",
    "word " * 400,
]


def replace(path: Path, content: str) -> None:
    path.unlink(missing_ok=True)  # it may be a link to a file that other tests read
    path.write_text(content)


def original(minilm: Path, texts: list[str], skipped: int = 0) -> Array:
    """The model card's recipe: the mean over real tokens but the first `skipped`, normalised; cut at 256 tokens."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(minilm), AutoModel.from_pretrained(minilm).eval()
    batch = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][:, :, None].float()
    mask[:, :skipped] = 0
    pooled = (hidden * mask).sum(1) / mask.sum(1)
    return torch.nn.functional.normalize(pooled, dim=1).numpy()


@pytest.mark.xdist_group("minilm")
def test_embeddings_are_those_of_the_original(encoder: Encoder, minilm: Path) -> None:
    ours = encoder.encode(SENTENCES, batch_size=2)
    assert ours.shape == (6, 384) and ours.dtype == np.float32
    np.testing.assert_allclose(ours, original(minilm, SENTENCES), atol=1e-5)


@pytest.mark.xdist_group("minilm")
def test_order_and_batch_size_change_nothing(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = np.stack([encoder.encode(text) for text in SENTENCES])
    np.testing.assert_allclose(encoder.encode(SENTENCES), expected, atol=1e-5)
    monkeypatch.setattr(sys.modules["converter.runtime.encoder"], "WINDOW", 2)
    np.testing.assert_allclose(encoder.encode(SENTENCES, batch_size=1), expected, atol=1e-5)


@pytest.mark.xdist_group("minilm")
def test_one_text_gives_one_vector_and_no_texts_none(encoder: Encoder) -> None:
    assert encoder.encode("one").shape == (384,)
    assert encoder.encode([]).shape == (0, 384)
    assert encoder.dimension == 384


@pytest.mark.xdist_group("minilm")
def test_longer_texts_are_cut_at_the_models_maximum(encoder: Encoder, copy: Path) -> None:
    assert encoder.max_length == 256
    np.testing.assert_allclose(encoder.encode("word " * 254), encoder.encode("word " * 5000), atol=1e-6)
    assert Encoder(copy, max_length=100_000).max_length == 512
    (copy / "sentence_bert_config.json").unlink()
    (copy / "converter.json").unlink()
    assert Encoder(copy).max_length == 512


@pytest.mark.xdist_group("minilm")
def test_lengths_are_those_of_the_model_where_asked(encoder: Encoder) -> None:
    raw = encoder.encode(SENTENCES, normalize=False)
    unit = encoder.encode(SENTENCES)
    assert not np.allclose(np.linalg.norm(raw, axis=1), 1, atol=1e-2)
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), unit, atol=1e-6)


@pytest.mark.xdist_group("minilm")
def test_a_pickled_copy_gives_the_same(encoder: Encoder) -> None:
    """So that an engine for bulk work can send it to its workers."""
    copy = pickle.loads(pickle.dumps(encoder))
    np.testing.assert_array_equal(copy.encode(SENTENCES), encoder.encode(SENTENCES))


@pytest.mark.xdist_group("minilm")
def test_a_callable_for_bulk_work_adds_a_column_and_travels(encoder: Encoder, minilm_package: Path) -> None:
    """Before it has run and after; `make check-bulk` sends it through Ray Data."""
    embed = EncodeBatches(minilm_package, text="body", vector="embedding", batch_size=2, threads=1)
    batch = {"id": np.arange(6), "body": np.array(SENTENCES, dtype=object)}
    for callable_ in (pickle.loads(pickle.dumps(embed)), embed, pickle.loads(pickle.dumps(embed))):
        found = callable_(batch)
        assert list(found) == ["id", "body", "embedding"]
        np.testing.assert_allclose(found["embedding"], encoder.encode(SENTENCES), atol=1e-5)
    with pytest.raises(UsageError, match="no column 'body'; it has text"):
        embed({"text": ["a"]})


@pytest.mark.parametrize("name", ["docs/runtime.md", "scripts/bulk.py"])
def test_a_bulk_run_that_is_shown_keeps_its_checkpoint_after_success(name: str) -> None:
    """Ray Data deletes it otherwise, and the same script run again writes every row a second time."""
    text = (Path(__file__).parents[2] / name).read_text()
    assert text.count("CheckpointConfig(\n") == text.count("delete_checkpoint_on_success=False\n") == 1


@pytest.mark.xdist_group("minilm")
def test_session_settings_change_no_number(encoder: Encoder, minilm_package: Path) -> None:
    other = Encoder(
        minilm_package,
        threads=1,
        optimization="disabled",
        memory_pattern=False,
        prepacking=False,
        providers=[("cpu", {"arena_extend_strategy": "kSameAsRequested"})],
    )
    np.testing.assert_allclose(other.encode(SENTENCES), encoder.encode(SENTENCES), atol=1e-5)


@pytest.mark.xdist_group("minilm")
def test_a_package_runs_without_torch_and_transformers(minilm_package: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['torch', 'transformers', 'onnx', 'PIL']))\n"
        "from converter.runtime import Encoder\n"
        f"print(Encoder({str(minilm_package)!r}).encode(['text']).shape)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "(1, 384)\n"


@pytest.mark.xdist_group("minilm")
def test_progress_is_shown_only_when_asked_for(encoder: Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    encoder.encode(SENTENCES)
    assert capsys.readouterr().err == ""
    encoder.encode(SENTENCES, show_progress=True)
    assert "6 texts" in capsys.readouterr().err


@pytest.mark.xdist_group("minilm")
def test_a_prompt_stands_in_front(copy: Path, encoder: Encoder) -> None:
    config = {"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": "passage"}
    replace(copy / "config_sentence_transformers.json", json.dumps(config))
    (copy / "converter.json").unlink()
    prompted = Encoder(copy)
    for name, start in (("query", "query: "), (None, "passage: ")):
        ours = prompted.encode(["a b"], prompt_name=name)
        np.testing.assert_allclose(ours, encoder.encode([start + "a b"]), atol=1e-6)
    with pytest.raises(UsageError, match="query, passage"):
        prompted.encode(["a"], prompt_name="other")


@pytest.mark.xdist_group("minilm")
def test_a_prompt_may_be_left_out_of_the_pooling(copy: Path, minilm: Path) -> None:
    """`include_prompt: false`, as INSTRUCTOR has it: the text sees the prompt, the vector has no part of it."""
    pooling = json.loads((copy / "1_Pooling" / "config.json").read_text())
    replace(copy / "1_Pooling" / "config.json", json.dumps({**pooling, "include_prompt": False}))
    replace(copy / "config_sentence_transformers.json", '{"prompts": {"query": "search for this: "}}')
    (copy / "converter.json").unlink()
    encoder, texts = Encoder(copy), ["a cat", "revenue in every region", "ONNX"]
    prompted = ["search for this: " + text for text in texts]
    tokens = ["[CLS]", "search", "for", "this", ":"]
    expected = original(minilm, prompted, skipped=len(tokens))
    np.testing.assert_allclose(encoder.encode(texts, prompt_name="query"), expected, atol=1e-5)
    np.testing.assert_allclose(encoder.encode(prompted), original(minilm, prompted), atol=1e-5)


@pytest.mark.xdist_group("minilm")
@pytest.mark.parametrize(
    "config",
    [
        {"pooling_mode": "cls"},
        {"pooling_mode": ["cls"]},
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
    ],
)
def test_both_spellings_of_the_pooling_are_read(copy: Path, config: dict[str, Any]) -> None:
    by_name = Encoder(copy, pooling="cls").encode(SENTENCES)
    replace(copy / "1_Pooling/config.json", json.dumps(config))
    (copy / "converter.json").unlink()
    np.testing.assert_array_equal(Encoder(copy).encode(SENTENCES), by_name)


@pytest.mark.xdist_group("minilm")
def test_a_precision_is_a_file_and_none_is_chosen_unasked_for_its_speed(copy: Path) -> None:
    (copy / "onnx/model.onnx").rename(copy / "onnx/model_quantized.onnx")
    (copy / "converter.json").unlink()
    assert Encoder(copy).file == Encoder(copy, precision="q8").file == "onnx/model_quantized.onnx"
    os.link(copy / "onnx/model_quantized.onnx", copy / "onnx/model.onnx")
    assert Encoder(copy).file == "onnx/model.onnx"
    assert Encoder(copy, precision="q8").file == "onnx/model_quantized.onnx"


def test_the_fastest_is_the_quickest_run_and_near_ties_stay_with_the_first() -> None:
    def sleeper(name: str) -> Any:
        return lambda: time.sleep({"fp32": 0.02, "fp16": 0.02, "q8": 0.005}[name])

    assert fastest(["fp32", "fp16", "q8"], sleeper) == "q8"
    assert fastest(["fp32"], lambda name: pytest.fail("nothing to compare")) == "fp32"


@pytest.mark.xdist_group("minilm")
def test_fastest_takes_nothing_that_did_not_keep_its_quality(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"passed": True, "quality": {"cosine": 0.9995}, "budget": {"cosine": 0.999}}
    entries = {"q8": kept, "q4": {**kept, "passed": False}, "int8": {**kept, "budget": {}}}
    record = json.loads((copy / "converter.json").read_text())
    for suffix in ("_quantized", "_q4", "_int8"):
        os.link(copy / "onnx/model.onnx", copy / f"onnx/model{suffix}.onnx")
    replace(copy / "converter.json", json.dumps({**record, "precisions": entries}))
    asked: list[str] = []

    def last(names: tuple[str, ...], open_runner: Callable[[str], Any]) -> str:
        asked.extend(names)
        open_runner(names[-1])()
        return names[-1]

    monkeypatch.setattr("converter.runtime.encoder.fastest", last)
    assert Encoder(copy, precision="fastest").file == "onnx/model_quantized.onnx"
    assert asked == ["fp32", "q8"]


def pooled_by_sentence_transformers_rules(mode: str, rows: list[Array]) -> Array:
    rules: dict[str, Callable[[Array], Array]] = {
        "cls": lambda row: row[0],
        "lasttoken": lambda row: row[-1],
        "max": lambda row: row.max(axis=0),
        "mean": lambda row: row.mean(axis=0),
        "mean_sqrt_len": lambda row: row.sum(axis=0) / np.sqrt(len(row)),
        "weightedmean": lambda row: np.average(row, axis=0, weights=np.arange(1, len(row) + 1)),
    }
    return np.stack([rules[mode](row) for row in rows])


@pytest.mark.parametrize("left", [False, True], ids=["right padded", "left padded"])
@pytest.mark.parametrize("mode", ["cls", "max", "mean", "mean_sqrt_len", "lasttoken"])
def test_each_pooling_sees_only_real_tokens(mode: str, left: bool) -> None:
    draw = np.random.default_rng(0)
    rows = [draw.standard_normal((length, 5)).astype(np.float32) for length in (1, 4, 7)]
    hidden, mask = np.full((3, 7, 5), 9, dtype=np.float32), np.zeros((3, 7), dtype=np.int64)
    for index, row in enumerate(rows):
        span = slice(7 - len(row), 7) if left else slice(0, len(row))
        hidden[index, span], mask[index, span] = row, 1
    expected = pooled_by_sentence_transformers_rules(mode, rows)
    np.testing.assert_allclose(Pooling((mode,))(hidden, mask), expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["cls", "max", "mean", "lasttoken"])
def test_a_text_that_leaves_no_token_is_zero(mode: str) -> None:
    """An empty text, where the tokenizer puts nothing around it."""
    hidden = np.full((1, 2, 5), np.nan, dtype=np.float32)
    np.testing.assert_array_equal(Pooling((mode,))(hidden, np.zeros((1, 2))), np.zeros((1, 5)))


def test_a_weighted_mean_counts_later_tokens_more() -> None:
    row = np.random.default_rng(0).standard_normal((4, 5)).astype(np.float32)
    expected = pooled_by_sentence_transformers_rules("weightedmean", [row])
    np.testing.assert_allclose(Pooling(("weightedmean",))(row[None], np.ones((1, 4))), expected, atol=1e-6)


def test_several_poolings_are_concatenated() -> None:
    hidden = np.arange(12, dtype=np.float32).reshape(1, 3, 4)
    assert Pooling(("cls", "mean"))(hidden, np.ones((1, 3))).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]
