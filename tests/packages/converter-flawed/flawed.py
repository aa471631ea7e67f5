"""The architecture `flawed`: its checkpoint's config says which mistake its wrapper makes.

With `, short` behind it the inputs' second axis was forgotten: it is not declared for them, only for the output.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from converter import Architecture, Axis, Component, DummyInputs, Output, Variant, hookimpl
from converter.recipes import Load, read

TOKENS = {0: "batch_size", 1: "sequence_length"}
LENGTH = 5


class Source:
    def config(self, checkpoint):
        return checkpoint.config["flaw"]

    def default_task(self, checkpoint):
        return "encoding"

    def skeleton(self, config, task):
        from flawed_model import Encoder

        return Encoder().eval()

    def original(self, checkpoint, task, offload):
        import torch

        model = self.skeleton(self.config(checkpoint), task)
        recipes = self.key_mapping(model, checkpoint)
        model.load_state_dict({name: torch.from_numpy(read(recipe)) for name, recipe in recipes.items()})
        return model

    def key_mapping(self, model, checkpoint):
        return {name: Load(info) for name, info in checkpoint.tensors.items()}

    def write_tiny(self, folder: Path, *, like, seed, task):
        from safetensors.torch import save_file

        from converter.seeding import seed_weights

        model = self.skeleton(like, task)
        seed_weights(model, seed)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"model_type": "flawed", "flaw": like or "none"}))
        save_file(model.state_dict(), folder / "model.safetensors")


def inputs(declared, size):
    import torch
    from flawed_model import WORDS

    generator = torch.Generator().manual_seed(size.seed)
    shape = size["batch_size"], size.axes.get("sequence_length", LENGTH)
    mask = torch.ones(shape, dtype=torch.int64)
    for row in range(shape[0] if size.padding != "none" else 0):
        filler = min(row + 1, shape[1] - 1)
        mask[row, slice(shape[1] - filler, None) if size.padding == "right" else slice(0, filler)] = 0
    tensors = {"input_ids": torch.randint(0, WORDS, shape, generator=generator), "attention_mask": mask}
    return DummyInputs(tensors, dict.fromkeys(tensors, declared), {"hidden": mask.bool()})


def wrapper(flaw, model):
    from flawed_model import FlawedEncoder

    return FlawedEncoder(model, flaw)


def reference(model, tensors):
    return {"hidden": model(**tensors)}


def components(config, task):
    flaw, _, short = config.partition(", ")
    axes = (Axis("batch_size", 2, high=4), Axis("sequence_length", LENGTH, high=20))[: 1 if short else 2]
    declared = {dim: name for dim, name in TOKENS.items() if name in {axis.name for axis in axes}}
    outputs = (Output("hidden", TOKENS),)
    return (Component("model", partial(wrapper, flaw), partial(inputs, declared), reference, axes, outputs),)


@contextmanager
def counted() -> Iterator[None]:
    """Each trace leaves its process's number, where a test wants to count conversions."""
    if file := os.environ.get("FLAWED_TRACES"):
        with Path(file).open("a") as traces:
            traces.write(f"{os.getpid()}\n")
    yield


@hookimpl
def register_architectures(register):
    register(
        Architecture(
            name="flawed",
            model_types=("flawed",),
            summary="a wrapper with one mistake",
            reference_checkpoint="",
            source=Source(),
            components=components,
            variants={"encoding": (Variant("text", ("model",), "ids and mask in, hidden states out"),)},
            patches=counted,
        )
    )
