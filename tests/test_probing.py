"""How a model nobody described is called, found by calling it; how its config is made small."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForSequenceClassification

from converter import Size
from converter.errors import ExportError, UsageError
from converter.plugins._causal import probed
from converter.plugins._layouts import draw, image_sizes
from converter.plugins._probe import Plan, Prober
from converter.plugins._shrink import WAYS, shrunk, smaller
from converter.plugins.generic import GenericModel, plan_for


class Patches(nn.Module):
    """Images in whole patches of four, no smaller than two of them."""

    main_input_name = "pixel_values"

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        if pixel_values.shape[-1] % 4 or pixel_values.shape[-2] % 4:
            raise ValueError("not in whole patches")
        return {"last_hidden_state": pixel_values.unfold(2, 4, 4).unfold(3, 4, 4).flatten(2)}


class BoundToPatches(nn.Module):
    """A position for each of 6 x 6 patches; what is left over at the edges is dropped."""

    main_input_name = "pixel_values"

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.zeros(36))

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        return {
            "logits": pixel_values.unfold(2, 4, 4).unfold(3, 4, 4).mean((1, 4, 5)).flatten(1) + self.positions
        }


class OneSize(nn.Module):
    main_input_name = "pixel_values"

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": pixel_values.reshape(-1, 3, 24, 24).mean((2, 3))}


class Spectrum(nn.Module):
    """Frames last, as Whisper has them."""

    main_input_name = "input_features"

    def __init__(self) -> None:
        super().__init__()
        self.mel = nn.Linear(11, 6)

    def forward(self, input_features: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"last_hidden_state": self.mel(input_features.transpose(1, 2))}


class Unheard(nn.Module):
    def forward(self, graph_edges: torch.Tensor) -> torch.Tensor:
        return graph_edges


SMALL_DECODER = {
    "vocab_size": 601,
    "hidden_size": 24,
    "intermediate_size": 28,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
}
IMAGE = SimpleNamespace(image_size=24, patch_size=4, num_channels=3)


def test_an_axis_that_grows_in_steps_counts_them() -> None:
    plan = Prober(Patches(), IMAGE).plan()
    assert plan.units == {"height": 4, "width": 4}
    assert plan.inputs["pixel_values"].dims == ("batch_size", 3, "height", "width")
    assert all(axis.traced >= 2 for axis in plan.axes)


@pytest.mark.parametrize("model", [OneSize, BoundToPatches])
def test_an_axis_that_cannot_grow_is_a_number(model: type[nn.Module]) -> None:
    """A few pixels more, which stay within one patch, are no growth."""
    plan = Prober(model(), IMAGE).plan()
    assert plan.inputs["pixel_values"].dims == ("batch_size", 3, 24, 24)
    assert [axis.name for axis in plan.axes] == ["batch_size"]


def test_of_two_ways_round_the_one_the_model_takes_is_found() -> None:
    plan = Prober(Spectrum(), SimpleNamespace(num_mel_bins=11)).plan()
    assert plan.inputs["input_features"].dims == ("batch_size", 11, "num_frames")
    assert plan.outputs[0].axes == {0: "batch_size", 1: "num_frames"}


class Tokens(nn.Module):
    """A text of any length, or of seven tokens."""

    def __init__(self, length: int = 0) -> None:
        super().__init__()
        self.words, self.length = nn.Embedding(601, 6), length

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.length and input_ids.shape[1] != self.length:
            raise ValueError("of another length")
        return {"last_hidden_state": self.words(input_ids) * attention_mask[..., None]}


def test_no_bound_of_positions_is_none() -> None:
    """XLNet's config says -1."""
    plan = Prober(Tokens(), SimpleNamespace(vocab_size=601, max_position_embeddings=-1)).plan()
    assert next(axis for axis in plan.axes if axis.name == "sequence_length").high == 24


def test_a_mask_of_a_length_that_is_a_number_is_drawn() -> None:
    plan = Prober(Tokens(7), SimpleNamespace(vocab_size=601)).plan()
    assert plan.inputs["attention_mask"].dims == ("batch_size", 7)
    assert draw(plan.inputs, plan.units, Size({"batch_size": 3})).tensors["attention_mask"].shape == (3, 7)


def test_a_past_is_of_every_token_even_where_a_window_forgets() -> None:
    """Gemma 2 keeps as many tokens as its window has, in every second layer."""
    config = CONFIG_MAPPING["gemma2"](**SMALL_DECODER, sliding_window=4, query_pre_attn_scalar=12)
    model = AutoModelForCausalLM.from_config(config).eval()
    assert probed(model, config, None).layers == ((2, 12, 12), (2, 12, 12))


def test_experts_of_a_large_model_are_probed_without_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch 2.13 knows no shapes of its grouped product in float32, and Nemotron-H was refused."""
    monkeypatch.setattr("converter.plugins.generic.REAL_PARAMETERS", 0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2}
    experts = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 20, "vocab_size": 601}
    config = CONFIG_MAPPING["qwen3_moe"](**sizes, **experts, head_dim=8, pad_token_id=0)
    source = GenericModel({"feature-extraction": "AutoModel"}, {}, "qwen3_moe")
    plan = plan_for(source, config, "feature-extraction")
    assert isinstance(plan, Plan) and "input_ids" in plan.inputs


def test_an_input_that_says_nothing_is_named() -> None:
    with pytest.raises(ExportError, match="graph_edges"):
        Prober(Unheard(), SimpleNamespace()).plan()


def test_a_classifier_over_a_decoder_without_padding_is_refused_with_what_to_write(tmp_path: Path) -> None:
    sizes = {"vocab_size": 61, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = CONFIG_MAPPING["falcon"](**sizes)
    assert config.pad_token_id is None
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with pytest.raises(UsageError, match="names no padding") as caught:
        Prober(model, config).plan()
    assert "pad_token_id" in str(caught.value.remedy)
    # A small one, as `converter list --arch falcon` makes it, is given one.
    source = GenericModel(
        {"text-classification": "AutoModelForSequenceClassification"}, {}, "falcon", depth=2
    )
    source.write_tiny(tmp_path, like=config, seed=1, task="text-classification")
    assert json.loads((tmp_path / "config.json").read_text())["pad_token_id"] == 0


def test_a_config_shrinks_in_depth_and_width_and_keeps_its_kind() -> None:
    large = {
        "model_type": "x",
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "vocab_size": 50000,
        "eos_token_id": 49999,
        "layer_types": ["full"] * 12,
        "hidden_act": "gelu",
        "text_config": {"hidden_size": 512},
        "depths": [2, 2, 18, 2],
        "hidden_sizes": [96, 192, 384, 768],
    }
    small = shrunk(large, depth=3)
    assert (small["hidden_size"], small["num_hidden_layers"], small["num_attention_heads"]) == (32, 3, 4)
    assert small["vocab_size"] == 601 and small["eos_token_id"] < 601
    assert "layer_types" not in small and small["hidden_act"] == "gelu"
    assert small["text_config"] == {"hidden_size": 32}
    assert small["depths"] == [1, 2, 1, 2] and small["hidden_sizes"] == [8, 16, 32, 64]
    assert shrunk(large, WAYS[-1])["hidden_size"] == 768


def test_a_width_for_each_layer_stays_one_for_each() -> None:
    """Gemma 3n lists them."""
    large = {"num_hidden_layers": 30, "intermediate_size": [8192] * 20 + [4096] * 10}
    assert shrunk(large, depth=2) == {"num_hidden_layers": 2, "intermediate_size": [52, 52]}


def test_smaller_configs_keep_together_what_hangs_together() -> None:
    large = {
        "model_type": "x",
        "hidden_size": 1024,
        "num_hidden_layers": 8,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 64,
        "qk_rope_head_dim": 64,
        "num_experts": None,
        "widths": [64, 128],
        "channel_widths": [64, 128],
        "ffn_sizes": [512, 512, 512, 512, 2048, 2048, 2048, 2048],
        "per_layer_config": {"1": {"head_dim": 8}, "7": {"head_dim": 16}},
        "rope_parameters": {"mrope_section": [8, 12, 12]},
    }
    plain, alike, divided, fewer_heads, *_ = smaller(large, depth=2)
    assert (plain["num_key_value_heads"], plain["num_attention_heads"]) == (2, 4)
    assert plain["rope_parameters"]["mrope_section"] == [2, 1, 1] and plain["num_experts"] is None
    assert alike["num_key_value_heads"] == alike["num_attention_heads"]
    assert alike["head_dim"] == alike["qk_rope_head_dim"] and alike["num_experts"] == 5
    assert alike["ffn_sizes"] == [512, 2048]
    assert alike["per_layer_config"] == {"1": {"head_dim": 8}}
    assert divided["hidden_size"] == 64 == divided["num_attention_heads"] * divided["head_dim"]
    assert divided["channel_widths"] == [4, 8]
    assert (fewer_heads["num_attention_heads"], fewer_heads["head_dim"]) == (1, 64)
    assert fewer_heads["hidden_size"] == 64


def test_a_backbone_has_a_layer_for_each_output_that_is_asked_for() -> None:
    large = {
        "num_hidden_layers": 24,
        "stage_names": ["stem", *(f"stage{n}" for n in range(1, 25))],
        "out_features": ["stage6", "stage12", "stage18", "stage24"],
        "out_indices": [6, 12, 18, 24],
    }
    assert shrunk({"backbone_config": large}, depth=2) == {
        "backbone_config": {"num_hidden_layers": 4, "out_indices": [1, 2, 3, 4]}
    }


def test_outputs_asked_of_few_layers_are_of_different_ones() -> None:
    large = {"num_hidden_layers": 12, "out_indices": [3, 4, 5, 12]}
    assert shrunk(large, depth=2) == {"num_hidden_layers": 4, "out_indices": [1, 2, 3, 4]}


def test_stages_stay_as_many_as_they_are() -> None:
    large = {"depths": [2, 2, 18, 2], "num_layers": 4, "out_features": ["stage2"], "out_indices": [2]}
    small = shrunk(large, depth=2)
    assert (
        small["depths"] == [1, 2, 1, 2]
        and small["out_indices"] == [2]
        and small["out_features"] == ["stage2"]
    )


class Stacked(nn.Module):
    """Frames of which three are put together, so that its config's number of bins is not what it takes."""

    main_input_name = "input_features"

    def __init__(self) -> None:
        super().__init__()
        self.mel = nn.Linear(33, 6)

    def forward(self, input_features: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"last_hidden_state": self.mel(input_features)}


def test_a_width_that_the_config_does_not_tell_is_read_off_the_first_layer() -> None:
    plan = Prober(Stacked(), SimpleNamespace(num_mel_bins=11)).plan()
    assert plan.inputs["input_features"].dims == ("batch_size", "num_frames", 33)


def test_images_are_as_high_and_as_wide_as_the_backbone_wants_them() -> None:
    """VitPose has its size there alone, and it is no square."""
    assert image_sizes(CONFIG_MAPPING["vitpose"]())[0] == (256, 192)
