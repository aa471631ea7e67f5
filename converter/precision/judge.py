"""The quality of a text encoder's graph: its embeddings of real sentences against those of the fp32 graph.

The sentences come with this package, were written for it, and are split: on one half plans are chosen, the other is
only ever judged on. Random tokens are never used: a text model's error on them says nothing of text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.errors import ConverterError, UsageError
from converter.precision.budget import Quality

Vectors = NDArray[np.float64]
_BATCH = 8


@cache
def corpus() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Calibration and evaluation texts: every other line, so that each topic is in both."""
    text = (files("converter.precision") / "corpus.txt").read_text(encoding="utf-8")
    lines = tuple(line for line in text.splitlines() if line.strip())
    return lines[::2], lines[1::2]


@dataclass(frozen=True)
class Judge:
    """Measures graphs of the package in `folder` against its fp32 graph."""

    folder: Path
    calibration: Vectors
    evaluation: Vectors

    @staticmethod
    def of(folder: Path) -> Judge:
        """Embed the corpus with the fp32 graph.

        Raises UsageError where there is no tokenizer, or the package is no text encoder: then there is nothing
        to judge a precision by.
        """
        try:
            first, second = (_embed(folder, "fp32", texts) for texts in corpus())
        except ConverterError as error:
            raise UsageError(
                f"no quality can be measured on this package: {error.message}",
                remedy="precisions are judged on real text, by a text encoder with its tokenizer; random tokens "
                "would prove nothing",
            ) from error
        return Judge(folder, first, second)

    def evaluate(self, precision: str) -> Quality:
        """On the texts that nothing was chosen on."""
        return compare(self.evaluation, _embed(self.folder, precision, corpus()[1]))

    def rehearse(self, precision: str, *, quick: bool = False) -> Quality:
        """On the texts that plans may be chosen by; `quick` on every third of them."""
        step = 3 if quick else 1
        found = _embed(self.folder, precision, corpus()[0][::step])
        return compare(self.calibration[::step], found)


def _embed(folder: Path, precision: str, texts: Sequence[str]) -> Vectors:
    from converter.runtime.encoder import Encoder

    encoder = Encoder(folder, precision=precision)
    vectors: Any = encoder.encode(texts, batch_size=_BATCH, normalize=True)
    return np.asarray(vectors, dtype=np.float64)


def compare(reference: Vectors, found: Vectors) -> Quality:
    """Quality of embeddings of shape (texts, dimension). A number that is not finite is no likeness at all."""
    if not np.isfinite(found).all():
        return Quality(-1.0, -1.0, 0.0, len(found))
    first, second = (_unit(vectors) for vectors in (reference, found))
    cosines = (first * second).sum(axis=1)
    kept = _nearest(first) == _nearest(second)
    return Quality(float(cosines.mean()), float(cosines.min()), float(kept.mean()), len(found))


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = vectors / np.maximum(lengths, 1e-12)
    return unit


def _nearest(unit: Vectors) -> NDArray[np.int64]:
    likeness = unit @ unit.T
    np.fill_diagonal(likeness, -np.inf)
    nearest: NDArray[np.int64] = likeness.argmax(axis=1)
    return nearest
