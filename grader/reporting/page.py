"""The frame of every HTML page that grading writes: one style, no script, nothing loaded from anywhere."""

from __future__ import annotations

from grader.framework.rendering import escape

#: Whatever a page holds, the browser loads and runs nothing but the style below.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

STYLE = """\
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5a6675; --paper: #ffffff; --box: #f4f6f8; --line: #d5dbe2;
  --good: #1b6e3c; --bad: #b3261e; --warn: #8a5a00; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8ee; --soft: #a3afbd; --paper: #14181d; --box: #1e242b;
  --line: #38424d; --good: #6fcf97; --bad: #ff8a80; --warn: #f0b354; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 60rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.55 system-ui, "Liberation Sans", "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1rem 0 .25rem; }
p { margin: .4rem 0; }
code, pre { font-family: ui-monospace, "Liberation Mono", "DejaVu Sans Mono", monospace; font-size: .9em; }
pre { background: var(--box); border: 1px solid var(--line); border-radius: 4px; padding: .6rem .8rem; margin: .4rem 0;
  white-space: pre-wrap; overflow-x: auto; }
table { border-collapse: collapse; margin: .75rem 0; }
th, td { text-align: left; padding: .25rem 1rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td:last-child { overflow-wrap: anywhere; min-width: 8rem; } td.number:last-child { min-width: 0; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.soft { color: var(--soft); }
.total { font-size: 1.15rem; font-weight: 600; }
.box { background: var(--box); border-left: 4px solid var(--warn); border-radius: 0 4px 4px 0; padding: .5rem .9rem;
  margin: .75rem 0; }
.box.bad { border-left-color: var(--bad); }
.box p:first-child { margin-top: 0; } .box p:last-child { margin-bottom: 0; }
ul { margin: .4rem 0; padding-left: 1.3rem; }
ul.ticks { list-style: none; padding: 0; }
ul.ticks > li { display: grid; grid-template-columns: 1.4rem 8.5rem 1fr; margin: .3rem 0; }
ul.ticks > li > div { grid-column: 3; }
.right { color: var(--good); } .wrong, .crashed, .timed-out { color: var(--bad); }
.not-attempted, .not-checked-here { color: var(--soft); }
a { color: inherit; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--soft); }
img { max-width: 100%; height: auto; background: #ffffff; border-radius: 4px; }
@media (max-width: 36rem) { ul.ticks > li { grid-template-columns: 1.4rem 1fr; }
  ul.ticks > li > span:nth-child(3), ul.ticks > li > div { grid-column: 2; } }
"""


def page(title: str, body: str) -> str:
    """A whole page. `body` is HTML whose texts are escaped already; `title` is plain text."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""
