"""ColBERT: multi-vector retrieval over a text encoder, from ColBERT's own checkpoints and from PyLate's folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from converter import Architecture, Axis, Component, DummyInputs, Size, Variant, hookimpl
from converter.plugins._projected import ProjectedModel, projections_of
from converter.plugins._retrieval import OUTPUTS, TASK
from converter.plugins._text import longest_text, token_inputs
from converter.plugins.text_encoder import FAMILY, TINY

if TYPE_CHECKING:
    import torch
    from torch import nn

    from converter.records import Checkpoint


def tiny(model_type: str) -> Mapping[str, Any]:
    return {**TINY, **FAMILY.get(model_type, {})}


def _recognizes(checkpoint: Checkpoint) -> bool:
    """Models that see as well have a `linear` too, and are others'."""
    return "vision_config" not in checkpoint.config and bool(projections_of(checkpoint))


def _inputs(config: Any, size: Size) -> DummyInputs:
    """Texts, in which some of the tokens that nobody attends to are none of the padding: as queries have them."""
    import torch

    inputs = token_inputs(size, vocabulary=config.vocab_size, pad=config.pad_token_id or 0)
    ids, mask = inputs.tensors["input_ids"].clone(), inputs.tensors["attention_mask"]
    generator = torch.Generator().manual_seed(size.seed)
    filled = torch.randint(0, 2, ids.shape, generator=generator).bool() & (mask == 0)
    ids[filled] = (1 + (config.pad_token_id or 0)) % config.vocab_size
    return DummyInputs({"input_ids": ids, "attention_mask": mask}, inputs.axes)


def _wrapper(model: Any) -> nn.Module:
    from converter.wrappers.late_interaction import ColBERT

    return ColBERT(model, model.config.pad_token_id)


def reference(model: Any, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As ColBERT's `query` and `doc`, without a list of tokens to skip: project, mask, normalize."""
    from torch import nn

    projected = model(**tensors)
    pad = model.config.pad_token_id
    if pad is not None:
        projected[tensors["input_ids"] == pad] = 0.0
    return {"embeddings": nn.functional.normalize(projected, p=2, dim=2)}


def _components(config: Any, task: str) -> Sequence[Component]:
    return (
        Component(
            stem="model",
            wrapper=_wrapper,
            inputs=partial(_inputs, config),
            reference=reference,
            axes=(Axis("batch_size", 2, high=6), Axis("sequence_length", 7, high=longest_text(config))),
            outputs=OUTPUTS,
        ),
    )


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    register(
        Architecture(
            name="colbert",
            model_types=("colbert",),
            summary="token embeddings for late interaction, over any text encoder",
            reference_checkpoint="colbert-ir/colbertv2.0",
            source=ProjectedModel(TASK, tiny),
            components=_components,
            variants={TASK: (Variant("text", ("model",), "token ids and mask in, a vector a token out"),)},
            recognizes=_recognizes,
        )
    )
