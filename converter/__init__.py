"""PyTorch models to verified ONNX packages, in bounded memory.

Everything public is named here and loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from converter.additions import (
        CardSection,
        Extension,
        GraphPass,
        Metric,
        PackageBuild,
        PackageFile,
        Precision,
    )
    from converter.errors import ConverterError
    from converter.hookspecs import hookimpl
    from converter.pipeline import Report, convert
    from converter.records import (
        Architecture,
        Axis,
        Component,
        DummyInputs,
        Judgement,
        Output,
        Size,
        StandIn,
        Tolerance,
        Variant,
    )
    from converter.sources import TransformersModel

_PUBLIC = {
    "Architecture": "converter.records",
    "Axis": "converter.records",
    "CardSection": "converter.additions",
    "Component": "converter.records",
    "ConverterError": "converter.errors",
    "DummyInputs": "converter.records",
    "Extension": "converter.additions",
    "GraphPass": "converter.additions",
    "Judgement": "converter.records",
    "Metric": "converter.additions",
    "Output": "converter.records",
    "PackageBuild": "converter.additions",
    "PackageFile": "converter.additions",
    "Precision": "converter.additions",
    "Report": "converter.pipeline",
    "Size": "converter.records",
    "StandIn": "converter.records",
    "Tolerance": "converter.records",
    "TransformersModel": "converter.sources",
    "Variant": "converter.records",
    "convert": "converter.pipeline",
    "hookimpl": "converter.hookspecs",
}

__all__ = [
    "Architecture",
    "Axis",
    "CardSection",
    "Component",
    "ConverterError",
    "DummyInputs",
    "Extension",
    "GraphPass",
    "Judgement",
    "Metric",
    "Output",
    "PackageBuild",
    "PackageFile",
    "Precision",
    "Report",
    "Size",
    "StandIn",
    "Tolerance",
    "TransformersModel",
    "Variant",
    "convert",
    "hookimpl",
]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'converter' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
