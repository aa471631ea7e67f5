"""What is measured of a package: told by what its graphs take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from converter.bench.generation import DECODER, ENCODER
from converter.bench.graphs import TEXT_OUTPUTS
from converter.bench.inputs import describe, unit_of, words
from converter.bench.load import (
    PROMPT_TOKENS,
    PROMPTS,
    Load,
    array_load,
    generation_load,
    late_load,
    make_tokens,
    text_load,
)
from converter.errors import PackageError
from converter.packages.graph_info import GraphInfo, read_graph
from converter.runtime.files import PackageFiles

_STEMS = ("model", "text_model", "vision_model")
_OUTPUTS = ("logits", "last_hidden_state", "pooler_output", "image_embeds", "embeddings", "predicted_depth")
_HEADS = ("MaskedLM", "SequenceClassification", "TokenClassification")


@dataclass(frozen=True)
class Amounts:
    """How much is asked of every contender."""

    batch_sizes: Sequence[int]
    documents: int
    new_tokens: int


@dataclass(frozen=True)
class Plan:
    """The work, and the settings that every contender's process is given besides its own.

    kind        the runner of `converter.bench.worker`
    precisions  those in which all the graphs exist that are run
    """

    kind: str
    load: Load
    precisions: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


def plan(files: PackageFiles, amounts: Amounts) -> Plan:
    """Raises PackageError for a package without graphs, and for one of a kind that is not measured."""
    if files.precisions(ENCODER) and files.precisions(DECODER):
        return _pair(files, amounts)
    stem = next((stem for stem in _STEMS if files.precisions(stem)), None)
    if stem is None:
        raise PackageError(
            f"{files.folder} has no graph onnx/model.onnx", remedy="name the folder above onnx/"
        )
    graph = read_graph(files.folder, files.graph((stem,), "auto"))
    precisions, names = tuple(files.precisions(stem)), {value.name for value in graph.inputs}
    if any(name.startswith("past_key_values.") for name in names):
        load = generation_load(make_tokens(_vocabulary(files), PROMPTS), amounts.new_tokens)
        return Plan(
            "generation", load, precisions, {"auto_class": _auto_class(files, "AutoModelForCausalLM")}
        )
    if (unit := unit_of(graph)) is not None:
        return _arrays(files, graph, unit, amounts, precisions)
    if "input_ids" in names and {value.name for value in graph.outputs} == {"embeddings"}:
        return _late(files, amounts, precisions)
    if "input_ids" in names and "pixel_values" not in names:
        return _text(files, graph, amounts, precisions)
    raise PackageError(
        f"{files.folder / graph.file} takes {', '.join(sorted(names))}, but only encoders and classifiers of texts,"
        " images or sounds, late interaction, decoders, and encoders with their decoders are measured",
        remedy="time it with onnxruntime itself, as its README.md shows",
    )


def _text(files: PackageFiles, graph: GraphInfo, amounts: Amounts, precisions: tuple[str, ...]) -> Plan:
    outputs = [value.name for value in graph.outputs]
    output = next((name for name in TEXT_OUTPUTS if name in outputs), outputs[0])
    found = _auto_class(files, "AutoModel")
    settings = {"auto_class": found if found.endswith(_HEADS) else "AutoModel", "output": output}
    return Plan("text", text_load(amounts.batch_sizes, amounts.documents), precisions, settings)


def _late(files: PackageFiles, amounts: Amounts, precisions: tuple[str, ...]) -> Plan:
    """Late interaction: told by what its graphs give."""
    config = files.read_object("config.json")
    parts = (config, *(part for part in config.values() if isinstance(part, dict)))
    documents = not any("vision_config" in part for part in parts)
    architecture = files.read_object("converter.json").get("architecture")
    settings = {"documents": documents, "architecture": architecture}
    return Plan("late", late_load(amounts.batch_sizes, documents=documents), precisions, settings)


def _arrays(
    files: PackageFiles, graph: GraphInfo, unit: str, amounts: Amounts, precisions: tuple[str, ...]
) -> Plan:
    outputs = [value.name for value in graph.outputs]
    output = next((name for name in _OUTPUTS if name in outputs), outputs[0])
    inputs = {size: describe(files, graph, size) for size in {*amounts.batch_sizes, 2}}
    load = array_load(inputs, amounts.batch_sizes, unit, words(inputs[2]))
    return Plan("arrays", load, precisions, {"auto_class": _auto_class(files, "AutoModel"), "output": output})


def _pair(files: PackageFiles, amounts: Amounts) -> Plan:
    graph = read_graph(files.folder, files.graph((ENCODER,), "auto"))
    start = next(
        (
            token
            for name in ("generation_config.json", "config.json")
            if isinstance(token := files.read_object(name).get("decoder_start_token_id"), int)
        ),
        None,
    )
    if start is None:
        raise PackageError(
            f"{files.folder} has no decoder_start_token_id, which generation starts from",
            remedy="copy config.json and generation_config.json from the model's repository",
        )
    names = {value.name for value in graph.inputs}
    if unit_of(graph) is not None:
        sources, usual = [describe(files, graph, 1)], "AutoModelForSpeechSeq2Seq"
        of = f"one noise of {words(sources[0])}"
    elif names <= {"input_ids", "attention_mask"}:
        ids = make_tokens(_vocabulary(files), PROMPTS)
        ones = {"name": "attention_mask", "shape": [1, PROMPT_TOKENS], "ones": True}
        sources = [
            [{"name": "input_ids", "values": [row]}, *([ones] if "attention_mask" in names else [])]
            for row in ids
        ]
        usual, of = "AutoModelForSeq2SeqLM", f"sources of {PROMPT_TOKENS} tokens drawn at random"
    else:
        raise PackageError(
            f"{graph.file} takes {', '.join(sorted(names))}, for which a benchmark has no values"
        )
    both = tuple(name for name in files.precisions(ENCODER) if name in files.precisions(DECODER))
    settings = {"auto_class": _auto_class(files, usual), "start": start}
    return Plan("pair", generation_load(sources, amounts.new_tokens, of), both, settings)


def _auto_class(files: PackageFiles, usual: str) -> str:
    """The class of transformers that the package was converted from, or the `usual` one where none is recorded."""
    from converter.registry import load_registry

    record = files.read_object("converter.json")
    architecture = load_registry().known(str(record.get("architecture") or ""))
    classes: Mapping[str, str] = getattr(getattr(architecture, "source", None), "classes", {})
    return classes.get(str(record.get("task") or ""), usual)


def _vocabulary(files: PackageFiles) -> int:
    config = files.read_object("config.json")
    text = config.get("text_config") or {}
    return int(config.get("vocab_size") or text.get("vocab_size") or 1000)
