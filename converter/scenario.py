"""Records of runs of several calls, such as generation, and what they must give. They declare, nothing else.

`converter.parity.play` runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    Arrays = Mapping[str, NDArray[np.generic]]
    Tensors = Mapping[str, torch.Tensor]


@dataclass
class State:
    """Where a run of a scenario is: what it began with, the tokens chosen since, the last value of each output."""

    prompt: Arrays
    tokens: list[NDArray[np.int64]] = field(default_factory=list)
    outputs: dict[str, NDArray[np.generic]] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One call of one component.

    given     what is fed from outside, by input name: from the prompt, and from the tokens chosen so far
    bindings  input -> the output of an earlier call that goes in there: `past_key_values.0.key` -> `present.0.key`;
              what is given of the same name goes before it
    """

    stem: str
    given: Callable[[State], Arrays]
    bindings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Scenario:
    """Greedy generation by a package's graphs, whose tokens must be those of the original.

    It goes from one process to another, so its functions live at the top of a module.

    prompt    seed -> what all calls draw on, by name; rows of different lengths where a batch may have them
    opening   calls made once, in order; the last one gives the first `logits`
    step      the calls made again for every further token, in order; the last one gives `logits`
    original  (the untouched model, prompt, number of tokens) -> its tokens, int64 (batch, number), chosen by its own
              `generate` and not cut at an end-of-sequence token
    """

    name: str
    prompt: Callable[[int], Tensors]
    opening: tuple[Call, ...]
    step: tuple[Call, ...]
    original: Callable[[nn.Module, Tensors, int], torch.Tensor]
    steps: int = 32

    @property
    def stems(self) -> frozenset[str]:
        return frozenset(call.stem for call in (*self.opening, *self.step))


def no_scenarios(config: Any, task: str) -> tuple[Scenario, ...]:
    """The scenarios of an architecture that answers in one call: none."""
    return ()
