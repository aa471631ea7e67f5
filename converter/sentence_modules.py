"""The modules of a sentence-transformers checkpoint: what modules.json lists, and weights in folders of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from converter.errors import CheckpointError
from converter.json_files import DOWNLOAD_AGAIN, check_inside, object_or_empty, read_list, read_object
from converter.records import TensorInfo

LIST = "modules.json"
# The settings of a Transformer, called sentence_bert_config.json and after other types.
SETTINGS = "sentence_*_config.json"
EMBEDDING = ("feature-extraction", "retrieval")
MASKED = "MLMTransformer"


@dataclass(frozen=True)
class SentenceModule:
    """An entry of a sentence-transformers checkpoint's modules.json: its class, folder and that folder's config.json.

    Weights of the folder are among the checkpoint's tensors, as `<path>.<name>`: `1_Dense.linear.weight`.
    """

    kind: str
    path: str
    config: Mapping[str, Any]


def read_modules(folder: Path) -> tuple[SentenceModule, ...]:
    """The entries of modules.json in order; nothing where there is none. Raises CheckpointError if it is damaged."""
    if not (folder / LIST).is_file():
        return ()
    return tuple(_module(folder, entry) for entry in read_list(folder / LIST))


def _module(folder: Path, entry: Any) -> SentenceModule:
    kind, path = (entry.get(key) if isinstance(entry, dict) else None for key in ("type", "path"))
    if not isinstance(kind, str) or not isinstance(path, str):
        raise CheckpointError(
            f"{folder / LIST} has an entry without type and path: {entry}", remedy=DOWNLOAD_AGAIN
        )
    if path:
        check_inside(path, LIST)
    config = folder / path / "config.json"
    settings = read_object(config) if path and config.is_file() else {}
    return SentenceModule(kind.rpartition(".")[2], path, settings)


def embeds(folder: Path) -> bool:
    """Whether modules.json lists what embeds: not a reranker, nor an encoder of sparse vectors.

    Newer releases write those as modules too, with the transformer's task among its settings; older ones call a
    transformer with a masked language model's head MLMTransformer.
    """
    first = next(iter(read_modules(folder)), None)
    if first is None:
        return (folder / LIST).is_file()
    files = sorted((folder / first.path).glob(SETTINGS))
    tasks = (object_or_empty(file).get("transformer_task") for file in files)
    return first.kind != MASKED and next(filter(None, tasks), EMBEDDING[0]) in EMBEDDING


def left_to_clients(folder: Path) -> tuple[str, ...]:
    """A note on what follows a transformer that does not embed: it is in no graph."""
    behind = [] if embeds(folder) else [module.kind for module in read_modules(folder)[1:]]
    if not behind:
        return ()
    return (
        f"modules.json lists {', '.join(behind)} behind the transformer, in no graph: clients compute it",
    )


def encoder_folder(folder: Path, modules: Sequence[SentenceModule]) -> Path:
    """Where config.json, weights and tokenizer lie: at the top, or as in 2020 in the transformer's own folder."""
    if (folder / "config.json").is_file():
        return folder
    nested = (
        module.path for module in modules if module.kind == "Transformer" and "model_type" in module.config
    )
    return folder / next(nested, "")


def check_transformer(folder: Path, inner: Path, modules: Sequence[SentenceModule]) -> None:
    """Raise CheckpointError where modules.json lists modules, but none that is a transformer with a config.json."""
    if not modules or (inner / "config.json").is_file():
        return
    within = [module.path for module in modules if "model_type" in module.config]
    raise CheckpointError(
        f"{folder}/{LIST} lists {', '.join(module.kind for module in modules)}, and no Transformer with a config.json",
        remedy=f"name the model inside: --model {folder / within[0]}"
        if within
        else "only transformers become graphs; where one is listed, its folder is not here: download it again",
    )


def dense_weights(folder: Path) -> list[str]:
    """Files of the dense layers behind a pooling: sentence-transformers reads them beside the graph, and wants them."""
    try:
        modules = read_modules(folder)
    except CheckpointError:  # opening it says so; as an adapter's folder it is not opened
        return []
    pooled = any(module.kind == "Pooling" for module in modules)
    files = [f"{module.path}/model.safetensors" for module in modules if pooled and module.kind == "Dense"]
    return [name for name in files if (folder / name).is_file()]


def lift_encoder(package: Path, path: str) -> None:
    """Say in a package's modules.json that the module from the folder `path` lies at the top."""
    entries = read_list(package / LIST)
    for entry in entries:
        entry["path"] = "" if entry["path"] == path else entry["path"]
    (package / LIST).write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def module_tensors(
    folder: Path, modules: Sequence[SentenceModule], *, allow_pickle: bool
) -> dict[str, TensorInfo]:
    """The tensors that lie in the modules' folders, as `<path>.<name>`. Pickles are left out unless allowed."""
    # These need numpy, and plugins that only look at the list must load without it.
    from converter.checkpoints.pickles import index_pickles, pickle_files
    from converter.checkpoints.tensor_file import read_header

    found: dict[str, TensorInfo] = {}
    for module in modules:
        own = folder / module.path
        # A module at the top, or one with a config of transformers, is the model itself.
        if not module.path or "model_type" in module.config:
            continue
        tensors: dict[str, TensorInfo] = {}
        if (own / "model.safetensors").is_file():
            tensors = read_header(own / "model.safetensors")
        elif allow_pickle and pickle_files(own):
            tensors = index_pickles(own)
        for name, info in tensors.items():
            found[f"{module.path}.{name}"] = replace(info, name=f"{module.path}.{name}")
    return found
