"""Python that runs as it stands in a package's folder: with converter.runtime, and with onnxruntime alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from converter.card.facts import CardFacts
from converter.card.generation import generation_snippet

_TEXT_INPUTS = {
    "input_ids": "np.array([row.ids for row in rows])",
    "attention_mask": "np.array([row.attention_mask for row in rows])",
    "token_type_ids": "np.array([row.type_ids for row in rows])",
}
_NUMPY = {"FLOAT": "float32", "FLOAT16": "float16", "INT64": "int64", "INT32": "int32", "BOOL": "bool_"}


def runtime_snippet(facts: CardFacts) -> str:
    """With `converter.runtime`, where it has something for the package; else empty."""
    if facts.task in LOADED:
        return _loaded_snippet(facts)
    if facts.task != "feature-extraction" or "tokenizer.json" not in facts.files:
        return ""
    if facts.pages:
        return _PAGES if {"preprocessor_config.json", "processor_config.json"} & set(facts.files) else ""
    return _ENCODER


def _loaded_snippet(facts: CardFacts) -> str:
    """The package as a model of transformers, in its pipeline where it still has one for the task."""
    parts, call = LOADED[facts.task]
    if not facts.model_type or not all(_COMPANIONS[part] in facts.files for part in parts):
        return ""
    if facts.task in ("text2text-generation", "automatic-speech-recognition") and not (
        {"encoder_model", "decoder_model_merged"} <= set(facts.graphs)
    ):
        return ""  # CTC, which `load` has no class for
    load = f'load("{facts.task}", ".")'
    if facts.task == "text2text-generation":
        return (
            "from transformers import AutoTokenizer\n\nfrom converter.runtime import load\n\n"
            f'model, tokenizer = {load}, AutoTokenizer.from_pretrained(".")\n'
            f'inputs = tokenizer({call}, return_tensors="pt")\n'
            "tokens = model.generate(**inputs, max_new_tokens=20)\n"
            "print(tokenizer.batch_decode(tokens, skip_special_tokens=True))\n"
        )
    if "feature_extractor" in parts:  # which a pipeline wants as an object
        return (
            "import numpy as np\nfrom transformers import AutoProcessor, pipeline\n\n"
            "from converter.runtime import load\n\n"
            'processor = AutoProcessor.from_pretrained(".")\n'
            "run = pipeline(\n"
            f'    "{facts.task}",\n    model={load},\n'
            "    tokenizer=processor.tokenizer,\n    feature_extractor=processor.feature_extractor,\n)\n"
            f"print(run({call}))\n"
        )
    given = "".join(f', {part}="."' for part in parts)
    return (
        ("from PIL import Image\n" if "image_processor" in parts else "")
        + "from transformers import pipeline\n\nfrom converter.runtime import load\n\n"
        f'run = pipeline("{facts.task}", model={load}{given})\n'
        f"print(run({call}))\n"
    )


def onnxruntime_snippet(facts: CardFacts) -> str:
    """With onnxruntime alone: as much as the names of a graph's inputs tell."""
    if not facts.graphs:
        return ""
    texts = [stem for stem in facts.graphs if set(facts.inputs(stem)) <= set(_TEXT_INPUTS)]
    if texts and "tokenizer.json" in facts.files:
        return _text_snippet(facts, texts[0])
    if loop := generation_snippet(facts):
        return loop
    stem = next(iter(facts.graphs))
    shapes = {str(value["name"]): value for value in facts.graphs[stem].get("inputs") or ()}
    if list(shapes) == ["pixel_values"] and (shape := _image_shape(facts, shapes["pixel_values"])):
        return _array_snippet(facts, stem, shapes["pixel_values"], shape)
    return _open_snippet(facts, stem)


def _text_snippet(facts: CardFacts, stem: str) -> str:
    """Tokens in; for embeddings, pooled as the package says where that is one line of numpy."""
    feed = "".join(f'    "{name}": {_TEXT_INPUTS[name]},\n' for name in facts.inputs(stem))
    output = facts.outputs(stem)[0]
    code = (
        "import numpy as np\nimport onnxruntime as ort\nfrom tokenizers import Tokenizer\n\n"
        'tokenizer = Tokenizer.from_file("tokenizer.json")\n'
        "tokenizer.enable_padding()\n"
        'rows = tokenizer.encode_batch(["A cat sat on the mat.", "ONNX"])\n'
        f"feed = {{\n{feed}}}\n"
        f'session = ort.InferenceSession("{facts.graphs[stem]["file"]}")\n'
        f'({output},) = session.run(["{output}"], feed)\n'
    )
    shown = output
    if output == "last_hidden_state" and facts.pooling in (("mean",), ("cls",)):
        code += _POOLING[facts.pooling[0]]
        code += "embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)\n" if facts.normalize else ""
        shown = "embeddings"
    return code + f"print({shown}.shape)\n"


def _array_snippet(facts: CardFacts, stem: str, value: Mapping[str, Any], sizes: Sequence[int]) -> str:
    shape = ", ".join(map(str, sizes))
    output = facts.outputs(stem)[0]
    return (
        "import numpy as np\nimport onnxruntime as ort\n\n"
        f"pixel_values = np.zeros(({shape}), dtype=np.{_NUMPY[value['dtype']]})  # what an image processor gives\n"
        f'session = ort.InferenceSession("{facts.graphs[stem]["file"]}")\n'
        f'({output},) = session.run(["{output}"], {{"pixel_values": pixel_values}})\n'
        f"print({output}.shape)\n"
    )


def _open_snippet(facts: CardFacts, stem: str) -> str:
    """What can be said of any graph."""
    return (
        "import onnxruntime as ort\n\n"
        f'session = ort.InferenceSession("{facts.graphs[stem]["file"]}")\n'
        "for value in session.get_inputs():\n"
        "    print(value.name, value.type, value.shape)\n"
    )


def _image_shape(facts: CardFacts, value: Mapping[str, Any]) -> tuple[int, ...]:
    """One image of the size the graph wants, or the checkpoint was made for; empty where neither is known."""
    batch, *sizes = value["shape"]
    if all(isinstance(size, int) for size in sizes):
        return (1, *sizes)
    fits = len(sizes) == 3 and isinstance(sizes[0], int) and facts.image_size is not None
    return (1, sizes[0], *(facts.image_size or ())) if fits and isinstance(batch, str) else ()


# task -> what a pipeline takes besides the model, and what it is called with
LOADED: Mapping[str, tuple[tuple[str, ...], str]] = {
    "text-classification": (("tokenizer",), '"What a good day."'),
    "token-classification": (("tokenizer",), '"Ada lives in London."'),
    "text-generation": (("tokenizer",), '"Once upon a time", max_new_tokens=20'),
    "text2text-generation": (("tokenizer",), '"Once upon a time"'),
    "image-classification": (("image_processor",), 'Image.new("RGB", (640, 480), "white")'),
    "automatic-speech-recognition": (
        ("tokenizer", "feature_extractor"),
        "np.zeros(16000, dtype=np.float32)",
    ),
}
_COMPANIONS = {
    "tokenizer": "tokenizer.json",
    "image_processor": "preprocessor_config.json",
    "feature_extractor": "preprocessor_config.json",
}
_POOLING = {
    "mean": (
        'mask = feed["attention_mask"][:, :, None]\n'
        "embeddings = (last_hidden_state * mask).sum(axis=1) / mask.sum(axis=1)\n"
    ),
    "cls": "embeddings = last_hidden_state[:, 0]\n",
}
_ENCODER = """\
from converter.runtime import Encoder

encoder = Encoder(".")
vectors = encoder.encode(["A cat sat on the mat.", "ONNX"])
print(vectors.shape)
"""
_PAGES = """\
from PIL import Image

from converter.runtime import LateInteraction

model = LateInteraction(".")
queries = model.encode_queries(["How much did revenue grow?"])
pages = model.encode_images([Image.new("RGB", (448, 448), "white")])  # or paths, or a folder
print(model.score(queries, pages))
"""
