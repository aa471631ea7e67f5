"""What a benchmark measured, and how it is put before people and programs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from converter.text import markdown_table


@dataclass(frozen=True)
class Spread:
    """Of repeated measurements: the median, and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Contender:
    """What was measured of one precision, or of torch.

    latency         seconds a call, by batch size, tokenizing and pooling included
    docs_per_second over documents of mixed length
    open_seconds    from a path to a model that can run, its library's import apart
    resident_bytes  of the whole process at the end
    cosine          least over all documents, to the baseline's vectors
    """

    name: str
    latency: Mapping[int, Spread]
    docs_per_second: Spread
    import_seconds: float
    open_seconds: float
    resident_bytes: int
    cosine: float


@dataclass(frozen=True)
class BenchReport:
    """The baseline comes first: torch where a checkpoint was given, else the first precision."""

    package: str
    contenders: tuple[Contender, ...]
    threads: int
    repeats: int
    documents: int
    machine: str
    versions: Mapping[str, str]

    def ratios(self, contender: Contender) -> dict[str, float]:
        """How many times the baseline's speed: by batch size (`batch 8`), and of documents."""
        base = self.contenders[0]
        ratios = {
            f"batch {size}": base.latency[size].median / spread.median
            for size, spread in contender.latency.items()
        }
        return {**ratios, "docs/s": contender.docs_per_second.median / base.docs_per_second.median}

    def to_json(self) -> dict[str, Any]:
        """The report in plain values, ratios with each contender."""
        content = asdict(self)
        for entry, contender in zip(content["contenders"], self.contenders, strict=True):
            entry["times_the_baseline"] = self.ratios(contender)
            entry["latency"] = {str(size): asdict(spread) for size, spread in contender.latency.items()}
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> BenchReport:
        """The report that `to_json` gave. Raises KeyError or TypeError for anything else."""
        contenders = tuple(
            Contender(
                name=entry["name"],
                latency={int(size): Spread(**spread) for size, spread in entry["latency"].items()},
                docs_per_second=Spread(**entry["docs_per_second"]),
                import_seconds=entry["import_seconds"],
                open_seconds=entry["open_seconds"],
                resident_bytes=entry["resident_bytes"],
                cosine=entry["cosine"],
            )
            for entry in content["contenders"]
        )
        rest = {name: content[name] for name in ("package", "threads", "repeats", "documents", "machine")}
        return cls(contenders=contenders, versions=content["versions"], **rest)

    @property
    def conditions(self) -> tuple[str, str]:
        """What the figures were measured on, and how."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return (
            f"{self.machine}; {self.threads} threads; {versions}",
            f"medians (and quartiles) of {self.repeats} turns after a warm-up, {self.documents} documents of"
            " mixed length; cosine is the least of any document",
        )

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Header and rows for the screen: ratios first, then what they are made of."""
        sizes = list(self.contenders[0].latency)
        header = (
            self.contenders[0].name + " = 1",
            *(f"batch {size}" for size in sizes),
            "docs/s",
            "cosine",
            *(f"ms at {size}" for size in sizes),
            "docs a second",
            "open s",
            "MB",
        )
        return header, [self._row(contender) for contender in self.contenders]

    def _row(self, contender: Contender) -> tuple[str, ...]:
        speed = contender.docs_per_second
        return (
            contender.name,
            *(f"{ratio:.2f}x" for ratio in self.ratios(contender).values()),
            f"{contender.cosine:.5f}",
            *(_milliseconds(spread) for spread in contender.latency.values()),
            f"{speed.median:.0f} ({speed.low:.0f}-{speed.high:.0f})",
            f"{contender.open_seconds:.2f}",
            f"{contender.resident_bytes / 1e6:.0f}",
        )


def _milliseconds(spread: Spread) -> str:
    return f"{spread.median * 1e3:.1f} ({spread.low * 1e3:.1f}-{spread.high * 1e3:.1f})"


def card_section(content: Mapping[str, Any]) -> str:
    """The benchmark as a section of a package's card."""
    report = BenchReport.from_json(content)
    header, rows = report.table()
    machine, method = report.conditions
    text = (
        f"Times the speed of {report.contenders[0].name}, higher is faster. {machine}. {method.capitalize()}."
    )
    return "\n\n".join(["## Speed", text, markdown_table(header, rows, right=header[1:])])
