"""What tests of plugins share: a plugin that works, and what the registry made of those on the path."""

from __future__ import annotations

from collections.abc import Callable

from converter.registry import PluginFailure, Registry, load_registry

Install = Callable[..., None]

# NAME becomes the plugin's own name where it is installed.
GOOD = """
from converter import Architecture, Variant, hookimpl

def architecture(name, *model_types):
    variants = {"feature-extraction": (Variant("text", ("model",), "vectors out"),)}
    return Architecture(name, model_types, "made up", "", None, lambda config, task: (), variants)

@hookimpl
def register_architectures(register):
    register(architecture("NAME", "NAME-type"))
"""


def load(**environ: str) -> Registry:
    """Plugins as they are found now; one that hangs is given five seconds."""
    return load_registry({"CONVERTER_PLUGIN_TIMEOUT": "5", **environ})


def only_failure(registry: Registry) -> PluginFailure:
    (failure,) = registry.failures
    return failure


def pass_names(registry: Registry) -> list[str]:
    return [graph_pass.name for graph_pass in registry.passes]
