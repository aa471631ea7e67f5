"""What the converter loads. Importing this file must not import torch, so functions import what they need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from converter import Architecture, Axis, Component, DummyInputs, Output, Size, Variant, hookimpl
from converter_two_tower.source import TASK, TwoTowerSource, open_folder

if TYPE_CHECKING:
    import torch
    from torch import nn

    from converter_two_tower.model import Config

converter_api = "1.0"

BATCH, HISTORY, ITEMS = "batch_size", "history_length", "num_items"
USER = ("user_ids", "profile", "history_ids", "history_mask")
AXES: Mapping[str, Mapping[int, str]] = {
    "user_ids": {0: BATCH},
    "profile": {0: BATCH},
    "history_ids": {0: BATCH, 1: HISTORY},
    "history_mask": {0: BATCH, 1: HISTORY},
    "item_ids": {0: BATCH, 1: ITEMS},
}


def inputs(config: Config, names: Sequence[str], size: Size) -> DummyInputs:
    """Histories of every length from none to all of `history_length`, padded on either side."""
    import torch

    generator = torch.Generator().manual_seed(size.seed)
    batch, history = size[BATCH], size.axes.get(HISTORY, 1)
    places, lengths = torch.arange(history), history - torch.arange(batch)[:, None] % (history + 1)
    mask = places >= history - lengths if size.padding == "left" else places < lengths
    tensors = {
        "user_ids": torch.randint(0, config.users, (batch,), generator=generator),
        "profile": torch.randn(batch, config.features, generator=generator),
        "history_ids": torch.randint(0, config.items, (batch, history), generator=generator),
        "history_mask": mask.long(),
        "item_ids": torch.randint(0, config.items, (batch, size.axes.get(ITEMS, 1)), generator=generator),
    }
    return DummyInputs({name: tensors[name] for name in names}, {name: AXES[name] for name in names})


def wrapper(kind: str, model: nn.Module) -> nn.Module:
    from converter_two_tower import wrapper

    graph: nn.Module = getattr(wrapper, kind)(model)
    return graph


def histories(tensors: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """As the model takes them: one tensor a user, without padding."""
    pairs = zip(tensors["history_ids"], tensors["history_mask"], strict=True)
    return [ids[mask.bool()] for ids, mask in pairs]


def score(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    users = tensors["user_ids"], tensors["profile"], histories(tensors)
    return {"scores": model.recommend(*users, tensors["item_ids"])}


def embed_users(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    vectors = model.embed_users(tensors["user_ids"], tensors["profile"], histories(tensors))
    return {"user_embedding": vectors}


def embed_items(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    return {"item_embeddings": model.embed_items(tensors["item_ids"])}


def components(config: Config, task: str) -> Sequence[Component]:
    batch, items = Axis(BATCH, traced=2, high=8), Axis(ITEMS, traced=3, high=20)
    history = Axis(HISTORY, traced=5, high=12)
    return (
        Component(
            stem="model",
            wrapper=partial(wrapper, "ScoreGraph"),
            inputs=partial(inputs, config, (*USER, "item_ids")),
            reference=score,
            axes=(batch, history, items),
            outputs=(Output("scores", {0: BATCH, 1: ITEMS}),),
        ),
        Component(
            stem="user_model",
            wrapper=partial(wrapper, "UserGraph"),
            inputs=partial(inputs, config, USER),
            reference=embed_users,
            axes=(batch, history),
            outputs=(Output("user_embedding", {0: BATCH}),),
        ),
        Component(
            stem="item_model",
            wrapper=partial(wrapper, "ItemGraph"),
            inputs=partial(inputs, config, ("item_ids",)),
            reference=embed_items,
            axes=(batch, items),
            outputs=(Output("item_embeddings", {0: BATCH, 1: ITEMS}),),
        ),
    )


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    variants = (
        Variant("scores", ("model",), "user, history and candidates in, scores out"),
        Variant("towers", ("user_model", "item_model"), "each tower alone, for an index of items"),
    )
    register(
        Architecture(
            name="two_tower",
            model_types=(),
            summary="a recommender of two towers",
            reference_checkpoint="",
            source=TwoTowerSource(),
            components=components,
            variants={TASK: variants},
            opens=open_folder,
        )
    )
