"""A profiling pass by torch.profiler: never a timed one, for the profiler slows what it watches.

Each arm becomes one run of TensorBoard's profiler plug-in (torch-tb-profiler): a folder with one
``*.pt.trace.json``. Open them with ``tensorboard --logdir OUT``.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity, record_function, schedule, tensorboard_trace_handler

from baselines.base import Batch
from baselines.errors import LeanRecError
from bench.device import Device

Work = tuple[Callable[..., Any], Sequence[Batch]]

WARMUP_STEPS = 3
ACTIVE_STEPS = 5


@dataclass(frozen=True)
class Profile:
    """What one arm did over ACTIVE_STEPS calls.

    trace: the file that TensorBoard opens. operators: the costliest first, each with its name,
    calls, self_us (microseconds in the operator itself, on the device), share (of all self_us)
    and flops. flops: of all operators that torch can count (matrix products and convolutions).
    """

    arm: str
    trace: Path
    operators: list[dict[str, Any]]
    flops: int


def profile(
    calls: Mapping[str, Work],
    out: Path,
    device: Device,
    top: int = 15,
) -> list[Profile]:
    """Profile each arm's call over its batches, cycled; write one trace an arm under ``out/<arm>``.

    Raises LeanRecError where `out` cannot be written.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it tells its own progress on stderr
    return [_profile_arm(arm, work, out, device, top) for arm, work in calls.items()]


def _profile_arm(arm: str, work: Work, out: Path, device: Device, top: int) -> Profile:
    call, batches = work
    name = re.sub(r"[^\w.+=-]+", "_", arm)  # an arm is a spec, such as int8-linear(min_width=32)
    folder = out / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        before = set(folder.iterdir())
    except OSError as error:
        raise LeanRecError(
            f"{folder} cannot be written: {error.strerror or error}.",
            "No trace was made.",
            "Choose another --out folder.",
        ) from error
    activities = [ProfilerActivity.CPU]
    if device.torch_device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with torch.profiler.profile(
        activities=activities,
        schedule=schedule(wait=0, warmup=WARMUP_STEPS, active=ACTIVE_STEPS, repeat=1),
        on_trace_ready=tensorboard_trace_handler(str(folder), worker_name=name),
        record_shapes=True,
        profile_memory=True,
        with_flops=True,
    ) as profiler:
        for batch in itertools.islice(itertools.cycle(batches), WARMUP_STEPS + ACTIVE_STEPS):
            with record_function(name):
                call(*batch)
            if device.synchronize is not None:
                device.synchronize()
            profiler.step()
    (trace,) = set(folder.iterdir()) - before
    _anonymise(trace)
    events = [e for e in profiler.key_averages() if not _is_frame(str(e.key), name)]
    return Profile(arm, trace, _operators(events, device)[:top], sum(e.flops for e in events))


def _anonymise(trace: Path) -> None:
    """Take the host's name and the folder out of a trace: traces get shared."""
    content = json.loads(trace.read_text(encoding="utf-8"))
    content["host_name"], content["traceName"] = "", trace.name
    trace.write_text(json.dumps(content), encoding="utf-8")


def _is_frame(key: str, name: str) -> bool:
    """Whether an event only frames the operators: the profiler's steps and our own label."""
    return key == name or key.startswith("ProfilerStep")


def _operators(events: Sequence[FunctionEventAvg], device: Device) -> list[dict[str, Any]]:
    clock = "cpu" if device.torch_device.type == "cpu" else "device"
    rows: list[dict[str, Any]] = [
        {
            "name": event.key,
            "calls": event.count,
            "self_us": float(getattr(event, f"self_{clock}_time_total")),
            "flops": event.flops,
        }
        for event in events
    ]
    total = sum(row["self_us"] for row in rows) or 1.0
    for row in rows:
        row["share"] = row["self_us"] / total
    return sorted(rows, key=lambda row: row["self_us"], reverse=True)
