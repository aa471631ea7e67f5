"""The page of a package: complete without a network, readable by machines as by people, and true to the record.

How it looks is for `make page`, which opens it in Chromium.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from converter.cli.main import run

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """The elements of a page with their attributes and texts; refuses what is not well nested."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open:
            self.texts.append((self.open[-1], data.strip()))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self) -> str:
        return " ".join(text for _, text in self.texts)


def figures(median: float) -> dict[str, float]:
    return {"median": median, "low": median * 0.9, "high": median * 1.2}


def benchmark(first: str = "torch") -> dict[str, Any]:
    return {
        "measures": [{"name": "batch 8", "better": "lower"}, {"name": "docs/s", "better": "higher"}],
        "contenders": [
            {
                "name": name,
                "figures": {"batch 8": figures(seconds), "docs/s": figures(1 / seconds)},
                "import_seconds": 1.0,
                "open_seconds": 0.5,
                "resident_bytes": 10**8,
                "agreement": 0.99999,
            }
            for name, seconds in ((first, 0.08), ("fp32", 0.02))
        ],
        "agreement": "cosine",
        "load": "256 documents",
        "threads": 2,
        "repeats": 7,
        "machine": "a cpu",
        "versions": {"converter": "0.1.0"},
    }


def precision(cosine: float, passed: bool) -> dict[str, Any]:
    return {
        "files": ["onnx/model_quantized.onnx"],
        "bytes": 3,
        "ratio": 0.268,
        "quality": {"cosine": cosine, "texts": 147},
        "budget": {"cosine": 0.999},
        "passed": passed,
    }


def by_size(size: str, pair: str, distance: float | str, passed: bool = True) -> dict[str, Any]:
    return {
        "component": "model",
        "size": size,
        "pair": pair,
        "output": "logits",
        "max_abs": distance,
        "cosine": 1.0,
        "passed": passed,
    }


PARITY = {
    "mode": "full",
    "passed": True,
    "sizes": ["a", "b"],
    "tensors_checked": 12,
    "by_size": [
        by_size("batch_size=1", "graph/original", 0.0),
        by_size("batch_size=3,left", "graph/original", 3.4e-6),
        by_size("batch_size=3,left", "graph/wrapper", 3.1e-6),
    ],
}


@pytest.fixture
def package(seal: Callable[..., None], image_package: Path) -> Path:
    """With everything a package can have."""
    record = json.loads((image_package / "converter.json").read_text())
    (image_package / "onnx/model_quantized.onnx").write_bytes(b"abc")
    record |= {"parity": PARITY, "precisions": {"q8": precision(0.9996, True)}, "benchmark": benchmark()}
    seal(image_package, record)
    (image_package / "onnx/model_quantized.onnx").write_bytes(
        (image_package / "onnx/model.onnx").read_bytes()
    )
    seal(image_package, record)
    return image_package


def render(package: Path, target: Path) -> str:
    assert run(["report", str(package), "--html", str(target), "--quiet"]) == 0
    return target.read_text(encoding="utf-8")


def test_the_page_is_one_file_that_fetches_nothing(package: Path, tmp_path: Path) -> None:
    text = render(package, tmp_path / "page.html")
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "embed"} & {name for name, _ in page.elements}
    assert all((link["href"] or "").startswith("#") for link in page.all("a"))
    assert not re.search(r"https?:|url\(|@import|src=", text)


def test_a_reader_that_sees_nothing_finds_its_way(package: Path, tmp_path: Path) -> None:
    page = Page(render(package, tmp_path / "page.html"))
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == len(page.all("main")) == 1
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"] for link in page.all("a")} == {f"#{heading['id']}" for heading in page.all("h2")}
    for drawing in page.all("svg"):
        assert drawing["role"] == "img"
        assert set((drawing["aria-labelledby"] or "").split()) <= set(ids)
    assert len(page.all("caption")) == len(page.all("table")) > 0
    assert all(cell["scope"] in ("row", "col") for cell in page.all("th"))
    scrolled = [entry for entry in page.all("div") if entry.get("class") == "scroll"]
    assert all(entry["tabindex"] == "0" and entry["aria-label"] for entry in scrolled)


def test_its_colours_can_be_read_in_light_and_in_dark(package: Path, tmp_path: Path) -> None:
    """Contrast as WCAG counts it: 4.5 for text on any ground it stands on."""
    text = render(package, tmp_path / "page.html")
    light, dark = (
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", text, re.S)
    )
    assert set(light) == set(dark)
    for scheme in (light, dark):
        for name in ("text", "quiet", "main", "other", "good", "bad"):
            for ground in ("ground", "panel"):
                assert contrast(scheme[name], scheme[ground]) >= 4.5, (name, ground)


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_sizes_parity_quality_speed_and_provenance_are_those_of_the_record(
    package: Path, tmp_path: Path
) -> None:
    page = Page(render(package, tmp_path / "page.html"))
    text = page.text()
    size = (package / "onnx/model.onnx").stat().st_size
    for words in (
        f"{size} B",
        "3.4e-06",
        "12 stored tensors",
        "0.99960",
        "kept",
        "4.00x",
        "80.0",
        "org/some-model",
    ):
        assert words in text, words
    record = json.loads((package / "converter.json").read_text())
    assert all(entry["sha256"] in text for entry in record["files"].values())
    limits = [entry for entry in page.all("line") if entry.get("class") == "limit"]
    assert len(limits) == 2, "of parity, and of the precision that has a budget"
    assert len(page.all("svg")) == 5, "sizes, parity, quality, and one for each measure of speed"


def test_what_failed_is_called_failed(seal: Callable[..., None], package: Path, tmp_path: Path) -> None:
    record = json.loads((package / "converter.json").read_text())
    failed = {**PARITY, "passed": False, "by_size": [by_size("batch_size=1", "graph/original", "inf", False)]}
    seal(package, record | {"parity": failed, "precisions": {"q8": precision(0.9, False)}})
    (package / "config.json").write_text("altered")
    page = Page(render(package, tmp_path / "page.html"))
    bad = {text for tag, text in page.texts if tag in ("span", "td") and text in ("FAILED", "MISSED")}
    assert bad == {"FAILED", "MISSED"}
    assert "Parity FAILED" in page.text()
    assert "not as recorded" in page.text()
    assert "(config.json)" in page.text()


def test_a_package_without_precisions_benchmark_or_parity_says_how_to_get_them(
    seal: Callable[..., None], image_package: Path, tmp_path: Path
) -> None:
    record = json.loads((image_package / "converter.json").read_text())
    seal(image_package, record | {"parity": {"mode": "off", "passed": False}})
    text = Page(render(image_package, tmp_path / "page.html")).text()
    for words in ("Parity was not checked", "converter quantize", "converter bench"):
        assert words in text


def test_markup_in_a_record_stays_text(seal: Callable[..., None], package: Path, tmp_path: Path) -> None:
    record = json.loads((package / "converter.json").read_text())
    evil = '<script>alert("x")</script>'
    seal(
        package,
        record
        | {
            "notes": [evil],
            "source": {"name": evil, "license": evil},
            "benchmark": benchmark(evil),
            "task": evil,
        },
    )
    page = Page(render(package, tmp_path / "page.html"))
    assert "script" not in {name for name, _ in page.elements}
    assert evil in page.text()


@pytest.mark.xdist_group("minilm")
def test_a_real_conversion_has_its_parity_by_size(minilm_package: Path, tmp_path: Path) -> None:
    text = Page(render(minilm_package, tmp_path / "page.html")).text()
    assert "batch_size=1,sequence_length=1" in text
    assert re.search(r"Parity passed \(full\), \d+ sizes\.", text)


def test_the_page_is_not_written_where_it_does_harm(
    package: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["report", str(package), "--html", str(package / "page.html")]) == 2
    assert run(["report", str(package), "--html", str(tmp_path / "nowhere" / "page.html")]) == 2
    shutil.rmtree(package)
    assert run(["report", str(package), "--html", str(tmp_path / "page.html")]) == 1
    assert "there is no folder" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
