"""One technique over baselines, one baseline over techniques, and limits in the trade-off."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from synthetic_run import Truth, write_run

from baselines.errors import LeanRecError
from bench.effects import Effect
from bench.limits import Limits, findings
from bench.run import Run
from reports import format as fmt
from reports import gate, tables, tradeoff, views
from reports.pages import Block, Heading, Picture, Section, Table, Text

SHAPES = {">": "better", "<": "worse", "s": "no difference", "o": "inconclusive"}


def section(sections: tuple[Section, ...], title: str) -> tuple[Block, ...]:
    return next(s.blocks for s in sections if s.title == title)


def figures(blocks: tuple[Block, ...]) -> list[Figure]:
    return [block.draw() for block in blocks if isinstance(block, Picture)]


def texts(figure: Figure) -> list[str]:
    return [t.get_text() for ax in figure.axes for t in ax.texts]


def rows(figure: Figure) -> list[str]:
    return [tick.get_text() for tick in figure.axes[0].get_yticklabels()]


def effect(run: Run, baseline: str, stack: str, metric: str, point: str = "") -> Effect:
    return next(
        e
        for e in run.effects
        if (e.baseline, e.stack, e.metric, e.point, e.segment)
        == (baseline, stack, metric, point, "")
    )


def test_a_technique_stands_over_its_baselines_with_their_controls(run: Run) -> None:
    blocks = section(views.technique_sections(run, "bf16"), "bf16: effects")
    headings = [block.text for block in blocks if isinstance(block, Heading)]
    assert headings == ["Quality", "Latency", "Throughput", "Model size"]
    latency = figures(blocks)[1]
    group = ["dcnv2", "dcnv2: control (A/A)", "two-tower", "two-tower: control (A/A)"]
    assert rows(latency) == ["latency, batch=1", *group, "latency, batch=512", *group]
    e = effect(run, "two-tower", "bf16", "latency", "batch=512")
    assert fmt.claim(e) in texts(latency)
    assert f"{fmt.quantity(e.control, 's')} → {fmt.quantity(e.treatment, 's')}" in texts(latency)


def test_a_baseline_stands_over_its_stacks_with_the_control_last(run: Run) -> None:
    blocks = section(views.baseline_sections(run, "dcnv2"), "dcnv2: effects")
    (quality, *_) = figures(blocks)
    stacks = sorted({e.stack for e in run.effects} - {"control"})
    assert rows(quality) == ["auc", *stacks, "control (A/A)"]
    for block in blocks:
        if isinstance(block, Table):
            assert set(block.frame["Baseline"]) == {"dcnv2"}


def test_a_verdict_is_told_by_word_and_shape_and_not_by_colour_alone(run: Run) -> None:
    figure = figures(section(views.baseline_sections(run, "dcnv2"), "dcnv2: effects"))[1]
    told = {t.get_text() for t in figure.legends[0].get_texts()}
    (ax,) = figure.axes
    shapes = {line.get_marker() for line in ax.get_lines()} & set(SHAPES)
    assert {SHAPES[shape] for shape in shapes} == told
    assert "δ = ±2.0%" in ax.get_xlabel()
    assert 1.0 in {line.get_xdata()[0] for line in ax.get_lines() if line.get_linestyle() == "-"}


def test_a_speed_up_curve_goes_through_the_effects_of_the_table(run: Run) -> None:
    blocks = section(views.technique_sections(run, "int8-linear"), "Speed-up by batch size")
    (figure,) = figures(blocks)
    (ax,) = figure.axes  # of the latency: throughput has one batch size
    curves = [line for line in ax.get_lines() if len(line.get_ydata()) == 2]
    for baseline in ("dcnv2", "two-tower"):
        gains = [
            effect(run, baseline, "int8-linear", "latency", f"batch={batch}").gain
            for batch in (1, 512)
        ]
        assert any(list(c.get_ydata()) == [gain[0] for gain in gains] for c in curves)
    assert ax.get_xscale() == "log"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["1", "512"]


def test_preparation_is_that_of_the_report(run: Run) -> None:
    (table,) = section(views.technique_sections(run, "compile"), "Preparation cost")
    whole = tables.preparation_table(run)
    expected = whole[whole["Stack"] == "compile"].reset_index(drop=True)
    assert isinstance(table, Table)
    assert table.frame.equals(expected)


def test_segments_are_drawn_where_the_effects_are(run: Run) -> None:
    blocks = section(views.baseline_sections(run, "dcnv2"), "Quality by segment")
    (figure,) = figures(blocks)
    by_title = {ax.get_title(loc="left"): ax for ax in figure.axes}
    assert set(by_title) == {"auc by popularity", "auc by activity"}
    lost = [
        e.effect
        for e in run.effects
        if (e.baseline, e.stack) == ("dcnv2", "prune-structured") and "popularity" in e.segment
    ]
    assert len(lost) == 10
    lines = [list(line.get_ydata()) for line in by_title["auc by popularity"].get_lines()]
    assert lost in lines
    assert "smallest margin of loss" in texts(figure)


def test_what_was_not_measured_says_why(run: Run) -> None:
    (only,) = views.technique_sections(run, "lora")
    text, table = only.blocks
    assert isinstance(text, Text)
    assert text.text == "Nothing was measured of lora yet."
    assert isinstance(table, Table)
    assert list(table.frame["Reason"]) == ["is made for sequence, not for ctr"]


def test_a_failed_technique_has_no_estimate_to_draw(tmp_path: Path) -> None:
    from bench.records import EndRow

    crash = EndRow(status="crash", cause="signal 9", wall=1.0)
    truths = {"control": Truth(), "bf16": Truth(end=crash)}
    found = Run.load(write_run(tmp_path, truths, ["dcnv2"], processes=2))
    blocks = section(views.technique_sections(found, "bf16"), "bf16: effects")
    told = {block.text for block in blocks if isinstance(block, Text)}
    assert told == {"Without an estimate: dcnv2 (failed)."}
    assert not figures(blocks)  # of the control alone


WIDE = {"small": "dnn(depth=2, width=64)", "big": "dnn(width=1024, depth=2)"}


@pytest.mark.parametrize(
    ("specs", "families"),
    [
        (WIDE, [{"small": 64, "big": 1024}]),
        ({**WIDE, "other": "dnn(width=64, depth=3)"}, [{"small": 64, "big": 1024}]),
        ({"small": "dnn(width=64)", "default": "dnn"}, []),  # whose width is not known here
        ({"a": "dnn(width=64)", "b": "dlrm(width=128)"}, []),
        ({"a": "dnn(width=64)", "b": "not a spec ("}, []),
        ({"a": "dnn(width=64)", "b": "dnn(width=64)"}, []),
    ],
)
def test_only_baselines_that_differ_in_width_alone_are_a_family(
    tmp_path: Path, specs: dict[str, str], families: list[dict[str, int]]
) -> None:
    folder = write_run(tmp_path, {"bf16": Truth()}, list(specs), processes=0, specs=specs)
    assert views.families(Run.load(folder)) == families


@pytest.mark.parametrize("of", ["technique", "baseline"])
def test_speed_up_is_drawn_over_the_widths_of_a_family(tmp_path: Path, of: str) -> None:
    truths = {"control": Truth(), "bf16": Truth({1: 0.5, 512: 2.0, 4096: 3.0})}
    run = Run.load(write_run(tmp_path, truths, list(WIDE), processes=3, specs=WIDE))
    sections = (
        views.technique_sections(run, "bf16")
        if of == "technique"
        else views.baseline_sections(run, "small")
    )
    (figure,) = figures(section(sections, "Speed-up by width"))
    titles = {ax.get_title(loc="left") for ax in figure.axes if ax.get_visible()}
    assert "Latency, batch=512, cpu" in titles
    ax = next(a for a in figure.axes if a.get_title(loc="left").startswith("Throughput"))
    lines = [line for line in ax.get_lines() if len(line.get_xdata()) == 2]
    (curve,) = [line for line in lines if list(line.get_xdata()) != [0, 1]]  # not across the panel
    expected = [effect(run, b, "bf16", "throughput", "batch=4096").effect for b in WIDE]
    assert list(curve.get_ydata()) == expected
    assert [t.get_text() for t in ax.get_xticklabels()] == ["64", "1024"]


def test_limits_are_drawn_as_lines_and_marks_who_keeps_them(run: Run) -> None:
    limits = Limits.of("mlperf-99.9", 1.5, None, None)
    figure = tradeoff.quality_speed(run, "dcnv2", "offline", "cpu", limits)
    (ax,) = figure.axes
    dashed = [line for line in ax.get_lines() if line.get_linestyle() == "--"]
    control = effect(run, "dcnv2", "bf16", "auc").control
    assert {round(line.get_xdata()[0], 6) for line in dashed} == {1.5, 0.0}
    assert [line.get_ydata()[0] for line in dashed][1] == pytest.approx(-0.001 * control)
    assert {"limit", "limit: mlperf-99.9"} <= set(texts(figure))
    states = tradeoff.standings(run, limits)
    fills = {line.get_fillstyle() for line in ax.get_lines() if line.get_markersize() == 8}
    assert states["dcnv2", "prune-structured", "cpu"] == "broken"
    assert "none" in fills
    told = [t.get_text() for t in figure.legends[0].get_texts()]
    assert "breaks a limit" in told


def test_a_limit_of_latency_gets_panels_of_its_own(run: Run) -> None:
    limits = Limits.of(None, None, 5.0, None)
    figure = tradeoff.quality_speed(run, "dcnv2", "single-stream", "cpu", limits)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[:2] == ["batch=1", "batch=512"]
    assert all("latency_p" in title for title in titles[2:])
    ax = figure.axes[3]
    assert ax.xaxis_inverted()  # right is better
    assert any(line.get_xdata()[0] == 5.0 for line in ax.get_lines())
    assert "latency" in ax.get_xlabel()
    assert len(tradeoff.quality_speed(run, "dcnv2", "offline", "cpu", limits).axes) == 1


def test_the_front_joins_what_nothing_beats(run: Run) -> None:
    (ax,) = tradeoff.quality_speed(run, "dcnv2", "offline", "cpu").axes
    pairs = [
        (e.gain[0], effect(run, "dcnv2", e.stack, "auc").effect)
        for e in run.effects
        if (e.baseline, e.metric) == ("dcnv2", "throughput") and e.stack != "control"
    ]
    pairs.append((1.0, 0.0))
    best = sorted(p for p in pairs if not any(o != p and o[0] >= p[0] and o[1] >= p[1]
                                              for o in pairs))  # fmt: skip
    joined = [line for line in ax.get_lines() if len(line.get_xdata()) == len(best)]
    assert any(list(line.get_xdata()) == pytest.approx([x for x, _ in best]) for line in joined)


def test_a_table_says_how_far_each_is_from_its_limit(run: Run) -> None:
    limits = Limits.of(None, 1.5, None, None)
    frame = views.quality_speed_blocks(run, limits)[-1].frame  # type: ignore[union-attr]
    held = [f for f in findings(run.effects, limits) if f.state != "met" and f.stack != "control"]
    assert len(frame) == len(held)
    assert list(frame["Bound beyond the limit"]) == [fmt.percent(f.distance) for f in held]
    assert set(frame["State"]) == {"broken"}
    assert all(math.isfinite(f.distance) and f.distance > 0 for f in held)
    assert gate.distance_table([]).empty


def test_a_limit_that_concerns_nothing_is_an_error(run: Run) -> None:
    with pytest.raises(LeanRecError, match="max_memory concerns nothing"):
        views.quality_speed_blocks(run, Limits.of(None, None, None, 5.0))
