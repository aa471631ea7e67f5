"""Write a checkpoint of seeded random weights at full size, for benchmarks: no hub, no real weights.

    python scripts/make_checkpoint.py colqwen2 FOLDER [--layers N] [--dtype bf16] [--seed N] [--tokenizer]

Sizes are those of the published models. The tensors are made one at a time and written as shards. `--tokenizer` adds
one of 3000 byte pairs, trained on the sentences that come with the converter, and ColQwen2's image processor:
precisions are judged on text and on pages.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from converter.tracing.skeleton import weightless

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SHARD_BYTES = 2 << 30


def bert_base(layers: int | None) -> nn.Module:
    """google-bert/bert-base-uncased: 110M parameters."""
    from transformers import BertConfig, BertModel

    return BertModel._from_config(BertConfig(num_hidden_layers=layers or 12), dtype=torch.float32)


def qwen2_05b(layers: int | None) -> nn.Module:
    """Qwen/Qwen2-0.5B: 494M parameters, tied embeddings."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=151936,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=layers or 24,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=32768,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM._from_config(config, dtype=torch.float32)


def granite_2b(layers: int | None) -> nn.Module:
    """ibm-granite/granite-3.0-2b-base: 2.53B parameters, tied embeddings."""
    from transformers import GraniteConfig, GraniteForCausalLM

    config = GraniteConfig(
        vocab_size=49152,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=layers or 40,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        embedding_multiplier=12.0,
        attention_multiplier=0.015625,
        residual_multiplier=0.22,
        logits_scaling=8.0,
    )
    return GraniteForCausalLM._from_config(config, dtype=torch.float32)


def vit_base(layers: int | None) -> nn.Module:
    """google/vit-base-patch16-224: 87M parameters."""
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(num_hidden_layers=layers or 12, num_labels=1000)
    return ViTForImageClassification._from_config(config, dtype=torch.float32)


def colqwen2(layers: int | None, *, part: int = 1) -> nn.Module:
    """vidore/colqwen2-v1.0-hf: Qwen2-VL-2B (28 layers, 32 vision blocks) and a projection to 128; 2.2B parameters.

    `part` divides widths and heads.
    """
    from transformers import ColQwen2Config, ColQwen2ForRetrieval, Qwen2VLConfig

    vlm = Qwen2VLConfig(
        text_config={
            "vocab_size": 151936,
            "hidden_size": 1536 // part,
            "intermediate_size": 8960 // part,
            "num_hidden_layers": layers or 28,
            "num_attention_heads": 12 // part,
            "num_key_value_heads": 2,
            "max_position_embeddings": 32768,
            "max_window_layers": layers or 28,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": round(32 * (layers or 28) / 28),
            "embed_dim": 1280 // part,
            "hidden_size": 1536 // part,
            "num_heads": 16 // part,
            "mlp_ratio": 4,
        },
    )
    return ColQwen2ForRetrieval._from_config(ColQwen2Config(vlm_config=vlm), dtype=torch.float32)


def colqwen2_small(layers: int | None) -> nn.Module:
    """ColQwen2 at half its width with 6 layers, on which a search takes minutes."""
    return colqwen2(layers or 6, part=2)


MODELS = {
    "bert-base": bert_base,
    "qwen2-0.5b": qwen2_05b,
    "granite-2b": granite_2b,
    "vit-base": vit_base,
    "colqwen2": colqwen2,
    "colqwen2-small": colqwen2_small,
}


def tensors(model: nn.Module, dtype: torch.dtype, seed: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Each stored parameter once, made when asked for; matrices keep the variance of what they multiply."""
    tied = getattr(model, "all_tied_weights_keys", {})  # transformers unties what a checkpoint stores twice
    for index, (name, parameter) in enumerate(model.named_parameters()):
        if name in tied:
            continue
        generator = torch.Generator().manual_seed(seed << 20 | index)  # the generator reads 32 bits
        values = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() >= 2:
            values /= math.sqrt(math.prod(parameter.shape[1:]))
        else:
            values = values * 0.1 + (1.0 if name.endswith("weight") else 0.0)
        yield name, values.to(dtype)


def write(model: nn.Module, folder: Path, dtype: torch.dtype, seed: int) -> None:
    folder.mkdir(parents=True)
    index: dict[str, str] = {}
    shard: dict[str, torch.Tensor] = {}
    count = 0

    def flush() -> None:
        nonlocal count
        count += 1
        file = f"model-{count:05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        index.update(dict.fromkeys(shard, file))
        shard.clear()

    for name, tensor in tensors(model, dtype, seed):
        if sum(entry.nbytes for entry in shard.values()) + tensor.nbytes > SHARD_BYTES and shard:
            flush()
        shard[name] = tensor
    flush()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index}, indent=1)
    )
    config: Any = model.config
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)


def train_tokenizer(special: Sequence[str], **named: Any) -> Any:
    """Byte pairs of the sentences that come with the converter; special tokens have the first ids."""
    from importlib.resources import files

    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    sentences = (files("converter.precision") / "corpus.txt").read_text(encoding="utf-8").splitlines()
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(sentences, vocab_size=3000, special_tokens=list(special), show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=trained, **named)


def write_tokenizer(folder: Path) -> None:
    train_tokenizer(["<end>"], eos_token="<end>", pad_token="<end>").save_pretrained(folder)


def write_processor(folder: Path, config: Any) -> None:
    """Qwen2-VL's image processor and a small tokenizer, whose ids `config` gets."""
    from transformers import ColQwen2Processor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    entries = {
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
    }
    tokenizer = train_tokenizer(
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *entries.values()],
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        padding_side="left",
        extra_special_tokens={"image_token": "<|image_pad|>"},
    )
    for name, token in entries.items():
        setattr(config.vlm_config, name, tokenizer.convert_tokens_to_ids(token))
    ColQwen2Processor(Qwen2VLImageProcessorPil(), tokenizer).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, help="another depth than the published one")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bf16")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", action="store_true", help="a small one, for models of text")
    arguments = parser.parse_args()
    from transformers.initialization import no_init_weights

    with weightless(), no_init_weights():
        model = MODELS[arguments.model](arguments.layers)
    write(model, arguments.folder, DTYPES[arguments.dtype], arguments.seed)
    if arguments.tokenizer and arguments.model.startswith("colqwen2"):
        config: Any = model.config
        write_processor(arguments.folder, config)
        config.save_pretrained(arguments.folder)
    elif arguments.tokenizer:
        write_tokenizer(arguments.folder)
    tied = getattr(model, "all_tied_weights_keys", {})
    count = sum(parameter.numel() for name, parameter in model.named_parameters() if name not in tied)
    print(f"{arguments.folder}: {count / 1e6:.0f}M parameters")


if __name__ == "__main__":
    main()
