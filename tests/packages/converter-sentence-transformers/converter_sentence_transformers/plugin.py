"""What the converter loads. Importing this file must not import torch, so functions import what they need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from converter import (
    Architecture,
    Axis,
    Component,
    DummyInputs,
    Output,
    PackageBuild,
    PackageFile,
    Size,
    Variant,
    hookimpl,
)
from converter_sentence_transformers.source import (
    PROMPTED,
    USUAL,
    Config,
    SentenceTransformerSource,
    is_sentence_transformer,
    open_nested,
)

if TYPE_CHECKING:
    import torch
    from torch import nn

converter_api = "1.0"

BATCH, LENGTH = "batch_size", "sequence_length"
TOKENS = {0: BATCH, 1: LENGTH}
TEXT = Variant("text", ("model",), "token ids in, hidden states and one vector a text out")
PROMPT = Variant(
    "prompt", ("model_with_prompt",), "the same, the pooling leaving out a prompt of given length"
)


def inputs(config: Config, prompted: bool, size: Size) -> DummyInputs:
    """Random ids; rows are padded more from row to row; prompts leave at least one token."""
    import torch

    encoder, generator = config.encoder, torch.Generator().manual_seed(size.seed)
    batch, length = size[BATCH], size[LENGTH]
    pad = encoder.pad_token_id or 0
    ids = torch.randint(0, encoder.vocab_size - 1, (batch, length), generator=generator)
    ids = ids + (ids >= pad)  # every id but the padding's: some models read positions off it
    filler = torch.arange(1, batch + 1)[:, None] * max(1, length // 4)
    filler = (filler if size.padding != "none" else 0 * filler).clamp(max=length - 1)  # (batch, 1)
    places = torch.arange(length)
    mask = places < length - filler if size.padding == "right" else places >= filler  # (batch, length)
    tensors = {"input_ids": ids.where(mask, torch.tensor(pad)), "attention_mask": mask.long()}
    if (getattr(encoder, "type_vocab_size", 0) or 0) > 1:
        tensors["token_type_ids"] = torch.randint(0, 2, (batch, length), generator=generator)
    axes = dict.fromkeys(tensors, TOKENS)
    if prompted:
        share = torch.rand(batch, generator=generator)
        tensors["prompt_length"] = (share * mask.sum(1)).long()
        axes["prompt_length"] = {0: BATCH}
    return DummyInputs(tensors, axes, {"last_hidden_state": mask})


def wrapper(model: nn.Module) -> nn.Module:
    from converter_sentence_transformers.wrapper import SentenceEncoder

    return SentenceEncoder(model)


def reference(model: nn.Module, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """SentenceTransformer takes one length of prompts for a batch, so rows with a prompt go one by one."""
    import torch

    hidden = model[0](dict(tensors))["token_embeddings"]
    if "prompt_length" not in tensors:
        return {"last_hidden_state": hidden, "sentence_embedding": model(dict(tensors))["sentence_embedding"]}
    vectors = []
    for row, prompt in enumerate(tensors["prompt_length"].tolist()):
        features = {name: tensor[row : row + 1] for name, tensor in tensors.items()}
        vectors.append(model({**features, "prompt_length": prompt})["sentence_embedding"])
    return {"last_hidden_state": hidden, "sentence_embedding": torch.cat(vectors)}


def components(config: Config, task: str) -> Sequence[Component]:
    longest = getattr(config.encoder, "max_position_embeddings", None) or 64
    usual = Component(
        stem="model",
        wrapper=wrapper,
        inputs=partial(inputs, config, False),
        reference=reference,
        axes=(Axis(BATCH, traced=2, high=6), Axis(LENGTH, traced=7, high=min(48, longest - 4))),
        outputs=(Output("last_hidden_state", TOKENS), Output("sentence_embedding", {0: BATCH})),
    )
    if task == USUAL:
        return (usual,)
    from dataclasses import replace

    return usual, replace(usual, stem="model_with_prompt", inputs=partial(inputs, config, True))


@hookimpl
def register_architectures(register: Callable[[Architecture], None]) -> None:
    register(
        Architecture(
            name="sentence_transformers",
            model_types=(),
            summary="a sentence-transformers folder: encoder, pooling and what follows",
            reference_checkpoint="sentence-transformers/all-MiniLM-L6-v2",
            source=SentenceTransformerSource(),
            components=components,
            variants={USUAL: (TEXT,), PROMPTED: (TEXT, PROMPT)},
            recognizes=is_sentence_transformer,
            opens=open_nested,
        )
    )


def lift_encoder(build: PackageBuild) -> None:
    """What belongs to an encoder in a folder of its own goes to the top of the package, where clients look for it."""
    import json

    if build.checkpoint is None or build.record["architecture"] != "sentence_transformers":
        return
    nested = build.folder / build.checkpoint.modules[0].path
    if nested == build.folder:
        return
    for file in nested.iterdir():
        file.replace(build.folder / file.name)
    nested.rmdir()
    modules = json.loads((build.folder / "modules.json").read_text())
    modules[0]["path"] = ""
    (build.folder / "modules.json").write_text(json.dumps(modules, indent=2))
    if not (build.folder / "tokenizer.json").exists():
        from transformers import AutoTokenizer

        folder = build.checkpoint.folder / build.checkpoint.modules[0].path
        AutoTokenizer.from_pretrained(folder, local_files_only=True).save_pretrained(build.folder)


def copy_heads(build: PackageBuild) -> None:
    """sentence-transformers' ONNX backend runs the encoder only, and loads Dense and LayerNorm modules itself."""
    import shutil

    if build.checkpoint is None or build.record["architecture"] != "sentence_transformers":
        return
    for module in build.checkpoint.modules[1:]:
        weights = build.checkpoint.folder / module.path / "model.safetensors"
        if module.path and weights.is_file():
            (build.folder / module.path).mkdir(exist_ok=True)
            shutil.copyfile(weights, build.folder / module.path / weights.name)


@hookimpl
def register_package_files(register: Callable[[PackageFile], None]) -> None:
    register(PackageFile("sentence_encoder", lift_encoder, 120, "files of an encoder in a folder of its own"))
    register(PackageFile("sentence_heads", copy_heads, 200, "weights of the modules behind the pooling"))
