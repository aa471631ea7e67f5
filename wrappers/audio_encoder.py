"""Audio encoders of one signature: samples or spectra in, hidden states or a head's logits out."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class AudioEncoder(nn.Module):
    """Calls the model by name and returns the named fields of its output, in order."""

    def __init__(self, model: nn.Module, fields: tuple[str, ...]) -> None:
        super().__init__()
        self.model = model
        self.fields = fields

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`input_values` (batch, samples) or `input_features` (batch, frames, bins), and a mask where there is one."""
        output = self.model(**inputs)
        return tuple(output[field] for field in self.fields)


class SpeakerEncoder(nn.Module):
    """An x-vector head that pools each row over its own frames at once; the original does so row by row."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.encoder = model.base_model

    def forward(self, **inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs as of `AudioEncoder` -> logits (batch, speakers), embeddings (batch, dim)."""
        model = self.model
        weighted = model.config.use_weighted_layer_sum
        output = self.encoder(**inputs, output_hidden_states=weighted)
        hidden = output.last_hidden_state
        if weighted:
            shares = torch.softmax(model.layer_weights, dim=-1)
            hidden = (torch.stack(output.hidden_states, dim=1) * shares.view(-1, 1, 1)).sum(dim=1)
        hidden = model.projector(hidden)
        for layer in model.tdnn:
            hidden = layer(hidden)
        mask = inputs.get("attention_mask")
        if mask is None:
            real = hidden.new_ones(hidden.shape[:2])
        else:
            lengths = model._get_tdnn_output_lengths(model._get_feat_extract_output_lengths(mask.sum(dim=1)))
            real = (torch.arange(hidden.shape[1], device=mask.device) < lengths[:, None]).to(hidden.dtype)
        embeddings = model.feature_extractor(pooled_statistics(hidden, real))
        return model.classifier(embeddings), embeddings


def pooled_statistics(hidden: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Mean and sample deviation over the frames where `real` is 1: (batch, frames, dim) -> (batch, 2 * dim)."""
    real = real[..., None]
    count = real.sum(dim=1)
    mean = (hidden * real).sum(dim=1) / count
    squares = ((hidden - mean[:, None]) * real).square().sum(dim=1)
    return torch.cat([mean, torch.sqrt(squares / (count - 1))], dim=-1)
