"""The card of a package of pages and queries says how to use it, and that runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.xdist_group("colqwen2")
def test_the_snippets_of_pages_and_queries_run(
    seal: Callable[..., None],
    retrieval_package: Path,
    tmp_path: Path,
    run_snippets: Callable[[Path], list[dict[str, Any]]],
) -> None:
    package = tmp_path / "package"
    shutil.copytree(retrieval_package, package)
    seal(package, json.loads((package / "converter.json").read_text()))
    runtime, plain = run_snippets(package)
    assert runtime["model"].score(runtime["queries"], runtime["pages"]).shape == (1, 1)
    assert plain["embeddings"].shape[0] == 2
