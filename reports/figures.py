"""A run as figures. Each function returns a matplotlib Figure; no global state is touched."""

from __future__ import annotations

import io
import math
from collections import Counter
from collections.abc import Iterable

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bench.effects import Effect
from bench.records import CONTROL
from bench.run import Run
from reports import format as fmt
from reports.labels import Named, label
from reports.tables import COLUMNS, Column, headline, stack_label

# Okabe and Ito's palette for colour-blind readers, its light tones darkened so that text in them
# is legible; shape and label say the same as the colour.
PALETTE = ("#0072B2", "#B84E00", "#007A59", "#A8467F", "#8F6A00", "#2F7CB0", "#5A5A5A")
MARKERS = "osD^vPX"
SPEED = tuple(c for c in COLUMNS if c.scenario != "quality" and not c.metric)
INK, FAINT, BAND = "#222222", "#8a8a8a", "#ececec"
_GOOD, _BAD, _EVEN, _OPEN = PALETTE[0], PALETTE[1], INK, FAINT
VERDICT_COLOUR = {
    "faster": _GOOD, "smaller": _GOOD, "better": _GOOD, "non-inferior": _EVEN,
    "slower": _BAD, "larger": _BAD, "inferior": _BAD, "failed": _BAD,
    "equivalent": _EVEN, "inconclusive": _OPEN,
}  # fmt: skip
FOREST_ROWS = 60  # effects in a forest plot; more take another
NAMED = 12  # stacks that are named in a panel; of more, only those that no other beats in both
_FAR = 4.0  # times the outermost estimate
Pair = tuple[str, Effect, Effect]  # stack, speed, quality


def speed_scenarios(run: Run) -> Counter[tuple[str, str, str]]:
    """The (baseline, scenario, device) for which quality can be drawn against speed, in their
    order, each with the number of pairs to draw."""
    return Counter(
        (baseline, column.scenario, device)
        for column in SPEED
        for (baseline, stack, device), own in run.effects_of_stacks.items()
        for _ in _pairs_of(stack, own, column)
    )


def quality_speed(run: Run, baseline: str, scenario: str, device: str) -> Figure:
    """Quality against speed for every stack, with intervals on both axes; a panel for each point.

    Right is faster than the control, up is better. The grey bands are the margins inside which
    nothing counts as a difference. Of many stacks, those that another beats in both are dots.
    """
    panels: dict[str, list[Pair]] = {}
    for pair in _pairs(run, baseline, scenario, device):
        panels.setdefault(pair[1].point, []).append(pair)
    columns = min(2, len(panels)) or 1
    rows = math.ceil(len(panels) / columns) or 1
    figure, axes = _axes(rows, columns, (11.0, 4.6 * rows))
    told = {point: _told(found) for point, found in panels.items()}
    stacks = list(dict.fromkeys(s for found in told.values() for s, _, _ in found))
    for ax, (point, found) in zip(axes, panels.items(), strict=False):
        _panel(ax, found, told[point], stacks)
        ax.set_title(point or scenario, fontsize=11, loc="left", color=INK, parse_math=False)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    title = f"{baseline}, {scenario}, {device}: quality against speed"
    figure.suptitle(title, fontsize=13, parse_math=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for ax, found in zip(axes, told.values(), strict=False):
        names = [_named(pair, _colour(stacks, pair[0])) for pair in found]
        label(ax, names, canvas.get_renderer())
    figure.set_layout_engine("none")  # the names lie right in this layout
    return figure


def forest(effects: list[Effect]) -> Figure:
    """Effects of one scale, grouped by metric and point: value, interval, margin and verdict.

    Ratios are turned so that right is better for every metric; differences are as measured.
    """
    ratios = bool(effects) and effects[0].scale == "ratio"
    groups: dict[str, list[Effect]] = {}
    for e in effects:
        if math.isfinite(e.effect) and (e.scale == "ratio") == ratios:
            groups.setdefault(", ".join(filter(None, (e.metric, e.point))), []).append(e)
    rows: list[str | Effect] = []
    for name, group in groups.items():
        rows += [name, *group]
    figure, (ax,) = _axes(1, 1, (11.0, 1.2 + 0.27 * max(len(rows), 1)))
    ax.axvline(1.0 if ratios else 0.0, color=FAINT, linewidth=1)
    for y, row in enumerate(rows):
        if isinstance(row, Effect):
            _draw_effect(ax, y, row)
    if ratios:
        _log_axis(ax, [row.gain for row in rows if isinstance(row, Effect)])
    names = [row if isinstance(row, str) else stack_label(row.stack) for row in rows]
    ax.set_yticks(range(len(rows)), names)
    for tick, row in zip(ax.get_yticklabels(), rows, strict=True):
        tick.set(parse_math=False, fontweight="bold" if isinstance(row, str) else "normal")
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel(
        "times better than the control (right is better); grey: the margin"
        if ratios
        else "treatment − control; dashed: the margin of loss"
    )
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
        (f"{what}, from effect {start + 1} on" if start else what, found)
        for what, group in groups.items()
        for start in range(0, len(group), FOREST_ROWS)
        if (found := group[start : start + FOREST_ROWS])
    ]


def svg(figure: Figure) -> str:
    """The figure as an SVG document, the same bytes each time."""
    _lay_out(figure)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "leanrec", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def png(figure: Figure) -> bytes:
    """The figure as a PNG image at 200 dots an inch."""
    _lay_out(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200)
    return buffer.getvalue()


def _lay_out(figure: Figure) -> None:
    """Make room for every text, once: a figure that is saved would else be drawn twice."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)
        figure.set_layout_engine("none")


def _pairs(run: Run, baseline: str, scenario: str, device: str) -> list[Pair]:
    columns = [c for c in SPEED if c.scenario == scenario]
    return [
        pair
        for (name, stack, where), own in run.effects_of_stacks.items()
        if (name, where) == (baseline, device)
        for column in columns
        for pair in _pairs_of(stack, own, column)
    ]


def _pairs_of(stack: str, own: list[Effect], column: Column) -> list[Pair]:
    """The speeds of a stack, each beside its quality; none of the control, or without a quality."""
    quality = [e for e in headline(own, COLUMNS[0]) if math.isfinite(e.effect)]
    if stack == CONTROL or not quality:
        return []
    speeds = headline(own, column)
    return [(stack, e, quality[-1]) for e in speeds if e.scale == "ratio" and e.effect > 0]


def _draw_effect(ax: Axes, y: int, e: Effect) -> None:
    ratio = e.scale == "ratio"
    value, low, high = e.gain if ratio else (e.effect, e.low, e.high)
    colour = VERDICT_COLOUR[e.verdict]
    if ratio:
        ax.barh(y, e.margin + 1 - 1 / (1 + e.margin), left=1 / (1 + e.margin), height=1, color=BAND)
    else:
        worse = -e.margin if e.direction == "higher" else e.margin
        ax.plot([worse, worse], [y - 0.5, y + 0.5], color=_BAD, linewidth=1, linestyle="--")
    ax.errorbar(
        value, y, xerr=_bars(value, low, high), fmt="o", color=colour, capsize=3, markersize=5
    )
    ax.annotate(
        fmt.claim(e), (1.01, y), xycoords=("axes fraction", "data"), va="center",
        fontsize=9, color=colour, parse_math=False, annotation_clip=False,
    )  # fmt: skip


def _told(found: list[Pair]) -> list[Pair]:
    """The pairs to name: all if few, otherwise those that no other beats in speed and quality."""
    if len(found) <= NAMED:
        return found
    best = -math.inf
    front = []
    for pair in sorted(found, key=lambda pair: (-pair[1].gain[0], -pair[2].gain[0])):
        if pair[2].gain[0] > best:
            best = pair[2].gain[0]
            front.append(pair)
    return front


def _panel(ax: Axes, found: list[Pair], told: list[Pair], stacks: list[str]) -> None:
    margin = max(v.margin for _, v, _ in found)
    ax.axvspan(1 / (1 + margin), 1 + margin, color=BAND, zorder=0)
    ax.axvline(1.0, color=FAINT, linewidth=1, zorder=1)
    ax.axhline(0.0, color=FAINT, linewidth=1, zorder=1)
    quality = found[0][2]
    if math.isfinite(quality.margin) and quality.margin > 0:
        worse = -quality.margin if quality.direction == "higher" else quality.margin
        ax.axhline(worse, color=_BAD, linewidth=1, linestyle="--", zorder=1)
        ax.annotate(
            "quality margin", (0.995, worse), xycoords=("axes fraction", "data"), fontsize=8,
            color=_BAD, ha="right", va="top", xytext=(0, -2), textcoords="offset points",
        )  # fmt: skip
    rest = [pair for pair in found if pair not in told]
    if rest:
        ax.plot(
            [speed.gain[0] for _, speed, _ in rest], [q.effect for *_, q in rest], "o",
            color=FAINT, markersize=4, alpha=0.6, zorder=2,
        )  # fmt: skip
    for stack, speed, q in told:
        value, low, high = speed.gain
        ax.errorbar(
            value, q.effect,
            xerr=_bars(value, low, high), yerr=_bars(q.effect, q.low, q.high),
            fmt=MARKERS[stacks.index(stack) % len(MARKERS)], color=_colour(stacks, stack),
            capsize=3, markersize=7, linewidth=1.4, zorder=3,
        )  # fmt: skip
    ax.margins(y=0.22)
    _log_axis(ax, [speed.gain for _, speed, _ in found])
    if quality.direction == "lower":
        ax.invert_yaxis()
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: fmt.difference(value)))
    ax.set_xlabel("times as fast as the control")
    ax.set_ylabel(f"{quality.metric}, treatment − control", parse_math=False)


def _named(pair: Pair, colour: str) -> Named:
    stack, speed, quality = pair
    value, low, high = speed.gain
    return Named(stack, colour, value, quality.effect, (low, high), (quality.low, quality.high))


def _colour(stacks: list[str], stack: str) -> str:
    return PALETTE[stacks.index(stack) % len(PALETTE)]


def _axes(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=9, colors=INK)
    return figure, axes


def _log_axis(ax: Axes, gains: list[tuple[float, float, float]]) -> None:
    """A logarithmic x axis for `gains`, each with its bounds, and ticks such as 0.5×, 1×, 2×.

    A bound that is far away leaves the axis, so that it does not squeeze everything else.
    """
    values = [1.0, *(value for value, _, _ in gains)]
    bounds = [b for _, *both in gains for b in both if math.isfinite(b) and b > 0]
    low = max(min([*values, *bounds]), min(values) / _FAR)
    high = min(max([*values, *bounds]), max(values) * _FAR)
    low, high = low / (high / low) ** 0.12 / 1.03, high * (high / low) ** 0.12 * 1.03
    ax.set_xscale("log")
    span = math.log10(high / low)
    steps = (1,) if span > 2.5 else (1, 2, 5) if span > 1 else (1, 1.5, 2, 3, 5, 7)
    if span > 0.35:
        ticks = [s * 10.0**p for p in range(-6, 7) for s in steps]
    else:
        ticks = list(MaxNLocator(5).tick_values(low, high))
    ax.set_xticks([t for t in ticks if low <= t <= high])
    ax.set_xticks([], minor=True)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}×"))
    ax.set_xlim(low, high)


def _bars(value: float, low: float, high: float) -> list[list[float]] | None:
    """Error bars as matplotlib wants them; none where a bound is not finite."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    return [[max(value - low, 0.0)], [max(high - value, 0.0)]]
