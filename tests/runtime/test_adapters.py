"""Packages as models of transformers: pipelines and generation give what the torch model gives."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter.errors import PackageError, UsageError
from converter.runtime import load

pytestmark = pytest.mark.xdist_group("clients")
TEXTS = ["A cat sat on the mat.", "The quarterly report shows revenue growing in every region but one."]
WAYS = {
    "greedy": {"do_sample": False},
    "beam": {"num_beams": 3, "do_sample": False},
    "beams returned": {"num_beams": 4, "num_return_sequences": 2, "do_sample": False},
    "sampling": {"do_sample": True, "top_k": 20, "temperature": 1.3},
    "no cache": {"do_sample": False, "use_cache": False},
}


@pytest.fixture(scope="module")
def pair(client_work: Any) -> Callable[[str], tuple[Any, Any, Any]]:
    """task -> the package as a model, the torch model, and what prepares inputs for both; each opened once."""
    import transformers

    auto = {
        "text-generation": "AutoModelForCausalLM",
        "translation": "AutoModelForSeq2SeqLM",
        "automatic-speech-recognition": "AutoModelForSpeechSeq2Seq",
    }
    opened: dict[str, tuple[Any, Any, Any]] = {}

    def open_pair(task: str) -> tuple[Any, Any, Any]:
        if task not in opened:
            package = client_work.packages / task
            original = getattr(transformers, auto[task]).from_pretrained(client_work.checkpoint(task))
            processor = transformers.AutoProcessor.from_pretrained(package)
            opened[task] = load(task, package), original.eval(), processor
        return opened[task]

    return open_pair


def sound(client_scripts: Any) -> Any:
    import reference  # beside the scripts' run.py, which is imported

    return reference.chirp()


@pytest.mark.parametrize("way", WAYS.values(), ids=list(WAYS))
@pytest.mark.parametrize("task", ["text-generation", "translation", "automatic-speech-recognition"])
def test_generation_gives_the_tokens_of_the_original(
    pair: Any, client_scripts: Any, task: str, way: dict[str, Any]
) -> None:
    import torch

    model, original, processor = pair(task)
    if task == "automatic-speech-recognition":
        inputs = processor(sound(client_scripts), sampling_rate=16000, return_tensors="pt")
        way = {**way, "language": "en", "task": "transcribe"}
    else:  # two texts of different lengths: one is padded, on the tokenizer's side
        inputs = processor(TEXTS, padding=True, return_tensors="pt")
    made = []
    for candidate in (model, original):
        torch.manual_seed(3)
        # Random encoder-decoders repeat themselves, which would hide a past that is wrong.
        made.append(candidate.generate(**inputs, max_new_tokens=9, no_repeat_ngram_size=1, **way))
    torch.testing.assert_close(*made, rtol=0, atol=0)


def test_past_key_values_pass_from_step_to_step_as_they_are(
    pair: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxruntime import OrtValue

    from converter.runtime.bound import BoundGraph

    model, _, tokenizer = pair("text-generation")
    steps: list[tuple[Any, Any]] = []
    run = BoundGraph.run

    def record(self: Any, feed: Any, states: Any, outputs: Any = None) -> Any:
        found = run(self, feed, states, outputs)
        steps.append((states, {past: found[name] for name, past in self.states.items()}))
        return found

    monkeypatch.setattr(BoundGraph, "run", record)
    model.generate(**tokenizer(TEXTS[0], return_tensors="pt"), max_new_tokens=4, do_sample=False)
    assert len(steps) == 4
    for (_, given), (taken, _) in pairwise(steps):
        assert all(isinstance(value, OrtValue) and taken[name] is value for name, value in given.items())


def test_a_past_can_be_handed_back_by_the_caller(pair: Any) -> None:
    import torch

    model, original, tokenizer = pair("text-generation")
    ids = tokenizer(TEXTS[1], return_tensors="pt").input_ids
    first = model(ids[:, :5])
    later = model(ids[:, 5:], past_key_values=first.past_key_values)
    with torch.no_grad():
        torch.testing.assert_close(later.logits, original(ids).logits[:, 5:], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "task", ["feature-extraction", "text-classification", "text-generation", "image-classification"]
)
def test_pipelines_give_what_they_give_with_torch(client_work: Any, minilm: Path, task: str) -> None:
    from PIL import Image
    from transformers import pipeline

    package = client_work.packages / task
    checkpoint = minilm if task == "feature-extraction" else client_work.checkpoint(task)
    part = "image_processor" if task == "image-classification" else "tokenizer"
    asked: Any = TEXTS
    options: dict[str, Any] = {}
    if task == "image-classification":
        asked = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8))
    if task == "text-generation":
        options = {"max_new_tokens": 6, "do_sample": False}
    ours = pipeline(task, model=load(task, package), **{part: str(package)})(asked, **options)
    torchs = pipeline(task, model=str(checkpoint), **{part: str(checkpoint)})(asked, **options)
    assert close(ours, torchs), (ours, torchs)


def close(ours: Any, other: Any) -> bool:
    if isinstance(ours, dict):
        return ours.keys() == other.keys() and all(close(ours[key], other[key]) for key in ours)
    if isinstance(ours, list | tuple):
        return len(ours) == len(other) and all(map(close, ours, other))
    if isinstance(ours, float | np.floating):
        return bool(abs(ours - other) < 1e-4)
    return bool(ours == other)


def test_the_speech_pipeline_transcribes(pair: Any, client_scripts: Any) -> None:
    from transformers import pipeline

    wave, texts = sound(client_scripts), []
    for model in pair("automatic-speech-recognition")[:2]:
        processor = pair("automatic-speech-recognition")[2]
        speech = pipeline(
            "automatic-speech-recognition",
            model=model,
            tokenizer=processor.tokenizer,
            feature_extractor=processor.feature_extractor,
        )
        texts.append(speech(wave, generate_kwargs={"max_new_tokens": 9, "language": "en"})["text"])
    assert texts[0] == texts[1] != ""


@pytest.fixture(scope="module")
def headed(
    client_scripts: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Path]]:
    """The name of a class -> checkpoint and package of a tiny text encoder with that head."""
    import checkpoints  # beside the scripts' run.py, which is imported
    import transformers

    from converter import convert

    def make(name: str) -> tuple[Path, Path]:
        tokenizer = checkpoints.word_pieces()
        config = transformers.BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=36,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=52,
            id2label={0: "O", 1: "B-PER", 2: "I-PER"} if "Token" in name else {0: "no", 1: "yes"},
        )
        folder = tmp_path_factory.mktemp("headed")
        checkpoint = checkpoints.save(getattr(transformers, name)(config), folder / "checkpoint", tokenizer)
        convert(model=checkpoint, output=folder / "package", parity="off")
        return checkpoint, folder / "package"

    return make


@pytest.mark.parametrize(
    ("task", "name", "fields"),
    [
        ("token-classification", "BertForTokenClassification", ["logits"]),
        ("question-answering", "BertForQuestionAnswering", ["start_logits", "end_logits"]),
    ],
)
def test_heads_give_the_outputs_of_the_original(headed: Any, task: str, name: str, fields: list[str]) -> None:
    import torch
    import transformers

    checkpoint, package = headed(name)
    model, original = load(task, package), getattr(transformers, name).from_pretrained(checkpoint).eval()
    ids = torch.tensor([[5, 9, 11, 17], [8, 4, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    ours = model(ids, mask)  # by position, as the original takes them; segments left out
    with torch.no_grad():
        theirs = original(ids, mask)
    for field in fields:
        torch.testing.assert_close(ours[field][mask > 0], theirs[field][mask > 0], atol=1e-4, rtol=0)
    assert len(model(ids, mask, return_dict=False)) == len(fields)
    if task == "token-classification":
        made = [
            transformers.pipeline(task, model=each, tokenizer=str(package), aggregation_strategy="simple")(
                TEXTS
            )
            for each in (model, original)
        ]
        assert any(made[1]) and close(*made), made
        for other in ("question-answering", "text-classification"):
            with pytest.raises(PackageError, match=f"made for token-classification, not for {other}"):
                load(other, package)


def test_what_a_graph_cannot_do_is_said(pair: Any, client_work: Any, tmp_path: Path) -> None:
    import torch
    from transformers import DynamicCache

    packages = client_work.packages
    model, _, _ = pair("text-generation")
    ids = torch.tensor([[5, 6, 7]])
    with pytest.raises(UsageError, match="no task 'sorting'"):
        load("sorting", packages / "text-generation")
    with pytest.raises(PackageError, match="made for text-generation, not for text2text-generation"):
        load("translation", packages / "text-generation")
    with pytest.raises(UsageError, match="no precision 'q8'; it has fp32"):
        load("text-generation", packages / "text-generation", precision="q8")
    with pytest.raises(UsageError, match="no loss"):
        model(ids, labels=ids)
    with pytest.raises(UsageError, match="another device"):
        model.to("cuda")
    with pytest.raises(UsageError, match="which no graph has made"):
        model(ids, past_key_values=DynamicCache())
    with pytest.raises(UsageError, match="cache"):
        model.generate(ids, max_new_tokens=2, cache_implementation="static")
    with pytest.raises(UsageError, match="decoder_input_ids"):
        pair("translation")[0](ids)
    shutil.copytree(packages / "text-classification", tmp_path / "foreign")
    (
        tmp_path / "foreign/converter.json"
    ).unlink()  # somebody else's package does not say what it was made for
    with pytest.raises(PackageError, match="not what this task needs"):
        load("question-answering", tmp_path / "foreign")
    shutil.copytree(packages / "translation", tmp_path / "package")
    (tmp_path / "package/onnx/decoder_model_merged.onnx").unlink()
    with pytest.raises(PackageError, match="has no onnx/decoder_model_merged"):
        load("translation", tmp_path / "package")
