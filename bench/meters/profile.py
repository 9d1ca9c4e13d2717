"""A profiling pass by torch.profiler: never a timed one, for the profiler slows what it watches.

Both arms are traced in one session, by turns of a few requests, so that what disturbs the host
meets both; the session's trace is then parted. Requests in which the system gave the processor to
others are left out, where enough remain. Each arm becomes one run of TensorBoard's profiler
plug-in (torch-tb-profiler): a folder with one ``*.pt.trace.json`` in Chrome's format, which
Perfetto opens as well.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, record_function, schedule

from baselines.base import Batch
from baselines.errors import LeanRecError
from bench.device import Device
from bench.profiles.parts import FETCH, REQUEST
from bench.profiles.record import ENOUGH
from bench.records import write_atomically

TURNS = 6  # of each arm
TURN = 5  # traced requests in a turn
UNTRACED = 2  # at the head of a turn, after the other arm's
TRACED_REQUESTS = TURNS * TURN
REQUESTS = TURNS * (UNTRACED + TURN) + UNTRACED  # those that an arm is asked in all
_CHEAP_CALLS = 2000
_STEP = re.compile(r"ProfilerStep#\d+")

Work = tuple[Callable[..., Any], Iterable[Batch]]


@dataclass(frozen=True)
class Traced:
    """An arm's trace, as a file and read. interrupted: in so many of the TRACED_REQUESTS the system
    took the processor away; None where it does not tell."""

    path: Path
    content: dict[str, Any]
    interrupted: int | None


def trace(work: Mapping[str, Work], out: Path, device: Device) -> dict[str, Traced]:
    """Trace each arm's call over its batches, cycled; write ``out/<arm>/….pt.trace.json``.

    Raises LeanRecError where `out` cannot be written.
    """
    asked = {arm: (call, itertools.cycle(batches)) for arm, (call, batches) in work.items()}
    turns = [arm for n in range(TURNS) for arm in (asked if n % 2 == 0 else reversed(asked))]
    owners: list[str | None] = []  # of every step of the profiler
    calm: list[bool] = []  # whether it was not interrupted
    for call, batches in asked.values():
        for _ in range(UNTRACED):
            _ask(call, batches, device)
    with _profiler(device, len(turns) * (UNTRACED + TURN)) as profiler:
        profiler.step()
        for arm in turns:
            for n in range(UNTRACED + TURN):
                before = _interruptions()
                with record_function(REQUEST if n >= UNTRACED else "leanrec: untraced"):
                    _ask(*asked[arm], device)
                owners.append(arm if n >= UNTRACED else None)
                calm.append(_interruptions() == before)
                profiler.step()
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(whole))
        content = json.loads(whole.read_text(encoding="utf-8"))
    left = Counter(owner for owner, quiet in zip(owners, calm, strict=True) if quiet)
    for i, owner in enumerate(owners):
        if not calm[i] and left[owner] >= ENOUGH:
            owners[i] = None
    found = {}
    for arm in work:
        own = part(content, owners, arm)
        count = TRACED_REQUESTS - left[arm] if hasattr(resource, "RUSAGE_THREAD") else None
        found[arm] = Traced(_write(arm, own, out), own, count)
    return found


def part(content: dict[str, Any], owners: list[str | None], arm: str) -> dict[str, Any]:
    """The trace with only the steps that `arm` owns, in the order of their times, and without the
    host's name: traces get shared."""
    events = content["traceEvents"]
    steps = sorted(
        (e for e in events if e.get("ph") == "X" and _is_step(e)), key=lambda e: float(e["ts"])
    )
    spans = [
        (e["ts"], e["ts"] + e["dur"])
        for e, owner in zip(steps, owners, strict=False)  # after the last, one more step begins
        if owner == arm
    ]

    def stays(event: dict[str, Any]) -> bool:
        if "ts" not in event or event.get("cat") == "Trace" or event.get("ph") == "M":
            return True
        return any(start <= event["ts"] < end for start, end in spans)

    return {**content, "host_name": "", "traceName": "", "traceEvents": list(filter(stays, events))}


def cost_of_an_operator(device: Device) -> float:
    """What the profiler adds to a call of an operator, in µs, by a tensor's negation in place."""
    tensor = torch.zeros(1, device=device.torch_device)

    def calls() -> float:
        start = time.perf_counter()
        for _ in range(_CHEAP_CALLS):
            tensor.neg_()
        return time.perf_counter() - start

    bare = min(calls() for _ in range(5))
    with _profiler(device, 5) as profiler:
        profiler.step()
        watched = min(calls() for _ in range(5))
    return max(0.0, watched - bare) / _CHEAP_CALLS * 1e6


def _ask(call: Callable[..., Any], batches: Iterable[Batch], device: Device) -> None:
    with record_function(FETCH):
        batch = next(iter(batches))
    call(*batch)
    if device.synchronize is not None:
        device.synchronize()


def _interruptions() -> int:
    """How often the system gave this thread's processor to others; 0 where it does not tell."""
    if not hasattr(resource, "RUSAGE_THREAD"):
        return 0
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def _is_step(event: dict[str, Any]) -> bool:
    return event.get("cat") == "user_annotation" and _STEP.fullmatch(event["name"]) is not None


def _profiler(device: Device, steps: int) -> torch.profiler.profile:
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it tells its own progress on stderr
    activities = [ProfilerActivity.CPU]
    if device.torch_device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    return torch.profiler.profile(
        activities=activities,
        schedule=schedule(wait=0, warmup=1, active=steps + 1, repeat=1),
        record_shapes=True,
        profile_memory=True,
    )


def _write(arm: str, content: dict[str, Any], out: Path) -> Path:
    name = re.sub(r"[^\w.+=-]+", "_", arm, flags=re.ASCII)  # such as int8-linear(min_width=32)
    path = out / name / f"{name}.{time.time_ns()}.pt.trace.json"
    try:
        write_atomically(path, json.dumps(content))
    except LeanRecError as error:
        raise LeanRecError(
            error.cause, "No trace was made.", "Choose another --out folder."
        ) from error
    return path
