"""The model card of every package, README.md, and the sections it is made of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from converter import CardSection, PackageBuild, PackageFile, hookimpl

if TYPE_CHECKING:
    from converter.hookspecs import Register

# Name, order, where its function is, and what it says.
SECTIONS = (
    ("introduction", 100, "sections", "what it is, made from what, and whether it was proven"),
    ("usage", 200, "usage", "snippets for each client that opens it"),
    ("graphs", 300, "sections", "variants, inputs, outputs and their axes"),
    ("sizes", 400, "sections", "files and bytes of each precision"),
    ("parity", 500, "sections", "how far the graphs are from the original"),
    ("quality", 600, "sections", "what each precision keeps"),
    ("speed", 700, "sections", "the benchmark, where one was recorded"),
    ("provenance", 900, "sections", "source, licence, versions, settings, notes"),
)


def _text(module: str, name: str, build: PackageBuild) -> str:
    from converter.card.facts import CardFacts

    section: Callable[[CardFacts], str] = getattr(import_module(f"converter.card.{module}"), name)
    return section(CardFacts.of(build))


def _card(build: PackageBuild) -> None:
    from converter.card.compose import write_card

    write_card(build)


@hookimpl
def register_package_files(register: Register[PackageFile]) -> None:
    register(PackageFile("card", _card, 900, "README.md, from what converter.json says"))


@hookimpl
def register_card_sections(register: Register[CardSection]) -> None:
    for name, order, module, summary in SECTIONS:
        register(CardSection(name, partial(_text, module, name), order, summary))
