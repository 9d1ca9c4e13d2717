"""The answer of a run in plain words, generated from its verdicts and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.effects import Effect
from bench.records import CONTROL
from bench.run import Run
from reports import format as fmt
from reports.tables import QUALITY, columns_of, headline, summarise

GAINS = ("faster", "smaller", "better")
COSTS = ("slower", "larger", "inferior")


@dataclass(frozen=True)
class Answer:
    """What one stack did to one baseline on one device.

    outcome: "free", "a trade", "no gain", "undecided" or "failed". gains, costs, unclear: phrases,
    one for each metric. quality: what is known of the primary quality metric. notes: why an
    effect is what it is, as the records tell.
    """

    baseline: str
    stack: str
    device: str
    outcome: str
    gains: tuple[str, ...]
    costs: tuple[str, ...]
    unclear: tuple[str, ...]
    quality: str
    notes: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The answer as one line of text."""
        parts = [
            f"gains: {fmt.words(list(self.gains))}" if self.gains else "gains nothing measured"
        ]
        if self.costs:
            parts.append(f"costs: {fmt.words(list(self.costs))}")
        if self.unclear:
            parts.append(f"undecided: {fmt.words(list(self.unclear))}")
        if self.quality:
            parts.append(self.quality)
        return "; ".join(parts) + "."


def answers(run: Run) -> list[Answer]:
    """One answer for each measured baseline × stack × device, in the order of the plan."""
    keys = dict.fromkeys(
        (p.cell.baseline, p.cell.stack, p.cell.device)
        for p in run.plan.cells
        if p.cell.stack != CONTROL
    )
    found = (_answer(run, *key) for key in keys)
    return [a for a in found if a is not None]


def sanity(run: Run) -> str:
    """What the A/A arm says of this run: identical code measured against itself."""
    arms = [e for e in run.effects if e.stack == CONTROL and not e.segment]
    if not arms:
        return "This run has no A/A arm, so its false alarms were not watched."
    odd = [e for e in arms if e.verdict in GAINS + COSTS]
    if odd:
        return (
            f"The control measured against itself came out different in {len(odd)} of "
            f"{len(arms)} effects: this run is suspect."
        )
    return f"The control measured against itself came out different in none of {len(arms)} effects."


def state(run: Run) -> str:
    """How far the run is, in one sentence."""
    planned = sum(not p.skip for p in run.plan.cells)
    skipped = len(run.plan.cells) - planned
    text = f"Suite {run.plan.suite}: {planned} cells to run, {skipped} skipped; "
    text += f"{len(run.trials)} trials recorded."
    if run.summary is None:
        return text + " The run is in progress, or was interrupted: these results are provisional."
    if run.summary.out_of_budget:
        return text + " The time budget ran out before every comparison was decided."
    return text if run.summary.finished else text + " The run did not finish."


def _answer(run: Run, baseline: str, stack: str, device: str) -> Answer | None:
    own = [e for e in run.effects if (e.baseline, e.stack, e.device) == (baseline, stack, device)]
    if not own:
        return None
    gains: list[str] = []
    costs: list[str] = []
    unclear: list[str] = []
    failed = False
    for column in columns_of(run):
        if column.scenarios == (QUALITY,):
            continue
        effects = headline(own, column)
        failed = failed or any(e.verdict == "failed" for e in effects)
        for verdicts, phrases in ((GAINS, gains), (COSTS, costs), (("inconclusive",), unclear)):
            group = [e for e in effects if e.verdict in verdicts]
            if group:
                phrases.append(f"{column.title.lower()} {summarise(group)}".replace("\n", ", "))
    quality = [e for c in columns_of(run) if c.scenarios == (QUALITY,) for e in headline(own, c)]
    failed = failed or any(e.verdict == "failed" for e in quality)
    if failed:
        outcome = "failed"
    elif any(e.verdict in ("inferior", "inconclusive") for e in quality):
        inferior = any(e.verdict == "inferior" for e in quality)
        outcome = ("a trade" if gains else "no gain") if inferior else "undecided"
        if inferior:
            costs += [f"quality {fmt.claim(e)}" for e in quality if e.verdict == "inferior"]
    elif not gains:
        outcome = "undecided" if unclear and not costs else "no gain"
    else:
        outcome = "a trade" if costs or not all(map(_free, quality)) or not quality else "free"
    return Answer(
        baseline, stack, device, outcome, tuple(gains), tuple(costs), tuple(unclear),
        fmt.words([_quality(e) for e in quality]) if quality else "quality not measured",
        tuple(dict.fromkeys(e.note for e in own if e.note)),
    )  # fmt: skip


def _free(e: Effect) -> bool:
    """Non-inferior, and any loss is inside the control's own spread over seeds."""
    held = e.verdict in ("non-inferior", "equivalent", "better")
    loss = -e.effect if e.direction == "higher" else e.effect
    return held and loss <= (math.inf if e.seed_spread is None else e.seed_spread)


def _quality(e: Effect) -> str:
    text = f"{e.metric} {fmt.number(e.control)} → {fmt.number(e.treatment)}, {e.verdict}"
    if e.seed_spread is not None:
        inside = "inside" if abs(e.effect) <= e.seed_spread else "outside"
        text += f" ({inside} the control's spread over seeds, {fmt.number(e.seed_spread)})"
    return text
