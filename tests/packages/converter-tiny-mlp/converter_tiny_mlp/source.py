"""From a folder with config.json and model.safetensors to an ItemScorer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from converter.recipes import WeightRecipe
    from converter.records import Checkpoint
    from converter_tiny_mlp.model import Config

# The training code kept its model in an attribute called `net`; so are the tensors of its checkpoints named.
PREFIX = "net."


class ItemScorerSource:
    """A `converter.records.ModelSource`."""

    def config(self, checkpoint: Checkpoint) -> Config:
        from converter_tiny_mlp.model import Config

        return Config(**{field.name: checkpoint.config[field.name] for field in dataclasses.fields(Config)})

    def default_task(self, checkpoint: Checkpoint) -> str:
        return "item-scoring"

    def skeleton(self, config: Config, task: str) -> nn.Module:
        from converter_tiny_mlp.model import ItemScorer

        return ItemScorer(config).eval()

    def original(self, checkpoint: Checkpoint, task: str, offload: Path | None) -> nn.Module:
        import torch
        from accelerate import disk_offload

        from converter.recipes import read

        model = self.skeleton(self.config(checkpoint), task)
        recipes = self.key_mapping(model, checkpoint)
        model.load_state_dict(
            {name: torch.from_numpy(read(recipe).astype("float32")) for name, recipe in recipes.items()}
        )
        if offload is not None:
            disk_offload(model, offload_dir=str(offload))
        return model

    def key_mapping(self, model: nn.Module, checkpoint: Checkpoint) -> Mapping[str, WeightRecipe]:
        from converter.recipes import Load

        return {
            name.removeprefix(PREFIX): Load(info)
            for name, info in checkpoint.tensors.items()
            if name.startswith(PREFIX)
        }

    def write_tiny(self, folder: Path, *, like: Any | None, seed: int, task: str) -> None:
        from safetensors.torch import save_file

        from converter.seeding import seed_weights
        from converter_tiny_mlp.model import Config

        config = Config(features=5, catalogue=31, hidden=12, layers=2)
        model = self.skeleton(config, task)
        seed_weights(model, seed)
        folder.mkdir(parents=True, exist_ok=True)
        entries = {"model_type": "tiny_mlp", **dataclasses.asdict(config)}
        (folder / "config.json").write_text(json.dumps(entries, indent=2))
        tensors = {PREFIX + name: tensor for name, tensor in model.state_dict().items()}
        save_file(tensors, folder / "model.safetensors")
