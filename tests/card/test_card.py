"""The card of a package: what the hub reads off it, and that what it tells people to type runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard

from converter.card.front_matter import join_front_matter, read_source_card, split_front_matter
from converter.packages.package import inspect_package
from converter.runtime import Encoder

RunSnippets = Callable[[Path], list[dict[str, Any]]]
Seal = Callable[..., None]


def card(package: Path) -> str:
    return (package / "README.md").read_text()


def front_matter(package: Path) -> Any:
    """As the hub's own client reads it."""
    return ModelCard.load(package / "README.md").data


@pytest.fixture
def reseal(seal: Seal) -> Seal:
    """What `quantize` and `bench --record` do: the same package, with more in its record."""

    def again(package: Path, **changes: Any) -> None:
        record = json.loads((package / "converter.json").read_text())
        seal(package, {**record, **changes}, previous=package)

    return again


# --- what the hub reads ---


@pytest.mark.xdist_group("minilm")
def test_the_hub_reads_licence_task_and_library(minilm_package: Path) -> None:
    data = front_matter(minilm_package)
    assert (data.license, data.language) == ("apache-2.0", "en")
    assert data.pipeline_tag == "sentence-similarity", "the source's own word"
    assert data.library_name == "transformers.js"
    assert {"onnx", "transformers.js", "sentence-transformers", "bert"} <= set(data.tags)
    assert data.base_model is None, "the name of a local folder proves nothing"


def test_a_source_on_the_hub_is_the_base_model_and_an_absent_licence_is_called_unknown(
    decoder_package: Path,
) -> None:
    data = front_matter(decoder_package)
    assert data.base_model == "org/some-model"
    assert data.license == "unknown"
    assert data.pipeline_tag == "text-generation"
    assert data.library_name == "onnx", "without tokenizer.json no pipeline opens it"


@pytest.mark.xdist_group("colqwen2")
def test_pages_and_queries_are_visual_document_retrieval(colqwen2_package: Path) -> None:
    assert front_matter(colqwen2_package).pipeline_tag == "visual-document-retrieval"
    assert "| text | `onnx/text_model.onnx` |" in card(colqwen2_package)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ("license: mit\nlanguage: [en, no]", {"license": "mit", "language": ["en", "no"]}),
        ("license: mit\nlicense_link: {a: b}", {"license": "mit"}),
        ("license: [unclosed", {}),
        ("- a\n- list", {}),
        ("other: 1", {}),
    ],
)
def test_what_a_source_card_says_is_taken_as_text_or_not_at_all(
    tmp_path: Path, block: str, expected: dict[str, Any]
) -> None:
    (tmp_path / "README.md").write_text(f"---\n{block}\n---\n# A model\n")
    assert read_source_card(tmp_path) == expected
    (tmp_path / "README.md").write_bytes(b"\xff\xfe")
    assert read_source_card(tmp_path) == {}


# --- what people type ---


@pytest.mark.xdist_group("minilm")
def test_the_snippets_of_a_text_encoder_give_its_embeddings(
    minilm_package: Path, run_snippets: RunSnippets
) -> None:
    runtime, plain = run_snippets(minilm_package)
    texts = ["A cat sat on the mat.", "ONNX"]
    expected = Encoder(minilm_package).encode(texts)
    np.testing.assert_array_equal(runtime["vectors"], expected)
    np.testing.assert_allclose(plain["embeddings"], expected, atol=1e-6)


def test_the_snippet_of_a_decoder_generates_with_its_past(
    decoder_package: Path, run_snippets: RunSnippets
) -> None:
    (names,) = run_snippets(decoder_package)
    assert len(names["tokens"]) == 23
    assert names["past"]["past_key_values.0.key"].shape == (1, 2, 20, 4)


def test_the_snippet_of_a_pair_starts_with_the_checkpoints_own_token(
    speech_package: Path, run_snippets: RunSnippets
) -> None:
    (names,) = run_snippets(speech_package)
    assert names["tokens"][0] == 2
    assert len(names["tokens"]) == 21
    assert names["hidden"].shape == (1, 5, 3)


def test_the_snippet_of_an_image_model_has_the_size_the_checkpoint_was_made_for(
    image_package: Path, run_snippets: RunSnippets
) -> None:
    (names,) = run_snippets(image_package)
    assert names["pixel_values"].shape == (1, 3, 6, 4)
    assert names["logits"].shape == (1, 3)
    assert 'await pipeline("image-classification", "."' in card(image_package)


def test_a_graph_of_unknown_interface_is_opened_and_described(
    seal: Seal, decoder_package: Path, run_snippets: RunSnippets
) -> None:
    record = json.loads((decoder_package / "converter.json").read_text())
    record["variants"]["all"]["graphs"]["model"]["inputs"][0]["name"] = "something_else"
    seal(decoder_package, record)
    (names,) = run_snippets(decoder_package)
    assert names["value"].name == "past_key_values.0.key"


# --- what was measured ---


def test_figures_come_from_the_record(decoder_package: Path) -> None:
    text = card(decoder_package)
    assert "| model | logits | graph against original | 2.5e-06 | 0.9999999 |" in text
    assert "[org/some-model](https://huggingface.co/org/some-model) for text-generation" in text
    assert "at revision `abc`, 4 tensors" in text
    assert "Note: one tensor is in no graph." in text
    assert "GiB are free" not in text, "what differs from run to run is in converter.json alone"


@pytest.mark.parametrize(
    ("parity", "words"),
    [
        ({"mode": "off"}, "It was not compared with the original model."),
        ({"mode": "full", "passed": False}, "**It failed comparison"),
        ({"mode": "structural", "passed": True, "sizes": ["a"]}, "every stored weight was read back"),
    ],
)
def test_what_was_not_proven_is_not_called_proven(
    reseal: Seal, decoder_package: Path, parity: dict[str, Any], words: str
) -> None:
    reseal(decoder_package, parity=parity)
    assert words in card(decoder_package)
    assert "computes the same" not in card(decoder_package)


def test_an_added_precision_brings_its_size_and_quality(reseal: Seal, decoder_package: Path) -> None:
    (decoder_package / "onnx/model_quantized.onnx").write_bytes(b"x" * 100)
    entry = {
        "files": ["onnx/model_quantized.onnx"],
        "quality": {"cosine": 0.99961, "texts": 147},
        "budget": {"cosine": 0.999},
        "passed": True,
    }
    reseal(decoder_package, precisions={"q8": entry})
    text = card(decoder_package)
    assert "| q8 | 0.99961 | 147 | cosine >= 0.999 | kept |" in text
    assert "| q8 | `onnx/model_quantized.onnx` | 100 B |" in text


def test_a_precision_that_nobody_judged_is_not_called_kept(reseal: Seal, decoder_package: Path) -> None:
    (decoder_package / "onnx/model_int8.onnx").write_bytes(b"x")
    entry = {"files": ["onnx/model_int8.onnx"], "quality": {}, "budget": {}, "passed": True}
    reseal(decoder_package, precisions={"int8": entry})
    assert "| int8 | none | not judged |" in card(decoder_package)


def test_a_precision_without_a_budget_has_kept_none(reseal: Seal, decoder_package: Path) -> None:
    (decoder_package / "onnx/model_int8.onnx").write_bytes(b"x")
    entry = {"files": ["onnx/model_int8.onnx"], "quality": {"cosine": 0.9}, "budget": {}, "passed": True}
    reseal(decoder_package, precisions={"int8": entry})
    assert "| int8 | 0.90000 | none | measured |" in card(decoder_package)


def test_names_with_markup_cannot_break_the_card(reseal: Seal, decoder_package: Path) -> None:
    source = {"name": "evil\n---\nlicense: mit | x", "revision": None, "license": "a: b\nc"}
    reseal(decoder_package, source=source)
    assert front_matter(decoder_package).license == "a: b\nc"
    assert front_matter(decoder_package).pipeline_tag == "text-generation"


# --- what is kept ---


@pytest.mark.xdist_group("minilm")
def test_the_card_of_the_source_is_carried_as_it_is(minilm: Path, minilm_package: Path) -> None:
    assert (minilm_package / "SOURCE_README.md").read_bytes() == (minilm / "README.md").read_bytes()


def test_equal_records_give_equal_cards(reseal: Seal, decoder_package: Path) -> None:
    before = card(decoder_package)
    reseal(decoder_package)
    assert card(decoder_package) == before


def test_what_somebody_wrote_around_the_block_is_kept(reseal: Seal, decoder_package: Path) -> None:
    entries, body = split_front_matter(card(decoder_package))
    mine = join_front_matter(
        {**entries, "license": "mit", "datasets": ["mine"]}, "My words.\n\n" + body + "\nMore of them.\n"
    )
    (decoder_package / "README.md").write_text(mine)
    reseal(decoder_package, task="fill-mask", notes=["a new note"])
    text, data = card(decoder_package), front_matter(decoder_package)
    assert text.index("My words.") < text.index("a new note") < text.index("More of them.")
    assert text.count("## Provenance") == 1
    assert (data.license, data.datasets) == ("mit", ["mine"])
    assert data.pipeline_tag == "fill-mask", "what nobody changed follows the record"


def test_a_card_that_is_wholly_somebodys_own_stays_above_the_block(
    reseal: Seal, decoder_package: Path
) -> None:
    (decoder_package / "README.md").write_text("# Mine\n\nAll of it.\n")
    for _ in range(2):
        reseal(decoder_package)
    text = card(decoder_package)
    assert text.index("# Mine") < text.index("All of it.") < text.index("## Provenance")
    assert text.count("# Mine") == text.count("## Provenance") == 1


def test_an_edited_card_is_named_and_is_no_damage(decoder_package: Path) -> None:
    with (decoder_package / "README.md").open("a") as file:
        file.write("mine\n")
    info = inspect_package(decoder_package)
    assert info.edited == ("README.md",)
    assert info.exact
    (decoder_package / "README.md").unlink()
    assert inspect_package(decoder_package).intact
