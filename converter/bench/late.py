"""Late interaction in a benchmark: queries, and pages or documents, through the runtime, whoever runs the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.bench.load import encoded
from converter.bench.original import TorchComponent, load_declared
from converter.packages.graph_info import read_graph
from converter.runtime.files import open_package
from converter.runtime.late_interaction import LateInteraction


class LateRunner:
    """A package, or the original in the place of its graphs; tokens, patches and batches are the same code for both."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        precision, threads = settings.get("precision", "auto"), settings["threads"]
        self._model = LateInteraction(settings["package"], precision=precision, threads=threads)
        self._package, self._documents = settings["package"], settings["documents"]
        if settings["model"]:
            self._replace_graphs(settings["model"], threads)

    def _replace_graphs(self, model: str, threads: int) -> None:
        files = open_package(self._package)  # the graphs themselves stay closed: their memory is not torch's
        original, declared = load_declared(files, model, threads)
        parts = declared.components()
        for attribute, stem in (("_text", "text_model"), ("_image", "image_model")):
            if attribute == "_image" and self._documents:
                continue
            graph = read_graph(files.folder, files.graph((stem, "model"), "auto"))
            inputs = [value.name for value in graph.inputs]
            part = parts.get(stem) or parts["model"]
            vars(self._model)[attribute] = TorchComponent(original, part, inputs, "embeddings")

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
