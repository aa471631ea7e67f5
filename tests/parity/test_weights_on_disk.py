"""Originals above 256 MiB are run with their weights on disk, where accelerate fetches a module's as it is called.

A wrapper, or a reference, that takes a weight of a module it does not call finds nothing there. Ours do not. Some
models of transformers do, and are loaded whole.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from converter import Size
from converter.checkpoint import open_for
from converter.parity import originals
from converter.parity.runners import run_original
from converter.registry import load_registry

# Families whose wrappers reach into the original, and one that only calls it.
TYPES = ["bart", "llava_onevision", "qwen3_vl"]
# Models that take weights of modules they do not call.
WHOLE = ["deberta_v2", "gemma3"]


@pytest.mark.parametrize("name", TYPES)
def test_a_large_original_and_its_wrapper_give_what_they_give_in_memory(
    name: str, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    architecture = load_registry().find(name)
    checkpoint, task = open_for(architecture, tiny_checkpoint(name)), architecture.tasks[0]
    here = architecture.source.original(checkpoint, task, None)
    on_disk = architecture.source.original(checkpoint, task, tmp_path)
    assert any(parameter.is_meta for parameter in on_disk.parameters())
    for component in architecture.components(architecture.source.config(checkpoint), task):
        size = [Size({axis.name: axis.traced for axis in component.axes}, seed=1)]
        (want,) = run_original(here, component, size)
        (found,) = run_original(on_disk, component, size)
        for side in ("original", "wrapper"):
            for output, array in getattr(want, side).items():
                np.testing.assert_allclose(getattr(found, side)[output], array, atol=1e-5, err_msg=output)


@pytest.mark.parametrize(("name", "whole"), [("bert", False), *((name, True) for name in WHOLE)])
def test_an_original_that_cannot_be_run_from_disk_is_loaded_whole(
    name: str,
    whole: bool,
    tiny_checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(originals, "RESIDENT", 0)
    architecture = load_registry().find(name)
    checkpoint, task = open_for(architecture, tiny_checkpoint(name)), architecture.tasks[0]
    components = architecture.components(architecture.source.config(checkpoint), task)
    model = originals.open_original(architecture, components, checkpoint, task, tmp_path)
    assert any(parameter.is_meta for parameter in model.parameters()) is not whole
    for component in components:
        (case,) = run_original(model, component, [Size({axis.name: axis.traced for axis in component.axes})])
        assert all(np.isfinite(array).all() for array in case.original.values())
