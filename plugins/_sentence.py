"""Models that end in one vector a text. Not a plugin itself: it registers nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter import Axis, Component, DummyInputs, Output, Size, TransformersModel
from converter.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn

    from converter.recipes import WeightRecipe
    from converter.records import Checkpoint

TOKENS = {0: "batch_size", 1: "sequence_length"}
# What sentence-transformers does with a checkpoint that says nothing.
MEAN: Mapping[str, Any] = {"pooling": ["mean"], "dense": [], "normalize": False}


@dataclass(frozen=True)
class SentenceModel(TransformersModel):
    """A model whose checkpoint may bring what sentence-transformers puts behind it.

    pooled  the tasks that end in it. Its config gets an entry `sentence_head` (see
            `converter.checkpoints.sentence`); dense layers become part of the model, as `sentence_dense`
    """

    pooled: tuple[str, ...] = ()

    def config(self, checkpoint: Checkpoint) -> Any:
        from converter.checkpoints.sentence import read_sentence_head

        config = super().config(checkpoint)
        if getattr(config, "sentence_head", None) is None:
            config.sentence_head = read_sentence_head(checkpoint.root)
        return config

    def original(self, checkpoint: Checkpoint, task: str, offload: Path | None) -> nn.Module:
        from converter.recipes import read

        model = super().original(checkpoint, task, offload)
        self._attach(model, self.config(checkpoint), task)
        if hasattr(model, "sentence_dense"):
            import torch

            tensors = {
                name.removeprefix("sentence_dense."): torch.from_numpy(read(recipe).astype("float32"))
                for name, recipe in self._dense(model, checkpoint).items()
            }
            dense: Any = model.sentence_dense
            dense.load_state_dict(tensors)
        return model

    def key_mapping(self, model: nn.Module, checkpoint: Checkpoint) -> Mapping[str, WeightRecipe]:
        return {**super().key_mapping(model, checkpoint), **self._dense(model, checkpoint)}

    def _build(self, config: Any, task: str) -> nn.Module:
        model = super()._build(config, task)
        self._attach(model, config, task)
        return model

    def _attach(self, model: Any, config: Any, task: str) -> None:
        """Give the model the dense layers that stand behind it, and its own config word of them."""
        from torch import nn

        head = getattr(config, "sentence_head", None)
        if task in self.pooled and head and head["dense"]:
            model.config.sentence_head = head
            model.sentence_dense = nn.ModuleList(
                nn.Linear(entry["in"], entry["out"], bias=entry["bias"]) for entry in head["dense"]
            )

    def _dense(self, model: nn.Module, checkpoint: Checkpoint) -> dict[str, WeightRecipe]:
        """Parameters of the dense layers: each module's own file has them, or in a tiny checkpoint the one file."""
        from converter.recipes import Load

        found: dict[str, WeightRecipe] = {}
        if not hasattr(model, "sentence_dense"):
            return found
        config: Any = model.config
        for place, entry in enumerate(config.sentence_head["dense"]):
            parts = ("weight", "bias") if entry["bias"] else ("weight",)
            for part in parts:
                name = f"sentence_dense.{place}.{part}"
                own = f"{entry['path']}.linear.{part}"
                info = checkpoint.tensors.get(name) or checkpoint.tensors.get(own)
                if info is None:
                    raise CheckpointError(
                        f"{checkpoint.source} lists a dense layer {entry['path']} and has no tensor {own}",
                        remedy="download it again, with its folders; --allow-pickle reads folders of pickles",
                    )
                found[name] = Load(info)
        return found


def sentence_component(
    config: Any, inputs: Callable[[Size], DummyInputs], axes: tuple[Axis, ...], hidden: str
) -> Component:
    """The hidden states of the tokens, called `hidden`, and `sentence_embedding`."""
    head = getattr(config, "sentence_head", None) or MEAN
    return Component(
        stem="model",
        wrapper=partial(_wrapper, head),
        inputs=inputs,
        reference=partial(_reference, head, hidden),
        axes=axes,
        outputs=(Output(hidden, TOKENS), Output("sentence_embedding", {0: "batch_size"})),
    )


def _wrapper(head: Mapping[str, Any], model: nn.Module) -> nn.Module:
    from converter.wrappers.sentence import SentenceEncoder

    return SentenceEncoder(model, head)


def _reference(
    head: Mapping[str, Any], hidden: str, model: Any, tensors: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """As sentence-transformers computes it, one text after the other."""
    import torch

    states = model(**tensors).last_hidden_state
    rows = [
        torch.cat([_pooled(mode, row, mask) for mode in head["pooling"]])
        for row, mask in zip(states, tensors["attention_mask"], strict=True)
    ]
    embedding = torch.stack(rows)
    for place, entry in enumerate(head["dense"]):
        embedding = getattr(torch.nn, entry["activation"])()(model.sentence_dense[place](embedding))
    if head["normalize"]:
        embedding = embedding / embedding.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return {hidden: states, "sentence_embedding": embedding}


def _pooled(mode: str, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One text: (tokens, dim) and (tokens) -> (dim)."""
    import torch

    places = mask.nonzero()[:, 0]
    real = states[places]
    if mode == "cls":
        return real[0]
    if mode == "lasttoken":
        return real[-1]
    if mode == "max":
        return real.max(0).values
    # Weights count positions in the padded row.
    weights = places + 1 if mode == "weightedmean" else torch.ones_like(places)
    total, count = (real * weights[:, None]).sum(0), weights.sum()
    return total / (count.sqrt() if mode == "mean_sqrt_len" else count)
