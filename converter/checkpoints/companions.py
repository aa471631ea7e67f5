"""The files of a checkpoint: which go along with the weights, which are the weights, and copying them."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from converter.card.front_matter import CARD, SOURCE_CARD
from converter.errors import CheckpointError
from converter.json_files import object_or_empty
from converter.paths import stays_inside
from converter.sentence_modules import dense_weights, lift_encoder

_SUFFIXES = {".json", ".txt", ".jinja", ".model", ".vocab", ".spm", ".bpe", ".codes", ".tiktoken"}
_LEGAL = re.compile(r"(licen[cs]e|notice|copying|use_policy)([._-].*)?(\.(md|txt|rst))?", re.IGNORECASE)
# What training, indexing and packaging leave in a checkpoint; none of it helps to run the model.
_OTHER = re.compile(
    r".*\.index\.json|trainer_state\.json|training_args.*|optimizer.*|scheduler.*|rng_state.*|.*_results\.json"
    r"|requirements.*\.txt|data_config\.json|similarity_evaluation.*|adapter_config\.json|converter\.json|latest"
)
# sentence-transformers numbers its modules (1_Pooling); transformers keeps further chat templates in their
# own folder.
_SUBFOLDERS = re.compile(r"\d+_\w+|additional_chat_templates")
_ENCODER_FOLDER = re.compile(r"^0_\w+/")
_LARGEST = 128 * 2**20  # bytes; the largest tokenizer.json known is a quarter of it
_SAFETENSORS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")
_PICKLE = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
_DENSE = re.compile(r"\d+_\w+/model\.safetensors")  # a sentence-transformers module with weights of its own
_TOKENIZER = re.compile(r"tokenizer.*|vocab\..*|.*\.(model|spm|tiktoken|bpe|codes)|merges\.txt")
_PROCESSOR = {"preprocessor_config.json", "processor_config.json", "image_processor_config.json"}


def is_companion(name: str) -> bool:
    """Whether a file of a checkpoint, by its POSIX path in it, goes into a package: no weights, no code."""
    path = PurePosixPath(name)
    if len(path.parts) > 2 or any(part.startswith(".") for part in path.parts):
        return False
    if len(path.parts) == 2 and not _SUBFOLDERS.fullmatch(path.parts[0]):
        return False
    if _LEGAL.fullmatch(path.name) and path.suffix != ".py":
        return True
    if name == "artifact.metadata":  # ColBERT's settings
        return True
    return path.suffix.lower() in _SUFFIXES and not _OTHER.fullmatch(path.name)


def choose_files(names: Sequence[str]) -> list[str]:
    """What is worth having of a checkpoint: companions, its card, code, and the weights, once."""
    top = {name for name in names if "/" not in name}
    weights, index = {name for name in top if _SAFETENSORS.fullmatch(name)}, "model.safetensors.index.json"
    weights = weights or {name for name in top if name.endswith(".safetensors")}
    if not weights:
        weights, index = {name for name in top if _PICKLE.fullmatch(name)}, "pytorch_model.bin.index.json"
    code = {name for name in top if name.endswith(".py")}
    dense = {name for name in names if _DENSE.fullmatch(name)}
    if not weights and not any(map(_ENCODER_FOLDER.match, dense)):
        weights = {name for name in names if _ENCODER_FOLDER.match(name) and is_pickle(name)}
    others = {index, CARD, "adapter_config.json"} & top
    return sorted({*weights, *dense, *code, *filter(is_companion, names), *others})


def is_weight(name: str) -> bool:
    return name.endswith(".safetensors") or is_pickle(name)


def is_pickle(name: str) -> bool:
    return _PICKLE.fullmatch(_ENCODER_FOLDER.sub("", name)) is not None


def check_weights(names: Sequence[str], source: str, *, allow_pickle: bool) -> None:
    """Raise CheckpointError when the files of a checkpoint hold no weights, or none that may be read."""
    if not any(map(is_weight, names)):
        raise CheckpointError(
            f"{source} has neither safetensors nor pytorch_model.bin at its top level",
            remedy="choose a checkpoint made for transformers",
        )
    if any(map(is_pickle, names)) and not allow_pickle:
        raise CheckpointError(
            f"{source} has no safetensors, only pickled weights, which can run code when they are loaded",
            remedy=f"--allow-pickle reads weights only; `converter download {source}` converts it",
        )


def copy_companions(
    checkpoint: Path, package: Path, *, over: Path | None = None, inner: Path | None = None
) -> tuple[list[str], list[str]]:
    """Copy config, tokenizer, processor and licence files, and the card as SOURCE_README.md.

    Returns the names that were copied and notes on what is not. Files of the folder `over`, an adapter's, take the
    place of the checkpoint's; those of `inner`, a transformer's own folder in it, come to the top, where clients look.
    A link is followed only within its folder or into the blobs of its hub cache; its content becomes a file.
    """
    copied, notes = _copy_from(checkpoint, package, leave=None if inner is None else inner.name)
    for folder in filter(None, (inner, over)):
        others, more = _copy_from(folder, package)
        copied, notes = sorted({*copied, *others}), [*notes, *more]
    if inner is not None:
        lift_encoder(package, inner.name)  # in modules.json
    return copied, notes + _absences(checkpoint, copied)


def _copy_from(folder: Path, package: Path, *, leave: str | None = None) -> tuple[list[str], list[str]]:
    """All companions but those in the folder `leave`, and what sentence-transformers computes behind the graph."""
    copied: list[str] = []
    notes: list[str] = []
    wanted = {CARD, *dense_weights(folder)}
    for name in list_files(folder):
        if (not is_companion(name) and name not in wanted) or name.partition("/")[0] == leave:
            continue
        source = folder / name
        if not stays_inside(source, folder):
            notes.append(f"{name} is a link that leaves the checkpoint: not copied")
        elif source.stat().st_size > _LARGEST:
            notes.append(f"{name} is larger than {_LARGEST >> 20} MiB: not copied")
        else:
            copy_file(source, package / (SOURCE_CARD if name == CARD else name))
            copied.append(SOURCE_CARD if name == CARD else name)
    return copied, notes


def list_files(folder: Path) -> list[str]:
    """POSIX paths of the files at the top of a folder and one level below, sorted."""
    found = [path for pattern in ("*", "*/*") for path in folder.glob(pattern) if path.is_file()]
    return sorted(path.relative_to(folder).as_posix() for path in found)


def copy_file(source: Path, target: Path) -> None:
    """The content only: neither links nor modes nor times."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _absences(checkpoint: Path, copied: Iterable[str]) -> list[str]:
    # sentence-transformers may keep the encoder, and what belongs to it, in `0_Transformer`.
    names = {_ENCODER_FOLDER.sub("", name) for name in copied}
    notes = [] if "config.json" in names else ["the checkpoint has no config.json"]
    config = object_or_empty(checkpoint / "config.json")
    if _reads_tokens(config) and not any(_TOKENIZER.fullmatch(name) for name in names):
        notes.append("the checkpoint has no tokenizer files")
    if _sees_images(config) and not names & _PROCESSOR:
        notes.append("the checkpoint has no processor files")
    return notes


def _reads_tokens(config: Mapping[str, Any]) -> bool:
    parts = (part for part in config.values() if isinstance(part, Mapping))
    return "vocab_size" in config or any("vocab_size" in part for part in parts)


def _sees_images(config: Mapping[str, Any]) -> bool:
    return any("vision_config" in key or key == "image_size" for key in config)
