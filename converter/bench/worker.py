"""One contender of a benchmark in a process of its own: `python -m converter.bench.worker SETTINGS`.

Reads one JSON request a line, answers one line each: first how it opened, then figures. Its own process is what
makes memory and first-open time its own, and idle contenders cost the running one nothing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from converter.bench.load import encoded, timed
from converter.console import quiet_libraries
from converter.errors import ConverterError
from converter.request import SILENT


class Runner(Protocol):
    """A contender that is open."""

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """`figures` by the measure's name, one value for each call; `output` where `request` asks for it."""


class TextRunner:
    """Texts to vectors, or to logits."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        from converter.bench.graphs import TEXT_OUTPUTS, TorchGraph
        from converter.runtime.encoder import TextPipeline
        from converter.runtime.files import open_package
        from converter.runtime.session import Graph, OnnxGraph, SessionSettings

        files = open_package(settings["package"])
        graph: Graph
        if settings["model"]:
            graph = TorchGraph(
                settings["model"], settings["auto_class"], settings["output"], settings["threads"]
            )
        else:
            name = files.graph(("model", "text_model"), settings["precision"])
            graph = OnnxGraph(files, name, SessionSettings(threads=settings["threads"]), TEXT_OUTPUTS)
        self._pipeline = TextPipeline(files, graph)

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Seconds of each call, or documents per second."""
        encode = partial(
            self._pipeline.encode,
            request["texts"],
            batch_size=request["batch_size"],
            normalize=None,
            prompt_name=None,
            progress=SILENT,
        )
        return encoded(request, encode, lambda vectors: vectors.tolist())


class ArrayRunner:
    """Images or sounds, as arrays, to the main output."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        from converter.bench.graphs import TorchArrays
        from converter.runtime.files import open_package
        from converter.runtime.session import OnnxGraph, SessionSettings

        output, threads = settings["output"], settings["threads"]
        self._graph: TorchArrays | OnnxGraph
        if settings["model"]:
            self._graph = TorchArrays(settings["model"], settings["auto_class"], output, threads)
        else:
            files = open_package(settings["package"])
            name = files.graph(("model", "vision_model"), settings["precision"])
            self._graph = OnnxGraph(files, name, SessionSettings(threads=threads), (output,))

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Seconds of each call, and rows a second where `rate` names them."""
        from converter.bench.inputs import draw

        feed = draw(request["inputs"])
        seconds, output = timed(partial(self._graph.run, feed), request["calls"])
        figures = {request["name"]: seconds}
        if request["rate"]:
            rows = len(next(iter(feed.values())))
            figures[request["rate"]] = [rows / spent for spent in seconds]
        reply: dict[str, Any] = {"figures": figures}
        if request.get("output"):
            reply["output"] = output.reshape(len(output), -1).tolist()
        return reply


class GenerationRunner:
    """A prompt to the tokens after it, greedily; `_decoder` has one method, `generate`."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        from converter.bench.generation import OnnxDecoder, TorchDecoder

        model, threads = settings["model"], settings["threads"]
        self._decoder: Any = (
            TorchDecoder(model, settings["auto_class"], threads)
            if model
            else OnnxDecoder(settings["package"], settings["precision"], threads)
        )

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Seconds to the first token, and tokens a second after it; of all prompts in turn."""
        first, rate, output = [], [], []
        for prompt in request["prompts"]:
            times, tokens = [], []
            start = time.perf_counter()
            for token in self._decoder.generate(prompt, request["new_tokens"]):
                times.append(time.perf_counter() - start)
                tokens.append(token)
            first.append(times[0])
            rate.append((len(times) - 1) / (times[-1] - times[0]))
            output.append(tokens)
        reply: dict[str, Any] = {"figures": {"first token": first, "tokens/s": rate}}
        return {**reply, "output": output} if request.get("output") else reply


class PairRunner(GenerationRunner):
    """The same for an encoder and its decoder: the first token comes after both."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        from converter.bench.generation import OnnxPair, TorchPair

        model, threads, start = settings["model"], settings["threads"], settings["start"]
        self._decoder = (
            TorchPair(model, settings["auto_class"], threads, start)
            if model
            else OnnxPair(settings["package"], settings["precision"], threads, start)
        )


def _late(settings: Mapping[str, Any]) -> Runner:
    from converter.bench.late import LateRunner

    return LateRunner(settings)


def _graphs(settings: Mapping[str, Any]) -> Runner:
    from converter.bench.declared import GraphsRunner

    return GraphsRunner(settings)


def _scenario(settings: Mapping[str, Any]) -> Runner:
    from converter.bench.declared import ScenarioRunner

    return ScenarioRunner(settings)


RUNNERS: Mapping[str, Callable[[Mapping[str, Any]], Runner]] = {
    "text": TextRunner,
    "arrays": ArrayRunner,
    "generation": GenerationRunner,
    "pair": PairRunner,
    "late": _late,
    "graphs": _graphs,
    "scenario": _scenario,
}


def open_contender(settings: Mapping[str, Any]) -> tuple[Runner, float, float]:
    """What runs, the seconds its library took to import, and those it took to open."""
    start = time.perf_counter()
    if settings["model"]:
        import torch  # noqa: F401
        import transformers.models.auto  # noqa: F401
    else:
        import onnxruntime  # noqa: F401
    imported = time.perf_counter()
    runner = RUNNERS[settings["kind"]](settings)
    return runner, imported - start, time.perf_counter() - imported


def resident_bytes() -> int:
    """What the whole process holds in memory, mapped weights among it."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def main(settings: Mapping[str, Any]) -> None:
    """Answer until stdin ends. An error is an answer too."""
    stdout = sys.stdout
    with quiet_libraries():
        try:
            runner, imported, opened = open_contender(settings)
            reply: dict[str, Any] = {"import_seconds": imported, "open_seconds": opened}
            stdout.write(json.dumps(reply) + "\n")
            stdout.flush()
            for line in sys.stdin:
                reply = runner.answer(json.loads(line))
                stdout.write(json.dumps({**reply, "resident_bytes": resident_bytes()}) + "\n")
                stdout.flush()
        except ConverterError as error:
            stdout.write(json.dumps({"error": error.message, "remedy": error.remedy}) + "\n")
        except Exception as error:  # the parent has the words for the user
            stdout.write(json.dumps({"error": f"{type(error).__name__}: {error}", "remedy": ""}) + "\n")


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
