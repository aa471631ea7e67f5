"""From a name to a folder: local folders, the hub's cache, a small hub on this machine, and no hub at all."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from hub_kit import COMMIT, FETCHED, FakeHub, UseEndpoint, Write, files_of
from huggingface_hub import constants

from converter.checkpoints import hub
from converter.checkpoints.companions import choose_files
from converter.checkpoints.download import resolve_model
from converter.errors import CheckpointError, UsageError

# --- local -----------------------------------------------------------------------------------------------


def test_folder_is_taken_as_it_is(tmp_path: Path, checkpoint: Write) -> None:
    folder = checkpoint(tmp_path / "mini")
    assert resolve_model(str(folder), reference="org/other") == (folder, "mini", None)


def test_folder_in_the_hub_cache_knows_its_source(tmp_path: Path, checkpoint: Write) -> None:
    folder = checkpoint(tmp_path / "models--org--name" / "snapshots" / COMMIT)
    assert resolve_model(str(folder)) == (folder, "org/name", COMMIT)


@pytest.mark.parametrize(
    "name", ["/nowhere/model", "./model", "~/no-such-model", "models/bert/base", "..\\model"]
)
def test_path_that_does_not_exist_is_said_at_once(name: str) -> None:
    with pytest.raises(CheckpointError, match="there is no folder"):
        resolve_model(name)


def test_file_as_model_names_its_folder(tmp_path: Path, checkpoint: Write) -> None:
    checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="is a file") as caught:
        resolve_model(str(tmp_path / "model.safetensors"))
    assert f"--model {tmp_path}" in caught.value.remedy


def test_revision_of_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no revision v2"):
        resolve_model(str(tmp_path), revision="v2")


def test_no_model_at_all_is_refused() -> None:
    with pytest.raises(UsageError, match="no model"):
        resolve_model(None)


@pytest.mark.parametrize("name", ["a b", "org/name--x", "bert?"])
def test_name_that_is_no_hub_id_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="neither a folder nor a hub id"):
        resolve_model(name)


# --- the hub ---------------------------------------------------------------------------------------------


def test_hub_model_is_fetched_without_duplicates(tmp_path: Path, fake_hub: FakeHub) -> None:
    folder, source, revision = resolve_model("org/name", cache_dir=tmp_path)
    assert (source, revision) == ("org/name", COMMIT)
    assert files_of(folder) == FETCHED
    assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_reference_checkpoint_stands_in_for_no_model(tmp_path: Path, fake_hub: FakeHub) -> None:
    assert resolve_model(None, reference="org/name", cache_dir=tmp_path)[1] == "org/name"


def test_cached_model_serves_when_the_hub_fails(tmp_path: Path, fake_hub: FakeHub) -> None:
    first = resolve_model("org/name", cache_dir=tmp_path)
    fake_hub.status = 503
    assert resolve_model("org/name", cache_dir=tmp_path) == first


def test_cached_model_serves_offline_without_asking(
    tmp_path: Path, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = resolve_model("org/name", cache_dir=tmp_path)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    fake_hub.served.clear()
    assert resolve_model("org/name", cache_dir=tmp_path) == first
    assert fake_hub.served == []


def test_half_cached_model_does_not_serve(tmp_path: Path, fake_hub: FakeHub) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    fake_hub.files = {
        "config.json": b"{}",
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-00001-of-00002.safetensors": b"half",
    }
    resolve_model("org/name", cache_dir=tmp_path)
    fake_hub.status = 503
    with pytest.raises(CheckpointError, match="cannot be reached"):
        resolve_model("org/name", cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (401, "RepoNotFound", "no model of that name, or it is private"),
        (404, "RepoNotFound", "no model of that name, or it is private"),
        (403, "GatedRepo", "gated"),
        (404, "RevisionNotFound", "no revision 'v2'"),
        (401, "", "private|refuses the token"),
        (403, "", "refuses the token"),
        (503, "", "cannot be reached"),
    ],
)
def test_refusal_of_the_hub_has_its_own_words(
    tmp_path: Path, fake_hub: FakeHub, status: int, code: str, says: str
) -> None:
    fake_hub.status, fake_hub.error_code = status, code
    with pytest.raises(CheckpointError, match=says) as caught:
        resolve_model("org/name", revision="v2", token="hf_wrong", cache_dir=tmp_path)
    assert caught.value.remedy
    assert "hf_wrong" not in str(caught.value)


def test_pickled_model_is_not_even_fetched_unless_allowed(tmp_path: Path, fake_hub: FakeHub) -> None:
    del fake_hub.files["model.safetensors"]
    with pytest.raises(CheckpointError, match="pickled"):
        resolve_model("org/name", cache_dir=tmp_path, allow_pickle=False)
    assert not any("pytorch_model" in path for path in fake_hub.served)
    folder, _, _ = resolve_model("org/name", cache_dir=tmp_path)
    assert (folder / "pytorch_model.bin").is_file()


def test_model_without_weights_is_refused(tmp_path: Path, fake_hub: FakeHub) -> None:
    fake_hub.files = {"config.json": b"{}", "tf_model.h5": b""}
    with pytest.raises(CheckpointError, match="neither safetensors"):
        resolve_model("org/name", cache_dir=tmp_path)


def test_hub_out_of_reach_names_the_ways_without_it(tmp_path: Path, no_hub: None) -> None:
    with pytest.raises(CheckpointError, match="cannot be reached") as caught:
        resolve_model(None, reference="org/name", cache_dir=tmp_path)
    assert "--model PATH" in caught.value.remedy
    assert "--tiny" in caught.value.remedy


def test_hub_that_accepts_and_never_answers_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, use_endpoint: UseEndpoint
) -> None:
    monkeypatch.setattr(hub, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        use_endpoint(silent.getsockname()[1])
        with pytest.raises(CheckpointError, match="cannot be reached"):
            resolve_model("org/name", cache_dir=tmp_path)


def test_offline_without_a_cached_copy_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE is set"):
        resolve_model("org/name", cache_dir=tmp_path)


def test_download_that_breaks_off_says_to_run_again(
    tmp_path: Path, fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **options: object) -> str:
        raise ConnectionResetError("by peer")

    monkeypatch.setattr("huggingface_hub.snapshot_download", broken)
    with pytest.raises(CheckpointError, match="was interrupted") as caught:
        resolve_model("org/name", cache_dir=tmp_path)
    assert "run it again" in caught.value.remedy


# --- choosing files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin", "consolidated.safetensors"], ["model.safetensors"]),
        (["model.safetensors", "model.fp16.safetensors"], ["model.safetensors"]),
        (["adapter_model.safetensors"], ["adapter_model.safetensors"]),
        (
            ["model-00001-of-00001.safetensors", "model.safetensors.index.json"],
            ["model-00001-of-00001.safetensors", "model.safetensors.index.json"],
        ),
        (
            ["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json", "training_args.bin"],
            ["pytorch_model-00001-of-00001.bin", "pytorch_model.bin.index.json"],
        ),
        (
            ["2_Dense/model.safetensors", "model.safetensors"],
            ["2_Dense/model.safetensors", "model.safetensors"],
        ),
        (
            ["0_Transformer/pytorch_model.bin", "0_Transformer/rust_model.ot"],
            ["0_Transformer/pytorch_model.bin"],
        ),
        (
            ["0_Transformer/model.safetensors", "0_Transformer/pytorch_model.bin"],
            ["0_Transformer/model.safetensors"],
        ),
    ],
)
def test_weights_are_chosen_once(weights: list[str], chosen: list[str]) -> None:
    assert choose_files(weights) == chosen
