"""Lines over something that grows: batch size, width, load, time, or numbered segments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from bench.effects import Effect
from reports.figures import BAD, BAND, FAINT, INK, axes, bars, colour, log_axis, marker

_APART = 0.012  # of a panel's width: lines are moved aside, so that their bars can be told apart
_AT_MOST = 0.7  # of the way between two names that all lines take
_WIDE = 4.0  # the largest ÷ the smallest value from which on a scale is logarithmic


@dataclass(frozen=True)
class Point:
    """A point of a line with its bounds, NaN where there are none."""

    x: float
    y: float
    low: float = math.nan
    high: float = math.nan


Style = Literal["line", "dashed", "points"]


@dataclass(frozen=True)
class Line:
    """place: of the things compared, the one that it is of: it sets colour and shape.

    style: points are hollow where they are beyond the panel's limit.
    """

    name: str
    place: int
    points: tuple[Point, ...]
    style: Style = "line"


@dataclass(frozen=True)
class Panel:
    """Lines on common axes.

    scale: of y; "log" only where values are far apart, "ratio" always, with ticks as 2×. level:
    where nothing differs. margin: δ as a ratio, drawn as a band about 1. limit: what y is held to,
    with its name. names: what stands at x = 0, 1, … instead of a number; log_x: x is logarithmic,
    with a tick at each of its values. write: a number of the y axis.
    """

    title: str
    lines: tuple[Line, ...]
    x_label: str
    y_label: str
    scale: Literal["linear", "log", "ratio"] = "linear"
    level: float | None = None
    margin: float = 0.0
    limit: tuple[float, str] | None = None
    names: tuple[str, ...] = ()
    log_x: bool = False
    write: Callable[[float], str] = "{:g}".format


def draw(panels: Sequence[Panel], columns: int = 2, title: str = "") -> Figure:
    """The panels, row by row, with one legend for all."""
    columns = min(columns, len(panels)) or 1
    rows = math.ceil(len(panels) / columns) or 1
    figure, found = axes(rows, columns, (11.0, 0.7 + 3.1 * rows))
    for ax in found[len(panels) :]:
        ax.set_visible(False)
    for ax, panel in zip(found, panels, strict=False):
        _panel(ax, panel)
    lines = {line.name: line for panel in panels for line in panel.lines}
    longest = max(map(len, lines), default=1)
    figure.legend(
        handles=[_handle(line) for line in lines.values()],
        loc="outside lower left", frameon=False, fontsize=9, ncols=max(1, 130 // (longest + 8)),
    )  # fmt: skip
    for text in figure.legends[0].get_texts():
        text.set_parse_math(False)
    if title:
        figure.suptitle(title, fontsize=13, parse_math=False)
    return figure


def effect_line(name: str, place: int, effects: Iterable[tuple[float, Effect]]) -> Line:
    """A line through the gains of effects at the given x; of differences, as they were measured."""
    found = []
    for x, e in sorted(effects, key=lambda pair: pair[0]):
        found.append(Point(x, *(e.gain if e.scale == "ratio" else (e.effect, e.low, e.high))))
    return Line(name, place, tuple(found))


def _panel(ax: Axes, panel: Panel) -> None:
    ax.set_title(panel.title, fontsize=10, loc="left", color=INK, parse_math=False)
    every = [p for line in panel.lines for p in line.points if math.isfinite(p.y)]
    if not every:
        ax.set_axis_off()
        ax.text(0, 0.9, "not measured", fontsize=9, color=FAINT, transform=ax.transAxes)
        return
    ax.set_xlabel(panel.x_label, parse_math=False)
    ax.set_ylabel(panel.y_label, parse_math=False)
    if panel.margin:
        ax.axhspan(1 / (1 + panel.margin), 1 + panel.margin, color=BAND, zorder=0)
    if panel.level is not None:
        ax.axhline(panel.level, color=FAINT, linewidth=1, zorder=1)
    if panel.limit is not None:
        value, name = panel.limit
        ax.axhline(value, color=BAD, linewidth=1, linestyle="--", zorder=1)
        ax.annotate(
            name, (0.995, value), xycoords=("axes fraction", "data"), fontsize=8, color=BAD,
            ha="right", va="bottom", xytext=(0, 1), textcoords="offset points", parse_math=False,
        )  # fmt: skip
    apart = min(_APART, _AT_MOST / len(panel.lines) / (len(panel.names) or _AT_MOST))
    for place, line in enumerate(panel.lines):
        _line(ax, line, panel, apart * (place - (len(panel.lines) - 1) / 2))
    _x_axis(ax, panel)
    if panel.scale == "ratio":
        log_axis(ax, [(p.y, p.low, p.high) for p in every if p.y > 0], vertical=True)
        return
    values = [p.y for p in every] + ([panel.limit[0]] if panel.limit else [])
    if panel.scale == "log" and max(values) > _WIDE * min(values) > 0:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
        ax.yaxis.set_minor_locator(NullLocator())
    ax.margins(y=0.12)
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: panel.write(value)))


def _x_axis(ax: Axes, panel: Panel) -> None:
    if panel.names:
        ax.set_xticks(range(len(panel.names)), panel.names, parse_math=False)
        ax.set_xlim(-0.5, len(panel.names) - 0.5)
    if panel.log_x:
        ax.set_xscale("log", base=2)
        ticks = sorted({p.x for line in panel.lines for p in line.points})
        ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        ax.set_xticks([], minor=True)
        ax.margins(x=0.08)
    elif not panel.names:
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))


def _line(ax: Axes, line: Line, panel: Panel, aside: float) -> None:
    points = [p for p in line.points if math.isfinite(p.y)]
    if line.style == "points":
        limit = panel.limit[0] if panel.limit else math.inf
        for p in points:
            ax.plot(
                [p.x], [p.y], marker=marker(line.place), color=colour(line.place), markersize=5,
                markerfacecolor=colour(line.place) if p.y <= limit else "white", linestyle="",
            )  # fmt: skip
        return
    width = len(panel.names) or _span(panel)
    moved = [p.x * width**aside if panel.log_x else p.x + width * aside for p in points]
    ax.plot(
        moved, [p.y for p in points], marker=marker(line.place), color=colour(line.place),
        linestyle="--" if line.style == "dashed" else "-", linewidth=1.4, markersize=5,
        markerfacecolor="white" if line.style == "dashed" else colour(line.place), zorder=3,
    )  # fmt: skip
    for x, p in zip(moved, points, strict=True):
        if (ends := bars(p.y, p.low, p.high)) is not None:
            ax.errorbar(
                [x], [p.y], yerr=ends, color=colour(line.place), capsize=2, linewidth=1, zorder=2
            )


def _short(value: float) -> str:
    return f"{value / 1000:g} k" if abs(value) >= 1000 else f"{value:g}"


def _span(panel: Panel) -> float:
    """The width of a panel in x, a ratio where x is logarithmic."""
    found = [p.x for line in panel.lines for p in line.points]
    if not found:
        return 1.0
    return max(found) / min(found) if panel.log_x else max(found) - min(found)


def _handle(line: Line) -> Line2D:
    dashed = line.style == "dashed"
    return Line2D(
        [], [], marker=marker(line.place), color=colour(line.place),
        linestyle="" if line.style == "points" else "--" if dashed else "-",
        markerfacecolor="white" if dashed else colour(line.place), label=line.name,
    )  # fmt: skip
