"""A profile as figures. Each function returns a matplotlib Figure; no global state is touched."""

from __future__ import annotations

from itertools import accumulate

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from bench.profiles.difference import changes
from bench.profiles.parts import PARTS
from bench.profiles.record import Profile
from bench.profiles.roofline import placed
from reports import format as fmt
from reports.figures import FAINT, INK, MARKERS, PALETTE
from reports.labels import Named, label
from reports.profiles.words import PART_NAMES, time_of

ARM_COLOURS = PALETTE[0], PALETTE[1]
_PART_COLOURS = dict(
    zip(PARTS, (PALETTE[0], PALETTE[1], PALETTE[3], PALETTE[2], "#B9BEC4"), strict=True)
)
_SAVED, _COST = PALETTE[0], PALETTE[1]
_STEPS = 10  # of a waterfall
_LONGEST = 34  # characters of an operator's name
_ROOM = 0.08  # of the longest bar, that a part's time is written in


def parts(profile: Profile) -> Figure:
    """Where a request's time goes, a bar for each arm."""
    figure, ax = _figure(11.0, 2.6)
    longest = max(profile.control.wall_us, profile.treatment.wall_us)
    for y, arm in enumerate(profile.arms):
        at = 0.0
        for part in PARTS:
            us = arm.seen.parts.get(part, 0.0)
            ax.barh(y, us, left=at, height=0.6, color=_PART_COLOURS[part], edgecolor="white")
            if us > _ROOM * longest:
                ink = INK if part == "outside" else "white"
                ax.text(at + us / 2, y, time_of(us), ha="center", va="center", color=ink, size=9)
            at += us
        ax.text(at + 0.01 * longest, y, time_of(arm.seen.wall_us), va="center", size=9, color=INK)
    ax.set_yticks([0, 1], [_short(arm.name) for arm in profile.arms])
    ax.set_ylim(1.5, -0.5)
    ax.set_xlim(0, longest * 1.12)
    bars = [ax.barh(0, 0, color=_PART_COLOURS[part]) for part in PARTS]
    ax.legend(
        bars, [PART_NAMES[part] for part in PARTS], ncols=5, loc="lower left",
        bbox_to_anchor=(0, 1), frameon=False, fontsize=9,
    )  # fmt: skip
    _time_axis(ax, "time of a request under the profiler")
    return figure


def waterfall(profile: Profile) -> Figure:
    """From the control's time to the treatment's, by what each operator saves or costs."""
    found = changes(profile)
    shown = [c for c in found[:_STEPS] if c.saved_us]
    steps = [(_short(c.name), -c.saved_us) for c in shown]
    if rest := found[len(shown) :]:
        steps.append((f"{len(rest)} others", -sum(c.saved_us for c in rest)))
    control, treatment = profile.control.wall_us, profile.treatment.wall_us
    levels = list(accumulate((change for _, change in steps), initial=control))
    figure, ax = _figure(11.0, 1.2 + 0.32 * (len(steps) + 2))
    ax.barh(0, control, height=0.7, color=FAINT)
    for y, ((_, change), before) in enumerate(zip(steps, levels, strict=False), 1):
        colour = _COST if change > 0 else _SAVED
        ax.barh(y, change, left=before, height=0.7, color=colour)
        ax.plot([before, before], [y - 1, y], color=FAINT, linewidth=0.7)
        edge = max(before, before + change)
        sign = "+" if change > 0 else "−"
        ax.annotate(
            f"{sign}{time_of(abs(change))}", (edge, y), xytext=(4, 0), textcoords="offset points",
            va="center", size=9, color=colour,
        )  # fmt: skip
    last = len(steps) + 1
    ax.barh(last, treatment, height=0.7, color=FAINT)
    for y, us in ((0, control), (last, treatment)):
        ax.annotate(
            time_of(us), (us, y), xytext=(4, 0), textcoords="offset points", va="center", size=9,
            color=INK,
        )  # fmt: skip
    names = ["control", *(name for name, _ in steps), _short(profile.arms[1].name)]
    ax.set_yticks(range(last + 1), names)
    for tick in ax.get_yticklabels():
        tick.set_parse_math(False)
    ax.set_ylim(last + 0.6, -0.6)
    ax.set_xlim(min(0.0, *levels) * 1.12, max(*levels, control) * 1.12)
    _time_axis(ax, "time of a request under the profiler; blue saves, orange costs")
    return figure


def roofline(profile: Profile) -> Figure:
    """The heaviest operators with counted FLOPs under this machine's two measured roofs."""
    peaks = profile.peaks
    found = [
        (i, p) for i, arm in enumerate(profile.arms) for p in placed(arm, peaks) if p.intensity
    ]
    figure, ax = _figure(11.0, 4.6)
    ridge = peaks.flops / peaks.bandwidth
    intensities = [ridge, *(p.intensity for _, p in found)]
    low, high = min(intensities) / 4, max(intensities) * 4
    xs = np.geomspace(low, high, 200)
    ax.plot(xs, np.minimum(peaks.flops, xs * peaks.bandwidth), color=FAINT, linewidth=2)
    ax.set_xscale("log")
    ax.set_yscale("log")
    for i, p in found:
        ax.plot(p.intensity, p.rate, MARKERS[i], color=ARM_COLOURS[i], markersize=8)
    rates = [peaks.flops, low * peaks.bandwidth, *(p.rate for _, p in found)]
    ax.set_xlim(low, high)
    ax.set_ylim(min(rates) / 1.5, max(rates) * 2.5)
    marks = [ax.plot([], [], MARKERS[i], color=ARM_COLOURS[i], markersize=8)[0] for i in (0, 1)]
    ax.legend(
        marks, [_short(arm.name) for arm in profile.arms], ncols=2, loc="lower left",
        bbox_to_anchor=(0, 1), frameon=False, fontsize=9,
    )  # fmt: skip
    roofs = f"{fmt.count(peaks.flops, 'FLOP/s')} in float32, {fmt.count(peaks.bandwidth, 'B/s')}"
    ax.set_title(roofs, loc="right", fontsize=9, color=INK)
    ax.set_xlabel("FLOP per byte")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: fmt.count(value, "FLOP/s")))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    names = [
        Named(_short(p.operator.name), ARM_COLOURS[i], p.intensity, p.rate,
              (p.intensity, p.intensity), (p.rate, p.rate))
        for i, p in found
    ]  # fmt: skip
    label(ax, names, canvas.get_renderer())
    return figure


def memory(profile: Profile) -> Figure:
    """Bytes in live tensors over one request of each arm, more than at its start."""
    figure, ax = _figure(11.0, 3.2)
    highest = max((abs(p.bytes) for arm in profile.arms for p in arm.seen.memory), default=0.0)
    scale, unit = (2**20, "MiB") if highest >= 2**20 else (2**10, "KiB")
    for arm, colour, dashes in zip(profile.arms, ARM_COLOURS, ("-", "--"), strict=True):
        curve = arm.seen.memory
        if curve:
            ax.step(
                [0.0, *(p.us for p in curve)], [0.0, *(p.bytes / scale for p in curve)],
                where="post", color=colour, linestyle=dashes, label=_short(arm.name),
            )  # fmt: skip
    ax.axhline(0, color=FAINT, linewidth=0.8)
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=9)
    ax.set_ylabel(f"{unit} in live tensors")
    ax.set_xlim(left=0)
    _time_axis(ax, "time since the request came in")
    return figure


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    ax = figure.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(labelsize=9, colors=INK)
    return figure, ax


def _time_axis(ax: Axes, what: str) -> None:
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:g}"))
    ax.set_xlabel(f"ms: {what}", fontsize=10)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
