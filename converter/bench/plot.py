"""The benchmark as a picture. matplotlib is needed here and nowhere else."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill

from converter.bench.report import BenchReport
from converter.errors import UsageError


def check_plot(path: Path) -> None:
    """Raise UsageError where a plot could not be written; ask before an hour is measured."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib", remedy="pip install 'converter[plot]'", topic="extras")
    if not path.parent.is_dir():
        raise UsageError(f"--plot: there is no folder {path.parent}", remedy="create it first")
    if path.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UsageError(f"--plot {path}: unknown image format", remedy="name it .png, .svg or .pdf")


def draw(report: BenchReport, path: Path) -> None:
    """Bars of each measure's ratio to the baseline, with the figure itself written on them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [measure.name for measure in report.measures]
    count = len(report.contenders)
    figure, axes = pyplot.subplots(figsize=(1.6 + 0.55 * count * len(names), 4.2), layout="constrained")
    width = 0.8 / count
    for index, contender in enumerate(report.contenders):
        places = [place + (index - (count - 1) / 2) * width for place in range(len(names))]
        bars = axes.bar(places, list(report.ratios(contender).values()), width, label=contender.name)
        texts = [measure.text(contender.figures[measure.name]).split(" ")[0] for measure in report.measures]
        axes.bar_label(bars, texts, fontsize=7, rotation=90, padding=2)
    axes.axhline(1, color="gray", linewidth=0.8)
    axes.set_xticks(range(len(names)), [measure.title for measure in report.measures])
    axes.set_ylabel(f"times the speed of {report.contenders[0].name}")
    axes.margins(y=0.2)
    axes.set_title(fill(report.conditions[0], 90), fontsize=7)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
