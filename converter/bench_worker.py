"""One contender of a benchmark in a process of its own: `python -m converter.bench_worker SETTINGS`.

Reads one JSON request a line, answers one line each: first how it opened, then times. Its own process is what
makes memory and first-open time its own, and idle contenders cost the running one nothing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.console import quiet_libraries
from converter.errors import ConverterError
from converter.request import SILENT
from converter.runtime.encoder import OUTPUTS, TextPipeline
from converter.runtime.files import PackageFiles, open_package
from converter.runtime.session import Array, Graph, OnnxGraph, SessionSettings

TOKEN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class TorchGraph:
    """The original model behind the interface of a graph, so that all around it is the same code."""

    def __init__(self, model: str, threads: int) -> None:
        import inspect

        import torch
        from transformers import AutoModel

        torch.set_num_threads(threads)
        self._torch = torch
        self._model = AutoModel.from_pretrained(model, dtype=torch.float32).eval()
        accepted = inspect.signature(self._model.forward).parameters
        self.inputs: Sequence[str] = tuple(name for name in TOKEN_INPUTS if name in accepted)
        self.width: int | None = getattr(self._model.config, "hidden_size", None)
        self.output_rank = 3

    def run(self, feed: Mapping[str, Array]) -> NDArray[np.float32]:
        """The last hidden state."""
        tensors = {name: self._torch.from_numpy(feed[name]) for name in self.inputs if name in feed}
        with self._torch.inference_mode():
            hidden: NDArray[np.float32] = self._model(**tensors).last_hidden_state.numpy()
        return hidden


def open_contender(settings: Mapping[str, Any]) -> tuple[TextPipeline, float, float]:
    """The pipeline, the seconds its library took to import, and those it took to open."""
    start = time.perf_counter()
    if settings["model"]:
        import torch  # noqa: F401
        import transformers.models.auto  # noqa: F401
    else:
        import onnxruntime  # noqa: F401
    imported = time.perf_counter()
    files = open_package(settings["package"])
    pipeline = TextPipeline(files, _graph(files, settings))
    return pipeline, imported - start, time.perf_counter() - imported


def _graph(files: PackageFiles, settings: Mapping[str, Any]) -> Graph:
    threads = int(settings["threads"])
    if settings["model"]:
        return TorchGraph(settings["model"], threads)
    name = files.graph(("model", "text_model"), settings["precision"])
    return OnnxGraph(files, name, SessionSettings(threads=threads), OUTPUTS)


def answer(pipeline: TextPipeline, request: Mapping[str, Any]) -> dict[str, Any]:
    """Seconds of each of `calls` runs over the texts; with `vectors`, what came out of the last."""
    seconds = []
    vectors: Any = None
    for _ in range(request["calls"]):
        start = time.perf_counter()
        vectors = pipeline.encode(
            request["texts"],
            batch_size=request["batch_size"],
            normalize=None,
            prompt_name=None,
            progress=SILENT,
        )
        seconds.append(time.perf_counter() - start)
    reply: dict[str, Any] = {"seconds": seconds, "resident_bytes": resident_bytes()}
    return {**reply, "vectors": vectors.tolist()} if request.get("vectors") else reply


def resident_bytes() -> int:
    """What the whole process holds in memory, mapped weights among it."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def main(settings: Mapping[str, Any]) -> None:
    """Answer until stdin ends. An error is an answer too."""
    stdout = sys.stdout
    with quiet_libraries():
        try:
            before = resident_bytes()
            pipeline, imported, opened = open_contender(settings)
            opening = {"import_seconds": imported, "open_seconds": opened, "resident_bytes": resident_bytes()}
            stdout.write(json.dumps({**opening, "bare_bytes": before}) + "\n")
            stdout.flush()
            for line in sys.stdin:
                stdout.write(json.dumps(answer(pipeline, json.loads(line))) + "\n")
                stdout.flush()
        except ConverterError as error:
            stdout.write(json.dumps({"error": error.message, "remedy": error.remedy}) + "\n")
        except Exception as error:  # the parent has the words for the user
            stdout.write(json.dumps({"error": f"{type(error).__name__}: {error}", "remedy": ""}) + "\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
