"""Classifiers over encoder-decoders: the wrapper that reads the end of each text, against the untouched classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from converter import Size, convert
from converter.plugins import seq2seq
from converter.seeding import seed_weights


@pytest.mark.parametrize("kind", sorted(seq2seq.HEADS[seq2seq.CLASSES]))
@pytest.mark.parametrize("padding", ["none", "left", "right"])
def test_the_last_end_of_text_tells_the_class(kind: str, padding: str) -> None:
    config = transformers.CONFIG_MAPPING[kind](**seq2seq.FAMILY[kind], num_labels=3)
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    seed_weights(model, 0)
    (component,) = seq2seq._components(model.config, seq2seq.CLASSES)
    for batch, length in ((1, 1), (3, 9)):
        size = Size({"batch_size": batch, "sequence_length": length}, padding)
        tensors = component.inputs(size).tensors
        with torch.no_grad():
            wrapped = component.wrapper(model)(**tensors)
            original = component.reference(model, tensors)["logits"]
        assert original.shape == (batch, 3) and torch.allclose(wrapped, original, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(seq2seq.HEADS[seq2seq.ANSWERS]))
@pytest.mark.parametrize("padding", ["none", "left", "right"])
def test_answers_are_found_in_the_text_that_the_decoder_is_fed(kind: str, padding: str) -> None:
    config = transformers.CONFIG_MAPPING[kind](**seq2seq.FAMILY[kind])
    torch.manual_seed(0)
    model = transformers.AutoModelForQuestionAnswering.from_config(config).eval()
    seed_weights(model, 0)
    (component,) = seq2seq._components(model.config, seq2seq.ANSWERS)
    for batch, length in ((1, 1), (3, 9)):
        size = Size({"batch_size": batch, "sequence_length": length}, padding)
        tensors = component.inputs(size).tensors
        with torch.no_grad():
            wrapped = component.wrapper(model)(**tensors)
            original = component.reference(model, tensors)
        for found, name in zip(wrapped, ("start_logits", "end_logits"), strict=True):
            assert original[name].shape == (batch, length)
            assert torch.allclose(found, original[name], atol=1e-5)


def test_mbart_that_is_traced_answers_one_text_as_well_as_several(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tiny_checkpoint("mbart", task=seq2seq.ANSWERS)
    report = convert(model=folder, output=tmp_path / "package", parity="full")
    assert report.task == seq2seq.ANSWERS and report.parity.proven
    assert any(row.size.startswith("batch_size=1,") for row in report.parity.comparisons)
