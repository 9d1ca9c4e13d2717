"""A process that starts to serve: its spec on stdin as JSON, what each part took on stdout.

    echo SPEC | python -m bench.cold_start

It imports what serving needs, loads what was trained, applies the stack, and answers a request.
Its answers go to a file, for the process that started it to hold against its own.
"""

from __future__ import annotations

import os
import sys
import time
from itertools import pairwise
from pathlib import Path

import torch

from baselines.base import scores
from baselines.checkpoint import save
from baselines.registry import load_plugin
from bench.allocator import keep_freed_memory
from bench.device import get_device
from bench.orphan import die_with_parent
from bench.pipeline import Pipeline
from bench.records import Row
from bench.store import Store


class StartSpec(Row):
    """What to serve, and whom to answer.

    requests: a file with the batches to answer, the first of which is timed. answers: where the
    scores for them go, float32 on the CPU. spawned: ns of the system's monotonic clock when this
    process was started.
    """

    baseline: str
    stack: str
    device: str
    seed: int
    store: Path
    plugins: tuple[Path, ...]
    threads: int
    requests: Path
    answers: Path
    spawned: int


class StartRow(Row):
    """Seconds that each part of a start took, one after another."""

    imported: float
    loaded: float
    prepared: float
    answered: float


def main() -> None:
    """Start to serve what the spec on stdin says."""
    die_with_parent()
    said = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes to stderr
    spec = StartSpec.model_validate_json(sys.stdin.read())
    said.write(start(spec).model_dump_json())
    said.flush()


def start(spec: StartSpec) -> StartRow:
    """Serve, answer, and write the answers."""
    for path in spec.plugins:
        load_plugin(path)
    keep_freed_memory()
    torch.set_num_threads(spec.threads)
    device = get_device(spec.device)
    pipeline = Pipeline.from_specs(spec.baseline, spec.stack, device, spec.seed, Store(spec.store))
    moments = [spec.spawned, time.monotonic_ns()]
    model = pipeline.trained_model()
    first, *others = torch.load(spec.requests, weights_only=True)
    request = device.move(first)
    moments.append(time.monotonic_ns())
    predictor = pipeline.predictor(model)
    moments.append(time.monotonic_ns())
    with torch.inference_mode():
        answers = [scores(predictor(*request))]
        if device.synchronize is not None:
            device.synchronize()
        moments.append(time.monotonic_ns())
        answers += [scores(predictor(*device.move(batch))) for batch in others]
    save([answer.float().cpu() for answer in answers], spec.answers)
    parts = [(b - a) / 1e9 for a, b in pairwise(moments)]
    return StartRow(imported=parts[0], loaded=parts[1], prepared=parts[2], answered=parts[3])


if __name__ == "__main__":
    main()
