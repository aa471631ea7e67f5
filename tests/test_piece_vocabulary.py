"""Translation models' tokenizers, of which transformers has no fast kind, as tokenizer.json: the same ids."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from converter.packages.tokenizer_file import write_tokenizer

TEXTS = (
    "The ferry leaves at six, weather permitting.",
    "",
    "  two  spaces ",
    "Größe, naïve café — 日本語",
    "1,234.5 % of “quotes”…",
    "x" * 40,
)


@pytest.fixture(scope="module")
def trained(client_scripts: Any) -> Any:
    """scripts/clients/trained_tokenizers.py, which those scripts have imported."""
    return importlib.import_module("trained_tokenizers")


def read(folder: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_two_languages_with_one_vocabulary(trained: Any, tmp_path: Path) -> None:
    slow = trained.marian_tokenizer(tmp_path)
    slow.save_pretrained(tmp_path)
    note = write_tokenizer(tmp_path, tmp_path)
    assert note is not None and "was made" in note
    made = read(tmp_path)
    for text in (*TEXTS, ">>deu<< The ferry leaves at six.", ">>deu<<The ferry"):
        assert made.encode(text).ids == slow(text)["input_ids"], text
    answer = slow(text_target="eht yrref sevael ta xis")["input_ids"]
    assert made.decode(answer) == slow.decode(answer, skip_special_tokens=True) == "eht yrref sevael ta xis"
    assert made.token_to_id("<pad>") == slow.pad_token_id == made.get_vocab_size() - 1


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_a_hundred_languages_behind_the_vocabulary(trained: Any, tmp_path: Path, kind: str) -> None:
    slow = trained.m2m100_tokenizer(tmp_path, kind)
    slow.save_pretrained(tmp_path)
    assert write_tokenizer(tmp_path, tmp_path)
    made = read(tmp_path)
    for text in TEXTS:
        assert made.encode(text).ids == slow(text)["input_ids"], text
    assert made.encode("x").tokens[0] == "__en__"
    assert made.token_to_id("__de__") == slow.get_lang_id("de")
    assert made.decode(made.encode(TEXTS[0]).ids) == TEXTS[0]


def test_one_that_would_cut_otherwise_is_not_written(trained: Any, tmp_path: Path) -> None:
    """A vocabulary that lacks pieces of its own model: what SentencePiece finds and the vocabulary does not."""
    slow = trained.marian_tokenizer(tmp_path)
    slow.save_pretrained(tmp_path)
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    frequent = max((word for word in vocabulary if word.startswith("▁")), key=len)
    vocabulary["gone"] = vocabulary.pop(frequent)
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    note = write_tokenizer(tmp_path, tmp_path)
    assert note is not None and "it would cut" in note
    assert not (tmp_path / "tokenizer.json").exists()
