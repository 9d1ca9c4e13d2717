"""Starts a worker process for one trial, waits for it, and reads what it says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from baselines.errors import LeanRecError
from bench.barriers import WORKER_VARIABLES
from bench.records import ROW, AnyRow, EndRow, Status, Trial, TrialRow, json_lines
from bench.worker import TrialSpec


def run_worker(spec: TrialSpec, limit: float, log: Path) -> Trial:
    """Run one trial in a process of its own and read what it says.

    A crash, a timeout or a killed process gives a trial with that end and the rows that came.
    This process sleeps while the worker is timed. Raises LeanRecError where `log` is not writable.
    """
    with _opened(log) as stderr:
        worker = subprocess.Popen(
            [sys.executable, "-P", "-m", "bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, **WORKER_VARIABLES},
            text=True,
            encoding="utf-8",
            errors="replace",  # a killed worker may leave half a character
            start_new_session=True,
        )
        timer = threading.Timer(limit, _kill, [worker])
        timer.start()
        try:
            output, _ = worker.communicate(spec.model_dump_json())
        finally:
            timed_out = not timer.is_alive()
            timer.cancel()
            _kill(worker)
    wall = time.time() - spec.spawned
    head, rows, end = head_of(spec), [], None
    for row in _parse(output):
        match row:
            case TrialRow():
                head = row
            case EndRow():
                end = row
            case _:
                rows.append(row)
    if end is None:
        status, cause = _cause(worker.returncode, timed_out, limit, log)
        end = EndRow(status=status, cause=cause, wall=wall)
    return Trial(head=head, rows=tuple(rows), end=end)


def head_of(spec: TrialSpec) -> TrialRow:
    """The head row of a trial whose worker gave none."""
    return TrialRow(
        id=spec.id, baseline=spec.baseline, stack=spec.stack, device=spec.device, mode=spec.mode,
        scenarios=spec.names, process=spec.process, seed=spec.process,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip


def _opened(log: Path) -> IO[str]:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return open(log, "w", encoding="utf-8")
    except OSError as error:
        raise LeanRecError(
            f"{log} cannot be written: {error.strerror or error}.",
            "What was recorded before is intact.",
            "Free space or choose another --out folder, then go on with --resume.",
        ) from error


def _parse(output: str) -> Iterator[AnyRow]:
    for line in json_lines(output):
        try:
            yield ROW.validate_json(line)
        except ValidationError:
            return  # the line during which the worker was killed


def _cause(code: int, timed_out: bool, limit: float, log: Path) -> tuple[Status, str]:
    if timed_out:
        return "timeout", f"did not end within {limit:.0f} s"
    if code == -signal.SIGKILL:
        return "crash", "killed by signal 9, as the kernel does when memory runs out"
    if code < 0:
        return "crash", f"killed by signal {-code} ({signal.Signals(-code).name})"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return "crash", f"exited with {code}: {lines[-1] if lines else 'it said nothing'}"


def _kill(worker: subprocess.Popen[str]) -> None:
    """End a worker and whatever it started."""
    try:
        os.killpg(worker.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
