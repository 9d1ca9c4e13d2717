"""What `leanrec train` prints: live lines of epochs, then one table over the seeds."""

from __future__ import annotations

import math
import statistics
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.training import EpochRow, SeedRow, Trained


def show_line(row: EpochRow | SeedRow, console: Console) -> None:
    """An epoch or a seed that ended, in one line."""
    if isinstance(row, EpochRow):
        line = (
            f"seed {row.seed}, epoch {row.epoch}: loss {row.train_loss:.4f}, "
            f"valid {row.valid:.4f}, {row.rows_a_second:,.0f} samples/s"
        )
    elif row.reused:
        line = f"seed {row.seed}: trained before"
    else:
        line = f"seed {row.seed}: done in {row.wall:.1f} s, best epoch {row.best_epoch}"
    console.print(line, markup=False, highlight=False)


def summary(trained: Trained) -> dict[str, Any]:
    """All of it as strict JSON: undefined values are null. sd: over the seeds, with n − 1."""
    metrics = []
    for name, direction in trained.directions.items():
        values = _values(trained, name)
        metrics.append(
            {
                "name": name,
                "direction": direction,
                "values": [_known(value) for value in values],
                "mean": _known(statistics.fmean(values)),
                "sd": _known(_sd(values)),
                "best_attainable": trained.best.get(name),
            }
        )
    rest = trained.model_dump(mode="json", exclude={"directions", "best", "seeds"})
    seeds = [seed.model_dump(mode="json", exclude={"metrics"}) for seed in trained.seeds]
    return {**rest, "metrics": metrics, "seeds": seeds, "samples_a_second": _rate(trained)}


def show_trained(trained: Trained, console: Console) -> None:
    """Each metric on the test split by seed, its mean ± standard deviation, and the time taken."""
    console.print(f"{trained.baseline} on {trained.data}: {trained.protocol}", markup=False)
    seeds = [f"seed {seed.seed}" for seed in trained.seeds]
    table = Table("Test", *seeds, "mean ± sd", *(["best attainable"] if trained.best else []))
    for name, direction in trained.directions.items():
        values = _values(trained, name)
        sd = _sd(values)
        mean = _text(statistics.fmean(values)) + ("" if math.isnan(sd) else f" ± {_text(sd)}")
        cells = [_text(value) for value in values]
        best = _text(trained.best[name]) if name in trained.best else ""
        arrow = "↑" if direction == "higher" else "↓"
        table.add_row(escape(f"{name} {arrow}"), *cells, mean, *([best] if trained.best else []))
    console.print(table)
    for seed in trained.seeds:
        rate = f", {seed.rows / seed.seconds:,.0f} samples/s" if seed.seconds else ""
        when = " (trained before)" if seed.reused else f", {seed.wall:.1f} s in all"
        console.print(
            f"seed {seed.seed}: {seed.epochs} epochs, the best was {seed.best_epoch}; "
            f"{seed.seconds:.1f} s of training{rate}{when}",
            markup=False, highlight=False,
        )  # fmt: skip
    if not all(seed.reused for seed in trained.seeds):
        shared = f", {trained.side_by_side} side by side" if trained.side_by_side > 1 else ""
        console.print(
            f"{trained.device}, {trained.threads} thread(s) a seed{shared}",
            markup=False, highlight=False,
        )  # fmt: skip


def _values(trained: Trained, name: str) -> list[float]:
    return [seed.metrics[name] for seed in trained.seeds]


def _sd(values: list[float]) -> float:
    defined = len(values) > 1 and all(map(math.isfinite, values))
    return statistics.stdev(values) if defined else math.nan


def _text(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "–"


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _rate(trained: Trained) -> float | None:
    seconds = sum(seed.seconds for seed in trained.seeds)
    return sum(seed.rows for seed in trained.seeds) / seconds if seconds else None
