"""optimum's ORTModel classes, with a transformers older than the one that wrote the checkpoints."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jobs import answer, graph
from optimum import onnxruntime as ort
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer


def flat(tensor: Any) -> list[float]:
    return [float(value) for value in tensor.flatten()]


def feature_extraction(folder: Path, precision: str, inputs: dict[str, Any]) -> dict[str, Any]:
    model = ort.ORTModelForFeatureExtraction.from_pretrained(folder, file_name=graph("model", precision))
    batch = AutoTokenizer.from_pretrained(folder)(inputs["texts"], padding=True, return_tensors="pt")
    hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"][:, :, None]
    return {"values": flat(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1))}


def text_classification(folder: Path, precision: str, inputs: dict[str, Any]) -> dict[str, Any]:
    model = ort.ORTModelForSequenceClassification.from_pretrained(folder, file_name=graph("model", precision))
    batch = AutoTokenizer.from_pretrained(folder)(inputs["texts"], padding=True, return_tensors="pt")
    return {"values": flat(model(**batch).logits.softmax(-1))}


def text_generation(folder: Path, precision: str, inputs: dict[str, Any]) -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = ort.ORTModelForCausalLM.from_pretrained(folder, file_name=graph("model", precision))
    prompts = inputs["prompts"]

    def continued(texts: list[str]) -> list[str]:
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        made = model.generate(**batch, **inputs["options"])
        return tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)

    logits = model(**tokenizer(prompts[0], return_tensors="pt")).logits[0, -1]
    return {"values": flat(logits), "text": [continued([p])[0] for p in prompts] + continued(prompts)}


def seq2seq_files(precision: str) -> dict[str, str]:
    """Nothing for fp32: once a decoder is named, optimum wants a second one by name, which it then does not use."""
    if precision == "fp32":
        return {}
    decoder = graph("decoder_model_merged", precision)
    return {
        "encoder_file_name": graph("encoder_model", precision),
        "decoder_file_name": decoder,
        "decoder_with_past_file_name": decoder,
    }


def translation(folder: Path, precision: str, inputs: dict[str, Any]) -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(folder, **inputs["languages"])
    model = ort.ORTModelForSeq2SeqLM.from_pretrained(folder, **seq2seq_files(precision))
    batch = tokenizer(inputs["texts"], padding=True, return_tensors="pt")
    decoder = torch.tensor([inputs["decoder"]] * len(inputs["texts"]))
    logits = model(**batch, decoder_input_ids=decoder).logits[0, -1]
    made = model.generate(**batch, **inputs["options"], **inputs["first"])
    return {"values": flat(logits), "text": tokenizer.batch_decode(made, skip_special_tokens=True)}


def speech(folder: Path, precision: str, inputs: dict[str, Any]) -> dict[str, Any]:
    processor = AutoProcessor.from_pretrained(folder)
    model = ort.ORTModelForSpeechSeq2Seq.from_pretrained(folder, **seq2seq_files(precision))
    wave = np.asarray(inputs["audio"], dtype=np.float32)
    features = processor(wave, sampling_rate=16000, return_tensors="pt").input_features
    logits = model(features, decoder_input_ids=torch.tensor([inputs["decoder"]])).logits[0, -1]
    made = model.generate(features, **inputs["options"])
    text = [text.strip() for text in processor.batch_decode(made, skip_special_tokens=True)]
    return {"values": flat(logits), "text": text}


def image_classification(folder: Path, precision: str, inputs: dict[str, Any]) -> dict[str, Any]:
    model = ort.ORTModelForImageClassification.from_pretrained(folder, file_name=graph("model", precision))
    image = inputs["image"]
    pixels = np.asarray(image["data"], dtype=np.uint8).reshape(image["height"], image["width"], 3)
    tensors = AutoImageProcessor.from_pretrained(folder, use_fast=False)(pixels, return_tensors="pt")
    return {"values": flat(model(**tensors).logits.softmax(-1))}


TASKS = {
    "feature-extraction": feature_extraction,
    "text-classification": text_classification,
    "text-generation": text_generation,
    "translation": translation,
    "automatic-speech-recognition": speech,
    "image-classification": image_classification,
}

answer(
    f"{version('optimum-onnx')}, transformers {version('transformers')}",
    lambda folder, case: TASKS[case["task"]](folder, case["precision"], case["inputs"]),
)
