"""The `cold-start` load: a process that is started anew, until its first right answer."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field, ValidationError
from torch import Tensor

from baselines.checkpoint import save
from baselines.registry import format_spec
from bench.barriers import WORKER_VARIABLES
from bench.checks import PROBE_ROWS, answers, differs
from bench.cold_start import StartRow, StartSpec
from bench.comparison import Comparison
from bench.pipeline import Pipeline, stack_spec
from bench.records import ARMS, Arm, EventRow, Metric, ValueRow
from bench.scenarios.base import SERVING_STAGES, Scenario, ScenarioRow, scenario

LIMIT = 120.0  # seconds after which a start is given up


def _seconds(name: str, estimator: str) -> Metric:
    return Metric(name=name, unit="s", direction="lower", scale="ratio", estimator=estimator)


TOTAL = _seconds("time_to_first_answer", "process start to first answer")
PARTS = {
    "imported": _seconds("import_time", "process start to everything imported"),
    "loaded": _seconds("load_time", "reading data and weights"),
    "prepared": _seconds("prepare_time", "compress and deploy"),
    "answered": _seconds("first_call", "first call of the predictor"),
}


class _StartFailed(Exception):  # noqa: N818 - a result, not an error
    """A started process gave no answer; the name of the event and what there is to say."""


@scenario("cold-start")
@dataclass(frozen=True)
class ColdStart(Scenario):
    """A fresh process imports, loads the trained model, applies the stack, and answers a request.

    time_to_first_answer is the whole, from the start of the process; its parts stand beside it.
    The first call holds what a technique leaves for it, as compilation by torch.compile. A stack
    is applied at every start: what would be saved by storing what it made is not. Files are in
    the system's cache, and caches that compilers keep on disk are filled: it is a restart, not
    the first start of a host. The answers must be those of this process's own predictor.

    batch_size: rows of the first request. repeats: pairs of starts in a process, as many with the
    control first as with the treatment first where even.
    """

    stages: ClassVar[frozenset[str]] = SERVING_STAGES

    batch_size: Annotated[int, Field(ge=1)] = 1
    repeats: Annotated[int, Field(ge=1)] = 2
    threads: Annotated[int, Field(ge=1)] = 1

    @property
    def largest_batch(self) -> int:
        """The first request's."""
        return self.batch_size

    def measure(self, comparison: Comparison) -> Iterator[ScenarioRow]:
        """Start both arms in turn. One that gives no right answer is not started again."""
        torch.set_num_threads(self.threads)
        pipelines = comparison.control, comparison.treatment
        first, probe = comparison.requests(self.batch_size, 1), comparison.requests(PROBE_ROWS, 1)
        with comparison.phases("checks"):
            expected = [
                torch.cat(answers(call, [*first, *probe], comparison.device)[0])
                for call in comparison.served
            ]
        order = int(comparison.rng.integers(2))
        with tempfile.TemporaryDirectory(prefix="leanrec-start-") as name:
            folder = Path(name)
            save([tuple(t.cpu() for t in b) for b in (*first, *probe)], folder / "requests.pt")
            for repeat in range(self.repeats):
                for position in (0, 1):
                    i = (order + repeat + position) % 2
                    try:
                        with comparison.phases("blocks"):
                            row, given = self._start(pipelines[i], comparison, folder)
                    except _StartFailed as failure:
                        event, detail = failure.args
                        yield self._failure(event, f"{ARMS[i]} {detail}")
                        return
                    if differs(expected[i], given):
                        yield self._failure(
                            "output_mismatch",
                            f"{ARMS[i]}, started anew, answers otherwise than the same stack "
                            "in the process that was measured",
                        )
                        return
                    yield from self._rows(row, ARMS[i])

    def _start(
        self, pipeline: Pipeline, comparison: Comparison, folder: Path
    ) -> tuple[StartRow, Tensor]:
        """Seconds of each part, and the answers to all requests. Raises _StartFailed."""
        command = [sys.executable, "-P", "-m", "bench.cold_start"]
        spec = StartSpec(
            baseline=format_spec(pipeline.baseline),
            stack=stack_spec(pipeline.stack),
            device=pipeline.device.name,
            seed=pipeline.seed,
            store=pipeline.store.root,
            plugins=comparison.plugins,
            threads=self.threads,
            requests=folder / "requests.pt",
            answers=folder / "answers.pt",
            spawned=time.monotonic_ns(),
        )
        try:
            done = subprocess.run(
                command,
                input=spec.model_dump_json(),
                capture_output=True,
                env={**os.environ, **WORKER_VARIABLES},
                text=True,
                errors="replace",
                timeout=LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _StartFailed("start_timeout", f"gave no answer within {LIMIT:.0f} s") from None
        if done.returncode:
            said = done.stderr.strip().splitlines()
            how = f"signal {-done.returncode}" if done.returncode < 0 else str(done.returncode)
            raise _StartFailed(
                "start_crashed",
                f"ended with {how} before it had answered: {said[-1] if said else 'no word'}",
            )
        try:
            row = StartRow.model_validate_json(done.stdout)
        except ValidationError:
            raise _StartFailed("start_crashed", "said nothing of its start") from None
        given: list[Tensor] = torch.load(spec.answers, weights_only=True)
        spec.answers.unlink()
        return row, torch.cat(given)

    def _rows(self, row: StartRow, arm: Arm) -> Iterator[ValueRow]:
        parts = {part: getattr(row, part) for part in PARTS}
        total = sum(parts.values())
        yield ValueRow(scenario=self.name, metric=TOTAL, arm=arm, value=total)
        for part, metric in PARTS.items():
            yield ValueRow(scenario=self.name, metric=metric, arm=arm, value=parts[part])

    def _failure(self, name: str, detail: str) -> EventRow:
        return EventRow(scenario=self.name, name=name, severity="failure", detail=detail)
