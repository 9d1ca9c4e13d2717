"""Quality against speed: every stack with both its intervals, the front of them, and limits."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from bench.effects import Effect
from bench.limits import Finding, Limits, State, figures, findings, standing
from bench.records import CONTROL
from bench.run import Run
from bench.verdicts import tolerated_loss
from reports import format as fmt
from reports.figures import BAD, BAND, FAINT, INK, axes, bars, colour, log_axis, marker
from reports.labels import Named, label
from reports.pareto import Axis, Spot, front
from reports.tables import COLUMNS, Column, headline

SPEED = tuple(c for c in COLUMNS if c.scenario != "quality" and not c.metric)
Pair = tuple[Effect, Effect]  # speed (or latency, or memory), quality
Fill = Literal["full", "left", "none"]
_FILL: dict[State, Fill] = {"met": "full", "undecided": "left", "broken": "none"}
_WORDS: dict[State, str] = {
    "met": "keeps every limit",
    "undecided": "undecided",
    "broken": "breaks a limit",
}
_COUNTED: dict[State, str] = {
    "met": "keep every limit",
    "undecided": "are undecided",
    "broken": "break a limit",
}
NAMED = 12  # stacks that are named in a panel; of more, only those on the front
_WIDE = 5.0  # the largest ÷ the smallest figure from which on an axis is logarithmic
_UNITS = {"s": (1e3, "ms"), "B": (2**-20, "MiB")}


@dataclass(frozen=True)
class _View:
    """A panel: the figure that stands on its x axis, and its limit in that figure's unit."""

    title: str
    pairs: list[Pair]
    limit: float | None
    absolute: bool  # the treatment's own figure, not its ratio to the control


def speed_scenarios(run: Run) -> Counter[tuple[str, str, str]]:
    """The (baseline, scenario, device) for which quality can be drawn against speed, in their
    order, each with the number of pairs to draw."""
    return Counter(
        (baseline, column.scenario, device)
        for column in SPEED
        for (baseline, stack, device), own in run.effects_of_stacks.items()
        for _ in _pairs_of(stack, own, column)
    )


def standings(run: Run, limits: Limits) -> dict[tuple[str, str, str], State]:
    """(baseline, stack, device) → how it stands against all limits; empty without limits.

    Raises LeanRecError where a limit concerns nothing that was measured.
    """
    if limits == Limits():
        return {}
    held: dict[tuple[str, str, str], list[Finding]] = {key: [] for key in run.effects_of_stacks}
    for f in findings(run.effects, limits):
        held[f.baseline, f.stack, f.device].append(f)
    asked = {f.limit for found in held.values() for f in found}
    return {
        key: standing(held[key], asked, any(e.verdict == "failed" for e in own))
        for key, own in run.effects_of_stacks.items()
    }


def standing_in_words(run: Run, limits: Limits) -> str:
    """How many stacks keep all limits. Raises LeanRecError as `standings` does."""
    states = Counter(s for (_, stack, _), s in standings(run, limits).items() if stack != CONTROL)
    told = fmt.words([f"{states[state]:,} {words}" for state, words in _COUNTED.items()])
    return f"Of {states.total():,} stacks on their baselines, {told}. The table below says how far."


def quality_speed(
    run: Run, baseline: str, scenario: str, device: str, limits: Limits | None = None
) -> Figure:
    """Quality against speed for every stack, with intervals on both axes; a panel for each point.

    Right is faster than the control, up is better. The grey band is the margin inside which
    nothing counts as a difference. A line joins the front (`reports.pareto`); of many stacks, those
    that are not on it are dots. Limits are dashed, each in the panels whose axis it is about: those
    of latency, memory and preparation in panels of their own.
    """
    limits = limits or Limits()
    views = _views(run, baseline, scenario, device, limits)
    columns = min(2, len(views)) or 1
    rows = math.ceil(len(views) / columns) or 1
    figure, found = axes(rows, columns, (11.0, 0.5 + 4.6 * rows))
    stacks = list(dict.fromkeys(speed.stack for view in views for speed, _ in view.pairs))
    states = standings(run, limits)
    named = []
    for ax, view in zip(found, views, strict=False):
        fills = [_FILL[states.get((baseline, s, device), "met")] for s in stacks]
        named.append(_panel(ax, view, stacks, fills, limits))
    for ax in found[len(views) :]:
        ax.set_visible(False)
    title = f"{baseline}, {scenario}, {device}: quality against speed"
    figure.suptitle(title, fontsize=13, parse_math=False)
    handles = _legend(bool(states))
    figure.legend(handles=handles, loc="outside lower left", ncols=3, frameon=False, fontsize=9)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for ax, names in zip(found, named, strict=False):
        label(ax, names, canvas.get_renderer())
    figure.set_layout_engine("none")  # the names lie right in this layout
    return figure


def _views(run: Run, baseline: str, scenario: str, device: str, limits: Limits) -> list[_View]:
    points: dict[str, list[Pair]] = {}
    for speed, quality in _pairs(run, baseline, scenario, device):
        points.setdefault(speed.point, []).append((speed, quality))
    views = [
        _View(point or scenario, pairs, limits.min_speedup, False)
        for point, pairs in points.items()
    ]
    of_quality = {q.stack: q for pairs in points.values() for _, q in pairs}
    absolute = limits.model_copy(update={"max_quality_loss": None, "min_speedup": None})
    held = findings(run.effects, absolute) if absolute != Limits() else []
    of_limit: dict[tuple[str, str], list[Pair]] = {}
    allowed = {}
    for f in held:
        if (f.baseline, f.scenario, f.device) != (baseline, scenario, device):
            continue
        key = (f.metric, f.point)
        effect = _effect(run, f)
        if f.stack in of_quality and math.isfinite(effect.effect):
            of_limit.setdefault(key, []).append((effect, of_quality[f.stack]))
            allowed[key] = f.allowed
    return views + [
        _View(", ".join(filter(None, key)), pairs, allowed[key], True)
        for key, pairs in of_limit.items()
    ]


def _effect(run: Run, f: Finding) -> Effect:
    """The effect that a finding is of."""
    return next(
        e
        for e in run.effects_of_stacks[f.baseline, f.stack, f.device]
        if (e.scenario, e.metric, e.point, e.segment) == (f.scenario, f.metric, f.point, "")
    )


def _pairs(run: Run, baseline: str, scenario: str, device: str) -> list[Pair]:
    return [
        pair
        for (name, stack, where), own in run.effects_of_stacks.items()
        if (name, where) == (baseline, device)
        for column in SPEED
        if column.scenario == scenario
        for pair in _pairs_of(stack, own, column)
    ]


def _pairs_of(stack: str, own: list[Effect], column: Column) -> list[Pair]:
    """The speeds of a stack, each beside its quality; none of the control, or without a quality."""
    quality = [e for e in headline(own, COLUMNS[0]) if math.isfinite(e.effect)]
    if stack == CONTROL or not quality:
        return []
    speeds = headline(own, column)
    return [(e, quality[-1]) for e in speeds if e.scale == "ratio" and e.effect > 0]


def _panel(
    ax: Axes, view: _View, stacks: list[str], fills: list[Fill], limits: Limits
) -> list[Named]:
    """Draw a panel; the names that are to be written beside its points."""
    scale, unit = _UNITS.get(view.pairs[0][0].unit, (1.0, "")) if view.absolute else (1.0, "")
    quality = view.pairs[0][1]
    _frame(ax, view, quality, limits, scale)
    spots = [_spot(CONTROL, None), *(_spot(speed.stack, (speed, q)) for speed, q in view.pairs)]
    on, tied = front(spots)
    told = {s.name for s in (on if len(view.pairs) > NAMED else spots)}
    names: list[Named] = []
    dots: list[tuple[float, float]] = []
    places = {CONTROL: ((view.pairs[0][0].control * scale) if view.absolute else 1.0, 0.0)}
    for speed, q in view.pairs:
        place = stacks.index(speed.stack)
        shade = colour(place)
        x, low, high = (v * scale for v in figures(speed)) if view.absolute else speed.gain
        places[speed.stack] = (x, q.effect)
        if speed.stack not in told:
            dots.append(places[speed.stack])
            continue
        ax.errorbar(
            x, q.effect, xerr=bars(x, low, high), yerr=bars(q.effect, q.low, q.high),
            color=shade, capsize=3, linewidth=1.4, zorder=3,
        )  # fmt: skip
        ax.plot(
            [x], [q.effect], marker=marker(place), color=shade, markersize=8, zorder=4,
            fillstyle=fills[place], markerfacecoloralt="white", linestyle="",
        )  # fmt: skip
        names.append(Named(speed.stack, shade, x, q.effect, (low, high), (q.low, q.high)))
    if dots:
        ax.plot(*zip(*dots, strict=True), "o", color=FAINT, markersize=4, alpha=0.6, zorder=2)
    ax.plot(*zip(*(places[s.name] for s in on), strict=True), color=INK, linewidth=1.3, zorder=2)
    for spot in (s for s in tied if s.name in told):
        ax.scatter(
            *places[spot.name], s=260, facecolors="none", edgecolors=INK, linestyles=":", zorder=5
        )
    ax.plot(*places[CONTROL], marker="*", color=INK, markersize=9, zorder=4)
    ax.margins(x=0.15, y=0.22)
    if not view.absolute:
        gains = [speed.gain for speed, _ in view.pairs]
        log_axis(ax, [*gains, *([(view.limit,) * 3] if view.limit else [])])
        ax.set_xlabel("times as fast as the control")
    else:
        ax.invert_xaxis()  # right is better, as everywhere
        drawn = [x for x, _ in places.values()] + [(view.limit or 0.0) * scale]
        if max(drawn) > _WIDE * min(drawn) > 0:
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_xlabel(f"{view.pairs[0][0].metric}, {unit}", parse_math=False)
    if quality.direction == "lower":
        ax.invert_yaxis()
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: fmt.difference(value)))
    ax.set_ylabel(f"{quality.metric}, treatment − control", parse_math=False)
    ax.set_title(view.title, fontsize=11, loc="left", color=INK, parse_math=False)
    return names


def _frame(ax: Axes, view: _View, quality: Effect, limits: Limits, scale: float) -> None:
    """The margins, the lines where nothing differs, and the limits."""
    if not view.absolute:
        margin = max(speed.margin for speed, _ in view.pairs)
        ax.axvspan(1 / (1 + margin), 1 + margin, color=BAND, zorder=0)
        ax.axvline(1.0, color=FAINT, linewidth=1, zorder=1)
    ax.axhline(0.0, color=FAINT, linewidth=1, zorder=1)
    if view.limit is not None:
        ax.axvline(view.limit * scale, color=BAD, linewidth=1, linestyle="--", zorder=1)
        ax.annotate(
            "limit", (view.limit * scale, 0.99), xycoords=("data", "axes fraction"), fontsize=8,
            color=BAD, va="top", xytext=(3, 0), textcoords="offset points",
        )  # fmt: skip
    named = limits.max_quality_loss
    loss = tolerated_loss(named, quality.control) if named else quality.margin
    if math.isfinite(loss) and loss > 0:
        worse = -loss if quality.direction == "higher" else loss
        ax.axhline(worse, color=BAD, linewidth=1, linestyle="--", zorder=1)
        ax.annotate(
            f"limit: {named}" if named else "quality margin", (0.995, worse),
            xycoords=("axes fraction", "data"), fontsize=8, color=BAD, ha="right", va="top",
            xytext=(0, -2), textcoords="offset points",
        )  # fmt: skip


def _spot(name: str, pair: Pair | None) -> Spot:
    """A stack as a point of the trade-off, a ratio as its logarithm; the control without a pair."""
    if pair is None:
        return Spot(name, Axis(0.0, 0.0, 0.0), Axis(0.0, 0.0, 0.0))
    speed, quality = pair
    if speed.scale == "difference":
        return Spot(name, Axis(*speed.gain), Axis(*quality.gain))
    value, low, high = (math.log(x) if x > 0 else -math.inf for x in speed.gain)
    gain = Axis(value, low, high, math.log1p(speed.margin))
    return Spot(name, gain, Axis(*quality.gain))


def _legend(judged: bool) -> list[Line2D]:
    told = [
        Line2D([], [], marker="*", color=INK, linestyle="", markersize=9, label="the control"),
        Line2D([], [], color=INK, linewidth=1.3, label="the front: nothing is better on both axes"),
        Line2D(
            [], [], marker="o", color=INK, linestyle="", markersize=13, markerfacecolor="none",
            markeredgewidth=0.7, label="ringed: tied with the front, within noise",
        ),
    ]  # fmt: skip
    return told + [
        Line2D(
            [], [], marker="o", color=FAINT, linestyle="", markersize=8, fillstyle=_FILL[state],
            markerfacecoloralt="white", label=word,
        )
        for state, word in _WORDS.items()
        if judged
    ]  # fmt: skip
