"""Energy: NVML's counter of all that a GPU has drawn. Never a guess from a power limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

import pynvml

from bench.device import Device
from bench.meters.nvml import NotMeasured, open_gpu

MIN_SECONDS = 5.0  # the counter moves in steps; a shorter window would measure the steps


@dataclass(frozen=True)
class Energy:
    """Joules drawn by the whole GPU over so many seconds; None with the reason if not measured."""

    joules: float | None
    seconds: float
    reason: str = ""


def measure_energy(device: Device, work: Callable[[], object]) -> Energy:
    """Run `work` once between two readings of the counter (mJ since the driver was loaded).

    The work is run, and its seconds are given, even where its energy cannot be measured: on a
    device without the counter, or in a window below MIN_SECONDS.
    Source: NVML's documentation of nvmlDeviceGetTotalEnergyConsumption.
    """
    before, reason = _millijoules(device)
    start = perf_counter()
    work()
    if device.synchronize is not None:
        device.synchronize()
    seconds = perf_counter() - start
    if before is None:
        return Energy(None, seconds, reason)
    after, reason = _millijoules(device)
    if after is None:
        return Energy(None, seconds, reason)
    if seconds < MIN_SECONDS:
        short = f"a window of {seconds:.1f} s is too short for the counter ({MIN_SECONDS:g} s)"
        return Energy(None, seconds, short)
    return Energy((after - before) / 1000, seconds)


def _millijoules(device: Device) -> tuple[int | None, str]:
    try:
        with open_gpu(device) as gpu:
            return pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu), ""
    except NotMeasured as error:
        return None, str(error)
