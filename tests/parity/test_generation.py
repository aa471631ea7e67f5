"""Generation is checked as generation: tokens of the graphs, call by call, against the original's `generate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converter import convert
from converter.checkpoint import open_checkpoint
from converter.errors import ParityError, UsageError
from converter.parity.play import Played, play_graphs, play_original
from converter.registry import load_registry
from converter.scenario import Scenario

Checkpoints = Callable[..., Path]
TASK = "text-generation-with-past"
SWITCH = 20
LONGROPE = {
    "original_max_position_embeddings": SWITCH,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0, 1.1, 1.3, 1.5],
        "long_factor": [1.0, 2.1, 3.3, 5.5],
        "original_max_position_embeddings": SWITCH,
    },
}


@pytest.fixture(scope="module")
def generated(tiny_checkpoint: Checkpoints, tmp_path_factory: pytest.TempPathFactory) -> tuple[Played, Path]:
    """A decoder with grouped heads, whose texts outgrow the first of its two sets of positions: tokens and graph."""
    folder = tiny_checkpoint("phi3", task=TASK, overrides=LONGROPE)
    package = tmp_path_factory.mktemp("generation") / "package"
    convert(model=folder, output=package, parity="off")
    architecture, checkpoint = load_registry().find("phi3"), open_checkpoint(folder)
    scenarios = architecture.scenarios(architecture.source.config(checkpoint), TASK)
    model = architecture.source.original(checkpoint, TASK, None)
    (scenario,) = scenarios
    return play_original(model, scenario, seed=3, steps=32), package / "onnx"


def test_tokens_of_prompts_of_different_lengths_are_the_originals(
    generated: tuple[Played, Path],
) -> None:
    played, graphs = generated
    row = play_graphs(played, graphs, "cpu")
    assert row.passed and row.max_abs == 0 and row.output == "tokens"
    lengths = set(played.prompt["attention_mask"].sum(1))
    assert len(lengths) == 3 and played.tokens.shape == (3, 32)
    # Prefill is cut where one row has nothing but padding before the cut.
    assert len(played.scenario.opening) == 2
    assert not played.prompt["attention_mask"][:, :5].any(1).all()
    # Rows that all said the same, or one thing for ever, would prove little.
    assert len({tuple(tokens) for tokens in played.tokens}) == 3
    assert all(len(set(tokens)) > 4 for tokens in played.tokens)


def test_a_text_that_outgrows_its_positions_is_fed_anew_as_the_original_does(
    generated: tuple[Played, Path],
) -> None:
    played, graphs = generated
    longest = played.prompt["input_ids"].shape[1]
    assert longest < SWITCH < longest + played.tokens.shape[1]
    (step,) = played.scenario.step
    never = replace(step, given=partial(step.given.func, *step.given.args[:2], None, *step.given.args[3:]))
    row = play_graphs(replace(played, scenario=replace(played.scenario, step=(never,))), graphs, "cpu")
    assert not row.passed


def test_positions_that_each_kind_of_layer_remembers_are_refused() -> None:
    from transformers import Gemma3TextConfig

    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 5000.0}
    config = Gemma3TextConfig(rope_parameters={"full_attention": rope, "sliding_attention": rope})
    with pytest.raises(UsageError, match="longest text"):
        load_registry().find("gemma3_text").components(config, TASK)


def test_a_classifier_without_padding_is_refused_with_what_to_write() -> None:
    from transformers import LlamaConfig

    llama = load_registry().find("llama")
    with pytest.raises(UsageError, match="names no padding") as caught:
        llama.components(LlamaConfig(pad_token_id=None), "text-classification")
    assert "pad_token_id" in str(caught.value.remedy)
    assert llama.components(LlamaConfig(pad_token_id=0), "text-classification")


def with_bindings(played: Played, change: Callable[[dict[str, str]], dict[str, str]]) -> Played:
    scenario: Scenario = played.scenario
    (step,) = scenario.step
    changed = replace(step, bindings=change(dict(step.bindings)))
    return replace(played, scenario=replace(scenario, step=(changed,)))


def test_keys_handed_on_as_values_show(generated: tuple[Played, Path]) -> None:
    played, graphs = generated
    swapped = with_bindings(
        played,
        lambda bindings: {
            **bindings,
            "past_key_values.1.key": "present.1.value",
            "past_key_values.1.value": "present.1.key",
        },
    )
    row = play_graphs(swapped, graphs, "cpu")
    assert not row.passed and row.max_abs > 0


def test_tokens_of_another_model_show(generated: tuple[Played, Path]) -> None:
    played, graphs = generated
    other = played.tokens.copy()
    other[1, 30] += 1
    row = play_graphs(replace(played, tokens=other), graphs, "cpu")
    assert not row.passed and row.max_abs == 1


def test_a_binding_to_nothing_is_named(generated: tuple[Played, Path]) -> None:
    played, graphs = generated
    unbound: Any = with_bindings(played, lambda bindings: {**bindings, "past_key_values.0.key": "absent"})
    with pytest.raises(ParityError, match="absent"):
        play_graphs(unbound, graphs, "cpu")


def test_an_original_that_stops_early_is_an_error(generated: tuple[Played, Path]) -> None:
    played, _ = generated
    short = replace(
        played.scenario, original=lambda model, prompt, steps: prompt["input_ids"].new_ones(3, steps - 1)
    )
    with pytest.raises(ParityError, match="not 32 a row"):
        play_original(None, short, seed=0, steps=32)  # type: ignore[arg-type]
    assert np.asarray(played.tokens).dtype == np.int64
