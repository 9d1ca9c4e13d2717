"""A report as a PDF document: landscape A4, figures as vectors, a bookmark for each heading."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pandas as pd
from fpdf import FPDF
from fpdf.enums import TableBordersLayout
from fpdf.fonts import FontFace

from reports.format import tone
from reports.pages import Block, Heading, Items, Picture, Report, Table, Text

_FONT = "DejaVu Sans"  # comes with matplotlib, and has the signs that ASCII lacks
_WITH_HEADING = 35  # millimetres that must be left below one
_HEADINGS = 25  # millimetres that stay free for headings over a picture as tall as a page
_SIZE = re.compile(r'<svg[^>]*? width="([\d.]+)pt" height="([\d.]+)pt"')
_WIDEST = 46  # characters of a column beyond which its cells are broken over lines
_TONES = {"good": (0, 95, 150), "bad": (160, 68, 0), "open": (105, 105, 105)}
_METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)  # which fpdf2 does not know


def page(report: Report) -> bytes:
    """The whole document."""
    pdf = _Document(orientation="landscape", format="A4")
    pdf.set_title(report.title)
    pdf.set_margin(12)
    pdf.set_auto_page_break(True, 14)
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    pdf.add_font(_FONT, "", fonts / "DejaVuSans.ttf")
    pdf.add_font(_FONT, "B", fonts / "DejaVuSans-Bold.ttf")
    pdf.add_page()
    _write(pdf, report.title, 18, bold=True)
    for section in report.sections:
        _heading(pdf, section.title, 0, section.blocks)
        for place, block in enumerate(section.blocks):
            if isinstance(block, Heading):
                _heading(pdf, block.text, 1, section.blocks[place + 1 :])
            else:
                _block(pdf, block)
    return bytes(pdf.output())


class _Document(FPDF):
    def footer(self) -> None:
        """The number of the page."""
        self.set_y(-10)
        self.set_font(_FONT, size=7)
        self.cell(0, 5, str(self.page_no()), align="R")


def _block(pdf: FPDF, block: Block) -> None:
    match block:
        case Text(text):
            _write(pdf, text, 9)
        case Items(items):
            for lead, text in items:
                _write(pdf, f"• {lead} – {text}" if lead else f"• {text}", 9)
        case Table(frame):
            _table(pdf, frame)
        case Picture():
            width, height = _size(pdf, block)
            svg = _METADATA.sub("", block.svg).encode()
            pdf.image(io.BytesIO(svg), w=width, h=height)
            pdf.ln(3)


def _size(pdf: FPDF, picture: Picture) -> tuple[float, float]:
    """Width and height in millimetres, so that it fits on a page under its headings."""
    found = _SIZE.search(picture.svg)
    ratio = float(found[2]) / float(found[1]) if found else 1.0
    width = min(pdf.epw * 0.85, (pdf.eph - _HEADINGS) / ratio)
    return width, width * ratio


def _heading(pdf: FPDF, text: str, level: int, below: Sequence[Block]) -> None:
    """Write a heading, on a new page where the picture under it would be on one."""
    first = next((block for block in below if not isinstance(block, Heading)), None)
    room = float(_WITH_HEADING)
    if isinstance(first, Picture):
        room = _size(pdf, first)[1] + _HEADINGS
    if pdf.will_page_break(room):
        pdf.add_page()
    pdf.start_section(text, level=level)
    pdf.ln(3 - level)
    _write(pdf, text, (14, 11)[level], bold=True)


def _write(pdf: FPDF, text: str, size: float, bold: bool = False) -> None:
    pdf.set_font(_FONT, "B" if bold else "", size)
    pdf.multi_cell(0, size * 0.5, text, new_x="LMARGIN", new_y="NEXT", align="L")


def _table(pdf: FPDF, frame: pd.DataFrame) -> None:
    rows = [[str(value) for value in row] for row in frame.itertuples(index=False, name=None)]
    names = [str(name) for name in frame.columns]
    widths = [_width(column) for column in zip(names, *rows, strict=True)]
    size = min(8.0, 1100 / sum(widths))
    pdf.set_font(_FONT, size=size)
    with pdf.table(
        col_widths=widths,
        text_align="LEFT",
        line_height=size * 0.48,
        padding=0.6,
        borders_layout=TableBordersLayout.HORIZONTAL_LINES,
        headings_style=FontFace(emphasis="BOLD", fill_color=(238, 238, 238)),
    ) as table:
        table.row(names)
        for row in rows:
            written = table.row()
            for text in row:
                colour = _TONES.get(tone(text.partition("\n")[0]))
                written.cell(text, style=FontFace(color=colour) if colour else None)
    pdf.ln(3)


def _width(texts: tuple[str, ...]) -> int:
    """The longest line of a column, in characters, and a little room."""
    longest = max(len(line) for text in texts for line in text.split("\n"))
    return min(longest + 2, _WIDEST)
