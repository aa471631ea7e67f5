"""From what the training framework leaves, `hparams.json` and `weights.safetensors`, to a TwoTower.

The framework keeps its kernels as (in, out) where torch has (out, in), both tables in one tensor, users first, and the
attention's two kernels side by side.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter.errors import CheckpointError
from converter.records import Checkpoint

if TYPE_CHECKING:
    import torch
    from torch import nn

    from converter.recipes import WeightRecipe
    from converter_two_tower.model import Config

CONFIG, WEIGHTS = "hparams.json", "weights.safetensors"
TASK = "recommendation"
# A dense layer of the framework -> the module of ours.
DENSE = {
    "user/profile": "user_tower.profile",
    "user/out": "user_tower.out",
    "item/hidden": "item_tower.hidden",
    "item/out": "item_tower.out",
}


def open_folder(folder: Path, allow_pickle: bool) -> Checkpoint | None:
    """The checkpoint in a folder whose `hparams.json` says `"model": "two_tower"`; None in any other."""
    from converter.checkpoint import read_header

    if not (folder / CONFIG).is_file():
        return None
    config = json.loads((folder / CONFIG).read_text())
    if config.get("model") != "two_tower":
        return None
    if not (folder / WEIGHTS).is_file():
        raise CheckpointError(f"{folder.name} has {CONFIG}, but no {WEIGHTS}", remedy="copy both")
    return Checkpoint(folder, folder.name, None, config, read_header(folder / WEIGHTS))


class TwoTowerSource:
    """A `converter.records.ModelSource`."""

    def config(self, checkpoint: Checkpoint) -> Config:
        from converter_two_tower.model import Config

        return Config(**{name: checkpoint.config[name] for name in ("users", "items", "features", "width")})

    def default_task(self, checkpoint: Checkpoint) -> str:
        return TASK

    def skeleton(self, config: Config, task: str) -> nn.Module:
        from converter_two_tower.model import TwoTower

        return TwoTower(config).eval()

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
        from converter.recipes import Load, Slice, Transpose

        stored = {name: Load(info) for name, info in checkpoint.tensors.items()}
        users, rows = checkpoint.config["users"], stored["tables"].shape[0]
        width = checkpoint.config["width"]
        kernels = Transpose(stored["user/attention/kernels"], (1, 0))
        mapping: dict[str, WeightRecipe] = {
            "user_tower.users.weight": Slice(stored["tables"], 0, 0, users),
            "items.weight": Slice(stored["tables"], 0, users, rows),
            "user_tower.query.weight": Slice(kernels, 0, 0, width),
            "user_tower.key.weight": Slice(kernels, 0, width, 2 * width),
            "user_tower.query.bias": stored["user/attention/query_bias"],
            "scale": stored["scale"],
        }
        for theirs, ours in DENSE.items():
            mapping[f"{ours}.weight"] = Transpose(stored[f"{theirs}/kernel"], (1, 0))
            mapping[f"{ours}.bias"] = stored[f"{theirs}/bias"]
        return mapping

    def write_tiny(self, folder: Path, *, like: Any | None, seed: int, task: str) -> None:
        from safetensors.torch import save_file

        from converter.seeding import seed_weights
        from converter_two_tower.model import Config

        config = Config(users=29, items=53, features=7, width=12)
        model = self.skeleton(config, task)
        seed_weights(model, seed)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).write_text(json.dumps({"model": "two_tower", **vars(config)}, indent=2))
        save_file(framework_tensors(model), folder / WEIGHTS)


def framework_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's parameters as the training framework stores them."""
    import torch

    ours = model.state_dict()
    kernels = torch.cat([ours["user_tower.query.weight"], ours["user_tower.key.weight"]])
    tensors = {
        "tables": torch.cat([ours["user_tower.users.weight"], ours["items.weight"]]),
        "user/attention/kernels": kernels.T.contiguous(),
        "user/attention/query_bias": ours["user_tower.query.bias"],
        "scale": ours["scale"],
    }
    for theirs, module in DENSE.items():
        tensors[f"{theirs}/kernel"] = ours[f"{module}.weight"].T.contiguous()
        tensors[f"{theirs}/bias"] = ours[f"{module}.bias"]
    return tensors
