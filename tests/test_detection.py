"""What a checkpoint was made for, read off its own files; what its files leave open is asked back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from converter.checkpoint import open_checkpoint
from converter.checkpoints.detection import detect_task, own_name
from converter.cli.main import run
from converter.cli.questions import ask_back
from converter.errors import AmbiguousError
from converter.records import Checkpoint
from converter.request import ConversionRequest

ENCODER = {
    "feature-extraction": "BertModel",
    "sentence-similarity": "BertModel",
    "fill-mask": "BertForMaskedLM",
    "text-classification": "BertForSequenceClassification",
    "multiple-choice": None,
}
DECODER = {
    "text-generation-with-past": "LlamaForCausalLM",
    "text-generation": "LlamaForCausalLM",
    "feature-extraction": "LlamaModel",
}


def checkpoint(folder: Path, *architectures: str, **files: Any) -> Checkpoint:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    config = {"architectures": list(architectures)} if architectures else {}
    return Checkpoint(folder, "mine", None, config, {})


@pytest.mark.parametrize(
    ("named", "task"),
    [
        ("BertForMaskedLM", "fill-mask"),
        ("BertForSequenceClassification", "text-classification"),
        ("BertModel", "feature-extraction"),
    ],
)
def test_the_class_that_config_json_names_tells_the_task(named: str, task: str, tmp_path: Path) -> None:
    assert detect_task(checkpoint(tmp_path, named), ENCODER) == task


@pytest.mark.parametrize(
    ("kind", "purpose", "head", "task"),
    [
        ("Transformer", "sequence-classification", "BertForSequenceClassification", "text-classification"),
        ("Transformer", "fill-mask", "BertForMaskedLM", "fill-mask"),
        ("Transformer", "feature-extraction", "BertForMaskedLM", "feature-extraction"),
        ("Transformer", None, "BertForMaskedLM", "feature-extraction"),
        ("MLMTransformer", None, "BertForMaskedLM", "fill-mask"),
    ],
)
def test_modules_are_an_embedders_unless_the_transformer_has_another_task(
    kind: str, purpose: str | None, head: str, task: str, tmp_path: Path
) -> None:
    settings = {"max_seq_length": 128} | ({"transformer_task": purpose} if purpose else {})
    modules = [{"type": f"sentence_transformers.{kind}", "path": ""}]
    found = checkpoint(tmp_path, head, modules=modules, sentence_bert_config=settings)
    assert detect_task(found, ENCODER) == task


def test_of_tasks_that_share_a_class_the_usual_one_is_taken(tmp_path: Path) -> None:
    assert detect_task(checkpoint(tmp_path, "LlamaForCausalLM"), DECODER) == "text-generation-with-past"


def test_a_class_is_known_in_the_capitals_of_its_first_release(tmp_path: Path) -> None:
    assert detect_task(checkpoint(tmp_path, "LLaMAForCausalLM"), DECODER) == "text-generation-with-past"


def test_a_checkpoint_of_sentence_transformers_embeds_whatever_its_head(tmp_path: Path) -> None:
    embedder = checkpoint(tmp_path, "LlamaForCausalLM", modules=[])
    assert detect_task(embedder, DECODER) == "feature-extraction"


def test_a_tokenizer_with_a_chat_template_generates(tmp_path: Path) -> None:
    chat = checkpoint(tmp_path, tokenizer_config={"chat_template": "{{ messages }}"})
    assert detect_task(chat, DECODER) == "text-generation-with-past"


def test_a_chat_template_may_lie_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert detect_task(checkpoint(tmp_path), DECODER) == "text-generation-with-past"


def test_where_all_tasks_share_one_class_nothing_is_open(tmp_path: Path) -> None:
    assert detect_task(checkpoint(tmp_path, "Older"), {"a": "Newer", "a-with-past": "Newer"}) == "a"


@pytest.mark.parametrize(
    ("named", "choices"),
    [
        ((), tuple(ENCODER)),
        (("BertForPreTraining",), tuple(ENCODER)),
        (("BertForMaskedLM", "BertForSequenceClassification"), ("fill-mask", "text-classification")),
    ],
)
def test_what_is_ambiguous_comes_with_the_choices(
    named: tuple[str, ...], choices: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(AmbiguousError) as caught:
        detect_task(checkpoint(tmp_path, *named), ENCODER)
    assert caught.value.choices == choices and caught.value.option == "task"
    assert all(name in caught.value.message for name in named)


def test_names_of_other_tools_are_understood() -> None:
    assert own_name("sequence-classification", list(ENCODER)) == "text-classification"
    assert own_name("masked-lm", list(ENCODER)) == "fill-mask"
    assert own_name("translation", ["text2text-generation-with-past"]) == "text2text-generation-with-past"
    assert (
        own_name("causal-lm", list(ENCODER)) == "causal-lm"
    )  # it has none, and the error names what was asked


# --- through the command line ---


@pytest.fixture
def headless(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    """A checkpoint whose config.json does not say which class it is."""
    folder = tmp_path / "headless"
    shutil.copytree(tiny_checkpoint("bert"), folder)
    entries = json.loads((folder / "config.json").read_text())
    del entries["architectures"]
    (folder / "config.json").write_text(json.dumps(entries))
    assert open_checkpoint(folder).config["model_type"] == "bert"
    return folder


def test_without_a_terminal_the_choices_are_an_error(
    headless: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--model", str(headless), "--output", str(tmp_path / "package")]) == 2
    message = capsys.readouterr().err
    assert "--task" in message and "fill-mask" in message and "sentence-similarity" in message
    assert not (tmp_path / "package").exists()


@pytest.mark.parametrize(
    ("entry", "value", "wanted"),
    [
        ("hidden_size", "large", "hidden_size"),
        ("num_attention_heads", [3], "num_attention_heads"),
        ("num_hidden_layers", -1, "num_hidden_layers: -1"),
        ("model_type", "bertt", "did you mean 'bert'"),
        ("model_type", 7, "model_type"),
    ],
)
def test_a_bad_config_is_an_error_of_its_entry(
    entry: str, value: object, wanted: str, headless: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = headless / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), entry: value}))
    assert run(["--model", str(headless), "--task", "fill-mask", "--output", "nowhere"]) == 2
    message = capsys.readouterr().err
    assert wanted in message and "bug" not in message


def test_a_config_that_is_no_json_is_an_error_of_its_place(
    headless: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (headless / "config.json").write_text("{not json")
    assert run(["--model", str(headless), "--output", "nowhere"]) == 2
    assert str(headless / "config.json") in capsys.readouterr().err


def test_on_a_terminal_the_choice_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def answer(text: str, *, type: click.Choice[str], err: bool) -> str:
        asked.append((text, tuple(type.choices), err))
        return "fill-mask"

    def convert(request: ConversionRequest) -> str | None:
        if request.task is None:
            raise AmbiguousError("cannot tell", option="task", choices=["fill-mask", "feature-extraction"])
        return request.task

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr(click, "prompt", answer)
    assert ask_back(ConversionRequest(), convert) == "fill-mask"
    assert asked == [("task", ("fill-mask", "feature-extraction"), True)]


def test_a_task_it_has_not_is_refused_with_a_near_miss(
    headless: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--model", str(headless), "--task", "fill-mas", "--output", "nowhere"]) == 2
    assert "did you mean 'fill-mask'" in capsys.readouterr().err


def test_near_misses_are_near_and_each_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--arch", "bert", "--tiny", "--task", "text-generation", "--output", "nowhere"]) == 2
    message = capsys.readouterr().err
    assert "did you mean" not in message and "choose --task from feature-extraction" in message
    assert run(["list", "--arch", "wav2vec"]) == 2
    suggested = capsys.readouterr().err.partition("did you mean")[2].partition("?")[0]
    names = [name.replace("-", "_") for name in suggested.split("'")[1::2]]
    assert "wav2vec2" in names and len(names) == len(set(names))


def test_a_type_of_which_no_class_is_converted_is_not_called_unknown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["list", "--arch", "pix2struct"]) == 2
    message = capsys.readouterr().err
    assert "'pix2struct' has no class" in message and "plugins.md" in message
    assert "did you mean" not in message


def test_list_shows_what_goes_into_an_architecture(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "--arch", "whisper"]) == 0
    shown = capsys.readouterr().out
    for part in ("automatic-speech-recognition-with-past", "input_features", "use_cache_branch", "float32"):
        assert part in shown
    assert "past_decoder_sequence_length" in shown


def test_list_shows_of_a_task_the_graphs_that_it_writes(capsys: pytest.CaptureFixture[str]) -> None:
    """CLIP's joint graph is one of zero-shot classification, not of feature extraction."""
    assert run(["list", "--arch", "clip", "--json"]) == 0
    (described,) = json.loads(capsys.readouterr().out)["architectures"]
    shown = [(graph["task"], graph["stem"]) for graph in described["graphs"]]
    written = {(task, stem) for task in described["tasks"] for stem in ("text_model", "vision_model")}
    assert set(shown) == {*written, ("zero-shot-image-classification", "model")}


def test_list_knows_types_that_no_plugin_owns(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "--arch", "fnet", "--json"]) == 0
    (described,) = json.loads(capsys.readouterr().out)["architectures"]
    assert "fill-mask" in described["tasks"]
    graphs = {graph["task"]: graph for graph in described["graphs"]}
    assert graphs["fill-mask"]["inputs"][0][0] == "input_ids"
