"""What no plugin owns: any class of transformers, and code that a checkpoint brings itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import UdopConfig, UdopEncoderModel

from converter import convert
from converter.cli.main import run

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

# Written before transformers 5.24 called the cache `cache`.
CAUSAL = """
import torch
from transformers import GenerationMixin, LlamaConfig, LlamaModel, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

class OlderConfig(LlamaConfig):
    model_type = "older_llama"

class OlderForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = OlderConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.lm_head = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, position_ids=None, past_key_values=None, use_cache=None, **rest):
        made = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
        )
        return CausalLMOutputWithPast(logits=self.lm_head(made[0]), past_key_values=made.past_key_values)
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


@pytest.mark.usefixtures("modules_cache")
def test_own_code_that_knows_the_cache_by_its_older_name_generates_as_its_own_steps_do(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tmp_path / "older"
    shutil.copytree(tiny_checkpoint("llama", overrides={"num_hidden_layers": 3}), folder)
    (folder / "older.py").write_text(CAUSAL)
    entries = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "older.OlderConfig", "AutoModelForCausalLM": "older.OlderForCausalLM"}
    entries |= {"model_type": "older_llama", "architectures": ["OlderForCausalLM"], "auto_map": classes}
    (folder / "config.json").write_text(json.dumps(entries))
    report = convert(model=folder, output=tmp_path / "package", trust_remote_code=True, parity="full")
    assert (report.architecture, report.task) == ("older_llama", "text-generation-with-past")
    assert report.parity.proven
    assert {"tokens", "logits"} <= {row.output for row in report.parity.comparisons}


def test_a_class_of_transformers_without_a_plugin_is_converted(tmp_path: Path) -> None:
    report = convert(arch="fnet", tiny=True, output=tmp_path / "package", task="fill-mask")
    rows = report.parity.comparisons
    assert report.parity.proven and {row.output for row in rows} == {"logits"}
    lengths = {row.size.partition("sequence_length=")[2].partition(",")[0] for row in rows}
    assert "1" in lengths and len(lengths) >= 3


def test_a_model_that_sorts_its_inputs_by_their_values_is_refused_before_tracing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"vocab_size": 601, "d_model": 32, "d_kv": 8, "d_ff": 52, "num_layers": 2, "num_heads": 4}
    model: Any = UdopEncoderModel(UdopConfig(**sizes, image_size=16, patch_size=4))
    model.save_pretrained(tmp_path / "udop")
    assert run(["--model", str(tmp_path / "udop"), "--output", str(tmp_path / "package")]) == 1
    message = capsys.readouterr().err
    assert "patches in which no text stands" in message and "docs/plugins.md" in message
    assert not (tmp_path / "package").exists()


def test_a_type_nobody_knows_is_refused_with_near_misses(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--arch", "fnett", "--tiny", "--output", "nowhere"]) == 2
    assert "'fnet'" in capsys.readouterr().err


def test_a_task_that_transformers_has_no_class_for_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--arch", "fnet", "--task", "image-classification", "--tiny", "--output", "nowhere"]) == 2
    assert "fill-mask" in capsys.readouterr().err
