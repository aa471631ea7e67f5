"""ColBERT checkpoints, in ColBERT's own layout and in PyLate's, against the classes that wrote them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import nn

from converter import convert
from converter.checkpoint import open_checkpoint
from converter.cli.main import run
from converter.plugins._projected import projections_of
from converter.recipes import read
from converter.registry import load_registry
from converter.request import ConversionRequest
from converter.seeding import seed_weights
from converter.selection import find_source

SIZES = {"vocab_size": 601, "num_hidden_layers": 3, "hidden_size": 36, "num_attention_heads": 3}
MASK = 4


class HF_ColBERT(transformers.BertPreTrainedModel):  # noqa: N801, the name that its checkpoints carry
    """The class of colbert-ir/colbertv2.0: an untouched BertModel and a matrix."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.bert = transformers.BertModel(config)
        self.linear = nn.Linear(config.hidden_size, 21, bias=False)
        self.post_init()

    def query(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        embeddings = self.linear(self.bert(ids, attention_mask=mask)[0])
        return nn.functional.normalize(embeddings * (ids != self.config.pad_token_id)[..., None], p=2, dim=2)


def graph(package: Path, **feed: torch.Tensor) -> Any:
    session = onnxruntime.InferenceSession(
        package / "onnx" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    assert [value.name for value in session.get_outputs()] == ["embeddings"]
    (embeddings,) = session.run(None, {name: tensor.numpy() for name, tensor in feed.items()})
    return embeddings


@pytest.fixture(scope="module")
def colbert(tmp_path_factory: pytest.TempPathFactory) -> tuple[HF_ColBERT, Path]:
    model = HF_ColBERT(transformers.BertConfig(**SIZES, intermediate_size=52, max_position_embeddings=40))
    seed_weights(model, 3)
    folder = tmp_path_factory.mktemp("colbert") / "checkpoint"
    model.save_pretrained(folder)
    return model.eval(), folder


@pytest.mark.xdist_group("colbert")
def test_queries_keep_their_mask_tokens_and_padding_is_zero(
    colbert: tuple[HF_ColBERT, Path], tmp_path: Path
) -> None:
    model, folder = colbert
    report = convert(model=folder, output=tmp_path / "package", parity="full")
    assert (report.architecture, report.parity.proven) == ("colbert", True)
    ids = torch.randint(5, 601, (3, 9), generator=torch.Generator().manual_seed(1))
    ids[0, 6:], ids[1, 3:] = MASK, 0
    mask = ((ids != MASK) & (ids != 0)).long()
    embeddings = graph(tmp_path / "package", input_ids=ids, attention_mask=mask)
    with torch.no_grad():
        assert np.abs(embeddings - model.query(ids, mask).numpy()).max() < 1e-5
    lengths = np.linalg.norm(embeddings, axis=-1)
    assert np.allclose(lengths, (ids != 0).numpy(), atol=1e-6)


def test_a_colbert_checkpoint_can_still_be_taken_as_bert(
    colbert: tuple[HF_ColBERT, Path], tmp_path: Path
) -> None:
    request = ConversionRequest(arch="bert", model=str(colbert[1]))
    architecture, checkpoint = find_source(request, load_registry(), tmp_path)
    assert architecture.name == "bert"
    assert "linear.weight" in checkpoint.tensors


@pytest.mark.parametrize("whole", [False, True], ids=["low-rank", "replaced"])
def test_an_adapter_changes_the_projection_too(
    whole: bool, colbert: tuple[HF_ColBERT, Path], tmp_path: Path
) -> None:
    """It had been converted as the base model has it, and the original had run without the change as well."""
    model, folder = colbert
    generator = torch.Generator().manual_seed(5)
    query = "bert.encoder.layer.1.attention.self.query"
    a, b = (torch.randn(3, 36, generator=generator) / 6 for _ in range(2))
    changed = {f"{query}.lora_A.weight": a, f"{query}.lora_B.weight": b.T.contiguous()}
    state = model.state_dict()
    state[f"{query}.weight"] = state[f"{query}.weight"] + 7 / 3 * b.T @ a
    if whole:
        changed["linear.weight"] = state["linear.weight"] = torch.randn(21, 36, generator=generator) / 6
    else:
        changed["linear.lora_A.weight"] = a.clone()
        changed["linear.lora_B.weight"] = torch.randn(21, 3, generator=generator)
        state["linear.weight"] = state["linear.weight"] + 7 / 3 * changed["linear.lora_B.weight"] @ a
    settings = {"peft_type": "LORA", "r": 3, "lora_alpha": 7, "base_model_name_or_path": str(folder)}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    named = {f"base_model.model.{name}": tensor for name, tensor in changed.items()}
    save_file(named, tmp_path / "adapter_model.safetensors")
    merged = HF_ColBERT(model.config).eval()
    merged.load_state_dict(state)

    request = ConversionRequest(model=str(tmp_path))
    architecture, checkpoint = find_source(request, load_registry(), tmp_path)
    assert architecture.name == "colbert"
    source: Any = architecture.source
    ids = torch.randint(5, 601, (2, 9), generator=generator)
    (part,) = architecture.components(source.config(checkpoint), "feature-extraction")
    with torch.no_grad():
        expected = merged.query(ids, torch.ones_like(ids))
        original = source.original(checkpoint, "feature-extraction", None)
        found = part.reference(original, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert (found["embeddings"] - expected).abs().max() < 1e-5
    skeleton = source.skeleton(source.config(checkpoint), "feature-extraction")
    recipe = source.key_mapping(skeleton, checkpoint)["projections.0.linear.weight"]
    assert np.abs(read(recipe) - state["linear.weight"].numpy()).max() < 1e-5


def test_a_pylate_folder_brings_its_chain_of_projections(tmp_path: Path) -> None:
    """ModernBERT with its high padding id, a biased activated layer, and one with a residual."""
    ids = dict.fromkeys(("pad_token_id", "cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id"), 600)
    config = transformers.ModernBertConfig(**SIZES, **ids, intermediate_size=52, local_attention=8)
    backbone = transformers.ModernBertModel(config).eval()
    first, second = nn.Linear(36, 28), nn.Linear(28, 13, bias=False)
    residual = nn.Linear(28, 13, bias=False)
    for number, module in enumerate((backbone, first, second, residual)):
        seed_weights(module, number)
    folder = tmp_path / "checkpoint"
    backbone.save_pretrained(folder)
    dense = [
        ("1_Dense", "torch.nn.modules.activation.GELU", False, {"linear": first}),
        (
            "2_Dense",
            "torch.nn.modules.linear.Identity",
            True,
            {"linear": second, "residual": residual},
        ),
    ]
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for index, (path, activation, adds, parts) in enumerate(dense, 1):
        modules.append({"idx": index, "name": str(index), "path": path, "type": "pylate.models.Dense.Dense"})
        (folder / path).mkdir()
        settings = {"activation_function": activation, "use_residual": adds}
        (folder / path / "config.json").write_text(json.dumps(settings))
        tensors = {
            f"{name}.{key}": tensor
            for name, part in parts.items()
            for key, tensor in part.state_dict().items()
        }
        save_file(tensors, folder / path / "model.safetensors")
    (folder / "modules.json").write_text(json.dumps(modules))

    report = convert(model=folder, output=tmp_path / "package", parity="full")
    assert (report.architecture, report.parity.proven) == ("colbert", True)
    tokens = torch.randint(5, 599, (2, 11), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(tokens)
    with torch.no_grad():
        middle = nn.functional.gelu(first(backbone(tokens, attention_mask=mask)[0]))
        expected = nn.functional.normalize(second(middle) + residual(middle), dim=-1).numpy()
    assert np.abs(graph(tmp_path / "package", input_ids=tokens, attention_mask=mask) - expected).max() < 1e-5


@pytest.mark.parametrize(
    ("behind", "widths"), [(["MultiVectorMask", "Normalize"], [13]), (["Normalize"], []), (["Pooling"], [])]
)
def test_a_multi_vector_encoder_of_sentence_transformers_brings_projections(
    behind: list[str], widths: list[int], tmp_path: Path
) -> None:
    """Its modules end in what the graph does with every vector; without them, or with a pooling, it is none."""
    kinds = ["Transformer", "Dense", *behind]
    paths = [f"{index}_{kind}" if index else "" for index, kind in enumerate(kinds)]
    listed = [
        {"type": f"sentence_transformers.{kind}", "path": path}
        for kind, path in zip(kinds, paths, strict=True)
    ]
    (tmp_path / "1_Dense").mkdir()
    save_file({"linear.weight": torch.zeros(13, 36)}, tmp_path / "1_Dense" / "model.safetensors")
    (tmp_path / "modules.json").write_text(json.dumps(listed))
    transformers.BertModel(transformers.BertConfig(**SIZES, intermediate_size=52)).save_pretrained(tmp_path)
    assert [entry.outputs for entry in projections_of(open_checkpoint(tmp_path))] == widths


def test_a_text_encoder_without_projection_is_no_colbert(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = transformers.BertModel(transformers.BertConfig(**SIZES, intermediate_size=52))
    model.save_pretrained(tmp_path / "checkpoint")
    target = tmp_path / "package"
    status = run(["--arch", "colbert", "--model", str(tmp_path / "checkpoint"), "--output", str(target)])
    assert status == 2
    assert "'colbert' does not own" in capsys.readouterr().err
    assert not target.exists()
