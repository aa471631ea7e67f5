"""The peer: what a user writes without this project. Load, torch.onnx.export, save.

python scripts/plain_export.py CHECKPOINT OUTPUT
"""

import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

source, target = sys.argv[1:]
auto = (
    AutoModelForCausalLM if "CausalLM" in str(AutoConfig.from_pretrained(source).architectures) else AutoModel
)
model = auto.from_pretrained(source, dtype=torch.float32).eval()
ids, mask = torch.ones(2, 7, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64)
axes = {0: "batch_size", 1: "sequence_length"}
shapes = {"input_ids": axes, "attention_mask": axes}
inputs = {"input_ids": ids, "attention_mask": mask}
extra = {"use_cache": False} if auto is AutoModelForCausalLM else {}
if extra:
    model.config.use_cache = False
Path(target).mkdir(parents=True)
torch.onnx.export(
    model, (), kwargs=inputs, dynamic_shapes=shapes, dynamo=True, f=str(Path(target) / "model.onnx")
)
