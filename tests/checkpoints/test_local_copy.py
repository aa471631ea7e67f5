"""A local copy of a checkpoint: what it holds, and what is not fetched or copied."""

from __future__ import annotations

from pathlib import Path

import pytest
from hub_kit import COMMIT, FETCHED, FakeHub, Write, files_of

from converter.checkpoints.download import download, resolve_model
from converter.errors import CheckpointError, PackageError, UsageError
from converter.packages.package import inspect_package, stage_package


def test_local_copy_has_no_links_and_knows_its_source(tmp_path: Path, fake_hub: FakeHub) -> None:
    output = download("org/name", tmp_path / "copy", cache_dir=tmp_path / "cache")
    assert files_of(output) == FETCHED | {"converter.json"}
    assert not any(path.is_symlink() for path in output.rglob("*"))
    assert resolve_model(str(output)) == (output, "org/name", COMMIT)


def test_local_copy_of_a_folder_takes_the_same_files(tmp_path: Path, checkpoint: Write) -> None:
    output = download(str(checkpoint(tmp_path / "mini")), tmp_path / "copy")
    assert files_of(output) == FETCHED | {"converter.json"}


def test_local_copy_is_replaced_only_with_overwrite(tmp_path: Path, checkpoint: Write) -> None:
    source = str(checkpoint(tmp_path / "mini"))
    download(source, tmp_path / "copy")
    with pytest.raises(UsageError, match="--overwrite"):
        download(source, tmp_path / "copy")
    download(source, tmp_path / "copy", overwrite=True)


def test_refused_output_is_said_before_anything_is_fetched(tmp_path: Path, fake_hub: FakeHub) -> None:
    (tmp_path / "copy").write_text("a file")
    with pytest.raises(UsageError, match="is a file"):
        download("org/name", tmp_path / "copy", cache_dir=tmp_path / "cache")
    assert fake_hub.served == []


def test_conversion_never_overwrites_a_local_copy(tmp_path: Path, checkpoint: Write) -> None:
    output = download(str(checkpoint(tmp_path / "mini")), tmp_path / "copy")
    with pytest.raises(UsageError, match="does not replace"), stage_package(output, overwrite=True):
        pytest.fail("work began")


def test_local_copy_is_no_package(tmp_path: Path, checkpoint: Write) -> None:
    output = download(str(checkpoint(tmp_path / "mini")), tmp_path / "copy")
    with pytest.raises(PackageError, match="is a checkpoint, not a package"):
        inspect_package(output)


def test_link_that_leaves_the_checkpoint_is_refused(tmp_path: Path, checkpoint: Write) -> None:
    folder = checkpoint(tmp_path / "mini")
    (tmp_path / "secret").write_text("secret")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match="link"):
        download(str(folder), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_pickled_checkpoint_becomes_safetensors(tmp_path: Path, checkpoint: Write) -> None:
    import torch
    from safetensors import safe_open

    folder = checkpoint(tmp_path / "mini", {"config.json": b"{}"})
    torch.save({"w": torch.arange(6.0).reshape(2, 3)}, folder / "pytorch_model.bin")
    output = download(str(folder), tmp_path / "copy")
    assert files_of(output) == {"config.json", "converter.json", "model.safetensors"}
    with safe_open(output / "model.safetensors", "pt") as tensors:
        assert tensors.get_tensor("w").tolist() == [[0, 1, 2], [3, 4, 5]]


def test_pickle_that_runs_code_is_refused_and_leaves_nothing(tmp_path: Path, checkpoint: Write) -> None:
    import torch

    class Attack:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "attacked",)  # type: ignore[return-value]

    folder = checkpoint(tmp_path / "mini", {"config.json": b"{}"})
    torch.save({"w": Attack()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError):
        download(str(folder), tmp_path / "copy")
    assert not (tmp_path / "attacked").exists()
    assert not (tmp_path / "copy").exists()
