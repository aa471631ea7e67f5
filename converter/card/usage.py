"""How to use a package: snippets that run as they stand in the package's folder.

What a graph is asked for is read off the names of its inputs, which are transformers' own.
"""

from __future__ import annotations

from converter.card.facts import CardFacts
from converter.card.javascript import transformers_js
from converter.card.snippets import onnxruntime_snippet, runtime_snippet

# Where on its page each token stands: neither client reads pages.
PLACES = ("bbox", "xpath_tags_seq")


def usage(facts: CardFacts) -> str:
    """One snippet for each way to open the package."""
    places = any(name in facts.inputs(stem) for stem in facts.graphs for name in PLACES)
    found = (
        ("converter.runtime", "python", "" if places else runtime_snippet(facts)),
        ("onnxruntime", "python", onnxruntime_snippet(facts)),
        ("transformers.js", "js", "" if places else transformers_js(facts)),
    )
    parts = [f"### {title}\n\n```{language}\n{code}```" for title, language, code in found if code]
    if not parts:
        return ""
    where = "These run in the package's folder; `\".\"` may be any folder, or the package's id on the hub."
    return "\n\n".join(["## Use", where, *parts])
