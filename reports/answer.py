"""The answer of a run in plain words, generated from its verdicts and nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.effects import Effect
from bench.records import CONTROL, events
from bench.run import Run, Underway
from reports import format as fmt
from reports.tables import QUALITY, Column, columns_of, headline, summarise

GAINS = ("faster", "smaller", "better")
COSTS = ("slower", "larger", "inferior")
DIFFERENT = GAINS + COSTS


@dataclass(frozen=True)
class Answer:
    """What one stack did to one baseline on one device.

    outcome: ``free``, ``a trade``, ``no gain``, ``undecided`` or ``failed``. gains, costs, unclear
    and failed: phrases, one for each metric. quality: what is known of the primary metric.
    """

    baseline: str
    stack: str
    device: str
    outcome: str
    gains: tuple[str, ...]
    costs: tuple[str, ...]
    unclear: tuple[str, ...]
    failed: tuple[str, ...]
    quality: str

    @property
    def sentence(self) -> str:
        """The answer as one line of text."""
        parts = [f"Gains: {fmt.words(list(self.gains))}" if self.gains else "Gains nothing"]
        for name in ("costs", "unclear", "failed"):
            if phrases := getattr(self, name):
                parts.append(f"{name}: {fmt.words(list(phrases))}")
        return "; ".join([*parts, self.quality]) + "."


def answers(run: Run) -> list[Answer]:
    """One answer for each measured baseline × stack × device, in the order of the plan."""
    keys = dict.fromkeys(
        (p.cell.baseline, p.cell.stack, p.cell.device)
        for p in run.plan.cells
        if p.cell.stack != CONTROL
    )
    columns = columns_of(run)
    return [_answer(own, columns) for key in keys if (own := run.effects_of_stacks.get(key, []))]


def sanity(run: Run) -> str:
    """What the A/A arm says of this run: identical code measured against itself."""
    arms = [
        e for e in run.effects if e.stack == CONTROL and not e.segment and e.p_value is not None
    ]
    if not arms:
        return "This run has no finished A/A arm, so its false alarms were not watched."
    odd = sum(e.verdict in DIFFERENT for e in arms)
    told = f"The control measured against itself came out different in {odd or 'none'} of "
    return told + f"{len(arms)} effects" + (": this run is suspect." if odd else ".")


def state(run: Run) -> str:
    """How far the run is, in words."""
    planned = sum(not p.skip for p in run.plan.cells)
    skipped = len(run.plan.cells) - planned
    text = f"Suite {run.plan.suite}: {planned} cells to run, {skipped} skipped; "
    text += f"{len(run.trials)} trials recorded."
    if run.summary is None:
        return text + " The run is in progress, or was interrupted: these results are provisional."
    if run.summary.out_of_budget:
        return text + " The time budget ran out before every comparison was decided."
    return text if run.summary.finished else text + " The run did not finish."


def progress(now: Underway | None, written: float) -> str:
    """What a run in progress is doing, as far as it says. written: seconds since a file of it
    changed."""
    text = f"Last written {fmt.duration(written)} ago."
    if now is None:
        return text
    told = f"Being measured: {now.doing}. {now.done} of {now.expected} processes are done"
    left = f", about {fmt.duration(now.seconds_left)} left" if now.seconds_left > 0 else ""
    return f"{told}{left}. {text}"


def explanations(run: Run) -> list[tuple[str, str]]:
    """(what, why): the notes of the trials, and of headline effects that bear no claim."""
    lines = [
        (f"{trial.head.baseline} × {trial.head.stack}", f"{event.name}: {event.detail}")
        for trial, event in events(run.trials)
        if event.severity == "note"
    ]
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for e in (e for column in columns_of(run) for e in headline(run.effects, column)):
        why = "; ".join(n for n in e.note.split("; ") if not n.endswith("outliers, kept"))
        if why and e.verdict in ("failed", "inconclusive"):
            metric = f"{e.metric} ({e.point})" if e.point else e.metric
            reasons.setdefault((f"{e.baseline} × {e.stack}", e.verdict, why), []).append(metric)
    lines += [
        (what, f"{fmt.words(metrics)} {verdict}: {why}")
        for (what, verdict, why), metrics in reasons.items()
    ]
    return list(dict.fromkeys(lines))


def _answer(own: list[Effect], columns: list[Column]) -> Answer:
    found: dict[str, list[str]] = {"gains": [], "costs": [], "unclear": [], "failed": []}
    groups = (GAINS, COSTS, ("inconclusive",), ("failed",))
    quality: list[Effect] = []
    for column in columns:
        effects = headline(own, column)
        if column.scenario == QUALITY:
            quality = effects
            continue
        for verdicts, phrases in zip(groups, found.values(), strict=True):
            if group := [e for e in effects if e.verdict in verdicts]:
                told = summarise(group).replace("\n", ", ")
                told = told.removeprefix("failed").removeprefix("inconclusive").strip()
                phrases.append(f"{column.title.lower()} {told}".strip())
    return Answer(
        baseline=own[0].baseline,
        stack=own[0].stack,
        device=own[0].device,
        outcome=_outcome(found, quality),
        quality=fmt.words([_quality(e) for e in quality]) or "quality not measured",
        **{name: tuple(phrases) for name, phrases in found.items()},
    )


def _outcome(found: dict[str, list[str]], quality: list[Effect]) -> str:
    verdicts = {e.verdict for e in quality}
    if "failed" in verdicts or not (found["gains"] or found["costs"] or found["unclear"]):
        return "failed" if "failed" in verdicts or found["failed"] else "no gain"
    if "inferior" in verdicts or found["costs"] or found["failed"]:
        return "a trade" if found["gains"] else "no gain"
    if not found["gains"]:
        return "undecided" if found["unclear"] else "no gain"
    if "inconclusive" in verdicts or not quality:
        return "undecided"
    return "free" if all(map(_free, quality)) else "a trade"


def _free(e: Effect) -> bool:
    """Non-inferior, and any loss is inside the control's own spread over seeds."""
    loss = -e.effect if e.direction == "higher" else e.effect
    return loss <= (math.inf if e.seed_spread is None else e.seed_spread)


def _quality(e: Effect) -> str:
    text = f"{e.metric} {fmt.number(e.control)} → {fmt.number(e.treatment)}, {e.verdict}"
    if e.seed_spread is not None and math.isfinite(e.effect):
        inside = "inside" if abs(e.effect) <= e.seed_spread else "outside"
        text += f" ({inside} the control's spread over seeds, {fmt.number(e.seed_spread)})"
    return text
