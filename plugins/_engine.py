"""Where retrieval models over a vision language model come from: transformers' own checkpoints and colpali-engine's.

colpali-engine keeps the backbone's config.json and puts a projection (`custom_text_proj`) beside its weights, as a
whole model or as an adapter. Both become the same class of transformers. Not a plugin itself: it registers nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter import TransformersModel
from converter.plugins._retrieval import TASK
from converter.records import Checkpoint

if TYPE_CHECKING:
    from torch import nn

    from converter.recipes import WeightRecipe

# What its releases call the projection, ColIdefics3's last.
PROJECTIONS = ("custom_text_proj", "linear")


def projection_of(checkpoint: Checkpoint) -> str:
    """The name of the projection in a checkpoint of colpali-engine; empty in any other checkpoint."""
    adapter = checkpoint.adapter
    names = {*checkpoint.tensors, *(adapter.replaced if adapter is not None else ())}
    return next((name for name in PROJECTIONS if f"{name}.weight" in names), "")


@dataclass(frozen=True)
class RetrievalModel(TransformersModel):
    """A retrieval class of transformers that holds a backbone, `vlm`, and a projection, `embedding_proj_layer`.

    backbones    model type of colpali-engine's checkpoints -> renamings that bring their tensors' names to the
                 backbone's, as patterns
    tinies       backbone's model type -> what makes its config a small one; `tiny` comes on top, for any of them
    bare         write tiny checkpoints in colpali-engine's layout, `class_name` in their config.json, the projection
                 under the name `projection`, the backbone's tensors behind `prefix`
    """

    backbones: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tinies: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    bare: str = ""
    class_name: str = ""
    projection: str = PROJECTIONS[-1]
    prefix: str = "model."

    def recognizes(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.config.get("model_type") in self.backbones and bool(projection_of(checkpoint))

    def config(self, checkpoint: Checkpoint) -> Any:
        from converter.checkpoints.lora import recipe_beside

        own = super().config(checkpoint)
        if own.model_type == self.model_type:
            return own
        weight = recipe_beside(checkpoint, f"{projection_of(checkpoint)}.weight")
        return self._config_of(own, weight.shape[0])

    def _config_of(self, backbone: Any, embedding_dim: int) -> Any:
        from transformers import CONFIG_MAPPING

        return CONFIG_MAPPING[self.model_type](vlm_config=backbone, embedding_dim=embedding_dim)

    def default_task(self, checkpoint: Checkpoint) -> str:
        return TASK

    def original(self, checkpoint: Checkpoint, task: str, offload: Path | None) -> nn.Module:
        import torch

        from converter.adapted import attach_adapter, attach_to

        kind = checkpoint.config.get("model_type")
        if kind == self.model_type:
            return super().original(checkpoint, task, offload)
        renamings = self.backbones[str(kind)]
        with torch.device("meta"):
            model: Any = self._build(self.config(checkpoint), task)
        backbone = TransformersModel({task: "AutoModel"}, {}, str(kind), {"key_mapping": dict(renamings)})
        model.vlm = backbone.loaded(checkpoint, task, offload)
        attach_adapter(model.vlm, checkpoint, renamings)
        name, linear = projection_of(checkpoint), model.embedding_proj_layer
        model.embedding_proj_layer = torch.nn.Linear(linear.in_features, linear.out_features)
        attach_to(model.embedding_proj_layer, name, checkpoint)
        evaluated: nn.Module = model.eval()
        return evaluated

    def key_mapping(self, model: nn.Module, checkpoint: Checkpoint) -> Mapping[str, WeightRecipe]:
        from converter.checkpoints.lora import recipe_beside
        from converter.tracing.conversions import recipes_for

        kind = checkpoint.config.get("model_type")
        if kind == self.model_type:
            return super().key_mapping(model, checkpoint)
        whole: Any = model
        recipes = recipes_for(whole.vlm, checkpoint, self.backbones[str(kind)])
        name = projection_of(checkpoint)
        return {f"vlm.{target}": recipe for target, recipe in recipes.items()} | {
            f"embedding_proj_layer.{part}": recipe_beside(checkpoint, f"{name}.{part}")
            for part in ("weight", "bias")
        }

    def write_tiny(self, folder: Path, *, like: Any | None, seed: int, task: str) -> None:
        from transformers import CONFIG_MAPPING

        from converter.seeding import seed_weights
        from converter.sources import merged

        base = CONFIG_MAPPING[self.bare]() if self.bare else CONFIG_MAPPING[self.model_type]().vlm_config
        base = base if like is None else like.vlm_config
        small = merged(base.to_dict(), self.tinies[base.model_type])
        backbone = type(base).from_dict(merged(small, self.tiny.get("vlm_config", {})))
        model: Any = self._build(self._config_of(backbone, self.tiny.get("embedding_dim", 20)), task)
        seed_weights(model, seed)
        if self.bare:
            self._write_bare(model, folder)
        else:
            model.save_pretrained(folder)

    def _write_bare(self, model: Any, folder: Path) -> None:
        """colpali-engine's layout: the backbone, and the projection beside it."""
        from safetensors.torch import save_file

        tensors = {f"{self.prefix}{name}": tensor for name, tensor in model.vlm.state_dict().items()}
        layer = model.embedding_proj_layer
        tensors |= {f"{self.projection}.{name}": tensor for name, tensor in layer.state_dict().items()}
        config = model.vlm.config
        config.architectures = [self.class_name]
        config.save_pretrained(folder)
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            folder / "model.safetensors",
            {"format": "pt"},
        )
