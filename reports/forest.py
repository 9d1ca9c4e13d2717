"""Forest plots: effects with their intervals, one a row, beside the margin and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.effects import Effect
from bench.records import CONTROL
from reports import format as fmt
from reports.figures import BAD, BAND, FAINT, GOOD, INK, axes, bars, log_axis
from reports.tables import stack_label

_LOOKS = {  # what a verdict says → its marker, colour and whether it is filled
    "better": (">", GOOD, True),
    "worse": ("<", BAD, True),
    "no difference": ("s", INK, True),
    "inconclusive": ("o", FAINT, False),
}
_SAYS = {
    "faster": "better", "smaller": "better", "better": "better",
    "slower": "worse", "larger": "worse", "inferior": "worse", "failed": "worse",
    "equivalent": "no difference", "non-inferior": "no difference", "inconclusive": "inconclusive",
}  # fmt: skip
ROWS = 40  # effects in a plot; more take another
Text = Callable[[Effect], str]


def of_stack(e: Effect) -> str:
    """A row's name where every row is of another stack."""
    return stack_label(e.stack)


def of_metric(e: Effect) -> str:
    """A group's name: the metric and its point."""
    return ", ".join(filter(None, (e.metric, e.point)))


def forest(effects: list[Effect], name: Text = of_stack, group: Text = of_metric) -> Figure:
    """Effects of one scale in groups: value, interval, margin, verdict, and both arms' values.

    Ratios are turned so that right is better for every metric; differences are as measured. The
    rows of a group keep their order. name, group: what a row and the group that it is in are
    called.
    """
    ratios = bool(effects) and effects[0].scale == "ratio"
    groups: dict[str, list[Effect]] = {}
    for e in effects:
        if math.isfinite(e.effect) and (e.scale == "ratio") == ratios:
            groups.setdefault(group(e), []).append(e)
    rows: list[str | Effect] = []
    for title, found in groups.items():
        rows += [title, *found]
    figure, (ax,) = axes(1, 1, (11.0, 1.5 + 0.27 * max(len(rows), 1)))
    ax.axvline(1.0 if ratios else 0.0, color=FAINT, linewidth=1)
    drawn = [row for row in rows if isinstance(row, Effect)]
    for y, row in enumerate(rows):
        if isinstance(row, Effect):
            _draw(ax, y, row)
    if ratios:
        log_axis(ax, [row.gain for row in drawn])
    names = [row if isinstance(row, str) else name(row) for row in rows]
    ax.set_yticks(range(len(rows)), names)
    for tick, row in zip(ax.get_yticklabels(), rows, strict=True):
        tick.set(parse_math=False, fontweight="bold" if isinstance(row, str) else "normal")
        if isinstance(row, Effect) and row.stack == CONTROL:
            tick.set_color(FAINT)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    margins = "to ".join(dict.fromkeys(fmt.margin(e) + " " for e in _extremes(drawn)))
    ax.set_xlabel(
        f"times better than the control (right is better); grey: no difference, δ = {margins}"
        if ratios
        else f"treatment − control; dashed: the loss that is tolerated, {margins}"
    )
    figure.legend(handles=_legend(drawn), loc="outside upper left", ncols=4, frameon=False)
    return figure


def forests(effects: Iterable[Effect]) -> list[tuple[str, list[Effect]]]:
    """What can be drawn of `effects`, in groups for a forest plot each, with what they show.

    Ratios share a plot; a difference shares one with those of its metric. An effect without an
    estimate or a margin is left to the tables.
    """
    groups: dict[str, list[Effect]] = {}
    for e in effects:
        if e.margin and math.isfinite(e.effect):
            groups.setdefault("ratios" if e.scale == "ratio" else e.metric, []).append(e)
    return [
        (f"{what}, from effect {start + 1} on" if start else what, group[start : start + ROWS])
        for what, group in groups.items()
        for start in range(0, len(group), ROWS)
    ]


def _draw(ax: Axes, y: int, e: Effect) -> None:
    ratio = e.scale == "ratio"
    value, low, high = e.gain if ratio else (e.effect, e.low, e.high)
    shape, colour, filled = _LOOKS[_SAYS[e.verdict]]
    if not ratio and e.direction == "lower" and shape in "<>":  # it points at what it says
        shape = "<" if shape == ">" else ">"
    if ratio:
        ax.barh(y, e.margin + 1 - 1 / (1 + e.margin), left=1 / (1 + e.margin), height=1, color=BAND)
    else:
        worse = -e.margin if e.direction == "higher" else e.margin
        ax.plot([worse, worse], [y - 0.5, y + 0.5], color=BAD, linewidth=1, linestyle="--")
    ax.errorbar(
        value, y, xerr=bars(value, low, high), fmt=shape, color=colour, capsize=3, markersize=6,
        markerfacecolor=colour if filled else "white",
    )  # fmt: skip
    verdict = ax.annotate(
        fmt.claim(e), (1.01, y), xycoords=("axes fraction", "data"), va="center",
        fontsize=9, color=colour, parse_math=False, annotation_clip=False,
    )  # fmt: skip
    ax.annotate(
        f"{fmt.quantity(e.control, e.unit)} → {fmt.quantity(e.treatment, e.unit)}",
        (1, 0.5), xycoords=verdict, xytext=(8, 0), textcoords="offset points", va="center",
        fontsize=8, color=FAINT, parse_math=False, annotation_clip=False,
    )  # fmt: skip


def _extremes(effects: list[Effect]) -> list[Effect]:
    """Those of the smallest and the largest margin; none of none."""
    ordered = sorted(effects, key=lambda e: e.margin)
    return [ordered[0], ordered[-1]] if ordered else []


def _legend(effects: list[Effect]) -> list[Line2D]:
    said = {_SAYS[e.verdict] for e in effects}
    return [
        Line2D(
            [], [], marker=shape, color=colour, linestyle="", label=says,
            markerfacecolor=colour if filled else "white",
        )
        for says, (shape, colour, filled) in _LOOKS.items()
        if says in said
    ]  # fmt: skip
