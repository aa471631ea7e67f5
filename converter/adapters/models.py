"""The untouched classes of transformers with graphs in the place of weights.

Each adapter comes before such a class in a subclass that `load` makes. The class is built on torch's meta device,
where nothing takes memory, so that its own code finds all attributes it asks for.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from converter.adapters.cache import GraphCache
from converter.errors import PackageError, UsageError
from converter.runtime.bound import BoundGraph
from converter.runtime.files import PackageFiles
from converter.runtime.session import Array, SessionSettings

if TYPE_CHECKING:
    from converter.adapters.load import Task

    class Original:
        """What comes after an adapter: a model class of transformers."""

        main_input_name: str

        def __init__(self, config: Any) -> None: ...

        def eval(self) -> Any: ...
else:
    Original = object


class GraphAdapter(Original):
    """One graph that is run once: tensors in by name, transformers' output record out."""

    config: Any
    call_signature: inspect.Signature

    def __init__(self, task: Task, files: PackageFiles, precision: str, settings: SessionSettings) -> None:
        from transformers import AutoConfig

        with torch.device("meta"):
            super().__init__(AutoConfig.from_pretrained(files.folder))
        self.onnx_task = task
        self.eval()
        self._read_generation_config(files)
        self.open_graphs(lambda stem: self._open(files, stem, precision, settings))

    def _open(self, files: PackageFiles, stem: str, precision: str, settings: SessionSettings) -> BoundGraph:
        name = files.graph((stem,), precision, half_first=settings.half_first)
        return BoundGraph(files, name, settings)

    def _read_generation_config(self, files: PackageFiles) -> None:
        from transformers import GenerationConfig

        if self.onnx_task.generates and files.has("generation_config.json"):
            self.generation_config = GenerationConfig.from_pretrained(files.folder)

    def open_graphs(self, opened: Any) -> None:
        """Open what the task takes, and check that it gives what the task needs."""
        self.onnx_graph: BoundGraph = opened(self.onnx_task.stems[0])
        fields = set(_output_class(self.onnx_task.output).__dataclass_fields__)
        if not fields & set(self.onnx_graph.outputs):
            raise PackageError(
                f"{self.onnx_graph.file} gives {', '.join(self.onnx_graph.outputs)}, not what this task needs",
                remedy="load the package for the task it was converted for",
            )

    @property
    def device(self) -> torch.device:
        """Where its inputs and outputs are: the CPU, whatever the graph runs on."""
        return torch.device("cpu")

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """Itself. A graph runs where its providers run it: that is chosen when a package is loaded."""
        targets = [*args, *kwargs.values()]
        if any(
            isinstance(target, str | torch.device) and torch.device(target).type != "cpu"
            for target in targets
        ):
            raise UsageError(
                "a graph cannot be moved to another device", remedy='load it with providers=("cuda",)'
            )
        return self

    def arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call of the original's `forward`, by name."""
        bound = self.call_signature.bind(self, *args, **kwargs).arguments
        rest = [
            name for name, value in self.call_signature.parameters.items() if value.kind is value.VAR_KEYWORD
        ]
        named = {name: value for name, value in bound.items() if name not in rest and name != "self"}
        for name in rest:
            named.update(bound.get(name, {}))
        if (older := named.pop("past_key_values", None)) is not None:  # its name before transformers 5.24
            named["cache"] = older
        if named.get("labels") is not None:
            raise UsageError("a graph computes no loss", remedy="leave labels out")
        return named

    def run_graph(self, *args: Any, **kwargs: Any) -> Any:
        named = self.arguments(args, kwargs)
        outputs = self.onnx_graph.run(feed_of(self.onnx_graph, named), {})
        return self.answer({name: torch.from_numpy(value) for name, value in outputs.items()}, named)

    def answer(self, values: Mapping[str, Any], named: Mapping[str, Any]) -> Any:
        """transformers' record of the outputs, or a tuple where that was asked for."""
        record = _output_class(self.onnx_task.output)
        known = {name: value for name, value in values.items() if name in record.__dataclass_fields__}
        output = record(**known)
        return output if named.get("return_dict") is not False else output.to_tuple()


class DecoderAdapter(GraphAdapter):
    """A causal language model. Its past key values are those that the graph gave, never copied in between."""

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *_: Any, **__: Any
    ) -> None:
        if generation_config.use_cache is not False and model_kwargs.get("cache") is None:
            if generation_config.cache_implementation not in (None, "dynamic"):
                raise UsageError(
                    f"no {generation_config.cache_implementation} cache: a graph keeps its own past key values",
                    remedy="leave cache_implementation out",
                )
            if self.onnx_graph.states:
                model_kwargs["cache"] = GraphCache(self.onnx_graph)
            else:
                generation_config.use_cache = False

    def step(self, feed: Mapping[str, Array], named: Mapping[str, Any], new: int) -> dict[str, Any]:
        """Run the decoder for `new` positions after those of the cache, and return its logits and the cache."""
        cache = named.get("cache")
        if cache is not None and not isinstance(cache, GraphCache):
            raise UsageError(
                f"past key values are a {type(cache).__name__}, which no graph has made",
                remedy="leave past_key_values out, or pass on what the last call returned",
            )
        if cache is None:
            cache = GraphCache(self.onnx_graph)
        batch = len(feed["input_ids"])
        states = cache.states or self.onnx_graph.empty_states(batch)
        outputs = self.onnx_graph.run(feed, states, self.wanted(cache))
        found = {past: outputs[name] for name, past in self.onnx_graph.states.items() if name in outputs}
        if named.get("use_cache") is not False:
            cache.states = {**states, **found}
            cache.length += new
        past = {"cache": cache} if self.onnx_graph.states and named.get("use_cache") is not False else {}
        return {"logits": torch.from_numpy(outputs["logits"]), **past}

    def wanted(self, cache: GraphCache) -> list[str]:
        """The outputs worth computing."""
        return self.onnx_graph.outputs

    def run_graph(self, *args: Any, **kwargs: Any) -> Any:
        named = self.arguments(args, kwargs)
        cache = named.get("cache")
        seen = 0 if cache is None else cache.get_seq_length()
        feed = feed_of(self.onnx_graph, named, seen)
        return self.answer(self.step(feed, named, feed["input_ids"].shape[1]), named)


class EncoderDecoderAdapter(DecoderAdapter):
    """Encoder and merged decoder. What cross-attention needs is computed at the first step and kept."""

    def open_graphs(self, opened: Any) -> None:
        encoder, decoder = self.onnx_task.stems
        self.onnx_encoder = EncoderGraph(opened(encoder), self.main_input_name)
        self.onnx_graph = opened(decoder)

    def get_encoder(self, *_: Any, **__: Any) -> EncoderGraph:
        return self.onnx_encoder

    def wanted(self, cache: GraphCache) -> list[str]:
        crossed = [] if not cache.states else [name for name in self.onnx_graph.states if ".encoder." in name]
        return [name for name in self.onnx_graph.outputs if name not in crossed]

    def run_graph(self, *args: Any, **kwargs: Any) -> Any:
        named = self.arguments(args, kwargs)
        encoded = named.get("encoder_outputs")
        if encoded is None:
            encoded = self.onnx_encoder(**named)
        if named.get("decoder_input_ids") is None:
            raise UsageError("decoder_input_ids are missing", remedy="pass them, or call generate()")
        mask = named.get("decoder_attention_mask")
        if mask is not None and not bool(mask.all()):
            raise UsageError("the decoder takes no padding", remedy="pass decoder_input_ids without padding")
        hidden, cache = encoded[0], named.get("cache")
        started = cache is not None and bool(cache.get_seq_length())
        source = {
            "input_ids": named["decoder_input_ids"],
            "encoder_hidden_states": hidden,
            "encoder_attention_mask": self._source_mask(named, hidden),
            "use_cache_branch": torch.tensor([started]),
        }
        feed = {name: value.numpy() for name, value in source.items() if name in self.onnx_graph.inputs}
        values = self.step(feed, named, feed["input_ids"].shape[1])
        return self.answer({**values, "encoder_last_hidden_state": hidden}, named)

    def _source_mask(self, named: Mapping[str, Any], hidden: torch.Tensor) -> torch.Tensor:
        mask = named.get("attention_mask")
        return torch.ones(hidden.shape[:2], dtype=torch.int64) if mask is None else mask


class EncoderGraph(nn.Module):
    """The encoder as `generate` asks a model for it."""

    def __init__(self, graph: BoundGraph, main_input_name: str) -> None:
        super().__init__()
        self.graph = graph
        self.main_input_name = main_input_name

    def forward(self, **kwargs: Any) -> Any:  # under another name, generate() would drop the mask
        from transformers.modeling_outputs import BaseModelOutput

        outputs = self.graph.run(feed_of(self.graph, kwargs), {})
        return BaseModelOutput(last_hidden_state=torch.from_numpy(outputs["last_hidden_state"]))


def feed_of(graph: BoundGraph, named: Mapping[str, Any], seen: int = 0) -> dict[str, Array]:
    """What a graph takes of a call's arguments. Masks, segments and positions that were left out get their defaults.

    `seen` is the number of positions that lie before those given.
    """
    given = {name: value.numpy() for name, value in named.items() if isinstance(value, torch.Tensor)}
    ids = given.get("input_ids")
    if ids is not None:
        given.setdefault("attention_mask", np.ones((ids.shape[0], seen + ids.shape[1]), dtype=np.int64))
        given.setdefault("token_type_ids", np.zeros_like(ids))
        counted = given["attention_mask"].cumsum(axis=1) - 1
        given.setdefault("position_ids", counted.clip(min=0)[:, -ids.shape[1] :])
    return {name: given[name] for name in graph.inputs if name in given}


def _output_class(name: str) -> Any:
    import transformers.modeling_outputs

    return getattr(transformers.modeling_outputs, name)
