"""What a full disk, a quota or a forbidden folder leaves: the target as it was, and a clear error."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_kit import names, package, run, word

from converter.errors import PackageError, UsageError
from converter.packages.package import stage_package


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount tmpfs folders with the options given, e.g. `size=1m`; skips where that is not permitted."""
    mounted: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        try:
            command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("mounting a tmpfs is not permitted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_is_a_clear_error_and_leaves_the_target(
    tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("size=1m")
    target = package(disk / "mini", "old")
    with pytest.raises(PackageError, match="no room left"), stage_package(target, overwrite=True) as staging:
        (staging.folder / "model.onnx_data").write_bytes(bytes(4 * 2**20))
    assert word(target) == "old"
    assert names(disk) == ["mini"]


def test_full_disk_keeps_no_failed_package_that_cannot_be_kept(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=1m")
    with (
        pytest.raises(PackageError, match="no room"),
        stage_package(disk / "mini", keep_failed=True) as staging,
    ):
        (staging.folder / "model.onnx_data").write_bytes(bytes(4 * 2**20))
    assert names(disk) in ([], ["mini.failed"])


def test_disk_without_room_for_a_folder_is_refused_before_work(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("nr_inodes=2")
    (disk / "last").touch()
    with pytest.raises(UsageError, match="cannot write beside"), stage_package(disk / "mini"):
        pytest.fail("work began")


def test_quota_on_file_size_is_a_clear_error(tmp_path: Path) -> None:
    target = package(tmp_path / "mini", "old")
    code, errors = run(
        f"write({str(target)!r}, 'new', size=100_000)",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
    )
    assert code == 1
    assert "PackageError: no room left" in errors
    assert word(target) == "old"
    assert names(tmp_path) == ["mini"]


def test_unwritable_parent_is_refused_before_work(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=1m,ro")
    for target in (disk / "mini", disk / "models" / "mini"):
        with pytest.raises(UsageError, match="cannot write beside"), stage_package(target):
            pytest.fail("work began")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_forbidden_parent_is_refused_before_work(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match="cannot write beside"), stage_package(tmp_path / "mini"):
        pytest.fail("work began")


def test_mount_point_is_refused_with_a_folder_inside_it_named(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=1m")
    with pytest.raises(UsageError, match="mount point") as caught, stage_package(disk):
        pytest.fail("work began")
    assert str(disk / "package") in caught.value.remedy
    package(disk / "package", "new")


# --- a whole conversion ----------------------------------------------------------------------------------


@pytest.mark.parametrize("parity", ["off", "structural"], ids=["written here", "written by another process"])
def test_full_disk_during_a_conversion_says_so_and_leaves_nothing(
    parity: str, tiny_checkpoint: Callable[..., Path], small_disk: Callable[[str], Path]
) -> None:
    from converter import convert

    disk = small_disk("size=64k")
    checkpoint = tiny_checkpoint("bert")
    with pytest.raises(PackageError, match=r"cannot be written|no room"):
        convert(model=checkpoint, output=disk / "package", parity=parity, external_data="always")
    assert names(disk) == []
