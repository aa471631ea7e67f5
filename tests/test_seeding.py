"""Random weights: every scale is around what leaves its input as large as it was."""

from __future__ import annotations

import pytest
import torch
from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from converter.seeding import seed_weights


@pytest.mark.parametrize("norm", [GemmaRMSNorm, LlamaRMSNorm])  # x * (1 + weight), x * weight
def test_norms_keep_the_scale_whichever_way_they_count(norm: type[torch.nn.Module]) -> None:
    module = norm(400)
    seed_weights(module, 0)
    rows = torch.randn(50, 400, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert 0.9 < float(module(rows).std()) < 1.1
        assert float(module(torch.ones(1, 400)).std()) > 0.05, "scales vary"
