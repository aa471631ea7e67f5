"""The models of a benchmark that are run once a call: torch behind the interface of a graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.errors import PackageError
from converter.runtime.encoder import OUTPUTS
from converter.runtime.session import Array, OneByOne
from converter.sentence_modules import encoder_folder, read_modules

TEXT_OUTPUTS = (*OUTPUTS, "logits")
TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def load_original(model: str, auto_class: str, threads: int) -> Any:
    """The untouched model in float32, on so many threads."""
    import torch
    import transformers

    torch.set_num_threads(threads)
    folder = Path(model)
    inner = encoder_folder(folder, read_modules(folder))  # of a sentence-transformers checkpoint
    return getattr(transformers, auto_class).from_pretrained(inner, dtype=torch.float32).eval()


class TorchGraph(OneByOne):
    """The original model behind the interface of a graph, so that all around it is the same code."""

    def __init__(self, model: str, auto_class: str, output: str, threads: int) -> None:
        import inspect

        self._model = load_original(model, auto_class, threads)
        self.file = model
        accepted = inspect.signature(self._model.forward).parameters
        self.inputs: Sequence[str] = tuple(name for name in TOKEN_INPUTS if name in accepted)
        # A head's logits; of a graph that pools by itself, what the pooling around it is given elsewhere.
        self._output = output if output == "logits" else "last_hidden_state"
        config = self._model.config
        rows = self._output == "logits" and auto_class.endswith("SequenceClassification")
        self.output_rank = 2 if rows else 3
        self.width: int | None = getattr(config, "hidden_size", None)
        if self._output == "logits":
            self.width = config.vocab_size if auto_class.endswith("MaskedLM") else config.num_labels

    def run(self, feed: Mapping[str, Array]) -> NDArray[np.float32]:
        """The last hidden state, or the logits of a head."""
        return _run(self._model, {name: feed[name] for name in self.inputs if name in feed}, self._output)


class TorchArrays:
    """The original model on the inputs of a graph, and of what it gives the output of that name."""

    def __init__(self, model: str, auto_class: str, output: str, threads: int) -> None:
        self._model = load_original(model, auto_class, threads)
        self._output = output

    def run(self, feed: Mapping[str, Array]) -> NDArray[np.float32]:
        return _run(self._model, feed, self._output)


def _run(model: Any, feed: Mapping[str, Array], output: str) -> NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        record = model(**{name: torch.from_numpy(value) for name, value in feed.items()})
    if output not in record:
        raise PackageError(
            f"{type(model).__name__} returns {', '.join(record)}, but the graph returns {output}",
            remedy="leave out --model to compare the precisions with each other",
        )
    found: NDArray[np.float32] = record[output].numpy()
    return found
