"""Checkpoints with code of their own, also of types that transformers has a class for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converter.errors import WeightError
from converter.records import Checkpoint


def code_files(config: Mapping[str, Any]) -> list[str]:
    """The Python files that `auto_map` takes classes from; a tokenizer's, a list of two, are not among them."""
    code = config.get("auto_map")
    places = code.values() if isinstance(code, Mapping) else ()
    return sorted({_file(place) for place in places if isinstance(place, str) and "." in place})


def _file(place: str) -> str:
    """Of `org/repository--modeling_x.XModel` it is modeling_x.py."""
    return place.rpartition("--")[2].partition(".")[0] + ".py"


def code_left_alone(checkpoint: Checkpoint) -> tuple[str, ...]:
    """A note on code of the checkpoint's own that was not run, since transformers has a class of the same type.

    The weights may fit that class, and its numbers be others: gte-Qwen2's own code looks both ways, Qwen2 does not.
    """
    files = code_files(checkpoint.config)
    if checkpoint.trust_remote_code or not files:
        return ()
    return (
        f"config.json names code of its own ({', '.join(files)}), which was not run: what is converted is transformers'"
        " class of the same type; --trust-remote-code converts what that code computes",
    )


def blame_own_code(error: WeightError, checkpoint: Checkpoint) -> WeightError:
    """The error with its likely cause, where transformers' class stood in for code that was not run."""
    files = code_files(checkpoint.config)
    if checkpoint.trust_remote_code or not files:
        return error
    return WeightError(
        error.message,
        remedy=f"config.json names code of its own ({', '.join(files)}), and transformers' class of the same type does"
        " not fit the weights: read that code, then add --trust-remote-code",
        topic="remote-code",
    )
