"""What torch gives: the same inputs through the untouched model class, its tokenizer and its processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

TEXTS = [
    "A cat sat on the mat.",
    "The quarterly report shows revenue growing in every region but one.",
    "ONNX",
    "Größe, naïve café, 日本語 and\ttabs",
]
# Greedy; random encoder-decoders repeat themselves, so each token is allowed once, which every client can do.
GREEDY = {"max_new_tokens": 12, "do_sample": False, "num_beams": 1}
ONCE = {**GREEDY, "no_repeat_ngram_size": 1}

Result = dict[str, Any]


def softmax(logits: Any) -> list[float]:
    return [float(value) for value in logits.softmax(-1).flatten()]


def feed(graph: str, output: str, tensors: Mapping[str, Any]) -> Result:
    """The tensors of a graph, for clients that have no tokenizer."""

    def plain(tensor: Any) -> Result:
        kind = str(tensor.dtype).removeprefix("torch.")
        return {"type": kind, "dims": list(tensor.shape), "data": tensor.flatten().tolist()}

    inputs = {name: plain(tensor) for name, tensor in tensors.items()}
    return {"feed": {"graph": graph, "output": output, "inputs": inputs}}


def feature_extraction(folder: Path) -> tuple[Result, Result]:
    """Mean over real tokens, normalised: what the model card says."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    hidden = AutoModel.from_pretrained(folder).eval()(**batch).last_hidden_state
    mask = batch["attention_mask"][:, :, None]
    vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    inputs = {"texts": TEXTS, **feed("model", "last_hidden_state", batch)}
    return inputs, {"values": vectors.flatten().tolist(), "output": hidden.flatten().tolist()}


def text_classification(folder: Path) -> tuple[Result, Result]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    batch = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    labels = list(model.config.id2label.values())
    logits = model(**batch).logits
    inputs = {"texts": TEXTS, "labels": labels, **feed("model", "logits", batch)}
    return inputs, {"values": softmax(logits), "output": logits.flatten().tolist()}


def text_generation(folder: Path) -> tuple[Result, Result]:
    """Greedy, each prompt alone and both in a batch padded on the left."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    prompts = TEXTS[:2]

    def continued(texts: list[str]) -> list[str]:
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        made = model.generate(**batch, **GREEDY)
        return tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)

    tensors = dict(tokenizer(prompts[0], return_tensors="pt"))
    logits = model(**tensors).logits
    text = [continued([prompt])[0] for prompt in prompts] + continued(prompts)
    config = model.config
    heads, width = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    tensors["position_ids"] = torch.arange(logits.shape[1])[None]
    for layer in range(config.num_hidden_layers):
        for part in ("key", "value"):
            tensors[f"past_key_values.{layer}.{part}"] = torch.zeros(1, heads, 0, width)
    inputs = {"prompts": prompts, "options": GREEDY, **feed("model", "logits", tensors)}
    return inputs, {
        "values": logits[0, -1].tolist(),
        "text": text,
        "output": logits.flatten().tolist(),
    }


def translation(folder: Path, **languages: str) -> tuple[Result, Result]:
    """`languages`: `src_lang` and `tgt_lang`, of models that have many."""
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, **languages)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    texts = TEXTS[:2]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    decoder = [model.config.decoder_start_token_id, 7, 8]
    logits = model(**batch, decoder_input_ids=torch.tensor([decoder] * len(texts))).logits[0, -1]
    first = {"forced_bos_token_id": tokenizer.get_lang_id(languages["tgt_lang"])} if languages else {}
    made = model.generate(**batch, **ONCE, **first)
    text = tokenizer.batch_decode(made, skip_special_tokens=True)
    hidden = model.get_encoder()(**batch).last_hidden_state
    inputs = {"texts": texts, "decoder": decoder, "options": ONCE, "languages": languages, "first": first}
    inputs |= feed("encoder_model", "last_hidden_state", batch)
    return inputs, {"values": logits.tolist(), "text": text, "output": hidden.flatten().tolist()}


def chirp(seconds: float = 1.0, rate: int = 16000) -> Any:
    """A tone that rises, with a little noise."""
    time = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(0).normal(0, 0.01, time.shape)
    return (0.5 * np.sin(2 * np.pi * (200 + 900 * time) * time) + noise).astype(np.float32)


def speech(folder: Path) -> tuple[Result, Result]:
    import torch
    from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folder).eval()
    wave = chirp()
    features = processor(wave, sampling_rate=16000, return_tensors="pt").input_features
    decoder = [model.config.decoder_start_token_id, 9, 8]
    logits = model(features, decoder_input_ids=torch.tensor([decoder])).logits[0, -1]
    options = {**ONCE, "language": "en", "task": "transcribe"}
    made = model.generate(features, **options)
    text = [text.strip() for text in processor.batch_decode(made, skip_special_tokens=True)]
    hidden = model.get_encoder()(features).last_hidden_state
    inputs = {"audio": wave.tolist(), "decoder": decoder, "options": options}
    inputs |= feed("encoder_model", "last_hidden_state", {"input_features": features})
    return inputs, {"values": logits.tolist(), "text": text, "output": hidden.flatten().tolist()}


def image_classification(folder: Path) -> tuple[Result, Result]:
    """An image of the model's own size: how clients resample is not what is looked at."""
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    pixels = np.random.default_rng(3).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    tensors = processor(Image.fromarray(pixels), return_tensors="pt")
    logits = model(**tensors).logits
    image = {"data": pixels.flatten().tolist(), "width": 24, "height": 24}
    labels = list(model.config.id2label.values())
    inputs = {"image": image, "labels": labels, **feed("model", "logits", tensors)}
    return inputs, {"values": softmax(logits), "output": logits.flatten().tolist()}


# package -> the inputs of its cases, and what torch makes of them
REFERENCES: Mapping[str, Callable[[Path], tuple[Result, Result]]] = {
    "feature-extraction": feature_extraction,
    "text-classification": text_classification,
    "text-generation": text_generation,
    "translation": translation,
    "marian": translation,
    "m2m100": partial(translation, src_lang="en", tgt_lang="de"),
    "automatic-speech-recognition": speech,
    "image-classification": image_classification,
}
