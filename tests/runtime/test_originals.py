"""Late interaction from end to end: checkpoints as their libraries wrote them, converted, and compared with torch.

The references are the untouched backbones, and what colbert and colpali-engine do around them, restated.
"""

from __future__ import annotations

import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import nn

from converter import convert
from converter.bench.benchmark import bench
from converter.runtime import LateInteraction
from converter.seeding import seed_weights

Draw = Callable[..., Image.Image]
SIZES = [(20, 31), (30, 18), (20, 31), (6, 60), (44, 12)]
QUERIES = ["What is ONNX?", "net revenue", "", "Größe 日本"]


def best(query: torch.Tensor, pages: list[torch.Tensor]) -> list[float]:
    """MaxSim, page by page."""
    return [float((query @ page.T).max(dim=1).values.sum()) for page in pages]


def same(found: list[np.ndarray], expected: list[torch.Tensor]) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)


# --- ColBERT ---


class HF_ColBERT(transformers.BertPreTrainedModel):  # noqa: N801, the name that its checkpoints carry
    """The class of colbert-ir/colbertv2.0."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert = transformers.BertModel(config)
        self.linear = nn.Linear(config.hidden_size, 21, bias=False)
        self.post_init()

    def embed(self, ids: torch.Tensor, mask: torch.Tensor, kept: torch.Tensor) -> list[torch.Tensor]:
        vectors = self.linear(self.bert(ids, attention_mask=mask)[0]) * kept[..., None]
        vectors = nn.functional.normalize(vectors, p=2, dim=2)
        return [row[real.bool()] for row, real in zip(vectors, kept, strict=True)]


TEXTS = ["the cat sat on the mat.", "cat", "a mat, (the cat)! " * 9, "on the mat"]
WORDS = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation]
WORDS += ["the", "cat", "sat", "on", "mat", "a"]


def colbert_query(tokenizer: Any, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """`QueryTokenizer.tensorize` of colbert: a place for the marker, filled up with mask tokens."""
    made = tokenizer(
        [f". {text}" for text in texts],
        padding="max_length",
        truncation=True,
        max_length=32,
        return_tensors="pt",
    )
    ids, mask = made["input_ids"], made["attention_mask"]
    ids[:, 1] = WORDS.index("[unused0]")
    ids[ids == tokenizer.pad_token_id] = tokenizer.mask_token_id
    return ids, mask


def colbert_document(tokenizer: Any, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`DocTokenizer.tensorize`, and the mask of `ColBERT.doc`: no padding, no punctuation."""
    made = tokenizer(
        [f". {text}" for text in texts],
        padding="longest",
        truncation="longest_first",
        max_length=40,
        return_tensors="pt",
    )
    ids, mask = made["input_ids"], made["attention_mask"]
    ids[:, 1] = WORDS.index("[unused1]")
    skipped = torch.tensor([WORDS.index(sign) for sign in string.punctuation])
    return ids, mask, (mask.bool() & ~torch.isin(ids, skipped)).float()


@pytest.fixture(scope="module")
def colbert(tmp_path_factory: pytest.TempPathFactory) -> tuple[HF_ColBERT, Any, Path]:
    """Original, tokenizer, and a folder with `checkpoint` and `package`."""
    folder = tmp_path_factory.mktemp("colbert")
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=36,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=52,
        max_position_embeddings=40,
    )
    original = HF_ColBERT(config)
    seed_weights(original, 3)
    tokenizer = transformers.BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)})
    for part in (original.eval(), tokenizer):
        part.save_pretrained(folder / "checkpoint")
    (folder / "checkpoint/artifact.metadata").write_text('{"doc_maxlen": 40}')
    convert(model=folder / "checkpoint", output=folder / "package", parity="off")
    return original, tokenizer, folder


@pytest.mark.xdist_group("colbert")
def test_colbert_finds_the_documents_that_the_original_finds(colbert: tuple[HF_ColBERT, Any, Path]) -> None:
    original, tokenizer, folder = colbert
    model = LateInteraction(folder / "package")
    queries, documents = model.encode_queries(TEXTS[:2]), model.encode_documents(TEXTS, batch_size=3)
    with torch.no_grad():
        ids, mask = colbert_query(tokenizer, TEXTS[:2])
        expected = original.embed(ids, mask, torch.ones_like(mask).float())
        wanted = original.embed(*colbert_document(tokenizer, TEXTS))
    same(queries, expected)
    same(documents, wanted)
    scores = np.array([best(query, wanted) for query in expected])
    np.testing.assert_allclose(model.score(queries, documents), scores, atol=1e-4)
    _, numbers = model.top_k(queries, documents, k=2)
    np.testing.assert_array_equal(numbers, np.argsort(-scores, axis=1)[:, :2])


@pytest.mark.xdist_group("colbert")
def test_colbert_is_benchmarked_beside_its_original(
    colbert: tuple[HF_ColBERT, Any, Path], in_this_process: None
) -> None:
    folder = colbert[2]
    measured = bench(
        folder / "package",
        str(folder / "checkpoint"),
        batch_sizes=[1, 3],
        repeats=1,
        documents=5,
        threads=1,
    )
    assert [each.name for each in measured.measures] == ["queries 1", "queries 3", "documents/s"]
    assert [entry.name for entry in measured.contenders] == ["torch", "fp32"]
    for entry in measured.contenders:
        assert entry.agreement == pytest.approx(1, abs=1e-5)


# --- colpali-engine ---


@pytest.fixture(scope="module")
def engine(patches: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, nn.Linear, Path]:
    """A ColQwen2 in colpali-engine's layout: Qwen2-VL's own config, a projection beside its weights."""
    from safetensors.torch import save_file

    from converter.registry import load_registry
    from converter.sources import merged

    source: Any = load_registry().find("colqwen2").source
    base = transformers.Qwen2VLConfig()
    config = transformers.Qwen2VLConfig.from_dict(merged(base.to_dict(), source.tinies["qwen2_vl"]))
    config.architectures = ["ColQwen2"]
    backbone = transformers.Qwen2VLModel(config).eval()
    linear = nn.Linear(config.get_text_config().hidden_size, 21)
    for number, part in enumerate((backbone, linear)):
        seed_weights(part, number)
    folder = tmp_path_factory.mktemp("engine")
    tensors = {name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}
    tensors |= {f"custom_text_proj.{name}": tensor for name, tensor in linear.state_dict().items()}
    for part in (config, patches.tokenizer, patches.image_processor):
        part.save_pretrained(folder / "checkpoint")
    save_file(tensors, folder / "checkpoint/model.safetensors", {"format": "pt"})
    # One graph that takes both; the other two are traced for `retrieval_package`.
    convert(model=folder / "checkpoint", output=folder / "package", variants=("unified",), parity="off")
    return backbone, linear, folder / "package"


def engine_embed(backbone: Any, linear: nn.Linear, inputs: dict[str, Any]) -> torch.Tensor:
    """`ColQwen2.forward` of one row: projected, of length 1."""
    with torch.no_grad():
        hidden = backbone(**inputs).last_hidden_state
        projected = linear(hidden)
    return (projected / projected.norm(dim=-1, keepdim=True))[0]


@pytest.mark.xdist_group("colqwen2")
def test_colpali_engine_ranks_pages_as_the_original_does(
    engine: tuple[Any, nn.Linear, Path], patches: Any, picture: Draw
) -> None:
    backbone, linear, package = engine
    pages = [picture(height, width, seed) for seed, (height, width) in enumerate(SIZES)]
    model = LateInteraction(package)
    queries, vectors = model.encode_queries(QUERIES, batch_size=3), model.encode_images(pages, batch_size=2)
    # colpali-engine 0.3.18, `process_queries`: no prefix, ten augmentation tokens, nothing behind them.
    rows = [patches.tokenizer(query + "<|endoftext|>" * 10, return_tensors="pt") for query in QUERIES]
    expected = [engine_embed(backbone, linear, dict(row)) for row in rows]
    wanted = []
    for page in pages:
        inputs = dict(patches(images=[page]))  # the same prompt and patches as Qwen2VLProcessor gives it
        inputs["pixel_values"] = inputs["pixel_values"][0]
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == backbone.config.image_token_id).long()
        wanted.append(engine_embed(backbone, linear, inputs))
    same(queries, expected)
    same(vectors, wanted)
    scores = np.array([best(query, wanted) for query in expected])
    np.testing.assert_allclose(model.score(queries, vectors), scores, atol=1e-4)
    _, numbers = model.top_k(queries, vectors, k=3)
    np.testing.assert_array_equal(numbers, np.argsort(-scores, axis=1, kind="stable")[:, :3])


@pytest.mark.xdist_group("colqwen2")
def test_models_trained_with_a_prefix_get_it_back(engine: tuple[Any, nn.Linear, Path], patches: Any) -> None:
    backbone, linear, package = engine
    (found,) = LateInteraction(package, query_prefix="Query: ").encode_queries(["net revenue"])
    row = patches.tokenizer("Query: net revenue" + "<|endoftext|>" * 10, return_tensors="pt")
    np.testing.assert_allclose(found, engine_embed(backbone, linear, dict(row)), atol=1e-5)
