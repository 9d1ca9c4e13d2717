"""Whether time can be told here: the clock, the harness, the noise, and what computes."""

from __future__ import annotations

import statistics
from itertools import pairwise
from time import get_clock_info, perf_counter_ns

import numpy as np
import torch

from bench.device import Device
from bench.doctor.finding import Finding, judge, unseen
from bench.environment import usable_cores, variables
from bench.host import Host
from bench.meters.clock import overhead_ns, quiet

OVERHEAD_NS = 200  # what the harness may add to a duration
_READINGS = 200_000
_GAP_NS = 10_000  # a gap between two readings of the clock in which someone else had the core


def timing_findings(device: Device, host: Host) -> list[Finding]:
    """Every check of clocks, threads and the torch build."""
    with quiet():
        stamps = [perf_counter_ns() for _ in range(_READINGS)]
        overhead = _overhead(device)
    gaps = np.array([after - before for before, after in pairwise(stamps)])
    return [
        _source(host),
        _clock(float(np.median(gaps))),
        _noise(gaps),
        overhead,
        _threads(),
        _torch(),
    ]


def _source(host: Host) -> Finding:
    name = "clock source"
    why = "Some sources are read by a system call, which costs more than what is measured."
    if host.clock_source is None:
        return unseen(name, why)
    fix = "Boot with clocksource=tsc, if the processor's is stable."
    slow = host.clock_source in ("hpet", "acpi_pm", "jiffies")
    return judge(name, host.clock_source, why, fix, bad=slow)


def _clock(cost: float) -> Finding:
    resolution = get_clock_info("perf_counter").resolution * 1e9
    return judge(
        "clock",
        f"resolution {resolution:.0f} ns, {cost:.0f} ns a reading",
        "A duration is the difference of two readings and is no finer than they are.",
        "See the clock source.",
        warn=cost > 100 or resolution > 100,
        bad=cost > 1000 or resolution > 1000,
    )


def _noise(gaps: np.ndarray) -> Finding:
    p50, p99, p999 = np.percentile(gaps, (50, 99, 99.9))
    lost = float(gaps[gaps > _GAP_NS].sum() / gaps.sum())
    return judge(
        "timer noise",
        f"gaps of {p50:.0f} ns (median), {p99:.0f} ns (p99), {p999:.0f} ns (p99.9), "
        f"{gaps.max() / 1000:.0f} µs (longest); {lost:.1%} of the time in gaps over 10 µs",
        "A loop that only reads the clock shows when the core was taken away.",
        "Stop other work, keep to cores of your own, or move to a quieter host.",
        warn=lost > 0.01,
        bad=lost > 0.1,
    )


def _overhead(device: Device) -> Finding:
    # The median of several medians: one that fell into a disturbed moment must not decide.
    added = statistics.median(overhead_ns(None) for _ in range(5))
    observed = f"{added:.0f} ns a timed call"
    if device.synchronize is not None:
        synchronised = statistics.median(overhead_ns(device.synchronize) for _ in range(5))
        observed += f", {synchronised:.0f} ns with a synchronise of {device.name}"
    return judge(
        "harness overhead",
        observed,
        f"What the harness adds; at most {OVERHEAD_NS} ns. Cells below 100 × it are refused.",
        "Stop other work and look at the clock; a slow processor may need larger batches.",
        warn=added > OVERHEAD_NS,
        bad=added > 10 * OVERHEAD_NS,
    )


def _threads() -> Finding:
    threads, usable = torch.get_num_threads(), len(usable_cores())
    settings = ", ".join(
        f"{key}={value}" for key, value in variables().items() if key.startswith(_THREADING)
    )
    return judge(
        "threads",
        f"torch would use {threads} on {usable} usable cores; {settings or 'no variable set'}",
        "More threads than cores wait for each other at every barrier; the number is recorded "
        "with every trial, and is 1 unless you ask for more.",
        "Unset OMP_NUM_THREADS and MKL_NUM_THREADS, or set them to the cores that you own.",
        warn=threads > usable,
    )


_THREADING = ("OMP_", "MKL_", "KMP_", "GOMP_")


def _torch() -> Finding:
    capability = torch.backends.cpu.get_cpu_capability()
    onednn = torch.backends.mkldnn.is_available()
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    return judge(
        "torch",
        f"{torch.__version__}, {build} build, kernels for {capability}, "
        f"oneDNN {'present' if onednn else 'absent'}",
        "int8 and bf16 gain nothing without the vector kernels that they are made for.",
        "Install a build of torch for this processor.",
        warn=capability in ("DEFAULT", "NO AVX") or not onednn,
    )
