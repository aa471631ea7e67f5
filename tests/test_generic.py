"""What no plugin owns: any class of transformers, and code that a checkpoint brings itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from converter import convert
from converter.cli.main import run
from converter.errors import ExportError
from converter.plugins._probe import Prober
from converter.plugins._shrink import WAYS, shrunk, smaller

CONFIGURATION = """
from transformers import PretrainedConfig

class GatedConfig(PretrainedConfig):
    model_type = "gated_bag"

    def __init__(self, vocab_size=601, hidden_size=20, **rest):
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
        super().__init__(**rest)
"""
MODELING = """
import pathlib
import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput
from .configuration_gated import GatedConfig

pathlib.Path({mark!r}).touch()

class GatedModel(PreTrainedModel):
    config_class = GatedConfig

    def __init__(self, config):
        super().__init__(config)
        self.words = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.gate = torch.nn.Linear(config.hidden_size, config.hidden_size)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, **kwargs):
        hidden = self.words(input_ids)
        hidden = hidden * torch.sigmoid(self.gate(hidden.flip(1)))
        if attention_mask is not None:
            hidden = hidden * attention_mask[..., None]
        return BaseModelOutput(last_hidden_state=hidden)
"""


@pytest.fixture
def own_code(tmp_path: Path) -> Path:
    """A checkpoint with files of its own. Importing them leaves the file `imported` beside its folder."""
    folder = tmp_path / "gated"
    folder.mkdir()
    (folder / "configuration_gated.py").write_text(CONFIGURATION)
    (folder / "modeling_gated.py").write_text(MODELING.format(mark=str(tmp_path / "imported")))
    classes = {"AutoConfig": "configuration_gated.GatedConfig", "AutoModel": "modeling_gated.GatedModel"}
    entries = {"model_type": "gated_bag", "vocab_size": 601, "hidden_size": 20, "auto_map": classes}
    (folder / "config.json").write_text(json.dumps(entries))
    torch.manual_seed(3)
    tensors = {"words.weight": torch.randn(601, 20), "gate.weight": torch.randn(20, 20)}
    save_file({**tensors, "gate.bias": torch.randn(20)}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def modules_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """transformers copies a checkpoint's code before it imports it: into a folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        folder = str(tmp_path_factory.mktemp("modules"))
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", folder)
        yield


def test_own_code_is_refused_without_the_flag_and_not_imported(
    own_code: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["--model", str(own_code), "--output", str(tmp_path / "package")]) == 2
    message = capsys.readouterr().err
    assert "modeling_gated.py" in message and "--trust-remote-code" in message
    assert not (tmp_path / "imported").exists()
    assert not (tmp_path / "package").exists()


@pytest.mark.usefixtures("modules_cache")
@pytest.mark.parametrize("parity", ["full", "structural"])
def test_own_code_converts_with_the_flag(own_code: Path, tmp_path: Path, parity: Any) -> None:
    report = convert(
        model=own_code, output=tmp_path / "package", trust_remote_code=True, parity=parity, seed=1
    )
    assert (report.architecture, report.task) == ("gated_bag", "feature-extraction")
    assert report.parity.proven
    assert len({row.size for row in report.parity.comparisons}) >= 6


def test_a_class_of_transformers_without_a_plugin_is_converted(tmp_path: Path) -> None:
    report = convert(arch="fnet", tiny=True, output=tmp_path / "package", task="fill-mask")
    rows = report.parity.comparisons
    assert report.parity.proven and {row.output for row in rows} == {"logits"}
    lengths = {row.size.partition("sequence_length=")[2].partition(",")[0] for row in rows}
    assert "1" in lengths and len(lengths) >= 3


def test_a_type_nobody_knows_is_refused_with_near_misses(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--arch", "fnett", "--tiny", "--output", "nowhere"]) == 2
    assert "'fnet'" in capsys.readouterr().err


def test_a_task_that_transformers_has_no_class_for_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--arch", "fnet", "--task", "image-classification", "--tiny", "--output", "nowhere"]) == 2
    assert "fill-mask" in capsys.readouterr().err


# --- how a model is called, found by calling it ---


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


def test_an_input_that_says_nothing_is_named() -> None:
    with pytest.raises(ExportError, match="graph_edges"):
        Prober(Unheard(), SimpleNamespace()).plan()


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
