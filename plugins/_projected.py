"""Where models with projections behind a backbone come from: ColBERT's own checkpoints and PyLate's folders.

Not a plugin itself: it registers nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter import TransformersModel
from converter.errors import CheckpointError
from converter.records import Checkpoint

if TYPE_CHECKING:
    from torch import nn

    from converter.recipes import WeightRecipe

PLAIN = "Identity"


@dataclass(frozen=True)
class Projection:
    """One projection: where its tensors are (`<prefix>linear.weight`), its sizes, and what follows the product."""

    prefix: str
    inputs: int
    outputs: int
    bias: bool
    activation: str = PLAIN
    residual: bool = False


# What sentence-transformers puts behind the dense layers of its MultiVectorEncoder; PyLate does the same unasked.
BEHIND = ["MultiVectorMask", "Normalize"]


def projections_of(checkpoint: Checkpoint) -> tuple[Projection, ...]:
    """What a checkpoint puts behind its backbone: a `linear` of its own, or modules that are all Dense.

    Nothing where it has neither: pooling makes one vector of a text.
    """
    chain = checkpoint.modules[1:]
    if [module.kind for module in chain[-2:]] == BEHIND:
        chain = chain[:-2]
    if chain and all(module.kind == "Dense" for module in chain):
        return tuple(
            _projection(
                checkpoint,
                f"{module.path}.",
                activation=str(module.config.get("activation_function", PLAIN)).rpartition(".")[2],
                residual=bool(module.config.get("use_residual", False)),
            )
            for module in chain
        )
    weight = checkpoint.tensors.get("linear.weight")
    width = checkpoint.config.get("hidden_size") or checkpoint.config.get("dim")
    if not chain and weight is not None and len(weight.shape) == 2 and weight.shape[1] == width:
        return (_projection(checkpoint, ""),)
    return ()


def _projection(
    checkpoint: Checkpoint, prefix: str, *, activation: str = PLAIN, residual: bool = False
) -> Projection:
    weight = checkpoint.tensors.get(f"{prefix}linear.weight")
    if weight is None or len(weight.shape) != 2:
        raise CheckpointError(
            f"{checkpoint.source} names a projection but has no matrix {prefix}linear.weight",
            remedy="download it again; --allow-pickle reads folders that have only pickles",
        )
    outputs, inputs = weight.shape
    return Projection(
        prefix, inputs, outputs, f"{prefix}linear.bias" in checkpoint.tensors, activation, residual
    )


@dataclass(frozen=True)
class ProjectedModel:
    """A `ModelSource`: any text backbone of transformers, and the projections of `projections_of`.

    `tiny` gives what makes a config of a model type a small one.
    """

    task: str
    tiny: Callable[[str], Mapping[str, Any]]

    def config(self, checkpoint: Checkpoint) -> Any:
        config = self._backbone(str(checkpoint.config.get("model_type"))).config(checkpoint)
        config.projections = projections_of(checkpoint)
        if not config.projections:
            raise CheckpointError(
                f"{checkpoint.source} has no projection behind its token vectors",
                remedy="leave --arch out to convert it as what its config.json says",
            )
        return config

    def default_task(self, checkpoint: Checkpoint) -> str:
        return self.task

    def skeleton(self, config: Any, task: str) -> nn.Module:
        skeleton: nn.Module = _joined(
            self._backbone(config.model_type).skeleton(config, task), config.projections
        )
        return skeleton.eval()

    def original(self, checkpoint: Checkpoint, task: str, offload: Path | None) -> nn.Module:
        from torch import nn

        from converter.adapted import attach_to

        config = self.config(checkpoint)
        backbone = self._backbone(config.model_type).original(checkpoint, task, offload)
        model: Any = _joined(backbone, config.projections)
        for entry, projection in zip(config.projections, model.projections, strict=True):
            for name, layer in projection.named_children():
                if isinstance(layer, nn.Linear):
                    attach_to(layer, f"{entry.prefix}{name}", checkpoint)
        evaluated: nn.Module = model.eval()
        return evaluated

    def key_mapping(self, model: nn.Module, checkpoint: Checkpoint) -> Mapping[str, WeightRecipe]:
        from converter.checkpoints.lora import recipe_beside
        from converter.tracing.conversions import recipes_for

        joined: Any = model
        own = {
            f"backbone.{name}": recipe for name, recipe in recipes_for(joined.backbone, checkpoint).items()
        }
        places = _stored(joined.config.projections)
        return {**own, **{target: recipe_beside(checkpoint, source) for target, source in places.items()}}

    def write_tiny(self, folder: Path, *, like: Any | None, seed: int, task: str) -> None:
        """In ColBERT's own layout; a projection that this cannot hold becomes one that it can."""
        from safetensors.torch import save_file

        from converter.seeding import seed_weights

        config = self._tiny_config(like)
        backbone = self._backbone(config.model_type)
        model: Any = _joined(backbone._build(config, self.task), config.projections)
        seed_weights(model, seed)
        prefix = model.backbone.base_model_prefix
        tensors = {
            f"{prefix}.{name}": tensor.contiguous() for name, tensor in model.backbone.state_dict().items()
        }
        tensors |= {source: model.get_parameter(name) for name, source in _stored(config.projections).items()}
        config.architectures = ["HF_ColBERT"]
        del config.projections
        config.save_pretrained(folder)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    def _tiny_config(self, like: Any | None) -> Any:
        from transformers import CONFIG_MAPPING

        from converter.sources import merged

        base = CONFIG_MAPPING["bert"]() if like is None else copy.deepcopy(like)
        bias = any(projection.bias for projection in getattr(base, "projections", ()))
        base.projections = None
        config = type(base).from_dict(merged(base.to_dict(), self.tiny(base.model_type)))
        config.projections = (Projection("", config.hidden_size, 20, bias),)
        return config

    def _backbone(self, model_type: str) -> TransformersModel:
        return TransformersModel({self.task: "AutoModel"}, {}, model_type)


def _joined(backbone: Any, projections: Sequence[Projection]) -> Any:
    from torch import nn

    from converter.wrappers.late_interaction import Dense, Projected

    return Projected(
        backbone,
        [
            Dense(
                nn.Linear(entry.inputs, entry.outputs, bias=entry.bias),
                _activation(entry.activation),
                residual=entry.residual,
            )
            for entry in projections
        ],
    )


def _activation(name: str) -> nn.Module:
    from torch import nn
    from torch.nn.modules import activation

    kind = nn.Identity if name == PLAIN else getattr(activation, name, None)
    if not isinstance(kind, type) or not issubclass(kind, nn.Module):
        raise CheckpointError(f"the projection's activation function {name!r} is none of torch's")
    module: nn.Module = kind()
    return module


def _stored(projections: Sequence[Projection]) -> dict[str, str]:
    """Parameter of the joined model -> tensor of the checkpoint."""
    places: dict[str, str] = {}
    for index, entry in enumerate(projections):
        names = ["linear.weight"] + ["linear.bias"] * entry.bias
        names += ["residual.weight"] * (entry.residual and entry.inputs != entry.outputs)
        places |= {f"projections.{index}.{name}": f"{entry.prefix}{name}" for name in names}
    return places
