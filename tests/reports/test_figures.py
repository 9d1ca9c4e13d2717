"""The figures: what is drawn, and that names cover neither each other nor the points."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from synthetic_run import Truth, write_run

from bench.run import Run
from reports import figures, tradeoff
from reports.forest import forest, forests
from reports.labels import Named, label


def names_of(figure: Figure) -> dict[str, list[str]]:
    """Title of each panel → the names written in it."""
    return {
        ax.get_title(loc="left"): [t.get_text() for t in ax.texts if t.get_text()]
        for ax in figure.axes
    }


def test_quality_is_drawn_against_speed_for_every_stack_at_every_point(run: Run) -> None:
    panels = names_of(tradeoff.quality_speed(run, "dcnv2", "single-stream", "cpu"))
    assert set(panels) == {"batch=1", "batch=512"}
    stacks = {e.stack for e in run.effects} - {"control"}
    for names in panels.values():
        assert set(names) == stacks | {"quality margin"}


def test_there_is_a_figure_for_each_baseline_and_speed_scenario(run: Run) -> None:
    assert set(tradeoff.speed_scenarios(run)) == {
        (baseline, scenario, "cpu")
        for baseline in ("dcnv2", "two-tower")
        for scenario in ("offline", "single-stream")
    }


def test_the_point_of_a_faster_stack_lies_where_its_numbers_say(run: Run) -> None:
    figure = tradeoff.quality_speed(run, "dcnv2", "offline", "cpu")
    (ax,) = figure.axes
    note = next(t for t in ax.texts if t.get_text() == "int8-linear")
    assert isinstance(note, Annotation)
    assert note.xy == (pytest.approx(3.1, rel=0.02), pytest.approx(-0.0002, abs=1e-4))


def test_a_forest_has_a_row_for_each_effect_under_its_metric(run: Run) -> None:
    effects = [e for e in run.effects if (e.baseline, e.scenario) == ("dcnv2", "offline")]
    (ax,) = forest(effects).axes
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    assert names[0] == "throughput, batch=4096"
    assert names.count("int8-linear") == 2
    assert "3.10× faster" in [t.get_text() for t in ax.texts]


def test_ratios_and_differences_are_not_drawn_on_one_axis(run: Run) -> None:
    effects = [e for e in run.effects if e.baseline == "dcnv2" and not e.segment]
    drawn = dict(forests(effects))
    assert {what.partition(",")[0] for what in drawn} == {"ratios", "auc"}
    assert all(len({e.scale for e in group}) == 1 for group in drawn.values())


def test_a_run_of_one_process_is_drawn_without_bounds(tmp_path: Path) -> None:
    run = Run.load(write_run(tmp_path, {"bf16": Truth({4096: 2.0})}, ["dcnv2"], processes=1))
    figure = tradeoff.quality_speed(run, "dcnv2", "offline", "cpu")
    assert "<svg" in figures.svg(figure)
    assert "<svg" in figures.svg(forest(forests(run.effects)[0][1]))


def test_a_figure_is_the_same_bytes_each_time(run: Run) -> None:
    effects = [e for e in run.effects if e.metric == "throughput"][:3]
    assert figures.svg(forest(effects)) == figures.svg(forest(effects))


@settings(max_examples=6, phases=[Phase.explicit, Phase.generate])
@given(
    st.lists(
        st.tuples(st.floats(0.3, 6.0), st.floats(-0.01, 0.01)), min_size=1, max_size=8, unique=True
    )
)
@example([(1 + i / 100, 0.0) for i in range(8)])
@example([(2.0, 0.0), (5.0, 0.0), (3.4375, 0.0), (4.5, 0.0)])
def test_names_cover_no_other_name_however_the_points_lie(
    points: list[tuple[float, float]],
) -> None:
    figure = Figure(figsize=(5.5, 4.6))
    canvas = FigureCanvasAgg(figure)
    ax = figure.subplots()
    ax.scatter(*np.array(points).T)
    ax.set_xscale("log")
    ax.set_xlim(0.2, 8)
    ax.set_ylim(-0.015, 0.015)
    canvas.draw()
    named = [
        Named(f"technique-{i}", "k", x, y, (x, x), (math.nan, math.nan))
        for i, (x, y) in enumerate(points)
    ]
    label(ax, named, canvas.get_renderer())
    canvas.draw()
    # The extent of an Annotation holds its line too; that of a Text is the name alone.
    boxes = [Text.get_window_extent(text, canvas.get_renderer()) for text in ax.texts]
    assert len(boxes) == len(points)
    for a, b in itertools.combinations(boxes, 2):
        width = min(a.x1, b.x1) - max(a.x0, b.x0)
        height = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(width, height) <= 1
