"""The peer: what a user writes without this project. Load, torch.onnx.export, save.

python scripts/plain_export.py CHECKPOINT OUTPUT
"""

import sys
from pathlib import Path

import torch
import transformers

source, target = sys.argv[1:]
config = transformers.AutoConfig.from_pretrained(source)
model = getattr(transformers, config.architectures[0]).from_pretrained(source, dtype=torch.float32).eval()
if hasattr(config, "image_size"):
    inputs = {"pixel_values": torch.zeros(2, 3, config.image_size, config.image_size)}
    shapes = {"pixel_values": {0: "batch_size"}}
else:
    ids, mask = torch.ones(2, 7, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64)
    axes = {0: "batch_size", 1: "sequence_length"}
    shapes = {"input_ids": axes, "attention_mask": axes}
    inputs = {"input_ids": ids, "attention_mask": mask}
if hasattr(config, "use_cache"):
    model.config.use_cache = False
Path(target).mkdir(parents=True)
torch.onnx.export(
    model, (), kwargs=inputs, dynamic_shapes=shapes, dynamo=True, f=str(Path(target) / "model.onnx")
)
