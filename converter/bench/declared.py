"""The models of a benchmark that only their architecture knows how to call: each graph by itself, or a scenario."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converter.bench.feeds import feed_of, prompts_of
from converter.bench.load import COMPARED, timed
from converter.bench.original import call, load_declared
from converter.parity.runners import run_graph
from converter.runtime.files import PackageFiles, open_package
from converter.runtime.session import Array, SessionSettings, open_session

if TYPE_CHECKING:
    from torch import nn

    from converter.scenario import Scenario

Outputs = dict[str, Array]


def _sessions(files: PackageFiles, settings: Mapping[str, Any]) -> dict[str, Any]:
    own = SessionSettings(threads=settings["threads"])
    names = {stem: files.graph((stem,), settings["precision"]) for stem in settings["stems"]}
    return {stem: open_session(files, name, own) for stem, name in names.items()}


class GraphsRunner:
    """Every graph of a package by itself, or what the original computes in its place."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        files = open_package(settings["package"])
        self._folder = Path(settings["feeds"])
        self._name = settings.get("precision") or "torch"
        self._run: dict[str, Callable[[Mapping[str, Array]], Outputs]]
        if settings["model"]:
            original, declared = load_declared(files, settings["model"], settings["threads"])
            parts = declared.components()
            self._run = {stem: partial(call, original, parts[stem]) for stem in settings["stems"]}
        else:
            sessions = _sessions(files, settings)
            self._run = {stem: partial(run_graph, session) for stem, session in sessions.items()}

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Seconds of each call, and rows a second where `rate` names them; where asked for, a file of outputs."""
        if request.get("output"):
            return {"figures": {}, "output": self._outputs()}
        feed = feed_of(self._folder, request["stem"], request["batch"])
        seconds, _ = timed(partial(self._run[request["stem"]], feed), request["calls"])
        figures = {request["name"]: seconds}
        if request["rate"]:
            figures[request["rate"]] = [request["batch"] / spent for spent in seconds]
        return {"figures": figures}

    def _outputs(self) -> str:
        """All outputs of all graphs, `stem/name`, in a file: as text they would be gigabytes for some models."""
        found = {
            f"{stem}/{name}": array
            for stem, run in self._run.items()
            for name, array in run(feed_of(self._folder, stem, COMPARED)).items()
        }
        path = self._folder / f"outputs-{self._name}.npz"
        np.savez(path, **found)  # type: ignore[arg-type]
        return str(path)


class ScenarioRunner:
    """A scenario of several graphs; `_time` runs it on a prompt, and says when its first and its last token came."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        files = open_package(settings["package"])
        opening, step, self._prompts = prompts_of(Path(settings["feeds"]))
        if settings["model"]:
            original, declared = load_declared(files, settings["model"], settings["threads"])
            scenario = next(entry for entry in declared.scenarios() if entry.name == settings["scenario"])
            self._time: Callable[[Mapping[str, Array], int], Timed] = partial(_original, original, scenario)
        else:
            self._time = partial(_graphs, _sessions(files, settings), opening, step)

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Seconds to the first token of all rows, and tokens of all rows a second after it; of all prompts in turn."""
        first, rate, output = [], [], []
        for prompt in self._prompts:
            begun, whole, tokens = self._time(prompt, request["new_tokens"])
            rows, count = tokens.shape
            first.append(begun)
            # Two runs on a busy machine may take the same time: then the second one's alone is what is known.
            rate.append(rows * (count - 1) / (whole - begun) if whole > begun else rows * count / whole)
            output += tokens.tolist()
        reply: dict[str, Any] = {"figures": {"first token": first, "tokens/s": rate}}
        return {**reply, "output": output} if request.get("output") else reply


# Seconds to the first token, seconds to the last one, and the tokens, (rows, number).
Timed = tuple[float, float, Array]


def _graphs(
    sessions: Mapping[str, Any],
    opening: Sequence[Any],
    step: Sequence[Any],
    prompt: Mapping[str, Array],
    new_tokens: int,
) -> Timed:
    """What a step returns is a view of onnxruntime's memory, and goes into the next one without a copy."""
    from converter.parity.play import generate

    start, times, tokens = time.perf_counter(), [], []
    for found in islice(generate(opening, step, prompt, sessions), new_tokens):
        times.append(time.perf_counter() - start)
        tokens.append(found)
    return times[0], times[-1], np.stack(tokens, axis=1)


def _original(model: nn.Module, scenario: Scenario, prompt: Mapping[str, Array], new_tokens: int) -> Timed:
    """Its own `generate` tells no times, so it runs twice: for one token, and for all of them."""
    import torch

    spent, tokens = [], []
    for count in (1, new_tokens):
        given = {name: torch.tensor(array) for name, array in prompt.items()}
        start = time.perf_counter()
        with torch.inference_mode():
            tokens.append(scenario.original(model, given, count))
        spent.append(time.perf_counter() - start)
    return spent[0], spent[1], tokens[1].numpy()
