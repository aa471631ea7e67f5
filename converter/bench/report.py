"""What a benchmark measured, and how it is put before people and programs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from converter.additions import Better
from converter.text import markdown_table

MOST_COLUMNS = 6  # of measures


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
class Measure:
    """One thing that is measured: seconds, of which fewer are better, or something a second."""

    name: str
    better: Better

    def ratio(self, base: Spread, found: Spread) -> float:
        """How many times the speed of `base`."""
        return base.median / found.median if self.better == "lower" else found.median / base.median

    def text(self, spread: Spread) -> str:
        """The median and the quartiles, seconds in milliseconds."""
        if self.better == "lower":
            return f"{spread.median * 1e3:.1f} ({spread.low * 1e3:.1f}-{spread.high * 1e3:.1f})"
        return f"{spread.median:.0f} ({spread.low:.0f}-{spread.high:.0f})"

    @property
    def title(self) -> str:
        return f"{self.name}, ms" if self.better == "lower" else self.name


@dataclass(frozen=True)
class Contender:
    """What was measured of one precision, or of torch.

    figures         by the measure's name; a call takes tokenizing and pooling in, a token sampling
    open_seconds    from a path to a model that can run, its library's import apart
    resident_bytes  of the whole process at the end
    agreement       with the baseline's output: see `BenchReport.agreement`
    """

    name: str
    figures: Mapping[str, Spread]
    import_seconds: float
    open_seconds: float
    resident_bytes: int
    agreement: float


@dataclass(frozen=True)
class BenchReport:
    """The baseline comes first: torch where a checkpoint was given, else the first precision.

    `agreement` names what is compared: `cosine`, the least of any document's two outputs, or `same tokens`, the
    share of tokens, generated greedily, that are the baseline's. `load` says what was run, in words.
    """

    package: str
    measures: tuple[Measure, ...]
    contenders: tuple[Contender, ...]
    agreement: str
    load: str
    threads: int
    repeats: int
    machine: str
    versions: Mapping[str, str]

    def ratios(self, contender: Contender) -> dict[str, float]:
        """How many times the baseline's speed, by measure."""
        base = self.contenders[0].figures
        return {
            each.name: each.ratio(base[each.name], contender.figures[each.name]) for each in self.measures
        }

    def to_json(self) -> dict[str, Any]:
        """The report in plain values, ratios with each contender."""
        content = asdict(self)
        for entry, contender in zip(content["contenders"], self.contenders, strict=True):
            entry["times_the_baseline"] = self.ratios(contender)
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> BenchReport:
        """The report that `to_json` gave. Raises KeyError or TypeError for anything else."""
        contenders = tuple(
            Contender(
                figures={name: Spread(**spread) for name, spread in entry["figures"].items()},
                **{name: entry[name] for name in _PLAIN},
            )
            for entry in content["contenders"]
        )
        measures = tuple(Measure(**entry) for entry in content["measures"])
        rest = {
            name: content[name] for name in ("agreement", "load", "threads", "repeats", "machine", "versions")
        }
        return cls(package=content.get("package", ""), measures=measures, contenders=contenders, **rest)

    @property
    def conditions(self) -> tuple[str, str]:
        """What the figures were measured on, and how."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        threads = f"{self.threads} thread{'s' if self.threads != 1 else ''} each"
        return (
            f"{self.machine}; {threads}; {versions}",
            f"medians (and quartiles) of {self.repeats} turns after a warm-up; {self.load}",
        )

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Header and rows for the screen: ratios first, then what they are made of.

        A row is a contender, or a measure where there are too many of those to stand beside each other.
        """
        if len(self.measures) > MOST_COLUMNS:
            return self._by_measure()
        header = (
            self.contenders[0].name + " = 1",
            *(f"{each.name} x" for each in self.measures),
            self.agreement,
            *(each.title for each in self.measures),
            "open s",
            "MB",
        )
        return header, [self._row(contender) for contender in self.contenders]

    def _by_measure(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        base, *others = self.contenders
        ratios = [self.ratios(contender) for contender in others]
        names = tuple(contender.name for contender in self.contenders)
        header = (f"{base.name} = 1", *(f"{name} x" for name in names[1:]), *names)
        rows = [
            (
                each.title,
                *(f"{ratio[each.name]:.2f}" for ratio in ratios),
                *(each.text(contender.figures[each.name]) for contender in self.contenders),
            )
            for each in self.measures
        ]
        for title, texts in zip(
            (self.agreement, "open s", "MB"), zip(*map(_last, self.contenders), strict=True), strict=True
        ):
            rows.append((title, *("" for _ in others), *texts))
        return header, rows

    def _row(self, contender: Contender) -> tuple[str, ...]:
        agreement, *rest = _last(contender)
        return (
            contender.name,
            *(f"{ratio:.2f}" for ratio in self.ratios(contender).values()),
            agreement,
            *(each.text(contender.figures[each.name]) for each in self.measures),
            *rest,
        )


def _last(contender: Contender) -> tuple[str, str, str]:
    """What is no measure: agreement, seconds to open, memory."""
    return (
        f"{contender.agreement:.5f}",
        f"{contender.open_seconds:.2f}",
        f"{contender.resident_bytes / 1e6:.0f}",
    )


_PLAIN = ("name", "import_seconds", "open_seconds", "resident_bytes", "agreement")


def card_section(content: Mapping[str, Any]) -> str:
    """The benchmark as a section of a package's card."""
    report = BenchReport.from_json(content)
    header, rows = report.table()
    machine, method = report.conditions
    text = (
        f"Columns that end in x are times the speed of {report.contenders[0].name}, higher is faster. {machine};"
        f" {method}."
    )
    return "\n\n".join(["## Speed", text, markdown_table(header, rows, right=header[1:])])
