"""What converter-sentence-transformers makes, against SentenceTransformer.encode on the untouched checkpoint.

    python scripts/check_sentence_transformers.py --minilm FOLDER --maker PYTHON --client PYTHON [--write]

PYTHON is one of a virtual environment: the maker's has the converter and the package, the client's has an older
sentence-transformers with optimum-onnx, which does not work with the transformers that the converter needs. `make
check-sentence-transformers` installs both. Each checkpoint is converted and its package encodes the texts twice: the
graph alone, pooling included (`converter.runtime.Encoder`), and `SentenceTransformer(package, backend="onnx")`, which
pools in torch. The exit code is 1 if any vector differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[1] / "tests" / "packages" / "converter-sentence-transformers" / "README.md"
MARK = "<!-- written by `make check-sentence-transformers` -->"
TOLERANCE = 1e-5
TEXTS = ["w7 w8 w9 w100", "A short one.", "The quick brown fox jumps over the lazy dog.", "w1 " * 90]

REAL = "all-MiniLM-L6-v2, the real one"
ALL = "all six modes, Dense, LayerNorm, Normalize"
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
BOTH = ("mean", "lasttoken")
# name -> (encoder, pooling modes); without any, the six that the package's tiny checkpoint has
MADE: dict[str, tuple[str, Sequence[str]]] = {
    **{f"bert, {mode}, Dense, Normalize": ("bert", (mode,)) for mode in MODES},
    f"bert, {ALL}": ("bert", ()),
    f"bert in a folder of its own, {ALL}": ("bert/0_Transformer", ()),
    **{f"{kind}, mean and lasttoken, Dense, Normalize": (kind, BOTH) for kind in ("distilbert", "mpnet")},
    "xlm-roberta, mean and lasttoken, Dense, Normalize": ("xlm-roberta", BOTH),
}
MAKE = """
import json, re, sys
from pathlib import Path
from transformers import CONFIG_MAPPING
from converter.sentence_modules import SentenceModule as Module
from converter_sentence_transformers.source import USUAL, Config, SentenceTransformerSource
for folder, kind, modes in json.loads(sys.argv[1]):
    folder, (kind, _, nested) = Path(folder), kind.partition("/")
    pooling = {"embedding_dimension": 36, "pooling_mode": modes if len(modes) > 1 else "".join(modes)}
    modules = (
        Module("Transformer", "", {}),
        Module("Pooling", "1_Pooling", pooling),
        Module("Dense", "2_Dense", {"in_features": 36 * len(modes), "out_features": 16}),
        Module("Normalize", "3_Normalize", {}),
    )
    like = Config(CONFIG_MAPPING[kind](), modules) if modes else None
    SentenceTransformerSource().write_tiny(folder, like=like, seed=1, task=USUAL)
    # As published checkpoints name their modules; older releases do not know where newer ones keep them.
    listed = folder / "modules.json"
    older = re.sub(r"sentence_transformers\\.[a-z_.]+\\.", "sentence_transformers.models.", listed.read_text())
    listed.write_text(older)
    if nested:
        own = [file for file in folder.iterdir() if file.is_file() and file.name not in
               ("modules.json", "config_sentence_transformers.json")]
        (folder / nested).mkdir()
        for file in own:
            file.rename(folder / nested / file.name)
        listed.write_text(listed.read_text().replace('"path": ""', f'"path": "{nested}"'))
"""
ENCODE = """
import json, sys, numpy
from importlib.metadata import version
backend, folders, texts, suffix = sys.argv[1], *map(json.loads, sys.argv[2:4]), sys.argv[4]
if backend == "graph":
    from converter.runtime import Encoder as Model
    options = {}
else:
    from sentence_transformers import SentenceTransformer as Model
    options = {"backend": backend, "device": "cpu"}
    if backend == "onnx":
        options["model_kwargs"] = {"file_name": "onnx/model.onnx"}
for folder, target in folders:
    numpy.save(target + suffix, Model(folder, **options).encode(texts))
print(json.dumps({name: version(name) for name in ("sentence-transformers", "transformers")}))
"""


def run(python: Path, *argv: str | Path) -> str:
    """What a command prints last. Raises CalledProcessError, its words shown, where it fails."""
    environ = {**os.environ, "HF_HUB_OFFLINE": "1"}
    # -P: what lies in this folder is not what is installed.
    command = [python, "-P", *argv]
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    return (done.stdout.splitlines() or [""])[-1]


def encode(python: Path, backend: str, folders: Sequence[Path], targets: Sequence[Path]) -> dict[str, str]:
    """The vectors of every folder in `<target>.<backend>.npy`. Gives the versions of the libraries."""
    pairs = [(str(folder), str(target)) for folder, target in zip(folders, targets, strict=True)]
    said = run(python, "-c", ENCODE, backend, json.dumps(pairs), json.dumps(TEXTS), f".{backend}.npy")
    versions: dict[str, str] = json.loads(said)
    return versions


def distance(ours: Path, theirs: Path) -> tuple[float, float]:
    """Largest difference and least cosine."""
    first, second = np.load(ours), np.load(theirs)
    lengths = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(np.abs(first - second).max()), float(((first * second).sum(1) / lengths).min())


def rows(work: Path, names: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """A line of the table for each checkpoint, and whether it passed."""
    for number, name in enumerate(names):
        cells, passed = [name], True
        for backend in ("graph", "onnx"):
            found = distance(work / f"{number}.{backend}.npy", work / f"{number}.torch.npy")
            cells += [f"{found[0]:.1e}", f"{found[1]:.7f}"]
            passed = passed and found[0] < TOLERANCE
        yield f"| {' | '.join(cells)} |", passed


def check(work: Path, minilm: Path, maker: Path, client: Path) -> dict[str, str]:
    """Make, convert and encode everything. Gives the client's versions."""
    asked = [(str(work / f"{number}"), *made) for number, made in enumerate(MADE.values(), 1)]
    run(maker, "-c", MAKE, json.dumps(asked))
    checkpoints = [minilm, *(Path(folder) for folder, *_ in asked)]
    packages = [work / f"{number}.package" for number in range(len(checkpoints))]
    for name, checkpoint, package in zip([REAL, *MADE], checkpoints, packages, strict=True):
        print(f"converting {name}", flush=True)
        run(maker, "-m", "converter", "--model", checkpoint, "--output", package, "--quiet")
    targets = [work / str(number) for number in range(len(checkpoints))]
    encode(maker, "torch", checkpoints, targets)
    encode(maker, "graph", packages, targets)
    return encode(client, "onnx", packages, targets)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minilm", type=Path, required=True)
    parser.add_argument("--maker", type=Path, required=True)
    parser.add_argument("--client", type=Path, required=True)
    parser.add_argument("--write", action="store_true", help="put the table into the package's README")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        work, pythons = Path(scratch), (arguments.maker.absolute(), arguments.client.absolute())
        versions = check(work, arguments.minilm.resolve(), *pythons)
        found = list(rows(work, [REAL, *MADE]))
    table = "\n".join(
        [
            "| checkpoint | graph: largest difference | least cosine | backend: largest difference | least cosine |",
            "| --- | --- | --- | --- | --- |",
            *(line for line, _ in found),
        ]
    )
    print(table)
    if arguments.write:
        head, _, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
        used = ", ".join(f"{name} {number}" for name, number in versions.items())
        PAGE.write_text(f"{head}{MARK}\n\nThe ONNX backend is that of {used}:\n\n{table}\n", encoding="utf-8")
    return 0 if all(passed for _, passed in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
