"""What all figures share: colours, axes, files. No global state of matplotlib is touched."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

# Okabe and Ito's palette for colour-blind readers, its light tones darkened so that text in them
# is legible; shape and label say the same as the colour.
PALETTE = ("#0072B2", "#B84E00", "#007A59", "#A8467F", "#8F6A00", "#2F7CB0", "#5A5A5A")
MARKERS = "osD^vPX"
INK, FAINT, BAND = "#222222", "#8a8a8a", "#ececec"
GOOD, BAD = PALETTE[:2]
_FAR = 4.0  # times the outermost estimate


def colour(place: int) -> str:
    """The colour of the n-th of several things."""
    return PALETTE[place % len(PALETTE)]


def marker(place: int) -> str:
    """The shape of the n-th, so that colour is never alone in telling things apart."""
    return MARKERS[(place + place // len(PALETTE)) % len(MARKERS)]


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


def axes(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure of `size` inches with so many panels, row by row."""
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=9, colors=INK)
    return figure, axes


def log_axis(ax: Axes, gains: Iterable[tuple[float, float, float]], vertical: bool = False) -> None:
    """A logarithmic axis for `gains`, each with its bounds, and ticks such as 0.5×, 1×, 2×.

    A bound that is far away leaves the axis, so that it does not squeeze everything else.
    """
    found = list(gains)
    values = [1.0, *(value for value, _, _ in found)]
    bounds = [b for _, *both in found for b in both if math.isfinite(b) and b > 0]
    low = max(min([*values, *bounds]), min(values) / _FAR)
    high = min(max([*values, *bounds]), max(values) * _FAR)
    low, high = low / (high / low) ** 0.12 / 1.03, high * (high / low) ** 0.12 * 1.03
    span = math.log10(high / low)
    steps = (1,) if span > 2.5 else (1, 2, 5) if span > 1 else (1, 1.5, 2, 3, 5, 7)
    if span > 0.35:
        ticks = [s * 10.0**p for p in range(-6, 7) for s in steps]
    else:
        ticks = list(MaxNLocator(5).tick_values(low, high))
    (ax.set_yscale if vertical else ax.set_xscale)("log")
    axis = ax.yaxis if vertical else ax.xaxis
    axis.set_ticks([t for t in ticks if low <= t <= high])
    axis.set_ticks([], minor=True)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}×"))
    (ax.set_ylim if vertical else ax.set_xlim)(low, high)


def bars(value: float, low: float, high: float) -> list[list[float]] | None:
    """Error bars as matplotlib wants them; none where a bound is not finite."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return None
    return [[max(value - low, 0.0)], [max(high - value, 0.0)]]
