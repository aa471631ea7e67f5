"""Tokenizers as published checkpoints have them, trained on the sentences that come with the converter."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

SEED = 5


def corpus() -> list[str]:
    """Three hundred English sentences."""
    return (files("converter.precision") / "corpus.txt").read_text(encoding="utf-8").splitlines()


def word_pieces() -> Any:
    """BERT's kind of tokenizer: 600 pieces."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizer

    trained = BertWordPieceTokenizer()
    trained.train_from_iterator(corpus(), vocab_size=600, show_progress=False)
    return BertTokenizer(vocab=trained.get_vocab(), model_max_length=64)


def byte_pairs(special: list[str], size: int = 600) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of GPT's kind of tokenizer; the special tokens come last, as published ones have them."""
    import json

    from tokenizers import ByteLevelBPETokenizer

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(corpus(), vocab_size=size - len(special), show_progress=False)
    model = json.loads(trained.to_str())["model"]
    vocabulary = dict(model["vocab"])
    vocabulary.update({token: len(vocabulary) + index for index, token in enumerate(special)})
    return vocabulary, [tuple(pair) for pair in model["merges"]]


def unigrams() -> Any:
    """T5's kind of tokenizer."""
    import json

    from tokenizers import SentencePieceUnigramTokenizer
    from transformers import T5Tokenizer

    trained = SentencePieceUnigramTokenizer()
    trained.train_from_iterator(
        corpus(),
        vocab_size=580,
        show_progress=False,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
    )
    pieces = json.loads(trained.to_str())["model"]["vocab"]
    return T5Tokenizer(vocab=[tuple(piece) for piece in pieces], extra_ids=0, model_max_length=64)


def pieces(folder: Path, name: str, sentences: list[str], size: int, kind: str = "unigram") -> list[str]:
    """A SentencePiece model of this name in a folder; the pieces that are not special."""
    import sentencepiece

    folder.mkdir(parents=True, exist_ok=True)
    sentencepiece.set_random_generator_seed(SEED)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_prefix=str(folder / "trained"),
        vocab_size=size,
        model_type=kind,
        num_threads=1,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "trained.vocab").unlink()
    (folder / "trained.model").rename(folder / name)
    trained = sentencepiece.SentencePieceProcessor(model_file=str(folder / name))
    numbers = range(trained.get_piece_size())
    return [trained.id_to_piece(n) for n in numbers if not (trained.is_control(n) or trained.is_unknown(n))]


def marian_tokenizer(folder: Path) -> Any:
    """Helsinki-NLP's: a SentencePiece model for each language, one vocabulary for both with the padding last."""
    import json

    from transformers import MarianTokenizer

    backwards = [" ".join(word[::-1] for word in line.split()) for line in corpus()]
    known = {*pieces(folder, "source.spm", corpus(), 340), *pieces(folder, "target.spm", backwards, 300)}
    words = ["</s>", "<unk>", ">>deu<<", *sorted(known), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    paths = {
        key: str(folder / name)
        for key, name in (("source_spm", "source.spm"), ("target_spm", "target.spm"), ("vocab", "vocab.json"))
    }
    return MarianTokenizer(**paths, source_lang="en", target_lang="de", model_max_length=64)


def m2m100_tokenizer(folder: Path, kind: str = "unigram") -> Any:
    """One SentencePiece model, a vocabulary of its own, and a hundred languages behind it."""
    import json

    from transformers import M2M100Tokenizer

    known = pieces(folder, "sentencepiece.bpe.model", corpus(), 480, kind)
    words = ["<s>", "<pad>", "</s>", "<unk>", *known]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    files = str(folder / "vocab.json"), str(folder / "sentencepiece.bpe.model")
    # Special tokens, as the published one has them.
    languages = list(M2M100Tokenizer(*files).lang_token_to_id)
    # A random model would write the made-up words that published vocabularies end with, for which nobody has a text.
    return M2M100Tokenizer(*files, additional_special_tokens=languages, num_madeup_words=0)
