"""A pipeline that does nothing but answer, for tests of what the command line asks of it and prints of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converter.pipeline import Report
from converter.records import Comparison, ParityReport
from converter.request import ConversionRequest, Progress

Answer = Callable[[ConversionRequest, Progress], Report]


@pytest.fixture
def report() -> Callable[..., Report]:
    """`report(**changes)`: of a conversion that passed, but for the fields in `changes`."""
    return make_report


def make_report(**changes: Any) -> Report:
    rows = tuple(
        Comparison("model", size, "embeddings", pair, distance, 0.9999999, True)
        for size, pair, distance in (
            ("batch_size=1", "original/graph", 2e-7),
            ("batch_size=3", "wrapper/graph", 5e-7),
        )
    )
    usual: dict[str, Any] = {
        "output": Path("models/x"),
        "architecture": "some_arch",
        "task": "feature-extraction",
        "variants": ("text",),
        "parity": ParityReport("full", "asked for", rows),
        "stages": (("trace model", 1.25), ("write graphs", 0.5)),
        "peak_memory": 1_400_000_000,
        "files": {"onnx/model.onnx": 91_000_000, "config.json": 612},
        "notes": ("no tokenizer files were found",),
    }
    return Report(**usual | changes)


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], list[ConversionRequest]]:
    """`answering(answer)` puts `answer` in the pipeline's place; gives the list that fills with requests."""

    def fake(answer: Answer) -> list[ConversionRequest]:
        requests: list[ConversionRequest] = []

        def convert_request(request: ConversionRequest, progress: Progress) -> Report:
            requests.append(request)
            return answer(request, progress)

        monkeypatch.setattr("converter.pipeline.convert_request", convert_request)
        return requests

    return fake


@pytest.fixture
def asked(answering: Callable[[Answer], list[ConversionRequest]]) -> list[ConversionRequest]:
    """Requests that reach the pipeline, each answered by a conversion that passed."""
    return answering(lambda request, progress: make_report())
