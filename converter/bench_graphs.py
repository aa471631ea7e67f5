"""The models of a benchmark: torch behind the interface of a graph, and decoders that generate greedily."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.errors import PackageError
from converter.runtime.encoder import OUTPUTS
from converter.runtime.files import open_package
from converter.runtime.session import Array, SessionSettings, open_session

TEXT_OUTPUTS = (*OUTPUTS, "logits")
TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
# The class that computes what a task's graph computes; for any other task the bare model.
_CLASSES = {
    "fill-mask": "AutoModelForMaskedLM",
    "text-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
}
_PAST = "past_key_values."


class TorchGraph:
    """The original model behind the interface of a graph, so that all around it is the same code."""

    def __init__(self, model: str, task: str, threads: int) -> None:
        import inspect

        import torch
        import transformers

        torch.set_num_threads(threads)
        self._torch = torch
        factory = getattr(transformers, _CLASSES.get(task, "AutoModel"))
        self._model = factory.from_pretrained(model, dtype=torch.float32).eval()
        accepted = inspect.signature(self._model.forward).parameters
        self.inputs: Sequence[str] = tuple(name for name in TOKEN_INPUTS if name in accepted)
        self._output = "logits" if task in _CLASSES else "last_hidden_state"
        config = self._model.config
        self.width: int | None = getattr(
            config, "hidden_size" if self._output == "last_hidden_state" else "num_labels", None
        )
        self.output_rank = 2 if task == "text-classification" else 3
        if task == "fill-mask":
            self.width = config.vocab_size

    def run(self, feed: Mapping[str, Array]) -> NDArray[np.float32]:
        """The last hidden state, or the logits of a head."""
        tensors = {name: self._torch.from_numpy(feed[name]) for name in self.inputs if name in feed}
        with self._torch.inference_mode():
            found: NDArray[np.float32] = self._model(**tensors)[self._output].numpy()
        return found


class TorchDecoder:
    """Greedy generation with the original model and its own cache."""

    def __init__(self, model: str, threads: int) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        self._torch = torch
        self._model = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    def generate(self, prompt: Sequence[int], new_tokens: int) -> Iterator[int]:
        """The tokens after the prompt, one by one."""
        step, cache = self._torch.tensor([list(prompt)]), None
        for _ in range(new_tokens):
            with self._torch.inference_mode():
                out = self._model(input_ids=step, past_key_values=cache, use_cache=True)
            cache, token = out.past_key_values, int(out.logits[0, -1].argmax())
            yield token
            step = self._torch.tensor([[token]])


class OnnxDecoder:
    """The same with a graph. What a step returns as present goes into the next where it lies, never copied."""

    def __init__(self, package: str, precision: str, threads: int) -> None:
        from onnxruntime import OrtValue

        files = open_package(package)
        name = files.graph(("model",), precision)
        self._session = open_session(files, name, SessionSettings(threads=threads))
        self._value = OrtValue.ortvalue_from_numpy
        inputs = {value.name: value for value in self._session.get_inputs()}
        self._past = {key: value for key, value in inputs.items() if key.startswith(_PAST)}
        self._others = [key for key in inputs if key not in self._past]
        self._outputs = [value.name for value in self._session.get_outputs()]
        if unknown := set(self._others) - {"input_ids", "attention_mask", "position_ids"}:
            raise PackageError(f"{name} wants {', '.join(sorted(unknown))}, which a benchmark does not make")

    def generate(self, prompt: Sequence[int], new_tokens: int) -> Iterator[int]:
        """The tokens after the prompt, one by one."""
        past = {key: self._value(_empty(value)) for key, value in self._past.items()}
        step, length = np.array([list(prompt)]), len(prompt)
        for _ in range(new_tokens):
            made = {
                "input_ids": step,
                "attention_mask": np.ones((1, length), dtype=np.int64),
                "position_ids": np.arange(length - step.shape[1], length)[None],
            }
            feed = {name: self._value(made[name]) for name in self._others} | past
            found = dict(zip(self._outputs, self._session.run_with_ort_values(None, feed), strict=True))
            past = {name: found[name.replace(_PAST, "present.")] for name in past}
            token = int(found["logits"].numpy()[0, -1].argmax())
            yield token
            step, length = np.array([[token]]), length + 1


def _empty(value: Any) -> Array:
    """Past key values of batch 1 and length 0."""
    dtype = np.float16 if value.type == "tensor(float16)" else np.float32
    _, *sizes = value.shape
    return np.zeros([1, *(size if isinstance(size, int) else 0 for size in sizes)], dtype)
