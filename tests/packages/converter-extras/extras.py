"""A plugin that uses every hook but the one for architectures: what it adds, it adds to what others brought."""

from __future__ import annotations

import json
from pathlib import Path

from converter import (
    CardSection,
    Component,
    Extension,
    GraphPass,
    Judgement,
    Metric,
    Output,
    PackageFile,
    Precision,
    Variant,
    hookimpl,
)

converter_api = "1.0"

SENTENCES = {0: "batch_size"}


# --- a variant of a task that the architecture has, and a task it had not ---


def pooled(config, task):
    """The mean over the valid positions, beside the architecture's own graph."""
    from flawed import TOKENS, components, inputs

    (own,) = components(config, "encoding")

    def reference(model, tensors):
        mask = tensors["attention_mask"].unsqueeze(-1).float()
        return {"embedding": (model(**tensors) * mask).sum(1) / mask.sum(1)}

    def wrapper(model):
        from extras_model import Pooled

        return Pooled(own.wrapper(model))

    def unmasked(size):
        from dataclasses import replace

        return replace(inputs(TOKENS, size), valid={})

    judgement = Judgement("maxsim", {"top1": 1.0}, outputs=("embedding",))
    outputs = (Output("embedding", SENTENCES),)
    return (Component("pooled", wrapper, unmasked, reference, own.axes, outputs, judged_by=(judgement,)),)


def scored(config, task):
    from dataclasses import replace

    from flawed import TOKENS, components, inputs

    (own,) = components(config, "encoding")

    def wrapper(model):
        return model

    def reference(model, tensors):
        return {"scores": model(**tensors)}

    def unmasked(size):
        return replace(inputs(TOKENS, size), valid={})

    return (Component("model", wrapper, unmasked, reference, own.axes, (Output("scores", SENTENCES),)),)


class ScoringSource:
    """Where models of the new task come from: the encoder with a head that its own checkpoints have."""

    def config(self, checkpoint):
        return checkpoint.config["flaw"]

    def default_task(self, checkpoint):
        return "scoring"

    def skeleton(self, config, task):
        from extras_model import Scorer

        return Scorer().eval()

    def original(self, checkpoint, task, offload):
        import torch

        from converter.recipes import read

        model = self.skeleton(None, task)
        recipes = self.key_mapping(model, checkpoint)
        model.load_state_dict({name: torch.from_numpy(read(recipe)) for name, recipe in recipes.items()})
        return model

    def key_mapping(self, model, checkpoint):
        from converter.recipes import Load

        return {name.removeprefix("scorer/"): Load(info) for name, info in checkpoint.tensors.items()}

    def write_tiny(self, folder: Path, *, like, seed, task):
        from safetensors.torch import save_file

        from converter.seeding import seed_weights

        model = self.skeleton(like, task)
        seed_weights(model, seed)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps({"model_type": "flawed", "flaw": "none"}))
        save_file(
            {f"scorer/{name}": value for name, value in model.state_dict().items()},
            folder / "model.safetensors",
        )


@hookimpl
def register_variants(register):
    register(Extension("flawed", "encoding", (Variant("pooled", ("pooled",), "one vector a text"),), pooled))
    register(
        Extension(
            "flawed", "scoring", (Variant("scores", ("model",), "one score a text"),), scored, ScoringSource()
        )
    )


# --- a graph pass with a place in the order ---


def sign(model):
    model.producer_name = f"{model.producer_name or ''}signed"
    return True


@hookimpl
def register_passes(register):
    register(GraphPass("sign", sign, order=870))


# --- a precision ---


class Rounded:
    """Weights rounded to halves and stored as floats again: nothing is saved, everything can be checked."""

    label = "halves stored as floats"

    def apply(self, model):
        from converter.arrays import FLOAT16, FLOAT32
        from converter.recipes import Cast, RecipeTensor

        for value in model.graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, RecipeTensor) and tensor.recipe.dtype == FLOAT32:
                value.const_value = RecipeTensor(Cast(Cast(tensor.recipe, FLOAT16), FLOAT32), name=value.name)

    def to_json(self):
        return {"label": self.label}


@hookimpl
def register_precisions(register):
    register(Precision("rounded", lambda: (Rounded(),), "halves in floats", {"cosine": 0.9999}))


# --- a metric ---


def maxsim(expected, found, valid):
    """The share of texts that find the same best other text: late interaction with one vector a text."""
    import numpy as np

    if expected.shape != found.shape:
        return {"top1": 0.0}
    best = []
    for vectors in (expected, found):
        scores = vectors @ vectors.T
        np.fill_diagonal(scores, -np.inf)
        best.append(scores.argmax(1))
    return {"top1": float((best[0] == best[1]).mean())}


@hookimpl
def register_metrics(register):
    register(Metric("maxsim", {"top1": "higher"}, maxsim, "MaxSim ranking"))


# --- files and card sections ---


def write_provenance(build):
    sections = {section.name: section.text(build) for section in build.sections}
    content = {"architecture": build.record["architecture"], "licence": sections["licence"]}
    (build.folder / "provenance.json").write_text(json.dumps(content))
    return ["provenance.json says where it is from"]


@hookimpl
def register_package_files(register):
    register(PackageFile("provenance", write_provenance, order=600, summary="where it is from"))


@hookimpl
def register_card_sections(register):
    register(
        CardSection("licence", lambda build: f"{build.record['architecture']} is everybody's", order=900)
    )
