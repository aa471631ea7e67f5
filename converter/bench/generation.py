"""The models of a benchmark that generate greedily: decoders, and encoders with their decoders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from converter.bench.graphs import load_original
from converter.bench.inputs import Drawn, draw
from converter.runtime.bound import BoundGraph
from converter.runtime.files import PackageFiles, open_package
from converter.runtime.session import Array, SessionSettings

ENCODER, DECODER = "encoder_model", "decoder_model_merged"
STEP_INPUTS = {"input_ids", "attention_mask", "position_ids"}
PAIR_INPUTS = {"input_ids", "encoder_hidden_states", "encoder_attention_mask", "use_cache_branch"}


class TorchDecoder:
    """The original model and its own cache."""

    def __init__(self, model: str, auto_class: str, threads: int) -> None:
        self._model = load_original(model, auto_class, threads)

    def generate(self, prompt: Sequence[int], new_tokens: int) -> Iterator[int]:
        """The tokens after the prompt, one by one."""
        return _continued(self._model, "input_ids", prompt, new_tokens)


class TorchPair:
    """The same with an encoder in front."""

    def __init__(self, model: str, auto_class: str, threads: int, start: int) -> None:
        self._model = load_original(model, auto_class, threads)
        self._start = start

    def generate(self, source: Sequence[Drawn], new_tokens: int) -> Iterator[int]:
        """The tokens after the first one, which the checkpoint names."""
        import torch

        inputs = {name: torch.from_numpy(value) for name, value in draw(source).items()}
        with torch.inference_mode():
            encoded = self._model.get_encoder()(**inputs)
        fixed = {"encoder_outputs": encoded, "attention_mask": inputs.get("attention_mask")}
        yield from _continued(self._model, "decoder_input_ids", [self._start], new_tokens, **fixed)


def _continued(model: Any, ids: str, tokens: Sequence[int], new_tokens: int, **fixed: Any) -> Iterator[int]:
    """Greedy tokens after `tokens`, fed as the input `ids`, with the model's own cache; `fixed` goes with each."""
    import torch

    step, cache = torch.tensor([list(tokens)]), None
    for _ in range(new_tokens):
        with torch.inference_mode():
            out = model(**fixed, **{ids: step}, cache=cache, use_cache=True)
        cache, token = out.cache, int(out.logits[0, -1].argmax())
        yield token
        step = torch.tensor([[token]])


def _open(files: PackageFiles, stem: str, precision: str, threads: int) -> BoundGraph:
    return BoundGraph(files, files.graph((stem,), precision), SessionSettings(threads=threads))


class OnnxDecoder:
    """The same with a graph. What a step returns as present goes into the next where it lies, never copied."""

    def __init__(self, package: str, precision: str, threads: int) -> None:
        self._graph = _open(open_package(package), "model", precision, threads)

    def generate(self, prompt: Sequence[int], new_tokens: int) -> Iterator[int]:
        """The tokens after the prompt, one by one."""
        graph, states = self._graph, self._graph.empty_states(1)
        step, length = np.array([list(prompt)]), len(prompt)
        for _ in range(new_tokens):
            feed = {
                "input_ids": step,
                "attention_mask": np.ones((1, length), dtype=np.int64),
                "position_ids": np.arange(length - step.shape[1], length)[None],
            }
            found = graph.run(feed, states)
            states = {past: found[name] for name, past in graph.states.items()}
            token = int(found["logits"][0, -1].argmax())
            yield token
            step, length = np.array([[token]]), length + 1


class OnnxPair:
    """An encoder and its merged decoder. What cross-attention needs is computed at the first step and kept."""

    def __init__(self, package: str, precision: str, threads: int, start: int) -> None:
        files = open_package(package)
        self._encoder = _open(files, ENCODER, precision, threads)
        self._decoder = _open(files, DECODER, precision, threads)
        self._start = start

    def generate(self, source: Sequence[Drawn], new_tokens: int) -> Iterator[int]:
        """The tokens after the first one, which the checkpoint names."""
        decoder, inputs = self._decoder, draw(source)
        hidden = self._encoder.run(inputs, {})["last_hidden_state"]
        states, later = decoder.empty_states(1), [name for name in decoder.outputs if ".encoder." not in name]
        feed: dict[str, Array] = {
            "input_ids": np.array([[self._start]]),
            "encoder_hidden_states": hidden,
            "encoder_attention_mask": _source_mask(inputs, hidden),
            "use_cache_branch": np.array([False]),
        }
        wanted = decoder.outputs
        for _ in range(new_tokens):
            found = decoder.run(feed, states, wanted)
            states |= {past: found[name] for name, past in decoder.states.items() if name in found}
            token = int(found["logits"][0, -1].argmax())
            yield token
            feed |= {"input_ids": np.array([[token]]), "use_cache_branch": np.array([True])}
            wanted = later


def _source_mask(inputs: Mapping[str, Array], hidden: Array) -> Array:
    """The tokens' own; sound is never padded here."""
    mask = inputs.get("attention_mask")
    if mask is not None and mask.shape == hidden.shape[:2]:
        return mask
    return np.ones(hidden.shape[:2], dtype=np.int64)
