"""Packages of every kind that precisions are judged by, with tokenizers made on the spot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

SPECIAL = {"<pad>": 0, "<s>": 1, "</s>": 2}


def write_tokenizer(folder: Path) -> None:
    """Every byte is a token, of a vocabulary of 601."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    rest = [f"<unused{number}>" for number in range(601 - len(SPECIAL) - len(letters))]
    words = [*letters, *rest]
    vocabulary = {**SPECIAL, **{word: number for number, word in enumerate(words, len(SPECIAL))}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"pad_token": "<pad>", "model_max_length": 60}')


@pytest.fixture(scope="session")
def write_text_tokenizer() -> Callable[[Path], None]:
    return write_tokenizer


@pytest.fixture(scope="session")
def package_of(
    tiny_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """`package_of("t5")`: a converted tiny checkpoint with random weights, made once; text models have a tokenizer."""
    from converter.cli.main import run

    made: dict[str, Path] = {}

    def make(arch: str, *, text: bool = True, **overrides: Any) -> Path:
        key = repr((arch, text, overrides))
        if key not in made:
            checkpoint = tmp_path_factory.mktemp(arch) / "checkpoint"
            shutil.copytree(tiny_checkpoint(arch, overrides=overrides), checkpoint)
            if text:
                write_tokenizer(checkpoint)
            made[key] = checkpoint.parent / "package"
            arguments = ["--model", str(checkpoint), "--output", str(made[key]), "--parity", "off", "--quiet"]
            assert run(arguments) == 0
        return made[key]

    return make
