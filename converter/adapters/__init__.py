"""Packages as models of transformers: for `pipeline(...)`, `generate(...)` and code written for either.

    from converter.runtime import load

The only part of running a package that needs torch and transformers; nothing else imports it.
"""

from __future__ import annotations

from converter.adapters.load import TASKS, load

__all__ = ["TASKS", "load"]
