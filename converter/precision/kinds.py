"""Which kind of model a package holds, read off its record and what its graphs take and give, and its samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from converter.errors import UsageError
from converter.packages.graph_info import GraphInfo, read_graph
from converter.precision.made_up import made_up_feeds
from converter.precision.samples import Given, corpus, draw_pages, draw_pictures
from converter.precision.sessions import Sessions
from converter.precision.tasks import Embeddings, Feeds, Language, Pages, Task, Translation
from converter.runtime.encoder import OUTPUTS
from converter.runtime.files import open_package
from converter.runtime.images import FixedSize, open_image
from converter.runtime.tokens import TextTokenizer

Preprocess = Callable[[Any], Mapping[str, Any]]
_TEXT = {"input_ids", "attention_mask", "token_type_ids", "position_ids"}
# How many of what comes along. Of pages the issue is their ranking among fifty: among fewer the best is easier to keep.
_PICTURES, _PAGES, _MADE_UP = (48, 96), (50, 50), (12, 24)


@dataclass(frozen=True)
class Chosen:
    """A task, and the samples to choose and to judge by; `about` says what they are."""

    task: Task
    calibration: Sequence[Any]
    evaluation: Sequence[Any]
    about: str


@dataclass(frozen=True)
class _Package:
    folder: Path
    record: Mapping[str, Any]
    stems: tuple[str, ...]
    graphs: Mapping[str, GraphInfo]
    calibration: Given | None
    evaluation: Given | None
    count: int | None

    @property
    def task(self) -> str:
        return str(self.record.get("task", ""))

    def inputs(self, stem: str) -> set[str]:
        return {value.name for value in self.graphs[stem].inputs}

    def outputs(self, stem: str) -> set[str]:
        return {value.name for value in self.graphs[stem].outputs}

    def samples(self, kind: str, first: Sequence[Any], second: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """What was given in the place of what comes along. Raises UsageError for another kind, or too few."""
        halves = []
        options = (("--calibration", self.calibration, first), ("--evaluation", self.evaluation, second))
        for option, given, own in options:
            if given is not None and given.kind == "generated":
                raise UsageError(
                    f"{option} generated: made-up inputs say nothing of a model that takes {kind}",
                    remedy=f"give {kind}, or leave the option out",
                )
            if given is not None and given.kind != kind:
                raise UsageError(
                    f"{option} {given.source} holds {given.kind}, and this model takes {kind}",
                    remedy=f"give {kind}, or leave the option out",
                )
            halves.append(list(own if given is None else given.items))
        return self.counted(halves[0]), halves[1]

    def counted(self, samples: Sequence[Any]) -> list[Any]:
        """As many calibration samples as were asked for. Raises UsageError where there are fewer."""
        if self.count is not None and self.count > len(samples):
            raise UsageError(
                f"{len(samples)} calibration samples are there, but {self.count} were asked for",
                remedy=f"give more with --calibration, or --num-samples {len(samples)}",
            )
        return list(samples[: self.count])

    def refuse_given(self) -> None:
        """Raise UsageError for samples that this kind of model has no use for: it is fed arrays, made up or given."""
        options = (("--calibration", self.calibration), ("--evaluation", self.evaluation))
        for option, given in options:
            if given is not None and given.kind != "generated":
                raise UsageError(
                    f"{option} {given.source} holds {given.kind}, and this kind of model is fed arrays",
                    remedy="give --calibration with JSON lines of arrays by input name"
                    + (" as well" if given.kind == "feeds" else ""),
                )


def choose_task(
    folder: Path,
    record: Mapping[str, Any],
    stems: Sequence[str],
    calibration: Given | None,
    evaluation: Given | None,
    count: int | None,
    preprocess: Preprocess | None,
) -> Chosen:
    """How to judge the package in `folder`. Raises UsageError where nothing can be told, or samples do not fit."""
    graphs = {stem: read_graph(folder, f"onnx/{stem}.onnx") for stem in stems}
    package = _Package(folder, record, tuple(stems), graphs, calibration, evaluation, count)
    if preprocess is not None or (calibration is not None and calibration.kind == "feeds"):
        return _fed(package, preprocess)
    for choose in (_pages, _translation, _text, _pictures):
        if (chosen := choose(package)) is not None:
            return chosen
    return _made_up(package)


def _fed(package: _Package, preprocess: Preprocess | None) -> Chosen:
    """Feeds from the user. Without --evaluation every other one judges, and the rest calibrates."""
    if package.calibration is None:
        raise UsageError(
            "a preprocessing function is given and no samples", remedy="give calibration as well"
        )
    first, second = list(package.calibration.items), []
    if package.evaluation is None:
        first, second = first[::2], first[1::2]
    elif package.evaluation.kind != package.calibration.kind:
        raise UsageError(
            f"--evaluation {package.evaluation.source} holds {package.evaluation.kind}, and "
            f"--calibration {package.calibration.source} holds {package.calibration.kind}",
            remedy="give one kind of sample",
        )
    else:
        second = list(package.evaluation.items)
    if not second:
        raise UsageError("one sample cannot both calibrate and judge", remedy="give more, or --evaluation")
    first = package.counted(first)

    def feeds(sessions: Sessions, sample: Any) -> Mapping[str, Mapping[str, Any]]:
        feed = sample if preprocess is None else preprocess(sample)
        fitting = {stem: feed for stem in package.stems if package.inputs(stem) <= set(feed)}
        if not fitting:
            wanted = " or ".join(", ".join(sorted(package.inputs(stem))) for stem in package.stems)
            raise UsageError(f"a sample has {', '.join(map(str, feed))}, and the graphs take {wanted}")
        return fitting

    return Chosen(
        Feeds(feeds, "inputs that were given"), first, second, f"inputs from {package.calibration.source}"
    )


def _tokens(package: _Package) -> TextTokenizer:
    if not (package.folder / "tokenizer.json").is_file():
        raise UsageError(
            "it takes tokens and has no tokenizer.json, and random tokens would prove nothing",
            remedy="convert a checkpoint with its tokenizer, or give token ids as JSON lines with --calibration",
        )
    tokens = TextTokenizer(open_package(package.folder))
    tokens.truncate_at(tokens.maximum)
    return tokens


def _pages(package: _Package) -> Chosen | None:
    pictured = [stem for stem in package.stems if "pixel_values" in package.inputs(stem)]
    if not pictured or not any("embeddings" in package.outputs(stem) for stem in package.stems):
        return None
    _tokens(package)
    texts = corpus()
    drawn = [draw_pages(half, count) for half, count in zip(texts, _PAGES, strict=True)]
    pages = package.samples("images", *drawn)
    first, second = (_asked(half, images) for half, images in zip(texts, pages, strict=True))
    about = "queries and drawn pages" if package.evaluation is None else "queries and images that were given"
    if package.calibration is not None:
        about += f"; calibrated on {package.calibration.source}"
    return Chosen(Pages(), first, second, about)


def _asked(texts: Sequence[str], pages: Sequence[Any]) -> list[Any]:
    """The pages, all the queries dealt out to them, at least one to each: queries cost little beside pages."""
    queries = [*texts] * -(-len(pages) // len(texts))
    return [(tuple(queries[index :: len(pages)]), page) for index, page in enumerate(pages)]


def _translation(package: _Package) -> Chosen | None:
    decoder = next((stem for stem in package.stems if stem.startswith("decoder_model")), None)
    if decoder is None or "encoder_model" not in package.stems:
        return None
    config = open_package(package.folder).read_object("config.json")
    generation = open_package(package.folder).read_object("generation_config.json")
    start = generation.get("decoder_start_token_id", config.get("decoder_start_token_id"))
    end = generation.get("eos_token_id", config.get("eos_token_id"))
    ends = tuple(end) if isinstance(end, list) else () if end is None else (int(end),)
    features, what, halves = _sources(package)
    task = Translation("encoder_model", decoder, int(start or 0), ends, features, what)
    return Chosen(task, *halves, what)


def _sources(package: _Package) -> tuple[Any, str, tuple[list[Any], list[Any]]]:
    """What an encoder of a pair reads: texts, or made-up values for what is no text."""
    if "input_ids" in package.inputs("encoder_model"):
        tokens = _tokens(package)
        # Each takes as many runs as its answer has tokens.
        halves = package.samples("texts", *(half[::3] for half in corpus()))
        return (lambda sessions, text: tokens.pad([tokens.encode([text])[0].ids])), "texts", halves
    if package.inputs("encoder_model") == {"pixel_values"}:
        halves = package.samples(
            "images", draw_pictures(_PICTURES[0] // 2), draw_pictures(_PICTURES[1] // 2, 1000)
        )
        return partial(_pixels, package, "encoder_model"), "pictures", halves
    package.refuse_given()
    first = package.count or _MADE_UP[0]
    total = first + _MADE_UP[1]
    encoder = {"encoder_model": package.graphs["encoder_model"]}
    made, about = made_up_feeds(package.folder, package.record, encoder, total)
    return (
        lambda sessions, index: {name: value[:1] for name, value in made[index]["encoder_model"].items()},
        about,
        (list(range(first)), list(range(first, total))),
    )


def _text(package: _Package) -> Chosen | None:
    stem = next((stem for stem in ("model", "text_model", *package.stems) if stem in package.stems), "")
    inputs, outputs = package.inputs(stem), package.outputs(stem)
    rest = {name for name in inputs - _TEXT if not name.startswith("past_key_values")} - {"use_cache_branch"}
    if "input_ids" not in inputs or rest or len(package.stems) > 1:
        return None
    tokens = _tokens(package)
    halves = package.samples("texts", *corpus())
    causal = any(name.startswith("past_key_values") for name in inputs) or package.task.startswith(
        "text-generation"
    )
    if "logits" in outputs and causal:
        return Chosen(Language(stem), *halves, "passages of text")
    if outputs & set(OUTPUTS):
        return Chosen(Embeddings(stem, OUTPUTS), *halves, "texts")

    def feeds(sessions: Sessions, text: str) -> Mapping[str, Mapping[str, Any]]:
        feed = tokens.pad([tokens.encode([text])[0].ids])
        zeros, places = np.zeros_like(feed["input_ids"]), np.arange(feed["input_ids"].shape[1])[None]
        return {stem: {"token_type_ids": zeros, "position_ids": places, **feed}}

    return Chosen(Feeds(feeds, "texts"), *halves, "texts")


def _pictures(package: _Package) -> Chosen | None:
    if len(package.stems) > 1 or package.inputs(package.stems[0]) != {"pixel_values"}:
        return None
    (stem,) = package.stems
    given = any(
        half is not None and half.kind == "images" for half in (package.calibration, package.evaluation)
    )
    shape = next(value.shape for value in package.graphs[stem].inputs if value.name == "pixel_values")
    if len(shape) != 4 or shape[1] != 3:
        if given:
            raise UsageError(
                f"pixel_values {list(shape)} is not a batch of colour images", remedy="give JSON lines"
            )
        return None
    halves = package.samples("images", draw_pictures(_PICTURES[0]), draw_pictures(_PICTURES[1], 1000))
    pixels = partial(_pixels, package, stem)
    task = Feeds(lambda sessions, picture: {stem: pixels(sessions, picture)}, "pictures")
    return Chosen(task, *halves, "images that were given" if given else "drawn pictures")


def _pixels(package: _Package, stem: str, sessions: Sessions, picture: Any) -> dict[str, Any]:
    """A picture as the package's image processor prepares it, at the size the graph takes."""
    shape = next(value.shape for value in package.graphs[stem].inputs if value.name == "pixel_values")
    files = open_package(package.folder)
    config = files.read_object("config.json")
    vision = config.get("vision_config") if isinstance(config.get("vision_config"), dict) else config
    layout = FixedSize.read(
        files.read_object("preprocessor_config.json"), {"image_size": _side(vision or {})}
    )
    fixed = tuple(size for size in shape[2:] if isinstance(size, int))
    size = (fixed[0], fixed[1]) if len(fixed) == 2 else layout.size
    return dict(layout.tensors([open_image(picture, 0)], size))


def _side(config: Mapping[str, Any]) -> int:
    side = config.get("image_size", 224)
    return int(side[0] if isinstance(side, list) else side)


def _made_up(package: _Package) -> Chosen:
    """Inputs as the plugin makes them for parity; without it, drawn where floats are all a graph takes."""
    package.refuse_given()
    if all(package.inputs(stem) <= _TEXT for stem in package.stems):
        _tokens(package)
    first = package.count or _MADE_UP[0]
    total = first + _MADE_UP[1]
    made, about = made_up_feeds(package.folder, package.record, package.graphs, total)
    task = Feeds(lambda sessions, index: made[index], "made-up inputs")
    return Chosen(task, list(range(first)), list(range(first, total)), about)
