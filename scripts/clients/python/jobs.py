"""What the runners in Python share: a job file in, one JSON object out."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

SUFFIX = {"fp32": "", "fp16": "_fp16", "q8": "_quantized", "q4": "_q4"}


def graph(stem: str, precision: str) -> str:
    return f"{stem}{SUFFIX[precision]}.onnx"


def answer(version: str, run: Callable[[Path, dict[str, Any]], dict[str, Any]]) -> None:
    """Run every case of the job named on the command line and print the results."""
    job = json.loads(Path(sys.argv[1]).read_text())
    results = []
    for case in job["cases"]:
        try:
            results.append(run(Path(job["packages"]) / case["package"], case))
        except Exception:  # whatever a client raises is the result
            results.append({"error": traceback.format_exc()})
    print("\n" + json.dumps({"version": version, "results": results}))
