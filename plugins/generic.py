"""Any other class of transformers, or of a checkpoint's own code: called as it is, its axes found by calling it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter import (
    Architecture,
    Component,
    DummyInputs,
    Size,
    StandIn,
    TransformersModel,
    Variant,
    hookimpl,
)
from converter.checkpoints.own_code import code_files
from converter.errors import ExportError, UsageError
from converter.plugins._auto_classes import TASKS, WITH_PAST, known_classes, named_class
from converter.plugins._causal import Causal, causal_component, causal_scenarios, probed
from converter.plugins._experts import products_by_group
from converter.plugins._exporters import exporter_patches, exporter_translations
from converter.plugins._layouts import draw
from converter.plugins._positions import without_memory
from converter.plugins._probe import Plan, Prober, UnreadableError
from converter.plugins._shrink import smaller, without_timm

if TYPE_CHECKING:
    import torch
    from torch import nn

    from converter.records import Checkpoint
    from converter.scenario import Scenario

CLASSIFIES = "text-classification"
# A model of fewer parameters is called as it is; a larger one with parameters that have shapes and no values.
REAL_PARAMETERS = 20_000_000
# A small checkpoint has no more of them than this, whatever its config leaves at its usual size.
SMALL_PARAMETERS = 60_000_000
# Entries of models that put features of images or sounds where tokens stand. How many tokens go with an image is
# known to nobody but the model's processor.
PLACEHOLDERS = (
    "image_token_id",
    "image_token_index",
    "audio_token_id",
    "audio_token_index",
    "video_token_id",
)

# What these types do row by row in Python, by values of their inputs: a trace follows it for the traced rows alone.
BY_VALUES = {"udop": "keeps of each image the patches in which no text stands"}


@dataclass(frozen=True)
class GenericModel(TransformersModel):
    """A class found through the Auto classes, of transformers or (`own_code`) of the checkpoint's own files.

    `depth` is that of the small checkpoints it writes.
    """

    own_code: bool = False
    depth: int = 2

    def write_tiny(self, folder: Path, *, like: Any | None, seed: int, task: str) -> None:
        """As small as the model bears: widths as well, or the depth alone where its widths hang together otherwise."""
        from converter.seeding import seed_weights

        base = self._default() if like is None else like
        check_signature(base)
        refusal: Exception | None = None
        for entries in smaller(base.to_dict(), depth=self.depth):
            try:
                config = type(base).from_dict(entries)
                config.architectures = []
                if task == CLASSIFIES and getattr(config, "pad_token_id", 0) is None:
                    config.pad_token_id = 0  # classifiers over decoders look for where a text ends
                config._name_or_path = getattr(base, "_name_or_path", "")
                check_size(self, config, task)
                model: Any = self._build(config, task).eval()
                _ = probed(model, config, None) if task == WITH_PAST else Prober(model, config).plan()
            except UnreadableError:  # no size makes its inputs' names say more
                raise
            except _LargeError as error:  # what a smaller one was refused for tells more
                refusal = refusal or error
                continue
            except Exception as error:  # constructors raise anything at a config that does not hang together
                # What the model itself refuses tells more than a config that was shrunk into one it is not.
                refusal = error if refusal is None or isinstance(error, ExportError) else refusal
                continue
            seed_weights(model, seed)
            if self.own_code:
                model._auto_class = self.classes[task]  # saves the code beside the weights
            model.save_pretrained(folder)
            return
        raise ExportError(
            f"no small {self.model_type} model could be made: {refusal}", remedy="convert a real checkpoint"
        )

    def _default(self) -> Any:
        from transformers import CONFIG_MAPPING

        if self.model_type not in CONFIG_MAPPING:
            raise UsageError(
                f"--tiny cannot make a {self.model_type}: transformers has no config of that type",
                remedy="convert a checkpoint, with --model",
            )
        return without_timm(CONFIG_MAPPING[self.model_type]())

    def _build(self, config: Any, task: str) -> nn.Module:
        if not self.own_code:
            return super()._build(config, task)
        import torch
        import transformers

        factory = getattr(transformers, self.classes[task])
        model: nn.Module = factory.from_config(config, dtype=torch.float32, trust_remote_code=True)
        return model

    def _class(self, config: Any, task: str, *, missing_ok: bool = False) -> str | None:
        if self.own_code:
            return str(config.auto_map[self.classes[task]]).rpartition(".")[2]
        return super()._class(config, task, missing_ok=missing_ok)


class _LargeError(ExportError):
    """A small checkpoint that would not be small."""


def check_size(source: GenericModel, config: Any, task: str) -> None:
    """Raise for a config that is still a large model's."""
    from converter.tracing.skeleton import weightless

    with weightless():
        model = source.skeleton(config, task)
    count = sum(parameter.numel() for parameter in model.parameters())
    if count > SMALL_PARAMETERS:
        raise _LargeError(f"with its layers cut it has {count / 1e6:.0f} million parameters")


def check_signature(config: Any) -> None:
    """Raise ExportError for models whose inputs depend on each other in ways no signature or no trace tells."""
    entry = next((name for name in PLACEHOLDERS if getattr(config, name, None) is not None), None)
    if entry is not None:
        raise ExportError(
            f"{config.model_type} puts features in place of tokens (its config has {entry}), in ways its forward does"
            " not tell",
            remedy="it needs a plugin of its own; docs/plugins.md shows how to write one",
        )
    if config.model_type in BY_VALUES:
        raise ExportError(
            f"{config.model_type} {BY_VALUES[config.model_type]}, row by row, which a graph traced as it is cannot",
            remedy="it needs a plugin whose wrapper restates this; docs/plugins.md shows how to write one",
        )


def plan_for(source: GenericModel, config: Any, task: str) -> Plan | Causal:
    """How the model of this config is called. Found once for each config in a process: it takes a model to find out."""
    check_signature(config)
    key = (source.model_type, source.own_code, task, config.to_json_string(use_diff=False))
    if key not in _PLANS:
        _PLANS[key] = _probe(source, config, task)
    return _PLANS[key]


_PLANS: dict[tuple[str, bool, str, str], Plan | Causal] = {}


def _probe(source: GenericModel, config: Any, task: str) -> Plan | Causal:
    from converter.tracing.skeleton import weightless
    from converter.wrappers.positions import memoryless

    mode: Any
    with weightless() as mode:
        model = source.skeleton(config, task)
    if sum(parameter.numel() for parameter in model.parameters()) <= REAL_PARAMETERS:
        model, mode = source._build(config, task).eval(), None
    with memoryless(model), products_by_group():
        return probed(model, config, mode) if task == WITH_PAST else Prober(model, config, mode).plan()


def _inputs(plan: Plan, size: Size) -> DummyInputs:
    made = draw(plan.inputs, plan.units, size)
    valid = {name: made.tensors[mask].bool() for name, mask in plan.masked.items()}
    return replace(made, valid=valid)


def _wrapper(plan: Plan, model: nn.Module) -> nn.Module:
    from converter.wrappers.generic import NamedFields

    return NamedFields(model, tuple(output.name for output in plan.outputs), plan.options)


def _reference(plan: Plan, model: nn.Module, tensors: Any) -> Mapping[str, torch.Tensor]:
    from converter.wrappers.generic import tensors_of

    return tensors_of(model(**tensors, **plan.options))


def _components(source: GenericModel, config: Any, task: str) -> Sequence[Component]:
    plan = plan_for(source, config, task)
    if isinstance(plan, Causal):
        return (without_memory(causal_component(plan)),)
    component = Component(
        stem="model",
        wrapper=partial(_wrapper, plan),
        inputs=partial(_inputs, plan),
        reference=partial(_reference, plan),
        axes=plan.axes,
        outputs=plan.outputs,
    )
    return (without_memory(component),)


def _scenarios(source: GenericModel, config: Any, task: str) -> Sequence[Scenario]:
    plan = plan_for(source, config, task) if task == WITH_PAST else None
    return causal_scenarios(plan) if isinstance(plan, Causal) else ()


def architecture_for(model_type: str, checkpoint: Checkpoint | None) -> Architecture | None:
    """The architecture of a type that transformers knows, or whose code lies in the checkpoint and is trusted."""
    if find_spec("transformers") is None:
        return None
    entries = {} if checkpoint is None else checkpoint.config
    code = entries.get("auto_map") or {}
    if checkpoint is not None and checkpoint.trust_remote_code and code:
        classes = {task: factory for task, factory in TASKS.items() if factory in code}
        return _architecture(model_type, classes, own_code=True) if classes else None
    classes = named_class(model_type, entries) or known_classes(model_type)
    if not classes and code and checkpoint is not None:
        files = ", ".join(code_files(entries))
        raise UsageError(
            f"{checkpoint.source} brings its own code ({files}), which converting it would run",
            remedy="read it, then add --trust-remote-code",
            topic="remote-code",
        )
    return _architecture(model_type, classes, own_code=False) if classes else None


def model_types() -> Sequence[str]:
    if find_spec("transformers") is None:
        return ()
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return tuple(CONFIG_MAPPING_NAMES)


def _architecture(model_type: str, classes: Mapping[str, str], *, own_code: bool) -> Architecture:
    source = GenericModel(classes=classes, tiny={}, model_type=model_type, own_code=own_code)
    variants = (Variant("model", ("model",), "the model's own inputs and outputs, found by calling it"),)
    return Architecture(
        name=re.sub(r"\W", "_", model_type),
        model_types=(model_type,),
        summary="the checkpoint's own code"
        if own_code
        else "no plugin of its own: called as transformers has it",
        reference_checkpoint="",
        source=source,
        components=partial(_components, source),
        scenarios=partial(_scenarios, source),
        variants=dict.fromkeys(classes, variants),
        patches=exporter_patches,
        translations=exporter_translations,
    )


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    register(
        replace(
            _architecture("generic", TASKS, own_code=False),
            model_types=(),
            summary="any other class of transformers, or of a checkpoint's own code",
            stand_in=StandIn(architecture_for, model_types),
        )
    )
