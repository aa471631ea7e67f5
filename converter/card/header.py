"""The card's front matter: what the model hub files a package under."""

from __future__ import annotations

from typing import Any

from converter.card.facts import CardFacts

# The hub's name for a task, and the ones a source's card may say instead, which then say it better.
PIPELINES = {
    "feature-extraction": ("feature-extraction", {"sentence-similarity", "visual-document-retrieval"}),
    "text2text-generation": ("text2text-generation", {"translation", "summarization"}),
    "image-feature-extraction": ("image-feature-extraction", set[str]()),
}
TRANSFORMERS_JS = {
    "automatic-speech-recognition",
    "feature-extraction",
    "fill-mask",
    "image-classification",
    "image-feature-extraction",
    "question-answering",
    "text-classification",
    "text-generation",
    "text2text-generation",
    "token-classification",
}
_STEMS = {"model", "encoder_model", "decoder_model_merged"}


def front_matter(facts: CardFacts) -> dict[str, Any]:
    """Entries of the hub's model card specification, each from the record; none is guessed."""
    source = facts.source
    entries: dict[str, Any] = {"license": source.get("license") or "unknown"}
    entries |= {
        name: source[name] for name in ("license_name", "license_link", "language") if source.get(name)
    }
    if facts.base_model:
        entries["base_model"] = facts.base_model
    if pipeline := pipeline_tag(facts):
        entries["pipeline_tag"] = pipeline
    entries["library_name"] = "transformers.js" if opens_in_transformers_js(facts) else "onnx"
    entries["tags"] = tags(facts)
    return entries


def pipeline_tag(facts: CardFacts) -> str:
    """The hub's task: the source's own word for it where that names the same kind of thing."""
    usual, better = PIPELINES.get(facts.task, (facts.task, set[str]()))
    if facts.pages:
        usual = "visual-document-retrieval"
    said = str(facts.source.get("pipeline_tag") or "")
    return said if said in better else usual


def opens_in_transformers_js(facts: CardFacts) -> bool:
    """Whether the package is laid out as one of its pipelines wants it: names of graphs, task, tokenizer.

    It goes by the model type, and looks for the decoder of an encoder alone.
    """
    sees = facts.task.startswith("image-")
    companion = "preprocessor_config.json" if sees else "tokenizer.json"
    if facts.encoder_alone:
        return False
    return facts.task in TRANSFORMERS_JS and set(facts.graphs) <= _STEMS and companion in facts.files


def tags(facts: CardFacts) -> list[str]:
    """What opens the package, its architecture, and the precisions it has."""
    found = ["onnx", "onnxruntime"]
    found += ["transformers.js"] if opens_in_transformers_js(facts) else []
    found += ["sentence-transformers"] if "modules.json" in facts.files else []
    return [*found, str(facts.record.get("architecture") or "unknown")]
