"""The package folder: refused targets, replacement in one step, and what a failure leaves."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from converter.errors import UsageError
from converter.packages.package import stage_package, write_record


def make_package(target: Path, content: str = "new", overwrite: bool = False) -> Path:
    with stage_package(target, overwrite=overwrite) as staging:
        (staging.folder / "onnx").mkdir()
        (staging.folder / "onnx" / "data.bin").write_text(content)
        write_record(staging.folder, {})
    return target


def content(package: Path) -> str:
    return (package / "onnx" / "data.bin").read_text()


def only_child(folder: Path) -> str:
    (child,) = folder.iterdir()
    return child.name


def test_package_when_target_and_its_parents_are_absent(tmp_path: Path) -> None:
    make_package(tmp_path / "models" / "mini")
    assert content(tmp_path / "models" / "mini") == "new"
    assert only_child(tmp_path / "models") == "mini"


def test_package_when_target_is_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "mini").mkdir()
    assert content(make_package(tmp_path / "mini")) == "new"


def test_existing_package_is_refused_without_overwrite(tmp_path: Path) -> None:
    make_package(tmp_path / "mini", "old")
    with pytest.raises(UsageError, match="--overwrite"):
        make_package(tmp_path / "mini")
    assert content(tmp_path / "mini") == "old"


@pytest.mark.parametrize("can_swap", [True, False])
def test_overwrite_replaces_the_whole_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_swap: bool
) -> None:
    if not can_swap:
        monkeypatch.setattr("converter.packages.exchange.swap", lambda first, second: False)
    make_package(tmp_path / "mini", "old")
    (tmp_path / "mini" / "notes.txt").write_text("goes too")
    make_package(tmp_path / "mini", overwrite=True)
    assert content(tmp_path / "mini") == "new"
    assert not (tmp_path / "mini" / "notes.txt").exists()
    assert only_child(tmp_path) == "mini"


def test_folder_that_is_no_package_is_refused_even_with_overwrite(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    with pytest.raises(UsageError, match="package of this converter"):
        make_package(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.txt").exists()


def test_folder_filled_by_somebody_during_the_run_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not empty"), stage_package(tmp_path / "mini"):
        (tmp_path / "mini").mkdir()
        (tmp_path / "mini" / "theirs.txt").write_text("theirs")
    assert only_child(tmp_path / "mini") == "theirs.txt"
    assert only_child(tmp_path) == "mini"


def test_target_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mini").write_text("a file")
    with pytest.raises(UsageError, match="is a file"):
        make_package(tmp_path / "mini", overwrite=True)


@pytest.mark.parametrize("name", ["..", ".", "/"])
def test_target_above_the_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"working directory|home"):
        make_package(Path(name), overwrite=True)


def test_home_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UsageError, match="home directory"):
        make_package(Path("~"), overwrite=True)


@pytest.mark.parametrize("target", ["checkpoint", ".", "checkpoint/onnx"])
def test_target_in_touch_with_the_checkpoint_is_refused(tmp_path: Path, target: str) -> None:
    source = tmp_path / "checkpoint"
    source.mkdir()
    with (
        pytest.raises(UsageError, match="checkpoint"),
        stage_package(tmp_path / target, overwrite=True, source=source),
    ):
        pytest.fail("work began")


def test_link_to_a_package_stays_a_link(tmp_path: Path) -> None:
    make_package(tmp_path / "v1", "old")
    (tmp_path / "latest").symlink_to("v1")
    make_package(tmp_path / "latest", overwrite=True)
    assert (tmp_path / "latest").is_symlink()
    assert content(tmp_path / "v1") == "new"


def test_circular_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError):
        make_package(tmp_path / "loop")


def test_second_run_on_a_target_in_work_is_refused(tmp_path: Path) -> None:
    with stage_package(tmp_path / "mini") as staging:
        with pytest.raises(UsageError, match=f"another run .process {os.getpid()}."):
            make_package(tmp_path / "mini")
        make_package(tmp_path / "other")
        assert staging.folder.is_dir()


def test_name_that_extends_another_target_is_left_alone(tmp_path: Path) -> None:
    """A live run on `a.converter-b` must survive the clean-up of a run on `a`."""
    with stage_package(tmp_path / "a.converter-b") as staging:
        make_package(tmp_path / "a")
        assert staging.folder.is_dir()


def test_folder_that_only_looks_like_scratch_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / ".mini.converter-abcdefgh"
    theirs.mkdir()
    (theirs / "mine.txt").write_text("mine")
    make_package(tmp_path / "mini")
    assert (theirs / "mine.txt").exists()


def test_modes_follow_the_umask_whatever_the_writer_left(tmp_path: Path) -> None:
    with stage_package(tmp_path / "mini") as staging:
        data = staging.folder / "model.onnx_data"
        data.touch(mode=0o600)
        (staging.folder / "onnx").mkdir(mode=0o700)
    umask = os.umask(0)
    os.umask(umask)
    modes = [
        stat.S_IMODE((tmp_path / "mini" / name).stat().st_mode) for name in (".", "onnx", "model.onnx_data")
    ]
    assert modes == [0o755 & ~umask, 0o755 & ~umask, 0o644 & ~umask]


# --- failure ---------------------------------------------------------------------------------------------


def fail_in(target: Path, overwrite: bool = False, keep_failed: bool = False) -> None:
    staged = stage_package(target, overwrite=overwrite, keep_failed=keep_failed)
    with pytest.raises(RuntimeError), staged as staging:
        (staging.folder / "half.onnx").write_text("half")
        raise RuntimeError("parity failed")


def test_failure_leaves_nothing_not_even_the_parents_it_made(tmp_path: Path) -> None:
    fail_in(tmp_path / "models" / "mini")
    assert list(tmp_path.iterdir()) == []


def test_failure_leaves_the_old_package(tmp_path: Path) -> None:
    make_package(tmp_path / "mini", "old")
    fail_in(tmp_path / "mini", overwrite=True)
    assert content(tmp_path / "mini") == "old"
    assert only_child(tmp_path) == "mini"


def test_failed_package_is_kept_beside_the_target_on_request(tmp_path: Path) -> None:
    for _ in range(2):  # the second replaces the first
        fail_in(tmp_path / "mini", keep_failed=True)
    assert only_child(tmp_path) == "mini.failed"
    assert "parity failed" in (tmp_path / "mini.failed" / "FAILED").read_text()
    assert (tmp_path / "mini.failed" / "half.onnx").exists()


def test_failed_package_does_not_displace_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "mini.failed").mkdir()
    (tmp_path / "mini.failed" / "theirs.txt").write_text("theirs")
    with pytest.raises(RuntimeError) as caught, stage_package(tmp_path / "mini", keep_failed=True):
        raise RuntimeError("broken")
    assert only_child(tmp_path / "mini.failed") == "theirs.txt"
    assert "could not be kept" in caught.value.__notes__[0]
