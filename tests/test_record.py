"""What converter.json of another version may hold."""

from __future__ import annotations

import pytest

from converter.errors import PackageError
from converter.packages.record import recorded_request, settings_of
from converter.request import ConversionRequest

RECORD = {"architecture": "roberta", "task": "feature-extraction", "variants": {"model": {}}}


def test_options_of_precisions_are_read_where_older_versions_kept_them() -> None:
    settings = settings_of(ConversionRequest(precisions=("q8",)))
    del settings["quantization"]
    older = {**settings, "keep": ["cosine=0.9"], "prefer": "speed"}
    request = recorded_request({**RECORD, "settings": older})
    assert request.quantization == {"keep": ["cosine=0.9"], "prefer": "speed"}
    assert request.arch == "roberta"


def test_settings_of_a_newer_version_are_named() -> None:
    settings = {**settings_of(ConversionRequest()), "colour": "green"}
    with pytest.raises(PackageError, match="does not know: colour"):
        recorded_request({**RECORD, "settings": settings})
