"""Open the page of `converter report` in headless Chromium, at two widths, in light and in dark, and look.

    python scripts/check_page.py PACKAGE [--output build/page] [--chromium chromium]

Fails if the page is wider than its window, if a text of a chart leaves the chart, if text and ground are too alike
where they meet, or if anything was fetched. Screenshots are left in the output folder for people to look at.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from converter.page.compose import write_page

WIDTHS = (500, 1100)  # headless Chromium makes no window below 500
SCHEMES = {"light": "1", "dark": "0"}  # Blink's numbers of preferredColorScheme
# Runs in a copy of the page: the page itself has no script.
PROBE = """
const luminance = (colour) => {
  const [r, g, b] = colour.match(/[\\d.]+/g).map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const ground = (element) => {
  for (; element; element = element.parentElement) {
    const colour = getComputedStyle(element).backgroundColor;
    if (!/rgba\\(.*, 0\\)|transparent/.test(colour)) return colour;
  }
  return "rgb(255, 255, 255)";
};
document.querySelectorAll("details").forEach((part) => { part.open = true; });
const problems = [];
const wide = document.documentElement.scrollWidth;
if (wide > innerWidth) problems.push(`the page is ${wide} wide in a window of ${innerWidth}`);
for (const drawing of document.querySelectorAll("svg")) {
  const box = drawing.viewBox.baseVal;
  for (const text of drawing.querySelectorAll("text")) {
    const at = text.getBBox();
    if (at.x < 0 || at.x + at.width > box.width || at.y < 0 || at.y + at.height > box.height)
      problems.push(`leaves its chart: ${text.textContent}`);
  }
}
let texts = 0;
for (const element of document.querySelectorAll("main *")) {
  if (![...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
  if (element instanceof SVGTitleElement || element instanceof SVGDescElement) continue;
  texts += 1;
  const style = getComputedStyle(element);
  const colour = element instanceof SVGElement ? style.fill : style.color;
  const [low, high] = [luminance(colour), luminance(ground(element))].sort((a, b) => a - b);
  if ((high + 0.05) / (low + 0.05) < 4.5) problems.push(`too little contrast: ${element.textContent}`);
}
const fetched = performance.getEntriesByType("resource").map((entry) => entry.name);
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
document.body.dataset.found = JSON.stringify({ problems, fetched, texts, dark, width: innerWidth });
"""


def open_page(chromium: str, page: Path, width: int, scheme: str, picture: Path) -> dict[str, Any]:
    """What the probe found. Raises SystemExit where Chromium does not run."""
    with tempfile.TemporaryDirectory() as scratch:
        probed = Path(scratch) / "page.html"
        text = page.read_text(encoding="utf-8")
        probed.write_text(text.replace("</body>", f"<script>{PROBE}</script></body>"), encoding="utf-8")
        common = [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--user-data-dir={scratch}/profile",
            f"--window-size={width},4200",
            f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
        ]
        run = subprocess.run(
            [*common, "--dump-dom", probed.as_uri()], capture_output=True, text=True, check=False
        )
        subprocess.run([*common, f"--screenshot={picture}", page.as_uri()], capture_output=True, check=False)
    found = re.search(r'data-found="([^"]*)"', run.stdout)
    if not found or not picture.is_file():
        raise SystemExit(f"{chromium} did not open the page: {run.stderr[-400:]}")
    answer: dict[str, Any] = json.loads(html.unescape(found[1]))
    return answer


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path)
    parser.add_argument("--output", type=Path, default=Path("build/page"))
    parser.add_argument("--chromium", default="chromium")
    given = parser.parse_args()
    chromium = shutil.which(given.chromium)
    if chromium is None:
        raise SystemExit(f"there is no {given.chromium}: install it (Debian: apt-get install chromium)")
    given.output.mkdir(parents=True, exist_ok=True)
    page = given.output.resolve() / "page.html"
    write_page(given.package, page)
    failed = False
    for width in WIDTHS:
        for scheme in SCHEMES:
            found = open_page(chromium, page, width, scheme, given.output.resolve() / f"{scheme}-{width}.png")
            wrong = [*found["problems"], *(f"fetched {name}" for name in found["fetched"])]
            wrong += [] if found["dark"] == (scheme == "dark") else [f"the scheme is not {scheme}"]
            wrong += [] if found["width"] == width else [f"the window is {found['width']} wide"]
            wrong += [] if found["texts"] else ["no text was found"]
            failed |= bool(wrong)
            print(f"{scheme}, {width} wide: {found['texts']} texts, {len(wrong)} problems")
            for problem in wrong:
                print(f"  {problem}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
