"""The base installation has no torch; what needs it says so before anything else happens."""

from __future__ import annotations

from importlib.util import find_spec

from converter.errors import UsageError

NEEDED = ("torch", "transformers", "onnxscript", "accelerate", "hypothesis")


def require_export() -> None:
    """Raise UsageError, naming the extra to install, unless all that takes original models is there. Imports none."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"this needs {', '.join(missing)}, which the base installation does not include",
            remedy="pip install 'converter[export]'",
            topic="extras",
        )
