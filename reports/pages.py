"""What a report says and in which order; the other pages only write it down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby

import pandas as pd
from matplotlib.figure import Figure

from bench.effects import Effect
from bench.limits import Limits
from bench.recommend import Objective, recommend
from bench.run import Run
from reports import figures, forest, provenance, recommendation, tables
from reports import format as fmt
from reports.answer import Answer, answers, explanations, sanity, state
from reports.composition import composition_table
from reports.overview import GLANCE, MEANINGS, foundations, glances, overview


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str


@dataclass(frozen=True)
class Items:
    """A list; each item has a leading word, set strong, or ""."""

    items: tuple[tuple[str, str], ...]
    warning: bool = False


@dataclass(frozen=True)
class Table:
    """A table, made once it is asked for where `made` is a function; `folded` shows the caption
    alone until the reader opens it. hover: the frame of what each cell tells when pointed at."""

    made: pd.DataFrame | Callable[[], pd.DataFrame]
    caption: str = ""
    folded: bool = False
    hover: pd.DataFrame | None = None

    __match_args__ = ("frame", "caption", "folded", "hover")

    @cached_property
    def frame(self) -> pd.DataFrame:
        """The table's text."""
        return self.made() if callable(self.made) else self.made


@dataclass(frozen=True)
class Picture:
    """A figure, drawn once it is asked for, with what it shows in words for those who cannot see
    it. marks: how much there is to draw, in effects."""

    draw: Callable[[], Figure]
    alternative: str
    marks: int = 0

    @cached_property
    def svg(self) -> str:
        """The figure as an SVG document."""
        return figures.svg(self.draw())

    @cached_property
    def png(self) -> bytes:
        """The figure as a PNG image."""
        return figures.png(self.draw())


Block = Text | Heading | Items | Table | Picture


@dataclass(frozen=True)
class Section:
    """A titled part of a report."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Report:
    """A whole report."""

    title: str
    sections: tuple[Section, ...]


OUTCOMES = {
    "free": "Free",
    "a trade": "A trade",
    "no gain": "No gain",
    "undecided": "Undecided",
    "failed": "Failed",
}


def overview_blocks(run: Run) -> tuple[Block, ...]:
    """A run at a glance: every stack against every baseline, and what the numbers rest on."""
    found = overview(run)
    if found.marks.empty:
        return (Text("No cell is selected."),)
    return (
        Text(f"{state(run)} {sanity(run)}"),
        Items(tuple(foundations(run))),
        Text(_MARKS),
        Table(found.marks, hover=found.exact),
    )


def answer_sections(run: Run) -> tuple[Section, ...]:
    """The answer at a glance, then in words; a table and a list for each baseline."""
    found = answers(run)
    opening = f"{state(run)} {sanity(run)}"
    if not found:
        unknown = Text("No technique has been measured yet, so there is no answer.")
        return (Section("The answer", (Text(opening), unknown)),)
    counts = Counter(a.outcome for a in found)
    told = [f"{counts[o]} {_COUNTED[o]}" for o in OUTCOMES if counts[o]]
    glance: list[Block] = [
        Text(f"Stacks measured against the control: {len(found)}. Of these, {fmt.words(told)}."),
        Text(opening),
        Text(GLANCE),
    ]
    for (baseline, device), frame in glances(run).items():
        glance += [Heading(f"{baseline} on {device}"), Table(frame)]
    words: list[Block] = []
    for (baseline, device), group in groupby(found, key=lambda a: (a.baseline, a.device)):
        words += [Heading(f"{baseline} on {device}"), Items(tuple(map(_item, group)))]
    if why := explanations(run):
        words += [Heading("Why"), Items(tuple(why))]
    return Section("The answer", tuple(glance)), Section("The answer in words", tuple(words))


def verdict_blocks(run: Run) -> tuple[Block, ...]:
    """The verdict matrix and how to read it."""
    return (Text(_READING), *table_or(tables.verdict_matrix(run), "No cell is selected."))


def decide_blocks(run: Run, limits: Limits, objective: Objective) -> tuple[Block, ...]:
    """The stack to use for each baseline under limits, on what evidence.

    Raises LeanRecError where nothing was measured that a limit or the objective is about.
    """
    blocks: list[Block] = []
    for found in recommend(run.effects, limits, objective):
        title = Heading(f"{found.baseline} on {found.device}, for {objective}")
        blocks += [title, Items(tuple(recommendation.lines(found)))]
    return tuple(blocks)


def stack_blocks(run: Run) -> tuple[Block, ...]:
    """Which techniques compose; nothing where no stack was measured beside all of its parts."""
    frame = composition_table(run)
    if frame.empty:
        return ()
    counts = Counter(frame["Verdict"])
    told = fmt.words([f"{verdict} {n:,}" for verdict, n in counts.most_common()])
    blocks: list[Block] = [Text(_COMPOSITION), Text(f"Effects by verdict: {told}.")]
    keys = ["Baseline", "Stack", "Device"]
    for (baseline, stack, device), group in frame.groupby(keys, sort=False):
        blocks += [Heading(f"{stack} on {baseline}, {device}"), Table(group.drop(columns=keys))]
    return tuple(blocks)


def effect_blocks(run: Run) -> tuple[Block, ...]:
    """Forest plots and a table for each baseline × scenario × device."""
    groups: dict[str, list[Effect]] = {}
    for e in run.effects:
        if not e.segment:
            groups.setdefault(f"{e.baseline}, {e.scenario}, {e.device}", []).append(e)
    blocks: list[Block] = []
    for title, found in groups.items():
        blocks.append(Heading(title))
        blocks += [
            Picture(
                partial(forest.forest, drawn),
                f"Effects and intervals: {title}, {what}.",
                len(drawn),
            )
            for what, drawn in forest.forests(found)
        ]
        blocks.append(Table(partial(_numbers, found), f"Numbers: {title}", True))
    return tuple(blocks)


def _numbers(found: list[Effect]) -> pd.DataFrame:
    return tables.effects_table(found).drop(columns=["Baseline", "Scenario", "Device"])


def segment_blocks(run: Run) -> tuple[Block, ...]:
    """A table for each baseline × grouping, one column for each segment, of the primary metric.

    Of every metric where no primary one is selected.
    """
    primary = {(e.baseline, e.metric) for e in run.effects if e.primary}
    segments = [e for e in run.effects if e.segment]
    chosen = [e for e in segments if (e.baseline, e.metric) in primary]
    frame = tables.segments_table(chosen or segments)
    if frame.empty:
        return (Text("Quality was not measured by segment."),)
    keys = ["Baseline", "Device", "Metric", "Segment"]
    blocks: list[Block] = [Text(_SEGMENTS)]
    for (baseline, device, metric, name), group in frame.groupby(keys, sort=False):
        shown = group.drop(columns=keys)
        blocks += [
            Heading(f"{baseline} on {device}: {metric} by {name}"),
            Table(shown.loc[:, (shown != "").any()]),
        ]
    return tuple(blocks)


def cost_sections(run: Run) -> tuple[Section, ...]:
    """What is paid once, and what was not run."""
    return (
        Section("Preparation cost", table_or(tables.preparation_table(run), "None recorded.")),
        Section("Skipped", table_or(tables.skipped_table(run), "No cell was skipped.")),
    )


def provenance_sections(run: Run) -> tuple[Section, ...]:
    """Where the numbers come from."""
    return (
        Section("Certificate of the host", certificate_blocks(run)),
        Section("Environment", table_or(provenance.environment_table(run), "Not recorded.")),
        Section("Protocol in brief", (Table(provenance.protocol_table(run)),)),
        Section("The engine's own cost", table_or(provenance.accounting(run), _UNFINISHED)),
    )


def certificate_blocks(run: Run) -> tuple[Block, ...]:
    """The certificate, or what its absence means."""
    return table_or(provenance.certificate_table(run), provenance.NO_CERTIFICATE)


def warning_blocks(run: Run) -> tuple[Block, ...]:
    """The warnings of a run, none where there are none."""
    lines = tuple(("", line) for line in run.warnings)
    return (Items(lines, warning=True),) if lines else ()


def _item(answer: Answer) -> tuple[str, str]:
    return f"{answer.stack}: {OUTCOMES[answer.outcome].lower()}", answer.sentence


def table_or(frame: pd.DataFrame, otherwise: str) -> tuple[Block, ...]:
    """The table, or what its emptiness means."""
    return (Text(otherwise),) if frame.empty else (Table(frame),)


_MARKS = f"{MEANINGS} Point at a cell for its exact numbers."
_COUNTED = {
    "free": "came free",
    "a trade": "bought something at a cost",
    "no gain": "gained nothing",
    "undecided": "could not be decided",
    "failed": "failed",
}
_READING = (
    "Every verdict compares a stack with the same baseline without it. Faster, slower, smaller "
    "and larger: the whole interval lies outside the margin. Equivalent: inside it. "
    "Inconclusive: neither, and no pass. Free: non-inferior, any loss of quality inside the "
    "control's spread over seeds, and nothing slower or larger."
)
_SEGMENTS = (
    "Treatment − control in each segment, from number 0 upwards. The word inferior stands where "
    "the loss in a segment is more than the margin."
)
_COMPOSITION = (
    "What a stack gains against the product of what its parts gain alone, more than 1 being better "
    "than the control. Composes: the two agree, within an interval that is narrow enough to say "
    "so. Cancels: the stack gains less, by more than the margin. Reinforces: it gains more."
)
_UNFINISHED = "The run has not ended, so its cost is not known yet."
