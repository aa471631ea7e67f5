"""The whole page, and the file it goes to."""

from __future__ import annotations

from html import escape
from pathlib import Path

from converter.additions import PackageBuild
from converter.card.facts import CardFacts
from converter.errors import UsageError
from converter.packages.package import PackageInfo, inspect_package
from converter.page.html import element, text
from converter.page.sections import overview, parity, provenance, quality, sizes, speed
from converter.page.style import STYLE

SECTIONS = (
    ("overview", "Overview", overview),
    ("sizes", "Sizes", sizes),
    ("parity", "Parity", parity),
    ("quality", "Quality of the precisions", quality),
    ("speed", "Speed", speed),
    ("provenance", "Provenance", provenance),
)


def write_page(package: Path, target: Path) -> None:
    """Write the report of a package as one HTML file.

    Raises PackageError for a folder that is no package, UsageError where the file cannot be written or lies in the
    package, which it would alter.
    """
    if package.resolve() in target.resolve().parents:
        raise UsageError(
            f"{target} lies in the package, whose files are recorded", remedy="write the page somewhere else"
        )
    page = render_page(inspect_package(package))
    try:
        target.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"cannot write {target}: {error.strerror}", remedy="name a file in a folder there is"
        ) from error


def render_page(info: PackageInfo) -> str:
    """The page: no script, nothing that is fetched."""
    facts = CardFacts.of(PackageBuild(info.folder, info.record))
    parts, links = [], []
    for name, title, section in SECTIONS:
        parts.append(
            element("section", text("h2", title, id=name) + section(facts, info), aria_labelledby=name)
        )
        links.append(element("li", text("a", title, href=f"#{name}")))
    body = (
        text("h1", f"{facts.name}, ONNX")
        + text("p", f"Written from {info.folder.name}/converter.json.", class_="quiet")
        + element("nav", element("ul", "".join(links)), aria_label="Sections")
        + "".join(parts)
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(facts.name)}, ONNX</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n{element('main', body)}\n</body>\n</html>\n"
    )
