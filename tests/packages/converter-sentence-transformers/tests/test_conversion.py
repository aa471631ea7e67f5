"""A checkpoint with every pooling mode, a prompt that pooling leaves out, and modules behind it with weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from converter_sentence_transformers.source import (
    MODES,
    PROMPTED,
    USUAL,
    Config,
    SentenceTransformerSource,
    is_sentence_transformer,
)
from converter_sentence_transformers.wrapper import pool
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import BertConfig

from converter import ConverterError, convert
from converter.checkpoint import open_checkpoint
from converter.runtime import Encoder
from converter.sentence_modules import SentenceModule

TEXTS = ["w7 w8 w9", "w1", "w300 w301 w302 w303 w304 w305 w306", "nothing known here"]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    SentenceTransformerSource().write_tiny(folder, like=None, seed=3, task=PROMPTED)
    return folder


@pytest.fixture(scope="session")
def package(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("package") / "package"
    report = convert(model=checkpoint, output=output, parity="full")
    assert (report.architecture, report.task) == ("sentence_transformers", PROMPTED)
    assert report.parity.proven
    unused = "2 of 43 checkpoint tensors are in no graph: pooler.dense.bias, pooler.dense.weight"
    assert unused in report.notes
    return output


def test_texts_become_the_vectors_that_sentence_transformers_gives(checkpoint: Path, package: Path) -> None:
    expected = SentenceTransformer(str(checkpoint), device="cpu").encode(TEXTS)
    assert np.abs(Encoder(package).encode(TEXTS) - expected).max() < 1e-5


def test_modules_with_weights_go_along_for_the_onnx_backend(checkpoint: Path, package: Path) -> None:
    """It runs only the encoder in ONNX and loads the modules behind it from their folders."""
    for name in ("2_Dense/model.safetensors", "3_LayerNorm/model.safetensors"):
        assert (package / name).read_bytes() == (checkpoint / name).read_bytes()


def test_a_prompt_is_left_out_of_the_pooling_row_by_row(checkpoint: Path, package: Path) -> None:
    model = SentenceTransformer(str(checkpoint), device="cpu")
    prompts = ["w11 w12: ", "w13: ", "", "w14 w15 w16: "]
    expected = [model.encode([text], prompt=prompt)[0] for text, prompt in zip(TEXTS, prompts, strict=True)]
    tokens = model.tokenizer(
        [prompt + text for text, prompt in zip(TEXTS, prompts, strict=True)],
        padding=True,
        return_tensors="np",
    )
    session = onnxruntime.InferenceSession(package / "onnx" / "model_with_prompt.onnx")
    feed = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    feed["token_type_ids"] = np.zeros_like(tokens["input_ids"])
    # [CLS], the prompt's words and its colon; sentence-transformers counts nothing for an empty prompt.
    feed["prompt_length"] = np.array([4, 3, 0, 5])
    (vectors,) = session.run(["sentence_embedding"], feed)
    assert np.abs(vectors - np.array(expected)).max() < 1e-5


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("prompt", [0, 2])
@pytest.mark.parametrize("mode", [*MODES, ("mean", "cls")], ids=str)
def test_pooling_is_that_of_sentence_transformers(mode: Any, prompt: int, side: str) -> None:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(3, 6, 5, generator=generator)
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]])
    mask = mask.flip(1) if side == "left" else mask
    theirs = Pooling(5, mode, include_prompt=False)
    features = {"token_embeddings": tokens, "attention_mask": mask, "prompt_length": prompt}
    expected = theirs(features)["sentence_embedding"]
    assert torch.allclose(pool(theirs, tokens, mask, torch.full((3,), prompt)), expected, atol=1e-6)


def test_an_encoder_in_a_folder_of_its_own_is_lifted_to_the_top(tmp_path: Path) -> None:
    """As checkpoints of 2020 have it, with a Dense module behind the pooling."""
    width = 36
    parts = (
        SentenceModule("Transformer", "", {}),
        SentenceModule("Pooling", "1_Pooling", {"embedding_dimension": width, "pooling_mode": "mean"}),
        SentenceModule("Dense", "2_Dense", {"in_features": width, "out_features": 16}),
    )
    checkpoint, nested = tmp_path / "checkpoint", tmp_path / "checkpoint" / "0_Transformer"
    like = Config(BertConfig(), parts)
    SentenceTransformerSource().write_tiny(checkpoint, like=like, seed=5, task=USUAL)
    nested.mkdir()
    for file in checkpoint.iterdir():
        if file.is_file() and file.name not in ("modules.json", "config_sentence_transformers.json"):
            file.rename(nested / file.name)
    modules = json.loads((checkpoint / "modules.json").read_text())
    modules[0]["path"] = "0_Transformer"
    (checkpoint / "modules.json").write_text(json.dumps(modules))

    expected = SentenceTransformer(str(checkpoint), device="cpu").encode(TEXTS)
    report = convert(model=checkpoint, output=tmp_path / "package", parity="off")  # the vectors say more
    assert report.architecture == "sentence_transformers"
    assert not [note for note in report.notes if "has no" in note]
    assert not (tmp_path / "package" / "0_Transformer").exists()
    assert np.abs(Encoder(tmp_path / "package").encode(TEXTS) - expected).max() < 1e-5


def test_a_module_that_cannot_be_converted_is_named(checkpoint: Path, tmp_path: Path) -> None:
    alien = {"idx": 9, "name": "9", "path": "9_Own", "type": "their_package.Own"}
    with_modules(checkpoint, tmp_path / "checkpoint", alien)
    with pytest.raises(ConverterError, match="module Own cannot"):
        convert(model=tmp_path / "checkpoint", output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_pooling_is_not_taken_for_one(checkpoint: Path) -> None:
    opened = open_checkpoint(checkpoint)
    assert is_sentence_transformer(opened)
    assert not is_sentence_transformer(replace(opened, modules=opened.modules[:1]))


def with_modules(checkpoint: Path, folder: Path, *more: dict[str, Any]) -> None:
    """The checkpoint with further entries in its modules.json."""
    shutil.copytree(checkpoint, folder)
    modules = json.loads((checkpoint / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([*modules, *more]))
