"""docs/quickstart.md does what it says: every block runs, in order, in one folder.

There is no hub here: folders of the same names stand in for its models, the real all-MiniLM-L6-v2 and a small
multilingual classifier trained on the spot. Of the benchmarks only the number of repeats is smaller.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from converter.cli.main import run

GUIDE = Path(__file__).parent.parent / "docs" / "quickstart.md"
SHORTER = {"bench": ["--repeats", "1", "--documents", "4", "--batch-size", "2", "--threads", "1"]}
PRAISE = [
    "this is wonderful",
    "a good day",
    "das ist schön",
    "ein guter tag",
    "une belle surprise",
    "un bon jour",
]
BLAME = [
    "this is terrible",
    "a bad day",
    "das ist furchtbar",
    "ein böser tag",
    "une laide surprise",
    "un mauvais jour",
]


def blocks() -> list[tuple[str, str]]:
    return re.findall(r"```(\w+)\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


def train_classifier(folder: Path) -> None:
    """A BERT of two layers that has learned a dozen phrases by heart, with its tokenizer."""
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    trained = BertWordPieceTokenizer(lowercase=True, strip_accents=True)
    trained.train_from_iterator([*PRAISE, *BLAME, "."], vocab_size=150, show_progress=False)
    folder.mkdir(parents=True)
    tokenizer = BertTokenizerFast(tokenizer_object=trained._tokenizer)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    labels = {0: "negative", 1: "positive"}
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        id2label=labels,
        label2id={name: number for number, name in labels.items()},
    )
    model = BertForSequenceClassification(config)
    texts = [phrase + end for phrase in PRAISE + BLAME for end in ("", ".")]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    target = torch.tensor([1] * 2 * len(PRAISE) + [0] * 2 * len(BLAME))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(100):
        optimizer.zero_grad()
        model(**batch, labels=target).loss.backward()
        optimizer.step()
    model.eval().save_pretrained(folder)


@pytest.mark.xdist_group("quickstart")
def test_every_block_runs_in_order(minilm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sentence-transformers").mkdir()
    Path("sentence-transformers/all-MiniLM-L6-v2").symlink_to(minilm)
    train_classifier(Path("nlptown/bert-base-multilingual-uncased-sentiment"))
    names: dict[str, Any] = {}
    for language, block in blocks():
        assert language in ("console", "python"), f"a block of {language} is run by nobody"
        if language == "python":
            exec(compile(block, "quickstart.md", "exec"), names)
            continue
        for line in block.splitlines():
            arguments = shlex.split(line.removeprefix("$ converter "))
            assert line.startswith("$ converter "), line
            assert run([*arguments, *SHORTER.get(arguments[0], [])]) == 0, line
    check(names)


def check(names: dict[str, Any]) -> None:
    """What the guide says of the results."""
    similarity = names["similarity"]
    assert similarity[0, 1] > similarity[0, 2] + 0.2
    assert abs(names["vectors"][0] - names["expected"]).max() < 1e-5
    assert (names["small"].encode("A cat sat on the mat.") * names["vectors"][0]).sum() > 0.95
    ours, theirs = names["ours"](names["reviews"]), names["theirs"](names["reviews"])
    assert [entry["label"] for entry in ours] == ["positive", "negative", "positive"]
    for found, known in zip(ours, theirs, strict=True):
        assert found["label"] == known["label"]
        assert found["score"] == pytest.approx(known["score"], abs=1e-5)
    assert "## Speed" in Path("models/minilm/README.md").read_text(encoding="utf-8")
    assert Path("minilm.html").is_file()


def test_the_options_it_shows_are_in_the_help() -> None:
    from converter.cli.main import cli

    for language, block in blocks():
        for line in block.splitlines() if language == "console" else ():
            words = shlex.split(line.removeprefix("$ converter "))
            command = cli.commands.get(words[0], cli)  # type: ignore[attr-defined]
            options = {name for parameter in command.params for name in parameter.opts}
            assert {word for word in words if word.startswith("--")} <= options, line
