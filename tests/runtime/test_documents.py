"""ColBERT in the runtime: queries and documents are the tokens, and the vectors, of the libraries that trained it.

The graph here looks ids up in a table and adds how many positions are attended to, so that a wrong token, mask or kept
vector shows; that real graphs are right is tested in tests/parity.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converter.errors import PackageError, UsageError
from converter.runtime import LateInteraction

WORDS = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.punctuation]
WORDS += ["the", "cat", "sat", "on", "mat", "[Q] ", "[D] "]
TABLE = np.random.default_rng(0).normal(size=(len(WORDS), 5)).astype(np.float32)
INPUTS = ("input_ids", "attention_mask")
TEXTS = ["the cat sat on the mat.", "cat", "", "the cat, (the mat) " * 4]
PYLATE = {
    "query_prefix": "[Q] ",
    "document_prefix": "[D] ",
    "query_length": 9,
    "document_length": 11,
    "attend_to_expansion_tokens": True,
    "skiplist_words": [",", "("],
}


def write_graph(path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("ReduceSum", ["attention_mask", "one"], ["count"], keepdims=1),
        helper.make_node("Cast", ["count"], ["length"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["length", "two"], ["wide"]),
        helper.make_node("Add", ["rows", "wide"], ["embeddings"]),
    ]
    tokens = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "s"]) for name in INPUTS]
    output = helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, ["b", "s", 5])
    values = {"table": TABLE, "one": np.array([1]), "two": np.array([2])}
    constants = [numpy_helper.from_array(value, name) for name, value in values.items()]
    graph = helper.make_graph(nodes, "g", tokens, [output], constants)
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing

    made = Tokenizer(models.WordPiece({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", WORDS.index("[CLS]")), ("[SEP]", WORDS.index("[SEP]"))],
    )
    return made


@pytest.fixture
def package(tmp_path: Path) -> Path:
    write_graph(tmp_path / "onnx" / "model.onnx")
    tokenizer().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "pad_token_id": 0}))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"pad_token": "[PAD]", "mask_token": "[MASK]"})
    )
    return tmp_path


def expected(ids: list[str], attended: int) -> Any:
    return TABLE[[WORDS.index(token) for token in ids]] + attended


def pieces(text: str, marker: str, most: int) -> list[str]:
    """As `colbert.modeling.tokenization` does it: a full stop in front, whose place the marker takes; cut at `most`."""
    made = tokenizer()
    made.enable_truncation(most)
    tokens = made.encode(f". {text}").tokens
    return [tokens[0], marker, *tokens[2:]]


def test_queries_are_marked_and_filled_up_with_mask_tokens(package: Path) -> None:
    for text, found in zip(TEXTS, LateInteraction(package).encode_queries(TEXTS, batch_size=2), strict=True):
        tokens = pieces(text, "[unused0]", 32)
        wanted = expected(tokens + ["[MASK]"] * (32 - len(tokens)), len(tokens))
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_documents_leave_punctuation_out(package: Path) -> None:
    (package / "artifact.metadata").write_text(json.dumps({"doc_maxlen": 14, "query_maxlen": 12}))
    model = LateInteraction(package)
    for text, found in zip(TEXTS, model.encode_documents(TEXTS), strict=True):
        tokens = pieces(text, "[unused1]", 14)
        wanted = expected([token for token in tokens if token not in string.punctuation], len(tokens))
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert {len(query) for query in model.encode_queries(TEXTS)} == {12}
    assert model.score(model.encode_queries(TEXTS), model.encode_documents(TEXTS)).shape == (4, 4)


def test_pylate_has_prefixes_lengths_and_words_of_its_own(package: Path) -> None:
    (package / "config_sentence_transformers.json").write_text(json.dumps(PYLATE))
    model = LateInteraction(package)
    for text, found in zip(TEXTS, model.encode_queries(TEXTS), strict=True):
        tokens = pieces(text, "[Q] ", 9)
        wanted = expected(tokens + ["[MASK]"] * (9 - len(tokens)), 9)
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    for text, found in zip(TEXTS, model.encode_documents(TEXTS), strict=True):
        tokens = pieces(text, "[D] ", 11)
        wanted = expected([token for token in tokens if token not in ",("], len(tokens))
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_modules_of_a_multi_vector_encoder_have_prompts_and_settings_of_their_own(package: Path) -> None:
    """As sentence-transformers writes them: a prompt for queries, none for documents, no mask of punctuation."""
    mask = {"type": "sentence_transformers.multi_vector_encoder.MultiVectorMask", "path": "2_MultiVectorMask"}
    (package / "2_MultiVectorMask").mkdir()
    expansion = {"strategy": "fixed", "attend": False, "token": "the", "length": 9}
    written = {
        "modules.json": [{"type": "sentence_transformers.Transformer", "path": ""}, mask],
        "2_MultiVectorMask/config.json": {"skiplist_words": [","]},
        "sentence_bert_config.json": {"document_length": 11, "query_expansion": expansion},
        "config_sentence_transformers.json": {"prompts": {"query": "[unused0] ", "document": ""}},
    }
    for name, content in written.items():
        (package / name).write_text(json.dumps(content))
    model = LateInteraction(package)
    for text, found in zip(TEXTS, model.encode_queries(TEXTS), strict=True):
        tokens = pieces(text, "[unused0]", 9)
        np.testing.assert_allclose(
            found, expected(tokens + ["the"] * (9 - len(tokens)), len(tokens)), atol=1e-6
        )
    made = tokenizer()
    made.enable_truncation(11)
    for text, found in zip(TEXTS, model.encode_documents(TEXTS), strict=True):
        tokens = made.encode(text).tokens
        wanted = expected([token for token in tokens if token != ","], len(tokens))
        np.testing.assert_allclose(found, wanted, atol=1e-6)
    expansion["strategy"] = "min"
    (package / "sentence_bert_config.json").write_text(json.dumps({"query_expansion": expansion}))
    with pytest.raises(PackageError, match="does not know"):
        LateInteraction(package).encode_queries(TEXTS)


def test_queries_without_expansion_are_as_long_as_they_are(package: Path) -> None:
    settings = {**PYLATE, "do_query_expansion": False}
    (package / "config_sentence_transformers.json").write_text(json.dumps(settings))
    lengths = [len(query) for query in LateInteraction(package).encode_queries(TEXTS)]
    assert lengths == [len(pieces(text, "[Q] ", 9)) for text in TEXTS]


def test_a_tokenizer_without_the_markers_is_refused(package: Path) -> None:
    (package / "config_sentence_transformers.json").write_text(json.dumps({**PYLATE, "query_prefix": "[X] "}))
    with pytest.raises(PackageError, match=r"no token '\[X\] '"):
        LateInteraction(package).encode_queries(TEXTS)


def test_what_is_no_text_is_named(package: Path) -> None:
    with pytest.raises(UsageError, match="text 1 is of type"):
        LateInteraction(package).encode_documents(["the", None])  # type: ignore[list-item]
    assert LateInteraction(package).encode_documents([]) == []
