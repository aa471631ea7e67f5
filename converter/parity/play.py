"""Running scenarios: the original generates, then the graphs do, call by call, and their tokens are compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converter.errors import ParityError
from converter.parity.runners import open_session, run_graph
from converter.records import Comparison
from converter.scenario import Call, Scenario, State

if TYPE_CHECKING:
    import onnxruntime
    from torch import nn


@dataclass(frozen=True)
class Played:
    """A scenario as the original played it: its prompt, and its tokens (batch, steps)."""

    scenario: Scenario
    prompt: Mapping[str, NDArray[np.generic]]
    tokens: NDArray[np.int64]


def play_original(model: nn.Module, scenario: Scenario, seed: int, *, steps: int) -> Played:
    """Let the original generate."""
    import torch

    prompt = scenario.prompt(seed)
    with torch.no_grad():
        tokens = scenario.original(model, {name: value.clone() for name, value in prompt.items()}, steps)
    if tuple(tokens.shape)[1:] != (steps,):
        raise ParityError(
            f"{scenario.name}: the original gave tokens of shape {tuple(tokens.shape)}, not {steps} a row"
        )
    arrays = {name: value.numpy() for name, value in prompt.items()}
    return Played(scenario, arrays, tokens.numpy().astype(np.int64))


def play_graphs(played: Played, folder: Path, device: str) -> Comparison:
    """The same by the graphs in `folder`. A row that differs differs from some token on: what is counted is tokens."""
    scenario = played.scenario
    stems = sorted(scenario.stems)
    sessions = {stem: open_session(folder / f"{stem}.onnx", device=device) for stem in stems}
    batch, steps = played.tokens.shape
    tokens = generate(scenario.opening, scenario.step, played.prompt, sessions)
    found = np.stack(list(islice(tokens, steps)), axis=1)
    different = int((found != played.tokens).sum())
    return Comparison(
        component=scenario.step[-1].stem,
        size=f"{scenario.name}: {batch} rows, {steps} tokens",
        output="tokens",
        pair="graph/original",
        max_abs=float(different),
        cosine=1.0 - different / found.size,
        passed=different == 0,
    )


def generate(
    opening: Sequence[Call],
    step: Sequence[Call],
    prompt: Mapping[str, NDArray[np.generic]],
    sessions: Mapping[str, onnxruntime.InferenceSession],
) -> Iterator[NDArray[np.int64]]:
    """The tokens of all rows (batch,), one after the other, without end."""
    state = State(prompt)
    calls = opening
    while True:
        for call in calls:
            make(call, sessions, state)
        choose(state)
        yield state.tokens[-1]
        calls = step


def make(call: Call, sessions: Mapping[str, onnxruntime.InferenceSession], state: State) -> None:
    """One call: what is given and what is bound goes in, and the outputs are kept for the calls after it."""
    missing = sorted(set(call.bindings.values()) - set(state.outputs))
    if missing:
        raise ParityError(f"{call.stem}: no call so far has given {missing[0]!r}, which is bound to an input")
    feed: dict[str, Any] = {name: state.outputs[output] for name, output in call.bindings.items()}
    feed.update(call.given(state))
    state.outputs.update(run_graph(sessions[call.stem], feed))


def choose(state: State) -> None:
    """Greedy: the token of the largest logit at the last position of each row."""
    state.tokens.append(state.outputs["logits"][:, -1].argmax(-1).astype(np.int64))
