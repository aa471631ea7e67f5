"""What merging a LoRA adapter costs: a base model converted alone and with an adapter, and peft's merge, in one run.

    python scripts/bench_adapter.py [--work FOLDER]

The base is the Qwen2 0.5B of scripts/bench_export.py; the adapter has rank 32 over all matrices of its layers.
Prints a Markdown table; the ratio is to the base's weights as stored. Parity is off, whose memory is in the table of
scripts/bench_export.py. peft loads, merges and saves, in float32 as ours and in the stored type; it exports nothing.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from pathlib import Path

import torch
from bench_export import MODELS, checkpoint, folder_bytes
from measure import measure
from safetensors import safe_open
from safetensors.torch import save_file

MODEL = "qwen2-0.5b"
RANK = 32
MERGE = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
base, adapter, output, dtype = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, dtype))
PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(output)
"""


def write_adapter(base: Path, folder: Path) -> None:
    """Over every matrix of a numbered layer, as peft lays it out."""
    tensors: dict[str, torch.Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    for file in sorted(base.glob("*.safetensors")):
        with safe_open(file, "pt") as stored:
            for name in stored.keys():  # noqa: SIM118
                shape = stored.get_slice(name).get_shape()
                if ".layers." not in name or len(shape) != 2:
                    continue
                path = f"base_model.model.{name.removesuffix('.weight')}"
                a = torch.randn(RANK, shape[1], generator=generator)
                b = torch.randn(shape[0], RANK, generator=generator)
                tensors[f"{path}.lora_A.weight"] = a / math.sqrt(shape[1])
                tensors[f"{path}.lora_B.weight"] = b / RANK
    folder.mkdir(parents=True)
    chosen = sorted({name.split(".")[-3] for name in tensors})
    entries = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "bias": "none", "target_modules": chosen}
    entries["base_model_name_or_path"] = str(base.resolve())
    (folder / "adapter_config.json").write_text(json.dumps(entries, indent=1))
    save_file(tensors, folder / "adapter_model.safetensors")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--work", type=Path, default=Path("/tmp/converter-bench"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    base = checkpoint(MODEL, arguments.work)
    adapter, output = arguments.work / f"{base.name}-adapter", arguments.work / "out-adapter"
    if not adapter.exists():
        write_adapter(base, adapter)
    ours = [sys.executable, "-m", "converter", "--output", str(output)]
    options = [*MODELS[MODEL][1], "--parity", "off"]  # the last --parity counts
    alone = [*ours, "--model", str(base), *options]
    merged = [*ours, "--model", str(adapter), "--base-model", str(base), *options]
    peft = [sys.executable, "-c", MERGE, str(base), str(adapter), str(output)]
    commands = {
        "converter, base alone": alone,
        "converter, base and adapter": merged,
        "peft in float32": [*peft, "float32"],
        "peft in bfloat16": [*peft, "bfloat16"],
    }
    weights = folder_bytes(base)
    print(f"{MODEL}: {weights / 1e6:.0f} MB as stored, adapter {folder_bytes(adapter) / 1e6:.0f} MB\n")
    print(
        "| what | wall s | resident MB | anonymous MB | output MB | resident / weights |\n" + "|---" * 6 + "|"
    )
    for name, command in commands.items():
        shutil.rmtree(output, ignore_errors=True)
        result = measure(command)
        if result.code != 0:
            print(f"| {name} | failed: {result.output.strip().splitlines()[-1][:80]} | | | | |")
            continue
        cells = [result.wall, result.resident / 1e6, result.anonymous / 1e6, folder_bytes(output) / 1e6]
        row = " | ".join(f"{cell:.0f}" for cell in cells)
        print(f"| {name} | {row} | {result.resident / weights:.2f} |", flush=True)


if __name__ == "__main__":
    main()
