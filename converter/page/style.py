"""How the page looks: one style sheet, readable in light and in dark."""

from __future__ import annotations

# Every pair of text and ground has a contrast of 4.5 or more in both schemes; marks differ in shape besides colour.
STYLE = """
:root {
  color-scheme: light dark;
  --ground: #ffffff; --text: #1c2128; --quiet: #57606a; --line: #d0d7de; --panel: #f6f8fa;
  --main: #0550ae; --other: #8250df; --good: #116329; --bad: #a40e26;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #0d1117; --text: #e6edf3; --quiet: #9da7b3; --line: #30363d; --panel: #161b22;
    --main: #79c0ff; --other: #d2a8ff; --good: #7ee787; --bad: #ffa198;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--text); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 64rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; border-bottom: 1px solid var(--line); padding-bottom: .25rem; }
p { margin: .5rem 0; max-width: 48rem; }
a { color: var(--main); }
:is(a, summary, .scroll, figure):focus-visible { outline: 3px solid var(--main); outline-offset: 2px; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1rem; list-style: none; padding: 0; margin: .75rem 0; }
.quiet { color: var(--quiet); }
.good { color: var(--good); font-weight: 600; }
.bad { color: var(--bad); font-weight: 600; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
caption { text-align: left; color: var(--quiet); padding-bottom: .35rem; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { background: var(--panel); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
figure { margin: .75rem 0; overflow-x: auto; }
svg { display: block; max-width: 100%; height: auto; min-width: 44rem; }
svg text { fill: var(--text); font: 12px system-ui, sans-serif; }
svg .quiet { fill: var(--quiet); }
svg .axis { stroke: var(--line); }
svg .main { fill: var(--main); stroke: var(--main); }
svg .other { fill: var(--other); stroke: var(--other); }
svg .limit { stroke: var(--bad); stroke-dasharray: 5 4; }
svg .whisker { stroke: var(--text); stroke-width: 1.5; }
@media (max-width: 45rem) { table { width: max-content; min-width: 100%; } td { max-width: 20rem; } }
@media print { nav { display: none; } }
"""
