"""Tables as one HTML page that needs nothing else: light, dark, and on a narrow screen."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import groupby

from derain.evaluation.tables.cells import BEST, SECOND, Row, Table

BLOCKS = {"quoted": "Quoted from the paper", "measured": "Measured"}
STYLES = {BEST: "<strong>{}</strong>", SECOND: "<u>{}</u>"}
STYLE = """
:root { color-scheme: light dark; --text: #1d2125; --muted: #5c6670; --line: #d5dae0;
  --back: #fff; --ours: #eef5fd; --rule: #1d2125; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ec; --muted: #9aa5b1; --line: #343b43;
  --back: #14171a; --ours: #1b2836; --rule: #c3cad2; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 84rem; background: var(--back);
  color: var(--text); font: 15px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 1.5rem; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .75rem; }
.wide { overflow-x: auto; width: fit-content; max-width: 100%;
  border-block: 2px solid var(--rule); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .65rem; white-space: nowrap; text-align: right; }
thead th { font-weight: 600; }
thead tr:last-child th { border-bottom: 1px solid var(--rule); font-weight: 400;
  color: var(--muted); }
th.set { text-align: center; }
th.text, td.text { text-align: left; white-space: normal; }
p { max-width: 62rem; color: var(--muted); }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--back); }
tbody th { font-weight: 500; }
tbody th small { display: block; font-weight: 400; color: var(--muted); }
tr.block th { font-weight: 400; font-style: italic; color: var(--muted); padding-top: .7rem; }
tbody + tbody tr.block > * { border-top: 1px solid var(--line); }
tr.measured td, tr.measured th { background: var(--ours); }
td sup, th sup { color: var(--muted); font-weight: 400; line-height: 0; }
td .value { display: inline-block; position: relative; }
td .value sup { position: absolute; left: 100%; top: .55em; }
ul { color: var(--muted); font-size: .87rem; padding-left: 1.4rem; max-width: 62rem; }
ul.marks { list-style: none; padding-left: 0; }
ul.marks sup { margin-right: .3em; }
@media (max-width: 40rem) { body { font-size: 14px; padding-inline: .7rem; }
  th, td { padding-inline: .4rem; }
  tr.measured th, tr.quoted th { min-width: 7rem; max-width: 9.5rem; white-space: normal;
    overflow-wrap: break-word; } }
"""


def page(tables: Sequence[Table], title: str) -> str:
    """A whole HTML document with these tables."""
    return document(title, "\n".join(_section(table) for table in tables))


def document(title: str, body: str) -> str:
    """A whole HTML document in the style of the tables; `body` is HTML, `title` a text.

    Tables scroll within elements of the class `wide`; cells of the class `text` are no numbers.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def _section(table: Table) -> str:
    marks = table.marks()
    blocks = groupby(enumerate(table.rows), key=lambda it: it[1].origin)
    bodies = "\n".join(_body(table, origin, list(block), marks) for origin, block in blocks)
    reasons = "".join(
        f"<li><sup>{mark}</sup>{escape(reason)}</li>" for reason, mark in marks.items()
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
    return (
        f'<section id="{escape(table.name)}">\n<h2>{escape(table.title)}</h2>\n'
        f'<div class="wide" tabindex="0">\n<table>\n{_head(table)}\n{bodies}\n</table>\n</div>\n'
        f'<ul class="marks">{reasons}</ul>\n<ul>{notes}</ul>\n</section>'
    )


def _head(table: Table) -> str:
    groups = [(name, len(list(each))) for name, each in groupby(c.group for c in table.columns)]
    above = "".join(
        f'<th class="set" colspan="{width}" scope="colgroup">{escape(name)}</th>'
        for name, width in groups
    )
    below = "".join(f'<th scope="col">{escape(c.metric.title)}</th>' for c in table.columns)
    return (
        f'<thead>\n<tr><th></th>{above}</tr>\n<tr><th scope="col">method</th>{below}</tr>\n</thead>'
    )


def _body(
    table: Table, origin: str, rows: Sequence[tuple[int, Row]], marks: Mapping[str, str]
) -> str:
    width = len(table.columns)
    title = f'<th scope="rowgroup">{BLOCKS[origin]}</th><td colspan="{width}"></td>'
    head = f'<tr class="block">{title}</tr>'
    lines = "\n".join(_row(table, number, row, marks) for number, row in rows)
    return f"<tbody>\n{head}\n{lines}\n</tbody>"


def _row(table: Table, number: int, row: Row, marks: Mapping[str, str]) -> str:
    ranks = table.ranks()
    cells = []
    for at, cell in enumerate(row.cells):
        printed = table.printed(row, at) or "–"
        value = STYLES.get(ranks.get((number, at), 0), "{}").format(printed)
        hint = f' title="{escape("; ".join(cell.reasons))}"' if cell.reasons else ""
        cells.append(
            f'<td{hint}><span class="value">{value}{_marked(cell.reasons, marks)}</span></td>'
        )
    method = escape(row.method) + _marked(row.reasons, marks)
    under = f"<small>{escape(row.protocol)}</small>" if row.protocol else ""
    return f'<tr class="{row.origin}"><th scope="row">{method}{under}</th>{"".join(cells)}</tr>'


def _marked(reasons: Iterable[str], marks: Mapping[str, str]) -> str:
    joined = ",".join(marks[reason] for reason in reasons)
    return f"<sup>{joined}</sup>" if joined else ""
