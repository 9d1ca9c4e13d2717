"""A worker process: one trial's spec on stdin as JSON, its rows on stdout as JSON lines.

    echo SPEC | python -m bench.worker

Whatever libraries print goes to stderr. The last row is always the end row, unless the process
was killed; then its parent writes one.
"""

from __future__ import annotations

import gc
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import numpy as np
import torch

from baselines.errors import LeanRecError
from baselines.registry import load_plugin, parse_spec
from baselines.trainer import NonFiniteLoss
from bench.allocator import keep_freed_memory
from bench.checks import verify_block
from bench.comparison import Comparison, Phases
from bench.device import get_device
from bench.known_truths import known_truths
from bench.memory import inference_memory, training_memory
from bench.meters.clock import TALLY
from bench.orphan import die_with_parent
from bench.pipeline import Pipeline
from bench.protocol import Protocol
from bench.records import Arm, BlockRow, EndRow, Mode, Row, Status, TrialRow
from bench.scenarios.base import SCENARIOS, Scenario, all_threads
from bench.store import Store


class TrialSpec(Row):
    """What a worker is to do. process is the replicate, and the seed of the trained model."""

    id: str
    mode: Mode
    baseline: str
    stack: str
    baseline_spec: str
    stack_spec: str
    device: str
    scenarios: tuple[str, ...]
    process: int
    protocol: Protocol
    store: Path
    plugins: tuple[Path, ...] = ()
    comparisons: tuple[tuple[int, int], ...] = ()  # certificate: number, percent injected
    spawned: float  # time.time() when the parent started this process

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the scenarios, without their parameters."""
        return tuple(parse_spec(text)[0] for text in self.scenarios)

    @property
    def arm(self) -> Arm:
        """Which arm a memory pass measures."""
        return "control" if self.stack == "control" else "treatment"


def main() -> None:
    """Run the trial whose spec is on stdin."""
    die_with_parent()
    records = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    spec = TrialSpec.model_validate_json(sys.stdin.read())
    run_trial(spec, records)


def run_trial(spec: TrialSpec, records: TextIO) -> None:
    """Measure, and write every row as it comes; the rows of a block only after the block."""
    begun = time.time()

    def emit(row: Row) -> None:
        records.write(row.model_dump_json() + "\n")

    emit(
        TrialRow(
            id=spec.id, baseline=spec.baseline, stack=spec.stack, device=spec.device,
            mode=spec.mode, scenarios=spec.names, process=spec.process, seed=spec.process,
            started=datetime.now(UTC).isoformat(timespec="seconds"), threads=all_threads(),
        )
    )  # fmt: skip

    def measure() -> None:
        for row in _rows(spec, phases):
            emit(row)

    phases = Phases()
    status, cause = _guarded(measure)
    phases.seconds["start"] = begun - spec.spawned
    emit(EndRow(status=status, cause=cause, phases=phases.seconds, wall=time.time() - spec.spawned))
    records.flush()


def _rows(spec: TrialSpec, phases: Phases) -> Iterator[Row]:
    for path in spec.plugins:
        load_plugin(path)
    if spec.mode != "memory":
        keep_freed_memory()
    device = get_device(spec.device)
    pipeline = Pipeline.from_specs(
        spec.baseline_spec, spec.stack_spec, device, spec.process, Store(spec.store)
    )
    scenarios = [SCENARIOS.make(text) for text in spec.scenarios]
    rng = np.random.default_rng([spec.process, *spec.id.encode()])
    if spec.mode == "train":
        torch.set_num_threads(all_threads())
        with phases("training"):
            pipeline.make_ahead()
    elif spec.mode == "memory":
        torch.set_num_threads(1)
        with phases("memory"):
            yield from _memory(scenarios, pipeline, spec.arm, rng)
    elif spec.mode == "certificate":
        torch.set_num_threads(1)
        gc.freeze()
        yield from known_truths(pipeline, spec.comparisons, spec.protocol, rng)
    else:
        torch.set_num_threads(1)
        comparison = Comparison(
            pipeline.control(), pipeline, spec.protocol, rng, phases, plugins=spec.plugins
        )
        yield from _measure(scenarios, comparison)


def _measure(scenarios: list[Scenario], comparison: Comparison) -> Iterator[Row]:
    served = [s.name for s in scenarios if "deploy" in s.stages]
    if served:
        yield from comparison.build()
    gc.freeze()  # what lives by now lives to the end: the collection before a block may skip it
    for scenario in scenarios:
        TALLY.take()
        for row in scenario.measure(comparison):
            if isinstance(row, BlockRow):
                yield from verify_block(row, TALLY.take())
            yield row
    if served:
        yield from comparison.verify_unmutated()
        yield from comparison.preparation_rows(served[0])


def _memory(
    scenarios: list[Scenario], pipeline: Pipeline, arm: Arm, rng: np.random.Generator
) -> Iterator[Row]:
    for scenario in scenarios:
        if "deploy" in scenario.stages:
            size = scenario.largest_batch
            yield from inference_memory(pipeline, arm, scenario.name, size, rng)
        elif not scenario.parallel:  # whose ranks are processes of their own
            yield from training_memory(pipeline, arm, scenario.name)


def _guarded(work: Callable[[], None]) -> tuple[Status, str]:
    """Run `work`; how it ended, and why in one line."""
    try:
        work()
    except LeanRecError as error:
        return "error", str(error)
    except NonFiniteLoss as error:
        return "non_finite", str(error)
    except MemoryError as error:
        return "out_of_memory", str(error) or "the process could not get memory"
    except Exception as error:
        line = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
            return "out_of_memory", line
        traceback.print_exc()
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return "error", f"{line} ({Path(frame.filename).name}, line {frame.lineno})"
    return "ok", ""


if __name__ == "__main__":
    main()
