"""What a request asks for: its checkpoint, architecture, task and variants."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from converter.checkpoints.detection import own_name
from converter.errors import AmbiguousError, UsageError
from converter.records import Architecture, Checkpoint, Variant
from converter.sentence_modules import embeds
from converter.text import did_you_mean

if TYPE_CHECKING:
    from converter.registry import Registry
    from converter.request import ConversionRequest


def find_source(
    request: ConversionRequest, registry: Registry, scratch: Path
) -> tuple[Architecture, Checkpoint]:
    """The architecture and the opened checkpoint. `scratch` takes a checkpoint that has to be made first."""
    from converter.checkpoints.download import resolve_model
    from converter.checkpoints.opening import open_source

    if request.tiny:
        return _tiny(request, registry, scratch)
    named = None if request.arch == "auto" else registry.known(request.arch)
    if request.arch != "auto" and named is None and not request.trust_remote_code:
        named = registry.find(request.arch)
    if named is None and request.model is None:
        raise UsageError(
            "nothing to convert: neither a model nor an architecture is given",
            remedy="name a checkpoint with --model PATH, or an architecture with --arch (`converter list` shows them)",
        )
    reference = "" if named is None else named.reference_checkpoint
    folder, source, revision = resolve_model(
        request.model,
        reference=reference,
        revision=request.revision,
        token=request.token,
        cache_dir=request.cache_dir,
        allow_pickle=request.allow_pickle,
    )
    opener, opened = _opened(request, registry, named, folder)
    if opened is None:
        opened = open_source(request, folder, source)
    checkpoint = replace(
        opened, source=source, revision=revision, trust_remote_code=request.trust_remote_code
    )
    return opener or owner(registry, named, checkpoint), checkpoint


def _opened(
    request: ConversionRequest, registry: Registry, named: Architecture | None, folder: Path
) -> tuple[Architecture | None, Checkpoint | None]:
    """The architecture that opens the folder in its own way, and what it opened. One that is named is asked alone."""
    from converter.checkpoint import open_as

    openers = registry.architectures.values() if named is None else [named]
    opened = [(entry, found) for entry in openers if (found := open_as(entry, folder, request.allow_pickle))]
    if len(opened) > 1:
        names = [entry.name for entry, _ in opened]
        raise AmbiguousError(
            f"{folder.name} is a checkpoint of {' and of '.join(names)}", option="arch", choices=names
        )
    return opened[0] if opened else (None, None)


def owner(registry: Registry, named: Architecture | None, checkpoint: Checkpoint) -> Architecture:
    """The architecture of a checkpoint that is laid out as transformers does it."""
    model_type = checkpoint.config.get("model_type")
    if named is None:
        return _detected(registry, checkpoint, model_type)
    # One that stands in was found by its name; the checkpoint may be of another class.
    if named.stand_in is not None or registry.known(named.name) is None:
        return _stand_in(registry, checkpoint, model_type)
    if named.recognizes(checkpoint):
        return named
    if named.opens is not None and not named.model_types:
        raise UsageError(
            f"{checkpoint.source} is not laid out as checkpoints of architecture {named.name!r} are",
            remedy="leave --arch out to have the architecture found from the folder",
        )
    if model_type is not None and model_type not in named.model_types:
        raise UsageError(
            f"{checkpoint.source} is of model type {model_type!r}, which architecture {named.name!r} does not own",
            remedy=f"it takes {', '.join(named.model_types)}; leave --arch out to have it found from config.json",
        )
    return named


def _tiny(request: ConversionRequest, registry: Registry, scratch: Path) -> tuple[Architecture, Checkpoint]:
    from converter.checkpoint import open_for

    if request.arch == "auto":
        raise UsageError(
            "--tiny makes a checkpoint of an architecture, but none is given", remedy="add --arch NAME"
        )
    if request.model is not None:
        raise UsageError(
            "--tiny makes its own checkpoint; it cannot be given with --model", remedy="leave one out"
        )
    architecture = registry.find(request.arch)
    task = own_name(request.task or architecture.tasks[0], architecture.tasks)
    check_task(task, architecture)
    folder = scratch / f"{architecture.name}-tiny"
    architecture.source.write_tiny(folder, like=None, seed=request.seed, task=task)
    return architecture, replace(open_for(architecture, folder), source=folder.name)


def _detected(registry: Registry, checkpoint: Checkpoint, model_type: object) -> Architecture:
    """The architecture that recognizes the checkpoint, or owns its model type; for code of its own, the stand-in."""
    claims = [entry for entry in registry.architectures.values() if entry.recognizes(checkpoint)]
    if len(claims) > 1:
        raise UsageError(
            f"{checkpoint.source} may be a checkpoint of {' or of '.join(entry.name for entry in claims)}",
            remedy="choose one with --arch",
        )
    if claims:
        return claims[0]
    if model_type is None and "pretrained_cfg" in checkpoint.config:
        raise UsageError(
            f"{checkpoint.source} is a checkpoint of timm, whose weights have other names than those of transformers",
            remedy="convert transformers' own checkpoint of that model",
            topic="architecture",
        )
    if not isinstance(model_type, str):
        raise UsageError(
            f"{checkpoint.source}: config.json names no model_type, so the architecture cannot be determined",
            remedy="name it with --arch (`converter list` shows the choices)",
            topic="architecture",
        )
    own_code = checkpoint.trust_remote_code and checkpoint.config.get("auto_map")
    found = registry.stand_in(model_type, checkpoint) if own_code else None
    return found or registry.find(model_type, checkpoint)


def _stand_in(registry: Registry, checkpoint: Checkpoint, model_type: object) -> Architecture:
    found = registry.stand_in(str(model_type), checkpoint)
    if found is None:
        raise UsageError(
            f"{checkpoint.source}: transformers has no class for its model type {model_type!r}",
            topic="architecture",
        )
    return found


def settle_task(
    asked: str | None, architecture: Architecture, checkpoint: Checkpoint, registry: Registry
) -> tuple[Architecture, str]:
    """Who makes the graphs, and for which task.

    A model type's architecture need not have every head of it: a classifier over BART is not an encoder-decoder. Where
    config.json names a class that only the stand-in has a task for, that is meant.
    """
    if asked is None or own_name(asked, architecture.tasks) not in architecture.tasks:
        other = _other_head(architecture, checkpoint, registry)
        if other is not None and (asked is None or own_name(asked, other.tasks) in other.tasks):
            return other, choose_task(asked, other, checkpoint)
    return architecture, choose_task(asked, architecture, checkpoint)


def _other_head(
    architecture: Architecture, checkpoint: Checkpoint, registry: Registry
) -> Architecture | None:
    """The stand-in, if config.json names one of its heads and none of the architecture's classes."""
    from converter.registration.extension import SourceByTask
    from converter.sources import TransformersModel

    config, source = checkpoint.config, architecture.source
    source = source.base if isinstance(source, SourceByTask) else source
    named = set(map(str, config.get("architectures") or ()))
    own_code = bool(config.get("auto_map"))
    if not named or embeds(checkpoint.root) or own_code or not isinstance(source, TransformersModel):
        return None
    if named & set(source.class_names(checkpoint).values()):
        return None
    other = registry.stand_in(str(config.get("model_type")), checkpoint)
    if other is None or not isinstance(other.source, TransformersModel):
        return None
    # Without a head, the body of a model is what its architecture says it is. A tower with its projection, which
    # stands under its own name where others have an Auto class, is more than a body.
    kinds, bodies = other.source.classes, ("feature-extraction",)
    heads = {
        name
        for task, name in other.source.class_names(checkpoint).items()
        if task not in bodies or kinds[task] == name
    }
    return other if named & heads else None


def choose_task(asked: str | None, architecture: Architecture, checkpoint: Checkpoint) -> str:
    """The task asked for, or the one the checkpoint was made for."""
    task = own_name(asked, architecture.tasks) if asked else architecture.source.default_task(checkpoint)
    check_task(task, architecture)
    return task


def check_task(task: str, architecture: Architecture) -> None:
    """Raise UsageError, with near misses, for a task that the architecture does not have."""
    if task not in architecture.tasks:
        raise UsageError(
            f"architecture {architecture.name!r} has no task {task!r}{did_you_mean(task, architecture.tasks)}",
            remedy=f"choose --task from {', '.join(architecture.tasks)}",
            topic="task",
        )


def choose_variants(asked: Sequence[str], architecture: Architecture, task: str) -> tuple[Variant, ...]:
    """The variants asked for, in declared order; all of them where none is named."""
    declared = {variant.name: variant for variant in architecture.variants[task]}
    unknown = [name for name in asked if name not in declared]
    if unknown:
        raise UsageError(
            f"architecture {architecture.name!r} has no variant {unknown[0]!r}{did_you_mean(unknown[0], declared)}",
            remedy=f"choose --variants from {', '.join(declared)}",
        )
    return tuple(variant for name, variant in declared.items() if not asked or name in asked)
