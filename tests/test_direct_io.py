"""Large files past the page cache: the same bytes and hashes as through it, at sizes that fill no page, and where a
file system does not have it."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import resource
from io import FileIO
from pathlib import Path

import numpy as np
import pytest

from converter.errors import PackageError
from converter.weights import direct_io
from converter.weights.direct_io import PIECE, read_spans
from converter.weights.hashed_file import HashedFile

# Lengths in bytes of what is appended in turn: within a page, whole pages, across pages, nothing, several blocks.
APPENDED = (5, 4091, 4096, 0, 8192, 1, 70_001, 3)


@pytest.fixture(params=["direct", "cached"])
def expected(request: pytest.FixtureRequest) -> int:
    """A size to announce that makes a HashedFile take this road."""
    return direct_io.DIRECT if request.param == "direct" else 0


def content(length: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, length, np.uint8).tobytes()


def write(path: Path, expected: int, block_bytes: int = 1 << 14) -> HashedFile:
    with HashedFile(path, block_bytes, expected=expected) as file:
        for seed, length in enumerate(APPENDED):
            buffer = file.buffer(length)
            buffer[:] = np.frombuffer(content(length, seed), np.uint8)
            file.append(buffer)
            file.write(b"head")
    return file


def whole() -> bytes:
    return b"".join(content(length, seed) + b"head" for seed, length in enumerate(APPENDED))


def test_pieces_of_any_length_arrive_whole_and_hashed(tmp_path: Path, expected: int) -> None:
    file = write(tmp_path / "data", expected)
    assert (tmp_path / "data").read_bytes() == whole()
    assert file.hexdigest == hashlib.sha256(whole()).hexdigest()


@pytest.mark.parametrize("length", [0, 1, 4096, 8191])
def test_a_file_may_end_anywhere_in_a_page(tmp_path: Path, expected: int, length: int) -> None:
    with HashedFile(tmp_path / "data", expected=expected) as file:
        file.write(content(length))
    assert (tmp_path / "data").read_bytes() == content(length)


@pytest.mark.parametrize("direct", [True, False])
def test_spans_are_read_wherever_they_lie(tmp_path: Path, direct: bool) -> None:
    (tmp_path / "data").write_bytes(content(PIECE + 10_007))
    spans = [(0, 1), (1, 4096), (4095, 2), (4096, PIECE), (7, PIECE), (PIECE + 10_006, 1), (3, 0)]
    for (offset, length), found in zip(
        spans, read_spans(tmp_path / "data", spans, direct=direct), strict=True
    ):
        assert found.tobytes() == content(PIECE + 10_007)[offset : offset + length]


def test_a_span_past_the_end_comes_out_short(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(5000))
    lengths = [len(found) for found in read_spans(tmp_path / "data", [(4990, 20), (9000, 5)], direct=True)]
    assert lengths == [10, 0]


class Refusing(FileIO):
    """A file of a file system that takes the flag and then refuses what goes past the cache."""

    def write(self, view: memoryview) -> int:  # type: ignore[override]
        self._refuse()
        return super().write(view)

    def readinto(self, view: memoryview) -> int:  # type: ignore[override]
        self._refuse()
        return super().readinto(view)

    def _refuse(self) -> None:
        if fcntl.fcntl(self, fcntl.F_GETFL) & getattr(os, "O_DIRECT", 0):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def test_where_it_is_refused_on_writing_and_reading_the_cache_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct_io, "FileIO", Refusing)
    write(tmp_path / "data", direct_io.DIRECT)
    assert (tmp_path / "data").read_bytes() == whole()
    (found,) = read_spans(tmp_path / "data", [(3, 9)], direct=True)
    assert found.tobytes() == whole()[3:12]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_an_error_with_a_remedy(expected: int) -> None:
    with pytest.raises(PackageError, match="No space left") as caught:
        write(Path("/dev/full"), expected)
    assert "room" in caught.value.remedy


def test_a_quota_is_an_error_with_a_remedy(tmp_path: Path, expected: int) -> None:
    """The kernel first writes up to the limit, which need not be a whole page."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(PackageError, match="too large") as caught:
            write(tmp_path / "data", expected)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "room" in caught.value.remedy
