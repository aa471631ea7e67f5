"""tokenizer.json of SentencePiece models whose ids stand in a vocabulary of their own, such as translation models have.

transformers has no fast tokenizer of these kinds. Source and target language may have a model each: a text is cut by
the source's, and what only the target's knows is for decoding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_ENDINGS = (".model", ".spm")
_NORMAL, _UNIGRAM, _BPE = 1, 1, 2  # of sentencepiece_model.proto: a kind of piece, and of models
# Scores of what the source's model does not know. A single character is taken where nothing else fits, as SentencePiece
# hands it to the vocabulary; longer ones never: each costs more than any text in characters.
_SINGLE, _NEVER = -1e4, -1e9
_LANGUAGE = re.compile(r">>.+<<")  # written before a text, where one model has several target languages
_ODD = ("", "  two  spaces ", "Größe, naïve café", "日本語 and\ttabs", "1,234.5 % (so-called) “quotes”…")


def tokenizer_from_pieces(tokenizer: Any, folder: Path) -> Any | None:
    """A `tokenizers.Tokenizer` that cuts as transformers' slow `tokenizer` from `folder` does; None for other kinds.

    Raises ValueError where it would cut one of the sentences that come with the converter otherwise.
    """
    names = [name for name in type(tokenizer).vocab_files_names.values() if name.endswith(_ENDINGS)]
    models = [folder / name for name in names if (folder / name).is_file()]
    if not models or not (folder / "vocab.json").is_file():
        return None
    made = _assemble(tokenizer, models[0])
    for text in (*_ODD, *_sentences()):
        if made.encode(text).ids != tokenizer(text)["input_ids"]:
            raise ValueError(f"it would cut {text!r} otherwise than {type(tokenizer).__name__} does")
    return made


def _sentences() -> list[str]:
    return (files("converter.precision") / "corpus.txt").read_text(encoding="utf-8").splitlines()


def _assemble(tokenizer: Any, path: Path) -> Any:
    """Normalizer, cutting into words and joining are transformers' own for SentencePiece; ids are the tokenizer's."""
    from tokenizers import AddedToken, Tokenizer
    from transformers.convert_slow_tokenizer import SpmConverter

    known = SpmConverter(SimpleNamespace(vocab_file=str(path)))
    # A model of many languages has their ids after the vocabulary.
    languages = dict(getattr(tokenizer, "lang_token_to_id", {}))
    ids = {**tokenizer.get_vocab(), **tokenizer.get_added_vocab(), **languages}
    special = sorted({*map(str, tokenizer.all_special_tokens), *languages}, key=ids.__getitem__)
    scores = {piece.piece: piece.score for piece in known.proto.pieces if piece.type == _NORMAL}
    made = Tokenizer(_model(known.proto.trainer_spec.model_type, ids, scores, str(tokenizer.unk_token)))
    made.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    leading = sorted(filter(_LANGUAGE.fullmatch, ids), key=ids.__getitem__)
    made.add_tokens([AddedToken(token, normalized=False, rstrip=True) for token in leading])
    made.normalizer = known.normalizer(known.proto)
    made.pre_tokenizer = known.pre_tokenizer("▁", True)
    made.decoder = known.decoder("▁", True)
    made.post_processor = _template(tokenizer)
    return made


def _model(kind: int, ids: Mapping[str, int], scores: Mapping[str, float], unknown: str) -> Any:
    from tokenizers import models
    from transformers.convert_slow_tokenizer import generate_merges

    if kind == _UNIGRAM:
        by_number = {number: token for token, number in ids.items()}
        tokens = [by_number.get(number, f"<unused{number}>") for number in range(max(by_number) + 1)]
        return models.Unigram(
            [(token, scores.get(token, _SINGLE if len(token) == 1 else _NEVER)) for token in tokens],
            unk_id=ids[unknown],
        )
    if kind == _BPE:
        pieces = {piece: number for number, piece in enumerate(scores) if piece in ids}
        merges = generate_merges(pieces, {piece: scores[piece] for piece in pieces})
        return models.BPE(dict(ids), merges, unk_token=unknown, fuse_unk=True)
    raise ValueError("its SentencePiece model is neither unigram nor byte-pair")


def _template(tokenizer: Any) -> Any:
    """What a tokenizer puts around a text."""
    from tokenizers.processors import TemplateProcessing

    text = -1
    around: Sequence[int] = tokenizer.build_inputs_with_special_tokens([text])
    words = ["$A" if number == text else str(tokenizer.convert_ids_to_tokens(number)) for number in around]
    special = [(word, number) for word, number in zip(words, around, strict=True) if number != text]
    return TemplateProcessing(
        single=words,
        pair=[*words[: words.index("$A") + 1], "$B", *words[words.index("$A") + 1 :]],
        special_tokens=list(dict.fromkeys(special)),
    )
