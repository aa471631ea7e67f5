"""What is measured of a package: told by what its graphs take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converter.apart import run_without_torch
from converter.bench.feeds import Made
from converter.bench.generation import DECODER, ENCODER, PAIR_INPUTS, STEP_INPUTS
from converter.bench.graphs import TEXT_OUTPUTS, TOKEN_INPUTS
from converter.bench.inputs import UnknownKindError, describe, unit_of, words
from converter.bench.load import (
    PROMPT_TOKENS,
    PROMPTS,
    Load,
    array_load,
    generation_load,
    graphs_load,
    late_load,
    make_tokens,
    scenario_load,
    text_load,
)
from converter.errors import PackageError
from converter.extras import require_export
from converter.packages.declared import architecture_of
from converter.packages.graph_info import GraphInfo, read_graph
from converter.packages.staging import RECORD
from converter.runtime.files import PackageFiles
from converter.runtime.late_interaction import TILES

STEMS = ("model", "text_model", "vision_model")
TOKENIZER, PAST = "tokenizer.json", "past_key_values."
_OUTPUTS = ("logits", "last_hidden_state", "pooler_output", "image_embeds", "embeddings", "predicted_depth")
_HEADS = ("MaskedLM", "SequenceClassification", "TokenClassification", "EncoderModel")


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


def plan(files: PackageFiles, amounts: Amounts, scratch: Path, model: str | None) -> Plan:
    """What to measure of a package, which was made from the checkpoint `model` if that is given.

    `scratch` takes what is fed to graphs that only their architecture knows.
    Raises PackageError for a package without graphs, and for one whose inputs nobody knows.
    """
    try:
        return _known(files, amounts)
    except UnknownKindError as error:
        if not files.read_object(RECORD).get("architecture"):
            raise PackageError(error.message, remedy=error.remedy) from None
    return _declared(files, amounts, scratch, model)


def _known(files: PackageFiles, amounts: Amounts) -> Plan:
    """The plan of a kind that is told by what its graphs take and give."""
    if files.precisions(ENCODER) and files.precisions(DECODER):
        return _pair(files, amounts)
    stems = [stem for stem in STEMS if files.precisions(stem)]
    if not stems:
        raise UnknownKindError(
            f"{files.folder} has no graph onnx/model.onnx", remedy="name the folder above onnx/"
        )
    graph = read_graph(files.folder, files.graph(stems, "auto"))
    precisions, names = tuple(files.precisions(stems[0])), {value.name for value in graph.inputs}
    if any(name.startswith(PAST) for name in names):
        return _generation(files, graph, amounts, precisions)
    if "input_ids" in names and {value.name for value in graph.outputs} == {"embeddings"}:
        return _late(files, amounts, precisions)
    if len(stems) == 1 and (unit := unit_of(graph)) is not None:
        return _arrays(files, graph, unit, amounts, precisions)
    if len(stems) == 1 and "input_ids" in names and names <= set(TOKEN_INPUTS) and files.has(TOKENIZER):
        return _text(files, graph, amounts, precisions)
    raise UnknownKindError(
        f"{files.folder / graph.file} takes {', '.join(sorted(names))}, and no converter.json says which architecture"
        " makes such inputs; only encoders and classifiers of texts (with their tokenizer.json), images or sounds,"
        " late interaction, decoders, and encoders with their decoders are measured without one",
        remedy="time it with onnxruntime itself",
    )


def _generation(files: PackageFiles, graph: GraphInfo, amounts: Amounts, precisions: tuple[str, ...]) -> Plan:
    if unknown := _but_past(graph) - STEP_INPUTS:
        raise _no_values(files, unknown)
    load = generation_load(make_tokens(_vocabulary(files), PROMPTS), amounts.new_tokens)
    return Plan("generation", load, precisions, {"auto_class": _auto_class(files, "AutoModelForCausalLM")})


def _but_past(graph: GraphInfo) -> set[str]:
    return {value.name for value in graph.inputs if not value.name.startswith(PAST)}


def _no_values(files: PackageFiles, unknown: Iterable[str]) -> UnknownKindError:
    return UnknownKindError(
        f"{files.folder} has a graph that takes {', '.join(sorted(unknown))}, for which a benchmark has no values",
        remedy="time it with onnxruntime itself",
    )


def _text(files: PackageFiles, graph: GraphInfo, amounts: Amounts, precisions: tuple[str, ...]) -> Plan:
    outputs = [value.name for value in graph.outputs]
    output = next((name for name in TEXT_OUTPUTS if name in outputs), outputs[0])
    found = _auto_class(files, "AutoModel")
    settings = {"auto_class": found if found.endswith(_HEADS) else "AutoModel", "output": output}
    return Plan("text", text_load(amounts.batch_sizes, amounts.documents), precisions, settings)


def _late(files: PackageFiles, amounts: Amounts, precisions: tuple[str, ...]) -> Plan:
    """Late interaction: told by what its graphs give. Tiles are what the runtime does not make."""
    pages = read_graph(files.folder, files.graph(("image_model", *STEMS), "auto"))
    if not files.has(TOKENIZER) or TILES in {value.name for value in pages.inputs}:
        raise UnknownKindError(
            f"{files.folder} has no tokenizer.json, or takes pages in tiles: its queries and pages cannot be made here",
            remedy="time it with onnxruntime itself",
        )
    config = files.read_object("config.json")
    parts = (config, *(part for part in config.values() if isinstance(part, dict)))
    documents = not any("vision_config" in part for part in parts)
    load = late_load(amounts.batch_sizes, documents=documents)
    return Plan("late", load, precisions, {"documents": documents})


def _arrays(
    files: PackageFiles, graph: GraphInfo, unit: str, amounts: Amounts, precisions: tuple[str, ...]
) -> Plan:
    outputs = [value.name for value in graph.outputs]
    output = next((name for name in _OUTPUTS if name in outputs), outputs[0])
    inputs = {size: describe(files, graph, size) for size in {*amounts.batch_sizes, 2}}
    load = array_load(inputs, amounts.batch_sizes, unit, words(inputs[2]))
    settings = {"auto_class": _auto_class(files, "AutoModel"), "output": output}
    return Plan("arrays", load, precisions, settings)


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
        raise UnknownKindError(
            f"{files.folder} has no decoder_start_token_id, which generation starts from",
            remedy="copy config.json and generation_config.json from the model's repository",
        )
    names = {value.name for value in graph.inputs}
    decoder = read_graph(files.folder, files.graph((DECODER,), "auto"))
    if unknown := _but_past(decoder) - PAIR_INPUTS:
        raise _no_values(files, unknown)
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
        raise _no_values(files, names)
    both = tuple(name for name in files.precisions(ENCODER) if name in files.precisions(DECODER))
    settings = {"auto_class": _auto_class(files, usual), "start": start}
    return Plan("pair", generation_load(sources, amounts.new_tokens, of), both, settings)


def _declared(files: PackageFiles, amounts: Amounts, scratch: Path, model: str | None) -> Plan:
    """What the package's architecture declares: a scenario of its graphs, or else each graph by itself."""
    require_export()
    record = files.read_object(RECORD)
    stems = list(dict.fromkeys(stem for entry in record["variants"].values() for stem in entry["graphs"]))
    made: Made = run_without_torch(
        "converter.bench.feeds:make_feeds", files.folder, record, model, stems, amounts.batch_sizes, scratch
    )
    settings = {"stems": made.stems, "feeds": str(scratch)}
    own = [files.precisions(stem) for stem in made.stems]
    precisions = tuple(name for name in own[0] if all(name in other for other in own))
    if made.scenario:
        load = scenario_load(made, amounts.new_tokens)
        return Plan("scenario", load, precisions, {**settings, "scenario": made.scenario})
    return Plan("graphs", graphs_load(made), precisions, settings)


def _auto_class(files: PackageFiles, usual: str) -> str:
    """The class of transformers that the package was converted from, or the `usual` one where none is recorded.

    Raises UnknownKindError for an architecture whose models are not transformers'.
    """
    record = files.read_object(RECORD)
    architecture = architecture_of(record, files.folder)
    if architecture is None:
        return usual
    classes: Mapping[str, str] = getattr(architecture.source, "classes", {})
    if not classes:
        raise UnknownKindError(f"{files.folder} was made of a model that is not transformers'")
    return classes.get(str(record.get("task") or ""), usual)


def _vocabulary(files: PackageFiles) -> int:
    config = files.read_object("config.json")
    text = config.get("text_config") or {}
    return int(config.get("vocab_size") or text.get("vocab_size") or 1000)
