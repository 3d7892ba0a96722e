"""The page that a report is: its style, and pieces of HTML in which every text from outside is escaped."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from alexnet.reporting.figures import Colors, names_as_they_are
from alexnet.runtime.text import printable_lines

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SVG_COLORS = Colors(ink="#010101", faint="#020202", first="#030303", second="#040404")
"""Stand-ins in drawings, which `svg` replaces by the page's own colours, so that they follow light and dark mode."""
_CSS_COLORS = {
    "#010101": "var(--ink)",
    "#020202": "var(--faint)",
    "#030303": "var(--first)",
    "#040404": "var(--second)",
}

# Nothing may be loaded from anywhere: the page is one file, and a hostile class name must not change that.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

LONG_TABLE = 24
"""Rows of a table that are shown before the rest is folded away."""

STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfb; --card: #f4f3ee; --ink: #1d1f21; --soft: #5c6066; --faint: #8b8f96;
  --line: #dddcd5; --first: #1f5fa8; --second: #c2571a; --wash: 31 95 168; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --card: #1e2126; --ink: #e6e6e3; --soft: #a7abb2;
  --faint: #80858d; --line: #343941; --first: #74aef0; --second: #f09a5c; --wash: 96 160 235; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
body { margin: 0; background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
main, header, footer { max-width: 62rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
h1 { font-size: clamp(1.6rem, 5vw, 2.3rem); line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 .4rem; }
h2 { font-size: 1.3rem; letter-spacing: -0.01em; margin: 3.2rem 0 .6rem; padding-top: .9rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .5rem; }
p { margin: .5rem 0; max-width: 44rem; }
.soft, figcaption, caption { color: var(--soft); font-size: .9rem; }
figcaption { margin-top: .4rem; max-width: 44rem; }
nav ul { list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; padding: 0; margin: 1.2rem 0 0; }
nav { font-size: .92rem; }
a { color: var(--first); text-underline-offset: .15em; }
a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 2px solid var(--first); outline-offset: 3px; }
.headline { display: flex; flex-wrap: wrap; gap: 1.2rem 3.2rem; align-items: flex-end; margin: 1.6rem 0 .8rem; }
.headline > div { min-width: 0; }
.figure-of { font-size: .92rem; color: var(--soft); }
.number { font-size: clamp(2.4rem, 9vw, 3.6rem); line-height: 1.1; font-weight: 650; letter-spacing: -0.03em;
  font-variant-numeric: tabular-nums; }
.number.small { font-size: clamp(1.7rem, 6vw, 2.3rem); font-weight: 550; }
dl.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .9rem 1.4rem;
  margin: 1.4rem 0 0; }
dl.facts div { border-left: 2px solid var(--line); padding-left: .7rem; min-width: 0; }
dl.facts dt { color: var(--soft); font-size: .85rem; }
dl.facts dd { margin: 0; font-variant-numeric: tabular-nums; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); gap: 1.2rem; }
figure { margin: 0; min-width: 0; }
svg { display: block; width: 100%; height: auto; }
.kernels { display: block; width: 100%; max-width: 46rem; height: auto; image-rendering: pixelated; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(13.2rem, 45%), 1fr)); gap: 1rem;
  list-style: none; padding: 0; margin: 1rem 0 0; }
.cards.small { grid-template-columns: repeat(auto-fill, minmax(8.4rem, 1fr)); }
.card { background: var(--card); border-radius: .5rem; padding: .8rem; min-width: 0; }
.card img { display: block; width: 100%; height: auto; aspect-ratio: 1; object-fit: cover; border-radius: .25rem; }
.card .truth { font-weight: 600; margin: .55rem 0 .35rem; line-height: 1.3; }
.card .key { color: var(--soft); font-size: .78rem; margin: .3rem 0 0; line-height: 1.35; overflow-wrap: anywhere; }
.guesses { list-style: none; padding: 0; margin: 0; font-size: .84rem; line-height: 1.3; }
.guesses li { margin: .32rem 0; }
.guesses .row { display: flex; justify-content: space-between; gap: .6rem; }
.guesses .name { min-width: 0; }
.guesses .bar { display: block; height: .38rem; border-radius: .19rem; background: var(--line); margin-top: .12rem; }
.guesses .bar i { display: block; height: 100%; border-radius: .19rem; background: var(--first); min-width: 1px; }
.guesses .true .bar i { background: var(--second); }
.guesses .true .name { font-weight: 600; }
.spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.value { font-variant-numeric: tabular-nums; white-space: nowrap; }
.scroll { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .5rem; }
th, td { text-align: left; padding: .32rem .9rem .32rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { font-weight: 600; color: var(--soft); font-size: .85rem; vertical-align: bottom; }
tbody th { font-weight: 500; }
td.n, th.n { text-align: right; white-space: nowrap; }
table.matrix th, table.matrix td { border: 0; padding: 0; text-align: center; font-size: .82rem; }
table.matrix td { width: 2.3rem; min-width: 2.3rem; height: 2.1rem; vertical-align: middle;
  border: 1px solid var(--paper); }
table.matrix td.zero { color: var(--faint); background: var(--card); }
table.matrix td.right { font-weight: 600; }
table.matrix tbody th { text-align: right; padding-right: .6rem; white-space: nowrap; vertical-align: middle; }
table.matrix thead th span { writing-mode: vertical-rl; transform: rotate(180deg); padding: .5rem 0 .2rem;
  max-height: 9rem; display: inline-block; }
.heat { max-width: 40rem; }
pre { background: var(--card); border-radius: .5rem; padding: 1rem; overflow-x: auto; font-size: .84rem;
  line-height: 1.5; }
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
summary { cursor: pointer; padding: .35rem 0; }
.note { border-left: 3px solid var(--second); padding: .1rem 0 .1rem .9rem; margin: 1.2rem 0; }
footer { margin-top: 4rem; padding-bottom: 2.5rem; color: var(--soft); font-size: .88rem; }
@media print { nav { display: none; } .card, figure, tr { break-inside: avoid; } }
"""


def text(value: object) -> str:
    """Any text from outside, safe in HTML between tags and in quoted attributes."""
    return html.escape(printable_lines(str(value)), quote=True)


def page(title: str, body: str) -> str:
    """A complete HTML document around `body`."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str, numeric: Sequence[str] = ()) -> str:
    """A table whose first column heads its rows. Cells are HTML already; `columns` and `caption` are plain text."""
    sides = [' class="n"' if column in numeric else "" for column in columns]
    head = "".join(f'<th scope="col"{side}>{text(name)}</th>' for name, side in zip(columns, sides, strict=True))
    body = []
    for first, *rest in rows:
        cells = "".join(f"<td{side}>{cell}</td>" for cell, side in zip(rest, sides[1:], strict=True))
        body.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
    return scrollable(
        f"<table><caption>{text(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>",
        caption,
    )


def scrollable(content: str, label: str) -> str:
    """Content wider than a narrow screen, which scrolls by itself; the keyboard can reach it."""
    return f'<div class="scroll" role="region" aria-label="{text(label)}" tabindex="0">{content}</div>'


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Short names and values (plain texts) as a list of definitions."""
    entries = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="facts">{entries}</dl>'


def details(summary: str, content: str) -> str:
    """Content (HTML) that opens on request."""
    return f"<details><summary>{text(summary)}</summary>{content}</details>"


def folded(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str, numeric: Sequence[str] = ()) -> str:
    """A table as `table` makes it, of which only the first rows are open."""
    shown = table(columns, rows[:LONG_TABLE], caption=caption, numeric=numeric)
    rest = rows[LONG_TABLE:]
    if not rest:
        return shown
    return shown + details(
        f"{len(rest):,} more", table(columns, rest, caption=f"{caption}, continued", numeric=numeric)
    )


def missing(what: str) -> str:
    """A sentence (plain text) in the place of what is not there."""
    return f'<p class="soft">{text(what)}</p>'


def percent(share: float, num_images: int | None = None) -> str:
    """A fraction in percent, with a second decimal only where there are images enough to mean it."""
    return f"{100 * share:.2f} %" if num_images is not None and num_images >= 10_000 else f"{100 * share:.1f} %"


def picture(pixels: np.ndarray, alt: str, *, css_class: str = "", lossless: bool = False, max_side: int = 208) -> str:
    """Pixels (H, W, 3 or 4) uint8 inside the page: as PNG where lossless or small, otherwise as a JPEG."""
    image = Image.fromarray(pixels)
    if not lossless and max(image.size) > max_side:
        image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    kind = "png" if lossless or max(image.size) <= 64 else "jpeg"
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **({"optimize": True} if kind == "png" else {"quality": 88}))
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    width, height = image.size
    of_class = f' class="{css_class}"' if css_class else ""
    return f'<img{of_class} src="data:image/{kind};base64,{data}" alt="{text(alt)}" width="{width}" height="{height}">'


def svg(figure: Figure, name: str, description: str) -> str:
    """A drawing in SVG_COLORS as part of the page. `name` keeps its ids apart from those of other drawings."""
    import matplotlib

    buffer = io.StringIO()
    # Text stays text: smaller, searchable, and in the page's own typeface.
    with names_as_they_are(figure), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    drawing = buffer.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    # Its style sheet would hold for the whole page; the namespaces are for a file of its own.
    drawing = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>", "", drawing, flags=re.DOTALL)
    head, rest = drawing.split(">", 1)
    head = re.sub(r'\s(?:xmlns(?::\w+)?|version|width|height)="[^"]*"', "", head)
    drawing = f"{head}>{rest}"
    drawing = re.sub(r'\bid="', f'id="{name}-', drawing)
    drawing = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", drawing)
    drawing = re.sub(r"(font(?:-family)?: [^;\"]*?)'[^;\"]*", r"\1inherit", drawing)
    for stand_in, color in _CSS_COLORS.items():
        drawing = drawing.replace(stand_in, color)
    return drawing.replace("<svg", f'<svg role="img" aria-label="{text(description)}"', 1)
