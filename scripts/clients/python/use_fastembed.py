"""fastembed with a local custom model."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType
from jobs import answer, graph


def run(folder: Path, case: dict[str, Any]) -> dict[str, Any]:
    name = f"local/{folder.name}-{case['precision']}"
    TextEmbedding.add_custom_model(
        model=name,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(url="https://localhost"),  # required, and not asked: the folder is given
        dim=384,
        model_file=f"onnx/{graph('model', case['precision'])}",
    )
    vectors = list(TextEmbedding(name, specific_model_path=str(folder)).embed(case["inputs"]["texts"]))
    return {"values": [float(value) for value in np.concatenate(vectors)]}


answer(version("fastembed"), run)
