"""Tables as LaTeX, with booktabs, and a document that shows them."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from derain.evaluation.tables.cells import BEST, SECOND, Row, Table

STYLES = {BEST: r"\textbf{%s}", SECOND: r"\underline{%s}"}
BLOCKS = {"quoted": "Quoted from the paper", "measured": "Measured"}
SPECIAL = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
}
DOCUMENT = r"""\documentclass[a4paper,landscape]{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{textcomp}
\usepackage{booktabs}
\usepackage{graphicx}
\usepackage[margin=15mm]{geometry}
\begin{document}
%s
\end{document}
"""


def latex(table: Table) -> str:
    """A `table*` for \\input; see `DOCUMENT` for the packages that it needs.

    It is shrunk to the width of the text if it is wider. Characters that these fonts lack are
    written as their numbers, such as U+96E8.
    """
    marks, columns = table.marks(), table.columns
    rows = []
    for origin, block in groupby(enumerate(table.rows), key=lambda it: it[1].origin):
        rows.append(rf"\multicolumn{{{len(columns) + 1}}}{{l}}{{\itshape {BLOCKS[origin]}}} \\")
        rows += [_row(table, number, row, marks) for number, row in block] + [r"\midrule"]
    return "\n".join(
        [
            r"\begin{table*}",
            r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
            rf"\caption{{{escaped(table.title)}}}",
            rf"\label{{tab:{table.name}}}",
            r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
            r"\toprule",
            *_heads(table),
            r"\midrule",
            *rows[:-1],
            r"\bottomrule",
            r"\end{tabular}}",
            "",
            *_notes(table, marks),
            r"\end{table*}",
            "",
        ]
    )


def document(names: Iterable[str]) -> str:
    """A document with the tables in the files of these names, each on its page."""
    return DOCUMENT % "\n".join(rf"\input{{{name}}}\clearpage" for name in names)


def escaped(text: str) -> str:
    """Any text as LaTeX that compiles."""
    return "".join(_character(it) for it in unicodedata.normalize("NFC", text))


def _character(character: str) -> str:
    if character in SPECIAL:
        return SPECIAL[character]
    if " " <= character <= "~" or re.match("[À-ÖØ-öø-ÿ–—]", character):
        return character
    return " " if character.isspace() else f"U+{ord(character):04X}"


def _heads(table: Table) -> list[str]:
    """The sets above their metrics; the sets alone if there is but one metric."""
    groups = [(name, len(list(each))) for name, each in groupby(c.group for c in table.columns)]
    rules, first = [], 2
    for _, width in groups:
        rules.append(rf"\cmidrule(lr){{{first}-{first + width - 1}}}")
        first += width
    above = [rf"\multicolumn{{{width}}}{{c}}{{{escaped(name)}}}" for name, width in groups]
    below = [escaped(column.metric.title) for column in table.columns]
    return [_line(["", *above]), "".join(rules), _line(["Method", *below])]


def _row(table: Table, number: int, row: Row, marks: Mapping[str, str]) -> str:
    ranks = table.ranks()
    cells = []
    for at, cell in enumerate(row.cells):
        printed = table.printed(row, at) or "--"
        styled = STYLES.get(ranks.get((number, at), 0), "%s") % printed
        mark = _marked(cell.reasons, marks)
        cells.append(styled + (rf"\rlap{{{mark}}}" if mark else ""))  # digits stay in line
    under = rf" {{\scriptsize {escaped(row.protocol)}}}" if row.protocol else ""
    return _line([escaped(row.method) + _marked(row.reasons, marks) + under, *cells])


def _notes(table: Table, marks: Mapping[str, str]) -> list[str]:
    """What the marks mean in one paragraph, and a paragraph for each note."""
    reasons = [
        rf"{_marked([reason], marks)}\,{escaped(reason.removesuffix('.'))}." for reason in marks
    ]
    notes = [rf"\par {escaped(note)}" for note in table.notes]
    return [r"\smallskip", r"\parbox{\textwidth}{\scriptsize\raggedright", *reasons, *notes, "}"]


def _marked(reasons: Iterable[str], marks: Mapping[str, str]) -> str:
    joined = ",".join(marks[reason] for reason in reasons)
    return rf"\textsuperscript{{{joined}}}" if joined else ""


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
