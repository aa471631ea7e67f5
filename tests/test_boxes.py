"""Text on pages: LayoutLM, LiLT and MarkupLM are told where on its page each token stands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from converter.checkpoint import open_checkpoint
from converter.records import Size
from converter.registry import Registry

Checkpoints = Callable[..., Path]


@pytest.mark.parametrize("name", ["layoutlm", "lilt"])
def test_graphs_of_pages_take_a_box_a_token(
    name: str, builtin: Registry, tiny_checkpoint: Checkpoints
) -> None:
    architecture = builtin.find(name)
    checkpoint = open_checkpoint(tiny_checkpoint(name, task="question-answering"))
    assert architecture.source.default_task(checkpoint) == "question-answering"
    config = architecture.source.config(checkpoint)
    (component,) = architecture.components(config, "question-answering")
    inputs = component.inputs(Size({"batch_size": 3, "sequence_length": 8}, "left"))
    boxes, mask = inputs.tensors["bbox"], inputs.tensors["attention_mask"].bool()
    assert inputs.axes["bbox"] == inputs.axes["input_ids"] and boxes.shape == (*mask.shape, 4)
    assert bool((boxes[..., :2] <= boxes[..., 2:]).all()) and not boxes[~mask].any()
    model = architecture.source.original(checkpoint, "question-answering", None)
    with torch.no_grad():
        seen = component.reference(model, inputs.tensors)["start_logits"]
        moved = component.reference(model, {**inputs.tensors, "bbox": boxes // 2})["start_logits"]
    assert not torch.allclose(seen[mask], moved[mask], atol=1e-4)


def test_graphs_of_html_take_the_path_to_each_token(builtin: Registry, tiny_checkpoint: Checkpoints) -> None:
    architecture = builtin.find("markuplm")
    checkpoint = open_checkpoint(tiny_checkpoint("markuplm", task="question-answering"))
    config = architecture.source.config(checkpoint)
    (component,) = architecture.components(config, "question-answering")
    inputs = component.inputs(Size({"batch_size": 3, "sequence_length": 8}, "left"))
    tags, mask = inputs.tensors["xpath_tags_seq"], inputs.tensors["attention_mask"].bool()
    subscripts = inputs.tensors["xpath_subs_seq"]
    assert inputs.axes["xpath_tags_seq"] == inputs.axes["xpath_subs_seq"] == inputs.axes["input_ids"]
    assert tags.shape == subscripts.shape == (*mask.shape, config.max_depth)
    assert bool((tags[~mask] == config.tag_pad_id).all()) and bool(
        (subscripts[~mask] == config.subs_pad_id).all()
    )
    model = architecture.source.original(checkpoint, "question-answering", None)
    with torch.no_grad():
        seen = component.reference(model, inputs.tensors)["start_logits"]
        for name in ("xpath_tags_seq", "xpath_subs_seq"):
            moved = component.reference(model, {**inputs.tensors, name: inputs.tensors[name] // 2})[
                "start_logits"
            ]
            assert not torch.allclose(seen[mask], moved[mask], atol=1e-5)
