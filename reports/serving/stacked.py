"""Bars made of parts that add up, one a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from reports.figures import axes, colour


def stacked(rows: Sequence[tuple[str, Mapping[str, float]]], x_label: str) -> Figure:
    """rows: (name, part → value), each with the same parts, which lie in the legend's order."""
    figure, (ax,) = axes(1, 1, (11.0, 1.3 + 0.3 * len(rows)))
    parts = list(rows[0][1]) if rows else []
    starts = [0.0] * len(rows)
    for place, part in enumerate(parts):
        values = [row[part] for _, row in rows]
        ax.barh(
            range(len(rows)), values, left=starts, height=0.72, label=part, color=colour(place),
            edgecolor="white", linewidth=0.8,
        )  # fmt: skip
        starts = [start + value for start, value in zip(starts, values, strict=True)]
    for y, total in enumerate(starts):
        ax.annotate(
            f"{total:.3g}", (total, y), xytext=(4, 0), textcoords="offset points", va="center",
            fontsize=9,
        )  # fmt: skip
    ax.set_yticks(range(len(rows)), [name for name, _ in rows], parse_math=False)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.margins(x=0.08)
    ax.set_xlabel(x_label)
    figure.legend(loc="outside upper left", ncols=len(parts) or 1, frameon=False, fontsize=9)
    return figure
