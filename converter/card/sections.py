"""The sections of a card: each a function of the facts that gives Markdown, or nothing to say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from converter.card.facts import CardFacts
from converter.card.front_matter import SOURCE_CARD
from converter.text import markdown_table, size_text

VERDICTS = {"kept": "kept", "MISSED": "**missed**", "measured": "measured", "not judged": "not judged"}
_DIGITS = re.compile(r"\d+")
# Of the settings that a reader may want to know where they are not the usual ones.
_USUAL = {
    "dtype": "fp32",
    "parity": "auto",
    "optimize": "basic",
    "device": "cpu",
    "trust_remote_code": False,
}


def introduction(facts: CardFacts) -> str:
    """What this is, made from what, and whether it was proven."""
    source = (
        f"[{facts.base_model}](https://huggingface.co/{facts.base_model})" if facts.base_model else facts.name
    )
    count = len(facts.graphs)
    precisions = ", ".join([facts.dtype, *facts.precisions])
    lines = [
        f"# {facts.name}, ONNX",
        "",
        f"{source} for {facts.task or 'use'} in onnxruntime: "
        f"{count} graph{'s' if count != 1 else ''} in {precisions}. {_proof(facts.record.get('parity') or {})}",
    ]
    return "\n".join(lines)


def _proof(parity: Mapping[str, Any]) -> str:
    if parity.get("mode", "off") == "off":
        return "It was not compared with the original model."
    if not parity.get("passed"):
        return "**It failed comparison with the original model.**"
    count = len(parity.get("sizes") or ())
    if parity["mode"] == "structural":
        return (
            "A two-layer model of the same architecture went through the same conversion and computed what the"
            f" original class computes, at {count} sizes; every stored weight was read back"
            " and compared with the checkpoint."
        )
    return f"It was compared with the original PyTorch model at {count} sizes and computes the same."


def graphs(facts: CardFacts) -> str:
    """The variants, and the inputs and outputs of each graph with the axes that vary."""
    if not facts.graphs:
        return ""
    parts = ["## Inputs and outputs", "A dimension that has a name may have any size."]
    if len(facts.variants) > 1:
        summaries = [
            (
                name,
                ", ".join(f"`{graph['file']}`" for graph in entry["graphs"].values()),
                entry.get("summary", ""),
            )
            for name, entry in facts.variants.items()
        ]
        parts.append(markdown_table(("variant", "graphs", "what it does"), summaries))
    for graph in facts.graphs.values():
        rows = [("in", *row) for row in _values(graph["inputs"])] + [
            ("out", *row) for row in _values(graph["outputs"])
        ]
        parts.append(f"`{graph['file']}`, opset {graph['opset']}, {graph['nodes']} nodes:")
        parts.append(markdown_table(("", "name", "type", "shape"), rows))
    return "\n\n".join(parts)


def _values(values: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Name, type and shape; names that differ in one number only, as layers' do, share a row."""
    groups: dict[tuple[str, str, str], list[int]] = {}
    for value in values:
        name, shape = str(value["name"]), " x ".join(map(str, value["shape"])) or "one value"
        numbers = _DIGITS.findall(name)
        pattern = _DIGITS.sub("*", name) if len(numbers) == 1 else name
        groups.setdefault((pattern, str(value["dtype"]).lower(), shape), []).extend(map(int, numbers[:1]))
    return [
        (f"`{_named(pattern, numbers)}`", dtype, shape) for (pattern, dtype, shape), numbers in groups.items()
    ]


def _named(pattern: str, numbers: Sequence[int]) -> str:
    if "*" not in pattern:
        return pattern
    span = str(numbers[0]) if len(numbers) == 1 else f"{{{min(numbers)}..{max(numbers)}}}"
    return pattern.replace("*", span)


def sizes(facts: CardFacts) -> str:
    """The graph files of each precision and what they weigh."""
    main = sum(facts.files[name] for name in facts.main_files)
    rows = []
    for precision, names in facts.files_of.items():
        total = sum(facts.files.get(name, 0) for name in names)
        files = ", ".join(f"`{name}`" for name in names)
        rows.append((precision, files, size_text(total), f"{total / main:.3f}" if main else ""))
    if not main:
        return ""
    header = ("precision", "files", "size", f"of {facts.dtype}")
    return "## Sizes\n\n" + markdown_table(header, rows, right=("size", header[-1]))


def parity(facts: CardFacts) -> str:
    """The worst of each output and pair, over every size that was compared."""
    record = facts.record.get("parity") or {}
    worst = record.get("worst") or ()
    if record.get("mode", "off") == "off" or not worst:
        return ""
    rows = [
        (
            row["component"],
            _DIGITS.sub("*", row["output"]),
            row["pair"].replace("/", " against "),
            f"{float(row['max_abs']):.1e}",
            f"{float(row['cosine']):.7f}",
        )
        for row in _worst_of_layers(worst)
    ]
    checked = record.get("tensors_checked")
    weights = f" {checked} stored tensors were read back and compared with the checkpoint." if checked else ""
    sizes = len(record.get("sizes") or ())
    numbers = ("max abs difference", "cosine")
    text = (
        f"The worst of {sizes} sizes (batch 1 and more, length 1, padding, sizes that tracing never saw), inputs"
        f" seeded.{weights}"
    )
    return "\n\n".join(
        ["## Parity", text, markdown_table(("graph", "output", "compared", *numbers), rows, right=numbers)]
    )


def _worst_of_layers(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One row for outputs whose names differ in their numbers only: the one that is farthest off."""
    worst: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for row in rows:
        key = (row["component"], _DIGITS.sub("*", row["output"]), row["pair"])
        if key not in worst or float(row["max_abs"]) > float(worst[key]["max_abs"]):
            worst[key] = row
    return list(worst.values())


def quality(facts: CardFacts) -> str:
    """What each added precision keeps of the main graphs, as it was measured when it was made."""
    if not facts.precisions:
        return ""
    rows = []
    for name, entry in facts.precisions.items():
        values = [number_text((entry.get("quality") or {}).get(measure)) for measure in facts.measures]
        rows.append((name, *values, budget_text(entry), VERDICTS[verdict(entry)]))
    header = ("precision", *facts.measures, "budget", "")
    text = f"Each precision against the {facts.dtype} graphs, on inputs that took no part in making it."
    parts = ["## Quality of the precisions", text, markdown_table(header, rows, right=facts.measures)]
    missed = "; ".join(
        f"{name} ({', '.join(entry.get('misses') or ())})" for name, entry in facts.missed_precisions.items()
    )
    return "\n\n".join([*parts, *([f"Tried and not written: {missed}."] if missed else [])])


def budget_text(entry: Mapping[str, Any]) -> str:
    """What a precision must keep, in words."""
    bounds = (
        f"{measure} {'<=' if measure == 'perplexity' else '>='} {bound:g}"
        for measure, bound in (entry.get("budget") or {}).items()
    )
    return ", ".join(bounds) or "none"


def verdict(entry: Mapping[str, Any]) -> str:
    """Whether a precision keeps its budget, in a word. What nobody measured keeps none, nor what had none to keep."""
    if not entry.get("quality"):
        return "not judged"
    if not entry.get("budget"):
        return "measured"
    return "kept" if entry["passed"] else "MISSED"


def number_text(value: object) -> str:
    """A measure with five digits, anything else as it is, and nothing for None."""
    return f"{value:.5f}" if isinstance(value, float) else str(value if value is not None else "")


def speed(facts: CardFacts) -> str:
    """The benchmark, where `converter bench --record` left one."""
    report = facts.record.get("benchmark")
    if not report:
        return ""
    from converter.bench.report import card_section

    return card_section(report)


def provenance(facts: CardFacts) -> str:
    """Source, licence, versions, settings, and what the conversion noted."""
    record, source = facts.record, facts.source
    revision = (
        f" at revision `{source['revision']}`" if source.get("revision") else ", of no recorded revision"
    )
    licence = source.get("license")
    legal = [name for name in facts.files if name.split(".")[0].lower() in ("license", "licence", "notice")]
    lines = [
        f"- Source: {facts.base_model or facts.name}{revision}, {source.get('tensors', 0)} tensors"
        f" ({record.get('architecture')}).",
        f"- Licence: {licence}, as the source's card says."
        if licence
        else "- Licence: the source names none.",
    ]
    lines += [f"- Of the source: {', '.join(f'`{name}`' for name in legal)}."] if legal else []
    lines += (
        [f"- The source's own card is [{SOURCE_CARD}]({SOURCE_CARD})."] if SOURCE_CARD in facts.files else []
    )
    versions = ", ".join(f"{name} {number}" for name, number in (record.get("versions") or {}).items())
    lines += [f"- Made with {versions}."] if versions else []
    settings = record.get("settings") or {}
    special = [
        f"{name} {settings[name]}" for name in _USUAL if settings.get(name, _USUAL[name]) != _USUAL[name]
    ]
    lines += [f"- Settings other than the usual: {', '.join(special)}."] if special else []
    lines += [f"- Note: {' '.join(str(note).split())}." for note in record.get("notes") or ()]
    lines.append(
        "- `converter.json` has the rest: every size that was compared, timings, and the sha256 of each file, which"
        " `converter inspect` checks."
    )
    return "## Provenance\n\n" + "\n".join(lines)
