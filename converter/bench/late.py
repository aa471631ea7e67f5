"""Late interaction in a benchmark: queries, and pages or documents, through the runtime, whoever runs the model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converter.bench.load import encoded
from converter.packages.graph_info import read_graph
from converter.runtime.files import open_package
from converter.runtime.late_interaction import LateInteraction
from converter.runtime.session import Array, OneByOne

if TYPE_CHECKING:
    from converter.records import Component


class TorchComponent(OneByOne):
    """The untouched original behind the interface of a graph, called as the architecture's own reference calls it."""

    def __init__(self, original: Any, component: Component, inputs: Sequence[str]) -> None:
        self._original, self._component = original, component
        self.inputs = tuple(inputs)

    def run(self, feed: Mapping[str, Array]) -> NDArray[np.float32]:
        import torch

        tensors = {name: torch.from_numpy(feed[name]) for name in self.inputs}
        with torch.inference_mode():
            found: NDArray[np.float32] = self._component.reference(self._original, tensors)[
                "embeddings"
            ].numpy()
        return found


class LateRunner:
    """A package, or the original in the place of its graphs; tokens, patches and batches are the same code for both."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        precision, threads = settings.get("precision", "auto"), settings["threads"]
        self._model = LateInteraction(settings["package"], precision=precision, threads=threads)
        self._package, self._documents = settings["package"], settings["documents"]
        if settings["model"]:
            self._replace_graphs(settings["model"], settings["architecture"], threads)

    def _replace_graphs(self, model: str, name: str, threads: int) -> None:
        import torch

        from converter.registry import load_registry
        from converter.request import ConversionRequest
        from converter.selection import choose_task, find_source

        torch.set_num_threads(threads)
        with tempfile.TemporaryDirectory() as scratch:
            request = ConversionRequest(model=model, arch=name)
            architecture, checkpoint = find_source(request, load_registry(), Path(scratch))
            task = choose_task(None, architecture, checkpoint)
            original = architecture.source.original(checkpoint, task, None)
            config = architecture.source.config(checkpoint)
        parts = {part.stem: part for part in architecture.components(config, task)}
        files = open_package(self._package)  # the graphs themselves stay closed: their memory is not torch's
        for attribute, stem in (("_text", "text_model"), ("_image", "image_model")):
            if attribute == "_image" and self._documents:
                continue
            graph = read_graph(files.folder, files.graph((stem, "model"), "auto"))
            inputs = [value.name for value in graph.inputs]
            vars(self._model)[attribute] = TorchComponent(original, parts.get(stem) or parts["model"], inputs)

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Seconds of each call, or pages or documents per second; vectors of all tokens where asked for."""
        return encoded(
            request, lambda: self._encode(request), lambda vectors: np.concatenate(vectors).tolist()
        )

    def _encode(self, request: Mapping[str, Any]) -> list[NDArray[np.float32]]:
        size = request["batch_size"]
        if "pages" in request:
            return self._model.encode_images(_pages(request["pages"]), batch_size=size)
        if request["a_second"]:
            return self._model.encode_documents(request["texts"], batch_size=size)
        return self._model.encode_queries(request["texts"], batch_size=size)


def _pages(sizes: Sequence[Sequence[int]]) -> list[Any]:
    """Noise, so that nothing about a page is easy; the same every time."""
    from PIL import Image

    draw = np.random.default_rng(0)
    return [
        Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8)) for height, width in sizes
    ]
