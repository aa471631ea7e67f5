"""What JavaScript clients make of our packages, compared with torch: transformers.js and plain onnxruntime, in Node.

`make node-clients` installs them. Where Node is absent the tests are skipped, and in CI, which sets
CONVERTER_REQUIRE_NODE, they fail.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

NODE = Path(__file__).parents[2] / "scripts" / "clients" / "node"
PACKAGES = (
    "feature-extraction",
    "text-classification",
    "text-generation",
    "translation",
    "marian",
    "automatic-speech-recognition",
    "image-classification",
)
pytestmark = pytest.mark.xdist_group("clients")


@pytest.fixture(scope="module")
def rows(client_scripts: Any, client_work: Any) -> dict[tuple[str, str, str], Any]:
    """(client, package, precision) -> how its numbers compare; each client ran once."""
    absent = shutil.which("node") is None or not (NODE / "node_modules").is_dir()
    if absent and os.environ.get("CONVERTER_REQUIRE_NODE"):
        pytest.fail("node or its packages are absent: install Node 20 and run `make node-clients`")
    if absent:
        pytest.skip("needs Node 20 and `make node-clients`")
    clients = ("transformers.js", "onnxruntime-node")
    found = [row for client in clients for row in client_scripts.run_client(client, client_work)]
    return {(row.client, row.package, row.precision): row for row in found}


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("client", ["transformers.js", "onnxruntime-node"])
def test_a_client_computes_what_torch_does(
    rows: dict[tuple[str, str, str], Any], client: str, package: str
) -> None:
    row = rows[client, package, "fp32"]
    assert not row.error
    assert row.max_abs <= 1e-4 and row.text is not False, row


@pytest.mark.parametrize("precision", ["fp16", "q8", "q4"])
def test_every_precision_is_found_by_its_name(rows: dict[tuple[str, str, str], Any], precision: str) -> None:
    row = rows["transformers.js", "feature-extraction", precision]
    assert row.passed, row
