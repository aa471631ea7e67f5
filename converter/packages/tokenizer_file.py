"""tokenizer.json, which every client but transformers needs, made where a checkpoint has only its older files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TOKENIZER = "tokenizer.json"
_OLDER = ("vocab.txt", "vocab.json", "merges.txt")
_ENDINGS = (".model", ".spm", ".tiktoken", ".bpe")


def write_tokenizer(checkpoint: Path, package: Path) -> str | None:
    """Write tokenizer.json as transformers converts it. Returns a note on what was done or could not be.

    Nothing happens where it is there, or where there is nothing to make it from. The checkpoint's own code is not run.
    """
    if (package / TOKENIZER).exists() or not _has_older(package):
        return None
    from transformers import AutoTokenizer

    from converter.packages.piece_vocabulary import tokenizer_from_pieces

    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
        backend = getattr(tokenizer, "backend_tokenizer", None) or tokenizer_from_pieces(
            tokenizer, checkpoint
        )
        if backend is None:
            return f"there is no {TOKENIZER}: transformers has no fast tokenizer of this kind"
        text = backend.to_str(pretty=True)
    except Exception as error:  # whatever a tokenizer's own code raises; the graphs are of use without it
        return f"there is no {TOKENIZER}: transformers cannot make it ({type(error).__name__}: {error})"
    (package / TOKENIZER).write_text(text + "\n", encoding="utf-8")
    return f"{TOKENIZER} was made from the checkpoint's older tokenizer files"


def _has_older(package: Path) -> bool:
    names = [path.name for path in package.iterdir()]
    return any(name in _OLDER or name.endswith(_ENDINGS) for name in names)
