"""A run of thousands of cells, written through the same functions as a measured one.

``python tests/dashboard/large_run.py FOLDER`` writes 5,000 cells × 20 metrics, to look at.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.protocol import Protocol
from bench.records import (
    ARMS,
    CONTROL,
    BlockRow,
    Cell,
    EndRow,
    Metric,
    QualityRow,
    Trial,
    TrialRow,
    ValueRow,
    dump_json,
    write_trial,
)
from bench.run import Plan, PlannedCell, Summary, write_json

HEADLINES = {
    "offline": Metric(
        name="throughput", unit="samples/s", direction="higher", scale="ratio", estimator="a window"
    ),
    "single-stream": Metric(
        name="latency", unit="s", direction="lower", scale="ratio", estimator="median of a block"
    ),
    "train": Metric(
        name="throughput", unit="samples/s", direction="higher", scale="ratio", estimator="a window"
    ),
    "refresh": Metric(
        name="staleness", unit="s", direction="lower", scale="ratio", estimator="mean"
    ),
}
SCENARIOS = ("quality", *HEADLINES)
BATCHES = (1, 64, 512, 4096)
BLOCKS, RESAMPLES = 2, 20  # pairs a process; of the bootstrap


def write_large_run(
    folder: Path, baselines: int = 10, stacks: int = 100, metrics: int = 20, processes: int = 2
) -> Path:
    """baselines × stacks × 5 scenarios cells of `metrics` metrics each."""
    names = [CONTROL, *(f"technique-{n:03}" for n in range(1, stacks))]
    cells = tuple(
        PlannedCell(cell=Cell(baseline=f"baseline-{b}", stack=s, scenario=scenario, device="cpu"))
        for b in range(baselines)
        for s in names
        for scenario in SCENARIOS
    )
    protocol = Protocol(looks=(processes,), bootstraps=50)
    write_json(folder / "plan.json", Plan(suite="large", protocol=protocol, cells=cells))
    (folder / "environment.json").write_text(dump_json({"host": "none"}), encoding="utf-8")
    rng = np.random.default_rng(0)
    for baseline in range(baselines):
        for stack, name in enumerate(names):
            for process in range(processes):
                head = TrialRow(
                    id=f"{baseline}-{stack:03}-{process}",
                    baseline=f"baseline-{baseline}", stack=name, device="cpu", mode="measure",
                    scenarios=SCENARIOS, process=process, seed=process,
                    started="2026-01-01T00:00:00+00:00",
                )  # fmt: skip
                rows = _rows(1 + stack / 50 if stack else 1.0, metrics, rng)
                end = EndRow(status="ok", wall=1.0, phases={"blocks": 1.0})
                write_trial(folder / "records", Trial(head=head, rows=tuple(rows), end=end))
    write_json(folder / "summary.json", Summary(wall=2.0, work=1.0, finished=True))
    return folder


def _rows(speed: float, metrics: int, rng: np.random.Generator) -> list[Any]:
    rows: list[Any] = []
    for number in range(metrics):
        quality = Metric(
            name="auc", unit="", direction="higher", scale="difference", estimator="test set"
        )
        loss = float(rng.normal(0, 1e-4))
        rows.append(
            QualityRow(
                scenario="quality", metric=quality, control=0.78, treatment=0.78 + loss,
                segment=f"popularity={number - 1}" if number else "",
                replicates=tuple(loss + rng.normal(0, 1e-3, RESAMPLES)),
                units=9000, protocol="synthetic", primary=not number,
            )
        )  # fmt: skip
    for scenario, metric in HEADLINES.items():
        for batch in BATCHES:
            rows += _blocks(scenario, metric, batch, speed, rng)
        for number in range(metrics - len(BATCHES)):
            bytes_ = Metric(
                name="model_bytes" if not number else f"bytes_of_part_{number}",
                unit="B", direction="lower", scale="ratio", estimator="bytes",
            )  # fmt: skip
            rows += [
                ValueRow(scenario=scenario, metric=bytes_, arm=arm, value=1e6 + 1e4 * number * i)
                for i, arm in enumerate(ARMS)
            ]
    return rows


def _blocks(
    scenario: str, metric: Metric, batch: int, speed: float, rng: np.random.Generator
) -> list[BlockRow]:
    rows = []
    for pair in range(BLOCKS):
        for position, arm in enumerate(ARMS):
            faster = (speed if arm == "treatment" else 1.0) * float(np.exp(rng.normal(0, 0.003)))
            rows.append(
                BlockRow(
                    scenario=scenario, metric=metric, point={"batch": batch}, pair=pair,
                    position=position, arm=arm, samples=20 * batch, durations_ns=(), dropped=2,
                    outliers=0, value=faster if metric.direction == "higher" else 1e-3 / faster,
                )
            )  # fmt: skip
    return rows


if __name__ == "__main__":
    write_large_run(Path(sys.argv[1]))
