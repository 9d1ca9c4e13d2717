"""Trials on a model small enough to be measured in a second, run in this process."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

from baselines.data.sources import cache_dir
from bench.protocol import Protocol
from bench.records import ROW, AnyRow, EndRow, EventRow
from bench.worker import TrialSpec, run_trial

FRAUDS = Path(__file__).with_name("frauds.py")
DCNV2 = 'dcnv2(dataset="planted(rows=2000, ids=300)", width=32, depth=1, cross_layers=1)'
QUICK = Protocol(
    pairs=4,
    block_seconds=0.01,
    window_seconds=0.01,
    distinct_batches=8,
    warmup_cap_seconds=0.2,
    bootstraps=50,
)


def spec(
    stack: str = "control",
    *scenarios: str,
    mode: str = "measure",
    baseline: str = DCNV2,
    process: int = 0,
    protocol: Protocol = QUICK,
    **more: Any,
) -> TrialSpec:
    """The spec of a small trial, with the frauds as its plug-in."""
    return TrialSpec.model_validate(
        {
            "id": f"small-{stack}-{mode}-{process}",
            "mode": mode,
            "baseline": "small",
            "stack": stack,
            "baseline_spec": baseline,
            "stack_spec": stack,
            "device": "cpu",
            "scenarios": scenarios,
            "process": process,
            "protocol": protocol,
            "store": cache_dir() / "small-trials",
            "plugins": (FRAUDS,),
            "spawned": time.time(),
            **more,
        }
    )


def run(*arguments: Any, **more: Any) -> list[AnyRow]:
    """The rows of a small trial; arguments are those of `spec`."""
    records = io.StringIO()
    run_trial(spec(*arguments, **more), records)
    return [ROW.validate_json(line) for line in records.getvalue().splitlines()]


def end_of(rows: list[AnyRow]) -> EndRow:
    """The end row, which must be the last and the only one."""
    (end,) = [row for row in rows if isinstance(row, EndRow)]
    assert rows[-1] is end
    return end


def accusations(rows: list[AnyRow]) -> set[str]:
    """The names of the failures found in a trial that ended well."""
    assert end_of(rows).status == "ok", end_of(rows).cause
    return {row.name for row in rows if isinstance(row, EventRow) and row.severity == "failure"}
