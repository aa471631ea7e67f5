"""Files that clients look for, made of those a checkpoint has: nothing is lost, and doing it twice changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from converter.packages.client_files import write_client_files
from converter.packages.tokenizer_file import write_tokenizer

PROCESSOR = {
    "feature_extractor": {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 80},
    "processor_class": "WhisperProcessor",
}


def write(folder: Path, name: str, content: Any) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder / name


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def test_nested_settings_become_the_file_that_older_clients_read(tmp_path: Path) -> None:
    write(tmp_path, "processor_config.json", PROCESSOR)
    (note,) = write_client_files(tmp_path)
    assert "preprocessor_config.json" in note
    assert read(tmp_path, "preprocessor_config.json") == {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": 80,
        "processor_class": "WhisperProcessor",
    }
    assert read(tmp_path, "processor_config.json") == PROCESSOR
    assert write_client_files(tmp_path) == []


def test_a_preprocessor_config_that_is_there_stays(tmp_path: Path) -> None:
    write(tmp_path, "processor_config.json", PROCESSOR)
    write(tmp_path, "preprocessor_config.json", {"size": 3})
    assert write_client_files(tmp_path) == []
    assert read(tmp_path, "preprocessor_config.json") == {"size": 3}


def test_special_tokens_are_spelt_for_older_tokenizers(tmp_path: Path) -> None:
    config = {
        "tokenizer_class": "TokenizersBackend",
        "extra_special_tokens": ["<a>", "<b>"],
        "pad_token": "<a>",
    }
    source = write(tmp_path / "source", "tokenizer_config.json", config)
    (tmp_path / "package").mkdir()
    (tmp_path / "package/tokenizer_config.json").hardlink_to(source)
    assert write_client_files(tmp_path / "package")
    assert read(tmp_path, "package/tokenizer_config.json") == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "additional_special_tokens": ["<a>", "<b>"],
        "pad_token": "<a>",
    }
    assert json.loads(source.read_text()) == config, "a linked file is replaced, not written to"


def test_named_special_tokens_stay_as_they_are(tmp_path: Path) -> None:
    write(tmp_path, "tokenizer_config.json", {"extra_special_tokens": {"image_token": "<i>"}})
    assert write_client_files(tmp_path) == []


def test_the_longest_text_is_told_where_the_tokenizer_does_not_know_it(tmp_path: Path) -> None:
    write(tmp_path, "tokenizer_config.json", {"model_max_length": int(1e30)})
    assert write_client_files(tmp_path) == [], "nobody knows it"
    write(tmp_path, "sentence_bert_config.json", {"max_seq_length": 256})
    assert write_client_files(tmp_path)
    assert read(tmp_path, "tokenizer_config.json")["model_max_length"] == 256


def test_data_files_are_named_for_browsers(tmp_path: Path) -> None:
    write(tmp_path, "config.json", {"model_type": "x", "transformers.js_config": {"dtype": "q8"}})
    for name in ("model.onnx", "model.onnx_data", "model_q4.onnx", "other.onnx"):
        write(tmp_path / "onnx", name, {})
    assert write_client_files(tmp_path)
    assert read(tmp_path, "config.json")["transformers.js_config"] == {
        "dtype": "q8",
        "use_external_data_format": {"model.onnx": 1},
    }
    assert write_client_files(tmp_path) == []


@pytest.mark.parametrize("text", ["[]", "{", "", "3"])
def test_files_that_hold_no_object_are_left_alone(tmp_path: Path, text: str) -> None:
    for name in ("processor_config.json", "tokenizer_config.json", "config.json"):
        (tmp_path / name).write_text(text)
    assert write_client_files(tmp_path) == []


def test_older_tokenizer_files_become_one_that_every_client_reads(minilm: Path, tmp_path: Path) -> None:
    for name in ("vocab.txt", "tokenizer_config.json", "special_tokens_map.json", "config.json"):
        (tmp_path / name).write_bytes((minilm / name).read_bytes())
    note = write_tokenizer(tmp_path, tmp_path)
    assert note is not None and "was made" in note
    from tokenizers import Tokenizer

    text = "Größe matters, ONNX!"
    made, known = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (tmp_path, minilm))
    known.no_padding()
    assert made.encode(text).ids == known.encode(text).ids
    assert write_tokenizer(tmp_path, tmp_path) is None


def test_a_tokenizer_that_cannot_be_made_is_noted(tmp_path: Path) -> None:
    write(tmp_path, "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer"})
    (tmp_path / "spiece.model").write_bytes(b"no model")
    note = write_tokenizer(tmp_path, tmp_path)
    assert note is not None and "there is no tokenizer.json" in note
    assert not (tmp_path / "tokenizer.json").exists()
