"""Names beside the points of a plot, placed so that they cover neither each other nor the data."""

from __future__ import annotations

import math
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase

Box = list[float]  # left, bottom, right, top, in pixels
_DIRECTIONS = ((1, 1), (-1, 1), (1, -1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))
_DISTANCES = (6.0, 14.0, 26.0, 40.0, 58.0, 80.0, 104.0)  # points
_LONGEST = 44  # characters
_DOT = 5  # points: half the side of the square that a marker takes


@dataclass(frozen=True)
class Named:
    """A point in data coordinates with the ends of its error bars."""

    name: str
    colour: str
    x: float
    y: float
    x_ends: tuple[float, float]
    y_ends: tuple[float, float]


def label(ax: Axes, points: list[Named], renderer: RendererBase) -> None:
    """Write each name where it overlaps least; a thin line leads from a distant one to its point.

    Call it on a drawn figure, whose layout and limits are final. Greedy, from right to left, over
    eight directions at growing distances.
    """
    figure = ax.get_figure(root=True)
    if figure is None or not points:
        return
    scale = figure.dpi / 72
    frame: Box = [float(end) for end in ax.get_window_extent(renderer).extents]
    taken = [box for point in points for box in _boxes(ax, point, scale)]
    for point in sorted(points, key=lambda p: -p.x):
        shown = point.name if len(point.name) <= _LONGEST else point.name[: _LONGEST - 1] + "…"
        text = ax.text(0, 0, shown, fontsize=9, parse_math=False)
        size = text.get_window_extent(renderer)
        text.remove()
        x, y = ax.transData.transform((point.x, point.y))
        best: tuple[float, Box, float] = (math.inf, [0.0] * 4, 0.0)
        for distance in _DISTANCES:
            for dx, dy in _DIRECTIONS:
                left = x + dx * distance * scale - size.width * (1 - dx) / 2
                bottom = y + dy * distance * scale - size.height * (1 - dy) / 2
                box = [left, bottom, left + size.width, bottom + size.height]
                cost = 50 * sum(_shared(box, other) for other in taken)
                cost += 3 * (size.width * size.height - _shared(box, frame)) + distance
                if cost < best[0]:
                    best = (cost, box, distance)
        _, box, distance = best
        taken.append(box)
        line = {
            "arrowstyle": "-",
            "color": point.colour,
            "linewidth": 0.7,
            "shrinkA": 0,
            "shrinkB": 4,
        }
        ax.annotate(
            shown,
            (point.x, point.y),
            xytext=((box[0] - x) / scale, (box[1] - y) / scale),
            textcoords="offset points",
            fontsize=9,
            color=point.colour,
            parse_math=False,
            annotation_clip=False,
            zorder=4,
            arrowprops=line if distance > _DISTANCES[1] else None,
        )


def _boxes(ax: Axes, point: Named, scale: float) -> list[Box]:
    """What the marker and its two bars cover, in pixels."""
    x, y = ax.transData.transform((point.x, point.y))
    reach = _DOT * scale
    boxes: list[Box] = [[x - reach, y - reach, x + reach, y + reach]]
    ends = [ax.transData.transform((x_end, point.y)) for x_end in point.x_ends]
    if all(math.isfinite(e[0]) for e in ends):
        low, high = sorted(e[0] for e in ends)
        boxes.append([low, y - 2, high, y + 2])
    ends = [ax.transData.transform((point.x, y_end)) for y_end in point.y_ends]
    if all(math.isfinite(e[1]) for e in ends):
        low, high = sorted(e[1] for e in ends)
        boxes.append([x - 2, low, x + 2, high])
    return boxes


def _shared(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0
