"""Where models come from. `TransformersModel` serves every class of transformers, the built-in plugins' and others'."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter.checkpoints.quantized import ENTRIES, is_layered, rounded_on_loading
from converter.errors import CheckpointError, ConfigError, UsageError
from converter.records import Checkpoint

if TYPE_CHECKING:
    from torch import nn

    from converter.recipes import WeightRecipe


# What constructors raise at a config whose entries do not fit each other.
NOT_BUILT = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
)
# Entries that count layers. A negative count is an empty range: a model without layers is built and nothing complains.
LAYERS = re.compile(r"(num|n)_(.*_)?layers?|(encoder|decoder)_layers|depth")


@dataclass(frozen=True)
class TransformersModel:
    """A model class of transformers, or an Auto class that picks one.

    classes     task -> name of the class in transformers, e.g. {"fill-mask": "AutoModelForMaskedLM"}
    tiny        overrides, nested like the config, that make it a two-layer one with small odd sizes; None removes a key
    model_type  whose default config `--tiny` starts from
    """

    classes: Mapping[str, str]
    tiny: Mapping[str, Any]
    model_type: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def config(self, checkpoint: Checkpoint) -> Any:
        from huggingface_hub.errors import StrictDataclassError
        from transformers import AutoConfig

        check_counts(checkpoint.config, checkpoint.source)
        try:
            config = AutoConfig.from_pretrained(
                checkpoint.folder, trust_remote_code=checkpoint.trust_remote_code, local_files_only=True
            )
        except (ValueError, OSError, KeyError, TypeError, AttributeError, StrictDataclassError) as error:
            raise ConfigError(
                f"{checkpoint.source}: transformers cannot read its config.json: {error}",
                remedy="fix the entry it names; a checkpoint with code of its own needs --trust-remote-code",
            ) from error
        except Exception as error:  # of the hub's client, which changes: its errors share no base
            # transformers asks the hub about a backbone that has no config here, local files or not.
            named = checkpoint.config.get("backbone")
            if not isinstance(named, str):
                raise
            raise CheckpointError(
                f"{checkpoint.source}: its config.json names a backbone, {named!r}, without that one's config, and the"
                f" hub cannot be asked for it: {error}",
                remedy='put the backbone\'s config into it, as "backbone_config", or run where the hub can be reached',
            ) from error
        if rounded_on_loading(checkpoint.config):
            take_whole(config)
        return config

    def default_task(self, checkpoint: Checkpoint) -> str:
        """See `converter.checkpoints.detection`. Raises AmbiguousError where the checkpoint does not tell."""
        from converter.checkpoints.detection import detect_task

        return detect_task(checkpoint, self.class_names(checkpoint), self.strangers(checkpoint))

    def class_names(self, checkpoint: Checkpoint) -> dict[str, str | None]:
        """Task -> the name of its class for this checkpoint, None where transformers has none."""
        config = self.config(checkpoint)
        return {task: self._class(config, task, missing_ok=True) for task in self.classes}

    def strangers(self, checkpoint: Checkpoint) -> list[str]:
        """The classes that config.json names, if they are transformers' own for this type and none is a task's.

        A type's bare model is everybody's: heads were put on it, and it is in all of them.
        """
        import transformers

        kind, named = type(self.config(checkpoint)), checkpoint.config.get("architectures") or ()
        bare: Any = transformers.MODEL_MAPPING.get(kind, ())
        ours = {*self.class_names(checkpoint).values()}
        ours |= {entry.__name__ for entry in (bare if isinstance(bare, tuple) else (bare,))}
        classes = [getattr(transformers, str(name), None) for name in named if name not in ours]
        own = [entry for entry in classes if getattr(entry, "config_class", None) is kind]
        return list(map(str, named)) if len(own) == len(named) else []

    def skeleton(self, config: Any, task: str) -> nn.Module:
        from transformers import initialization

        from converter.tracing.quantized_layers import place_layers

        # Initialising looks at values, which fake parameters have none of. Tying is part of it and is still wanted.
        try:
            with initialization.no_init_weights():
                model: Any = self._build(copy.deepcopy(config), task)
        except ImportError as error:  # some models need libraries besides: scipy, timm
            raise UsageError(str(error).strip(), remedy="install what it names, and run again") from error
        except NOT_BUILT as error:
            raise ConfigError(
                f"transformers builds no {config.model_type} model of this config: {error}",
                remedy="mend the entries of its config.json that do not fit each other",
            ) from error
        place_layers(model)
        model.tie_weights()
        skeleton: nn.Module = model.eval()
        return skeleton

    def original(self, checkpoint: Checkpoint, task: str, offload: Path | None) -> nn.Module:
        from converter.adapted import attach_adapter

        model = self.loaded(checkpoint, task, offload)
        attach_adapter(model, checkpoint)
        return model

    def loaded(self, checkpoint: Checkpoint, task: str, offload: Path | None) -> nn.Module:
        """The model as `from_pretrained` loads it, without the checkpoint's adapter."""
        import torch
        import transformers

        from converter.tracing.quantized_layers import run_as_written

        placement: dict[str, Any] = {}
        if offload is not None:
            placement = {"device_map": {"": "disk"}, "offload_folder": str(offload)}
        if rounded_on_loading(checkpoint.config):
            placement["config"] = self.config(checkpoint)
        model = getattr(transformers, self.classes[task]).from_pretrained(
            checkpoint.folder,
            dtype=torch.float32,
            local_files_only=True,
            trust_remote_code=checkpoint.trust_remote_code,
            **self.options,
            **placement,
        )
        if is_layered(checkpoint.config):
            run_as_written()
        loaded: nn.Module = model.eval()
        call_odd_experts_alone(loaded)
        return loaded

    def key_mapping(self, model: nn.Module, checkpoint: Checkpoint) -> Mapping[str, WeightRecipe]:
        from converter.tracing.conversions import recipes_for

        return recipes_for(model, checkpoint)

    def write_tiny(self, folder: Path, *, like: Any | None, seed: int, task: str) -> None:
        from transformers import CONFIG_MAPPING

        from converter.seeding import seed_weights
        from converter.tracing.quantized_layers import packed_state, place_layers

        base = CONFIG_MAPPING[self.model_type]() if like is None else like
        config = self.shrunk(base)
        # Where a task has several classes, Auto classes look for theirs here, and cannot bear None.
        config.architectures = config.architectures or []
        model: Any = self._build(config, task)
        place_layers(model)
        seed_weights(model, seed)
        model.save_pretrained(folder, state_dict=packed_state(model))

    def shrunk(self, base: Any) -> Any:
        """A small config of the same kind."""
        return type(base).from_dict(merged(base.to_dict(), self.tiny))

    def _build(self, config: Any, task: str) -> nn.Module:
        import torch
        import transformers

        factory = getattr(transformers, self.classes[task])
        build = getattr(factory, "_from_config", None) or factory.from_config
        model: nn.Module = build(config, dtype=torch.float32, **self.options)
        return model

    def _class(self, config: Any, task: str, *, missing_ok: bool = False) -> str | None:
        """The concrete class name behind a task, for this config."""
        import transformers

        if task not in self.classes:
            raise UsageError(
                f"there is no task {task!r} here",
                remedy=f"choose one of {', '.join(self.classes)}",
                topic="task",
            )
        factory = getattr(transformers, self.classes[task])
        mapping = getattr(factory, "_model_mapping", None)
        if mapping is None:
            return str(factory.__name__)
        if type(config) not in mapping:
            if missing_ok:
                return None
            raise UsageError(
                f"{type(config).__name__} has no class for {task!r} in transformers", topic="task"
            )
        found = mapping[type(config)]
        classes = [entry.__name__ for entry in (found if isinstance(found, tuple) else (found,))]
        # Of several, transformers builds the one that config.json names: DeiT's with a teacher.
        named = getattr(config, "architectures", None) or ()
        return str(next((name for name in classes if name in named), classes[0]))


def call_odd_experts_alone(model: Any) -> None:
    """Call experts one after the other where torch's product of all at once, transformers' default, refuses them.

    It wants rows of whole 16 bytes, as of torch 2.13: experts of an odd width run in no other way on a CPU.
    """
    stacked = [parameter for parameter in model.parameters() if parameter.dim() == 3]
    odd = any(4 * size % 16 for parameter in stacked for size in parameter.shape[1:])
    # Asked of the classes as transformers does: a model without experts cannot be told how to call them.
    if odd and any(getattr(part, "_can_set_experts_implementation", bool)() for part in model.modules()):
        model.set_experts_implementation("eager")


def take_whole(config: Any) -> None:
    """Take out of a config, and those in it, that weights are to be quantized on loading."""
    entries = vars(config)
    for name in ENTRIES:
        entries.pop(name, None)
    for part in entries.values():
        if hasattr(part, "to_dict"):
            take_whole(part)


def check_counts(entries: Mapping[str, Any], source: str) -> None:
    """Raise ConfigError for counts in a config.json, or in a config in it, that no model has, though one is built.

    Fewer than no layers, and heads that share keys in groups of no whole number.
    """
    heads, shared = entries.get("num_attention_heads"), entries.get("num_key_value_heads")
    if type(heads) is type(shared) is int and shared > 0 and heads % shared:
        raise ConfigError(
            f"{source}: its config.json gives {heads} num_attention_heads to {shared} num_key_value_heads",
            remedy="the first is a multiple of the second",
        )
    for name, value in entries.items():
        if isinstance(value, Mapping):
            check_counts(value, source)
        elif type(value) is int and value < 0 and LAYERS.fullmatch(name):
            raise ConfigError(
                f"{source}: its config.json says {name}: {value}", remedy="no model has fewer than 0 layers"
            )


def merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `overrides` applied at every depth; an override of None removes the key."""
    result = dict(base)
    for key, value in overrides.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result
