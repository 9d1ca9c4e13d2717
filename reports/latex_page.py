"""A report's tables as LaTeX, to be taken into a paper: \\input the file, or copy a table from it.

Each is a plain tabular in a table with a caption and a label; the packages booktabs and adjustbox
are needed.
"""

from __future__ import annotations

import re

import pandas as pd

from reports.pages import Heading, Report, Table

_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "_": r"\_", "%": r"\%", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "×": r"$\times$", "−": "$-$", "–": "--", "±": r"$\pm$", "≥": r"$\geq$", "≤": r"$\leq$",
    "÷": r"$\div$", "µ": r"\textmu{}", "→": r"$\to$", "δ": r"$\delta$", "λ": r"$\lambda$",
    "“": "``", "”": "''", "[": "{[}", "]": "{]}",
}  # fmt: skip
_FOUND = re.compile("|".join(map(re.escape, _SPECIAL)))
_LABEL = re.compile(r"[^A-Za-z0-9]+")


def page(report: Report) -> str:
    """Every table of the report, each under the heading that it has there."""
    parts = [f"% {' '.join(report.title.split())}"]
    for section in report.sections:
        title = section.title
        for block in section.blocks:
            match block:
                case Heading(text):
                    title = f"{section.title}: {text}"
                case Table(frame):
                    parts.append(table(frame, title))
    return "\n\n".join(parts) + "\n"


def table(frame: pd.DataFrame, caption: str) -> str:
    """A frame of text as a LaTeX table."""
    rows = [
        " & ".join(plain(str(value).replace("\n", "; ")) for value in row) + r" \\"
        for row in (tuple(frame.columns), *frame.itertuples(index=False, name=None))
    ]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{plain(caption)}}}",
            rf"\label{{tab:{_LABEL.sub('-', caption).strip('-').lower()}}}",
            r"\begin{adjustbox}{max width=\textwidth}",
            rf"\begin{{tabular}}{{{'l' * len(frame.columns)}}}",
            r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule",
            r"\end{tabular}",
            r"\end{adjustbox}",
            r"\end{table}",
        ]
    )  # fmt: skip


def plain(text: str) -> str:
    """`text` as LaTeX that reads as itself: no commands, one line."""
    return _FOUND.sub(lambda found: _SPECIAL[found[0]], " ".join(text.split()))
