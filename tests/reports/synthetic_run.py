"""A run folder with known truths, written through the same functions as a measured one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.protocol import Protocol
from bench.records import (
    CONTROL,
    BlockRow,
    Cell,
    EndRow,
    EventRow,
    Metric,
    QualityRow,
    Trial,
    TrialRow,
    ValueRow,
    dump_json,
    write_trial,
)
from bench.run import Plan, PlannedCell, Summary, write_json

LATENCY = Metric(
    name="latency", unit="s", direction="lower", scale="ratio", estimator="median of a block"
)
THROUGHPUT = Metric(
    name="throughput", unit="samples/s", direction="higher", scale="ratio", estimator="a window"
)
MODEL_BYTES = Metric(
    name="model_bytes", unit="B", direction="lower", scale="ratio", estimator="bytes served"
)
PREPARATION = Metric(
    name="preparation", unit="s", direction="lower", scale="difference", estimator="a process"
)
AUC = Metric(name="auc", unit="", direction="higher", scale="difference", estimator="test set")
PROTOCOL = "ML-100K, random 8:1:1, rating ≥ 4 is a click"
BATCHES = {"single-stream": (1, 512), "offline": (4096,)}
SCENARIOS = ("quality", "offline", "single-stream")


@dataclass
class Truth:
    """What a stack does: speed-up by batch, times smaller, quality, seconds to prepare."""

    speed: dict[int, float] = field(default_factory=dict)
    size: float = 1.0
    quality: float = 0.0
    preparation: float = 0.0
    events: tuple[EventRow, ...] = ()
    end: EndRow = field(default_factory=lambda: EndRow(status="ok", wall=3.0, phases={"load": 2.5}))


TRUTHS = {
    CONTROL: Truth(),
    "int8-linear": Truth({1: 0.62, 512: 3.4, 4096: 3.1}, 1.31, -0.0002, 0.4),
    "int8-embedding": Truth({1: 1.0, 512: 1.002, 4096: 1.0}, 2.2, -0.0001, 0.1),
    "int8-linear+int8-embedding": Truth({1: 0.6, 512: 3.3, 4096: 3.0}, 3.5, -0.0004, 0.5),
    "bf16": Truth({1: 0.7, 512: 2.9, 4096: 3.3}, 1.0, -0.0003),
    "prune-structured": Truth({1: 1.1, 512: 1.7, 4096: 1.8}, 1.6, -0.021, 1.5),
    "prune-unstructured": Truth({1: 1.0, 512: 1.0, 4096: 1.0}, 1.0, -0.0005, 0.2),
    "compile": Truth({1: 1.4, 512: 1.05, 4096: 1.1}, 1.0, 0.0, 12.0),
}
CERTIFICATE: dict[str, Any] = {
    "measured": "2025-01-01T00:00:00+00:00",
    "noise_floor": {"latency": 0.013, "throughput": 0.009},
    "false_alarms": {"rate": 0.005, "low": 0.0, "high": 0.03, "n": 200},
    "coverage": {"rate": 0.96, "low": 0.92, "high": 0.98, "n": 200},
    "power": [{"injected": 0.05, "found": {"rate": 0.9, "low": 0.8, "high": 0.96, "n": 60}}],
    "rules": [
        {
            "rule": "t-test on raw timings",
            "injected": 0.0,
            "different": {"rate": 0.42, "low": 0.35, "high": 0.49, "n": 200},
        }
    ],
    "budget": "5 processes of 4 block pairs",
}
ENVIRONMENT: dict[str, Any] = {
    "host": "a1b2c3",
    "machine": {"cpu": "A Processor With 2 Cores", "cores": 2, "cpu_flags": ["avx512f", "vnni"]},
    "software": {"python": "3.12.1", "torch": "2.13.0"},
    "settings": {"threads": 1, "variables": {"OMP_NUM_THREADS": "1"}},
    "device": {"kind": "cpu"},
    "notes": ["the load of the host was 1.2"],
    "certificate": CERTIFICATE,
}


def write_run(
    folder: Path,
    truths: dict[str, Truth] | None = None,
    baselines: Sequence[str] = ("dcnv2", "two-tower"),
    *,
    processes: int = 5,
    finished: bool = True,
    environment: dict[str, Any] | None = None,
    more: Mapping[str, Callable[[TrialRow], list[Any]]] = {},
    specs: Mapping[str, str] = {},
) -> Path:
    """Write a whole run folder; a process and stack is one record file.

    more: further scenarios, each with what a trial saw of it. specs: of the baselines.
    """
    truths = TRUTHS if truths is None else truths
    cells = [
        PlannedCell(cell=Cell(baseline=b, stack=s, scenario=scenario, device="cpu"))
        for b in baselines
        for s in truths
        for scenario in (*SCENARIOS, *more)
    ]
    skipped = Cell(baseline=baselines[0], stack="lora", scenario="offline", device="cpu")
    cells.append(PlannedCell(cell=skipped, skip="is made for sequence, not for ctr"))
    protocol = Protocol(looks=(5,), bootstraps=50)
    plan = Plan(suite="synthetic", protocol=protocol, cells=tuple(cells), baselines=dict(specs))
    write_json(folder / "plan.json", plan)
    found = ENVIRONMENT if environment is None else environment
    (folder / "environment.json").write_text(dump_json(found), encoding="utf-8")
    if finished:
        write_json(folder / "summary.json", Summary(wall=330.0, work=300.0, finished=True))
    (folder / "records").mkdir(exist_ok=True)
    rng = np.random.default_rng(7)
    for number, (baseline, stack) in enumerate((b, s) for b in baselines for s in truths):
        for process in range(processes):
            head = TrialRow(
                id=f"{number:03}-{process}",
                baseline=baseline,
                stack=stack,
                device="cpu",
                mode="measure",
                scenarios=(*SCENARIOS, *more),
                process=process,
                seed=process,
                started="2025-01-01T00:00:00+00:00",
            )
            trial = _trial(head, truths[stack], rng)
            seen = [row for rows in more.values() for row in rows(head)]
            write_trial(folder / "records", trial.model_copy(update={"rows": (*trial.rows, *seen)}))
    return folder


def _trial(head: TrialRow, truth: Truth, rng: np.random.Generator) -> Trial:
    rows: list[Any] = list(truth.events)
    for scenario, batches in BATCHES.items():
        for batch in batches:
            rows += _blocks(scenario, batch, truth.speed.get(batch, 1.0), rng)
    for arm, size, seconds in (
        ("control", 1.0, 0.3),
        ("treatment", truth.size, 0.3 + truth.preparation),
    ):
        rows.append(_value("offline", MODEL_BYTES, arm, round(5_242_880 / size)))
        noise = float(rng.normal(0, 0.003))
        rows.append(_value("single-stream", PREPARATION, arm, seconds + noise))
    rows += _quality(truth, head.process, rng)
    return Trial(head=head, rows=tuple(rows), end=truth.end)


def _value(scenario: str, metric: Metric, arm: Any, value: float) -> ValueRow:
    return ValueRow(scenario=scenario, metric=metric, arm=arm, value=value)


def _blocks(scenario: str, batch: int, speed: float, rng: np.random.Generator) -> list[BlockRow]:
    latency = scenario == "single-stream"
    rows = []
    for pair in range(4):
        for position in (0, 1):
            arm = "treatment" if (pair + position) % 2 else "control"
            seconds = 1e-4 * batch**0.7 * float(np.exp(rng.normal(0, 0.003)))
            seconds /= speed if arm == "treatment" else 1.0
            rows.append(
                BlockRow(
                    scenario=scenario,
                    metric=LATENCY if latency else THROUGHPUT,
                    point={"batch": batch},
                    pair=pair,
                    position=position,
                    arm=arm,
                    value=seconds if latency else batch / seconds,
                    samples=40 * batch,
                    durations_ns=(round(seconds * 1e9),) * 40 if latency else (),
                    dropped=4,
                    outliers=0,
                )
            )
    return rows


def _quality(truth: Truth, process: int, rng: np.random.Generator) -> list[QualityRow]:
    rows = []
    for segment in ("", *(f"popularity={n}" for n in range(10)), "activity=0", "activity=1"):
        control = 0.7810 + 0.0008 * process - 0.02 * (segment == "popularity=0")
        loss = truth.quality * (3 if segment == "popularity=0" else 1)
        spread = 0.0002 if not segment else 0.001
        rows.append(
            QualityRow(
                scenario="quality",
                metric=AUC,
                segment=segment,
                control=control,
                treatment=control + loss,
                replicates=tuple(loss + rng.normal(0, spread, 50)),
                units=9000,
                protocol=PROTOCOL,
                primary=not segment,
            )
        )
    return rows
