"""Checkpoints, packages, and the cases that clients are given, each with what torch makes of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoints import CHECKPOINTS, TASKS
from reference import REFERENCES

from converter import convert
from converter.errors import UsageError

PRECISIONS = ("fp32", "fp16", "q8", "q4")
TRAINED = "feature-extraction"  # the one package whose model has trained weights, MiniLM's
# The least cosine to torch, of all outputs of a case together; docs/clients.md has what each client measured.
# MiniLM's q8 keeps 0.999 on sentences as it is searched for: 0.9994 of these vectors, 0.9989 of the raw hidden states
# that onnxruntime alone gives. q4: 0.990 as searched, 0.974 in the plain blocks that tests take.
TRAINED_COSINE = {"fp32": 0.99999, "fp16": 0.9999, "q8": 0.998, "q4": 0.97}
# Logits of random weights in the first format of each precision: 0.9988 and 0.937 at worst, both of translation.
RANDOM_COSINE = {"fp32": 0.99999, "fp16": 0.9999, "q8": 0.998, "q4": 0.92}
MOST = 1e-4  # fp32: the largest difference from torch


@dataclass(frozen=True)
class Case:
    """What one client is asked to run, and what torch gives for it."""

    package: str
    precision: str
    inputs: dict[str, Any]
    expected: dict[str, Any]

    def to_job(self) -> dict[str, Any]:
        named = {"package": self.package, "task": TASKS[self.package]}
        return {**named, "precision": self.precision, "inputs": self.inputs}


@dataclass(frozen=True)
class Work:
    """The packages, each in a folder of its name, and the cases that can be run with them."""

    packages: Path
    cases: tuple[Case, ...]

    def checkpoint(self, package: str) -> Path:
        """What a package was made from. Not of feature extraction, whose checkpoint lies elsewhere."""
        return self.packages.parent / "checkpoints" / package

    def write_job(self, path: Path, cases: Sequence[Case]) -> Path:
        """The file that a client's runner reads."""
        job = {"packages": f"{self.packages}/", "cases": [case.to_job() for case in cases]}
        path.write_text(json.dumps(job))
        return path


def prepare(folder: Path, wanted: Mapping[str, Sequence[str]], *, searched: bool = False) -> Work:
    """Make all of it in `folder`: the precisions of each package. One that cannot be made of a package leaves no case.

    What an earlier run has made there is taken as it is.

    `searched` gives the trained model's precisions the search that `converter quantize` does by default, which takes
    minutes; without it q8 is 8 bits in blocks of 32. The quality of random weights says nothing: they get the first
    format of each precision, which for q8 is int8 by column.
    """
    cases: list[Case] = []
    for name, precisions in wanted.items():
        kept = folder / f"{name}.json"
        if not kept.is_file():
            made = [dataclasses.asdict(case) for case in _prepare(folder, name, precisions, searched)]
            kept.write_text(json.dumps(made))
        cases += [Case(**case) for case in json.loads(kept.read_text())]
    return Work(folder / "packages", tuple(cases))


def _prepare(folder: Path, name: str, precisions: Sequence[str], searched: bool) -> list[Case]:
    import torch

    package, checkpoint = folder / "packages" / name, CHECKPOINTS[name](folder / "checkpoints" / name)
    with torch.no_grad():
        inputs, expected = REFERENCES[name](checkpoint)
    # Parity is what the clients themselves look at here.
    convert(model=checkpoint, output=package, parity="off", overwrite=True)
    asked = tuple(precision for precision in precisions if precision != "fp32")
    made = add_precisions(package, asked, trained=name == TRAINED, searched=searched)
    return [
        Case(name, precision, inputs, expected) for precision in precisions if precision in ("fp32", *made)
    ]


def add_precisions(
    package: Path, precisions: tuple[str, ...], *, trained: bool, searched: bool
) -> tuple[str, ...]:
    """Those that were made."""
    from converter.precision.formats import Blocks, Plan
    from converter.precision.quantize import quantize_package

    if trained and searched:
        return quantize_package(package, precisions).kept
    kept: list[str] = []
    recipe = package.parent / "q8.json"
    recipe.write_text(json.dumps(Plan(Blocks(8, 32)).to_json()))
    for precision in precisions:
        given = {"recipe": recipe} if trained and precision == "q8" else {}
        try:
            kept += quantize_package(package, (precision,), unjudged=True, **given).kept
        except UsageError as error:
            print(f"{package.name}: no {precision}: {error}")
    return tuple(kept)


def bound(package: str, precision: str) -> float:
    """The least cosine to torch that a client may come to."""
    return (TRAINED_COSINE if package == TRAINED else RANDOM_COSINE)[precision]


@dataclass(frozen=True)
class Row:
    """One case in one client, compared with torch."""

    client: str
    version: str
    package: str
    precision: str
    max_abs: float
    cosine: float
    text: bool | None
    error: str = ""

    @property
    def passed(self) -> bool:
        """Numbers within bounds, and in fp32 the same text."""
        if self.error or self.cosine < bound(self.package, self.precision):
            return False
        return self.precision != "fp32" or (self.max_abs <= MOST and self.text is not False)


def compare(client: str, version: str, case: Case, result: dict[str, Any], what: str = "values") -> Row:
    """A client's numbers beside torch's: `values` of the task, or `output` of the graph."""
    import numpy as np

    error = str(result.get("error", ""))
    found = np.asarray(result.get("values", []), dtype=np.float64)
    expected = np.asarray(case.expected[what], dtype=np.float64)
    if not error and found.shape != expected.shape:
        error = f"{found.shape} values, {expected.shape} expected"
    if error:
        return Row(client, version, case.package, case.precision, float("inf"), 0.0, None, error)
    cosine = float(found @ expected / (np.linalg.norm(found) * np.linalg.norm(expected)))
    text = result["text"] == case.expected["text"] if "text" in case.expected and "text" in result else None
    return Row(
        client, version, case.package, case.precision, float(abs(found - expected).max()), cosine, text
    )
