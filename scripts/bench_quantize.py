"""Memory and time of `converter quantize` on a package, summed over the process tree. Linux only.

    python scripts/make_checkpoint.py colqwen2 build/colqwen2/checkpoint
    converter --arch colqwen2 --model build/colqwen2/checkpoint --output build/colqwen2/package --parity off
    python scripts/bench_quantize.py build/colqwen2/package --precisions q8,q4

Each precision is a process of its own and is added to the package, unjudged unless --judged says otherwise: judging
runs the graphs, and so takes what a session of them takes. Other options go to `converter quantize`, such as --keep.
Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from measure import measure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path)
    parser.add_argument("--precisions", default="q8,q4")
    parser.add_argument("--judged", action="store_true")
    given, options = parser.parse_known_args()  # what is left is for `converter quantize`
    how = [] if given.judged else ["--unjudged"]
    print("| precision | recipe | seconds | resident GB | anonymous GB | GB | of fp32 | files |")
    print("|---" * 8 + "|", flush=True)
    for name in given.precisions.split(","):
        command = [sys.executable, "-m", "converter", "quantize", str(given.package), "--precisions", name]
        found = measure([*command, *how, *options, "--quiet"])
        if found.code:
            sys.exit(f"{name}: exit {found.code}\n{found.output}")
        entry = json.loads((given.package / "converter.json").read_text())["precisions"][name]
        missing = [file for file in entry["files"] if not (given.package / file).is_file()]
        assert not missing, f"recorded and not there: {missing}"
        print(
            f"| {name} | {entry['label']} | {found.wall:.0f} | {found.resident / 1e9:.2f} "
            f"| {found.anonymous / 1e9:.2f} | {entry['bytes'] / 1e9:.2f} | {entry['ratio']:.3f} "
            f"| {', '.join(Path(file).name for file in entry['files'])} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
