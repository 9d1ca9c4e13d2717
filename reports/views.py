"""One technique over baselines, one baseline over techniques, and the trade-off of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial

from baselines.errors import LeanRecError
from baselines.registry import parse_spec
from bench.effects import Effect
from bench.limits import Limits, findings
from bench.records import CONTROL, read_point
from bench.run import Run
from reports import format as fmt
from reports import gate, tables, tradeoff
from reports.curves import Panel, draw, effect_line
from reports.forest import forest, forests, of_stack
from reports.pages import Block, Heading, Picture, Section, Table, Text, table_or
from reports.select import part_of
from reports.tables import LATENCY, THROUGHPUT, columns_of, headline, stack_label

Name = Callable[[Effect], str]
_SPEED_UP = "times as fast as the control"


def technique_sections(run: Run, stack: str) -> tuple[Section, ...]:
    """What one stack does to every baseline."""
    part = part_of(run, lambda c: c.stack in (stack, CONTROL))
    measured = {(e.baseline, e.device) for e in part.effects if e.stack == stack}
    part = part_of(
        part, lambda c: c.stack == stack or (c.baseline, c.device) in measured
    )  # whose control stands beside it
    many = len({e.device for e in part.effects}) > 1

    def name(e: Effect) -> str:
        of = f"{e.baseline}, {e.device}" if many else e.baseline
        return of if e.stack != CONTROL else f"{of}: {stack_label(CONTROL)}"

    return _sections(part, part, stack, name)


def baseline_sections(run: Run, baseline: str) -> tuple[Section, ...]:
    """What every stack does to one baseline."""
    part = part_of(run, lambda c: c.baseline == baseline)
    family = next((f for f in families(run) if baseline in f), {})
    many = len({e.device for e in part.effects}) > 1

    def name(e: Effect) -> str:
        return f"{of_stack(e)}, {e.device}" if many else of_stack(e)

    return _sections(part, part_of(run, lambda c: c.baseline in family), baseline, name)


def quality_speed_blocks(run: Run, limits: Limits | None = None) -> tuple[Block, ...]:
    """A figure for each baseline × speed scenario × device; under limits, who breaks them.

    Raises LeanRecError where a limit concerns nothing that was measured.
    """
    limits = limits or Limits()
    held = findings(run.effects, limits) if limits != Limits() else []
    blocks: list[Block] = [Text(tradeoff.standing_in_words(run, limits))] if held else []
    pictures = [
        Picture(
            partial(tradeoff.quality_speed, run, *key, limits=limits),
            f"Quality against speed of each stack on {' '.join(key)}; the numbers are in Effects.",
            marks,
        )
        for key, marks in tradeoff.speed_scenarios(run).items()
    ]
    blocks += pictures or [Text("No stack has both a speed and a quality yet.")]
    if held:
        blocks.append(Heading("What is not known to keep the limits, and how far it is from them"))
        blocks += table_or(gate.distance_table(held), "Every stack keeps every limit.")
    return tuple(blocks)


def families(run: Run) -> list[dict[str, int]]:
    """Baselines that differ in their declared width alone: name → width, two widths or more.

    One whose spec does not say its width is of none: the default is not known here.
    """
    found: dict[str, dict[str, int]] = {}
    for name, spec in run.plan.baselines.items():
        try:
            kind, parameters = parse_spec(spec)
        except LeanRecError:
            continue
        width = parameters.pop("width", None)
        if isinstance(width, int):
            found.setdefault(f"{kind} {sorted(parameters.items())}", {})[name] = width
    return [family for family in found.values() if len(set(family.values())) > 1]


def _sections(run: Run, beside: Run, what: str, name: Name) -> tuple[Section, ...]:
    """run: what the page is about, controls included. beside: baselines of other widths, too."""
    skipped = tables.skipped_table(run)
    if all(e.stack == CONTROL for e in run.effects):
        blocks = (Text(f"Nothing was measured of {what} yet."), *table_or(skipped, "Not skipped."))
        return (Section(what, blocks),)
    parts = {
        f"{what}: effects": _forests(run, name),
        "Speed-up by batch size": _by_batch(run, name),
        "Speed-up by width": _by_width(beside),
        "Preparation cost": table_or(tables.preparation_table(run), "None was recorded."),
        "Quality by segment": _segments(run, name),
        "Skipped": (Table(skipped),) if len(skipped) else (),
    }
    return tuple(Section(title, blocks) for title, blocks in parts.items() if blocks)


def _forests(run: Run, name: Name) -> tuple[Block, ...]:
    blocks: list[Block] = []
    ordered = sorted(run.effects, key=lambda e: (e.baseline, e.device, e.stack == CONTROL))
    if len({e.baseline for e in ordered}) == 1:  # the control once, below all stacks
        ordered.sort(key=lambda e: e.stack == CONTROL)
    for column in columns_of(run):
        found = headline(ordered, column)
        if all(e.stack == CONTROL for e in found):
            continue
        blocks.append(Heading(column.title))
        blocks += [
            Picture(
                partial(forest, group, name),
                f"{column.title}: effects and intervals.",
                len(group),
            )
            for _, group in forests(found)
            if any(e.stack != CONTROL for e in group)
        ]
        if lacking := [e for e in found if not math.isfinite(e.effect)]:
            told = dict.fromkeys(f"{name(e)} ({e.verdict})" for e in lacking)
            blocks.append(Text(f"Without an estimate: {fmt.words(list(told))}."))
        blocks.append(Table(tables.effects_table(found), f"Numbers: {column.title}", True))
    return tuple(blocks)


def _by_batch(run: Run, name: Name) -> tuple[Block, ...]:
    """A panel for each scenario and number of threads, where there are two batch sizes or more."""
    places = _places(run.effects, name)
    panels = []
    for column in (LATENCY, THROUGHPUT):
        groups: dict[str, list[tuple[float, Effect]]] = {}
        for e in _drawn(headline(run.effects, column)):
            point = read_point(e.point)
            if batch := point.pop("batch", None):
                rest = ", ".join(f"{key} {value}" for key, value in point.items())
                groups.setdefault(": ".join(filter(None, (column.title, rest))), []).append(
                    (batch, e)
                )
        panels += [
            _speed_up(title, found, places, name, "batch size")
            for title, found in groups.items()
            if len({x for x, _ in found}) > 1
        ]
    if not panels:
        return (Text("No scenario measured two batch sizes, so there is no curve."),)
    return (Picture(partial(draw, panels), "Speed-up against batch size; numbers above."),)


def _by_width(run: Run) -> tuple[Block, ...]:
    """A panel for each family, scenario, point and device; a line for each stack."""
    panels = []
    for family in families(run):
        own = [e for e in run.effects if e.baseline in family]
        places = _places(own, of_stack)
        for column in (LATENCY, THROUGHPUT):
            groups: dict[str, list[tuple[float, Effect]]] = {}
            for e in _drawn(headline(own, column)):
                title = ", ".join(filter(None, (column.title, e.point, e.device)))
                groups.setdefault(title, []).append((family[e.baseline], e))
            panels += [
                _speed_up(title, found, places, of_stack, f"width: {', '.join(family)}")
                for title, found in groups.items()
                if len({x for x, _ in found}) > 1
            ]
    return (Picture(partial(draw, panels), "Speed-up against width."),) if panels else ()


def _speed_up(
    title: str, found: list[tuple[float, Effect]], places: dict[str, int], name: Name, x: str
) -> Panel:
    lines: dict[str, list[tuple[float, Effect]]] = {}
    for pair in found:
        lines.setdefault(name(pair[1]), []).append(pair)
    return Panel(
        title,
        tuple(effect_line(line, places[line], pairs) for line, pairs in lines.items()),
        x, _SPEED_UP, "ratio", level=1.0, margin=max(e.margin for _, e in found), log_x=True,
    )  # fmt: skip


def _segments(run: Run, name: Name) -> tuple[Block, ...]:
    """Loss by segment of the primary metrics: a panel for each metric and grouping."""
    primary = {(e.baseline, e.metric) for e in run.effects if e.primary}
    found = [e for e in run.effects if e.segment and (e.baseline, e.metric) in primary]
    places = _places(run.effects, name)
    groups: dict[tuple[str, str], list[Effect]] = {}
    for e in _drawn(found, positive=False):
        groups.setdefault((e.metric, e.segment.rpartition("=")[0]), []).append(e)
    panels = []
    for (metric, grouping), own in groups.items():
        names = list(dict.fromkeys(e.segment.rpartition("=")[2] for e in own))
        lines: dict[str, list[tuple[float, Effect]]] = {}
        for e in own:
            lines.setdefault(name(e), []).append((names.index(e.segment.rpartition("=")[2]), e))
        margins = {e.margin if e.direction == "lower" else -e.margin for e in own}
        panels.append(
            Panel(
                f"{metric} by {grouping}",
                tuple(effect_line(line, places[line], pairs) for line, pairs in lines.items()),
                f"{grouping} (0 is the lowest)" if names[0] == "0" else grouping,
                "treatment − control",
                level=0.0,
                limit=(min(margins, key=abs), "smallest margin of loss"),
                names=tuple(names),
                write=fmt.difference,
            )
        )
    if not panels:
        return (Text("Quality was not measured by segment."),)
    table = Table(tables.segments_table(found), "Numbers by segment", True)
    return Picture(partial(draw, panels), "Quality difference by segment."), table


def _drawn(effects: Iterable[Effect], positive: bool = True) -> list[Effect]:
    """Those with an estimate to draw, without the control."""
    return [
        e
        for e in effects
        if e.stack != CONTROL and math.isfinite(e.effect) and (e.effect > 0 or not positive)
    ]


def _places(effects: Iterable[Effect], name: Name) -> dict[str, int]:
    """Name → its place among all, so that it looks the same in every figure of a page."""
    names = dict.fromkeys(name(e) for e in effects if e.stack != CONTROL)
    return {found: place for place, found in enumerate(names)}
