"""A decoder that has learned something: perplexity means what it says only where the next token is not a guess.

It is small and learns, byte by byte and for some seconds, the sentences precisions are calibrated on. It shows that the
bound works and that fewer bits cost perplexity; trained weights of a real size have outliers that these have not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from converter.cli.main import run

pytestmark = pytest.mark.xdist_group("judging")
Capture = pytest.CaptureFixture[str]
STEPS, BATCH, LENGTH = 120, 16, 60


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, write_text_tokenizer: Any) -> Path:
    """The package of a byte-level Qwen2 of 2 layers, grouped heads and a tied table, perplexity below 20."""
    import torch
    from tokenizers import Tokenizer
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from converter.precision.samples import corpus

    folder = tmp_path_factory.mktemp("trained")
    checkpoint = folder / "checkpoint"
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=601,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=True,
        )
    )
    model.save_pretrained(checkpoint)
    write_text_tokenizer(checkpoint)
    encoding = Tokenizer.from_file(str(checkpoint / "tokenizer.json")).encode(" ".join(corpus()[0]))
    ids = torch.tensor(encoding.ids)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # steps this small wait for threads longer than they compute
    for _ in range(STEPS):
        starts = torch.randint(len(ids) - LENGTH, (BATCH, 1))
        rows = ids[starts + torch.arange(LENGTH)]
        loss = model(input_ids=rows, labels=rows).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    assert loss.exp() < 20, "it learned too little for its perplexity to mean anything"
    model.save_pretrained(checkpoint)
    arguments = [
        "--model",
        str(checkpoint),
        "--output",
        str(folder / "package"),
        "--parity",
        "off",
        "--quiet",
    ]
    assert run(arguments) == 0
    return folder / "package"


def entries(package: Path) -> Any:
    return json.loads((package / "converter.json").read_text())["precisions"]


def test_perplexity_is_kept_to_a_hundredth_in_8_and_in_4_bits(trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "p"
    arguments = ["quantize", str(trained), "--output", str(target), "--precisions", "q8,q4", "--quiet"]
    assert run([*arguments, "--keep", "perplexity=1.01x", "--trials", "24"]) == 0
    found = entries(target)
    for name in ("q8", "q4"):
        assert found[name]["budget"] == {"perplexity": 1.01}
        assert 0.99 < found[name]["quality"]["perplexity"] <= 1.01
    assert found["q4"]["ratio"] < found["q8"]["ratio"]
    assert found["q4"]["tried"][0]["cosine"] < found["q8"]["quality"]["cosine"], "fewer bits cost something"


def test_a_bound_on_perplexity_that_is_missed_is_an_error(
    trained: Path, tmp_path: Path, capsys: Capture
) -> None:
    arguments = ["quantize", str(trained), "--output", str(tmp_path / "p"), "--precisions", "bnb4", "--quiet"]
    assert run([*arguments, "--keep", "perplexity=1.0001x", "--trials", "1"]) == 3
    assert "misses 1.0001 by" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()
