"""A baseline trained for several seeds, each in a process of its own: `leanrec train`.

The children write JSON lines on stdout: an epoch as it ends, then the seed's result or its error.
The weights are the artefacts that every run shares.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Literal

import torch
from pydantic import TypeAdapter

from baselines.base import BASELINES, QualityMetric, Split, Task
from baselines.errors import LeanRecError
from baselines.metrics import GroupGap
from baselines.registry import format_spec, load_plugin
from baselines.trainer import Epoch, NonFiniteLoss
from bench.allocator import keep_freed_memory
from bench.barriers import WORKER_VARIABLES
from bench.device import get_device
from bench.orphan import die_with_parent
from bench.pipeline import Pipeline
from bench.records import CONTROL, Row
from bench.scenarios.base import all_threads
from bench.store import Store


class SeedSpec(Row):
    """What a child is to train."""

    baseline: str
    seed: int
    device: str
    threads: int
    store: Path
    plugins: tuple[Path, ...] = ()


class EpochRow(Row):
    """An epoch that ended. rows_a_second: trained, validation left out; 0 where none were."""

    kind: Literal["epoch"] = "epoch"
    seed: int
    epoch: int
    train_loss: float
    valid: float
    rows_a_second: float


class SeedRow(Row):
    """A seed as it ended. metrics: name → value on the test split. seconds: of training alone, over
    all epochs, in which `rows` rows were trained. wall: of the process, 0 where an artefact that
    was there already was `reused`."""

    kind: Literal["seed"] = "seed"
    seed: int
    metrics: dict[str, float]
    epochs: int
    best_epoch: int
    rows: int
    seconds: float
    wall: float
    reused: bool


class ErrorRow(Row):
    """What went wrong."""

    kind: Literal["error"] = "error"
    cause: str
    consequence: str = ""
    fix: str = ""


class Trained(Row):
    """A baseline over its seeds. best: the best value attainable on the test split, where known."""

    baseline: str
    data: str
    protocol: str
    device: str
    threads: int
    side_by_side: int
    directions: dict[str, Literal["higher", "lower"]]
    best: dict[str, float]
    seeds: tuple[SeedRow, ...]


_LINE: TypeAdapter[EpochRow | SeedRow | ErrorRow] = TypeAdapter(EpochRow | SeedRow | ErrorRow)


def judged_by(task: Task, test: Split) -> tuple[QualityMetric, ...]:
    """The task's metrics, and how unequally the first one falls on the groups of each segment."""
    gaps = (GroupGap(task.metrics[0], segment) for segment in test.segments)
    return (*task.metrics, *gaps)


def side_by_side(seeds: int, device: str) -> int:
    """How many seeds to train at a time: on the CPU one for each processor, since a training does
    not get faster in proportion to its threads; on another device one."""
    return min(seeds, all_threads()) if device == "cpu" else 1


def train_seeds(
    baseline: str,
    seeds: Iterable[int],
    device: str,
    store: Store,
    plugins: tuple[Path, ...] = (),
    tell: Callable[[EpochRow | SeedRow], None] = lambda row: None,
) -> Trained:
    """Train `baseline` for the seeds, `side_by_side` at a time with the processors divided among
    them, and judge each on the test split. `tell` hears each epoch and each seed as it ends.

    A seed whose artefact is in the store is not trained again; one that was killed goes on from its
    last checkpoint. Raises LeanRecError where the spec is wrong, the data can't be had or a seed
    fails, with the other seeds ended.
    """
    made, numbers = BASELINES.make(baseline), list(seeds)
    pipeline = Pipeline(made, (), get_device(device), numbers[0], store)
    data = pipeline.data  # once for all seeds, and wrong data is said before any is started
    at_a_time = side_by_side(len(numbers), device)
    threads = max(1, all_threads() // at_a_time)
    specs = [
        SeedSpec(
            baseline=format_spec(made), seed=seed, device=device, threads=threads,
            store=store.root, plugins=plugins,
        )
        for seed in numbers
    ]  # fmt: skip
    running: list[subprocess.Popen[str]] = []
    with ThreadPoolExecutor(at_a_time) as pool:
        try:
            futures = [pool.submit(_child, spec, running, tell) for spec in specs]
            while wait(futures, 0.2, FIRST_EXCEPTION).not_done:  # woken so that Ctrl-C is heard
                _raise_first(futures)
            seen = [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in running:
                _kill(child)
            raise
    return Trained(
        baseline=format_spec(made),
        data=data.name,
        protocol=f"{data.protocol} [split {pipeline.data_digest}]",
        device=device,
        threads=threads,
        side_by_side=at_a_time,
        directions={m.name: m.direction for m in judged_by(made.task, data.test)},
        best=dict(data.best),
        seeds=tuple(seen),
    )


def _raise_first(futures: list[Future[SeedRow]]) -> None:
    for future in futures:
        if future.done():
            future.result()


def _child(
    spec: SeedSpec,
    running: list[subprocess.Popen[str]],
    tell: Callable[[EpochRow | SeedRow], None],
) -> SeedRow:
    """Run one child to its end."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "bench.training"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            env={**os.environ, **WORKER_VARIABLES},
            text=True, encoding="utf-8", start_new_session=True,
        )  # fmt: skip
        running.append(child)
        assert child.stdin is not None
        assert child.stdout is not None
        with child.stdout:
            try:
                child.stdin.write(spec.model_dump_json())
                child.stdin.close()
            except BrokenPipeError:
                pass  # it ended before; why, is said below
            for line in child.stdout:
                row = _LINE.validate_json(line)
                if isinstance(row, ErrorRow):
                    raise LeanRecError(row.cause, row.consequence, row.fix)
                tell(row)
                if isinstance(row, SeedRow):
                    child.wait()
                    return row
        code = child.wait()
        log.seek(0)
        said = log.read().strip().splitlines()
    how = f"killed by signal {-code}" if code < 0 else f"exited with {code}"
    raise LeanRecError(
        f"The training of {spec.baseline} with seed {spec.seed} ended early: {how}"
        f"{': ' + said[-1] if said else ''}.",
        "Its finished epochs are kept.",
        "Run the same command to go on from them.",
    )


def _kill(child: subprocess.Popen[str]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)


def main() -> None:
    """Train the seed whose spec is on stdin."""
    begun = time.perf_counter()
    die_with_parent()
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print goes to stderr
    spec = SeedSpec.model_validate_json(sys.stdin.read())

    def emit(row: Row) -> None:
        lines.write(row.model_dump_json() + "\n")
        lines.flush()

    try:
        emit(_train(spec, emit, begun))
    except LeanRecError as error:
        emit(ErrorRow(cause=error.cause, consequence=error.consequence, fix=error.fix))
    except NonFiniteLoss as error:
        cause = f"{spec.baseline} diverged with seed {spec.seed}: {error}"
        emit(ErrorRow(cause=cause, consequence="It has no weights.", fix="Lower its rate."))


def _train(spec: SeedSpec, emit: Callable[[Row], None], begun: float) -> SeedRow:
    for path in spec.plugins:
        load_plugin(path)
    torch.set_num_threads(spec.threads)
    keep_freed_memory()
    pipeline = Pipeline.from_specs(
        spec.baseline, CONTROL, get_device(spec.device), spec.seed, Store(spec.store)
    )
    rows = len(pipeline.data.train)

    def note(epoch: Epoch) -> None:
        rate = rows / epoch.seconds if epoch.seconds else 0.0
        emit(
            EpochRow(
                seed=spec.seed, epoch=max(1, epoch.samples_seen // rows),
                train_loss=epoch.train_loss, valid=epoch.valid, rows_a_second=rate,
            )
        )  # fmt: skip

    _, made = pipeline.train(note)
    history, task, data = pipeline.history(), pipeline.baseline.task, pipeline.data
    with torch.inference_mode():
        predictor = pipeline.predictor(pipeline.trained_model())
        scored = task.score(predictor, data, data.test, pipeline.device.torch_device)
    return SeedRow(
        seed=spec.seed,
        metrics={metric.name: metric(scored) for metric in judged_by(task, data.test)},
        epochs=len(history.epochs),
        best_epoch=history.best + 1,
        rows=history.epochs[-1].samples_seen,
        seconds=sum(e.seconds for e in history.epochs),
        wall=time.perf_counter() - begun if made else 0.0,
        reused=not made,
    )


if __name__ == "__main__":
    main()
