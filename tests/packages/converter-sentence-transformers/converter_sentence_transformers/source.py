"""From a sentence-transformers folder to a SentenceTransformer."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter import TransformersModel
from converter.errors import CheckpointError
from converter.sentence_modules import SentenceModule

if TYPE_CHECKING:
    from torch import nn

    from converter.recipes import WeightRecipe
    from converter.records import Checkpoint

USUAL, PROMPTED = "sentence-similarity", "prompted-sentence-similarity"
# sentence-transformers takes only the encoder of these.
ENCODER_ONLY = {name: f"{name.upper()}EncoderModel" for name in ("t5", "mt5", "umt5")}
TINY_BERT = {
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 52,
    "vocab_size": 601,
    "max_position_embeddings": 70,
}
# Every mode at once: a mistake in one of them moves the vector.
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


# What may follow the encoder.
HEADS = ("Pooling", "Dense", "LayerNorm", "Normalize", "Dropout")


@dataclass(frozen=True)
class Config:
    """The encoder's transformers config, and every module in order, the encoder's among them."""

    encoder: Any
    parts: tuple[SentenceModule, ...]


def is_sentence_transformer(checkpoint: Checkpoint) -> bool:
    """Whether modules.json lists an encoder, and a pooling behind it."""
    return _is_pooled(checkpoint.modules)


def _is_pooled(modules: Sequence[SentenceModule]) -> bool:
    kinds = [module.kind for module in modules]
    return kinds[:1] == ["Transformer"] and "Pooling" in kinds


def open_nested(folder: Path, allow_pickle: bool) -> Checkpoint | None:
    """A checkpoint whose encoder lies in a folder of its own, `0_Transformer`, as those of 2020 have it."""
    from converter.checkpoint import open_checkpoint
    from converter.sentence_modules import module_tensors, read_modules

    modules = read_modules(folder)
    if not _is_pooled(modules) or not modules[0].path:
        return None
    encoder = open_checkpoint(folder / modules[0].path, allow_pickle=allow_pickle)
    others = module_tensors(folder, modules, allow_pickle=allow_pickle)
    tensors = {**encoder.tensors, **others}
    return replace(encoder, folder=folder, source=folder.name, tensors=tensors, modules=modules)


class SentenceTransformerSource:
    """A `converter.records.ModelSource`."""

    def config(self, checkpoint: Checkpoint) -> Config:
        strange = [module.kind for module in checkpoint.modules[1:] if module.kind not in HEADS]
        if strange or not is_sentence_transformer(checkpoint):
            reason = (
                f"the module {strange[0]} cannot be converted" if strange else "it has no modules to convert"
            )
            raise CheckpointError(
                f"{checkpoint.source}: {reason}",
                remedy=f"{', '.join(HEADS)} can, behind a Transformer and with a Pooling among them; --arch with "
                "the encoder's model type converts the encoder alone",
            )
        own = replace(checkpoint, folder=checkpoint.folder / checkpoint.modules[0].path)
        encoder = _encoder(checkpoint.config["model_type"]).config(own)
        if hasattr(encoder, "use_cache"):
            encoder.use_cache = False  # as sentence-transformers sets it
        return Config(encoder, checkpoint.modules)

    def default_task(self, checkpoint: Checkpoint) -> str:
        pooling = [module.config for module in checkpoint.modules if module.kind == "Pooling"]
        return USUAL if all(config.get("include_prompt", True) for config in pooling) else PROMPTED

    def skeleton(self, config: Config, task: str) -> nn.Module:
        from torch import nn

        first = nn.Module()
        first.model = _encoder(config.encoder.model_type).skeleton(config.encoder, USUAL)
        return nn.Sequential(first, *_heads(config.parts)).eval()

    def original(self, checkpoint: Checkpoint, task: str, offload: Path | None) -> nn.Module:
        import torch
        from sentence_transformers import SentenceTransformer

        placement = {} if offload is None else {"device_map": {"": "disk"}, "offload_folder": str(offload)}
        model: nn.Module = SentenceTransformer(
            str(checkpoint.folder),
            device="cpu",
            local_files_only=True,
            trust_remote_code=checkpoint.trust_remote_code,
            model_kwargs={"dtype": torch.float32, **placement},
        )
        return model.eval()

    def key_mapping(self, model: nn.Module, checkpoint: Checkpoint) -> Mapping[str, WeightRecipe]:
        from converter.recipes import Load

        heads = {module.path: index for index, module in enumerate(checkpoint.modules) if module.path}
        folders = {name: name.partition(".")[0] for name in checkpoint.tensors}
        own = {name: info for name, info in checkpoint.tensors.items() if folders[name] not in heads}
        source = _encoder(checkpoint.config["model_type"])
        encoder = source.key_mapping(model.get_submodule("0.model"), replace(checkpoint, tensors=own))
        mapping = {f"0.model.{name}": recipe for name, recipe in encoder.items()}
        for name, info in checkpoint.tensors.items():
            if name not in own:  # `2_Dense.linear.weight`
                mapping[f"{heads[folders[name]]}.{name.partition('.')[2]}"] = Load(info)
        return mapping

    def write_tiny(self, folder: Path, *, like: Config | None, seed: int, task: str) -> None:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Transformer

        from converter.seeding import seed_weights

        source = _encoder("bert" if like is None else like.encoder.model_type)
        with tempfile.TemporaryDirectory() as scratch:
            encoder = None if like is None else like.encoder
            source.write_tiny(Path(scratch), like=encoder, seed=seed, task=USUAL)
            _write_tokenizer(Path(scratch))
            first = Transformer(scratch)
        width = first.get_embedding_dimension()
        parts = _tiny_parts(width, task) if like is None else _narrowed(like.parts, width)
        model = SentenceTransformer(modules=[first, *_heads(parts)], device="cpu")
        seed_weights(model, seed)
        folder.mkdir(parents=True, exist_ok=True)
        model.save(str(folder), create_model_card=False)


def _encoder(model_type: str) -> TransformersModel:
    """The encoder alone, as a model of transformers."""
    classes = {USUAL: ENCODER_ONLY.get(model_type, "AutoModel")}
    return TransformersModel(classes, _tiny_overrides(model_type), model_type)


def _tiny_overrides(model_type: str) -> Mapping[str, Any]:
    """What makes a config of this type a tiny one: the converter's own architectures know it."""
    from converter.registry import load_registry

    if model_type == "bert":
        return TINY_BERT
    known = load_registry().for_model_type(model_type)
    return known.source.tiny if known is not None and isinstance(known.source, TransformersModel) else {}


def _heads(parts: Iterable[SentenceModule]) -> list[nn.Module]:
    from sentence_transformers.sentence_transformer import modules

    heads = []
    for part in parts:
        options = dict(part.config)
        if part.kind == "Dense" and "activation_function" in options:
            options["activation_function"] = _activation(options["activation_function"])
        if part.kind != "Transformer":
            heads.append(getattr(modules, part.kind)(**options))
    return heads


def _activation(name: str) -> nn.Module:
    """An instance of `torch.nn.modules.activation.Tanh` or the like. No code but torch's is imported."""
    from torch import nn

    module, _, kind = name.rpartition(".")
    if not module.startswith("torch.nn") or not hasattr(nn, kind):
        raise CheckpointError(
            f"a Dense module names the activation {name}", remedy="only torch's own are converted"
        )
    activation: nn.Module = getattr(nn, kind)()
    return activation


def _tiny_parts(width: int, task: str) -> Sequence[SentenceModule]:
    pooling = {"embedding_dimension": width, "pooling_mode": MODES, "include_prompt": task == USUAL}
    return (
        SentenceModule("Pooling", "1_Pooling", pooling),
        SentenceModule("Dense", "2_Dense", {"in_features": len(MODES) * width, "out_features": 20}),
        SentenceModule("LayerNorm", "3_LayerNorm", {"dimension": 20}),
        SentenceModule("Normalize", "4_Normalize", {}),
    )


def _narrowed(parts: Sequence[SentenceModule], width: int) -> Sequence[SentenceModule]:
    """The same modules behind an encoder of another width. Widths that Dense modules choose stay as they are."""
    narrowed = []
    for part in parts[1:]:
        options = dict(part.config)
        for key in {"embedding_dimension", "word_embedding_dimension", "in_features", "dimension"} & set(
            options
        ):
            options[key] = width
        narrowed.append(replace(part, config=options))
        width = _width_after(part.kind, options, width)
    return narrowed


def _width_after(kind: str, options: Mapping[str, Any], width: int) -> int:
    if kind == "Pooling":
        from sentence_transformers.sentence_transformer.modules import Pooling

        return int(Pooling(**options).get_embedding_dimension())
    return int(options["out_features"]) if kind == "Dense" else width


def _write_tokenizer(folder: Path) -> None:
    """Words `w0`, `w1` and so on, as many as the encoder has, with the usual frame around a text."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoConfig, PreTrainedTokenizerFast

    size = AutoConfig.from_pretrained(folder).vocab_size
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = [*special, *(f"w{number}" for number in range(size - len(special)))]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    frame = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=frame)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names).save_pretrained(folder)
