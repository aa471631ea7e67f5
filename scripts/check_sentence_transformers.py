"""Load what converter-sentence-transformers makes with sentence-transformers' ONNX backend, and compare.

    python scripts/check_sentence_transformers.py --minilm FOLDER --maker PYTHON --client PYTHON [--write]

PYTHON is one of a virtual environment: the maker's has the converter and the package, the client's has an older
sentence-transformers with optimum-onnx, which does not work with the transformers that the converter needs. `make
check-sentence-transformers` installs both. The vectors of SentenceTransformer.encode on the untouched checkpoint are
compared with those of `SentenceTransformer(package, backend="onnx").encode`. The exit code is 1 if any differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

PAGE = Path(__file__).parents[1] / "tests" / "packages" / "converter-sentence-transformers" / "README.md"
MARK = "<!-- written by `make check-sentence-transformers` -->"
TOLERANCE = 1e-5
TEXTS = ["w7 w8 w9 w100", "A short one.", "The quick brown fox jumps over the lazy dog.", "w1 " * 90]

# name -> (encoder, what pooling and the modules behind it are)
MADE = {
    "bert, all six modes, Dense, LayerNorm, Normalize": "bert",
    "bert in a folder of its own, all six modes, Dense, LayerNorm, Normalize": "bert/0_Transformer",
    "distilbert, mean and lasttoken, Dense, Normalize": "distilbert",
    "mpnet, mean and lasttoken, Dense, Normalize": "mpnet",
    "xlm-roberta, mean and lasttoken, Dense, Normalize": "xlm-roberta",
}
MAKE = """
import re, sys
from pathlib import Path
from transformers import CONFIG_MAPPING
from converter.sentence_modules import SentenceModule as Module
from converter_sentence_transformers.source import USUAL, Config, SentenceTransformerSource
folder, kind = sys.argv[1:]
kind, _, nested = kind.partition("/")
pooling = {"embedding_dimension": 36, "pooling_mode": ["mean", "lasttoken"]}
modules = (
    Module("Transformer", "", {}),
    Module("Pooling", "1_Pooling", pooling),
    Module("Dense", "2_Dense", {"in_features": 72, "out_features": 16}),
    Module("Normalize", "3_Normalize", {}),
)
like = None if kind == "bert" else Config(CONFIG_MAPPING[kind](), modules)
SentenceTransformerSource().write_tiny(Path(folder), like=like, seed=1, task=USUAL)
# As published checkpoints name their modules; older releases do not know where newer ones keep them.
listed = Path(folder) / "modules.json"
listed.write_text(re.sub(r"sentence_transformers\\.[a-z_.]+\\.", "sentence_transformers.models.", listed.read_text()))
if nested:
    own = [file for file in Path(folder).iterdir() if file.is_file() and file.name not in
           ("modules.json", "config_sentence_transformers.json")]
    (Path(folder) / nested).mkdir()
    for file in own:
        file.rename(Path(folder) / nested / file.name)
    listed.write_text(listed.read_text().replace('"path": ""', f'"path": "{nested}"'))
"""
ENCODE = """
import json, sys, numpy
from importlib.metadata import version
from sentence_transformers import SentenceTransformer
folder, backend, texts, target = sys.argv[1:]
options = {"file_name": "onnx/model.onnx"} if backend == "onnx" else {}
model = SentenceTransformer(folder, backend=backend, model_kwargs=options, device="cpu")
numpy.save(target, model.encode(json.loads(texts)))
print(json.dumps({name: version(name) for name in ("sentence-transformers", "transformers")}))
"""


def run(python: Path, *argv: str | Path) -> str:
    """What a command prints last. Raises CalledProcessError, its words shown, where it fails."""
    environ = {**os.environ, "HF_HUB_OFFLINE": "1"}
    # -P: what lies in this folder is not what is installed.
    command = [python, "-P", *argv]
    done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True)
    return (done.stdout.splitlines() or [""])[-1]


def check(checkpoint: Path, work: Path, maker: Path, client: Path) -> tuple[float, float, dict[str, str]]:
    """Largest difference and least cosine between both encodings, and the client's versions."""
    run(maker, "-m", "converter", "--model", checkpoint, "--output", work / "package", "--quiet")
    run(maker, "-c", ENCODE, checkpoint, "torch", json.dumps(TEXTS), work / "torch.npy")
    versions = json.loads(
        run(client, "-c", ENCODE, work / "package", "onnx", json.dumps(TEXTS), work / "onnx.npy")
    )
    ours, theirs = np.load(work / "onnx.npy"), np.load(work / "torch.npy")
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return float(np.abs(ours - theirs).max()), float(((ours * theirs).sum(1) / lengths).min()), versions


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minilm", type=Path, required=True)
    parser.add_argument("--maker", type=Path, required=True)
    parser.add_argument("--client", type=Path, required=True)
    parser.add_argument("--write", action="store_true", help="put the table into the package's README")
    arguments = parser.parse_args()
    lines = ["| checkpoint | largest difference | least cosine |", "| --- | --- | --- |"]
    passed, versions = True, {}
    for name, kind in {"all-MiniLM-L6-v2, the real one": "", **MADE}.items():
        with tempfile.TemporaryDirectory() as scratch:
            checkpoint = Path(scratch) / "checkpoint" if kind else arguments.minilm.resolve()
            if kind:
                run(arguments.maker, "-c", MAKE, checkpoint, kind)
            difference, cosine, versions = check(
                checkpoint, Path(scratch), arguments.maker.absolute(), arguments.client.absolute()
            )
        passed = passed and difference < TOLERANCE
        lines.append(f"| {name} | {difference:.1e} | {cosine:.7f} |")
        print(lines[-1], flush=True)
    if arguments.write:
        head, _, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
        used = ", ".join(f"{name} {number}" for name, number in versions.items())
        table = "\n".join(lines)
        PAGE.write_text(f"{head}{MARK}\n\nRead by {used}:\n\n{table}\n", encoding="utf-8")
    return 0 if passed else 1


if __name__ == "__main__":
    raise SystemExit(main())
