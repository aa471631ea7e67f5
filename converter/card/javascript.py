"""The call of transformers.js for each task it has a pipeline for."""

from __future__ import annotations

from converter.card.facts import CardFacts
from converter.card.header import opens_in_transformers_js

_MASKED = '"Paris is the " + run.tokenizer.mask_token + " of France."'
_CALLS = {
    "automatic-speech-recognition": "new Float32Array(16000)",
    "fill-mask": _MASKED,
    "image-classification": '"photo.jpg"',
    "image-feature-extraction": '"photo.jpg"',
    "question-answering": '"Who was there?", "The cat was there."',
    "text-classification": '"What a good day."',
    "text-generation": '"Once upon a time", { max_new_tokens: 20 }',
    "text2text-generation": '"Once upon a time", { max_new_tokens: 20 }',
    "token-classification": '"Ada lives in London."',
}
# Pooling as transformers.js names it.
_POOLING = {"mean": "mean", "cls": "cls", "lasttoken": "last_token"}


def transformers_js(facts: CardFacts) -> str:
    """A module for Node; empty where transformers.js has no pipeline for the package."""
    if not opens_in_transformers_js(facts):
        return ""
    call = _CALLS.get(facts.task) or _embedding_call(facts)
    return (
        'import { env, pipeline } from "@huggingface/transformers";\n\n'
        "// For a folder on this machine; leave both lines out for an id on the hub.\n"
        "env.allowRemoteModels = false;\n"
        'env.localModelPath = "./";\n\n'
        f'const run = await pipeline("{facts.task}", ".", {{ dtype: "{facts.dtype}" }});\n'
        f"console.log(await run({call}));\n"
    )


def _embedding_call(facts: CardFacts) -> str:
    texts = '["A cat sat on the mat.", "ONNX"]'
    (mode,) = facts.pooling if len(facts.pooling) == 1 else ("",)
    if mode not in _POOLING:
        return texts
    return f'{texts}, {{ pooling: "{_POOLING[mode]}", normalize: {str(facts.normalize).lower()} }}'
