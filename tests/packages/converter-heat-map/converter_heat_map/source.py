"""From a folder with config.json and model.safetensors to a HeatMap."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from converter.recipes import WeightRecipe
    from converter.records import Checkpoint
    from converter_heat_map.model import Config

TASK = "keypoint-detection"


class HeatMapSource:
    """A `converter.records.ModelSource`."""

    def config(self, checkpoint: Checkpoint) -> Config:
        from converter_heat_map.model import Config

        return Config(**{name: checkpoint.config[name] for name in ("channels", "kinds", "radius")})

    def default_task(self, checkpoint: Checkpoint) -> str:
        return TASK

    def skeleton(self, config: Config, task: str) -> nn.Module:
        from converter_heat_map.model import HeatMap

        return HeatMap(config).eval()

    def original(self, checkpoint: Checkpoint, task: str, offload: Path | None) -> nn.Module:
        from accelerate import disk_offload
        from safetensors.torch import load_file

        model = self.skeleton(self.config(checkpoint), task)
        model.load_state_dict(load_file(checkpoint.folder / "model.safetensors"))
        if offload is not None:
            disk_offload(model, offload_dir=str(offload))
        return model.float()

    def key_mapping(self, model: nn.Module, checkpoint: Checkpoint) -> Mapping[str, WeightRecipe]:
        """Names are the model's own. The batch norms' statistics, which are buffers, are among them."""
        from converter.recipes import Load

        return {name: Load(info) for name, info in checkpoint.tensors.items()}

    def write_tiny(self, folder: Path, *, like: Any | None, seed: int, task: str) -> None:
        from safetensors.torch import save_file

        from converter.seeding import seed_weights
        from converter_heat_map.model import Config

        config = Config(channels=6, kinds=3, radius=1)
        model = self.skeleton(config, task)
        seed_weights(model, seed)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"model_type": "heat_map", **vars(config)}, indent=2))
        save_file(model.state_dict(), folder / "model.safetensors")
